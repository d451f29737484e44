"""Awaitables of what has happened already.

Rule: they have no state of their own, so one of each is shared by whoever awaits it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import TypeAlias, cast


class _Done:
    """What is through as soon as it is awaited, on any loop."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield  # what makes it a generator; an empty `yield from` costs as much as all else


@types.coroutine
def turn() -> Generator[None, None, None]:
    """One turn of the loop, for whoever else is ready; `asyncio.sleep(0)` makes a coroutine around this."""
    yield


DONE = cast("Awaitable[None]", _Done())

# Futures that were resolved long ago, by their results: nothing is awaited in a third of the time.
Ready: TypeAlias = "dict[int, asyncio.Future[int]]"
_MOST_KEPT = 1024
_MOST_LOOPS = 16

_loops: dict[asyncio.AbstractEventLoop, Ready] = {}  # not by weak references: a future refers to its loop


def ready_on(loop: asyncio.AbstractEventLoop) -> Ready:
    """The resolved futures of this loop, for `ready`."""
    kept = _loops.get(loop)
    if kept is None:
        for other in tuple(_loops):
            if other.is_closed() or len(_loops) >= _MOST_LOOPS:
                _loops.pop(other, None)
        kept = _loops.setdefault(loop, {})
    return kept


def ready(size: int, kept: Ready, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
    """A future of this loop that gives `size` at once."""
    future = kept.get(size)
    if future is None:
        future = loop.create_future()
        future.set_result(size)
        if len(kept) < _MOST_KEPT:
            kept[size] = future
    return future
