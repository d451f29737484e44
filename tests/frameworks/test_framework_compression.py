"""Compression and 304s in frameworks: their own streams, descriptions and live views.

Rule: a chunk that is decoded before the next is made shows that nothing holds it back.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.testing import Client

pytest.importorskip("flask")
pytest.importorskip("django")
pytest.importorskip("starlette")

import flask
from django.http import StreamingHttpResponse
from django.views.decorators.vary import vary_on_headers
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from streamkit.frameworks.django import respond
from streamkit.frameworks.flask import StreamKit
from streamkit.frameworks.flask import live as flask_live
from streamkit.frameworks.starlette import live as starlette_live

from .django_ways import LiveWay, Site
from .programs import Wait

GZIP = {"Accept-Encoding": "gzip"}
ON = {"compress": True}
KNOWN = {"If-None-Match": '"v1"'}


class Gate:
    """Chunks, of which the second is made when the first has been decoded."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def chunks(self) -> Iterator[bytes]:
        yield b"first "
        assert self.opened.wait(PATIENCE), "the first chunk was held back"
        yield b"second"

    def check(self, answer: Any) -> None:
        decoder = zlib.decompressobj(31)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["Vary"].lower()
        text = b""
        while text != b"first ":
            text += decoder.decompress(answer.next_chunk())
        self.opened.set()
        assert decoder.decompress(answer.read()) == b"second"
        assert (decoder.eof, answer.complete) == (True, True)


def flask_app(view: Callable[[], Any]) -> Any:
    app = flask.Flask(__name__)
    StreamKit(app, ON)
    app.get("/")(view)
    return app


def test_a_generator_of_flask() -> None:
    gate = Gate()
    with Client(flask_app(lambda: flask.Response(gate.chunks(), mimetype="text/plain"))) as client:
        gate.check(client.get("/", headers=GZIP))


def test_a_description_in_flask() -> None:
    gate = Gate()
    with Client(flask_app(lambda: streamkit.stream(gate.chunks()))) as client:
        gate.check(client.get("/", headers=GZIP))


def test_a_live_view_of_flask_is_compressed_or_a_304() -> None:
    gate = Gate()

    @flask_live
    def view(stream: Any) -> None:
        if stream.stale(etag="v1"):
            for chunk in gate.chunks():
                stream.write(chunk)

    with Client(flask_app(view)) as client:
        gate.check(client.get("/", headers=GZIP))
        again = client.get("/", headers=KNOWN)
        assert (again.status, again.read(), again.headers["ETag"]) == (304, b"", '"v1"')


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_streaming_response_of_django(interface: str) -> None:
    gate = Gate()

    def view(request: Any) -> Any:
        return StreamingHttpResponse(gate.chunks(), content_type="text/plain")

    async def chunks() -> Any:
        iterator = gate.chunks()
        while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
            yield chunk

    async def view_async(request: Any) -> Any:
        return StreamingHttpResponse(chunks(), content_type="text/plain")

    with Site(interface) as site:
        client = site.client(view if interface == "wsgi" else view_async, wrapped=ON, first=None)
        gate.check(client.get("/", headers=GZIP))


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_live_view_of_django_is_compressed_or_a_304(interface: str, kind: str) -> None:
    gate = Gate()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        if stream.stale(etag="v1"):
            yield b"first "
            yield Wait(gate.opened)
            yield b"second"

    with Site(interface) as site:
        middleware = [
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
        ]
        client = LiveWay(site, kind).client(program, wrapped=ON, middleware=middleware, STREAMKIT=ON)
        gate.check(client.get("/", headers=GZIP))
        again = client.get("/", headers=KNOWN)
        assert (again.status, again.read(), again.headers["ETag"]) == (304, b"", '"v1"')


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_a_view_of_django_varies_on_stands_beside_the_coding(interface: str) -> None:
    @vary_on_headers("X-Shop")
    async def view(request: Any) -> Any:
        async def words() -> AsyncIterator[str]:
            yield "words"

        return respond(request, streamkit.stream(words()))

    with Site(interface) as site:
        answer = site.client(view, wrapped=ON, STREAMKIT=ON).get("/", headers=GZIP)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "X-Shop, Accept-Encoding"


def test_a_streaming_response_of_starlette_under_its_own_gzip() -> None:
    gate = Gate()

    def view(request: Any) -> Any:
        return StreamingResponse(gate.chunks(), media_type="text/plain")

    with Client(streamkit.wrap(Starlette(routes=[Route("/", view)]), ON)) as client:
        gate.check(client.get("/", headers=GZIP))


@pytest.mark.parametrize("layers", [[], [Middleware(GZipMiddleware, minimum_size=1)]], ids=["bare", "gzip"])
def test_a_live_view_of_starlette_is_compressed_once_or_a_304(layers: Any) -> None:
    gate = Gate()

    @starlette_live
    def view(request: Any, stream: Any) -> None:
        if stream.stale(etag="v1"):
            for chunk in gate.chunks():
                stream.write(chunk)

    app = Starlette(routes=[Route("/", view)], middleware=layers)
    with Client(streamkit.wrap(app, ON)) as client:
        gate.check(client.get("/", headers=GZIP))
        again = client.get("/", headers=KNOWN)
        assert (again.status, again.read(), again.headers["ETag"]) == (304, b"", '"v1"')
