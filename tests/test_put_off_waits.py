"""Who waits for an end that was put off, and whose error it is that puts it off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until
from shapes import SYNC, Run, Serve, serving
from twinned import server_for, ways


class Boom(Exception):
    pass


@pytest.fixture(params=SYNC, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


async def closing_amid_an_error(stream: Any) -> None:
    try:
        raise Boom
    finally:
        await stream.close()


async def dealing_with_an_error(stream: Any) -> None:
    try:
        raise Boom
    except Boom:
        await stream.close()


@ways
@pytest.mark.parametrize("how", ["gather", "wait_for", "beside"])
def test_a_task_s_error_ends_no_half_body_whoever_has_written_first(way: str, how: str) -> None:
    async def writing(stream: Any, written: asyncio.Event) -> None:
        await stream.write("half")
        written.set()
        await asyncio.Event().wait()

    async def producer(stream: Any) -> None:
        if how == "beside":
            written = asyncio.Event()
            task = asyncio.create_task(writing(stream, written))
            await written.wait()
            try:
                await closing_amid_an_error(stream)
            finally:
                task.cancel()
            return
        await stream.write("half")
        failing = closing_amid_an_error(stream)
        await (asyncio.gather(failing) if how == "gather" else asyncio.wait_for(failing, 20))

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half", False, Boom)


def test_who_waits_for_the_end_gets_it_and_can_be_joined(pushed: Serve) -> None:
    told: list[bool] = []

    def program(stream: Any) -> Run:
        yield "half"
        thread = threading.Thread(target=lambda: told.append(stream.wait_finished()))
        thread.start()
        until(lambda: getattr(stream, "_origin", stream)._when_finished is not None)
        try:
            raise Boom
        finally:
            stream.close()
            thread.join()

    answer = pushed(program).finish()
    assert answer.body == b"half"
    assert until(lambda: told == [True]), told


def test_a_close_is_not_put_off_for_longer_than_an_error_needs(pushed: Serve) -> None:
    """Else who waits for what the end brings, in whatever way, would wait for itself."""
    ended = threading.Event()

    def program(stream: Any) -> Run:
        yield "all"
        try:
            raise Boom
        except Boom:
            stream.close()
        if pushed.shape.name != "wsgi-environ-write":  # there the end is sent when the application is over
            assert ended.wait(PATIENCE)

    options = {"on_finish": lambda stream: ended.set(), "heartbeat": 1}
    answer = pushed(program, options=options).finish()
    assert (answer.complete, answer.error, answer.body) == (True, None, b"all")


@ways
def test_nor_is_an_awaited_one(way: str) -> None:
    async def producer(stream: Any) -> None:
        ended = asyncio.Event()
        stream.on_finish(lambda stream: ended.set())
        await stream.write("all")
        await dealing_with_an_error(stream)
        await asyncio.wait_for(ended.wait(), PATIENCE)

    with server_for(way, producer, {"options": {"heartbeat": 1}}) as server:
        answer = server.request().finish()
    assert (answer.complete, answer.error, answer.body) == (True, None, b"all")


@ways
@pytest.mark.parametrize("how", ["itself", "gather", "polling"])
def test_a_task_that_has_dealt_with_its_error_ends_the_stream_for_who_waits_for_that(
    way: str, how: str
) -> None:
    async def feed(stream: Any) -> None:
        await stream.write("all")
        await asyncio.sleep(0.01)  # the others wait by then; a shorter one only proves less
        await dealing_with_an_error(stream)

    async def producer(stream: Any) -> None:
        if how == "gather":
            await asyncio.gather(feed(stream), stream.wait_finished())
            return
        feeding = asyncio.create_task(feed(stream))
        await stream.wait_committed()
        if how == "itself":
            await stream.wait_finished()
        else:
            while not await stream.wait_finished(0.001):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await feeding

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, answer.error) == (b"all", True, None)


def test_whoever_waits_beside_a_producer_makes_no_half_body_whole(pushed: Serve) -> None:
    def program(stream: Any) -> Run:
        thread = threading.Thread(target=stream.wait_finished, daemon=True)
        yield "half"
        thread.start()
        assert until(lambda: getattr(stream, "_origin", stream)._when_finished is not None)
        try:
            raise Boom
        finally:
            stream.close()

    answer = pushed(program).finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half", False, Boom)


@ways
@pytest.mark.parametrize("how", ["gather", "beside"])
def test_nor_does_a_task(way: str, how: str) -> None:
    async def feed(stream: Any) -> None:
        await stream.write("half")
        await asyncio.sleep(0)  # the other waits by then
        await closing_amid_an_error(stream)

    async def producer(stream: Any) -> None:
        if how == "gather":
            await asyncio.gather(stream.wait_finished(), feed(stream))
        waiting = asyncio.create_task(stream.wait_finished())
        try:
            await feed(stream)
        finally:
            waiting.cancel()

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half", False, Boom)
