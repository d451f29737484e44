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
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State, after
from ..core.compression import Coder, coder_for
from ..core.framing import Body, Request, frame
from ..core.headers import finished, is_streaming, value_of
from ..core.hooks import Hook
from ..core.marking import USED, unmarked
from ..core.request import Fields, fields_of
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import (
    ClientDisconnected,
    EngineUnavailable,
    ProtocolViolation,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamError,
    TooManyStreams,
)
from ..syntax import status_line
from ..types import Chunk, Environ, ExcInfo, StartResponse, Write, WSGIHeaders
from .care import look_at_request
from .clock import thread_clock
from .coded import coded_write
from .ending import fail, outcome_of, settle
from .handed import Handing, came_to_nothing
from .line import Line, line_of
from .registry import check_room
from .spool import Spool
from .thread import HOOK_FAILED, NOT_IN_HOOK
from .waits import ThreadWaits, reached

Answer = tuple[str, WSGIHeaders, ExcInfo | None]

_NO_WRITE = (
    "this server's start_response returns no write(), so nothing can carry the stream while the "
    "application is on the server's stack: use engine='thread', or return streamkit.stream(producer)"
)

_CLAIM = threading.Lock()  # held for the few instructions in which one thread becomes the one that commits


class RequestStream(Handing, ThreadWaits):
    """`environ["streamkit.stream"]`: the response stream of this request, made on first use."""

    # What every request needs is in slots: on CPython 3.11 a default on the class makes an
    # attribute five times as slow.
    __slots__ = ("app_headers", "app_status", "environ", "options", "plain", "start_response")

    passing: BaseStream | None = None  # the stream of the iterable that the application returned
    imperative = True
    outer: Any = None  # the stream of a wrap around this one
    refused: TooManyStreams | None = None  # it found all streams taken
    server_error: BaseException | None = None  # what the server's write() raised
    spool: Spool | None = None  # a whole body, for HTTP/1.0
    early: list[bytes] | None = None  # written by the application where the server has no write()
    _exc_info: ExcInfo | None = None  # of the application's answer
    _server_write: Write | None = None
    _server_started: bool = False
    _foreign_write: Write | None = None
    _coder: Coder | None = None  # compresses what goes through either `write`
    _error: BaseException | None = None
    _sent: int = 0
    _committing: threading.Lock | None = None  # held until the head is out, by the thread of the hooks
    _committer: int | None = None  # that thread
    _direct: bool = False  # a chunk of bytes needs no further check
    _lock: threading.Lock = threading.Lock()
    _line: Line | None = None  # the connection, where the server hands it over
    _busy: bool = False  # a chunk is on its way to the client

    # Set by the middleware: an `__init__` would cost each request a call.
    app_status: str | None  # what the application gave to start_response
    app_headers: WSGIHeaders  # the same, once there is a status
    plain: bool  # nothing has touched it: the application answers by itself
    environ: Environ | None
    start_response: StartResponse  # the server's

    # -- the application's start_response

    def start(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = None) -> Write:
        """PEP 3333's `start_response`: kept until it is known whether this is a stream."""
        if exc_info is not None or self.app_status is not None:
            self._start_for(exc_info)
        if USED and isinstance(headers, (list, tuple)):
            try:  # some layer may have kept a marked head, and send it again now
                headers = unmarked(headers)
            except (TypeError, ValueError, AttributeError):
                pass  # no list of pairs: refused when it is looked at
        self.app_status = status
        self.app_headers = headers
        return self

    @property
    def answer(self) -> Answer | None:
        """What the application gave to `start_response`."""
        return None if self.app_status is None else (self.app_status, self.app_headers, self._exc_info)

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
        passing = self.passing
        sent = passing is not None and passing._head is not None and passing._body is not Body.WHOLE
        if sent or self.early is not None or self._foreign_write is not None:
            # "if exc_info is provided and headers have been sent, it must raise" -- PEP 3333
            raise exc_info[1].with_traceback(exc_info[2])

    def __call__(self, chunk: bytes) -> None:
        """PEP 3333's `write` for applications that use it: their head leaves with the first chunk."""
        if self._foreign_write is None and self.early is None:
            self.plain = False
            self._foreign_write = self._release_foreign()
            if self._foreign_write is None:
                self.early = []
        if self.early is not None:
            self.early.append(chunk)
        elif self._foreign_write is not None:
            self._foreign_write(chunk)

    def _release_foreign(self) -> Write | None:
        """Start a body that the application writes by PEP 3333's own means: as a stream, if it is one."""
        assert self.answer is not None
        status, headers, _ = self.answer
        if value_of(headers, "content-length") is not None and not is_streaming(headers):
            return self.release()
        self._prepare()
        status, headers = self._hooked(status, headers)
        code = int(status[:3])
        body = frame(self.request, code, endless=True, http10=self.options.http10)
        coding = self._choose_coding(headers, code, body) if self.options.compress else None
        head = finished(headers, self.options, code, body, foreign=True, default_type=None, coding=coding)
        write = self.release((status, head))
        if self._coding is None:
            return write
        self._coder = coder_for(self._coding, endless=True)
        return None if write is None else coded_write(write, self._coder)

    def _hooked(self, status: str, headers: WSGIHeaders) -> tuple[str, WSGIHeaders]:
        """The application's own head, after the hooks of the commit."""
        if self.carried is not None and came_to_nothing(self.carried):
            self._take_back()
        if not self._commit_hooks:
            return status, headers
        self._status, self._pairs = int(status[:3]), headers
        if self._headers is not None:  # asked for before there was a head: they were nobody's
            del self._headers
        turn = threading.Lock()
        turn.acquire()
        self._committing, self._committer = turn, threading.get_ident()
        try:
            self._call_commit_hooks()
        finally:
            self._hooks_returned(turn)
        if self._status != int(status[:3]):
            status = status_line(self._status)
        if self._headers is not None:
            self._headers.freeze()
            headers = list(self._headers)
        return status, headers

    def release(self, head: tuple[str, WSGIHeaders] | None = None) -> Write | None:
        """Hand the application's answer (or `head` in its place) to the server."""
        assert self.answer is not None
        status, headers, exc_info = self.answer
        if head is not None:
            status, headers = head
        return self._start_server(status, headers, exc_info)

    def _start_server(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None) -> Write | None:
        if self._server_started and exc_info is None:
            unavailable = EngineUnavailable(_NO_WRITE)
            exc_info = (EngineUnavailable, unavailable, None)
        self._server_started = True
        if exc_info is None:
            return self.start_response(status, headers)
        try:
            return self.start_response(status, headers, exc_info)
        finally:
            exc_info = None

    # -- the stream

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

    def _hooks(self, name: Any) -> Any:
        self.plain = False
        return super()._hooks(name)

    def commit(self) -> None:
        if self._head is not None or self.closed:
            return
        if self.environ is None:
            raise StreamClosed("this request is already answered: the application has returned")
        self._prepare()
        with _CLAIM:
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
            if self._head is None and not self.closed:
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

    def _call_commit_hooks(self) -> None:
        while hooks := self._taken("commit"):
            for hook in hooks:
                hook(self)

    def _hooks_returned(self, turn: threading.Lock) -> None:
        with _CLAIM:
            self._committing = self._committer = None
        turn.release()

    def _begin(self) -> None:
        if self.options.engine == "greenlet":
            raise EngineUnavailable("this version has no greenlet engine yet: use engine='auto' or 'thread'")
        if self.carried is not None or self._foreign_write is not None:
            raise StreamError("this request is already answered by another stream")
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
            return
        self._server_write = self._start_server(status_line(status), pairs, None)
        if self._server_write is None:
            self._head, self._state = None, State.STARTED
            raise EngineUnavailable(_NO_WRITE)
        if self._body is not Body.STREAM:
            self._server_write(b"")  # the head is all there is: most servers send it with the first chunk
        if self._coding is not None:
            self._coder = self._new_coder()
            self._server_write = coded_write(self._server_write, self._coder)
        self._direct = self._limit is None and self._body is Body.STREAM
        if self.environ is not None:
            self._line = line_of(self.environ)
        thread_clock.add(self)

    def write(self, data: Chunk, /) -> int:
        head = self._head  # before the charset is asked for, which may change until there is one
        chunk = data if type(data) is bytes else self._encode(data)
        size = len(chunk)
        if head is None:
            self._check_open(size)
            self.commit()
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

    def end_early(self, ending: StreamEnded) -> None:
        """Have the application's next write refused: it runs on the server's own stack."""
        if not self.closed and self._ending is None:
            self._ending = ending
            self._direct = False

    def give_up(self, ending: StreamEnded) -> None:
        """The client takes nothing: it is as good as gone."""
        if self._given_up:
            return
        if self._ending is None:
            self._ending = ending
        self._given_up = True
        self._connected = self._direct = False
        if self._line is not None:
            self._line.cut()

    def _send(self, chunk: bytes) -> None:
        if self._limit is not None:
            self._accepted += len(chunk)
        if self.spool is not None:
            self.spool.write(chunk)
        elif self._server_write is None:  # another thread's commit has failed
            raise EngineUnavailable(_NO_WRITE)
        else:
            self._give(chunk)
        self._sent += len(chunk)
        self._tail = chunk[-2:]

    def close(self) -> None:
        if self.closed:
            return
        self.commit()
        error = self._shortfall()
        if error is not None:
            fail(self, error, self._end)
            raise error
        if self._state is State.COMMITTED:
            self._state = after(self._state, "finish")
            if self.spool is None and self._connected:
                settle(self, outcome_of(self))

    def abort(self, reason: object = None) -> None:
        if self.closed:
            return
        self.plain = False
        self._abort = self._error = StreamAborted(reason)
        self._state = after(self._state, "abort")

    def _end(self, error: BaseException | None) -> None:
        self._error = error
        if self._state in (State.STARTED, State.COMMITTED):
            self._state = State.FINISHED if error is None and self._head is not None else State.ABORTED

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
        for finish_hook in self._taken("finish"):
            face.on_finish(finish_hook)

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
        return self._face_of(carrier).on_finish(hook)
