"""What an async body of rows does while its client is slow: against a stream that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from driving import PATIENCE

from streamkit.downloads import batches
from streamkit.downloads.rows import CsvPen
from streamkit.errors import ClientDisconnected, StreamClosed

FOREVER = 1e9


class SlowStream:
    """Takes its first chunk at once, and each further one when it is told to."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.waiting: list[bytes] = []
        self.turns = asyncio.Semaphore(1)
        self.fault: Exception | None = None  # what a write raises

    async def write(self, chunk: bytes) -> int:
        if self.fault is not None:
            raise self.fault
        self.waiting.append(chunk)
        try:
            await self.turns.acquire()
        finally:
            self.waiting.remove(chunk)
        self.taken.append(chunk)
        return len(chunk)


looks: list[object] = []  # one for each time that the timer of a body has struck


@pytest.fixture(autouse=True)
def short_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    send_now = batches._Sender._send_now

    def noted(sender: Any) -> None:
        send_now(sender)
        looks.append(sender)

    looks.clear()
    monkeypatch.setattr(batches._Sender, "_send_now", noted)
    monkeypatch.setattr(batches, "MOMENT", 0.001)
    monkeypatch.setattr(batches, "monotonic", lambda: 0.0)  # the timer alone decides


async def until(true: Callable[[], object]) -> None:
    async def asking() -> None:
        while not true():  # noqa: ASYNC110  # there is no event for what it asks
            await asyncio.sleep(0)

    await asyncio.wait_for(asking(), PATIENCE)


async def timer_strikes(times: int = 1) -> None:
    wanted = len(looks) + times
    await until(lambda: len(looks) >= wanted)


def run(
    story: Callable[[SlowStream, asyncio.Queue[Any], asyncio.Task[None]], Awaitable[None]], **more: Any
) -> None:
    """Tell a story of a stream, the queue that its rows come from, and the body's task."""

    async def main() -> None:
        batches.MOMENT = more.get("moment", batches.MOMENT)  # the fixture puts it back
        stream: Any = SlowStream()
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def rows() -> AsyncIterator[Any]:
            while (row := await queue.get()) is not None:
                yield [row]

        pen: Any = lambda first: CsvPen(first, None, "excel", "utf-8")  # noqa: E731
        body = batches.AsyncBatches(rows(), pen, more.get("on_progress"))
        task = asyncio.ensure_future(body(stream))
        queue.put_nowait(1)
        await until(lambda: stream.taken == [b"1\r\n"])
        await story(stream, queue, task)
        assert task.done()

    asyncio.run(main())


def test_while_a_chunk_waits_for_a_slow_client_the_rows_after_it_gather():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        queue.put_nowait(2)
        await until(lambda: stream.waiting == [b"2\r\n"])
        queue.put_nowait(3)
        await timer_strikes(2)
        queue.put_nowait(4)
        await until(queue.empty)
        assert (stream.taken, stream.waiting) == ([b"1\r\n"], [b"2\r\n"])
        stream.turns.release()
        await until(lambda: stream.waiting == [b"3\r\n4\r\n"])
        stream.turns.release()
        queue.put_nowait(None)
        await task
        assert stream.taken == [b"1\r\n", b"2\r\n", b"3\r\n4\r\n"]

    run(story)


def test_the_end_waits_for_the_chunk_that_is_on_its_way():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        queue.put_nowait(2)
        await until(lambda: stream.waiting)
        queue.put_nowait(3)
        queue.put_nowait(None)
        await until(queue.empty)
        for _ in range(2):
            stream.turns.release()
        await task
        assert stream.taken == [b"1\r\n", b"2\r\n", b"3\r\n"]

    run(story)


def test_a_body_that_is_cancelled_lets_go_of_the_chunk_on_its_way():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        queue.put_nowait(2)
        await until(lambda: stream.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (stream.taken, stream.waiting) == ([b"1\r\n"], [])

    run(story)


def test_what_fails_by_the_timer_is_raised_with_the_next_chunk_and_sends_nothing_more():
    def on_progress(rows: int, sent: int) -> None:
        if rows == 2:
            raise LookupError

    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        for _ in range(9):
            stream.turns.release()
        queue.put_nowait(2)
        await until(lambda: len(stream.taken) == 2)
        queue.put_nowait(3)
        await timer_strikes()
        queue.put_nowait(None)
        with pytest.raises(LookupError):
            await task
        assert stream.taken == [b"1\r\n", b"2\r\n"]

    run(story, on_progress=on_progress)


def test_what_fails_while_a_chunk_is_on_its_way_is_raised_after_it_and_what_has_gathered():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        queue.put_nowait(2)
        await until(lambda: stream.waiting)
        queue.put_nowait(3)
        queue.put_nowait(BadText())
        await until(queue.empty)
        stream.turns.release()
        await until(lambda: stream.waiting == [b"3\r\n"])
        assert not task.done()
        stream.turns.release()
        with pytest.raises(LookupError):
            await task
        assert stream.taken == [b"1\r\n", b"2\r\n", b"3\r\n"]

    run(story)


@pytest.mark.parametrize("gone", [ClientDisconnected(), StreamClosed("ended")], ids=repr)
def test_what_fails_is_raised_also_when_the_rows_before_it_find_nobody(gone: Exception):
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        stream.fault = gone
        queue.put_nowait(2)
        queue.put_nowait(BadText())
        with pytest.raises(LookupError) as caught:
            await task
        assert caught.value.__context__ is None
        assert stream.taken == [b"1\r\n"]

    run(story, moment=FOREVER)


def test_a_body_that_is_cancelled_while_it_sends_the_rows_before_a_failure_sends_no_more():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        queue.put_nowait(2)
        queue.put_nowait(BadText())
        await until(lambda: stream.waiting == [b"2\r\n"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (stream.taken, stream.waiting) == ([b"1\r\n"], [])

    run(story, moment=FOREVER)


def test_after_sending_has_failed_the_rows_that_have_gathered_are_not_sent():
    def on_progress(rows: int, sent: int) -> None:
        if rows == 2:
            raise LookupError

    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        for _ in range(9):
            stream.turns.release()
        queue.put_nowait(2)
        await until(lambda: len(stream.taken) == 2)
        queue.put_nowait("x" * batches.CHUNK)  # so many that they are to be sent now
        with pytest.raises(LookupError):
            await asyncio.wait_for(task, PATIENCE)
        assert stream.taken == [b"1\r\n", b"2\r\n"]

    run(story, on_progress=on_progress)


def test_what_the_timer_cannot_encode_is_raised_and_no_row_after_it_is_sent():
    async def story(stream: SlowStream, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        for _ in range(9):
            stream.turns.release()
        queue.put_nowait(2)
        queue.put_nowait("\udc80")
        await until(lambda: len(stream.taken) == 2)
        queue.put_nowait(4)
        await timer_strikes()
        queue.put_nowait(None)
        with pytest.raises(UnicodeEncodeError):
            await task
        assert stream.taken == [b"1\r\n", b"2\r\n"]

    run(story)


class BadText:
    def __str__(self) -> str:
        raise LookupError


def test_rows_that_never_wait_gather_for_no_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []
    seconds = count()
    monkeypatch.setattr(batches, "MOMENT", 0.5)
    monkeypatch.setattr(batches, "monotonic", lambda: next(seconds))  # each row takes its time

    class Ready:
        async def write(self, chunk: bytes) -> int:
            taken.append(chunk)
            return len(chunk)

    async def rows() -> AsyncIterator[Any]:
        for number in range(3):
            yield [number]

    async def main() -> None:
        pen: Any = lambda first: CsvPen(first, None, "excel", "utf-8")  # noqa: E731
        stream: Any = Ready()
        await asyncio.wait_for(batches.AsyncBatches(rows(), pen, None)(stream), PATIENCE)

    asyncio.run(main())
    assert taken == [b"0\r\n", b"1\r\n", b"2\r\n"]
