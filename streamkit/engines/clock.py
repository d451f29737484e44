"""When a stream is looked at: one timer a process for threads, one for each event loop.

A stream costs no timer of its own. Every `tick` the clock looks at the open streams; what
it does about one is the stream's affair (`_look(now)`, by the rules of `care`).

Rule: a clock runs while streams are open, and a moment longer; nothing that can wait is done
on it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

_LOG = logging.getLogger("streamkit")
LONGEST_TICK = 1.0  # seconds
IDLE_SECONDS = 2.0  # a clock without streams stops after so long


class Clock:
    """The open streams of one thread or loop, and their time."""

    def __init__(self) -> None:
        self.streams: set[Any] = set()
        self._tick = LONGEST_TICK
        self._idle_since: float | None = None

    def add(self, stream: Any) -> None:
        """Look at this stream from now on, by its `_look(now)`, until it has ended."""
        options = stream.options
        if options.max_duration is not None:
            stream._deadline = time.monotonic() + options.max_duration
        self.streams.add(stream)
        stream._home = self.streams
        try:
            self._see_to(options.tick)
        except BaseException:
            self.streams.discard(stream)
            raise
        if getattr(stream, "_outcome", None) is not None:  # ended meanwhile: nobody would take it out again
            self.streams.discard(stream)

    def _see_to(self, tick: float) -> None:
        raise NotImplementedError

    def _look_at_all(self) -> bool:
        """Look at each open stream; whether the clock may stop."""
        now = time.monotonic()
        for stream in tuple(self.streams):
            try:
                stream._look(now)
            except Exception:
                # One stream's fault must not take the others' clock away.
                _LOG.exception("looking at %r failed", stream)
                self.streams.discard(stream)
        if self.streams:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= IDLE_SECONDS


class ThreadClock(Clock):
    """The clock of all streams that a thread reads or writes; it has a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._running = False

    def _see_to(self, tick: float) -> None:
        if tick < self._tick:
            self._tick = tick
            self._bell.set()
        if not self._running:
            with self._lock:
                if not self._running:
                    self._tick = min(tick, self._tick)  # the clock that has just stopped has set it back
                    self._running = True
                    try:
                        threading.Thread(target=self._run, name="streamkit-clock", daemon=True).start()
                    except Exception:  # the machine has no thread for it now
                        self._running = False
                        raise

    def _run(self) -> None:
        while True:
            if self._bell.wait(self._tick):
                self._bell.clear()
            if self._look_at_all() and self._stopped():
                return

    def _stopped(self) -> bool:
        with self._lock:
            # In this order: whoever adds a stream looks at the flag afterwards.
            self._running = False
            if self.streams:
                self._running = True
                return False
            self._tick, self._idle_since = LONGEST_TICK, None
            return True

    def forget(self) -> None:
        """After a fork: the thread and the streams exist in the parent only."""
        self.__init__()  # type: ignore[misc]


class LoopClock(Clock):
    """The clock of the streams of one event loop, by one of its timers."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: asyncio.TimerHandle | None = None
        self.hooked_in = False  # before what the server of this loop does about signals

    def _see_to(self, tick: float) -> None:
        if self._handle is not None:
            if tick >= self._tick:
                return
            self._handle.cancel()
        self._tick = min(tick, self._tick)
        self._handle = asyncio.get_running_loop().call_later(self._tick, self._strike)

    def _strike(self) -> None:
        if self._look_at_all():
            self._handle, self._tick, self._idle_since = None, LONGEST_TICK, None
        else:
            self._handle = asyncio.get_running_loop().call_later(self._tick, self._strike)


thread_clock = ThreadClock()
loop_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = WeakKeyDictionary()


_latest: tuple[asyncio.AbstractEventLoop, LoopClock] | None = None  # a process has one loop, as a rule


def known_loops() -> list[asyncio.AbstractEventLoop]:
    """The loops that have a clock, while other threads may add some, or drop them."""
    return [loop for ref in loop_clocks.keyrefs() if (loop := ref()) is not None]


def loop_clock(loop: asyncio.AbstractEventLoop | None = None) -> LoopClock:
    """The clock of this loop, or of the running one; to ask for that costs a system call on CPython 3.11."""
    global _latest
    if loop is None:
        loop = asyncio.get_running_loop()
    latest = _latest
    if latest is not None and latest[0] is loop:
        return latest[1]
    clock = loop_clocks.get(loop)
    if clock is None:
        for other in known_loops():
            if other.is_closed():  # the timer of its clock refers to it, so it would never be freed
                loop_clocks.pop(other, None)
        clock = loop_clocks[loop] = LoopClock()
    _latest = (loop, clock)
    return clock


def _forget() -> None:
    global _latest
    _latest = None
    thread_clock.forget()
    loop_clocks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
