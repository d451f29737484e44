"""`scope["streamkit.stream"].sync`, taken on a worker thread: which loop it belongs to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from driving import AsgiServer

import streamkit
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
