"""Awaitables of what has happened already, and of what happens whoever waits for it.

Rule: those of the past have no state of their own, so one of each is shared by whoever awaits it.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from .compiled import STREAMS

Result = TypeVar("Result")


class _Given(Generic[Result]):
    """What gives its result as soon as it is awaited, on any loop; `_streams.c` has it compiled."""

    __slots__ = ("_result",)

    def __init__(self, result: Result) -> None:
        self._result = result

    def __await__(self) -> Generator[None, None, Result]:
        return self._result
        yield  # type: ignore[unreachable]  # makes it a generator; an empty `yield from` costs twice as much


if not TYPE_CHECKING and STREAMS is not None:
    _Given = STREAMS.Given


class Lasting:
    """A task that goes on where whoever awaits it is cut off, or tires of it."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._task).__await__()


_kept: set[asyncio.Task[Any]] = set()


def keep(task: asyncio.Task[Result]) -> asyncio.Task[Result]:
    """Hold a task that nobody may await: a loop refers to its tasks only weakly."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return task


@types.coroutine
def turn() -> Generator[None, None, None]:
    """One turn of the loop, for whoever else is ready; `asyncio.sleep(0)` makes a coroutine around this."""
    yield


DONE: Awaitable[None] = _Given(None)

# What was resolved long ago, by its result.
Ready: TypeAlias = "dict[int, Awaitable[int]]"
# In Python alone: up to 3.11 nothing is awaited in a third of the time, since then in one and a half.
_FUTURES_ARE_FASTER = sys.version_info < (3, 12) and STREAMS is None
_MOST_KEPT = 1024
_MOST_LOOPS = 16

_loops: dict[asyncio.AbstractEventLoop, Ready] = {}  # not by weak references: a future refers to its loop


def ready_on(loop: asyncio.AbstractEventLoop) -> Ready:
    """What is kept for this loop by `ready`."""
    kept = _loops.get(loop)
    if kept is None:
        for other in tuple(_loops):
            if other.is_closed() or len(_loops) >= _MOST_LOOPS:
                _loops.pop(other, None)
        kept = _loops.setdefault(loop, {})
    return kept


def ready(size: int, kept: Ready, loop: asyncio.AbstractEventLoop) -> Awaitable[int]:
    """What gives `size` at once when it is awaited on this loop."""
    given = kept.get(size)
    if given is None:
        given = _resolved(size, loop) if _FUTURES_ARE_FASTER else _Given(size)
        if len(kept) < _MOST_KEPT:
            kept[size] = given
    return given


def _resolved(size: int, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
    future = loop.create_future()
    future.set_result(size)
    return future
