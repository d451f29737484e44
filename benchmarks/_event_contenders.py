"""Event streams as each tool has a user write them, and what their server says of itself.

Rule: a tool is imported by its own server only.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# ---------------------------------------------------------------- what is asked for

TEXT = "a line of text, such as a model writes"
DATA: dict[str, Callable[[int], Any]] = {
    "dict": lambda number: {"n": number, "symbol": "ACME", "price": 101.25},
    "text": lambda number: TEXT,
}


async def _turn() -> None:
    await asyncio.sleep(0)


def _from_a_queue() -> Callable[[], Awaitable[None]]:
    """Another task puts one item a turn of the loop."""
    queue: asyncio.Queue[None] = asyncio.Queue()

    async def feed() -> None:
        while True:
            queue.put_nowait(None)
            await asyncio.sleep(0)

    feeder = asyncio.get_running_loop().create_task(feed())
    asyncio.current_task().add_done_callback(lambda task: feeder.cancel())  # type: ignore[union-attr]
    return queue.get


# What the producer awaits before each event; it is asked once, in the producer.
WAYS: dict[str, Callable[[], Callable[[], Awaitable[None]] | None]] = {
    "burst": lambda: None,
    "turn": lambda: _turn,
    "queue": _from_a_queue,
}
WAYS_IN_WORDS = {
    "burst": "in a burst",
    "turn": "a turn of the loop awaited before each",
    "queue": "each awaited from a queue that another task fills",
}

# ---------------------------------------------------------------- the contenders

# Two paths: /events/<way>/<shape>/<count>, and /idle/<seconds between heartbeats, 0 for the tool's default>.


def ask_of(path: str) -> tuple[str, str, int]:
    _, _, way, shape, count = path.split("/")
    return way, shape, int(count)


def bare() -> ASGIApp:
    """The interface alone: no heartbeats, and nobody notices that a client has left."""
    try:
        from orjson import dumps
    except ImportError:

        def dumps(value: Any) -> bytes:
            return json.dumps(value, separators=(",", ":")).encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"].startswith("/idle/"):
            await send({"type": "http.response.body", "body": b"id: 0\ndata: open\n\n", "more_body": True})
            await asyncio.Event().wait()
        way, shape, count = ask_of(scope["path"])
        wait, data, is_text = WAYS[way](), DATA[shape], shape == "text"
        for number in range(count):
            if wait is not None:
                await wait()
            text = data(number).encode() if is_text else dumps(data(number))
            body = b"id: %d\ndata: %b\n\n" % (number, text)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def streamkit_function() -> ASGIApp:
    """`streamkit.event_stream(async_function)`."""
    import streamkit

    async def idle(stream: Any) -> None:
        await stream.send("open", id=0)
        await asyncio.Event().wait()

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"].startswith("/idle/"):
            every = float(scope["path"][6:])
            options: dict[str, Any] = {"heartbeat": every} if every else {}
            return streamkit.event_stream(idle, **options)(scope, receive, send)
        way, shape, count = ask_of(scope["path"])

        async def producer(stream: Any) -> None:
            wait, data = WAYS[way](), DATA[shape]
            for number in range(count):
                if wait is not None:
                    await wait()
                await stream.send(data(number), id=number)

        return streamkit.event_stream(producer)(scope, receive, send)

    return app


def streamkit_items() -> ASGIApp:
    """`streamkit.event_stream(async_generator())`."""
    import streamkit

    async def idle() -> AsyncIterator[Any]:
        yield streamkit.ServerSentEvent("open", id=0)
        await asyncio.Event().wait()

    async def items(way: str, shape: str, count: int) -> AsyncIterator[Any]:
        wait, data = WAYS[way](), DATA[shape]
        for number in range(count):
            if wait is not None:
                await wait()
            yield streamkit.ServerSentEvent(data(number), id=number)

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"].startswith("/idle/"):
            every = float(scope["path"][6:])
            options: dict[str, Any] = {"heartbeat": every} if every else {}
            return streamkit.event_stream(idle(), **options)(scope, receive, send)
        return streamkit.event_stream(items(*ask_of(scope["path"])))(scope, receive, send)

    return app


def sse_starlette() -> ASGIApp:
    """`EventSourceResponse(async_generator())`, without Starlette's routing."""
    from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent

    async def idle() -> AsyncIterator[Any]:
        yield ServerSentEvent("open", id="0", sep="\n")
        await asyncio.Event().wait()

    async def items(way: str, shape: str, count: int) -> AsyncIterator[Any]:
        wait, data = WAYS[way](), DATA[shape]
        event = ServerSentEvent if shape == "text" else JSONServerSentEvent
        for number in range(count):
            if wait is not None:
                await wait()
            yield event(data(number), id=str(number), sep="\n")

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"].startswith("/idle/"):
            return EventSourceResponse(idle(), ping=float(scope["path"][6:]) or None)(scope, receive, send)
        return EventSourceResponse(items(*ask_of(scope["path"])))(scope, receive, send)

    return app


def fastapi() -> ASGIApp:
    """FastAPI's own event streams, `response_class=EventSourceResponse`."""
    import fastapi
    import fastapi.routing
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    app = fastapi.FastAPI(openapi_url=None)

    # Without annotations of what is returned: `from __future__ import annotations` hides these names.
    @app.get("/idle/{every}", response_class=EventSourceResponse)
    async def idle(every: float):  # type: ignore[no-untyped-def]
        if every:  # "Private but importable so tests can monkeypatch it"
            fastapi.routing._PING_INTERVAL = every  # type: ignore[attr-defined]
        yield ServerSentEvent(raw_data="open", id="0")
        await asyncio.Event().wait()

    @app.get("/events/{way}/{shape}/{count}", response_class=EventSourceResponse)
    async def events(way: str, shape: str, count: int):  # type: ignore[no-untyped-def]
        wait, data, is_text = WAYS[way](), DATA[shape], shape == "text"
        for number in range(count):
            if wait is not None:
                await wait()
            if is_text:
                yield ServerSentEvent(raw_data=data(number), id=str(number))
            else:
                yield ServerSentEvent(data=data(number), id=str(number))

    return app


def litestar() -> ASGIApp:
    """Litestar's `ServerSentEvent(async_generator())`; it has no heartbeats."""
    from litestar import Litestar, get
    from litestar.response import ServerSentEvent, ServerSentEventMessage
    from litestar.serialization import encode_json

    async def opening() -> AsyncIterator[Any]:
        yield ServerSentEventMessage("open", id=0, sep="\n")
        await asyncio.Event().wait()

    async def items(way: str, shape: str, count: int) -> AsyncIterator[Any]:
        wait, data, is_text = WAYS[way](), DATA[shape], shape == "text"
        for number in range(count):
            if wait is not None:
                await wait()
            text = data(number) if is_text else encode_json(data(number))
            yield ServerSentEventMessage(text, id=number, sep="\n")

    # `Any`, because `from __future__ import annotations` hides the names of this function.
    @get("/idle/{every:float}")
    async def idle(every: float) -> Any:
        return ServerSentEvent(opening())

    @get("/events/{way:str}/{shape:str}/{count:int}")
    async def events(way: str, shape: str, count: int) -> Any:
        return ServerSentEvent(items(way, shape, count))

    return Litestar([idle, events], openapi_config=None)


CONTENDERS: dict[str, Callable[[], ASGIApp]] = {
    "bare": bare,
    "streamkit": streamkit_function,
    "streamkit-items": streamkit_items,
    "sse-starlette": sse_starlette,
    "fastapi": fastapi,
    "litestar": litestar,
}
PEER = "sse-starlette"
HAVE_HEARTBEATS = ("streamkit", "streamkit-items", "sse-starlette", "fastapi")


class Measured:
    """What uvicorn imports: a contender, and beside it what its process says of itself.

    A plain function passes the request on, so that no stream holds a frame of this.
    """

    def __getattr__(self, name: str) -> Any:
        made = CONTENDERS[name.replace("_", "-")]

        def factory() -> ASGIApp:
            app = made()

            def measured(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
                if scope["path"] in ("/cpu", "/rss"):
                    return tell(scope["path"], send)
                return app(scope, receive, send)

            return measured

        return factory


measured = Measured()


async def tell(path: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    body = repr(time.process_time()) if path == "/cpu" else str(resident_bytes())
    await send({"type": "http.response.body", "body": body.encode()})


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
