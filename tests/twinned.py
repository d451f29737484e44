"""Applications whose threads write to the twin of their stream, and servers for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer

import streamkit

Job = Callable[[Any], object]  # in a thread, with the twin
After = Callable[[Any], Awaitable[object]]  # then on the loop, with the stream
CHUNK = b"x" * 1000
PIECES = [b"first\n", CHUNK, *(b"%05d\n" % number for number in range(2000))]


async def nothing(stream: Any) -> None:
    pass


def producer_of(job: Job, after: After) -> Callable[[Any], Awaitable[None]]:
    async def producer(stream: Any) -> None:
        await asyncio.to_thread(job, stream.sync)
        await after(stream)

    return producer


def scope_app(producer: After, response: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        if "content_type" in response:
            stream.headers["Content-Type"] = response["content_type"]
        await producer(stream)

    return streamkit.wrap(app, response.get("options"), kind="asgi")


WAYS = ["scope", "task", "bridge"]
ways = pytest.mark.parametrize("way", WAYS)


def server_of(way: str, job: Job, after: After = nothing, **response: Any) -> AsgiServer | WsgiServer:
    """A server of an application whose threads write: to the request's stream, or to a description's."""
    return server_for(way, producer_of(job, after), response)


def server_for(way: str, producer: After, response: dict[str, Any]) -> AsgiServer | WsgiServer:
    if way == "scope":
        return AsgiServer(scope_app(producer, response))
    described = streamkit.stream(producer, **response)
    return AsgiServer(described) if way == "task" else WsgiServer(described)


def answer_to(way: str, job: Job, after: After = nothing, **response: Any) -> Answer:
    with server_of(way, job, after, **response) as server:
        return server.request().finish()


def write_all(twin: Any) -> None:
    """The pieces; all but the first one are behind one that the server has to wait with."""
    for number, piece in enumerate(PIECES):
        twin.write(piece)
        if number == 1:
            for _ in range(4):  # each is a visit to the loop, which sends that one meanwhile
                twin.wait_committed()


Send = Callable[[Any], Awaitable[None]]
SCOPE = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}


def request_by(app: Any, send: Send) -> None:
    """One request to an application, whose server sends in this way."""

    async def main() -> None:
        await asyncio.wait_for(app({**SCOPE}, asyncio.Event().wait, send), PATIENCE)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left or not (await asyncio.wait(left, timeout=PATIENCE))[1]

    asyncio.run(main())


def sending(after: int, then: Callable[[], Awaitable[None]]) -> Send:
    """Take so many messages of the body; `then` is awaited with each that follows."""
    bodies = 0

    async def send(message: Any) -> None:
        nonlocal bodies
        bodies += message["type"] == "http.response.body"
        if bodies > after:
            await then()

    return send


def failing(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def error_of_writes(twin: Any) -> BaseException:
    """What a thread that goes on writing is told in the end."""
    while True:
        try:
            twin.write(CHUNK)
        except Exception as error:
            return error


class Told:
    """What the hooks of a stream were told."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.outcomes: list[str] = []
        self.options = {
            "on_error": lambda stream, error: self.errors.append(error),
            "on_finish": lambda stream: self.outcomes.append(stream.outcome),
        }


async def take(*message: Any) -> None:
    """A server's `send` that has no opinion."""
