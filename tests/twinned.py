"""Applications whose threads write to the twin of their stream, and servers for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from driving import Answer, AsgiServer, WsgiServer

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
