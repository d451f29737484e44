"""`scope["streamkit.stream"].sync`, taken on a worker thread: which loop it belongs to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from driving import AsgiServer, scope_of

import streamkit
from streamkit import StreamError
from streamkit.testing import Client


def job(scope: Any) -> None:
    scope["streamkit.stream"].sync.write("from a thread")


@pytest.mark.parametrize("way", ["asyncio", "anyio", "asgiref"])
@pytest.mark.parametrize("plain_first", [False, True])
def test_the_sync_twin_is_found_from_a_worker_thread_on_each_new_loop(way: str, plain_first: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        elif way == "asyncio":
            await asyncio.to_thread(job, scope)
        elif way == "anyio":
            await pytest.importorskip("anyio.to_thread").run_sync(job, scope)
        else:
            await pytest.importorskip("asgiref.sync").sync_to_async(job)(scope)

    wrapped = streamkit.wrap(app, kind="asgi")
    for _ in range(3):
        with Client(wrapped, lifespan="off") as client:
            if plain_first:
                assert client.get("/plain").status == 204
            assert client.get("/").read() == b"from a thread"
    with AsgiServer(wrapped) as server:
        assert server.request().finish().body == b"from a thread"


def test_a_loop_that_was_closed_without_a_shutdown_is_forgotten_with_the_first_who_asks() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(job, scope)

    async def ask() -> bytes:
        sent: list[bytes] = []

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

        await wrapped(scope_of(), asyncio.Event().wait, send)
        return b"".join(sent)

    wrapped = streamkit.wrap(app, kind="asgi")
    for is_first in (True, False, False):
        loop = asyncio.new_event_loop()
        try:
            if not is_first:
                with pytest.raises(StreamError, match="on the event loop"):
                    loop.run_until_complete(ask())
            assert loop.run_until_complete(ask()) == b"from a thread"
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
