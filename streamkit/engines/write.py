"""An application that writes from its server's stack, carried by the server's own `write()`.

    def app(environ, start_response):
        stream = environ["streamkit.stream"]
        stream.write("now\\n")

`RequestStream` stands in the environ of every request. Its `start` is the `start_response`
that the application gets, and itself the `write` that this returns, so that a request which
does not stream costs one object.

Rule: until something touches it, it holds three references and does nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State, after
from ..core.framing import Body
from ..core.hooks import Hook, HookName, check_hook
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import (
    ClientDisconnected,
    EngineUnavailable,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamError,
    TooManyStreams,
)
from ..syntax import status_line
from ..types import Chunk
from .answering import NO_WRITE, Answering, claiming
from .care import look_at_request
from .clock import thread_clock
from .coded import coded_write
from .ending import log_before_close, outcome_of, settle
from .handed import came_to_nothing
from .last_words import last_words
from .late import close_soon
from .line import line_of
from .registry import check_room
from .spool import Spool
from .thread import HOOK_FAILED, NOT_IN_HOOK
from .waits import reached

ANSWERED = "this request is already answered by another stream"


class RequestStream(Answering):
    """`environ["streamkit.stream"]`: the response stream of this request, made on first use."""

    __slots__ = ()

    def _hooks(self, name: HookName) -> deque[Callable[..., Any]]:
        self.plain = False
        return super()._hooks(name)

    def commit(self) -> None:
        if self._head is not None or self._is_over:
            return
        self._commit()
        if self._server_write is not None and self._body is Body.STREAM and not self.closed:
            with self._lock:
                if self._connected and not self._sent and self._takes_empty():
                    self._give(b"")  # makes most servers send the head, as an iterable's empty chunk does

    def _takes_empty(self) -> bool:
        """Whether the server takes an empty chunk for one: for eventlet it is the end of a chunked body."""
        return self.environ is not None and "eventlet.input" not in self.environ

    def _commit(self) -> None:
        """Commit, and leave it to the first chunk to take the head along."""
        if self._head is not None or self._is_over:
            return
        if self.environ is None or self.passing is not None:
            raise StreamClosed("this request is already answered: the application has returned")
        if self._is_written:
            raise StreamError(ANSWERED)
        self._prepare()
        with claiming():
            committing = self._committing
            if committing is None:
                if self.committed:  # by another thread, just now
                    return
                self._committing = turn = threading.Lock()
                turn.acquire()
                self._committer = threading.get_ident()
        if committing is None:
            self._commit_after_hooks(turn)
        elif self._committer == threading.get_ident():
            raise StreamError(NOT_IN_HOOK)
        else:
            with committing:  # as long as the hooks need
                pass
            if self._head is None and not self._is_over:
                raise StreamError(HOOK_FAILED)

    def _commit_after_hooks(self, turn: threading.Lock) -> None:
        try:
            if self.carried is not None and came_to_nothing(self.carried):
                self._take_back()
            if self.outer is not None and self.carried is None and self._foreign_write is None:
                self.outer.is_carried_by(self)
            self._call_commit_hooks()
            self._lock = threading.Lock()
            with self._lock:  # whoever sees the head waits until it is out
                self._begin()
        finally:
            self._hooks_returned(turn)
        reached(self, "_when_committed")

    def _begin(self) -> None:
        if self.options.engine == "greenlet":
            raise EngineUnavailable("this version has no greenlet engine yet: use engine='auto' or 'thread'")
        if self.carried is not None:
            raise StreamError(ANSWERED)
        try:
            check_room(self, thread_clock)
        except TooManyStreams as error:
            self.refused = error
            raise
        self._fix_head()
        assert self._head is not None
        status, pairs = self._head
        if self._body is Body.WHOLE:
            self.spool = Spool(self.options.http10_limit, self._coder_if_any())
            thread_clock.add(self)
            return
        self._server_write = self._start_server(status_line(status), pairs, None)
        if self._server_write is None:
            self._head, self._state = None, State.STARTED
            raise EngineUnavailable(NO_WRITE)
        if self._body is not Body.STREAM:
            self._server_write(b"")  # the head is all there is: most servers send it with the first chunk
        if self._coding is not None:
            self._coder = self._new_coder()
            self._server_write = coded_write(self._server_write, self._coder)
        self._direct = self._body is Body.STREAM and self._put_off is None
        if self.environ is not None:
            self._line = line_of(self.environ)
        thread_clock.add(self)

    def write(self, data: Chunk, /) -> int:
        head = self._head  # before the charset is asked for, which may change until there is one
        chunk = data if type(data) is bytes else self._encode(data)
        size = len(chunk)
        if head is None:
            self._check_open(size)
            (self._commit if size else self.commit)()
            if isinstance(data, str):
                chunk = self._encode(data)
                size = len(chunk)
        with self._lock:
            if chunk is not data and self._bom and isinstance(data, str):
                chunk = self._encode(data)  # only here is it known whether it begins the body
                size = len(chunk)
            if self._direct and size and self._connected and self._state is State.COMMITTED:
                self._give(chunk)
                self._sent += size
                self._tail = chunk[-2:]
            elif self._admits(size):
                self._send(chunk)
        return size

    def _give(self, chunk: bytes) -> None:
        self._busy = True
        try:
            self._server_write(chunk)  # type: ignore[misc]
        except Exception as error:
            # Each server has its own word for a leave; after any of them nothing more can be sent.
            self._connected = False
            self.server_error = error
            if self.ignore_disconnect:
                return
            raise ClientDisconnected from error
        finally:
            self._busy = False

    def _look(self, now: float) -> None:
        look_at_request(self, now)
        # Its client gets the end from the server's thread, as it does a head: this is for who waits beside.
        if self._is_close_due(now) and self._head is not None and self._when_finished is not None:
            close_soon(self)

    def end_early(self, ending: StreamEnded) -> None:
        """Have the application's next write refused: it runs on the server's own stack."""
        if not self._is_over and self._ending is None:
            self._ending = ending
            self._direct = False

    def give_up(self, ending: StreamEnded) -> None:
        """The client takes nothing: it is as good as gone."""
        if not self._gives_up(ending):
            return
        self._connected = self._direct = False
        if self._line is not None:
            self._line.cut()

    def _send(self, chunk: bytes) -> None:
        if self.spool is not None:
            self.spool.write(chunk)
        elif self._server_write is None:  # another thread's commit has failed
            raise EngineUnavailable(NO_WRITE)
        else:
            self._give(chunk)
        self._sent += len(chunk)
        self._tail = chunk[-2:]

    def close(self) -> None:
        if not (self._is_over or self._puts_off_close()):
            self._close()

    def _close(self) -> None:
        if self._unlogged is not None:
            log_before_close(self)
        if self._ending is not None and self._connected:
            self.say_last_words(self._ending)  # it is no whole body, though its application says so
            if self.spool is None:
                settle(self, outcome_of(self))
            return
        self._commit()
        if self._state is State.COMMITTED:
            self._state = after(self._state, "finish")
            if self.spool is None and self._connected:
                settle(self, outcome_of(self))

    def _is_at_work(self) -> bool:
        return not self.has_returned

    def say_last_words(self, ending: StreamEnded) -> None:
        """End a stream that was ended from outside as its kind does, unless it has an end already."""
        if self._is_over:
            return
        words, clean = last_words(self, ending)
        if words and self._body is Body.STREAM:
            try:
                with self._lock:  # a write of another thread's that is under way ends first
                    self._give(words)
            except ClientDisconnected:
                clean = True  # nobody is there to be told
        self._lingers = bool(words) and not clean
        self._end(None if clean else ending)

    def abort(self, reason: object = None) -> None:
        carrier = self._carrier()
        if carrier is not None:
            self._face_of(carrier).abort(reason)
            return
        if self._is_over:
            return
        self.plain = False
        self._abort = self._error = StreamAborted(reason)
        self._state = after(self._state, "abort")

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body that were handed to the server."""
        return 0 if self.spool is not None else self._sent

    def tell(self) -> int:
        """Bytes written so far."""
        return self._sent

    def is_carried_by(self, stream: BaseStream) -> None:
        """A description is served inside: its stream is the response's."""
        self.plain = False
        if self.carried is not None and came_to_nothing(self.carried):
            self._take_back()
        self.carried = stream
        self.hand_hooks_to(stream)
        if self.outer is not None:
            self.outer.is_carried_by(stream)

    def hand_hooks_to(self, stream: BaseStream) -> None:
        """Whoever waits for the moments of this response is told by the stream that carries it."""
        face = self._face_of(stream)
        self._hand_commit_hooks_to(face)
        for error_hook in self._error_hooks or ():
            face.on_error(error_hook)
        # Once the application has returned, this response is the last one.
        self._hand_finish_hooks_to(stream, gives_back=stream is not self.passing)

    def _carrier(self) -> BaseStream | None:
        return self.passing or super()._carrier()

    def _face_of(self, stream: BaseStream) -> ResponseStream:
        if isinstance(stream, AsyncResponseStream):
            return stream.sync  # its hooks run on workers, and need not be awaited
        assert isinstance(stream, ResponseStream)
        return stream

    def on_finish(self, hook: Hook) -> Hook:
        carrier = self._carrier()
        if carrier is None:
            return super().on_finish(hook)
        check_hook("on_finish", hook, awaits=self._awaits_hooks)
        self._hooks("finish").append(hook)
        self._hand_finish_hooks_to(carrier, gives_back=carrier is not self.passing)
        return hook
