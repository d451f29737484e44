"""The lifespan of an ASGI application, around the requests of a test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamkit.testing import LifespanFailed, NotOpen

from .ways import WAYS, Way, got, http_only, survivors

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


@pytest.fixture(params=[way for way in WAYS if way.interface == "asgi"], ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


class Living:
    """An application with a lifespan, which notes what becomes of it."""

    def __init__(self, *, startup: Any = None, shutdown: Any = None, returns: bool = True) -> None:
        self.notes: list[str] = []
        self.startup, self.shutdown, self.returns = startup, shutdown, returns
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        else:
            await self.answer(scope, receive, send)

    async def live(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        self.notes.append("startup")
        scope["state"]["number"] = 7
        await self.say("startup", self.startup, send)
        assert (await receive())["type"] == "lifespan.shutdown"
        self.notes.append("shutdown")
        self.stopping.set()
        await self.say("shutdown", self.shutdown, send)
        if not self.returns:
            await receive()

    async def say(self, phase: str, answer: Any, send: Any) -> None:
        if isinstance(answer, BaseException):
            raise answer
        if answer == "never":
            await asyncio.sleep(60)
        if answer is not None:
            await send({"type": f"lifespan.{phase}.failed", "message": answer})
            raise RuntimeError("the reason")
        await send({"type": f"lifespan.{phase}.complete"})

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": str(scope["state"]).encode(), "more_body": True})
        scope["state"]["more"] = 1
        await self.stopping.wait()
        await send({"type": "http.response.body", "body": b"farewell"})


@pytest.mark.parametrize("returns", [True, False])
def test_the_lifespan_spans_the_requests_and_its_state_is_given_to_each(way: Way, returns: bool) -> None:
    app = Living(returns=returns)

    async def scene(client: Any) -> None:
        assert app.notes == ["startup"]
        assert client.state == {"number": 7}
        for _ in range(2):
            connection = client.get("/")
            assert await got(connection.next_chunk()) == b"{'number': 7}"
        assert app.notes == ["startup"]
        assert await got(client.shutdown())
        assert await got(connection.read()) == b"farewell"

    way.play(scene, app)
    assert app.notes == ["startup", "shutdown"]


def test_a_shutdown_is_started_while_connections_are_open(way: Way) -> None:
    app = Living()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"{'number': 7}"
        assert await got(client.shutdown()) is True
        assert await got(connection.next_chunk()) == b"farewell"
        assert await got(client.shutdown(wait=True)) is True
        with pytest.raises(NotOpen, match="it was told to shut down"):
            client.get("/")
        assert await got(connection.next_chunk()) is None

    way.play(scene, app)
    assert app.notes == ["startup", "shutdown"]


def test_an_application_without_a_lifespan_is_as_good(way: Way) -> None:
    async def scene(client: Any) -> None:
        assert client.state == {}
        assert await got(client.shutdown(wait=True)) is False

    async def sends_http(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    async def returns_at_once(scope: Any, receive: Any, send: Any) -> None: ...

    for app in (http_only(returns_at_once), sends_http, returns_at_once):
        way.play(scene, app)


def test_a_lifespan_is_left_out_where_that_is_asked_for(way: Way) -> None:
    app = Living(startup="never")

    async def scene(client: Any) -> None:
        assert await got(client.get("/").next_chunk()) == b"{}"
        app.stopping.set()

    way.play(scene, app, lifespan="off")
    assert app.notes == []


FAILURES: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("startup failed", {"startup": "no database"}, LifespanFailed, "the startup .* failed: no database"),
    ("startup silent", {"startup": ""}, LifespanFailed, "the startup .* failed: it gave no reason"),
    ("startup late", {"startup": "never"}, TimeoutError, "startup.complete .* in sleep .* < say .*'off'"),
    ("shutdown failed", {"shutdown": "lost"}, LifespanFailed, "the shutdown .* failed: lost"),
    ("shutdown raises", {"shutdown": OSError("x")}, LifespanFailed, r"it raised OSError\('x'\)"),
    ("shutdown late", {"shutdown": "never"}, TimeoutError, "wanted lifespan.shutdown.complete"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "error", "said"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_failure_of_the_lifespan_is_raised_by_the_client(
    way: Way, how: dict[str, Any], error: type[Exception], said: str
) -> None:
    async def scene(client: Any) -> None:
        assert "shutdown" in how, "the client was opened"

    with pytest.raises(error, match=said) as raised:
        way.play(scene, Living(**how), timeout=0.2)
    if error is LifespanFailed:
        assert isinstance(raised.value.__cause__, (RuntimeError, OSError))
    assert not survivors()


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "when it is cancelled"])
def test_what_a_lifespan_raises_after_its_last_answer_is_raised_by_the_client(way: Way, waits: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        try:
            if waits:
                await receive()
        finally:
            raise ValueError("the pool would not close")

    async def scene(client: Any) -> None: ...

    with pytest.raises(LifespanFailed, match="the pool would not close") as raised:
        way.play(scene, app)
    assert isinstance(raised.value.__cause__, ValueError)
    assert not survivors()


def test_an_error_at_the_startup_counts_where_a_lifespan_is_wanted(way: Way) -> None:
    async def scene(client: Any) -> None: ...

    app = Living(startup=ValueError("x"))
    way.play(scene, app)
    with pytest.raises(LifespanFailed, match=r"it raised ValueError\('x'\)"):
        way.play(scene, app, lifespan="on")

    async def returns_at_once(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(LifespanFailed, match="it returned without an answer"):
        way.play(scene, returns_at_once, lifespan="on")
