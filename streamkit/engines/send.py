"""An application that writes from its server's task, carried by the server's own `send`.

    async def app(scope, receive, send):
        stream = scope["streamkit.stream"]
        await stream.write("now\n")

`ScopeStream` stands in the scope of every request. Its `send` is the application's `send`, and
itself the application's `receive`, so that a request which does not stream costs one object.
Streams that the application makes with messages of its own are completed here on their way:
head, HTTP/1.0, HEAD, leave, error.

Rule: until something touches it, it holds a few references and looks at each message once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..core.commit import State, after
from ..core.framing import Body, Request, frame
from ..core.headers import STREAMING_TYPES, Pairs, finished, media_type_of
from ..core.stream import BaseStream, ResponseStream
from ..errors import (
    ApplicationFailed,
    BufferLimitExceeded,
    ClientDisconnected,
    ProtocolViolation,
    StreamAborted,
    StreamError,
)
from ..types import ASGIHeaders, Chunk, Message, Receive, Scope, Send
from .ending import (
    ASGI_LOG,
    fail_async,
    forget,
    is_leave,
    linger_async,
    outcome_of,
    run_commit_hooks,
    settle_async,
)
from .inbox import Inbox
from .pull import TURNS
from .spool import Spool
from .task import DONE, keep
from .twin import Twin
from .waits import LoopWaits, reached

# How far the application's own messages have come.
NEW, HELD, PASSING, CARED, DROPPING, OVER, OWN, CARRIED = range(8)

_ORDER = {
    NEW: "http.response.start",
    HELD: "http.response.body",
    PASSING: "http.response.body",
    CARED: "http.response.body",
    DROPPING: "http.response.body",
    OVER: "nothing",
    OWN: "nothing",
    CARRIED: "http.response.start",
}
_PLAIN_TYPES = frozenset({b"text/html; charset=utf-8", b"application/json", b"text/plain; charset=utf-8"})


class Loops:
    """The loop that a middleware serves, for those who ask from a worker thread.

    To ask for the running loop costs CPython 3.10 and 3.11 a system call, so it is noted at the
    lifespan's start, at the first request, and whenever a stream is committed.
    """

    __slots__ = ("loop",)

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def note(self) -> None:
        """Note the running loop."""
        self.loop = asyncio.get_running_loop()

    def known(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the calling worker thread, where that can be told."""
        anyio = sys.modules.get("anyio.from_thread")
        if anyio is not None:
            try:
                loop: asyncio.AbstractEventLoop = anyio.run_sync(asyncio.get_running_loop)
            except RuntimeError:
                pass  # not one of anyio's threads
            else:
                return loop
        return self.loop if self.loop is not None and self.loop.is_running() else None


class ScopeStream(LoopWaits):
    """`scope["streamkit.stream"]`: the response stream of this request, made on first use."""

    # What every request needs is in slots: on CPython 3.11 a default on the class makes an
    # attribute five times as slow.
    __slots__ = ("loops", "options", "phase", "scope", "server_receive", "server_send", "touched")

    imperative = True
    carried: BaseStream | None = None  # the stream of a description served inside
    outer: Any = None  # the stream of a wrap around this one
    spool: Spool | None = None  # a whole body, for HTTP/1.0
    _start: Message | None = None  # the application's start, until it is known what follows
    _inbox: Inbox | None = None
    _writer: asyncio.Task[Any] | None = None  # the task that is cut off when the client leaves
    _cut_off: bool = False
    _app_failed: int = 0
    _error: BaseException | None = None
    _ended: bool = False
    _turns: int = 0
    _sent: int = 0
    _direct: bool = False  # a chunk of bytes needs no further check
    _committing: bool = False
    _heading: asyncio.Task[None] | None = None  # sends the head beside the application
    _beside: tuple[asyncio.Task[None], ...] = ()  # and whatever else the end has to wait for
    _log = ASGI_LOG

    # Set by the middleware, which makes these objects without a call of `__init__`.
    phase: int
    touched: bool  # the end has to be told to somebody
    scope: Scope | None
    server_receive: Receive
    server_send: Send
    loops: Loops

    # -- the application's own messages

    def __call__(self) -> Awaitable[Message]:
        """ASGI's `receive` for the application."""
        return self.inbox.receive()

    @property
    def inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self.server_receive)
        return self._inbox

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's `send` for the application; the head waits until it is known whether a stream follows."""
        kind = message["type"]
        phase = self.phase
        if phase == NEW:
            if kind == "http.response.start":
                if "headers" in message:
                    for name, value in message["headers"]:
                        if name == b"content-length":
                            self.phase = PASSING
                            return self.server_send(message)
                        if name == b"content-type" and value not in _PLAIN_TYPES and _is_streaming(value):
                            return self._begin_foreign(message)
                self._start = message
                self.phase = HELD
                return DONE
        elif kind == "http.response.body" and ("more_body" not in message or not message["more_body"]):
            if phase == PASSING:
                self.phase = OVER
                self.scope = None  # it holds the stream, and must not be held by it
                return self.server_send(message)
            if phase == HELD:
                self.phase = OVER
                self.scope = None
                return _both(self.server_send, self._start, message)
        elif phase == PASSING and kind == "http.response.body":
            return self.server_send(message)
        return self._send_slowly(kind, message)

    def _send_slowly(self, kind: str, message: Message) -> Awaitable[None]:
        if kind not in ("http.response.start", "http.response.body"):
            return self.server_send(message)  # extensions go on untouched
        if self.phase == CARRIED and kind == "http.response.start":
            self.phase = PASSING
            return self.server_send(self._without_strangers(message))
        if self.phase == OWN:  # written by our own stream: theirs is dropped
            status = message.get("status", 200)
            if kind == "http.response.start" and status >= 500:
                self._app_failed = status
            return DONE
        if kind == "http.response.body" and self.phase in (HELD, CARED):
            return self._send_foreign(message)
        if kind == "http.response.body" and self.phase == DROPPING:
            if not message.get("more_body"):
                self.phase = OVER
            return DONE
        raise ProtocolViolation(
            f"ASGI messages out of order: wanted {_ORDER[self.phase]} next, got {kind} (ASGI, HTTP protocol)"
        )

    def _without_strangers(self, message: Message) -> Message:
        """The head of a description, without the ETag and Content-Length that layers have put on it."""
        assert self.carried is not None
        ours = self.carried._head
        if ours is None or message["status"] != ours[0]:
            return message  # a layer has put another response in its place
        own = {name.lower() for name, _ in ours[1]}
        if self.carried._body is Body.WHOLE:
            own.add("content-length")
        headers = [
            (name, value)
            for name, value in message["headers"]
            if name.lower() not in (b"etag", b"content-length") or name.decode("latin-1").lower() in own
        ]
        return {**message, "headers": headers}

    # -- streams of other code

    def _begin_foreign(self, message: Message) -> Awaitable[None]:
        """A stream that says so by its media type: its head need not wait for a chunk for ever."""
        self._start = message
        self.phase = CARED
        seconds = self.options.commit_after_for(media_type_of(self._foreign_type()))
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._commit_foreign_late)
        return DONE

    def _foreign_type(self) -> str:
        assert self._start is not None
        return next(
            (v.decode("latin-1") for n, v in self._start.get("headers", ()) if n.lower() == b"content-type"),
            "",
        )

    def _commit_foreign_late(self) -> None:
        if self._head is None and self.phase == CARED and not self.closed:
            keep(asyncio.get_running_loop().create_task(self._commit_foreign()))

    async def _commit_foreign(self) -> None:
        message, scope = self._start, self.scope
        if self._head is not None or message is None or scope is None:
            return
        self.phase = CARED
        self.request = Request.of_scope(scope)
        self._status = message["status"]
        pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers", ())]
        endless = media_type_of(self._foreign_type()) in STREAMING_TYPES
        http10 = self.options.http10
        self._body = frame(self.request, self._status, endless=endless, http10=http10)
        self._state = after(self._state, "commit")
        pairs = finished(pairs, self.options, self._status, self._body, foreign=True, default_type=None)
        self._head = (self._status, pairs)
        if self.outer is not None:
            self.outer.is_carried_by(self)
        if http10 == "reject" and self.request.version < (1, 1):
            self.phase = DROPPING
            await plain_answer(self.server_send, 505, "This response needs HTTP/1.1 or later.\n")
        elif self._body is Body.WHOLE:
            self.spool = Spool(self.options.http10_limit)
        else:
            await self.server_send({**message, "headers": encoded(self._head[1])})
            if self._body is not Body.STREAM:
                self.phase = DROPPING
                await self.server_send(body_message(b"", more=False))
            else:
                self.inbox.watch(self._left)

    async def _send_foreign(self, message: Message) -> None:
        if self._head is None:
            await self._commit_foreign()
        more = bool(message.get("more_body"))
        if self.phase == CARED:
            chunk = message.get("body", b"")
            if chunk:
                await self._hand_over(chunk, more=more and self.spool is None)
            if self.spool is not None and not more:
                await self._send_spool()
            elif not chunk:
                await self.server_send(message)
        if not more:
            self.phase = OVER
            await self._finish("finish")

    async def _hand_over(self, chunk: bytes, *, more: bool = True) -> None:
        if not self._connected:
            if self.ignore_disconnect:
                return
            raise ClientDisconnected
        self._tail = chunk[-1:]
        if self.spool is not None:
            await spooled(self.spool, chunk)
        else:
            try:
                await self.server_send(body_message(chunk, more=more))
            except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._connected = False
                raise ClientDisconnected from error
        self._sent += len(chunk)
        self._turns += 1
        if not self._turns % TURNS:
            await asyncio.sleep(0)

    async def _send_spool(self) -> None:
        spool, head = self.spool, self._head
        assert spool is not None
        assert head is not None
        self.spool = None
        await send_whole(self.server_send, head[0], head[1], spool)

    # -- our own stream

    def commit(self) -> Awaitable[None]:
        if self._head is not None or self.closed:
            return DONE
        waiting = self._start_commit()
        if waiting is None:
            self._fix_own_head()
        self._heading = self._keep(self._send_head(waiting, flush=True))
        return self._heading

    async def _commit(self) -> None:
        if self._heading is not None:
            await self._heading
        elif self._head is None:
            await self._send_head(self._start_commit())

    def _start_commit(self) -> Awaitable[None] | None:
        """Run the hooks of the commit, as far as they need not be awaited."""
        if self.phase != NEW:
            raise StreamError("this request is already answered by another stream or by messages of its own")
        if self._committing:
            raise StreamError("an on_commit hook may change the head, but not write the body")
        self._committing = True
        waiting: Awaitable[None] | None = None
        try:
            waiting = run_commit_hooks(self)
        finally:
            self._committing = waiting is not None
        return waiting

    def _fix_own_head(self) -> None:
        assert self.scope is not None
        self.loops.note()
        self.request = Request.of_scope(self.scope)
        self._fix_head()
        self.phase = OWN
        reached(self, "_when_committed")
        if self._body is Body.WHOLE:
            self.spool = Spool(self.options.http10_limit)
        if self.outer is not None:
            self.outer.is_carried_by(self)

    async def _send_head(self, waiting: Awaitable[None] | None = None, *, flush: bool = False) -> None:
        """Fix the head if hooks have kept it open, and send it."""
        if waiting is not None:
            try:
                await waiting
            finally:
                self._committing = False
        if self._head is None:
            self._fix_own_head()
        if self._body is Body.WHOLE:
            return
        assert self._head is not None
        status, pairs = self._head
        self._writer = None if flush else asyncio.current_task()
        await self.server_send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
        self.inbox.watch(self._left)
        if flush and self._body is Body.STREAM:
            await self.server_send(body_message(b"", more=True))  # some servers wait for a body

    def write(self, data: Chunk, /) -> Awaitable[int]:
        if (
            self._direct
            and type(data) is bytes
            and data
            and self._connected
            and self._state is State.COMMITTED
        ):
            return self._write_through(data)
        return self._write(data)

    async def _write_through(self, chunk: bytes) -> int:
        """The way of almost every chunk: nothing to check but the connection."""
        try:
            await self.server_send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._connected = False
            raise ClientDisconnected from error
        size = len(chunk)
        self._tail = chunk[-1:]
        self._sent += size
        self._turns = turns = self._turns + 1
        if not turns % TURNS:
            await asyncio.sleep(0)
        return size

    async def _write(self, data: Chunk) -> int:
        chunk = data if type(data) is bytes else self._encode(data)
        size = len(chunk)
        if self._head is None or self._heading is not None:
            self._check_open(size)
            await self._commit()
        if self._admits(size):
            if self._limit is not None:
                self._accepted += size
            await self._hand_over(chunk)
        self._direct = self._limit is None and self._body is Body.STREAM
        return size

    def close(self) -> Awaitable[None]:
        if self.closed:
            return DONE
        if self._head is None:
            return self._keep(self._close_after_commit())
        error = self._shortfall()
        if error is not None:
            raise error
        self._state = after(self._state, "finish")
        return self._keep(self._finish("finish")) if self.spool is None else DONE

    async def _close_after_commit(self) -> None:
        await self._commit()
        await self.close()

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it beside the application, and have its end awaited by `conclude`."""
        task = keep(asyncio.get_running_loop().create_task(coroutine))
        self._beside = (*self._beside, task)
        return task

    def abort(self, reason: object = None) -> None:
        if not self.closed:
            self._abort = self._error = StreamAborted(reason)
            self._state = after(self._state, "abort")

    def _end(self, error: BaseException | None) -> None:
        self._error = error
        if self._state in (State.STARTED, State.COMMITTED):
            self._state = State.FINISHED if error is None and self._head is not None else State.ABORTED

    def _left(self) -> None:
        """The client has left: whoever writes is told, and whoever waits is cut off."""
        self._connected = False
        if self._writer is not None and not self._writer.done() and not self.ignore_disconnect:
            self._cut_off = True
            self._writer.cancel()

    def is_carried_by(self, stream: BaseStream) -> None:
        """A description is served inside: its stream is the response's."""
        self.carried = stream
        if self.phase == NEW:
            self.phase = CARRIED
        if self.outer is not None:
            self.outer.is_carried_by(stream)

    def _run_late(self, hooks: list[Callable[..., Any]], *details: Any) -> None:
        for hook in hooks:
            result = hook(self, *details)
            if asyncio.iscoroutine(result):
                keep(asyncio.get_running_loop().create_task(result))

    @property
    def sync(self) -> ResponseStream:
        return Twin(self, self._loop())

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this request, asked for on it or from one of its worker threads."""
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            pass
        loop = self.loops.known()
        if loop is None:
            raise StreamError("take `stream.sync` on the event loop, and hand it to the thread that writes")
        return loop

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body that were handed to the server."""
        return 0 if self.spool is not None else self._sent

    def tell(self) -> int:
        """Bytes written so far."""
        return self._sent

    def _hooks(self, name: Any) -> Any:
        self.touched = True
        return super()._hooks(name)

    # -- the end

    async def conclude(self, error: BaseException | None) -> None:
        """The application has returned, or raised: end the response as that deserves."""
        self._writer = None
        try:
            for beside in self._beside:
                await asyncio.wait([beside])
            await self._conclude(error)
        finally:
            self.scope = None
            if self._inbox is not None:
                self._inbox.stop()
            if self.spool is not None:
                self.spool.close()

    async def _conclude(self, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            if self._cut_off:
                uncancel()
            await settle_async(self, outcome_of(self))
            if not self._cut_off:
                raise error
            return
        if error is not None and not self._connected and (self._cut_off or is_leave(self, error)):
            ASGI_LOG.debug("the client has left: %r", error)
            forget(error)
            await settle_async(self, "disconnected")
            return
        if error is None:
            error = self._unfinished()
        if self._head is None and self._state is not State.FINISHED:
            await self._conclude_uncommitted(error)
        elif self.phase == OVER:  # what happened after a complete response is the application's
            await settle_async(self, outcome_of(self))
            if error is not None:
                raise error
        else:
            await self._conclude_stream(error)

    def _unfinished(self) -> BaseException | None:
        """What an application that has returned left undone."""
        if self._app_failed and not self.closed and self._body in (Body.STREAM, Body.WHOLE):
            return ApplicationFailed(self._app_failed)
        if self.phase == OWN or self._state is not State.STARTED:
            return None
        if self.phase in (NEW, HELD) and self.carried is None:
            return ProtocolViolation(
                "the application returned without a response: "
                f"wanted {_ORDER[self.phase]} (ASGI, HTTP protocol)"
            )
        if self.phase == CARED and self._connected:
            return ProtocolViolation(
                "the application returned before the last http.response.body of its stream"
            )
        return None

    async def _conclude_uncommitted(self, error: BaseException | None) -> None:
        if self.carried is None:
            self._failed = error is not None
            await settle_async(self, outcome_of(self))
        if error is None:
            error = self._error
        if error is not None:
            raise error

    async def _conclude_stream(self, error: BaseException | None) -> None:
        if self._head is None:
            await self._commit()
        if isinstance(error, BufferLimitExceeded):
            await self._refuse(error)
            return
        if error is None and self._error is None and not self.closed:
            error = self._shortfall()
        if error is not None:
            await fail_async(self, error, self._end)
        await self._finish("finish" if self._error is None else "abort")
        failure = self._error
        if failure is not None:
            await linger_async(self)
            raise failure

    async def _refuse(self, error: BufferLimitExceeded) -> None:
        self._failed = True
        ASGI_LOG.warning("answered 505: %s", error)
        await plain_answer(
            self.server_send, 505, "This response is too long for HTTP/1.0; ask with HTTP/1.1.\n"
        )
        self._end(error)
        await settle_async(self, "failed")

    async def _finish(self, how: Any) -> None:
        """Close the body if that is still to be done, and tell whom it concerns."""
        if self._ended:
            return
        self._ended = True
        if self._inbox is not None:
            self._inbox.stop()
        if how == "finish" and self._connected and self.phase in (OWN, CARED):
            if self.spool is not None:
                await self._send_spool()
            else:
                await self.server_send(body_message(b"", more=False))
        if self._state is State.COMMITTED:
            self._state = after(self._state, how)
        await settle_async(self, outcome_of(self))


def _is_streaming(content_type: bytes) -> bool:
    return media_type_of(content_type.decode("latin-1")) in STREAMING_TYPES


def uncancel() -> None:
    """Take our own cancellation of the current task back (CPython 3.11 counts them)."""
    take_back: Callable[[], int] | None = getattr(asyncio.current_task(), "uncancel", None)
    if take_back is not None:
        take_back()


async def _both(send: Send, start: Message | None, body: Message) -> None:
    assert start is not None
    await send(start)
    await send(body)


def encoded(pairs: Pairs) -> ASGIHeaders:
    """Headers as ASGI wants them: lower-case names, and bytes."""
    return [_ENCODED.get(pair) or _encoded(pair) for pair in pairs]


_ENCODED: dict[tuple[str, str], tuple[bytes, bytes]] = {}  # fields seen before


def _encoded(pair: tuple[str, str]) -> tuple[bytes, bytes]:
    field = (pair[0].lower().encode("latin-1"), pair[1].encode("latin-1"))
    if len(_ENCODED) < 256:
        _ENCODED[pair] = field
    return field


def body_message(chunk: bytes, *, more: bool) -> Message:
    """One `http.response.body`."""
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def plain_answer(send: Send, status: int, text: str) -> None:
    """A short response in plain text, whole."""
    body = text.encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
    await send(body_message(body, more=False))


async def send_whole(send: Send, status: int, pairs: Pairs, spool: Spool) -> None:
    """Send a body that was held, with its length."""
    headers = encoded([*pairs, ("Content-Length", str(spool.size))])
    try:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in spool.pieces():
            await send(body_message(piece, more=True))
        await send(body_message(b"", more=False))
    finally:
        spool.close()


async def spooled(spool: Spool, chunk: bytes) -> None:
    """Add to a spool; the disk is not waited for on the loop."""
    if spool.on_disk:
        await asyncio.get_running_loop().run_in_executor(None, spool.write, chunk)
    else:
        spool.write(chunk)
