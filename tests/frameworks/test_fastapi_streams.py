"""FastAPI: its dependencies, its event streams and its OpenAPI.

Rule: what FastAPI promises for its own `StreamingResponse` holds for ours. From 0.118 on, a dependency
with `yield` is left after the response has been sent; before, it was left when the endpoint returned.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.errors import ProducerError
from streamkit.testing import Client

pytest.importorskip("fastapi")
from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    Request,
    Response,
)

from streamkit.frameworks.starlette import EventStreamResponse, live, respond

from .fastapi_kept import Kept, dependency
from .programs import PRODUCERS, Program, Wait, producer_of, view_of

pytestmark = pytest.mark.server  # FastAPI is not among what the quick tests need

# Not by `import`: Starlette warns of the older of the two clients that it can use.
TestClient = pytest.importorskip("fastapi.testclient").TestClient

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def app_of(kind: str, program: Program, kept: Any = None, **more: Any) -> FastAPI:
    """An app whose one endpoint is this program, live, and depends on something that is kept open."""
    app, inner = FastAPI(**more), view_of(kind, program)
    needs = dependency(kept or Kept(), kind)
    if kind == "sync":

        @app.get("/", response_class=EventStreamResponse)
        @live
        def endpoint(request: Request, stream: Any, kept: Any = needs) -> None:
            return inner(request, stream)
    else:

        @app.get("/", response_class=EventStreamResponse)
        @live
        async def endpoint(request: Request, stream: Any, kept: Any = needs) -> None:
            return await inner(request, stream)

    return app



# ---------------------------------------------------------------- dependencies


@KINDS
def test_a_dependency_with_yield_stays_open_until_a_live_stream_has_ended(kind: str) -> None:
    kept, arrived = Kept(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        assert kept.events == ["enter"]
        yield "b"

    with Client(app_of(kind, program, kept)) as client:
        answer = client.get("/")
        assert (answer.status, answer.next_chunk(), kept.events) == (200, b"a", ["enter"])
        arrived.set()
        assert (answer.next_chunk(), answer.next_chunk()) == (b"b", None)
        answer.wait_closed()
    assert kept.events == ["enter", "exit"]


@KINDS
@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_dependency_with_yield_stays_open_until_a_described_stream_has_ended(
    kind: str, producer: str
) -> None:
    kept, arrived, app = Kept(), threading.Event(), FastAPI()
    needs = dependency(kept, kind)

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        assert kept.events == ["enter"]
        yield "b"

    @app.get("/")
    async def endpoint(kept: Any = needs) -> Any:
        return respond(streamkit.stream(producer_of(producer, program)))

    with Client(app) as client:
        answer = client.get("/")
        assert (answer.next_chunk(), kept.events) == (b"a", ["enter"])
        arrived.set()
        assert (answer.next_chunk(), answer.next_chunk()) == (b"b", None)
        answer.wait_closed()
    assert kept.events == ["enter", "exit"]


@KINDS
def test_a_dependency_with_yield_is_left_when_the_client_leaves(kind: str) -> None:
    kept, never, ended = Kept(), threading.Event(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        try:
            yield "a"
            while stream.connected:
                if kind == "sync":
                    never.wait(0.01)
                else:
                    yield Wait(never)
        finally:
            ended.set()

    with Client(app_of(kind, program, kept)) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"a"
        answer.disconnect()
        answer.wait_closed()
        assert kept.events == ["enter", "exit"]
        assert ended.wait(PATIENCE)
        never.set()


@KINDS
def test_a_dependency_with_yield_sees_an_error_of_the_stream(kind: str) -> None:
    kept = Kept()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["Content-Type"] = "text/csv"
        yield "a"
        raise ZeroDivisionError

    with Client(app_of(kind, program, kept)) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"a"
        with pytest.raises(ZeroDivisionError):
            answer.next_chunk()
        assert not answer.complete
        answer.wait_closed()
    assert kept.events == ["enter", "ZeroDivisionError", "exit"]


def test_a_dependency_of_the_function_scope_is_left_before_the_stream_begins() -> None:
    """`Depends(scope="function")` is how FastAPI gives a connection back before the response."""
    import inspect

    if "scope" not in inspect.signature(Depends).parameters:
        pytest.skip("this FastAPI has no scopes of dependencies")
    kept, app = Kept(), FastAPI()

    @app.get("/")
    async def endpoint(kept: Any = Depends(kept, scope="function")) -> Any:  # noqa: B008
        return respond(streamkit.stream(lambda stream: stream.write(str(kept.events))))

    with Client(app) as client:
        assert client.get("/").read() == b"['enter', 'exit']"


# ---------------------------------------------------------------- events, OpenAPI, the test client


def test_an_asynchronous_generator_is_an_event_stream_by_its_description() -> None:
    app, closed = FastAPI(), threading.Event()

    @app.get("/events", response_class=EventStreamResponse)
    async def events(last: int = 0) -> Any:
        async def produce() -> AsyncIterator[Any]:
            try:
                for n in range(last, 1000):
                    yield {"n": n}
            finally:
                closed.set()

        return respond(streamkit.event_stream(produce(), event="tick"))

    with Client(app) as client:
        answer = client.get("/events", query="last=7")
        event = answer.next_event()
        assert (event.event, json.loads(event.data)) == ("tick", {"n": 7})
        assert json.loads(answer.next_event().data) == {"n": 8}
        answer.disconnect()
        assert closed.wait(PATIENCE)


@KINDS
def test_an_endpoint_that_yields_is_an_event_stream_by_its_response_class(kind: str) -> None:
    """FastAPI gives what such an endpoint makes to the class of its response."""
    app, kept, arrived = FastAPI(), Kept(), threading.Event()
    needs = dependency(kept, kind)

    if kind == "sync":

        @app.get("/", response_class=EventStreamResponse, status_code=201)
        def ticks(response: Response, tasks: BackgroundTasks, n: int = 0, kept: Any = needs) -> Any:
            response.headers["X-Name"] = "ann"
            yield {"n": n}
            assert arrived.wait(PATIENCE)
            yield streamkit.ServerSentEvent(data=str(kept.events), event="last")
    else:

        @app.get("/", response_class=EventStreamResponse, status_code=201)
        async def ticks(response: Response, tasks: BackgroundTasks, n: int = 0, kept: Any = needs) -> Any:
            response.headers["X-Name"] = "ann"
            yield {"n": n}
            await Wait(arrived).come()
            yield streamkit.ServerSentEvent(data=str(kept.events), event="last")

    with Client(app) as client:
        answer = client.get("/", query="n=7")
        assert (answer.status, answer.headers.getlist("Content-Type")) == (201, ["text/event-stream"])
        assert "Content-Length" not in answer.headers
        assert json.loads(answer.next_event().data) == {"n": 7}
        arrived.set()
        assert answer.next_event().data == "['enter']"
        assert answer.next_event() is None
        answer.wait_closed()
    assert kept.events == ["enter", "exit"]


def test_what_is_no_event_stream_is_refused_by_its_response_class() -> None:
    app = FastAPI()

    @app.get("/", response_class=EventStreamResponse)
    def endpoint():  # type: ignore[no-untyped-def]
        return streamkit.event_stream(["x"])  # FastAPI makes JSON of its attributes

    with Client(app) as client:
        answer = client.get("/")
        assert answer.status == 500
        answer.read()
        answer.wait_closed()
        assert isinstance(answer.error, ProducerError)
        assert "respond(description)" in str(answer.error)


@KINDS
def test_openapi_says_text_event_stream_and_knows_the_parameters(kind: str) -> None:
    app = FastAPI()
    needs = dependency(Kept(), kind)

    @app.get("/described/{n}", response_class=EventStreamResponse)
    def described(n: int) -> Any: ...

    @app.get("/live/{n}", response_class=EventStreamResponse)
    @live
    def ticks(request: Request, stream: Any, n: int, q: str = "x", kept: Any = needs) -> None:
        """Ticks."""

    schema = app.openapi()
    for path in ("/described/{n}", "/live/{n}"):
        assert list(schema["paths"][path]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    operation = schema["paths"]["/live/{n}"]["get"]
    assert [(one["name"], one["in"]) for one in operation["parameters"]] == [("n", "path"), ("q", "query")]
    assert operation["description"] == "Ticks."
    assert operation["operationId"].startswith("ticks")


@KINDS
def test_the_test_client_of_fastapi_reads_a_stream(kind: str) -> None:
    kept = Kept()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.set_cookie("tasted", "1")
        yield "a"
        yield "b"

    with TestClient(app_of(kind, program, kept)) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.text, client.cookies["tasted"]) == (200, "ab", "1")
        with client.stream("GET", "/") as streamed:
            assert "".join(streamed.iter_text()) == "ab"
        assert client.head("/").status_code == 405  # FastAPI adds no HEAD to a GET
    assert kept.events == ["enter", "exit"] * 2


def test_a_lifespan_of_fastapi_is_around_wrapped_streams() -> None:
    order: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        order.append("startup")
        yield
        order.append("shutdown")

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"

    app = streamkit.wrap(app_of("async", program, lifespan=lifespan), {"headers": {"X-Wrap": "1"}})
    with Client(app) as client:
        answer = client.get("/")
        assert (answer.headers["X-Wrap"], answer.read()) == ("1", b"a")
    assert order == ["startup", "shutdown"]
