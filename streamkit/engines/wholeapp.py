"""A whole WSGI application on a pooled worker, its server's thread reading what it writes.

For `engine="thread"` and servers without a `write()`.

Rule: the application's answer is kept where the middleware looks for it, and so are its hooks,
whoever is to call them; what it writes goes through the channel of a thread stream.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ..core.base import BaseStream
from ..core.framing import Body
from ..core.hooks import Hook
from ..errors import ApplicationFailed, StreamError, TooManyStreams
from ..types import Environ, WSGIApp
from .answering import code_of
from .clock import thread_clock
from .ending import close_foreign, fail, raisable
from .handed import came_to_nothing
from .pool import pool
from .registry import check_room
from .thread import ThreadStream
from .write import ANSWERED, RequestStream


class AppStream(ThreadStream):
    """`environ["streamkit.stream"]` of an application on a worker."""

    imperative = True
    request_stream: RequestStream
    returned: tuple[Any] | None = None  # what the application returned without streaming

    @property
    def carried(self) -> BaseStream | None:
        return self.request_stream.carried

    def is_carried_by(self, stream: BaseStream) -> None:
        """A description is served inside: its stream is the response's."""
        self.request_stream.is_carried_by(stream)

    @property
    def _commit_hooks(self) -> deque[Callable[..., Any]] | None:  # type: ignore[override]
        return self.request_stream._commit_hooks

    @property
    def _error_hooks(self) -> list[Callable[..., Any]] | None:  # type: ignore[override]
        return self.request_stream._error_hooks

    @property
    def _finish_hooks(self) -> deque[Callable[..., Any]] | None:  # type: ignore[override]
        return self.request_stream._finish_hooks

    def on_commit(self, hook: Hook) -> Hook:
        self.request_stream.on_commit(hook)
        if self.committed:
            self._run_late(self._taken("commit"))
        return hook

    def on_error(self, hook: Hook) -> Hook:
        self.request_stream.on_error(hook)
        if self._failure is not None and self.committed:
            self._run_late([hook], self._failure)
        return hook

    def on_finish(self, hook: Hook) -> Hook:
        self.request_stream.on_finish(hook)
        if self._outcome is not None:
            self._run_late(self._taken("finish"))
        return hook

    def commit(self) -> None:
        if self._head is None and not self._is_over:
            self._take_over()
        super().commit()

    def _commit_with(self, chunk: bytes, size: int) -> bool:
        self._take_over()
        return super()._commit_with(chunk, size)

    def _take_over(self) -> None:
        """The response is written here: what came to nothing gives its hooks back."""
        request_stream = self.request_stream
        carried = request_stream.carried
        if carried is not None and came_to_nothing(carried):
            request_stream._take_back()
        if request_stream.carried is not None or request_stream._is_written:
            raise StreamError(ANSWERED)

    def _fix_head_here(self) -> None:
        try:
            check_room(self, thread_clock)
        except TooManyStreams as error:
            self.request_stream.refused = self._refusal = error
            raise
        thread_clock.add(self)  # it is open from here on, though the server's thread does not know yet
        super()._fix_head_here()

    def start_app(self, app: WSGIApp, environ: Environ, context: Context) -> None:
        """Run the application in this context."""
        pool.submit(lambda: context.run(self._run, app, environ))

    def _run(self, app: WSGIApp, environ: Environ) -> None:
        self._at_work = threading.get_ident()
        try:
            body = app(environ, self.request_stream.start)
            self._at_work = None
            if self._put_off is not None and self._head is None and self.request_stream.answer is None:
                self.close()
            if self._head is None and self._abort is None:
                self.returned = (body,)
                self._end(None)
                if not self._connected:
                    self._drop_returned()
                return
            close_foreign(self, body)
            answer = self.request_stream.answer
            has_body = self._body in (Body.STREAM, Body.WHOLE)
            if has_body and answer is not None and not self._is_over:
                code, is_for_error = code_of(answer[0]), answer[2] is not None
                self.request_stream._exc_info = answer = None  # its frames hold the environ
                if self._is_failure(code) or is_for_error:
                    raise ApplicationFailed(code)
            self.close()
        except BaseException as error:
            self._at_work = None
            try:
                fail(self, error, self._end)
            except BaseException:  # whatever a hook does, the reader is not left waiting
                self._end(raisable(error))
                raise

    def leave(self) -> None:
        super().leave()
        if self._done:
            self._drop_returned()

    def _drop_returned(self) -> None:
        """Close what nobody will send, once."""
        returned = self.__dict__.pop("returned", None)
        if returned is not None:
            close_foreign(self, returned[0])
