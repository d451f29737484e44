"""Starlette under uvicorn without `streamkit.wrap`: its streams find the connection by themselves.

Rule: what the page is about is told by the serving process at /stats.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.launch import ROOT, poll, running
from servers.wire import Connection, fetch

import streamkit

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.server

BOUND = 20.0  # seconds until a wait is given up
PAGES = ["responded", "responded-by-worker", "returned", "live"]


def stalling_app() -> Any:
    """What uvicorn serves: endless streams, whose clients have a second to take something."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from streamkit.frameworks.starlette import live, respond

    ended: list[str] = []

    def endless(name: str) -> Any:
        def chunks() -> Iterator[str]:
            while True:
                yield "x" * 65536

        def note(stream: Any) -> None:
            ended.append(f"{name} {stream.outcome}")

        return streamkit.stream(
            chunks(), content_type="text/csv", options={"write_timeout": 1.0, "on_finish": note}
        )

    async def responded(request: Request) -> Any:
        return respond(endless("responded"))

    def by_worker(request: Request) -> Any:
        return respond(endless("responded-by-worker"))

    async def returned(request: Request) -> Any:
        return endless("returned")

    @live
    async def live_one(request: Request, stream: streamkit.AsyncResponseStream) -> None:
        stream.headers["Content-Type"] = "text/csv"
        stream.on_finish(lambda stream: ended.append(f"live {stream.outcome}"))
        while True:
            await stream.write("x" * 65536)

    async def stats(request: Request) -> Any:
        return JSONResponse({"ended": ended, "descriptors": len(os.listdir("/proc/self/fd"))})

    pages = dict(zip(PAGES, (responded, by_worker, returned, live_one), strict=True))
    return Starlette(
        routes=[
            Route("/plain", stats),
            *(Route(f"/{n}", page) for n, page in pages.items()),
            Route("/stats", stats),
        ]
    )


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    def command(port: int) -> list[str]:
        return [
            "env", f"PYTHONPATH={ROOT / 'tests'}", sys.executable, "-m", "uvicorn", "--host=127.0.0.1",
            f"--port={port}", "--log-level=warning", "--timeout-graceful-shutdown=2", "--factory",
            "frameworks.test_starlette_servers:stalling_app",
        ]  # fmt: skip

    log: Path = tmp_path_factory.mktemp("log") / "log"
    with running(command, log) as (port, _):
        yield port


def stats(port: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(fetch(port, "/stats").body)
    return told


@pytest.mark.parametrize("page", PAGES[:3])
def test_a_client_that_takes_nothing_is_cut_off_without_a_wrap(port: int, page: str) -> None:
    before = stats(port)["descriptors"]
    with Connection(port, receive_buffer=4096) as connection:
        connection.ask("GET", f"/{page}")
        assert connection.head().status == 200
        poll(lambda: f"{page} timed_out" in stats(port)["ended"], bound=BOUND, what="the end of the stream")
        poll(lambda: stats(port)["descriptors"] <= before, bound=BOUND, what="the end of the connection")


def test_a_client_that_leaves_ends_its_live_endpoint_without_a_wrap(port: int) -> None:
    with Connection(port, receive_buffer=4096) as connection:
        connection.ask("GET", "/live")
        assert connection.head().status == 200
        assert connection.read_until(b"x")
        connection.reset()
    poll(lambda: "live disconnected" in stats(port)["ended"], bound=BOUND, what="the end of the stream")
