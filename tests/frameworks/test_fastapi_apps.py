"""FastAPI: live endpoints and descriptions with its dependencies, its parameters and its OpenAPI.

Rule: what FastAPI promises for its own `StreamingResponse` holds for ours. From 0.118 on, a dependency
with `yield` is left after the response has been sent; before, it was left when the endpoint returned.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from driving import until

import streamkit
from streamkit.testing import Client

pytest.importorskip("fastapi")
from fastapi import (
    BackgroundTasks,
    Body,
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

