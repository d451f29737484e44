"""FastAPI: live endpoints and descriptions with its dependencies, its parameters and its OpenAPI.

Rule: what FastAPI promises for its own `StreamingResponse` holds for ours. From 0.118 on, a dependency
with `yield` is left after the response has been sent; before, it was left when the endpoint returned.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import ProducerError
from streamkit.testing import Client

pytest.importorskip("fastapi")
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
)
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse

from streamkit.frameworks.starlette import EventStreamResponse, live, respond

from .programs import PRODUCERS, Program, Wait, producer_of, view_of

pytestmark = pytest.mark.server  # FastAPI is not among what the quick tests need

# Not by `import`: Starlette warns of the older of the two clients that it can use.
TestClient = pytest.importorskip("fastapi.testclient").TestClient

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


class Kept:
    """A dependency with `yield`, and what it saw."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self) -> AsyncIterator[Kept]:
        self.events.append("enter")
        try:
            yield self
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            self.events.append("exit")

    def sync(self) -> Iterator[Kept]:
        self.events.append("enter")
        try:
            yield self
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            self.events.append("exit")


def dependency(kept: Kept, kind: str) -> Any:
    return Depends(kept.sync if kind == "sync" else kept)


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


# ---------------------------------------------------------------- parameters


@KINDS
def test_a_live_endpoint_has_parameters_of_all_kinds(kind: str) -> None:
    app = FastAPI()

    def said(*values: Any) -> str:
        return json.dumps(values)

    if kind == "sync":

        @app.post("/{number}")
        @live
        def endpoint(
            request: Request,
            stream: streamkit.ResponseStream,
            number: Annotated[int, Path()],
            x_name: Annotated[str, Header()],
            item: Annotated[dict[str, int], Body()],
            limit: Annotated[int, Query(ge=1)] = 10,
        ) -> None:
            stream.write(said(request.url.path, number, x_name, item, limit))
    else:

        @app.post("/{number}")
        @live
        async def endpoint(
            request: Request,
            stream: streamkit.AsyncResponseStream,
            number: Annotated[int, Path()],
            x_name: Annotated[str, Header()],
            item: Annotated[dict[str, int], Body()],
            limit: Annotated[int, Query(ge=1)] = 10,
        ) -> None:
            await stream.write(said(request.url.path, number, x_name, item, limit))

    headers = {"X-Name": "ann", "Content-Type": "application/json"}
    with Client(app) as client:
        answer = client.open("POST", "/7", query="limit=3", headers=headers, body=b'{"a": 1}')
        assert json.loads(answer.read()) == ["/7", 7, "ann", {"a": 1}, 3]
        wrong = client.open("POST", "/x", query="limit=0", headers=headers, body=b"[]")
        assert wrong.status == 422
        places = [error["loc"][0] for error in json.loads(wrong.read())["detail"]]
        assert sorted(places) == ["body", "path", "query"]


def test_the_request_and_the_stream_may_have_other_names() -> None:
    app = FastAPI()

    @app.get("/{stream}")
    @live
    async def endpoint(req: Any, out: Any, stream: str) -> None:
        await out.write(f"{req.method} {stream}")

    with Client(app) as client:
        assert client.get("/x").read() == b"GET x"


def test_annotations_that_only_type_checkers_know_do_no_harm() -> None:
    app = FastAPI()

    @app.get("/")
    @live
    async def endpoint(request: Request, stream: OnlyCheckersKnow, n: int = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
        await stream.write(str(n + 1))

    with Client(app) as client:
        assert client.get("/", query="n=2").read() == b"3"


@pytest.mark.parametrize("read", ["before", "after"])
def test_a_live_endpoint_may_read_the_body_by_itself(read: str) -> None:
    app = FastAPI()

    @app.post("/")
    @live
    async def endpoint(request: Request, stream: Any) -> None:
        if read == "after":
            await stream.write("first ")
        await stream.write((await request.json())["a"])

    with Client(app) as client:
        assert client.open("POST", "/", body=b'{"a": "x"}').read().endswith(b"x")


# ---------------------------------------------------------------- errors, responses, background tasks


@KINDS
def test_an_error_before_the_first_write_is_answered_by_fastapi(kind: str) -> None:
    kept = Kept()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise HTTPException(404, "nothing here")
        yield

    with Client(app_of(kind, program, kept)) as client:
        answer = client.get("/")
        assert (answer.status, json.loads(answer.read())) == (404, {"detail": "nothing here"})
    assert kept.events == ["enter", "HTTPException", "exit"]


@pytest.mark.parametrize("producer", PRODUCERS)
def test_an_error_before_the_first_chunk_is_answered_by_its_handler(producer: str) -> None:
    app = FastAPI()

    def program(stream: Any) -> Iterator[Any]:
        raise LookupError("k")
        yield

    @app.exception_handler(LookupError)
    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"handled {error}", 409)

    @app.get("/")
    def endpoint() -> Any:
        return respond(streamkit.stream(producer_of(producer, program)))

    with Client(app) as client:
        answer = client.get("/")
        assert (answer.status, answer.read()) == (409, b"handled k")


@KINDS
def test_a_live_endpoint_may_return_a_response_instead(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        return JSONResponse({"plain": True}, 418)
        yield

    with Client(app_of(kind, program)) as client:
        answer = client.get("/")
        assert (answer.status, json.loads(answer.read())) == (418, {"plain": True})


def test_background_tasks_of_fastapi_run_after_the_end() -> None:
    app, order = FastAPI(), []

    @app.get("/live")
    @live
    async def endpoint(request: Request, stream: Any, tasks: BackgroundTasks) -> None:
        tasks.add_task(order.append, "task")
        await stream.write("a")
        order.append("end")

    @app.get("/described")
    def described(tasks: BackgroundTasks) -> Any:
        tasks.add_task(order.append, "task")

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            order.append("end")

        return respond(streamkit.stream(chunks()))

    with Client(app) as client:
        for path in ("/live", "/described"):
            answer = client.get(path)
            assert answer.read() == b"a"
            answer.wait_closed()
            assert until(lambda: order == ["end", "task"]), (path, order)
            order.clear()


@KINDS
def test_middleware_of_fastapi_hides_nothing_and_holds_nothing_back(kind: str) -> None:
    arrived = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["Content-Type"] = "text/event-stream"
        yield "data: " + "a" * 1000 + "\n\n"
        yield Wait(arrived)
        raise ZeroDivisionError

    app = app_of(kind, program)
    app.add_middleware(GZipMiddleware)

    @app.middleware("http")
    async def pass_on(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Middleware"] = "1"
        return response

    with Client(app) as client:
        answer = client.get("/", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["X-Middleware"] == "1"
        assert answer.next_chunk() == b"data: " + b"a" * 1000 + b"\n\n"
        arrived.set()
        assert b"event: error" in answer.read()


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
