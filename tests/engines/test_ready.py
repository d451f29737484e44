"""What a write gives that need not wait: it can be awaited in every way, on every loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from driving import AsgiServer

import streamkit

SIZES = (1, 64, 64, 3)


async def plainly(write: Callable[[bytes], Awaitable[int]]) -> list[int]:
    return [await write(b"x" * size) for size in SIZES]


async def gathered(write: Callable[[bytes], Awaitable[int]]) -> list[int]:
    return list(await asyncio.gather(*(write(b"x" * size) for size in SIZES)))


async def with_a_limit(write: Callable[[bytes], Awaitable[int]]) -> list[int]:
    return [await asyncio.wait_for(write(b"x" * size), 20) for size in SIZES]


async def as_a_future(write: Callable[[bytes], Awaitable[int]]) -> list[int]:
    return [await asyncio.ensure_future(write(b"x" * size)) for size in SIZES]


async def twice(write: Callable[[bytes], Awaitable[int]]) -> list[int]:
    sizes = []
    for size in SIZES:
        written = write(b"x" * size)
        sizes.append(await written)
        if isinstance(written, asyncio.Future):
            assert await written == size
    return sizes


@pytest.mark.parametrize("awaiting", [plainly, gathered, with_a_limit, as_a_future, twice])
def test_a_write_is_awaited_as_any_awaitable_is(awaiting: Any) -> None:
    async def producer(stream: Any) -> None:
        assert await awaiting(stream.write) == list(SIZES)

    for _ in range(2):  # each server has a loop of its own
        with AsgiServer(streamkit.stream(producer)) as server:
            assert server.request().rest() == b"x" * sum(SIZES)


def test_two_loops_at_once_give_each_stream_what_its_own_loop_can_await() -> None:
    async def producer(stream: Any) -> None:
        for _ in range(50):
            await asyncio.wait_for(stream.write(b"x" * 7), 20)
            await asyncio.sleep(0)

    app = streamkit.stream(producer)
    with AsgiServer(app) as one, AsgiServer(app) as another:
        answers = [server.request() for server in (one, another) * 4]
        assert [answer.rest() for answer in answers] == [b"x" * 350] * 8


def test_sizes_without_number_are_not_kept_for_ever() -> None:
    from streamkit.engines.ready import ready, ready_on

    async def main() -> int:
        loop = asyncio.get_running_loop()
        kept = ready_on(loop)
        for size in range(5000):
            assert await ready(size, kept, loop) == size
        return len(kept)

    assert asyncio.run(main()) <= 1024


def test_two_loops_in_turn_keep_what_each_of_them_has() -> None:
    from streamkit.engines.ready import ready_on

    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        first = [ready_on(loop) for loop in loops]
        assert first[0] is not first[1]
        assert [ready_on(loop) for loop in loops * 2] == first * 2
        assert all(ready_on(loop) is kept for loop, kept in zip(loops, first, strict=True))
    finally:
        for loop in loops:
            loop.close()


def test_a_closed_loop_is_not_kept() -> None:
    from streamkit.engines.ready import ready_on

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ready_on(loop)
        return weakref.ref(loop)

    gone = [asyncio.run(main()) for _ in range(3)]
    asyncio.run(main())
    gc.collect()
    assert [loop() for loop in gone] == [None] * 3


def test_a_loop_that_was_closed_under_the_clock_of_its_streams_is_not_kept() -> None:
    from streamkit.engines.clock import loop_clock

    async def main() -> Any:
        loop_clock()._see_to(1.0)  # as for a stream that is open when its loop ends
        return weakref.ref(asyncio.get_running_loop())

    gone = [asyncio.run(main()) for _ in range(3)]
    asyncio.run(main())
    gc.collect()
    assert [loop() for loop in gone] == [None] * 3
