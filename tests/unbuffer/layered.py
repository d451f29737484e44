"""A body that can tell whether it is held, and the apps that send it.

Rule: whether a chunk was held is told by what happened before what, never by how long it took: no
chunk is made before the reader has the one before, or the producer has given up waiting for that.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from streamkit.testing import Client

CHUNKS = 3
PAGE = "<html>\n<body>\n" + "".join(f"<p>   line {n}   </p>\n" for n in range(200)) + "</body>\n</html>\n"
HTML = "text/html; charset=utf-8"


class Drip:
    """A body of a few chunks; `log` is what was made and what was got, in that order."""

    def __init__(self, patience: float) -> None:
        self.log: list[str] = []
        self.got = [threading.Event() for _ in range(CHUNKS)]
        self._patience = patience  # seconds that each chunk waits for the one before to be read

    def _make(self, number: int) -> str:
        self.log.append(f"made {number}")
        return f"<p>[[{number}]] {'x' * 64}</p>\n"

    def chunks(self) -> Iterator[bytes]:
        for number in range(CHUNKS):
            yield self._make(number).encode()
            self.got[number].wait(self._patience)

    async def chunks_async(self) -> AsyncIterator[bytes]:
        for number in range(CHUNKS):
            yield self._make(number).encode()
            await asyncio.to_thread(self.got[number].wait, self._patience)

    def read(self, number: int) -> None:
        self.log.append(f"got {number}")
        self.got[number].set()


AT_ONCE = [f"{what} {number}" for number in range(CHUNKS) for what in ("made", "got")]


def decoder_of(coding: str | None) -> Callable[[bytes], bytes]:
    """An incremental decoder, which gives what can be known so far."""
    if coding in (None, "", "identity"):
        return bytes
    if coding == "gzip":
        return zlib.decompressobj(31).decompress
    if coding == "br":
        return importlib.import_module("brotli").Decompressor().process  # type: ignore[no-any-return]
    assert coding == "zstd", coding
    return importlib.import_module("backports.zstd").ZstdDecompressor().decompress  # type: ignore[no-any-return]


class Seen:
    """What came of a stream."""

    def __init__(self, app: Any, drip: Drip, accept: str = "gzip", kind: Any = None) -> None:
        text, number = b"", 0
        headers = [("Accept-Encoding", accept)]
        with Client(app, kind=kind) as client, client.get("/stream", headers=headers) as connection:
            self.status = connection.status
            self.headers = connection.headers
            decode = decoder_of(self.headers.get("Content-Encoding"))
            while (chunk := connection.next_chunk(10)) is not None:
                text += decode(chunk)
                while f"[[{number}]]".encode() in text:
                    drip.read(number)
                    number += 1
        self.text = text.decode()


class Page:
    """What came of a page, every byte of it."""

    def __init__(
        self, app: Any, accept: str = "gzip", kind: Any = None, fields: list[tuple[str, str]] | None = None
    ) -> None:
        headers = [("Accept-Encoding", accept), *(fields or [])]
        with Client(app, kind=kind) as client, client.get("/page", headers=headers) as connection:
            self.status = connection.status
            self.body = connection.read()
            self.headers = sorted(
                (name.lower(), value) for name, value in connection.headers.items() if name.lower() != "date"
            )

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Page)
        return (self.status, self.headers, self.body) == (other.status, other.headers, other.body)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Page {self.status} {self.headers} {self.body[:80]!r}>"


# ---------------------------------------------------------------- the apps below the layers


def plain_wsgi(drip: Drip) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/stream":
            start_response("200 OK", [("Content-Type", HTML), ("X-App", "kept")])
            return drip.chunks()
        body = PAGE.encode()
        start_response("200 OK", [("Content-Type", HTML), ("Content-Length", str(len(body)))])
        return [body]

    return app


def plain_asgi(drip: Drip) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(b"content-type", HTML.encode())]
        if scope["path"] == "/stream":
            headers.append((b"x-app", b"kept"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in drip.chunks_async():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        body = PAGE.encode()
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


def starlette(drip: Drip, *middleware: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    async def stream(request: Request) -> Response:
        return StreamingResponse(drip.chunks_async(), media_type="text/html", headers={"X-App": "kept"})

    async def page(request: Request) -> Response:
        return Response(PAGE, media_type="text/html")

    return Starlette(routes=[Route("/stream", stream), Route("/page", page)], middleware=list(middleware))


def flask(drip: Drip) -> Any:
    import flask as package

    app = package.Flask("layered")

    @app.get("/stream")
    def stream() -> Any:
        return package.Response(drip.chunks(), content_type=HTML, headers={"X-App": "kept"})

    @app.get("/page")
    def page() -> Any:
        return package.Response(PAGE, content_type=HTML)

    return app


def quart(drip: Drip) -> Any:
    import quart as package

    app = package.Quart("layered")

    @app.get("/stream")
    async def stream() -> Any:
        return package.Response(drip.chunks_async(), content_type=HTML, headers={"X-App": "kept"})

    @app.get("/page")
    async def page() -> Any:
        return package.Response(PAGE, content_type=HTML)

    return app


def pyramid(drip: Drip, set_up: Callable[[Any], None], settings: dict[str, Any] | None = None) -> Any:
    from pyramid.config import Configurator
    from pyramid.response import Response

    with Configurator(settings=settings or {}) as config:
        set_up(config)
        config.add_route("stream", "/stream")
        config.add_route("page", "/page")

        def stream(request: Any) -> Any:
            return Response(app_iter=drip.chunks(), headerlist=[("Content-Type", HTML), ("X-App", "kept")])

        config.add_view(stream, route_name="stream")
        config.add_view(lambda request: Response(PAGE, content_type="text/html"), route_name="page")
        return config.make_wsgi_app()


def wanted(pytestconfig: pytest.Config, *packages: str) -> None:
    """Skip the test where a package is missing, or fail it under `--require-system`."""
    for package in packages:
        if pytestconfig.getoption("--require-system"):
            importlib.import_module(package)
        else:
            pytest.importorskip(package, exc_type=ImportError)
