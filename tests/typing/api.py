"""What users write, for type checkers alone: nothing here runs."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any

import streamkit
from streamkit import AsyncResponseStream, Options, ResponseStream, StreamingResponse
from streamkit.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp


def function(stream: ResponseStream) -> None:
    stream.status = 201
    stream.headers["X-A"] = "1"
    stream.set_cookie("a", "b", max_age=5, httponly=True)
    count: int = stream.write("text")
    stream << 1 << None << "x"
    csv.writer(stream).writerow([1, 2])
    print("line", file=stream)
    reached: bool = stream.wait_finished(1.0)
    with stream:
        stream.writelines(["a", b"b", bytearray(b"c"), memoryview(b"d")])
    print(count, reached, stream.outcome == "finished")


async def async_function(stream: AsyncResponseStream) -> None:
    count: int = await stream.write(b"bytes")
    await stream.writeln("line")
    await stream.flush()
    stream.commit()
    await stream.close()
    twin: ResponseStream = stream.sync
    print(count, twin)


def iterable() -> Iterator[str]:
    yield "a"


async def async_iterable() -> AsyncIterator[bytes]:
    yield b"a"


responses: list[StreamingResponse] = [
    streamkit.stream(function, status=201, headers={"X-A": "1"}, callback=lambda: None),
    streamkit.stream(async_function, headers=[("X-A", "1")], loop=True, on_error=lambda stream, error: None),
    streamkit.stream(iterable(), content_length=1, engine="thread", options={"high_water": 1024}),
    streamkit.stream(async_iterable(), keep_open=True, options=Options(heartbeat=None)),
    streamkit.stream(["a", b"b"], compress=True),
    streamkit.event_stream(["a"], compress=("gzip",)),
]


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    stream: Any = environ["streamkit.stream"]
    stream.write("x")
    return responses[0](environ, start_response)


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    answer: Awaitable[None] = responses[0](scope, receive, send)
    await answer


wsgi_app: WSGIApp = streamkit.wsgi.StreamingMiddleware(wsgi, {"high_water": 1024})
asgi_app: ASGIApp = streamkit.asgi.StreamingMiddleware(asgi, Options(), high_water=1024)
either = streamkit.wrap(wsgi, Options(), kind="wsgi", heartbeat=None)
print(either.app)


@(lambda hook: hook)
def hook(stream: ResponseStream) -> None: ...


def hooked(stream: ResponseStream) -> None:
    @stream.on_finish
    def finished(stream: ResponseStream) -> None:
        print(stream.bytes_sent)

    finished(stream)
    fresh: bool = not stream.stale(etag="1", last_modified=None, weak=True)
    print(fresh)
