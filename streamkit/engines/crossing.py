"""What worker threads write to a stream whose application sends by itself, on its way to the loop.

    scope["streamkit.stream"].sync.write(...)     # in a thread

Rule: threads leave chunks here and go on; one task of the loop sends them, and whoever writes or
ends on the loop waits for that task first. So the order is that of the calls.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Protocol

from ..core.commit import State
from ..errors import ClientDisconnected, StreamError
from .reading import Wake, wait_outside
from .ready import keep, turn


class Origin(Protocol):
    """The stream that threads write to, as far as it is asked here."""

    _connected: bool
    _ending: Any
    _senders: Any
    _sent: int
    _state: State
    _tail: bytes

    def _admits(self, size: int) -> bool: ...

    def _must_wait(self) -> bool:
        """Whether a thread still has somebody to wait for; raises if nothing more will be taken."""

    async def _send_crossed(self, chunk: bytes) -> bool:
        """Hand the chunk to the server, though the stream was closed meanwhile; whether it took it."""


class Crossing:
    """Chunks between the threads that write them and the task that sends them."""

    __slots__ = (
        "_chunks", "_high_water", "_is_cut", "_loop", "_origin", "_task", "_underway", "_writers", "error",
        "is_open", "mutex", "size",
    )  # fmt: skip

    def __init__(self, origin: Origin, loop: asyncio.AbstractEventLoop, high_water: int) -> None:
        self._origin = origin
        self._loop = loop
        self._high_water = high_water
        self.mutex = threading.Lock()  # no application and no server is called under it
        self.is_open = False  # a chunk of bytes needs no look at the head
        self.size = 0  # bytes that were written, and are not yet with the server
        self.error: Exception | None = None  # of a send: what follows it would stand behind a hole
        self._chunks: list[bytes] = []
        self._underway = False  # the task is at work, or called for
        self._is_cut = False  # what waited was dropped
        self._task: asyncio.Task[None] | None = None
        self._writers: tuple[Wake, ...] = ()  # wake the threads that wait for room

    # -- the threads' side

    def put(self, chunk: bytes) -> bool:
        """Take the chunk of another thread, or drop it on purpose; False where it has to go by the loop."""
        with self.mutex:
            if not self.is_open:
                return False
            origin = self._origin
            # What `_admits` asks of a stream that this is open for, written out.
            is_fine = origin._state is State.COMMITTED and origin._connected and origin._ending is None
            if not is_fine and not origin._admits(len(chunk)):
                return True
            self._chunks.append(chunk)
            size = self.size = self.size + len(chunk)
            if not self._underway:
                self._call()
            if size > self._high_water:
                self._wait_for_room()
        return True

    @property
    def tail(self) -> bytes:
        """The last two bytes of what was written."""
        with self.mutex:
            return self._chunks[-1][-2:] if self._chunks else self._origin._tail

    def _call(self) -> None:
        """Have the task begin; the mutex is held."""
        self._underway = True  # before the loop looks
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # the loop was closed under its request: nobody sends any more
            self.is_open = False
            raise ClientDisconnected from None

    def _wait_for_room(self) -> None:
        """Wait until the client has taken enough; the mutex is held before and after."""
        while self.size > self._high_water and self._origin._must_wait():
            wait_outside(self.mutex, self)
            if self._is_cut:
                self._origin._must_wait()  # it may know better why
                raise self.error or ClientDisconnected()

    # -- the loop's side

    def _begin(self) -> None:
        if self._underway and (self._task is None or self._task.done()):
            self._task = keep(self._loop.create_task(self._carry()))

    async def _carry(self) -> None:
        task, is_through = asyncio.current_task(), False  # `_task` is not set yet where tasks begin eagerly
        self._origin._senders.add(task)
        try:
            while (chunk := self._next()) is not None:
                self._note(len(chunk), await self._origin._send_crossed(chunk))
                await turn()  # for the threads to come to more: what they write meanwhile travels together
            is_through = True
        except ClientDisconnected:
            pass  # the next write finds that out for itself
        except asyncio.CancelledError:
            if self._origin._connected and not self._is_cut:  # by the server itself
                self.error = StreamError("the server has cancelled a send")
            raise
        except Exception as error:
            self.error = error
        finally:
            self._origin._senders.discard(task)
            if not is_through:
                self._shut()

    def _next(self) -> bytes | None:
        """All that waits, in one piece; None if nothing does, and the task is to end."""
        with self.mutex:
            chunks, self._chunks = self._chunks, []
            self._underway = bool(chunks)
            if not chunks:
                return None
            self._origin._tail = chunks[-1][-2:]
        return b"".join(chunks)

    def _note(self, size: int, is_sent: bool) -> None:
        with self.mutex:
            self.size -= size
            if is_sent:
                self._origin._sent += size
            self._wake_writers()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, ()
        for wake in writers:
            wake()

    def _shut(self) -> None:
        """Nothing more is sent: what waits is dropped."""
        with self.mutex:
            self.is_open = self._underway = False
            self._is_cut = True
            self._chunks = []
            self.size = 0
            self._wake_writers()

    async def empty(self) -> None:
        """Wait until all that was written so far is with the server; raises what a send has raised."""
        while True:
            with self.mutex:
                self.is_open = False  # or a thread that never pauses would be waited for without end
                if not self._underway:
                    break
            self._begin()
            assert self._task is not None
            await asyncio.wait([self._task])
        if self.error is not None:
            raise self.error

    def cut(self) -> None:
        """Take no more, and send nothing of what waits."""
        self._shut()
        if self._task is not None:
            self._task.cancel()
