"""Streams whose last message the server does not take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twinned import Send, Told, request_by, scope_app

import streamkit
from streamkit import StreamClosed

EVENTS = "text/event-stream"
TYPES = pytest.mark.parametrize("content_type", ["text/plain", EVENTS])


def refusing_the_end(error: BaseException, sent: list[bytes] | None = None) -> Send:
    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            raise error
        if sent is not None:
            sent.append(message.get("body", b""))

    return send


@pytest.mark.parametrize("end", ["return", "close", "close, not awaited", "twin.close"])
def test_an_end_that_the_server_does_not_take_fails_the_stream(end: str) -> None:
    async def producer(stream: Any) -> None:
        await stream.write(b"first")
        if end == "close":
            await stream.close()
        elif end == "close, not awaited":
            stream.close()
        elif end == "twin.close":
            await asyncio.to_thread(stream.sync.close)

    error, told = RuntimeError("the server says so"), Told()
    with pytest.raises(RuntimeError, match="the server says so"):
        request_by(scope_app(producer, {"options": told.options}), refusing_the_end(error))
    assert (told.errors, told.outcomes) == ([error], ["failed"])


@TYPES
def test_an_early_end_that_the_server_does_not_take_is_not_lost(content_type: str) -> None:
    async def producer(stream: Any) -> None:
        await stream.write(b"data: 1\n\n")
        await asyncio.Event().wait()

    options = {"max_duration": 0.1}
    app = scope_app(producer, {"content_type": content_type, "options": options})
    expected: type[Exception] = RuntimeError if content_type == EVENTS else streamkit.errors.StreamEnded
    with pytest.raises(expected):
        request_by(app, refusing_the_end(RuntimeError("the server says so")))


@TYPES
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_another_frameworks_stream_that_is_closed_for_it_fails_where_the_server_takes_no_end(
    content_type: str, version: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await scope["streamkit.stream"].close()
        await send({"type": "http.response.body"})

    async def of_version(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.wrap(app, kind="asgi")({**scope, "http_version": version}, receive, send)

    with pytest.raises(RuntimeError, match="the server says so"):
        request_by(of_version, refusing_the_end(RuntimeError("the server says so")))


def test_a_hook_cannot_write_behind_an_end_that_the_server_did_not_take() -> None:
    refused: list[BaseException] = []
    sent: list[bytes] = []

    async def hook(stream: Any, error: BaseException) -> None:
        with pytest.raises(StreamClosed) as caught:
            await stream.write(b"sorry")
        refused.append(caught.value)

    async def producer(stream: Any) -> None:
        stream.on_error(hook)
        await stream.write(b"first")

    with pytest.raises(RuntimeError, match="the server says so"):
        request_by(scope_app(producer, {}), refusing_the_end(RuntimeError("the server says so"), sent))
    assert len(refused) == 1
    assert b"".join(sent) == b"first"
