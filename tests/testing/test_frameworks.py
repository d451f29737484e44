"""Applications of frameworks that know nothing of streamkit are driven as they are."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamkit.testing import AsyncClient, Client

from .ways import Way, got

flask = pytest.importorskip("flask")
starlette_applications = pytest.importorskip("starlette.applications")
starlette_responses = pytest.importorskip("starlette.responses")
starlette_routing = pytest.importorskip("starlette.routing")

BOTH = pytest.mark.parametrize("client", [Client, AsyncClient])


@BOTH
def test_a_stream_of_flask_is_read_as_it_comes_and_closed_by_a_leave(client: Any) -> None:
    app, closed, made = flask.Flask(__name__), threading.Event(), []

    @app.get("/ticks/<int:first>")  # type: ignore[untyped-decorator]
    def ticks(first: int) -> Any:
        def produce() -> Iterator[str]:
            try:
                for n in range(first, 1_000_000):
                    made.append(n)
                    yield f"tick {n} {flask.request.headers['X-Name']}\n"
            finally:
                closed.set()

        return flask.stream_with_context(produce()), {"Content-Type": "text/event-stream"}

    async def scene(client: Any) -> None:
        connection = client.get("/ticks/7", headers={"X-Name": "ann"})
        assert await got(connection.next_chunk()) == b"tick 7 ann\n"
        assert await got(connection.next_chunk()) == b"tick 8 ann\n"
        assert connection.status == 200
        assert connection.headers["content-type"] == "text/event-stream"
        connection.disconnect()
        await got(connection.wait_closed())
        assert closed.is_set()
        missing = client.get("/nothing")
        assert await got(missing.wait_head()) == 404
        assert b"Not Found" in await got(missing.read())

    Way("wsgi", client).play(scene, app, kind=None)
    assert made == [7, 8]


@BOTH
@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_of_starlette_is_read_as_it_comes_and_ended_by_a_leave(
    client: Any, spec: str, kind: str
) -> None:
    closed, made, started = threading.Event(), [], []

    def produce() -> Iterator[str]:
        for n in range(1_000_000):
            made.append(n)
            yield f"tick {n}\n"

    async def produce_async() -> AsyncIterator[str]:
        try:
            for n in range(1_000_000):
                made.append(n)
                yield f"tick {n}\n"
        finally:
            closed.set()

    async def ticks(request: Any) -> Any:
        return starlette_responses.StreamingResponse(produce() if kind == "sync" else produce_async())

    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        started.append("startup")
        yield {"name": "ann"}
        started.append("shutdown")

    routes = [starlette_routing.Route("/ticks", ticks)]
    app = starlette_applications.Starlette(routes=routes, lifespan=asynccontextmanager(lifespan))

    async def scene(client: Any) -> None:
        assert (started, client.state) == (["startup"], {"name": "ann"})
        connection = client.get("/ticks", scope_extra={"asgi": {"version": "3.0", "spec_version": spec}})
        assert await got(connection.next_chunk()) == b"tick 0\n"
        assert await got(connection.next_chunk()) == b"tick 1\n"
        connection.disconnect()
        await got(connection.wait_closed())
        # Starlette raises its own error where `send` does, and leaves it to the server.
        assert (type(connection.error).__name__ == "ClientDisconnect") == (spec == "2.4")

    Way("asgi", client).play(scene, app, kind=None)
    assert len(made) < 1000  # of a million: `send` is silent until Starlette hears of the leave
    assert started == ["startup", "shutdown"]
    assert closed.is_set() == (kind == "async")  # by the end of the loop at the latest
