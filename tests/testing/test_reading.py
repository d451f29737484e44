"""What comes is read as it comes, by both clients and from both interfaces."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import streamkit
from streamkit.errors import ProtocolViolation
from streamkit.testing import Client, NotOpen

from .ways import WAYS, Way, asgi_app, got, soon

SHORT = 0.05  # seconds, for waits that are to be in vain


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


class Made:
    """Parts that note when they are made; endless, unless a number is said."""

    def __init__(self, count: int | None = None) -> None:
        self.count, self.made, self.closed = count, 0, threading.Event()

    def __call__(self) -> Iterator[bytes]:
        try:
            while self.count is None or self.made < self.count:
                self.made += 1
                yield b"%d" % self.made
        finally:
            self.closed.set()


def test_the_first_chunk_arrives_before_the_second_is_made(way: Way) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"1"
        assert parts.made == 1
        assert await got(connection.next_chunk()) == b"2"
        assert parts.made == 2

    way.play(scene, way.app(parts))


def test_nothing_is_made_for_a_test_that_only_looks(way: Way) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.wait_head()) == 200
        assert connection.status == 200
        assert connection.headers["content-type"] == "text/plain"
        assert not await soon(lambda: parts.made > 1, SHORT)
        assert await got(connection.next_chunk()) == b"1"

    way.play(scene, way.app(parts))


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_application_is_let_run_ahead_as_far_as_was_said(way: Way, ahead: int) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await soon(lambda: parts.made == ahead)
        assert not await soon(lambda: parts.made > ahead, SHORT)
        assert await got(connection.next_chunk()) == b"1"
        assert await soon(lambda: parts.made == ahead + 1)
        assert not await soon(lambda: parts.made > ahead + 1, SHORT)
        assert [await got(connection.next_chunk()) for _ in range(5)] == [b"%d" % n for n in range(2, 7)]

    way.play(scene, way.app(parts), read_ahead=ahead)


def test_a_body_that_ends_gives_none_again_and_again(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert [await got(connection.next_chunk()) for _ in range(4)] == [b"1", b"2", None, None]
        assert (connection.complete, connection.ended, connection.error) == (True, True, None)
        await got(connection.wait_closed())
        assert connection.closed

    way.play(scene, way.app(Made(2)))


def test_a_connection_is_iterable(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        chunks = [c for c in connection] if way.client is Client else [c async for c in connection]  # noqa: C416
        assert chunks == [b"1", b"2", b"3"]

    way.play(scene, way.app(Made(3)))


def test_the_rest_of_a_body_is_read_in_one(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"1"
        assert await got(connection.read()) == b"23"
        assert await got(connection.read()) == b""

    way.play(scene, way.app(Made(3)))


def test_a_reading_in_vain_loses_nothing(way: Way) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        with pytest.raises(TimeoutError, match=r"wanted the end of the body within 0.05 s, but so far"):
            await got(connection.read(SHORT))
        with pytest.raises(ValueError, match="passed the 3 bytes"):
            await got(connection.read(limit=3))
        assert await got(connection.next_chunk()) == b"1"
        assert await got(connection.next_chunk()) == b"2"

    way.play(scene, way.app(parts))


def test_a_silent_application_is_not_waited_for_longer_than_was_said(way: Way) -> None:
    go_on = threading.Event()

    def producer(stream: streamkit.ResponseStream) -> None:
        stream.write("one")
        assert go_on.wait(20)
        stream.write("two")

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"one"
        with pytest.raises(TimeoutError) as late:
            await got(connection.next_chunk(timeout=SHORT))
        wanted, came = str(late.value).split(", but ")
        assert wanted == "wanted a chunk or the end of the body within 0.05 s"
        assert came.startswith("so far: status 200, 3 bytes read in 1 chunks")
        go_on.set()
        assert await got(connection.next_chunk()) == b"two"

    way.play(scene, streamkit.stream(producer))


def test_a_head_that_does_not_come_is_not_waited_for_longer_than_was_said(way: Way) -> None:
    go_on = threading.Event()

    def producer(stream: streamkit.ResponseStream) -> None:
        assert go_on.wait(20)
        stream.write("late")

    async def scene(client: Any) -> None:
        connection = client.get("/")
        with pytest.raises(TimeoutError, match=r"within 0.05 s, but the application has not started"):
            await got(connection.wait_head(SHORT))
        go_on.set()
        assert await got(connection.wait_head()) == 200
        assert await got(connection.read()) == b"late"

    way.play(scene, streamkit.stream(producer))


def test_a_disconnect_closes_what_makes_the_chunks(way: Way) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"1"
        connection.disconnect()
        connection.disconnect()
        await got(connection.wait_closed())
        assert (connection.closed, connection.ended, connection.complete) == (True, True, False)
        with pytest.raises(NotOpen, match="disconnected by the test"):
            await got(connection.next_chunk())

    way.play(scene, way.app(parts))
    assert parts.closed.is_set()


def test_a_wait_for_the_end_of_a_body_that_nobody_reads_says_what_to_do(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"1"
        with pytest.raises(TimeoutError, match=r"1 chunks.*: read to the end, or disconnect, before$"):
            await got(connection.wait_closed(SHORT))
        connection.disconnect()
        await got(connection.wait_closed())

    way.play(scene, way.app(Made()))


def test_a_connection_that_is_left_by_its_block_is_disconnected(way: Way) -> None:
    parts = Made()

    async def scene(client: Any) -> None:
        if way.client is Client:
            with client.get("/") as connection:
                assert connection.next_chunk() == b"1"
        else:
            async with client.get("/") as connection:
                assert await connection.next_chunk() == b"1"
        assert connection.closed
        await got(connection.close())

    way.play(scene, way.app(parts))
    assert parts.closed.is_set()


def test_an_error_of_the_application_is_raised_where_its_chunks_end(way: Way) -> None:
    boom = RuntimeError("boom")

    def parts() -> Iterator[bytes]:
        yield b"so far"
        raise boom

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"so far"
        for _ in range(2):
            with pytest.raises(RuntimeError) as raised:
                await got(connection.next_chunk())
            assert raised.value is boom
        assert (connection.error, connection.complete) == (boom, False)
        assert connection.status == 200

    way.play(scene, way.app(parts))


def test_an_error_before_the_head_is_raised_in_place_of_it(way: Way) -> None:
    boom = RuntimeError("boom")

    def parts() -> Iterator[bytes]:
        raise boom
        yield b"never"

    async def scene(client: Any) -> None:
        connection = client.get("/")
        with pytest.raises(RuntimeError) as raised:
            await got(connection.wait_head())
        assert raised.value is boom
        if way.client is Client:
            with pytest.raises(RuntimeError, match="boom"):
                _ = connection.headers

    way.play(scene, streamkit.stream(parts()))


def test_an_error_that_nobody_saw_is_raised_at_the_end(way: Way) -> None:
    def parts() -> Iterator[bytes]:
        try:
            yield b"one"
        finally:
            raise RuntimeError("boom")

    async def seen_at_the_connection(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"one"
        with pytest.raises(RuntimeError, match="boom"):
            await got(connection.close())
        await got(connection.close())

    async def seen_at_the_client(client: Any) -> None:
        assert await got(client.get("/").next_chunk()) == b"one"

    async def seen_by_looking(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"one"
        connection.disconnect()
        await got(connection.wait_closed())
        assert isinstance(connection.error, RuntimeError)

    way.play(seen_at_the_connection, way.app(parts))
    way.play(seen_by_looking, way.app(parts))
    with pytest.raises(RuntimeError, match="boom"):
        way.play(seen_at_the_client, way.app(parts))


def test_a_failure_of_the_test_is_not_covered_by_one_of_the_application(way: Way) -> None:
    def parts() -> Iterator[bytes]:
        try:
            yield b"one"
        finally:
            raise RuntimeError("boom")

    async def scene(client: Any) -> None:
        assert await got(client.get("/").next_chunk()) == b"two"

    with pytest.raises(AssertionError) as raised:
        way.play(scene, way.app(parts))
    assert "RuntimeError: boom" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("length", [3, 9])
def test_a_body_that_is_not_as_long_as_it_says_is_a_breach(way: Way, length: int) -> None:
    async def scene(client: Any) -> None:
        with pytest.raises(ProtocolViolation, match=f"Content-Length says {length}"):
            await got(client.get("/").read())

    way.play(scene, way.app(Made(5), headers=[("Content-Length", str(length))]))


@pytest.mark.parametrize("length", ["-1", "five", "1, 2"])
def test_a_content_length_is_a_number_of_bytes(way: Way, length: str) -> None:
    async def scene(client: Any) -> None:
        with pytest.raises(ProtocolViolation, match="wanted Content-Length as one number"):
            await got(client.get("/").read())

    way.play(scene, way.app(Made(5), headers=[("Content-Length", length)]))


def test_a_body_where_the_status_has_none_is_a_breach(way: Way) -> None:
    async def scene(client: Any) -> None:
        with pytest.raises(ProtocolViolation, match="status 204 has no body"):
            await got(client.get("/").read())

    way.play(scene, way.app(Made(5), status="204 No Content", headers=[]))


def test_a_body_made_for_head_is_dropped(way: Way) -> None:
    parts = Made(3)

    async def scene(client: Any) -> None:
        connection = client.open("HEAD", "/")
        assert await got(connection.wait_head()) == 200
        assert await got(connection.next_chunk()) is None
        assert connection.complete

    way.play(scene, way.app(parts, headers=[("Content-Length", "3")]))
    assert parts.made == 3


def test_an_endless_body_made_for_head_is_told_of(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.open("HEAD", "/")
        with pytest.raises(TimeoutError, match=r"bytes dropped, for HEAD has no body"):
            await got(connection.next_chunk(SHORT))

    way.play(scene, way.app(Made()))


def test_empty_chunks_are_passed_over(way: Way) -> None:
    def parts() -> Iterator[bytes]:
        yield from (b"", b"a", b"", b"", b"b", b"")

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert [await got(connection.next_chunk()) for _ in range(3)] == [b"a", b"b", None]

    way.play(scene, way.app(parts))


def test_several_connections_are_read_in_turn(way: Way) -> None:
    async def scene(client: Any) -> None:
        connections = [client.get(f"/{n}") for n in range(20)]
        for n in range(1, 4):
            for connection in connections:
                assert await got(connection.next_chunk()) == b"%d" % n

    way.play(scene, lambda *request: way.app(Made())(*request))


def test_server_sent_events_are_read_one_by_one(way: Way) -> None:
    def parts() -> Iterator[bytes]:
        yield b": a heartbeat\n\n"
        yield b"event: tick\nid: 7\nda"
        yield b"ta: one\n\ndata: two\n\ndata: thr"
        yield b"ee\n\ndata: cut off"

    async def scene(client: Any) -> None:
        connection = client.get("/")
        first = await got(connection.next_event())
        assert (first.event, first.id, first.data) == ("tick", "7", "one")
        events = connection.events()
        rest = [event.data for event in events] if way.client is Client else [e.data async for e in events]
        assert rest == ["two", "three"]
        assert await got(connection.next_event()) is None

    way.play(scene, way.app(parts, headers=[("Content-Type", "text/event-stream")]))


def test_heartbeats_do_not_prolong_the_wait_for_an_event(way: Way) -> None:
    def parts() -> Iterator[bytes]:
        while True:
            yield b":\n"

    async def scene(client: Any) -> None:
        connection = client.get("/", read_ahead=10)
        with pytest.raises(TimeoutError, match=r"wanted a server-sent event .* within 0.05 s"):
            await got(connection.next_event(SHORT))

    way.play(scene, way.app(parts))


def test_the_status_cannot_be_looked_at_in_a_task_before_it_has_come() -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        with pytest.raises(NotOpen, match="await wait_head"):
            _ = connection.status
        assert await connection.next_chunk() == b"1"
        assert connection.status == 200

    WAYS[3].play(scene, asgi_app(Made(1)))


def test_a_connection_says_what_it_is(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/here")
        assert await got(connection.next_chunk()) == b"1"
        kind = type(connection).__name__
        assert repr(connection) == f"<{kind} GET /here: so far: status 200, 1 bytes read in 1 chunks>"

    way.play(scene, way.app(Made(1)))
