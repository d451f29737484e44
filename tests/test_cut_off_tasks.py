"""An application that was cut off because its client has left: nothing of that reaches its server's task."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from driving import PATIENCE, scope_of

import streamkit


async def listens(receive: Any, stream: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def waits(receive: Any, stream: Any) -> None:
    await asyncio.Event().wait()


async def swallows(receive: Any, stream: Any) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass


async def writes_on(receive: Any, stream: Any) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await stream.write("more")


async def fails_in_a_group(receive: Any, stream: Any) -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("the lock was gone")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


WAYS = [listens, waits, swallows, writes_on, *([fails_in_a_group] if sys.version_info >= (3, 11) else [])]


async def pulled(receive: Any, stream: Any) -> Any:
    """An iterable that takes its cancellation for its end."""
    yield "x"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass


@pytest.mark.parametrize("way", [*WAYS, pulled])
def test_its_servers_task_goes_on_as_if_it_had_returned_and_its_hooks_are_run_to_their_end(way: Any) -> None:
    heard: list[Any] = []

    async def hook(told: Any) -> None:
        await asyncio.sleep(0)
        heard.append(told.outcome)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.on_finish(hook)
        if way is pulled:
            await streamkit.stream(pulled(receive, stream))(scope, receive, send)
            return
        await stream.write("x")
        await way(receive, stream)

    async def server() -> None:
        has_left = asyncio.Event()

        async def send(message: Any) -> None:
            if message.get("body"):
                has_left.set()

        async def receive() -> Any:
            await has_left.wait()
            return {"type": "http.disconnect"}

        await streamkit.wrap(app, kind="asgi")(scope_of(), receive, send)
        await asyncio.sleep(0)
        task: Any = asyncio.current_task()
        heard.append(task.cancelling() if hasattr(task, "cancelling") else 0)

    async def request() -> None:
        await asyncio.wait_for(asyncio.create_task(server()), PATIENCE)

    asyncio.run(request())
    assert heard == ["disconnected", 0]
