"""How live endpoints in Starlette end.

Rule: each test runs with a synchronous and an asynchronous endpoint.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, scope_of, until

import streamkit
from streamkit.errors import ClientDisconnected
from streamkit.testing import Client

pytest.importorskip("starlette")
pytest.importorskip("itsdangerous")
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from streamkit.frameworks.starlette import live

from .programs import Ends, Program, Wait, view_of

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def app_of(kind: str, program: Program, *, path: str = "/", methods: Any = None, **more: Any) -> Any:
    """An app whose one endpoint is this program, live."""
    return Starlette(routes=[Route(path, live(view_of(kind, program)), methods=methods)], **more)


async def pass_on(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["X-Middleware"] = "1"
    return response


DISPATCHED = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
GZIP = Middleware(GZipMiddleware)


# ---------------------------------------------------------------- HEAD, errors, leaves


@KINDS
def test_head_has_the_head_of_get_and_no_body(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        if request.query_params:
            raise HTTPException(404)
        stream.headers["X-Name"] = "ann"
        try:
            while True:
                yield "a" * 1000
        finally:
            ended.set()

    with Client(app_of(kind, program)) as client:
        answer = client.open("HEAD", "/")
        assert (answer.status, answer.headers["X-Name"], answer.read()) == (200, "ann", b"")
        assert ended.wait(PATIENCE), "the endpoint goes on without a reader"
        assert client.open("HEAD", "/", query="a=1").status == 404
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@KINDS
@pytest.mark.parametrize("middleware", [[], [DISPATCHED], [GZIP, DISPATCHED]])
def test_an_error_after_the_first_write_cuts_the_stream_and_is_told_once(
    kind: str, middleware: Any
) -> None:
    ends = Ends()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        stream.headers["Content-Type"] = "text/csv"
        yield "a"
        raise ZeroDivisionError("on purpose")

    with Client(streamkit.wrap(app_of(kind, program, middleware=middleware))) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"a"
        with pytest.raises(ZeroDivisionError):
            answer.next_chunk()
        assert not answer.complete
        assert ends.come() == ["failed"]
        assert [str(error) for error in ends.errors] == ["on purpose"]


@KINDS
def test_base_http_middleware_does_not_hide_a_late_error_but_ends_the_body_without_a_wrap(kind: str) -> None:
    """Its own fault: it sends the end of a body that had none. `streamkit.wrap` outside keeps that back."""

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "<p>a"
        raise ZeroDivisionError("on purpose")

    with Client(app_of(kind, program, middleware=[DISPATCHED])) as client:
        answer = client.get("/")
        assert b"<noscript>" in answer.read(), "the page says that it is not whole"
        answer.wait_closed()
        assert isinstance(answer.error, ZeroDivisionError)


@KINDS
@pytest.mark.parametrize("middleware", [[], [DISPATCHED]])
def test_an_endpoint_whose_client_leaves_is_ended_and_its_hooks_run_once(
    kind: str, middleware: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ends, ended, never = Ends(), threading.Event(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        try:
            yield "data: 1\n\n"
            while stream.connected:
                if kind == "sync":
                    never.wait(0.01)
                else:
                    yield Wait(never)
        finally:
            ended.set()

    with Client(app_of(kind, program, middleware=middleware)) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"data: 1\n\n"
        answer.disconnect()
        assert ended.wait(PATIENCE), "the endpoint goes on without a reader"
        assert ends.come() == ["disconnected"]
        answer.wait_closed()
        never.set()
    assert ends.outcomes == ["disconnected"]
    assert all(isinstance(error, ClientDisconnected) for error in ends.errors)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@KINDS
def test_a_client_that_leaves_before_the_first_write_is_nobodys_error(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    began, never, ended = threading.Event(), threading.Event(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        try:
            began.set()
            yield Wait(never)
            yield "a"
        finally:
            ended.set()

    with Client(app_of(kind, program)) as client:
        answer = client.get("/")
        assert began.wait(PATIENCE)
        answer.disconnect()
        if kind == "sync":
            never.set()  # nothing else could make it end
        answer.wait_closed()
        assert answer.error is None
        assert ended.is_set()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("seconds", [0.05, PATIENCE])
def test_a_request_is_over_when_its_producer_is_or_after_a_while_which_is_told(
    seconds: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So whoever closes what a blocked producer uses, a dependency of FastAPI say, can wait for it."""
    monkeypatch.setattr("streamkit.frameworks._asgi.LAST_SECONDS", seconds)
    blocked, ended = threading.Event(), threading.Event()

    @live
    def endpoint(request: Any, stream: Any) -> None:
        stream.write("a")
        assert blocked.wait(PATIENCE)
        ended.set()

    with Client(Starlette(routes=[Route("/", endpoint)])) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"a"
        answer.disconnect()
        if seconds == PATIENCE:
            with pytest.raises(TimeoutError):
                answer.wait_closed(0.1)
            blocked.set()
        answer.wait_closed()
        assert ended.is_set() == blocked.is_set()
        assert ("went on" in caplog.text) == (seconds != PATIENCE)
        blocked.set()
        assert ended.wait(PATIENCE)


@KINDS
def test_a_response_that_is_replaced_on_its_way_ends_its_producer(kind: str) -> None:
    ends = Ends()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        yield "a"
        while stream.connected:
            yield "b" * 1000

    endpoint = live(view_of(kind, program))

    async def other(request: Any) -> Any:
        await endpoint(request)
        return PlainTextResponse("other")

    with Client(Starlette(routes=[Route("/", other)])) as client:
        assert client.get("/").read() == b"other"
        assert until(lambda: ends.outcomes), "the producer waits for a reader that never comes"
        assert ends.outcomes == ["disconnected"]



# ---------------------------------------------------------------- Starlette's own streams in its middleware


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(("media_type", "is_whole"), [("text/csv", False), ("text/event-stream", True)])
def test_a_stream_of_starlettes_own_that_is_shut_down_ends_as_its_kind_does_in_middleware_too(
    media_type: str, is_whole: bool, asks: bool
) -> None:
    outcomes: list[Any] = []

    async def page(request: Any) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            while not (asks and await request.is_disconnected()):
                yield b"data: 1\n\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(pieces(), media_type=media_type)

    app = Starlette(routes=[Route("/", page)], middleware=[DISPATCHED])
    wrapped = streamkit.wrap(app, on_finish=lambda stream: outcomes.append(stream.outcome))
    with AsgiServer(wrapped) as server:
        answer = server.request()
        assert answer.read().startswith(b"data: 1\n\n")
        assert until(lambda: streamkit.shutdown(0)), "a busy loop may take more than one last moment"
        assert answer.finish().complete is is_whole
    assert (b"retry: " in answer.body) is is_whole
    assert outcomes == ["shut_down"]


def test_an_endpoint_whose_request_is_cancelled_before_its_first_write_ends_with_it() -> None:
    ended: list[bool] = []

    async def main() -> None:
        begun = asyncio.Event()

        @live
        async def endpoint(request: Any, stream: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        async def send(message: Any) -> None:
            raise AssertionError(message)

        app = Starlette(routes=[Route("/", endpoint)])
        serving = asyncio.ensure_future(app(scope_of(), asyncio.Event().wait, send))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        serving.cancel()
        await asyncio.wait([serving], timeout=PATIENCE)
        assert serving.cancelled()
        assert ended == [True]

    asyncio.run(main())
