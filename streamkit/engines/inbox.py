"""One `receive()` for two: the application, and whoever watches for the client's leave.

Some servers report a disconnect only once, and a request body must not be lost to a
watcher; so everything is received here, kept for the application, and a disconnect is
latched and repeated for whoever asks.

Rule: at most one `receive()` of the server is under way, and at most `READ_AHEAD` bytes of
a request body are held for an application that does not ask for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from ..types import Message, Receive
from .messages import uncancel

READ_AHEAD = 64 * 1024  # bytes; uvicorn pauses reading at as many
WATCH_AFTER = 0.02  # seconds, or twice as many; most responses are over by then and need no watcher
SHORT = 16  # messages of a body: a longer one has a use for a watcher at once


class Beginning:
    """The inboxes of one loop whose watch is to begin soon; most are over by then, and need no timer each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._early: set[Inbox] = set()
        self._late: set[Inbox] = set()  # which were there when the timer struck last
        self._timer: asyncio.TimerHandle | None = None

    def add(self, inbox: Inbox) -> None:
        self._early.add(inbox)
        if self._timer is None:
            self._timer = self._loop.call_later(WATCH_AFTER, self._strike)

    def discard(self, inbox: Inbox) -> None:
        self._early.discard(inbox)
        self._late.discard(inbox)

    def _strike(self) -> None:
        due, self._late, self._early = self._late, self._early, set()
        self._timer = self._loop.call_later(WATCH_AFTER, self._strike) if self._late else None
        for inbox in due:
            if inbox._beginning is self:  # not stopped by what another one has begun
                inbox.start_watching()


_latest: Beginning | None = None  # a process has one loop, as a rule


def _beginning_on(loop: asyncio.AbstractEventLoop) -> Beginning:
    global _latest
    latest = _latest
    if latest is None or latest._loop is not loop:
        _latest = latest = Beginning(loop)
    return latest


class Inbox:
    """What a server has to say about one request; kept where the application may ask for it."""

    __slots__ = (
        "_beginning", "_ends", "_held", "_held_bytes", "_keeps", "_on_leave", "_receive", "_receiver",
        "_receiving", "_waiting", "_watcher", "disconnected",
    )  # fmt: skip

    def __init__(self, receive: Receive, *, keeps: bool = True) -> None:
        self._receive = receive
        self._keeps = keeps
        self._held: deque[Message] | None = None  # an empty one is 700 bytes
        self._held_bytes = 0
        self._ends = 0  # how often the server has said that the request is whole
        self._receiving = False
        self._waiting: tuple[asyncio.Future[None], ...] = ()
        self._on_leave: Callable[[], object] | None = None
        self._beginning: Beginning | None = None  # among which it waits for its watch to begin
        self._watcher: asyncio.Task[None] | None = None
        self._receiver: asyncio.Task[Any] | None = None  # the application's, while it waits for the server
        self.disconnected = False

    async def receive(self) -> Message:
        """The next message for the application."""
        while True:
            if self._held:
                message = self._held.popleft()
                self._held_bytes -= len(message.get("body", b""))
                self._wake()
                return message
            if self.disconnected:
                return {"type": "http.disconnect"}
            if self._receiving:
                await self._changed()
                continue
            self._receiver = asyncio.current_task()
            try:
                return await self._next()
            except asyncio.CancelledError:
                if self._receiver is not None:
                    raise
                uncancel()  # by `say_left`
            finally:
                self._receiver = None

    def say_left(self) -> None:
        """Tell the application, and whoever watches, that the client has left, though it has not."""
        self.disconnected = True
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.cancel()
        self._wake()

    def watch(self, on_leave: Callable[[], object], *, at_once: bool = False) -> None:
        """Call `on_leave()` when the client leaves, until `stop`; begins at once, or after `WATCH_AFTER`."""
        self._on_leave = on_leave
        if self.disconnected:
            on_leave()
        elif at_once:
            self.start_watching()
        else:
            self._beginning = beginning = _beginning_on(asyncio.get_running_loop())
            beginning.add(self)

    def stop(self) -> None:
        """Watch no more."""
        self._on_leave = None
        if self._beginning is not None:
            self._beginning.discard(self)
            self._beginning = None
        if self._watcher is not None:
            self._watcher.cancel()

    def hasten(self) -> None:
        """Begin the watch now, if it waits to begin: this response is a longer one."""
        if self._beginning is not None:
            self._beginning.discard(self)
            self.start_watching()

    def start_watching(self) -> None:
        self._beginning = None
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="streamkit-watcher")

    async def _watch(self) -> None:
        # Who says twice that the request is whole will say so for ever, as a test's `receive` may, at once.
        while not self.disconnected and self._ends < 2:
            if self._receiving or self._held_bytes > READ_AHEAD:
                await self._changed()
                continue
            # Written out, as in `_next`: this is what an idle stream waits in.
            self._receiving = True
            try:
                self._hold(self._noted(await self._receive()))
            finally:
                self._receiving = False
                self._wake()

    async def _next(self) -> Message:
        self._receiving = True
        try:
            return self._noted(await self._receive())
        finally:
            self._receiving = False
            self._wake()

    def _noted(self, message: Message) -> Message:
        if message["type"] == "http.disconnect":
            self.disconnected = True
            if self._on_leave is not None:
                self._on_leave()
        elif message["type"] == "http.request" and not message.get("more_body"):
            self._ends += 1
        return message

    def _hold(self, message: Message) -> None:
        """Keep a message for the application; where nobody can ask for it, its length still counts."""
        if message["type"] == "http.disconnect":
            return
        if self._keeps:
            if self._held is None:
                self._held = deque()
            self._held.append(message)
        self._held_bytes += len(message.get("body", b""))

    async def _changed(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting += (future,)
        await future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for future in waiting:
            if not future.done():
                future.set_result(None)
