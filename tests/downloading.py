"""Downloads, served in each of the ways that a description can be.

    @pytest.fixture(params=WAYS)
    def served(request):
        yield from serving(request.param)

    def test_something(served):
        answer = served(lambda: csv_rows(rows, "a.csv"), method="HEAD").finish()

Rule: a description is made in the request, by the function that the test gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from driving import Answer, AsgiServer, WsgiServer, environ_of, scope_of
from shapes import Asked, Shape

import streamkit
from streamkit.downloads import send_stream

WAYS = ("wsgi", "asgi", "wrapped-wsgi", "wrapped-asgi")


class Downloads:
    """Serves descriptions one way; `options` are the wrapped app's."""

    def __init__(self, way: str, servers: ExitStack) -> None:
        self.way = way
        self._servers = servers

    def __call__(self, make: Callable[[], Any], *, options: Any = None, **request: Any) -> Answer:
        is_wsgi = self.way.endswith("wsgi")
        app: Any = wsgi_app(make) if is_wsgi else asgi_app(make)
        if self.way.startswith("wrapped"):
            app = streamkit.wrap(app, options, kind="wsgi" if is_wsgi else "asgi")
        else:
            assert options is None, "only a wrapped app has options"
        server = self._servers.enter_context(WsgiServer(app) if is_wsgi else AsgiServer(app))
        return server.request(**request)


def serving(way: str) -> Iterator[Downloads]:
    with ExitStack() as servers:
        yield Downloads(way, servers)


def wsgi_app(make: Callable[[], Any]) -> Any:
    return lambda environ, start_response: make()(environ, start_response)


def asgi_app(make: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await make()(scope, receive, send)

    return app


class AskedDownload(Asked):
    def describe(self, producer: Any) -> Any:
        self.before()
        return send_stream(producer, **self.response)


def as_download(shape: Shape) -> Shape:
    """The shape, described by `send_stream` in place of `stream`."""
    return replace(shape, build=lambda program, asked: shape.build(program, AskedDownload(**vars(asked))))


async def awaited(items: Iterable[Any]) -> AsyncIterator[Any]:
    """The same items, from an async generator that gives the loop its turn."""
    for item in items:
        await asyncio.sleep(0)
        yield item


def sent_length(way: str, make: Callable[[], Any]) -> int:
    """Serve it and count its bytes, keeping none of them."""
    if way == "wsgi":
        body = make()(environ_of(), lambda status, headers, exc_info=None: None)
        try:
            return sum(map(len, body))
        finally:
            body.close()
    return asyncio.run(_sent_length(make()))


async def _sent_length(download: Any) -> int:
    length = 0

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal length
        length += len(message.get("body", b""))

    await download(scope_of(), receive, send)
    return length
