"""One scene, played with each client against each interface.

    @pytest.fixture(params=WAYS, ids=str)
    def way(request): return request.param

    def test_something(way):
        async def scene(client):
            connection = client.get("/")
            assert await got(connection.next_chunk()) == b"one"

        way.play(scene, way.app(parts))

Rule: what a scene waits for goes through `got`, which awaits what the client of tasks returns. After
each scene no thread and no task of the client may be left.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from streamkit.testing import AsyncClient, Client

Scene = Callable[[Any], Awaitable[None]]
Parts = Callable[[], Iterator[bytes]]
TEXT = [("Content-Type", "text/plain")]


async def got(result: Any) -> Any:
    """What a call of either client gives."""
    return await result if inspect.isawaitable(result) else result


async def soon(true: Callable[[], object], within: float = 20.0) -> bool:
    """Ask until it is true, for what has no event to wait on; False if it never was."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + within
    while not true():
        if loop.time() > latest:
            return False
        await asyncio.sleep(0.005)
    return True


def wsgi_app(parts: Parts, status: str = "200 OK", headers: Any = TEXT) -> Any:
    """An application that returns an iterator over the parts, which has a `close()`."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(status, list(headers))
        return parts()

    return app


def asgi_app(parts: Parts, status: str = "200 OK", headers: Any = TEXT) -> Any:
    """An application that sends the parts, and stops at the next one after a disconnect."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        head = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": head})
        left = asyncio.ensure_future(receive())
        made = parts()
        try:
            for part in made:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)
                if left.done():
                    return
            await send({"type": "http.response.body"})
        finally:
            left.cancel()
            made.close()  # type: ignore[attr-defined]

    return http_only(app)


def http_only(app: Any) -> Any:
    """An ASGI application that knows no lifespan."""

    async def only(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "this application serves http alone"
        await app(scope, receive, send)

    return only


@dataclass(frozen=True)
class Way:
    interface: str
    client: Any

    def __str__(self) -> str:
        return f"{self.interface}-{self.client.__name__}"

    def app(self, parts: Parts, status: str = "200 OK", headers: Any = TEXT) -> Any:
        return (wsgi_app if self.interface == "wsgi" else asgi_app)(parts, status, headers)

    def play(self, scene: Scene, app: Any, **options: Any) -> None:
        options.setdefault("kind", self.interface)

        async def main() -> None:
            if self.client is Client:
                with Client(app, **options) as client:
                    await scene(client)
            else:
                async with AsyncClient(app, **options) as client:
                    await scene(client)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:  # a task that the application has cancelled needs a turn more
                left = (await asyncio.wait(left, timeout=5))[1]
            assert not left, f"tasks survived the client: {left}"

        asyncio.run(main())
        assert not survivors(), f"threads survived the client: {survivors()}"


def survivors() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("streamkit-testing")]


WAYS = [Way(interface, client) for interface in ("wsgi", "asgi") for client in (Client, AsyncClient)]
