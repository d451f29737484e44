"""The stream of an ASGI request while its application writes: silence, limits, heartbeats, the leave.

Rule: until something touches it, it holds a few references and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeAlias

from ..errors import ClientDisconnected, StreamEnded
from ..options import Options
from ..types import Receive, Send
from .care import heartbeat_of, is_past, out_of_time, silence_of, taken_for_gone, wants_heartbeat
from .clock import loop_clock
from .crossing import Crossing
from .handed import Handing
from .inbox import Inbox
from .late import close_told_async
from .logs import ASGI_LOG
from .loop import Loops
from .messages import abort_transport, body_message
from .passing import PassingMessages
from .ready import keep
from .spool import Spool
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


class Tended(PassingMessages, Handing, LoopWaits):
    """What a request's stream is made of, and what the clock and the client do to it."""

    __slots__ = ()

    imperative = True
    outer: Any = None  # the stream of a wrap around this one
    spool: Spool | None = None  # a whole body, for HTTP/1.0
    _inbox: Inbox | None = None
    _writer: asyncio.Task[Any] | None = None  # the task that is cut off when the client leaves
    _is_last: bool = False  # the application's last message is on its way
    _beating: asyncio.Task[None] | None = None  # the last heartbeat
    _cut_off: int = 0  # how often
    _app_status: int = 0  # of the answer that the application gave beside our own stream
    _ended: bool = False
    _turns: int = 0
    _sent: int = 0
    _crossing: Crossing | None = None  # what worker threads have written, on its way to the loop
    _direct: bool = False  # a chunk of bytes needs no further check
    _committing: bool = False
    _finishing: asyncio.Future[None] | None = None  # done when the end is told
    _heading: asyncio.Task[None] | None = None  # sends the head beside the application
    _beside: tuple[asyncio.Task[None], ...] = ()  # and whatever else the end has to wait for
    _log = ASGI_LOG

    middleware: Middleware

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
        outer: Tended | None = self.outer
        return (self.server_send, self.server_receive) if outer is None else outer.root

    def _attend(self) -> bool:
        """Hear the client and the clock from here on; False if the application has ended meanwhile."""
        if self._outcome is not None:
            return False
        self.inbox.watch(self._left)
        loop_clock().add(self)
        return True

    def _note_last(self) -> None:
        self._is_last = True

    # -- the clock's side

    def _look(self, now: float) -> None:
        """See to silence and limits; the application sends by itself, on this loop."""
        if is_past(self, now):
            self.end_early(out_of_time(self))
        if self._is_close_due(now):
            close_told_async(self)
        silence = silence_of(self, self._sent, now)
        if not silence:
            return
        if self._busy or (self._crossing is not None and self._crossing.size):
            if silence >= self.options.write_timeout:
                self.give_up(taken_for_gone(self))
        elif not self._is_over and wants_heartbeat(self, silence) and self.connected and self._ending is None:
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
        if self._is_over or self._ending is not None:
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
        for sender in (*self._senders, *self._beside):
            sender.cancel()
        self._interrupt()

    def _interrupt(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._cut_off += 1
            self._writer.cancel()
        else:
            self.inbox.say_left()

    def _left(self) -> None:
        """The client has left: whoever writes is told, and whoever waits is cut off."""
        if self._is_last:  # servers say so too of one that has got everything
            return
        self._connected = False
        if self._writer is not None and not self._writer.done() and not self.ignore_disconnect:
            self._cut_off += 1
            self._writer.cancel()

    def _gone(self, error: OSError) -> None:
        """The server says that the client is gone: whoever writes is told, unless it does not mind."""
        self._connected = False
        if not self.ignore_disconnect:
            raise ClientDisconnected from error
