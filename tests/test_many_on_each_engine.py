"""Ten thousand short streams, half of them aborted, on the engines that test_many_streams.py leaves out.

Rule: as there, what is counted is counted before and after, and every stream has to have ended once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import environ_of, until
from test_many_streams import (
    CHUNK,
    HIGH_WATER,
    STREAMS,
    Footprint,
    chunks,
    described,
    no_task_but_this,
    serve_asgi,
    serve_wsgi,
)

import streamkit
from streamkit.errors import StreamError

pytestmark = pytest.mark.slow

App = Callable[[bool], Any]


def write_all(stream: Any, endless: bool) -> None:
    for chunk in chunks(endless):
        stream.write(chunk)


def synced(endless: bool) -> Callable[[Any], Any]:
    """An asynchronous producer whose thread writes to the twin of its stream."""

    async def producer(stream: streamkit.AsyncResponseStream) -> None:
        twin = stream.sync
        work = asyncio.ensure_future(asyncio.to_thread(write_all, twin, endless))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            work.exception()
            raise

    return producer


async def async_iterable(endless: bool) -> AsyncIterator[bytes]:
    for chunk in chunks(endless):
        await asyncio.sleep(0)
        yield chunk


def in_a_wrap(app: Any, **options: Any) -> App:
    """One wrapped app, told by its request whether it ends."""
    wrapped = streamkit.wrap(app, HIGH_WATER, **options)

    def serve(endless: bool) -> Any:
        if isinstance(wrapped, streamkit.wsgi.StreamingMiddleware):
            return lambda environ, start: wrapped({**environ, "test.endless": endless}, start)
        return lambda scope, receive, send: wrapped({**scope, "test.endless": endless}, receive, send)

    return serve


def written_by_the_app(ended: list[int]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.on_finish(lambda stream: ended.append(1))
        for chunk in chunks(scope["test.endless"]):
            await stream.write(chunk)

    return in_a_wrap(app)


def written_by_a_thread_of_the_app(ended: list[int]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.on_finish(lambda stream: ended.append(1))
        await synced(scope["test.endless"])(stream)

    return in_a_wrap(app)


def messages_of_the_app(ended: list[int]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in chunks(scope["test.endless"]):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    return in_a_wrap(app, on_finish=lambda stream: ended.append(1))


def generator_of_the_app(ended: list[int]) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return chunks(environ["test.endless"])

    return in_a_wrap(app, on_finish=lambda stream: ended.append(1))


def returned_by_the_app(make: Callable[[bool], Any]) -> Callable[[list[int]], App]:
    def build(ended: list[int]) -> App:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            response = streamkit.stream(make(scope["test.endless"]), callback=lambda: ended.append(1))
            await response(scope, receive, send)

        return in_a_wrap(app)

    return build


ASGI: dict[str, Callable[[list[int]], App]] = {
    "scope": written_by_the_app,
    "scope-sync": written_by_a_thread_of_the_app,
    "foreign": messages_of_the_app,
    "synced": lambda ended: described(synced, ended),
    "iterable": lambda ended: described(chunks, ended),
    "waiting-iterable": lambda ended: described(async_iterable, ended),
    "wrapped-synced": returned_by_the_app(synced),
}
WSGI: dict[str, Callable[[list[int]], App]] = {
    "foreign": generator_of_the_app,
    "synced": lambda ended: described(synced, ended),
    "waiting-iterable": lambda ended: described(async_iterable, ended),
}


@pytest.mark.parametrize("kind", ASGI)
def test_many_asgi_streams_of_the_other_engines_leave_nothing_behind(kind: str) -> None:
    ended: list[int] = []
    app_for = ASGI[kind](ended)
    before: list[Footprint] = []

    async def visit() -> None:
        # The threads that `asyncio.to_thread` keeps belong to the loop.
        await serve_asgi(app_for, 200)
        assert await no_task_but_this(), asyncio.all_tasks()
        await asyncio.to_thread(lambda: None)
        before.append(Footprint())
        ended.clear()
        await serve_asgi(app_for, STREAMS)
        assert await no_task_but_this(), asyncio.all_tasks()

    threads = threading.active_count()
    asyncio.run(visit())
    before[0].threads = threads
    before[0].assert_back()
    assert until(lambda: len(ended) == STREAMS)
    assert len(ended) == STREAMS


@pytest.mark.parametrize("kind", WSGI)
def test_many_wsgi_streams_of_the_other_engines_leave_nothing_behind(kind: str) -> None:
    ended: list[int] = []
    app_for = WSGI[kind](ended)
    serve_wsgi(app_for, 200)
    before = Footprint()
    ended.clear()
    serve_wsgi(app_for, STREAMS)
    before.assert_back()
    assert until(lambda: len(ended) == STREAMS)


def test_many_streams_written_by_the_server_s_own_write_leave_nothing_behind() -> None:
    """The app stands on the server's stack: a client that leaves is an error of `write`."""
    ended: list[object] = []
    refused: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.on_finish(lambda stream: ended.append(stream.outcome))
        try:
            write_all(stream, environ["test.endless"])
        except StreamError:
            refused.append(1)
            raise
        return []

    app_for = in_a_wrap(app)

    def serve(requests: int) -> None:
        for number in range(requests):
            leaves = number % 2 == 0
            taken: list[bytes] = []

            def write(chunk: bytes, taken: list[bytes] = taken, leaves: bool = leaves) -> None:
                if leaves and taken:
                    raise BrokenPipeError(32, "the client is gone")
                taken.append(chunk)

            body: Any = None
            try:
                body = app_for(leaves)(environ_of(), lambda *head, write=write: write)
                assert b"".join(body) == b""
            except OSError:
                assert leaves
            finally:
                getattr(body, "close", lambda: None)()
            assert b"".join(taken) == CHUNK * (1 if leaves else 2)

    serve(200)
    before = Footprint()
    ended.clear()
    refused.clear()
    serve(STREAMS)
    before.assert_back()
    assert until(lambda: len(ended) == STREAMS)
    assert (ended.count("disconnected"), ended.count("finished")) == (STREAMS // 2, STREAMS // 2)
    assert len(refused) == STREAMS // 2
