"""Apps with real layers that hold streams, for `test_stripping`: served with and without streamkit.

    STREAMKIT_LAYERED=flask | django | starlette     what `app` is made of
    STREAMKIT_STRIPPED=1                             whether it is wrapped

A chunk of /stream is made when /go?key=... has said so for it, or after `PATIENCE` seconds: then
whoever should have said so was never given the one before, and the next says "late".
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import streamkit

CHUNKS = 3
PATIENCE = float(os.environ.get("STREAMKIT_PATIENCE", "20"))
HTML = "text/html; charset=utf-8"
PAGE = "<!doctype html>\n" + "".join(f"<p>line {number}</p>\n" for number in range(200))

_gates: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))


def chunk(number: int, in_time: bool) -> str:
    return f"<p>chunk {number} {'x' * 600} {'in time' if in_time else 'late'}</p>\n"


def chunks(key: str, fails: bool = False) -> Iterator[str]:
    yield chunk(0, True)
    for number in range(1, CHUNKS):
        yield chunk(number, _gates[key].acquire(timeout=PATIENCE))
    if fails:
        raise ValueError("half-way")


async def chunks_async(key: str, fails: bool = False) -> AsyncIterator[str]:
    made = chunks(key, fails)
    while (piece := await asyncio.to_thread(next, made, None)) is not None:
        yield piece


def go(key: str) -> str:
    _gates[key].release()
    return "gone"


def flask() -> Any:
    import flask
    from werkzeug.middleware.profiler import ProfilerMiddleware

    app = flask.Flask(__name__)
    app.add_url_rule("/plain", view_func=lambda: "plain", endpoint="plain")
    app.add_url_rule("/go", view_func=lambda: go(flask.request.args["key"]), endpoint="go")
    app.add_url_rule("/page", view_func=lambda: flask.Response(PAGE, mimetype="text/html"), endpoint="page")

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(chunks(flask.request.args["key"]), mimetype="text/html")

    @app.get("/described")
    def described() -> Any:
        description = streamkit.stream(chunks(flask.request.args["key"]), content_type=HTML)
        return flask.Response.from_app(description, flask.request.environ)

    @app.after_request
    def tagged(response: Any) -> Any:
        response.add_etag()
        response.headers["X-Layer"] = "seen"
        return response.make_conditional(flask.request)

    app.wsgi_app = ProfilerMiddleware(app.wsgi_app, stream=None)  # type: ignore[method-assign]
    return app


def django() -> Any:
    import django
    from django.conf import settings

    layers = ("cache.UpdateCacheMiddleware", "gzip.GZipMiddleware", "http.ConditionalGetMiddleware")
    settings.configure(
        ROOT_URLCONF=f"{__package__}.layered_urls",
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of the tests",
        MIDDLEWARE=[
            *(f"django.middleware.{name}" for name in layers),
            f"{__package__}.layered_urls.marking",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ],
    )
    django.setup()
    from django.core.handlers.wsgi import WSGIHandler
    from django.middleware.gzip import GZipMiddleware

    GZipMiddleware.max_random_bytes = 0  # of padding, against BREACH
    return WSGIHandler()


async def joined(request: Any, call_next: Any) -> Any:
    from starlette.responses import Response

    response = await call_next(request)
    body = b"".join([piece async for piece in response.body_iterator])
    made = Response(body, response.status_code, dict(response.headers))
    made.headers["X-Layer"] = "seen"
    made.headers["ETag"] = f'"{len(body)}"'
    return made


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import HTMLResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    async def stream(request: Any) -> Any:
        return StreamingResponse(chunks_async(request.query_params["key"]), media_type="text/html")

    async def described(request: Any) -> Any:
        return streamkit.stream(chunks_async(request.query_params["key"]), content_type=HTML)

    return Starlette(
        routes=[
            Route("/plain", lambda request: PlainTextResponse("plain")),
            Route("/go", lambda request: PlainTextResponse(go(request.query_params["key"]))),
            Route("/page", lambda request: HTMLResponse(PAGE)),
            Route("/stream", stream),
            Route("/described", described),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=joined),
            Middleware(BaseHTTPMiddleware, dispatch=joined),
        ],
    )


MAKERS = {"flask": flask, "django": django, "starlette": starlette}
KINDS = ("etag", "gzip", "cache")
OWN = (f"{__name__}.joined",)

_made_of = os.environ["STREAMKIT_LAYERED"]
app = MAKERS[_made_of]()
if os.environ.get("STREAMKIT_STRIPPED"):
    app = streamkit.wrap(app, strip=KINDS + (OWN if _made_of == "starlette" else ()))
