"""Descriptions that FastAPI's endpoints return as they are, by `StreamKitRoute`.

Rule: whatever FastAPI promises for its own responses holds for them: dependencies, OpenAPI, routers.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, get_origin

import pytest

import streamkit
from streamkit.testing import Client

pytest.importorskip("fastapi")
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from streamkit.frameworks.fastapi import EventStreamResponse, StreamKitRoute, live, respond

from .fastapi_kept import Kept, dependency
from .programs import PRODUCERS, Wait, producer_of

pytestmark = pytest.mark.server  # FastAPI is not among what the quick tests need

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def streaming_app() -> FastAPI:
    app = FastAPI()
    app.router.route_class = StreamKitRoute
    return app


@KINDS
@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_dependency_stays_open_until_a_returned_description_has_ended(kind: str, producer: str) -> None:
    kept, arrived, app = Kept(), threading.Event(), streaming_app()
    needs = dependency(kept, kind)

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        assert kept.events == ["enter"]
        yield "b"

    if kind == "sync":

        @app.get("/")
        def endpoint(kept: Any = needs) -> Any:
            return streamkit.stream(producer_of(producer, program))
    else:

        @app.get("/")
        async def endpoint(kept: Any = needs) -> Any:
            return streamkit.stream(producer_of(producer, program))

    with Client(app) as client:
        answer = client.get("/")
        assert (answer.next_chunk(), kept.events) == (b"a", ["enter"])
        arrived.set()
        assert (answer.next_chunk(), answer.next_chunk()) == (b"b", None)
        answer.wait_closed()
    assert kept.events == ["enter", "exit"]


@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_dependency_is_left_after_the_producer_when_the_client_leaves(producer: str) -> None:
    """Also a synchronous one, which hears of the leave at its next write only."""
    kept, app = Kept(), streaming_app()
    needs = dependency(kept, "sync")

    def program(stream: Any) -> Iterator[Any]:
        try:
            while True:
                yield "x" * 1000
        finally:
            kept.events.append("producer")

    @app.get("/")
    def endpoint(kept: Any = needs) -> streamkit.StreamingResponse:
        return streamkit.stream(producer_of(producer, program))

    with Client(app) as client:
        answer = client.get("/")
        assert answer.next_chunk()
        answer.disconnect()
        answer.wait_closed()
    assert kept.events == ["enter", "producer", "exit"]


def test_an_error_before_the_first_chunk_is_answered_by_fastapi() -> None:
    app = streaming_app()

    @app.get("/")
    def endpoint() -> streamkit.StreamingResponse:
        def produce(stream: streamkit.ResponseStream) -> None:
            raise HTTPException(404, "nothing here")

        return streamkit.stream(produce)

    with Client(app) as client:
        answer = client.get("/")
        assert (answer.status, answer.read()) == (404, b'{"detail":"nothing here"}')


def test_what_is_no_description_is_answered_as_ever() -> None:
    app = streaming_app()

    @app.get("/data", status_code=201)
    def data(name: str, times: int = 1) -> dict[str, str]:
        return {"name": name * times}

    @app.get("/live")
    @live
    async def live_one(request: Request, stream: streamkit.AsyncResponseStream, name: str) -> None:
        await stream.write(name)

    @app.get("/events", response_class=EventStreamResponse)
    async def events() -> AsyncIterator[str]:
        yield "one"

    @app.get("/responded")
    def responded(tasks: BackgroundTasks) -> Any:
        tasks.add_task(done.set)
        return respond(streamkit.stream(["a"]))

    done = threading.Event()
    with Client(app) as client:
        answer = client.get("/data", query="name=ann&times=2")
        assert (answer.status, answer.read()) == (201, b'{"name":"annann"}')
        assert client.get("/data").status == 422
        assert client.get("/live", query="name=bea").read() == b"bea"
        assert [event.data for event in client.get("/events").events()] == ["one"]
        answer = client.get("/responded")
        assert answer.read() == b"a"
        answer.wait_closed()
        assert done.is_set()


def test_annotations_parameters_and_openapi_are_fastapis() -> None:
    app = streaming_app()

    @app.get("/{name}", response_class=EventStreamResponse)
    async def endpoint(name: str, last: Annotated[int, Depends(lambda: 7)]) -> streamkit.StreamingResponse:
        return streamkit.event_stream([f"{name} {last}"])

    with Client(app) as client:
        assert [event.data for event in client.get("/ann").events()] == ["ann 7"]
    described = app.openapi()["paths"]["/{name}"]["get"]
    assert list(described["responses"]["200"]["content"]) == ["text/event-stream"]
    assert [parameter["name"] for parameter in described["parameters"]] == ["name"]


def test_an_endpoint_is_handed_on_with_its_annotations_evaluated() -> None:
    """FastAPI before 0.123.5 looks those in quotes up among the names of the module of `StreamKitRoute`."""
    app = streaming_app()

    @app.get("/")
    def endpoint(last: Annotated[int, Depends(lambda: 7)]) -> None:
        """All annotations of this module are in quotes."""

    (route,) = [route for route in app.router.routes if getattr(route, "path", "") == "/"]
    signature = inspect.signature(route.endpoint)  # type: ignore[attr-defined]
    assert get_origin(signature.parameters["last"].annotation) is Annotated
    assert signature.return_annotation is None


JSON = {"Content-Type": "application/json"}


class Item(BaseModel):
    number: int


def test_a_name_in_quotes_within_an_annotation_is_found_in_the_endpoints_module() -> None:
    app = streaming_app()

    @app.get("/made")
    def made() -> list["Item"]:  # noqa: UP037
        return [Item(number=1)]

    @app.post("/taken")
    def taken(items: list["Item"]) -> dict[str, int]:  # noqa: UP037
        return {"sum": sum(item.number for item in items)}

    with Client(app) as client:
        assert client.get("/made").read() == b'[{"number":1}]'
        sent = client.open("POST", "/taken", body=b'[{"number": 2}, {"number": 3}]', headers=JSON)
        assert sent.read() == b'{"sum":5}'
    assert app.openapi()["paths"]["/taken"]


def test_a_router_that_is_included_and_endpoints_of_other_shapes_do_it_too() -> None:
    class Page:
        def __init__(self, *words: str) -> None:
            self.words = words

        def __call__(self) -> streamkit.StreamingResponse:
            return streamkit.stream(list(self.words))

        async def described(self) -> streamkit.StreamingResponse:
            return streamkit.stream([*self.words, "!"])

    def named(name: str) -> streamkit.StreamingResponse:
        return streamkit.stream([name])

    router, app = APIRouter(route_class=StreamKitRoute), FastAPI()
    router.add_api_route("/called", Page("a", "b"))
    router.add_api_route("/method", Page("c").described)
    router.add_api_route("/partial", functools.partial(named, name="d"))
    app.include_router(router, prefix="/in")
    with Client(app) as client:
        bodies = [client.get(f"/in/{path}").read() for path in ("called", "method", "partial")]
    assert bodies == [b"ab", b"c!", b"d"]


Seven = Annotated[int, Depends(lambda: 7)]


class Counted:
    """Endpoints in other shapes than functions; all annotations of this module are in quotes."""

    def __init__(self, first: int) -> None:
        self.first = first

    async def __call__(self, request: Request, last: Seven) -> streamkit.StreamingResponse:
        return streamkit.stream([f"{request.url.path} {self.first} {last}"])

    @live
    async def on_loop(self, request: Request, stream: Any, last: Seven) -> None:
        await stream.write(f"{request.url.path} {self.first} {last}")

    @live
    def on_thread(self, request: Request, stream: Any, last: Seven) -> None:
        stream.write(f"{request.url.path} {self.first} {last}")


async def counted(request: Request, first: int, last: Seven) -> streamkit.StreamingResponse:
    return await Counted(first)(request, last)


@live
async def counted_live(request: Request, stream: Any, first: int, last: Seven) -> None:
    await stream.write(f"{request.url.path} {first} {last}")


def _in_a_synchronous_decorator(endpoint: Any) -> Any:
    @functools.wraps(endpoint)
    def around(*args: Any, **values: Any) -> Any:
        return endpoint(*args, **values)

    return around


SHAPES: dict[str, Any] = {
    "an object": Counted(1),
    "a partial function": functools.partial(counted, first=1),
    "a live method": Counted(1).on_loop,
    "a live method on a thread": Counted(1).on_thread,
    "a partial live function": functools.partial(counted_live, first=1),
    "in a synchronous decorator": _in_a_synchronous_decorator(functools.partial(counted, first=1)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_endpoint_of_any_shape_has_its_dependencies_and_its_description_sent(shape: str) -> None:
    app = streaming_app()
    app.add_api_route("/it", SHAPES[shape])
    with Client(app) as client:
        answer = client.get("/it")
        assert (answer.status, answer.read()) == (200, b"/it 1 7")
    parameters = app.openapi()["paths"]["/it"]["get"].get("parameters", [])
    assert {parameter["name"] for parameter in parameters} <= {"first"}
