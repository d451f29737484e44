"""Applications that write to their stream, and then answer as if they had not."""

from __future__ import annotations

from typing import Any

import pytest
from driving import AsgiServer, WsgiServer

import streamkit
from streamkit.errors import ApplicationFailed


def answers_500_late(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """As a framework does whose view has failed."""
    environ["streamkit.stream"].write("half")
    start_response("500 Internal Server Error", [("Content-Type", "text/html")])
    return [b"<h1>Sorry</h1>"]


async def answers_500_late_too(scope: Any, receive: Any, send: Any) -> None:
    await scope["streamkit.stream"].write("half")
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"<h1>Sorry</h1>"})


@pytest.mark.parametrize("way", ["write", "thread", "asgi"])
def test_an_application_that_answers_500_after_its_stream_began_leaves_no_whole_body(way: str) -> None:
    """Nothing of that answer may stand in the body, which would look like an end in order without it."""
    if way == "asgi":
        server: Any = AsgiServer(streamkit.wrap(answers_500_late_too))
    else:
        engine = "auto" if way == "write" else way
        server = WsgiServer(streamkit.wrap(answers_500_late, engine=engine))
    with server:
        answer = server.request().finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"half", False)
    assert isinstance(answer.error, ApplicationFailed)
    assert answer.error.status == 500
