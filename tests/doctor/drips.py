"""What is served behind the proxies for the doctor to ask: the probe app, bare and kept by streamkit.

    /drip/…         the probe app as it is
    /kept/…         the same with streamkit around it
    /sized          a stream with a Content-Length
    /plain          no stream

Rule: only child processes import this file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import streamkit
from streamkit.doctor import async_probe_app, probe_app

PLAIN = b"plain\n"

_kept = streamkit.wrap(probe_app, kind="wsgi")
_async_kept = streamkit.wrap(async_probe_app, kind="asgi")


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/drip"):
        return probe_app(environ, start_response)
    if path.startswith("/kept"):
        return _kept(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(PLAIN)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else PLAIN]


async def asgi_app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan" or scope["path"].startswith("/kept"):
        await _async_kept(scope, receive, send)
    elif scope["path"].startswith("/drip"):
        await async_probe_app(scope, receive, send)
    else:
        fields = [(b"content-type", b"text/plain"), (b"content-length", str(len(PLAIN)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": PLAIN})
