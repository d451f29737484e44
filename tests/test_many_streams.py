"""Ten thousand short streams, half of them aborted, leave nothing behind.

Rule: what is counted is counted before and after; afterwards it may take a bounded while to be
back, since pooled threads leave some two seconds after their last work.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import environ_of, scope_of, until

import streamkit

STREAMS = 10_000
AT_ONCE = 100  # requests that one loop serves at the same time
CHUNK = b"x" * 500
HIGH_WATER = {"high_water": 1000}

pytestmark = pytest.mark.slow


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def live_streams() -> int:
    gc.collect()
    kinds = (streamkit.ResponseStream, streamkit.AsyncResponseStream)
    return sum(issubclass(type(found), kinds) for found in gc.get_objects())


def chunks(endless: bool) -> Iterator[bytes]:
    yield CHUNK
    while endless:
        yield CHUNK
    yield CHUNK


def function(endless: bool) -> Callable[[Any], None]:
    def producer(stream: streamkit.ResponseStream) -> None:
        for chunk in chunks(endless):
            stream.write(chunk)

    return producer


def async_function(endless: bool) -> Callable[[Any], Any]:
    async def producer(stream: streamkit.AsyncResponseStream) -> None:
        for chunk in chunks(endless):
            await stream.write(chunk)

    return producer


async def async_iterable(endless: bool) -> AsyncIterator[bytes]:
    for chunk in chunks(endless):
        yield chunk


KINDS: dict[str, Callable[[bool], Any]] = {
    "function": function,
    "async-function": async_function,
    "iterable": chunks,
    "async-iterable": async_iterable,
}


def described(make: Callable[[bool], Any], ended: list[int]) -> Callable[[bool], Any]:
    """An app for one request; it notes its end, so that each is known to have ended once."""
    return lambda endless: streamkit.stream(
        make(endless), options=HIGH_WATER, callback=lambda: ended.append(1)
    )


def carried_by_environ(ended: list[int]) -> Callable[[bool], Any]:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.on_finish(lambda stream: ended.append(1))
        for chunk in chunks(environ["test.endless"]):
            stream.write(chunk)
        return []

    wrapped = streamkit.wrap(app, HIGH_WATER, engine="thread")

    def serve(endless: bool) -> Any:
        return lambda environ, start_response: wrapped({**environ, "test.endless": endless}, start_response)

    return serve


def serve_wsgi(app_for: Callable[[bool], Any], requests: int) -> None:
    """As a server does whose clients leave every second response after its first chunk."""
    environ = environ_of()
    for number in range(requests):
        leaves = number % 2 == 0
        body = app_for(leaves)(dict(environ), lambda *head: None)
        arrived = iter(body)
        first = next(chunk for chunk in arrived if chunk)  # an empty one sends the head
        if not leaves:
            assert len(first) + sum(map(len, arrived)) == 2 * len(CHUNK)
        body.close()


async def serve_asgi(app_for: Callable[[bool], Any], requests: int) -> None:
    turns = iter(range(requests))

    async def visitor() -> None:
        for number in turns:
            await serve_one(app_for(number % 2 == 0), leaves=number % 2 == 0)

    await asyncio.gather(*(visitor() for _ in range(AT_ONCE)))


async def serve_one(app: Any, *, leaves: bool) -> None:
    over = asyncio.Event()
    requests = [{"type": "http.request", "body": b"", "more_body": False}]
    sent = 0

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if message["type"] == "http.response.body" and (leaves or not message.get("more_body")):
            over.set()
        await asyncio.sleep(0)

    await app(scope_of(), receive, send)
    assert leaves or sent == 2 * len(CHUNK)


async def no_task_but_this() -> bool:
    for _ in range(1000):
        if len(asyncio.all_tasks()) == 1:
            return True
        await asyncio.sleep(0.01)
    return False


class Footprint:
    """What is counted, after one stream has made whatever is made once."""

    def __init__(self) -> None:
        self.streams, self.files = live_streams(), open_files()
        self.threads = threading.active_count()

    def assert_back(self) -> None:
        assert until(lambda: threading.active_count() <= self.threads), threading.enumerate()
        assert until(lambda: open_files() <= self.files)
        assert until(lambda: live_streams() <= self.streams), live_streams()


@pytest.mark.parametrize("kind", [*KINDS, "environ"])
def test_many_wsgi_streams_leave_nothing_behind(kind: str) -> None:
    ended: list[int] = []
    app_for = carried_by_environ(ended) if kind == "environ" else described(KINDS[kind], ended)
    serve_wsgi(app_for, 2)
    before = Footprint()
    ended.clear()
    serve_wsgi(app_for, STREAMS)
    before.assert_back()
    assert until(lambda: len(ended) == STREAMS)


@pytest.mark.parametrize("kind", ["function", "async-function", "async-iterable"])  # each engine once
def test_many_asgi_streams_leave_nothing_behind(kind: str) -> None:
    ended: list[int] = []
    app_for = described(KINDS[kind], ended)

    async def visit(requests: int) -> None:
        await serve_asgi(app_for, requests)
        assert await no_task_but_this(), asyncio.all_tasks()

    asyncio.run(visit(2))
    before = Footprint()
    ended.clear()
    asyncio.run(visit(STREAMS))
    before.assert_back()
    assert until(lambda: len(ended) == STREAMS)
