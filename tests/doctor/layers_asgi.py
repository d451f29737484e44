"""ASGI layers, and those of Starlette.

Rule: a layer is what somebody could have in production. Those that are ours follow idioms of the field.
"""

from __future__ import annotations

import hashlib
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamkit.unbuffer.known import KNOWN

from .parts import CHUNK, CHUNKS, Part

HERE = __name__
GZIP = "starlette.middleware.gzip.GZipMiddleware"
GZIP_STREAMS = KNOWN[GZIP].passes is not None  # the installed one, or it is guilty

# ---------------------------------------------------------------- ASGI


async def async_drip(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    fields = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Around:
    """What the ASGI layers here have in common: one method for each message of the response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        one = type(self)(self.app)
        await self.app(scope, receive, lambda message: one.passed(message, send))

    async def passed(self, message: Any, send: Any) -> None:
        await send(message)


class CollectsAll(Around):
    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.start: Any = None
        self.body = b""

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if not message.get("more_body"):
            await send(self.start)
            await send({"type": "http.response.body", "body": self.body})


class HoldsBlocks(Around):
    held = b""

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.body":
            self.held += message.get("body", b"")
            if message.get("more_body") and len(self.held) < 4096:
                return
            message, self.held = {**message, "body": self.held}, b""
        await send(message)


class Gzips(Around):
    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.compressor = zlib.compressobj(wbits=31)

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"content-encoding", b"gzip")]}
        else:
            packed = self.compressor.compress(message.get("body", b""))
            packed += b"" if message.get("more_body") else self.compressor.flush()
            message = {**message, "body": packed}
        await send(message)


class Audits(Around):
    """Collects what is sent, and forgets to send it."""

    seen = b""

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.body":
            self.seen += message.get("body", b"")
            message = {**message, "body": b""}
        await send(message)


class StartsAgain(Around):
    start: Any = None

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            await send(self.start)
        await send(message)


class LosesEverySecond(Around):
    count = 0

    async def passed(self, message: Any, send: Any) -> None:
        if message.get("body"):
            self.count += 1
            message = {**message, "body": message["body"] if self.count % 2 else b""}
        await send(message)


class NeverEnds(Around):
    """Waits for a client that waits for it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)
        while scope["type"] == "http" and (await receive())["type"] != "http.disconnect":
            pass

    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.start" or message.get("more_body"):
            await send(message)


class AddsHeader(Around):
    async def passed(self, message: Any, send: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-frame-options", b"DENY")]}
        await send(message)


class Shouts(Around):
    async def passed(self, message: Any, send: Any) -> None:
        if message.get("body"):
            message = {**message, "body": message["body"].replace(b"<p>", b"<p class='wide'>")}
        await send(message)


ASGI_GUILTY = [
    *(
        Part(one, f"{HERE}.{one.__name__}")
        for one in (CollectsAll, HoldsBlocks, Gzips, Audits, StartsAgain, LosesEverySecond, NeverEnds)
    ),
]
ASGI_INNOCENT = [
    Part(AddsHeader, "AddsHeader"),
    Part(Shouts, "Shouts"),
    Part(lambda app: CORSMiddleware(app, allow_origins=["*"]), "CORSMiddleware"),
    Part(lambda app: SessionMiddleware(app, secret_key="x"), "SessionMiddleware"),
    Part(ServerErrorMiddleware, "ServerErrorMiddleware"),
    Part(lambda app: TrustedHostMiddleware(app, allowed_hosts=["*"]), "TrustedHostMiddleware"),
]
(ASGI_INNOCENT if GZIP_STREAMS else ASGI_GUILTY).append(Part(GZipMiddleware, GZIP))


def asgi_stack(chosen: list[Part]) -> tuple[Any, AbstractContextManager[Any]]:
    app: Any = async_drip
    for part in reversed(chosen):
        app = part.put(app)
    return app, nullcontext()


# ---------------------------------------------------------------- Starlette


async def starlette_view(request: Any) -> Any:
    async def page() -> Any:
        for _ in range(CHUNKS):
            yield CHUNK

    return StreamingResponse(page(), media_type="text/html")


async def etag_of_the_body(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    body = b"".join([chunk async for chunk in response.body_iterator])
    headers = {**response.headers, "etag": f'"{hashlib.md5(body).hexdigest()}"'}
    return Response(body, response.status_code, headers)


class LogsBodies(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        chunks = [chunk async for chunk in response.body_iterator]

        async def again() -> Any:
            for chunk in chunks:
                yield chunk

        response.body_iterator = again()
        return response


class TimesRequests(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Took"] = "0"
        return response


async def notes(request: Any, call_next: Any) -> Any:
    request.state.noted = True
    return await call_next(request)


STARLETTE_GUILTY = [
    Part(Middleware(BaseHTTPMiddleware, dispatch=etag_of_the_body), f"{HERE}.etag_of_the_body"),
    Part(Middleware(LogsBodies), f"{HERE}.LogsBodies"),
    Part(Middleware(CollectsAll), f"{HERE}.CollectsAll"),
    Part(Middleware(HoldsBlocks), f"{HERE}.HoldsBlocks"),
]
STARLETTE_INNOCENT = [
    Part(Middleware(BaseHTTPMiddleware, dispatch=notes), "notes"),
    Part(Middleware(TimesRequests), "TimesRequests"),
    Part(Middleware(SessionMiddleware, secret_key="x"), "SessionMiddleware"),
    Part(Middleware(CORSMiddleware, allow_origins=["*"]), "CORSMiddleware"),
    Part(Middleware(AddsHeader), "AddsHeader"),
]
(STARLETTE_INNOCENT if GZIP_STREAMS else STARLETTE_GUILTY).append(Part(Middleware(GZipMiddleware), GZIP))


def starlette_stack(chosen: list[Part]) -> tuple[Any, AbstractContextManager[Any]]:
    app = Starlette(routes=[Route("/page", starlette_view)], middleware=[part.put for part in chosen])
    return app, nullcontext()
