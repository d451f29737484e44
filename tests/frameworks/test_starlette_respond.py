"""Descriptions in Starlette, returned as they are and by `respond`, through Starlette's own middleware.

Rule: a chunk that is awaited before the next is made shows that nothing holds it back; no test measures time.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from driving import PATIENCE, scope_of, until

import streamkit
from streamkit.errors import AlreadyCommitted, AlreadyServed, ProducerError
from streamkit.testing import Client

pytest.importorskip("starlette")
pytest.importorskip("itsdangerous")
import starlette
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from streamkit.frameworks.starlette import EventStreamResponse, respond

from .programs import PRODUCERS, Program, Wait, producer_of

WAYS = [(given, producer) for given in ("as it is", "respond") for producer in PRODUCERS]
FLUSHING = tuple(int(part) for part in starlette.__version__.split(".")[:2]) >= (1, 5)


async def pass_on(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["X-Middleware"] = "1"
    return response


DISPATCHED = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
GZIP = Middleware(GZipMiddleware)
name_of_request: ContextVar[str] = ContextVar("name_of_request", default="nobody")


class Way:
    """How an endpoint gives its description, and the kind of its producer."""

    def __init__(self, given: str, producer: str) -> None:
        self.given, self.producer = given, producer

    def app(self, program: Program, described: Any = None, **more: Any) -> Any:
        async def endpoint(request: Any) -> Any:
            description = streamkit.stream(producer_of(self.producer, program), **(described or {}))
            return respond(description) if self.given == "respond" else description

        return Starlette(routes=[Route("/", endpoint)], **more)


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    return Way(*request.param)


@pytest.mark.parametrize("middleware", [[], [DISPATCHED], [GZIP, DISPATCHED]])
def test_a_chunk_arrives_before_the_next_is_made(way: Way, middleware: Any) -> None:
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "data: " + "a" * 1000 + "\n\n"
        yield Wait(arrived)
        yield "data: b\n\n"

    described = {"status": 201, "headers": {"X-Name": "ann"}, "content_type": "text/event-stream"}
    with Client(way.app(program, described, middleware=middleware)) as client:
        answer = client.get("/", headers={"Accept-Encoding": "gzip"})
        assert (answer.status, answer.headers["X-Name"]) == (201, "ann")
        assert answer.headers.getlist("Content-Type") == ["text/event-stream"]
        assert ("X-Middleware" in answer.headers) == bool(middleware)
        assert answer.next_chunk() == b"data: " + b"a" * 1000 + b"\n\n"
        arrived.set()
        assert (answer.next_chunk(), answer.next_chunk(), answer.complete) == (b"data: b\n\n", None, True)


@pytest.mark.skipif(not FLUSHING, reason="Starlette's GZipMiddleware flushes from 1.5 on")
def test_a_compressed_chunk_can_be_read_before_the_next_is_made(way: Way) -> None:
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a" * 1000
        yield Wait(arrived)
        yield "b"

    with Client(way.app(program, {"content_type": "text/csv"}, middleware=[GZIP])) as client:
        answer = client.get("/", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
        read = zlib.decompressobj(31).decompress
        assert read(answer.next_chunk()) == b"a" * 1000
        arrived.set()
        assert read(answer.read()) == b"b"


@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
def test_an_error_before_the_first_chunk_is_answered_by_its_handler(way: Way, middleware: Any) -> None:
    def program(stream: Any) -> Iterator[Any]:
        raise HTTPException(404, "nothing here")
        yield "a"

    with Client(way.app(program, middleware=middleware)) as client:
        answer = client.get("/")
        assert (answer.status, answer.read()) == (404, b"nothing here")


@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
def test_an_error_after_the_first_chunk_cuts_the_body(way: Way, middleware: Any) -> None:
    told: list[Any] = []

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        raise KeyError("k")

    described = {"on_error": lambda *details: told.append(details[1])}
    with Client(streamkit.wrap(way.app(program, described, middleware=middleware))) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"a"
        with pytest.raises(KeyError):
            answer.next_chunk()
        assert not answer.complete
    assert [str(error) for error in told] == ["'k'"]


@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
def test_a_leave_ends_the_producer_and_calls_back_once(way: Way, middleware: Any) -> None:
    called, ended = [], threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        try:
            while True:
                yield "x" * 1000
        finally:
            ended.set()

    with Client(way.app(program, {"callback": lambda: called.append(1)}, middleware=middleware)) as client:
        answer = client.get("/")
        assert answer.next_chunk()
        answer.disconnect()
        assert ended.wait(PATIENCE), "the producer goes on without a reader"
        answer.wait_closed()
        assert until(lambda: called)
    assert called == [1]


def test_head_runs_no_producer(way: Way) -> None:
    ran, called = [], []

    def program(stream: Any) -> Iterator[Any]:
        ran.append(1)
        yield "a"

    with Client(way.app(program, {"status": 203, "callback": lambda: called.append(1)})) as client:
        answer = client.open("HEAD", "/")
        assert (answer.status, answer.read(), ran) == (203, b"", [])
        answer.wait_closed()
    assert called == [1]


@pytest.mark.server  # it needs httpx2, or httpx
def test_the_test_client_of_starlette_reads_a_stream(way: Way) -> None:
    testclient = pytest.importorskip("starlette.testclient")

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield "b"

    with testclient.TestClient(way.app(program, {"headers": {"X-Name": "ann"}})) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.text, answer.headers["X-Name"]) == (200, "ab", "ann")


def test_the_response_of_respond_can_be_changed_like_any_other() -> None:
    order: list[str] = []

    async def endpoint(request: Any) -> Any:
        described = streamkit.stream(["a"], headers={"X-Described": "1", "Cache-Control": "no-cache"})
        response = respond(described)
        response.status_code = 203
        response.headers["X-View"] = "1"
        response.headers["Cache-Control"] = "private"
        del response.headers["X-Described"]
        response.set_cookie("view", "1")
        response.background = BackgroundTask(order.append, "task")
        return response

    with Client(Starlette(routes=[Route("/", endpoint)])) as client:
        answer = client.get("/")
        assert (answer.status, answer.read()) == (203, b"a")
        assert (answer.headers["X-View"], answer.headers["X-Accel-Buffering"]) == ("1", "no")
        assert answer.headers.getlist("Cache-Control") == ["private"]
        assert "X-Described" not in answer.headers
        assert answer.headers.getlist("Set-Cookie") == ["view=1; Path=/; SameSite=lax"]
        answer.wait_closed()
    assert order == ["task"]


def test_a_change_of_the_session_is_saved_before_the_first_chunk_and_refused_after() -> None:
    refused: list[BaseException] = []

    async def endpoint(request: Any) -> Any:
        def produce(stream: Any) -> None:
            request.session["early"] = 1
            stream.write("a")
            try:
                request.session["late"] = 1
            except AlreadyCommitted as error:
                refused.append(error)

        return respond(streamkit.stream(produce))

    sessions = Middleware(SessionMiddleware, secret_key="secret")
    with Client(Starlette(routes=[Route("/", endpoint)], middleware=[sessions])) as client:
        answer = client.get("/")
        assert answer.read() == b"a"
        assert answer.headers["Set-Cookie"].startswith("session=")
    assert len(refused) == 1


def test_a_description_of_an_iterator_is_served_once() -> None:
    description = streamkit.stream(iter(["a"]))

    async def endpoint(request: Any) -> Any:
        return respond(description)

    async def handle(request: Any, error: Exception) -> Any:
        return PlainTextResponse(type(error).__name__, 500)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={AlreadyServed: handle})
    with Client(app) as client:
        assert client.get("/").read() == b"a"
        assert client.get("/").read() == b"AlreadyServed"


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_producer_has_the_context_variables_of_its_endpoint(kind: str, producer: str) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield name_of_request.get()

    def endpoint(request: Any) -> Any:
        name_of_request.set(request.query_params["name"])
        return respond(streamkit.stream(producer_of(producer, program)))

    async def endpoint_async(request: Any) -> Any:
        return endpoint(request)

    route = Route("/", endpoint if kind == "sync" else endpoint_async)
    with Client(Starlette(routes=[route])) as client:
        assert [client.get("/", query=f"name={name}").read() for name in ("ann", "bea")] == [b"ann", b"bea"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_asynchronous_producer_of_any_endpoint_may_use_anyio(kind: str) -> None:
    """Which has a note of its own in the context of its worker threads, where synchronous endpoints run."""
    import anyio

    async def produce(stream: streamkit.AsyncResponseStream) -> None:
        await stream.write(await anyio.to_thread.run_sync(lambda: "done"))

    def endpoint(request: Any) -> Any:
        return respond(streamkit.stream(produce))

    async def endpoint_async(request: Any) -> Any:
        return endpoint(request)

    route = Route("/", endpoint if kind == "sync" else endpoint_async)
    with Client(Starlette(routes=[route])) as client:
        assert client.get("/").read() == b"done"


@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_head_that_nobody_takes_ends_its_producer(producer: str) -> None:
    """The server says so by an `OSError` (ASGI 2.4); here for an endpoint on a worker thread."""
    ended = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        try:
            yield "a"
            yield "b"
        finally:
            ended.set()

    async def main() -> None:
        response = await asyncio.to_thread(lambda: respond(streamkit.stream(producer_of(producer, program))))

        async def send(message: Any) -> None:
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            await response(scope_of(), asyncio.Event().wait, send)

    asyncio.run(main())
    assert ended.wait(PATIENCE)


def test_what_is_no_description_is_refused() -> None:
    with pytest.raises(ProducerError, match="description"):
        respond(["a"])


def test_an_event_stream_response_is_an_ordinary_response_of_its_media_type() -> None:
    assert EventStreamResponse("data: 1\n\n").headers["content-type"].startswith("text/event-stream")


def test_the_options_of_wrap_reach_descriptions(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield "a"

    app = streamkit.wrap(way.app(program, middleware=[DISPATCHED]), {"headers": {"X-Wrap": "1"}})
    with Client(app) as client:
        answer = client.get("/")
        assert (answer.headers["X-Wrap"], answer.read(), answer.complete) == ("1", b"a", True)


def test_text_given_to_the_class_of_event_streams_is_its_whole_body() -> None:
    async def endpoint(request: Any) -> Any:
        return EventStreamResponse("data: 1\n\n", 203)

    with Client(Starlette(routes=[Route("/", endpoint)])) as client:
        answer = client.get("/")
        assert (answer.status, answer.headers["Content-Length"]) == (203, "9")
        assert (answer.read(), answer.complete) == (b"data: 1\n\n", True)


@pytest.mark.parametrize("wrong", [{"n": 1}, lambda stream: None, 5], ids=["mapping", "function", "number"])
def test_what_gives_no_events_is_refused_by_the_class_of_event_streams(wrong: Any) -> None:
    with pytest.raises(ProducerError):
        EventStreamResponse(wrong)
