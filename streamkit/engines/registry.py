"""All streams that are open in this process, and their common end.

    streamkit.shutdown()                  # from a server's own hook
    streamkit.shutdown(grace=2.0)

Streams without an end of their own are ended at once, with a farewell where their media
type has one; the others may finish for `grace` seconds. SIGTERM and SIGINT do the same, where
the server has handlers of its own for them; then also to streams that are opened a little later.

Rule: a signal handler takes no lock: it only starts a thread. The server's handler is always
called, and nothing of the server is changed.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from ..core.base import BaseStream
from ..core.headers import media_type_of, value_of
from ..errors import InvalidTimeout, StreamEnded, TooManyStreams
from .clock import Clock, known_loops, loop_clocks, thread_clock
from .loop import loop_of_this_thread
from .pool import pool

_LOG = logging.getLogger("streamkit")
LOOK_EVERY = 0.02  # seconds between two looks at what is still open
LAST_MOMENT = 0.5  # seconds that streams have to say their last words; then they are cut
# Seconds that a stream which opens late has for its head, without which an end is an error page; event
# streams send theirs after one (`commit_after`).
TO_HEAD = 1.5
# Seconds after a signal for which requests that were under way may still open streams. Servers wait for
# them, gunicorn so long, uvicorn without end.
WATCH = 30.0
RETRY_AFTER = 5  # seconds; what a client is told that finds all streams taken
TOO_MANY = "Too many streams are open here; try again later.\n"

# Others of the streaming types, such as records, are exports as a rule, and have an end.
_ENDLESS = frozenset({"text/event-stream", "multipart/x-mixed-replace"})

Handler = Callable[[int, FrameType | None], Any]


def open_streams() -> list[Any]:
    """The streams that are open now, each with the loop that it belongs to, or None."""
    found: list[Any] = [(None, stream) for stream in tuple(thread_clock.streams)]
    for loop in known_loops():
        clock = loop_clocks.get(loop)
        if clock is not None and not loop.is_closed():  # else it was closed under its streams
            found.extend((loop, stream) for stream in tuple(clock.streams))
    return found


_room = threading.Lock()


def _forget() -> None:
    """After a fork: who held the lock exists in the parent only."""
    global _room
    _room = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def check_room(stream: BaseStream, clock: Clock) -> None:
    """Raise `TooManyStreams` if this stream would be one too many; else it is one of those that are open.

    Whoever asks adds it to the clock when it is there to be looked at.
    """
    limit = stream.options.max_streams
    if limit is None:
        return
    with _room:
        if len(open_streams()) >= limit:
            raise TooManyStreams(limit)
        # Not `clock.add`, which may have to start a thread, and waits for it: where the lock was made before
        # gevent patched the process, the next greenlet would stop them all for it.
        clock.streams.add(stream)
        stream._home = clock.streams


def shutdown(grace: float | None = None) -> bool:
    """End every stream that is open in this process, each with the outcome `shut_down`.

    `grace` is how many seconds those may go on that have an end of their own; None takes
    each stream's option. Waits until all have ended, and tells whether they have; on an event
    loop, which must not wait, it returns at once (False unless none was open) and a thread
    sees to the rest. Raises `InvalidTimeout`.
    """
    if grace is not None and (
        isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace < math.inf
    ):
        raise InvalidTimeout(grace)
    ours = {stream for _, stream in open_streams()}
    if not ours:
        return True
    if loop_of_this_thread() is not None:
        _thread.start_new_thread(_end_all, (grace, ours))
        return False
    return _end_all(grace, ours)


async def shutdown_async(grace: float | None = None) -> bool:
    """`shutdown`, awaited."""
    if not open_streams():
        return True
    return await asyncio.get_running_loop().run_in_executor(None, _end_all, grace)


def _end_all(grace: float | None, ours: set[Any] | None = None) -> bool:
    """End these streams; None: all, with those that are opened during the grace of the first of them."""
    ending = _Ending(grace, ours)
    is_over = ending.look()
    until = ending.latest_end
    while not is_over:
        if time.monotonic() >= until:  # else whoever goes on opening streams would hold it up for good
            ending.take_no_more()
        time.sleep(LOOK_EVERY)
        is_over = ending.look()
    return not ending.are_open


def _end_all_to_come() -> None:
    """End all streams, also those of requests that are under way and have none yet."""
    ending = _Ending(None, None)
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        ending.look()
        time.sleep(LOOK_EVERY)
    ending.take_no_more()
    while not ending.look():  # a longer grace than that is kept too
        time.sleep(LOOK_EVERY)


class _Ending:
    """The streams that are to come to their end, each by a moment of its own."""

    def __init__(self, grace: float | None, ours: set[Any] | None) -> None:
        self._grace = grace
        self._ours = ours
        self._began: float | None = None  # when it first looked
        self._ends: dict[Any, float] = {}  # when the grace of each open stream is over
        self._has_warned = False

    @property
    def are_open(self) -> bool:
        return bool(self._ends)

    @property
    def latest_end(self) -> float:
        """When the grace of the last of them is over, by the monotonic clock."""
        return max(self._ends.values(), default=0.0)

    def take_no_more(self) -> None:
        """Who opens a stream from now on is left alone."""
        self._ours = set(self._ends)

    def look(self) -> bool:
        """Tell those whose time has come; whether none is open, or none has had more time than this."""
        now = time.monotonic()
        pairs = [pair for pair in open_streams() if self._ours is None or pair[1] in self._ours]
        known = self._ends
        self._ends = {stream: known.get(stream) or self._end_of(stream, now) for _, stream in pairs}
        if self._began is None:
            self._began = now
        for loop, stream in pairs:
            end = self._ends[stream]
            if now >= end - LAST_MOMENT or _has_no_end(stream):
                _tell(loop, stream, now >= end)
        is_over = all(now >= end + LAST_MOMENT for end in self._ends.values())
        if is_over and pairs and not self._has_warned:
            self._has_warned = True
            _LOG.warning("%d streams are still open %.1f s after their end", len(pairs), now - self._began)
        return is_over

    def _end_of(self, stream: Any, now: float) -> float:
        allowed = stream.options.grace if self._grace is None else self._grace
        if self._began is None:
            return now + allowed
        moment = LAST_MOMENT if stream._head is not None else TO_HEAD + LAST_MOMENT
        return max(self._began + allowed, now + moment)  # who comes later has a moment too


def _has_no_end(stream: BaseStream) -> bool:
    """Whether waiting for the end of this body would be waiting for nothing."""
    response, head = stream.response, stream._head
    if head is None:  # to end it would be an error page: it may send its head first
        return False
    if response is not None and (response.keep_open or response.loop):
        return True
    return media_type_of(value_of(head[1], "content-type") or "") in _ENDLESS


def _tell(loop: asyncio.AbstractEventLoop | None, stream: Any, is_late: bool) -> None:
    if stream._ending is not None and not is_late:
        return
    ending = stream._ending or StreamEnded("shut_down", "the server is shutting down")
    # Who has not come to an end by the last moment has a client that takes nothing.
    act = stream.give_up if stream._ending is not None and is_late else stream.end_early
    if loop is None:
        try:
            pool.submit(partial(act, ending))  # completions may take their time, and each its own
        except RuntimeError:  # the machine has no thread for it
            act(ending)
        return
    try:
        loop.call_soon_threadsafe(act, ending)
    except RuntimeError:  # the loop was closed under its streams
        stream._go_home()


# ---------------------------------------------------------------- signals


class SignalChain:
    """Our part in what a server does about a signal."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def hook_in(self) -> None:
        """Stand before the server's handlers, where there are some and this thread may."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.SIGNALS:
            handler = signal.getsignal(number)
            # Without a handler the process ends at once, which is what its owner chose.
            if _is_of_runner(handler):
                continue  # it is gone with its loop, and the next one's is set over Python's own only
            if callable(handler) and handler is not signal.default_int_handler and type(handler) is not _Link:
                try:
                    signal.signal(number, _Link(handler))
                except ValueError:
                    return  # only the main interpreter may, and some servers have one for each application


class _Link:
    """What stands before one handler. It may be kept below another handler, or be put back later."""

    def __init__(self, below: Handler) -> None:
        self._below = below

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            _thread.start_new_thread(_end_all_to_come, ())
        except RuntimeError:
            pass  # the machine has no thread for it, and nothing may be logged here
        self._below(number, frame)


def _is_of_runner(handler: object) -> bool:
    """Whether `asyncio.run` has set this handler (CPython 3.11 and later)."""
    runner = getattr(asyncio, "Runner", None)
    of = getattr(getattr(handler, "func", None), "__self__", None)
    return runner is not None and isinstance(of, runner)


signals = SignalChain()
