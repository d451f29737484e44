"""Waiting for the two milestones of a stream, from a thread or from a loop.

Rule: a milestone is made by whoever waits first, so a stream nobody waits for has none.
Whoever reaches it sets the stream's flag before it looks for waiters, and whoever waits
makes the milestone before it looks at the flag; so none is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import wait as wait_for_futures
from threading import TIMEOUT_MAX, get_ident
from typing import Any, Literal

from ..core.base import BaseStream
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import InvalidTimeout

Milestone = Literal["_when_committed", "_when_finished"]


def reached(stream: BaseStream, milestone: Milestone) -> None:
    """Release whoever waits for this milestone."""
    future: Future[None] | None = getattr(stream, milestone)
    if future is not None:
        try:
            future.set_result(None)
        except InvalidStateError:
            pass  # two threads saw the milestone at once: the waiters are released


def future_of(stream: BaseStream, milestone: Milestone) -> Future[None]:
    """What is done when this milestone is reached, or never will be."""
    made: Future[None] = Future()
    future: Future[None] = stream.__dict__.setdefault(milestone, made)
    return future


def check_timeout(timeout: float | None) -> None:
    """Refuse what is neither None nor a number of seconds from 0 up, with `InvalidTimeout`."""
    if timeout is not None and (not isinstance(timeout, (int, float)) or not timeout >= 0):
        raise InvalidTimeout(timeout)


def _wait(
    stream: BaseStream, milestone: Milestone, timeout: float | None, is_known: Callable[[], bool]
) -> None:
    """Wait in a thread, unless it `is_known` already whether the milestone is reached."""
    check_timeout(timeout)
    future = future_of(stream, milestone)
    if not is_known():
        wait_for_futures([future], _bounded(timeout))


async def _await(
    stream: BaseStream, milestone: Milestone, timeout: float | None, is_known: Callable[[], bool]
) -> None:
    """`_wait`, awaited."""
    check_timeout(timeout)
    future = future_of(stream, milestone)
    if not is_known():
        await asyncio.wait([asyncio.wrap_future(future)], timeout=_bounded(timeout))


def _bounded(timeout: float | None) -> float | None:
    """Seconds as a clock can count them: what waits for ever in all but name is not refused."""
    return None if timeout is None else min(timeout, TIMEOUT_MAX)


class ThreadWaits(ResponseStream):
    """`wait_committed` and `wait_finished` for threads."""

    def _end(self, error: BaseException | None) -> None:
        """The body is over; with this error it is not whole."""
        raise NotImplementedError

    def _here(self) -> int:
        return get_ident()

    def _close(self) -> None:
        """What `close` does when it is not put off."""
        raise NotImplementedError

    def wait_committed(self, timeout: float | None = None) -> bool:
        _wait(self, "_when_committed", timeout, lambda: self._head is not None or self._is_over)
        return self._head is not None

    def wait_finished(self, timeout: float | None = None) -> bool:
        if self._awaits_own_close() and not self._is_over:
            self._close()
        _wait(self, "_when_finished", timeout, lambda: self._outcome is not None)
        return self._outcome is not None


class LoopWaits(AsyncResponseStream):
    """`wait_committed` and `wait_finished` for loops."""

    def _end(self, error: BaseException | None) -> None:
        """The body is over; with this error it is not whole."""
        raise NotImplementedError

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it beside the producer."""
        raise NotImplementedError

    def _here(self) -> asyncio.Task[Any] | None:
        try:
            return asyncio.current_task()
        except RuntimeError:
            return None  # a thread of a twin's

    async def _cut_late(self) -> None:
        """Cut what has failed, where nobody else does."""

    def _close(self) -> Awaitable[None]:
        """What `close` does when it is not put off."""
        raise NotImplementedError

    async def wait_committed(self, timeout: float | None = None) -> bool:
        await _await(self, "_when_committed", timeout, lambda: self._head is not None or self._is_over)
        return self._head is not None

    async def wait_finished(self, timeout: float | None = None) -> bool:
        if self._awaits_own_close() and not self._is_over:
            await self._close()
        await _await(self, "_when_finished", timeout, lambda: self._outcome is not None)
        return self._outcome is not None
