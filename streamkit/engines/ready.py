"""Awaitables of what has happened already.

Rule: they have no state of their own, so one of each is shared, by whoever awaits it on any loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import cast


class _Ready:
    """What gives its size as soon as it is awaited, to whoever awaits it, on any loop."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __await__(self) -> Generator[None, None, int]:
        return self._size
        yield  # type: ignore[unreachable]  # what makes it a generator; an empty `yield from` costs as much as all else


READY: dict[int, _Ready] = {}


def ready(size: int) -> _Ready:
    """The awaitable of what needs no waiting; shared, because it has no state of its own."""
    ready = READY.get(size)
    if ready is None:
        ready = _Ready(size)
        if len(READY) < 4096:
            READY[size] = ready
    return ready


DONE = cast("Awaitable[None]", ready(0))  # an awaitable of what has happened already
