"""The `start_response` of a wrapped WSGI application, and the `write` that this returns.

Rule: what the application gives is kept until it is known whether this is a stream.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State, after
from ..core.compression import Coder, coder_for
from ..core.framing import Request, frame
from ..core.headers import finished, is_streaming, value_of
from ..core.marking import USED, unmarked
from ..core.request import Fields, fields_of
from ..errors import EngineUnavailable, ProtocolViolation, TooManyStreams
from ..syntax import status_line
from ..types import ExcInfo, Write, WSGIHeaders
from .coded import coded_write
from .compiled import REQUESTS
from .handed import Handing, came_to_nothing
from .line import Line
from .passing import PassingAnswer
from .spool import Spool
from .waits import ThreadWaits, reached

Answer = tuple[str, WSGIHeaders, ExcInfo | None]

NO_WRITE = (
    "this server's start_response returns no write(), so nothing can carry the stream while the "
    "application is on the server's stack: use engine='thread', or return streamkit.stream(producer)"
)

_claim = threading.Lock()


def claiming() -> threading.Lock:
    """What is held for the few instructions in which one thread becomes the one that commits."""
    return _claim


class Answering(PassingAnswer, Handing, ThreadWaits):
    """The application's own answer, on its way to the server."""

    __slots__ = ()

    passing: BaseStream | None = None  # the stream of the iterable that the application returned
    imperative = True
    outer: Any = None  # the stream of a wrap around this one
    refused: TooManyStreams | None = None  # it found all streams taken
    server_error: BaseException | None = None  # what the server's write() raised
    spool: Spool | None = None  # a whole body, for HTTP/1.0
    early: list[bytes] | None = None  # written by the application where the server has no write()
    has_returned: bool = False  # the application, or it has raised
    told_later: bool = False  # the body tells of the end, which only it will know
    _exc_info: ExcInfo | None = None  # of the application's answer
    _server_write: Write | None = None
    _server_started: bool = False
    _foreign_write: Write | None = None
    _coder: Coder | None = None  # compresses what goes through either `write`
    _sent: int = 0
    _committing: threading.Lock | None = None  # held until the head is out, by the thread of the hooks
    _committer: int | None = None  # that thread
    _direct: bool = False  # a chunk of bytes needs no further check
    _lock: threading.Lock = threading.Lock()
    _line: Line | None = None  # the connection, where the server hands it over

    def _start_in_full(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = None) -> Write:
        """PEP 3333's `start_response`: kept until it is known whether this is a stream."""
        if exc_info is not None or self.app_status is not None:
            if exc_info is not None and self.environ is None and self.passing is None and self._coder is None:
                # The answer went on as it was. Only the server knows whether its head was sent: it takes
                # the new one, or raises. A head for a body that is compressed cannot be replaced.
                write = self.start_response(status, headers, exc_info)
                if self.told_later:
                    self.app_status, self.app_headers = status, headers
                    self.note()
                return write
            self._start_for(exc_info)
        self.app_status = status
        self.app_headers = headers
        return self

    if REQUESTS is None:
        start = _start_in_full

    @property
    def answer(self) -> Answer | None:
        """What the application gave to `start_response`."""
        if self.app_status is None:
            return None
        headers = self.app_headers
        if USED and not isinstance(headers, Iterator):  # Werkzeug's headers are no list
            try:  # some layer may have kept a marked head, and send it again now
                headers = unmarked(headers)
            except (TypeError, ValueError, AttributeError):
                pass  # no list of pairs: refused when it is looked at
        return (self.app_status, headers, self._exc_info)

    def _start_for(self, exc_info: ExcInfo | None) -> None:
        """A second call, or one for an error."""
        self.plain, self._exc_info = False, exc_info
        if self.app_status is None:
            return
        if exc_info is None:
            raise ProtocolViolation(
                "wanted one call of start_response, or exc_info with a further one; "
                "got a second call without exc_info (PEP 3333)"
            )
        if self._is_written or (self.passing is not None and self.passing._head is not None):
            # "if exc_info is provided and headers have been sent, it must raise" -- PEP 3333
            raise exc_info[1].with_traceback(exc_info[2])

    def __call__(self, chunk: bytes) -> None:
        """PEP 3333's `write` for applications that use it: their head leaves with the first chunk."""
        if not self._is_written:
            self.plain = False
            self._foreign_write = self._release_foreign()
            if self._foreign_write is None:
                self.early = []
        if self.early is not None:
            self.early.append(chunk)
        elif self._foreign_write is not None:
            self._foreign_write(chunk)
            self._sent += len(chunk)

    @property
    def _is_written(self) -> bool:
        """Whether the application's head left with what it gave to PEP 3333's `write`."""
        return self._foreign_write is not None or self.early is not None

    @property
    def is_own(self) -> bool:
        """Whether the response is written through this stream, and not by PEP 3333's own `write`."""
        return self._state is not State.STARTED and not (self._is_written and self._state is State.COMMITTED)

    def _release_foreign(self) -> Write | None:
        """Start a body that the application writes by PEP 3333's own means: as a stream, if it is one."""
        assert self.answer is not None
        self.note()
        status, headers, _ = self.answer
        if value_of(headers, "content-length") is not None and not is_streaming(headers):
            return self.release()
        self._prepare()
        status, headers = self._hooked(status, headers)
        code = code_of(status)
        body = frame(self.request, code, endless=True, http10=self.options.http10)
        coding = self._choose_coding(headers, code, body) if self.options.compress else None
        head = finished(headers, self.options, code, body, foreign=True, default_type=None, coding=coding)
        write = self.release((status, head))
        if self._coding is None:
            return write
        self._coder = coder_for(self._coding, endless=True)
        return None if write is None else coded_write(write, self._coder)

    def note(self) -> None:
        """Let the stream know the application's own head, for those who ask."""
        assert self.answer is not None
        status, self._pairs, _ = self.answer
        self._status = code_of(status)
        if self._headers is not None:  # asked for before there was a head: they were nobody's
            del self._headers

    def _hooked(self, status: str, headers: WSGIHeaders) -> tuple[str, WSGIHeaders]:
        """The application's own head, as the hooks of the commit leave it."""
        if self.carried is not None and came_to_nothing(self.carried):
            self._take_back()
        code = self._status
        if self._commit_hooks:
            turn = threading.Lock()
            turn.acquire()
            self._committing, self._committer = turn, threading.get_ident()
            try:
                self._call_commit_hooks()
            finally:
                self._hooks_returned(turn)
        if self._abort is not None:  # by a hook of the commit
            raise self._abort
        self._state = after(self._state, "commit")
        reached(self, "_when_committed")
        if self._status != code:
            status = status_line(self._status)
        if self._headers is not None:
            self._headers.freeze()
            headers = list(self._headers)
        return status, headers

    def release(self, head: tuple[str, WSGIHeaders] | None = None) -> Write | None:
        """Hand the application's answer (or `head` in its place) to the server."""
        assert self.answer is not None
        status, headers, exc_info = self.answer
        self._exc_info = None  # its frames hold the environ, which holds this
        if head is not None:
            status, headers = head
        try:
            return self._start_server(status, headers, exc_info)
        finally:
            del exc_info

    def _start_server(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None) -> Write | None:
        if self._server_started and exc_info is None:
            unavailable = EngineUnavailable(NO_WRITE)
            exc_info = (EngineUnavailable, unavailable, None)
        self._server_started = True
        if exc_info is None:
            return self.start_response(status, headers)
        try:
            return self.start_response(status, headers, exc_info)
        finally:
            exc_info = None

    def _prepare(self) -> None:
        """First use: what a stream needs that a request which does not stream never does."""
        if self.plain:
            self.plain = False
        if self.environ is not None and self.request is BaseStream.request:
            self.request = Request.of_environ(self.environ)

    def _asked(self) -> tuple[str, Fields]:
        environ = self.environ
        if environ is None:
            return super()._asked()
        return environ["REQUEST_METHOD"], fields_of(environ, encoding=True)

    def _call_commit_hooks(self) -> None:
        while hooks := self._taken("commit"):
            for hook in hooks:
                hook(self)

    def _hooks_returned(self, turn: threading.Lock) -> None:
        with claiming():
            self._committing = self._committer = None
        turn.release()


def code_of(status: Any) -> int:
    """The code of a status line; 200 for what is none, which the server will refuse."""
    return int(status[:3]) if isinstance(status, str) and status[:3].isdecimal() else 200


def _forget() -> None:
    """After a fork: who held these locks exists in the parent only."""
    global _claim
    _claim = threading.Lock()
    Answering._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
