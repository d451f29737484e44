"""An async iterable that is pulled: order, ends and leaves, where something else goes on beside it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from driving import AsgiServer

import streamkit

KEY = "streamkit.stream"


class Refusing:
    """A resource that cannot be entered, for a reason that an iterable could have for its end."""

    async def __aenter__(self) -> None:
        raise StopAsyncIteration

    async def __aexit__(self, *details: object) -> None:
        raise AssertionError("it was never entered")


async def numbers() -> Any:
    for number in range(3):
        yield str(number)


def test_what_is_written_beside_an_iterable_that_waits_is_not_overtaken() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        waited_for, written = asyncio.Event(), asyncio.Event()

        async def chunks() -> Any:
            yield b"1"
            waited_for.set()
            await asyncio.wait_for(written.wait(), 20)
            yield b"3"
            yield b"4"

        async def write_beside(stream: Any) -> None:
            await asyncio.wait_for(waited_for.wait(), 20)
            await stream.write(b"2")
            written.set()

        tasks = []
        scope[KEY].on_commit(lambda stream: tasks.append(asyncio.create_task(write_beside(stream))))
        await streamkit.stream(chunks())(scope, receive, send)
        await asyncio.wait_for(tasks[0], 20)

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        assert server.request().finish().body == b"1234"


def test_a_resource_that_raises_what_ends_iterables_is_an_error() -> None:
    with AsgiServer(streamkit.stream(numbers(), resources=[Refusing()])) as server:
        answer = server.request().finish()
        assert not answer.committed
        assert answer.error is not None


def test_a_hook_of_the_commit_that_raises_what_ends_iterables_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def hook(stream: Any) -> None:
            raise StopAsyncIteration

        scope[KEY].on_commit(hook)
        await streamkit.stream(numbers())(scope, receive, send)

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answer = server.request().finish()
        assert not answer.committed
        assert answer.error is not None


@pytest.mark.parametrize("way", ["whole", "left"])
def test_the_end_of_a_pulled_stream_leaves_no_cycle(way: str) -> None:
    async def chunks() -> Any:
        yield b"1"
        if way == "left":
            await asyncio.Event().wait()

    async def once() -> None:
        gone, sent = asyncio.Event(), asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message.get("body"):
                sent.set()

        scope = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1", "headers": []}
        task = asyncio.create_task(streamkit.stream(chunks())(scope, receive, send))
        await asyncio.wait_for(sent.wait(), 20)
        if way == "left":
            gone.set()
        await asyncio.wait([task])

    async def main() -> int:
        await once()
        await asyncio.sleep(0)
        while gc.collect():  # what other tests have left may take more than one turn
            pass
        gc.disable()
        try:
            await once()
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("way", ["function", "iterable", "events"])
def test_a_leave_reaches_a_description_whose_scope_is_not_the_wraps(way: str) -> None:
    """A layer may hand on a scope of its own, without the stream that stood in the request's."""
    outcomes: list[Any] = []

    async def idle(stream: Any) -> None:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        await stream.write(b"a")
        await asyncio.Event().wait()

    async def chunks() -> Any:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            outcomes.append("disconnected")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        own = {name: value for name, value in scope.items() if name != KEY}
        described = {
            "function": lambda: streamkit.stream(idle),
            "iterable": lambda: streamkit.stream(chunks()),
            "events": lambda: streamkit.event_stream(idle),
        }[way]()
        await described(own, receive, send)

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answer = server.request()
        assert answer.read()
        answer.leave()
        answer.through()
    assert outcomes == ["disconnected"]
