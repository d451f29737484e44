"""How a stream learns that its client has left: X11, under ASGI, where a server can say so.

Rule: a leave is nobody's mistake; what is logged of it stays below a warning.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, until

import streamkit

LOUD = ("WARNING", "ERROR", "CRITICAL")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_under_asgi_an_idle_stream_learns_of_a_leave_without_writing(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """X11"""
    outcomes: list[object] = []
    ended = threading.Event()

    def note(stream: Any) -> None:
        outcomes.append(stream.outcome)
        ended.set()

    def sync_producer(stream: Any) -> None:
        stream.on_finish(note)
        stream.write("a")

    async def async_producer(stream: Any) -> None:
        stream.on_finish(note)
        await stream.write("a")

    producer = async_producer if asynchronous else sync_producer
    with AsgiServer(streamkit.stream(producer, keep_open=True)) as server:
        answer = server.request()
        assert answer.read() == b"a"
        answer.leave()
        assert ended.wait(PATIENCE)
        answer.through()
    assert outcomes == ["disconnected"]
    assert [record for record in caplog.records if record.levelname in LOUD] == []


TURNS = 1_000_000  # far more than a producer makes before its leave is seen, however fast it is


def tight_function(turns: list[int]) -> Any:
    async def producer(stream: Any) -> None:
        for turn in range(TURNS):
            turns.append(turn)
            await stream.write(b"x" * 1000)

    return streamkit.stream(producer)


def tight_iterable(turns: list[int]) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        for turn in range(TURNS):
            turns.append(turn)
            yield b"x" * 1000

    return streamkit.stream(chunks())


def tight_app(turns: list[int]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for turn in range(TURNS):
            turns.append(turn)
            await scope["streamkit.stream"].write(b"x" * 1000)

    return streamkit.wrap(app)


def tight_messages(turns: list[int]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for turn in range(TURNS):
            turns.append(turn)
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})

    return streamkit.wrap(app)


@pytest.mark.parametrize("make", [tight_function, tight_iterable, tight_app, tight_messages])
@pytest.mark.parametrize("gone", [None, OSError])
def test_under_asgi_a_producer_that_never_waits_is_stopped_by_a_leave(make: Any, gone: Any) -> None:
    """X11: most servers' `send` comes back at once after a leave, and gives the loop no turn."""
    turns: list[int] = []
    with AsgiServer(make(turns), gone=gone) as server:
        answer = server.request(window=0)
        assert answer.read()
        answer.leave()
        answer.through()
    assert len(turns) < TURNS


@pytest.mark.parametrize("way", ["stream", "messages"])
def test_the_watcher_for_a_leave_takes_no_message_from_the_app(way: str) -> None:
    """X11: a request body that is read late is still there, and so is the disconnect, as often as asked."""
    watched = threading.Event()
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if way == "stream":
            await scope["streamkit.stream"].write("a")
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert await asyncio.to_thread(watched.wait, PATIENCE)
        received.append((await receive())["body"])
        if way == "stream":
            await scope["streamkit.stream"].write("b")
        else:
            await send({"type": "http.response.body", "body": b"b"})
        received.extend([(await receive())["type"] for _ in range(2)])

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request("POST", body=b"the request's body")
        assert answer.read() == b"a"
        until(lambda: answer._body is None, within=1)  # taken by the watcher, if it is there yet
        watched.set()
        assert answer.read() == b"b"
        answer.leave()
        answer.through()
    assert received[0] == b"the request's body"
    assert set(received[1:]) <= {"http.disconnect"}
