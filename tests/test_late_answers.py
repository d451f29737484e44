"""Applications that write to their stream, and then answer as if they had not."""

from __future__ import annotations

from typing import Any

import flask
import pytest
import werkzeug.exceptions
from driving import AsgiServer, WsgiServer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import streamkit
from streamkit.errors import ApplicationFailed

WAYS = ["write", "thread", "asgi"]


def wsgi_app(status: str, stream_status: int) -> Any:
    """As a framework answers whose view has failed."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.status = stream_status
        stream.write("half")
        start_response(status, [("Content-Type", "text/html")])
        return [b"<h1>Sorry</h1>"]

    return app


def asgi_app(status: str, stream_status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.status = stream_status
        await stream.write("half")
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": []})
        await send({"type": "http.response.body", "body": b"<h1>Sorry</h1>"})

    return app


def served(way: str, status: str, stream_status: int = 200) -> Any:
    if way == "asgi":
        server: Any = AsgiServer(streamkit.wrap(asgi_app(status, stream_status)))
    else:
        engine = "auto" if way == "write" else way
        server = WsgiServer(streamkit.wrap(wsgi_app(status, stream_status), engine=engine))
    with server:
        return server.request().finish()


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "400 Bad Request"])
@pytest.mark.parametrize("way", WAYS)
def test_an_application_that_answers_with_an_error_after_its_stream_began_leaves_no_whole_body(
    way: str, status: str
) -> None:
    """Nothing of that answer may stand in the body, which would look like an end in order without it."""
    answer = served(way, status)
    assert (answer.status, answer.body, answer.complete) == (200, b"half", False)
    assert isinstance(answer.error, ApplicationFailed)
    assert answer.error.status == int(status[:3])
    assert status[:3] in str(answer.error)


@pytest.mark.parametrize(
    ("status", "stream_status"), [("200 OK", 200), ("204 No Content", 200), ("404 Not Found", 404)]
)
@pytest.mark.parametrize("way", WAYS)
def test_an_application_may_answer_beside_its_stream_with_no_error_of_its_own(
    way: str, status: str, stream_status: int
) -> None:
    answer = served(way, status, stream_status)
    assert (answer.status, answer.body, answer.complete) == (stream_status, b"half", True)
    assert answer.error is None


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_a_flask_view_that_aborts_with_404_in_mid_stream_leaves_no_whole_body(
    engine: str, closes: bool
) -> None:
    app = flask.Flask(__name__)

    @app.get("/")
    def view() -> str:
        stream = flask.request.environ["streamkit.stream"]
        try:
            stream.write("half")
            raise werkzeug.exceptions.NotFound
        finally:
            if closes:
                stream.close()

    with WsgiServer(streamkit.wrap(app, kind="wsgi", engine=engine)) as server:
        answer = server.request().finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"half", False)


@pytest.mark.parametrize("closes", [True, False])
def test_a_starlette_view_that_raises_a_404_in_mid_stream_leaves_no_whole_body(closes: bool) -> None:
    async def view(request: Request) -> Response:
        stream = request.scope["streamkit.stream"]
        try:
            await stream.write("half")
            raise HTTPException(404)
        finally:
            if closes:
                await stream.close()

    with AsgiServer(streamkit.wrap(Starlette(routes=[Route("/", view)]))) as server:
        answer = server.request().finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"half", False)
