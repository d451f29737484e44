"""A stream that an ASGI application makes with messages of its own: completed on its way.

Rule: until it is known whether a stream follows, the head waits; so an error until then is
still a real 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeAlias

from ..core.commit import State, after
from ..core.framing import Body, frame
from ..core.headers import STREAMING_TYPES, finished, media_type_of, value_of
from ..core.request import Fields, fields_of
from ..errors import ClientDisconnected, ProtocolViolation, StreamEnded, TooManyStreams
from ..options import Options
from ..syntax import check_status
from ..types import Message, Receive, Scope, Send
from .care import heartbeat_of, is_past, out_of_time, silence_of, taken_for_gone, wants_heartbeat
from .clock import loop_clock
from .coded import CodedSend
from .ending import ASGI_LOG, outcome_of, run_commit_hooks, settle_async
from .handed import Handing
from .inbox import Inbox
from .loop import Loops
from .messages import (
    abort_transport,
    body_message,
    encoded,
    plain_answer,
    request_of,
    send_whole,
    spooled,
    too_many,
)
from .phases import CARED, DROPPING, OVER, OWN
from .pull import TURNS
from .registry import check_room
from .spool import Spool
from .task import keep
from .waits import LoopWaits

# Where the last head that was no stream's had its Content-Type, which, where its Content-Length,
# and the name of that as it was written: the next one is most often like it.
PlainHead: TypeAlias = "tuple[int, Any, int, bytes]"
NO_HEAD: PlainHead = (0, None, 0, b"content-length")


class Middleware(Protocol):
    """What a request needs of the middleware that it came through."""

    options: Options
    loops: Loops
    plain_head: PlainHead


def no_headers(got: object) -> ProtocolViolation:
    """What to raise for a head that is none."""
    return ProtocolViolation(f"wanted headers as pairs of byte strings (ASGI, HTTP protocol), got {got!r}")


class Cared(Handing, LoopWaits):
    """The head, the chunks and the end of other people's streams: HTTP/1.0, HEAD, heartbeats, leave."""

    # What every request needs is in slots: on CPython 3.11 a default on the class makes an
    # attribute five times as slow.
    __slots__ = ("middleware", "phase", "scope", "server_receive", "server_send", "touched")

    imperative = True
    outer: Any = None  # the stream of a wrap around this one
    spool: Spool | None = None  # a whole body, for HTTP/1.0
    _start: Message | None = None  # the application's start, until it is known what follows
    _given: Message | None = None  # the same as the object that the application sent
    _inbox: Inbox | None = None
    _writer: asyncio.Task[Any] | None = None  # the task that is cut off when the client leaves
    _busy: bool = False  # a message is on its way to the server
    _beating: asyncio.Task[None] | None = None  # the last heartbeat
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

    # Set by the middleware: an `__init__` would cost each request a call.
    middleware: Middleware
    phase: int
    touched: bool  # the end has to be told to somebody
    scope: Scope | None
    server_receive: Receive
    server_send: Send

    @property
    def options(self) -> Options:  # type: ignore[override]
        return self.middleware.options

    @property
    def inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self.server_receive)
        return self._inbox

    @property
    def root(self) -> tuple[Send, Receive]:
        """The server's own `send` and `receive`, below this wrap and those around it."""
        outer: Cared | None = self.outer
        return (self.server_send, self.server_receive) if outer is None else outer.root

    # -- streams of other code

    def _begin_foreign(self, message: Message) -> Awaitable[None]:
        """A stream that says so by its media type: its head need not wait for a chunk for ever."""
        self._start = message
        self.phase = CARED
        seconds = self.options.commit_after_for(media_type_of(self._foreign_type()))
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._commit_foreign_late)
        return nothing()

    def _foreign_type(self) -> str:
        assert self._start is not None
        return next(
            (v.decode("latin-1") for n, v in self._start.get("headers", ()) if n.lower() == b"content-type"),
            "",
        )

    def _commit_foreign_late(self) -> None:
        if self._head is None and self.phase == CARED and not self.closed and self._heading is None:
            self._heading = keep(asyncio.get_running_loop().create_task(self._commit_foreign_now()))

    def _commit_foreign(self) -> Coroutine[Any, Any, None] | asyncio.Task[None]:
        if self._commit_hooks and self._heading is None:
            # They may be awaited, and the clock may come here meanwhile.
            self._heading = keep(asyncio.get_running_loop().create_task(self._commit_foreign_now()))
        return self._commit_foreign_now() if self._heading is None else self._heading

    def _take_start(self) -> None:
        """The head as the application has described it: hooks may change it."""
        message = self._start
        assert message is not None
        if self._headers is not None:  # asked for before there was a head: they were nobody's
            del self._headers
        self._status = check_status(message.get("status"))
        headers = message.get("headers", ())
        try:
            self._pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]
        except (AttributeError, TypeError, ValueError):
            raise no_headers(headers) from None

    async def _commit_foreign_now(self) -> None:
        if self._head is not None or self._start is None or self.scope is None:
            return
        self.phase = CARED
        self.request = request_of(self.scope, self.root[0])
        self._take_start()
        if self.outer is not None:
            self.outer.is_carried_by(self)
        if self._commit_hooks:
            self._committing = True
            try:
                hooks = run_commit_hooks(self)
                if hooks is not None:
                    await hooks
            finally:
                self._committing = False
        if self._abort is not None:  # by a hook of the commit
            raise self._abort
        message = self._start
        pairs = self._pairs if self._headers is None else list(self._headers)
        endless = media_type_of(value_of(pairs, "content-type") or "") in STREAMING_TYPES
        http10 = self.options.http10
        self._body = frame(self.request, self._status, endless=endless, http10=http10)
        self._state = after(self._state, "commit")
        if self._headers is not None:
            self._headers.freeze()
        coding = self._choose_coding(pairs, self._status, self._body) if self.options.compress else None
        pairs = finished(
            pairs, self.options, self._status, self._body, foreign=True, default_type=None, coding=coding
        )
        self._head = (self._status, pairs)
        if http10 == "reject" and self.request.version < (1, 1):
            self._drop()
            await plain_answer(self.server_send, 505, "This response needs HTTP/1.1 or later.\n")
            return
        try:
            check_room(self, loop_clock())
        except TooManyStreams as error:
            self._drop()
            await too_many(self.server_send, error)
            return
        self._prepare_body()
        if self.spool is None:
            await self._send_foreign_head(message)

    async def _send_foreign_head(self, message: Message) -> None:
        assert self._head is not None
        status, pairs = self._head
        try:
            await self.server_send({**message, "status": status, "headers": encoded(pairs)})
            if self._body is not Body.STREAM:
                self._drop()
                await self.server_send(body_message(b"", more=False))
                return
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._gone(error)
            return
        if self._outcome is None:  # the application may have ended meanwhile
            self.inbox.watch(self._left)
            loop_clock().add(self)

    def _prepare_body(self) -> None:
        """The head is fixed: a body that is held gets its spool, and a compressed one its context."""
        coder = self._coder_if_any()
        if self._body is Body.WHOLE:
            self.spool = Spool(self.options.http10_limit, coder)
        elif coder is not None:
            self.server_send = CodedSend(self.server_send, coder)

    def _asked(self) -> tuple[str, Fields]:
        scope = self.scope
        if scope is None:
            return super()._asked()
        return scope["method"], fields_of(scope, encoding=True)

    def _drop(self) -> None:
        """Nobody will read the body: an application that listens for the client hears that it has left."""
        self.phase = DROPPING
        self.inbox.say_left()

    async def _send_foreign(self, message: Message) -> None:
        if self._head is None:
            await self._commit_foreign()
        more = bool(message.get("more_body"))
        if not more:
            if self._ending is not None and self.phase == CARED and self._connected:
                return  # a layer ends in order what was ended from outside: `conclude` says the last words
            await self._beaten()
        if self.phase == CARED and self._abort is not None:
            raise self._abort
        if self.phase == CARED:
            chunk: Any = message.get("body", b"")
            if not isinstance(chunk, (bytes, bytearray, memoryview)):
                raise ProtocolViolation(f"wanted bytes as the body of a message (ASGI), got {chunk!r}")
            chunk = bytes(chunk)
            if chunk:
                await self._hand_over(chunk, more=more and self.spool is None)
            try:
                if self.spool is not None and not more:
                    await self._send_spool()
                elif not chunk and self.spool is None and self._connected:
                    await self.server_send(message)
            except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._gone(error)
            self._direct = self.spool is None and self._body is Body.STREAM and self._ending is None
        if not more:
            self.phase = OVER
            await self._finish("finish")

    async def _hand_over(self, chunk: bytes, *, more: bool = True) -> None:
        if not self._connected:
            if self.ignore_disconnect:
                return
            raise ClientDisconnected
        if self._ending is not None:
            raise self._ending
        self._tail = chunk[-2:]
        if self.spool is not None:
            await spooled(self.spool, chunk)
        else:
            self._busy = True
            try:
                await self.server_send(body_message(chunk, more=more))
            except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._gone(error)
                return
            finally:
                self._busy = False
        self._sent += len(chunk)
        self._turns += 1
        if not self._turns % TURNS:
            await asyncio.sleep(0)

    async def _write_through(self, chunk: bytes) -> int:
        """The way of almost every chunk: nothing to check but the connection."""
        self._busy = True
        try:
            await self.server_send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._gone(error)
            return len(chunk)
        finally:
            self._busy = False
        size = len(chunk)
        self._tail = chunk[-2:]
        self._sent += size
        self._turns = turns = self._turns + 1
        if not turns % TURNS:
            await asyncio.sleep(0)
        return size

    def _gone(self, error: OSError) -> None:
        """The server says that the client is gone: whoever writes is told, unless it does not mind."""
        self._connected = False
        if not self.ignore_disconnect:
            raise ClientDisconnected from error

    async def _send_spool(self) -> None:
        spool, head = self.spool, self._head
        assert spool is not None
        assert head is not None
        self.spool = None
        await send_whole(self.server_send, head[0], head[1], spool)

    # -- the clock's side

    def _look(self, now: float) -> None:
        """See to silence and limits; the application sends by itself, on this loop."""
        if is_past(self, now):
            self.end_early(out_of_time(self))
        silence = silence_of(self, self._sent, now)
        if not silence or self.closed:
            return
        if self._busy:
            if silence >= self.options.write_timeout:
                self.give_up(taken_for_gone(self))
        elif wants_heartbeat(self, silence) and self.connected and self._ending is None:
            self.beat()

    def beat(self) -> None:
        """Send a heartbeat beside the application, where the body has one."""
        beat = heartbeat_of(self)
        if beat is not None and not self._ended:
            self._busy = True
            self._beating = keep(asyncio.get_running_loop().create_task(self._beat(beat)))

    async def _beat(self, beat: bytes) -> None:
        try:
            await self.server_send(body_message(beat, more=True))
            self._sent += len(beat)
        except OSError:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._connected = False
        finally:
            self._busy = False

    async def _beaten(self) -> None:
        """Let a heartbeat that is on its way arrive: nothing may follow the last message."""
        if self._beating is not None and not self._beating.done():
            await asyncio.wait([self._beating])

    def end_early(self, ending: StreamEnded) -> None:
        """Have the application's next message refused; whoever waits for the client hears that it left."""
        if self.closed or self._ending is not None:
            return
        self._ending = ending
        self._direct = False
        self._interrupt()

    def give_up(self, ending: StreamEnded) -> None:
        """The client takes nothing: it is as good as gone."""
        if not self._gives_up(ending):
            return
        ASGI_LOG.debug("%s", ending)
        self._connected = self._direct = False
        abort_transport(*self.root)
        for sender in tuple(self._senders):
            sender.cancel()
        self._interrupt()

    def _interrupt(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._cut_off = True
            self._writer.cancel()
        else:
            self.inbox.say_left()

    # -- the end of either kind

    def _left(self) -> None:
        """The client has left: whoever writes is told, and whoever waits is cut off."""
        self._connected = False
        if self._writer is not None and not self._writer.done() and not self.ignore_disconnect:
            self._cut_off = True
            self._writer.cancel()

    async def _finish(self, how: Any) -> None:
        """Close the body if that is still to be done, and tell whom it concerns."""
        if self._ended:
            return
        self._ended = True
        if self._inbox is not None:
            self._inbox.stop()
        await self._beaten()
        if how == "finish" and self._connected and self.phase in (OWN, CARED):
            try:
                if self.spool is not None:
                    await self._send_spool()
                else:
                    await self.server_send(body_message(b"", more=False))
            except OSError:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._connected = False
        if self.phase == CARED:
            self.phase = DROPPING  # `close` came before the application's own end
        if self._state is State.COMMITTED:
            self._state = after(self._state, how)
        await settle_async(self, outcome_of(self))


async def nothing() -> None:
    """A message that goes no further now: a coroutine, as from a server's own `send`."""
