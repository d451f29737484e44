"""Live endpoints in Starlette: an ordinary endpoint until its first write, a stream from there on.

Rule: each test runs with a synchronous and an asynchronous endpoint.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.errors import AlreadyCommitted, ProducerError
from streamkit.testing import Client

pytest.importorskip("starlette")
pytest.importorskip("itsdangerous")
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route

from streamkit.frameworks.starlette import live

from .programs import Program, Wait, cookies, view_of

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
SESSION = Middleware(SessionMiddleware, secret_key="secret")


def app_of(kind: str, program: Program, *, path: str = "/", methods: Any = None, **more: Any) -> Any:
    """An app whose one endpoint is this program, live."""
    return Starlette(routes=[Route(path, live(view_of(kind, program)), methods=methods)], **more)


async def pass_on(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["X-Middleware"] = "1"
    return response


DISPATCHED = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
GZIP = Middleware(GZipMiddleware)


# ---------------------------------------------------------------- the head


@KINDS
@pytest.mark.parametrize("middleware", [[], [DISPATCHED], [DISPATCHED, GZIP, DISPATCHED]])
def test_a_chunk_arrives_before_the_next_is_made(kind: str, middleware: Any) -> None:
    arrived = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["Content-Type"] = "text/event-stream"
        yield "data: " + "a" * 1000 + "\n\n"
        yield Wait(arrived)
        yield "data: b\n\n"

    with Client(app_of(kind, program, middleware=middleware)) as client:
        answer = client.get("/", headers={"Accept-Encoding": "gzip"})
        assert answer.next_chunk() == b"data: " + b"a" * 1000 + b"\n\n"
        assert ("X-Middleware" in answer.headers) == bool(middleware)
        arrived.set()
        assert answer.next_chunk() == b"data: b\n\n"
        assert (answer.next_chunk(), answer.complete) == (None, True)


@KINDS
def test_the_head_goes_up_through_the_middleware_at_the_first_write(kind: str) -> None:
    gone_up = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.status = 201
        stream.headers["Content-Type"] = "text/event-stream"
        stream.headers["X-Name"] = "ann"
        stream.set_cookie("tasted", "1")
        request.session["seen"] = request.session.get("seen", 0) + 1
        yield f"data: {request.session['seen']}\n\n"
        yield Wait(gone_up)
        yield "data: last\n\n"

    with Client(app_of(kind, program, middleware=[SESSION, DISPATCHED])) as client:
        answer = client.get("/")
        assert answer.status == 201
        assert answer.headers.getlist("Content-Type") == ["text/event-stream"]
        assert (answer.headers["X-Name"], answer.headers["X-Middleware"]) == ("ann", "1")
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        assert cookies(answer) == ["tasted", "session"]
        assert answer.next_chunk() == b"data: 1\n\n"
        gone_up.set()
        assert answer.read() == b"data: last\n\n"
        session = answer.headers.getlist("Set-Cookie")[1].partition(";")[0]
        assert client.get("/", headers={"Cookie": session}).read().startswith(b"data: 2\n\n")


@KINDS
@pytest.mark.parametrize("what", ["status", "header", "cookie", "session", "session pop"])
def test_after_the_first_write_the_head_is_closed(kind: str, what: str) -> None:
    def change(request: Any, stream: Any) -> None:
        if what == "status":
            stream.status = 404
        elif what == "header":
            stream.headers["X-Late"] = "1"
        elif what == "cookie":
            stream.set_cookie("late", "1")
        elif what == "session":
            request.session["late"] = 1
        else:
            request.session.pop("early")

    def program(request: Any, stream: Any) -> Iterator[Any]:
        request.session["early"] = 1
        yield "a"
        with pytest.raises(AlreadyCommitted):
            change(request, stream)
        assert dict(request.session) == {"early": 1}
        yield "b"

    with Client(app_of(kind, program, middleware=[SESSION])) as client:
        answer = client.get("/")
        assert (answer.read(), cookies(answer)) == (b"ab", ["session"])


@KINDS
def test_a_view_that_says_nothing_has_a_content_type_and_is_completed(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "<p>"

    with Client(app_of(kind, program)) as client:
        answer = client.get("/")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert (answer.read(), answer.complete) == (b"<p>", True)


# ---------------------------------------------------------------- until the first write


@KINDS
def test_an_endpoint_that_writes_nothing_may_return_a_response(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        if request.query_params.get("to"):
            return RedirectResponse(request.query_params["to"])
        return JSONResponse({"plain": True}, status_code=418)
        yield

    with Client(app_of(kind, program, middleware=[DISPATCHED])) as client:
        answer = client.get("/")
        assert (answer.status, json.loads(answer.read())) == (418, {"plain": True})
        assert answer.headers["X-Middleware"] == "1"
        redirect = client.get("/", query={"to": "/elsewhere"})
        assert (redirect.status, redirect.headers["Location"]) == (307, "/elsewhere")


@KINDS
@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
def test_an_error_before_the_first_write_is_answered_by_its_handler(kind: str, middleware: Any) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["X-Of-The-Stream"] = "1"
        if "key" in request.query_params:
            raise KeyError("k")
        raise HTTPException(404, "nothing here")
        yield

    def handle(request: Any, error: Exception) -> Any:
        return PlainTextResponse(f"handled {error}", 409)

    app = app_of(kind, program, middleware=middleware, exception_handlers={KeyError: handle})
    with Client(app) as client:
        answer = client.get("/")
        assert (answer.status, answer.read()) == (404, b"nothing here")
        assert "X-Of-The-Stream" not in answer.headers
        handled = client.get("/", query="key=1")
        assert (handled.status, handled.read()) == (409, b"handled 'k'")


@KINDS
def test_an_error_before_the_first_write_has_the_debug_page_and_is_raised(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise ZeroDivisionError("on purpose")
        yield

    with Client(app_of(kind, program, debug=True)) as client:
        answer = client.get("/", headers={"Accept": "text/html"})
        assert answer.status == 500
        assert b"on purpose" in answer.read()
        answer.wait_closed()
        assert isinstance(answer.error, ZeroDivisionError)


@KINDS
def test_a_returned_response_after_the_first_write_is_dropped(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        return PlainTextResponse("b")

    with Client(app_of(kind, program)) as client:
        assert client.get("/").read() == b"a"


# ---------------------------------------------------------------- how endpoints are written


async def watcher() -> None:
    """Wait until the leave is watched for, of which nobody tells."""
    while "streamkit-watcher" not in {task.get_name() for task in asyncio.all_tasks()}:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
@pytest.mark.parametrize("watched", [False, True])
def test_an_endpoint_may_read_the_body_of_its_request(middleware: Any, watched: bool) -> None:
    """Also after the stream has begun to watch for a leave, which comes by the same channel."""

    @live
    async def echo(request: Any, stream: Any) -> None:
        if watched:
            await asyncio.wait_for(watcher(), PATIENCE)
        posted = await request.json()
        await stream.write(posted["first"])
        await stream.write(str(await request.is_disconnected()))

    app = Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=middleware)
    with Client(app) as client:
        answer = client.open("POST", "/", body=b'{"first": "a"}')
        assert answer.read() == b"aFalse"


def test_a_body_that_comes_while_the_response_leaves_is_echoed_piece_by_piece() -> None:
    @live
    async def echo(request: Any, stream: Any) -> None:
        async for piece in request.stream():
            if piece:
                await stream.write(piece.upper())

    with Client(Starlette(routes=[Route("/", echo, methods=["POST"])])) as client:
        assert client.open("POST", "/", body=b"abc").read() == b"ABC"


@KINDS
def test_values_of_the_path_are_given_and_in_the_request(kind: str) -> None:
    """Scenario S10."""

    def program(request: Any, stream: Any, number: int) -> Iterator[Any]:
        yield f"{number} {request.path_params['number']} {request.query_params['q']}"

    app = Starlette(routes=[Mount("/in", app=app_of(kind, program, path="/{number:int}"))])
    with Client(app) as client:
        assert client.get("/in/7", query="q=x").read() == b"7 7 x"


@KINDS
def test_an_endpoint_class_can_have_live_methods(kind: str) -> None:
    if kind == "sync":

        class Ticks(HTTPEndpoint):
            @live
            def get(self, request: Any, stream: Any) -> None:
                stream.write(f"{type(self).__name__} {request.method}")
    else:

        class Ticks(HTTPEndpoint):  # type: ignore[no-redef]
            @live
            async def get(self, request: Any, stream: Any) -> None:
                await stream.write(f"{type(self).__name__} {request.method}")

    with Client(Starlette(routes=[Route("/", Ticks)])) as client:
        assert client.get("/").read() == b"Ticks GET"


@KINDS
def test_background_tasks_run_after_the_end(kind: str) -> None:
    order: list[str] = []

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        order.append("end")

    endpoint = live(view_of(kind, program))

    async def with_task(request: Any) -> Any:
        response = await endpoint(request)
        response.background = BackgroundTask(order.append, "task")
        response.headers["X-View"] = "1"
        response.status_code = 202
        return response

    with Client(Starlette(routes=[Route("/", with_task)])) as client:
        answer = client.get("/")
        assert (answer.status, answer.headers["X-View"], answer.read()) == (202, "1", b"a")
        answer.wait_closed()
    assert order == ["end", "task"]


@KINDS
def test_the_options_of_wrap_are_those_of_live_endpoints(kind: str) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield "b"

    app = streamkit.wrap(app_of(kind, program, middleware=[DISPATCHED]), {"headers": {"X-Wrap": "1"}})
    with Client(app) as client:
        answer = client.get("/")
        assert answer.headers["X-Wrap"] == "1"
        assert (answer.read(), answer.complete) == (b"ab", True)


def test_wrong_live_endpoints_are_refused_when_they_are_declared() -> None:
    with pytest.raises(ProducerError, match="request, stream"):

        @live
        async def too_few(request: Any) -> None: ...

    with pytest.raises(ProducerError, match="generator"):

        @live
        async def generator(request: Any, stream: Any) -> Any:
            yield "a"


def test_many_live_endpoints_at_once_do_not_wait_for_each_other() -> None:
    go_on = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(go_on)
        yield "b"

    with Client(app_of("sync", program)) as client:
        answers = [client.get("/") for _ in range(60)]  # anyio's own threads are forty
        assert [answer.next_chunk() for answer in answers] == [b"a"] * 60
        go_on.set()
        assert [answer.read() for answer in answers] == [b"b"] * 60
