"""Pages of another origin: the frameworks' own CORS layers see the heads of streams, and of their last 204.

Rule: a browser that finds no `Access-Control-Allow-Origin` on the 204 takes it for a failure and tries on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.testing import Client

pytestmark = pytest.mark.server  # two of the layers are not among what the quick tests need

ORIGIN = "https://page.example"
OTHER = "https://other.example"  # with one alone, Flask-Cors needs no Vary
arrived = threading.Event()


def events() -> streamkit.StreamingResponse:
    def produce(stream: streamkit.EventStream) -> None:
        stream.send("one")
        assert arrived.wait(PATIENCE)
        stream.done()

    return streamkit.event_stream(produce)


def write_live(stream: streamkit.ResponseStream) -> None:
    stream.headers["Content-Type"] = "text/event-stream"
    stream.write("data: one\n\n")
    assert arrived.wait(PATIENCE)


@contextmanager
def starlette_client() -> Iterator[Client]:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.routing import Route

    from streamkit.frameworks.starlette import live, respond

    async def plain(request: Any) -> Any:
        return events()

    async def responded(request: Any) -> Any:
        return respond(events())

    @live
    def lively(request: Any, stream: Any) -> None:
        write_live(stream)

    layer = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_credentials=True)
    routes = [Route("/plain", plain), Route("/responded", responded), Route("/live", lively)]
    with Client(Starlette(routes=routes, middleware=[layer])) as client:
        yield client


@contextmanager
def flask_client() -> Iterator[Client]:
    flask, flask_cors = pytest.importorskip("flask"), pytest.importorskip("flask_cors")
    from streamkit.frameworks.flask import StreamKit, live, respond

    app = flask.Flask("crossed")
    flask_cors.CORS(app, origins=[ORIGIN, OTHER], supports_credentials=True)
    StreamKit(app)
    app.add_url_rule("/plain", "plain", events)
    app.add_url_rule("/responded", "responded", lambda: respond(events()))
    app.add_url_rule("/live", "live", live(write_live))
    with Client(app) as client:
        yield client


@contextmanager
def django_client(interface: str) -> Iterator[Client]:
    pytest.importorskip("django")
    pytest.importorskip("corsheaders")
    from django.urls import path

    from streamkit.frameworks.django import live, respond

    from .django_ways import Site

    @live
    def lively(request: Any, stream: Any) -> None:
        write_live(stream)

    async def responded(request: Any) -> Any:
        return respond(request, events())

    pages = [
        path("plain", lambda request: respond(request, events())),
        path("responded", responded),
        path("live", lively),
    ]
    layer = "corsheaders.middleware.CorsMiddleware"
    allowed = {"CORS_ALLOWED_ORIGINS": [ORIGIN], "CORS_ALLOW_CREDENTIALS": True}
    with Site(interface) as site:
        yield site.client(pages, middleware=[layer], **allowed)


CLIENTS: dict[str, Callable[[], Any]] = {
    "starlette": starlette_client,
    "flask": flask_client,
    "django-wsgi": lambda: django_client("wsgi"),
    "django-asgi": lambda: django_client("asgi"),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    arrived.clear()
    with CLIENTS[request.param]() as client:
        yield client
        arrived.set()


def allowed(answer: Any) -> tuple[Any, ...]:
    headers = answer.headers
    credentials = headers.getlist("Access-Control-Allow-Credentials")
    return headers.getlist("Access-Control-Allow-Origin"), credentials, headers["Vary"].lower()


@pytest.mark.parametrize("page", ["plain", "responded", "live"])
def test_a_stream_has_the_headers_of_its_layer_and_is_not_held_back_by_it(client: Client, page: str) -> None:
    answer = client.get(f"/{page}", headers={"Origin": ORIGIN})
    assert allowed(answer) == ([ORIGIN], ["true"], "origin")
    assert answer.headers.getlist("Content-Type") == ["text/event-stream"]
    assert answer.next_event().data == "one"
    arrived.set()
    answer.read()


@pytest.mark.parametrize("page", ["plain", "responded"])
def test_the_204_that_ends_an_event_source_has_them_too(client: Client, page: str) -> None:
    first = client.get(f"/{page}", headers={"Origin": ORIGIN})
    event = first.next_event()
    arrived.set()
    first.read()
    assert event.data == "one"
    answer = client.get(f"/{page}", headers={"Origin": ORIGIN, "Last-Event-ID": "streamkit.done"})
    assert (answer.status, answer.read(), "Content-Type" in answer.headers) == (204, b"", False)
    assert allowed(answer) == ([ORIGIN], ["true"], "origin")


def test_a_stranger_gets_no_leave(client: Client) -> None:
    answer = client.get("/plain", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    arrived.set()
    answer.read()
