"""streamkit's own streams, driven by its own client: leaves, slow readers, framing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import streamkit
from streamkit.errors import ClientDisconnected

from .ways import WAYS, Way, got, soon

CHUNK = b"x" * 1000
HIGH_WATER = 10_000


CLIENTS = list(dict.fromkeys(way.client for way in WAYS))


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


class Heard:
    """What producers of each kind see of a leave."""

    def __init__(self) -> None:
        self.bytes_made = 0
        self.errors: list[type[BaseException]] = []
        self.outcomes: list[object] = []
        self.over = threading.Event()

    def note_outcome(self, stream: Any) -> None:
        self.outcomes.append(stream.outcome)
        self.over.set()

    def function(self, stream: streamkit.ResponseStream) -> None:
        stream.on_finish(self.note_outcome)
        try:
            while True:
                self.bytes_made += stream.write(CHUNK)
        except BaseException as error:
            self.errors.append(type(error))
            raise

    async def async_function(self, stream: streamkit.AsyncResponseStream) -> None:
        stream.on_finish(self.note_outcome)
        try:
            while True:
                self.bytes_made += await stream.write(CHUNK)
        except BaseException as error:
            self.errors.append(type(error))
            raise

    def iterable(self) -> Iterator[bytes]:
        try:
            while True:
                self.bytes_made += len(CHUNK)
                yield CHUNK
        except BaseException as error:
            self.errors.append(type(error))
            raise

    async def async_iterable(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.bytes_made += len(CHUNK)
                yield CHUNK
        except BaseException as error:
            self.errors.append(type(error))
            raise

    @property
    def producers(self) -> dict[str, Callable[[], Any]]:
        return {
            "function": lambda: self.function,
            "async function": lambda: self.async_function,
            "iterable": self.iterable,
            "async iterable": self.async_iterable,
        }

    def serve(self, kind: str) -> Any:
        options = {"high_water": HIGH_WATER, "on_finish": self.note_outcome}
        return streamkit.stream(self.producers[kind](), options=options)


KINDS = list(Heard().producers)
LEAVES = {ClientDisconnected, GeneratorExit, asyncio.CancelledError}


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_hears_of_a_disconnect(way: Way, kind: str) -> None:
    heard = Heard()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        for _ in range(3):
            assert await got(connection.next_chunk())
        connection.disconnect()
        await got(connection.wait_closed())
        assert connection.error is None
        # Not in this order: the server's side settles the outcome while the producer's thread is woken.
        assert await soon(lambda: heard.over.is_set() and heard.errors)

    way.play(scene, heard.serve(kind))
    assert set(heard.errors) <= LEAVES
    assert len(heard.errors) == 1
    assert set(heard.outcomes) == {"disconnected"}
    if kind == "function":
        assert heard.errors == [ClientDisconnected]


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_does_not_run_away_from_a_slow_reader(way: Way, kind: str) -> None:
    heard = Heard()
    taken = 0

    def has_stopped() -> bool:
        # Held: `high_water` in the channel, and as much in the one chunk that waits to be asked for.
        return heard.bytes_made <= taken + 2 * (HIGH_WATER + len(CHUNK))

    async def scene(client: Any) -> None:
        nonlocal taken
        connection = client.get("/")
        for _ in range(20):
            chunk = await got(connection.next_chunk())
            taken += len(chunk)
            await asyncio.sleep(0.002)
            assert has_stopped(), f"{heard.bytes_made} bytes made for {taken} taken"

    way.play(scene, heard.serve(kind))
    assert taken >= 20 * len(CHUNK)


def test_an_endless_stream_of_a_wrapped_application_is_read_as_it_comes(way: Way) -> None:
    app = streamkit.wrap(streamkit.stream(Heard().function), kind=way.interface)

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk())
        assert await got(connection.wait_head()) == 200
        assert connection.headers["X-Accel-Buffering"] == "no"

    way.play(scene, app)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_what_is_written_to_the_stream_of_a_wsgi_request_arrives_at_once(client: Any) -> None:
    written: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        for n in range(3):
            written.append(n)
            stream.write(str(n))
        return []

    async def scene(client: Any) -> None:
        connection = client.get("/")
        for n in range(3):
            assert await got(connection.next_chunk()) == b"%d" % n
            assert written == list(range(n + 1))
        assert await got(connection.next_chunk()) is None

    Way("wsgi", client).play(scene, streamkit.wrap(app))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_what_is_written_to_the_stream_of_an_asgi_request_arrives_at_once(client: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        for n in range(3):
            await stream.write(str(n))

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert [await got(connection.next_chunk()) for _ in range(4)] == [b"0", b"1", b"2", None]

    async def http_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    Way("asgi", client).play(scene, streamkit.wrap(http_app))


@pytest.mark.parametrize("leaves", [False, True])
def test_a_wsgi_application_that_writes_hears_of_a_leave_in_its_write(leaves: bool) -> None:
    heard = Heard()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        heard.function(environ["streamkit.stream"])
        return []

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == CHUNK
        if leaves:
            connection.disconnect()
        else:
            await got(connection.close())
        await got(connection.wait_closed())
        assert connection.error is None

    WAYS[0].play(scene, streamkit.wrap(app))
    assert (heard.errors, heard.outcomes) == ([ClientDisconnected], ["disconnected"])


def two() -> Iterator[str]:
    yield "one "
    yield "two"


def test_an_http_1_0_body_is_whole(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/", http_version="1.0")
        assert await got(connection.read()) == b"one two"
        assert connection.headers["Content-Length"] == "7"

    way.play(scene, streamkit.stream(two()))


def test_an_http_1_0_stream_is_delimited_by_the_close_that_the_client_asked_for(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/", http_version="1.0", headers={"Connection": "close"})
        assert await got(connection.read()) == b"one two"
        assert "Content-Length" not in connection.headers

    way.play(scene, streamkit.stream(two()))


def test_head_has_the_head_alone_and_runs_no_producer(way: Way) -> None:
    heard = Heard()

    async def scene(client: Any) -> None:
        connection = client.open("HEAD", "/")
        assert await got(connection.wait_head()) == 200
        assert connection.headers["Cache-Control"] == "no-store, no-transform"
        assert await got(connection.read()) == b""
        assert connection.complete

    way.play(scene, heard.serve("function"))
    assert heard.bytes_made == 0


def test_a_stream_that_fails_is_cut_with_its_own_error(way: Way) -> None:
    boom = RuntimeError("boom")

    def producer(stream: streamkit.ResponseStream) -> None:
        stream.write("so far")
        raise boom

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"so far"
        with pytest.raises(RuntimeError) as raised:
            await got(connection.next_chunk())
        assert raised.value is boom
        assert not connection.complete

    way.play(scene, streamkit.stream(producer))
