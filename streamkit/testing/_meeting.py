"""Where the test and the application wait for each other, each a thread or a task.

Rule: what is waited for is an *attempt*, a function called under the lock: it takes what it
wants and returns it, or returns None while it is not there. So nothing can come between seeing
and taking, and both sides use the same attempts, with `await` and without.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Deadline:
    """A wait of `timeout` seconds that has begun; None for one without an end."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds, from 0 up; None without an end."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def passed(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at


class Meeting:
    """A lock whose changes can be waited for by threads and by tasks of any loop."""

    def __init__(self) -> None:
        self.turn = threading.Condition()
        self._tasks: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Wake whoever waits; to be called with the lock held."""
        self.turn.notify_all()
        tasks, self._tasks = self._tasks, []
        for future in tasks:
            try:
                future.get_loop().call_soon_threadsafe(_release, future)
            except RuntimeError:
                pass  # its loop is closed, and nobody waits there any more

    def until(self, attempt: Callable[[], T | None], deadline: Deadline) -> T | None:
        """What the attempt takes; None when the time is over."""
        with self.turn:
            while (taken := attempt()) is None and not deadline.passed():
                self.turn.wait(deadline.left())
            return taken

    async def until_async(self, attempt: Callable[[], T | None], deadline: Deadline) -> T | None:
        """The same, for a task."""
        while True:
            with self.turn:
                taken = attempt()
                if taken is not None or deadline.passed():
                    return taken
                news = asyncio.get_running_loop().create_future()
                self._tasks.append(news)
            try:
                await asyncio.wait([news], timeout=deadline.left())
            finally:
                with self.turn:
                    if news in self._tasks:
                        self._tasks.remove(news)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def frames_of(awaitable: Any) -> list[FrameType]:
    """Where a suspended coroutine is, outermost first."""
    frames: list[FrameType] = []
    while awaitable is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                frames.append(frame)
                awaitable = getattr(awaitable, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await", None)
                break
        else:
            break
    return frames


def shown(stack: traceback.StackSummary) -> str:
    """The innermost calls of a stack, in one line."""
    return " < ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in reversed(stack[-4:]))
