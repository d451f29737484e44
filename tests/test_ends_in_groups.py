"""Ends that a task group tells of, and ends of what is no whole response."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from driving import PATIENCE, environ_of, scope_of
from test_lost_errors import grouped, told

import streamkit
from streamkit import StreamClosed


class Held:
    """Something of a producer's."""

    error: BaseException


def test_what_a_producer_held_is_free_after_a_leave_that_a_group_tells_of() -> None:
    held: list[Any] = []

    async def producer(stream: Any) -> None:
        kept = Held()
        held.append(weakref.ref(kept))
        try:
            while True:
                await stream.write("tick ")
                await asyncio.sleep(0)
        except OSError as leave:
            kept.error = leave  # a ring, by way of the error's own frames
        raise grouped(kept.error)  # as of another task's: it is no context

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await producer(scope["streamkit.stream"])

    async def request() -> None:
        async def send(message: Any) -> None:
            if message.get("body"):
                raise OSError("gone")

        served = streamkit.wrap(app, kind="asgi")(scope_of(), asyncio.Event().wait, send)
        await asyncio.wait_for(served, PATIENCE)
        assert held[0]() is None, "only a collector would free it"

    gc.collect()
    gc.disable()
    try:
        asyncio.run(request())
    finally:
        gc.enable()


def test_a_status_that_is_none_goes_to_the_server_where_an_application_uses_write() -> None:
    heard: list[Any] = []
    given: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        environ["streamkit.stream"].on_finish(lambda stream: heard.append(stream.outcome))
        start_response("fine", [("Content-Type", "text/plain"), ("Content-Length", "1")])(b"a")
        return []

    def start_response(status: str, headers: Any) -> Any:
        given.append(status)
        return given.append

    assert list(streamkit.wrap(app, kind="wsgi")(environ_of(), start_response)) == []
    assert (given, heard) == (["fine", b"a"], ["finished"])


def test_an_abort_that_a_group_tells_of_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Any] = []

    async def producer(stream: Any) -> None:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        await stream.write("half")
        stream.abort("no more")
        try:
            await stream.write("more")
        except StreamClosed as closed:
            raise grouped(closed) from None

    async def request() -> None:
        async def send(message: Any) -> None:
            pass

        served = streamkit.stream(producer)(scope_of(), asyncio.Event().wait, send)
        with pytest.raises(streamkit.StreamAborted):
            await asyncio.wait_for(served, PATIENCE)

    asyncio.run(request())
    assert (outcomes, told(caplog)) == (["aborted"], [])


def test_a_hook_of_the_end_hears_how_a_response_ended_that_its_description_goes_on_with() -> None:
    outcomes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["streamkit.stream"].on_finish(lambda stream: outcomes.append(stream.outcome))
        has_begun = asyncio.Event()

        async def producer(stream: Any) -> None:
            await stream.write("half")
            has_begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(streamkit.stream(producer)(scope, receive, send))
        tasks.append(task)
        await has_begun.wait()

    tasks: list[asyncio.Task[None]] = []

    async def request() -> None:
        async def send(message: Any) -> None:
            pass

        wrapped = streamkit.wrap(app, kind="asgi")
        await asyncio.wait_for(wrapped(scope_of(), asyncio.Event().wait, send), PATIENCE)
        assert outcomes
        assert None not in outcomes
        tasks[0].cancel()
        await asyncio.wait(tasks)

    asyncio.run(request())
