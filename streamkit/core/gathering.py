"""What a producer of many small texts asks of its engine.

    gather = stream.gather()
    gather.parts.append("a text")       # as cheap as a list
    gather.flush()                      # all of them as one chunk, now

What stands in `parts` for some 50 ms is sent without being asked, also while the producer is
waiting for something else. Jobs that are begun with `begin` run beside the producer, and `next`
hands their results over in the order in which they become ready.

Rule: the words of both engines; how they keep them stands in `engines`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol

PIECE = 16 * 1024  # characters that are worth a chunk; TLS records and nginx's buffers are of this order


class Ready(NamedTuple):
    """A job that has ended."""

    key: Any  # as it was given to `begin`
    result: Any
    error: BaseException | None


class Gather(Protocol):
    """Of a stream that is written from a thread."""

    parts: list[str]
    taken: int  # how often the parts were taken
    on_first: Callable[[str], object] | None  # told of the first chunk, before the commit

    def flush(self, *, last: bool = False) -> None:
        """Send the parts as one chunk; waits, and raises, as `write` does.

        Unless it is the `last` for now, the reader gets a turn: a producer that only computes
        would keep it waiting.
        """

    def take_back(self) -> str:
        """The parts as one text, which will not be sent."""

    def begin(self, key: Any, job: Callable[[], Any]) -> None:
        """Run `job` on a pooled thread, in a copy of the context."""

    def next(self) -> Ready | None:
        """Wait for the next job that has ended; None if all were handed over."""

    def is_mended(self, error: BaseException) -> bool:
        """Tell the error hooks; whether there are some, and all returned: then it is logged here."""

    def close(self) -> None:
        """The producer is through: nothing more is sent."""


class AsyncGather(Protocol):
    """Of a stream that is written from a loop."""

    parts: list[str]
    taken: int
    on_first: Callable[[str], object] | None

    def push(self) -> None:
        """Send the parts as one chunk, without waiting."""

    async def flush(self, *, last: bool = False) -> None:
        """Send the parts as one chunk, and, unless it is the `last` for now, let others have their turn."""

    def take_back(self) -> str:
        """The parts as one text, which will not be sent."""

    def begin(self, key: Any, job: Coroutine[Any, Any, Any]) -> None:
        """Run `job` as a task, in a copy of the context."""

    def next(self) -> Awaitable[Ready | None]:
        """Wait for the next job that has ended; None if all were handed over."""

    async def is_mended(self, error: BaseException) -> bool:
        """Tell the error hooks; whether there are some, and all returned: then it is logged here."""

    def close(self) -> None:
        """The producer is through: nothing more is sent, and its tasks are cancelled."""
