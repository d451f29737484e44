"""The stream that takes a view's place, so that any stack can be asked: numbered chunks of growing size.

Small chunks show who waits for the end; large ones show who waits for 4 KiB, 16 KiB or 64 KiB. They are
of the view's own media type, else text/html, which most layers think worth their while, and hold nothing
that a minifier could drop.

Rule: whoever asks for the next chunk decides when it is made; nothing here waits.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from ..types import Environ, Receive, Scope, Send

__all__ = ["HTML", "SIZES", "chunks", "response_for", "serve_asgi", "serve_wsgi"]

SIZES = (64, 64, 64, 64, 64, 2500, 2500, 12_000, 70_000, 64, 64)  # bytes of each chunk
HTML = "text/html; charset=utf-8"


def chunks() -> Iterator[bytes]:
    """The chunks, each with its number in front."""
    words = random.Random(7)
    for number, size in enumerate(SIZES):
        filler = f"{words.getrandbits(4 * size):x}"
        yield f"<p>[[chunk-{number}]] {filler}</p>\n"[: size - 5].encode() + b"</p>\n"


async def achunks() -> AsyncIterator[bytes]:
    """The same for `async for`."""
    for chunk in chunks():
        yield chunk


def serve_wsgi(media_type: str, environ: Environ, start_response: Any) -> Iterable[bytes]:
    """The probe stream as a WSGI app, but for the first argument."""
    start_response("200 OK", [("Content-Type", media_type)])
    return chunks()


async def serve_asgi(media_type: str, scope: Scope, receive: Receive, send: Send) -> None:
    """The probe stream as an ASGI app, but for the first argument."""
    fields = [(b"content-type", media_type.encode("latin-1"))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for chunk in chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def response_for(request: Any, media_type: str, *, is_async: bool) -> Any:
    """The probe stream as a response of the framework that this request is of; None for one unknown."""
    framework = type(request).__mro__
    if any(cls.__module__.startswith("django.") for cls in framework):
        from django.http import StreamingHttpResponse

        return StreamingHttpResponse(achunks() if is_async else chunks(), content_type=media_type)
    if "webob" in sys.modules:
        response = sys.modules["webob"].Response
        if "pyramid.response" in sys.modules:
            response = sys.modules["pyramid.response"].Response
        return response(app_iter=chunks(), headerlist=[("Content-Type", media_type)])
    return None
