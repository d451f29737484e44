"""New Relic's browser monitoring, which holds HTML back until it has seen `<body>`, or 64 KiB."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import streamkit

from .layered import wanted

PATIENCE = 5.0  # seconds
SCOPE = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
    "path": "/", "raw_path": b"/", "query_string": b"", "headers": [],
}  # fmt: skip


def monitored(app: Any) -> Any:
    """The app as the agent wraps it for each request, in a transaction that inserts its script."""
    from newrelic.api.asgi_application import ASGIBrowserMiddleware

    settings = SimpleNamespace(browser_monitoring=SimpleNamespace(content_type=["text/html"]))
    known = {"enabled": True, "autorum_disabled": False, "rum_header_generated": False}
    transaction = SimpleNamespace(**known, settings=settings, browser_timing_header=lambda: "")

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await ASGIBrowserMiddleware(app, transaction)(scope, receive, send)

    return wrapped


@pytest.mark.parametrize("wraps", [False, True], ids=["bare", "wrapped"])
def test_a_description_passes_browser_monitoring_at_once_where_the_app_is_wrapped(
    wraps: bool, pytestconfig: pytest.Config
) -> None:
    wanted(pytestconfig, "newrelic")
    has_arrived = []

    async def answered() -> list[Any]:
        arrived, given = asyncio.Event(), asyncio.Event()
        heads: list[Any] = []

        async def producer(stream: Any) -> None:
            await stream.write("<p>1")
            await asyncio.wait_for(given.wait(), PATIENCE)  # the layer has had its chance
            has_arrived.append(arrived.is_set())
            await stream.write("<p>2")

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                heads.extend(message["headers"])
            elif message.get("body"):
                arrived.set()

        async def receive() -> Any:
            await asyncio.Event().wait()

        described = streamkit.stream(producer, content_type="text/html; charset=utf-8")

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                await send(message)
                if message.get("body"):
                    given.set()

            await described(scope, receive, note)

        app = monitored(noted)
        if wraps:
            app = streamkit.wrap(app, kind="asgi")
        await asyncio.wait_for(app(dict(SCOPE), receive, send), 2 * PATIENCE)
        return [name for name, _ in heads]

    names = asyncio.run(answered())
    assert has_arrived == [wraps]
    assert b"content-encoding" not in [name.lower() for name in names]
