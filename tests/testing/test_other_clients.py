"""The clients of others read what streamkit serves, where it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from webtest import TestApp

import streamkit
from streamkit.testing._request import request_of


def function(stream: streamkit.ResponseStream) -> None:
    stream.write("one, ")
    stream.write("two")


def iterable() -> Iterator[str]:
    yield "one, "
    yield "two"


@pytest.mark.parametrize("producer", [function, iterable], ids=["function", "iterable"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_webtests_testapp_reads_a_finite_stream(producer: Any, wrapped: bool) -> None:
    app = streamkit.stream(producer() if producer is iterable else producer)
    response = TestApp(streamkit.wrap(app, kind="wsgi") if wrapped else app).get("/")
    assert (response.status_code, response.text) == (200, "one, two")


@pytest.mark.parametrize("producer", [function, iterable], ids=["function", "iterable"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_asgirefs_communicator_reads_a_finite_stream(producer: Any, wrapped: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.stream(producer() if producer is iterable else producer)(scope, receive, send)

    async def main() -> list[Any]:
        scope = request_of("GET", "/", None, None, b"", "1.1", {}).scope(None, {})
        talk = ApplicationCommunicator(streamkit.wrap(app) if wrapped else app, scope)
        await talk.send_input({"type": "http.request", "body": b"", "more_body": False})
        messages = [await talk.receive_output(5)]
        while messages[-1].get("more_body", True):
            messages.append(await talk.receive_output(5))
        await talk.wait(5)
        return messages

    messages = asyncio.run(main())
    assert (messages[0]["type"], messages[0]["status"]) == ("http.response.start", 200)
    assert b"".join(message["body"] for message in messages[1:]) == b"one, two"
