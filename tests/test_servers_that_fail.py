"""A server, or a layer, that raises for a message of a stream: the stream has failed, and hears of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_hooks_elsewhere import DESCRIBED, Boom, asgi_messages, asgi_own
from test_odd_asgi_servers import Server

import streamkit

BODIES = {**DESCRIBED, "messages": lambda: asgi_messages, "own": lambda: asgi_own}


class Failing(Server):
    """It takes the head, and raises for the last message, or for the first of the body."""

    def __init__(self, app: Any, error: BaseException, *, at_last: bool) -> None:
        super().__init__(app)
        self._error, self._at_last = error, at_last

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body" and not (self._at_last and message.get("more_body")):
            raise self._error
        await super().send(message)


@pytest.mark.parametrize("at_last", [True, False])
@pytest.mark.parametrize("name", BODIES)
def test_a_server_that_fails_on_a_message_of_a_body_is_told_to_the_error_hooks_once(
    name: str, at_last: bool
) -> None:
    error = Boom("no disk")
    server = Failing(BODIES[name](), error, at_last=at_last).serve()
    assert (server.raised, server.errors, server.outcomes) == (error, [error], ["failed"])
    assert server.loop_errors == []


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_server_that_fails_is_told_to_hooks_that_come_after_it_too(name: str) -> None:
    errors: list[BaseException] = []
    described = DESCRIBED[name]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await described(scope, receive, send)
        finally:
            scope["streamkit.stream"].on_error(lambda stream, error: errors.append(error))
            await asyncio.sleep(0)

    error = Boom("no disk")
    server = Failing(app, error, at_last=True)
    server.app = streamkit.wrap(app, kind="asgi")
    server.serve()
    assert server.raised is error
    assert errors == [error]
