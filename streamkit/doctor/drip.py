"""A small app whose chunks carry the time at which they were sent.

    app.mount("/drip", streamkit.doctor.async_probe_app)      # ASGI; `probe_app` is the same for WSGI
    $ streamkit doctor https://example.org/drip

From outside nobody can tell a chunk that was made late from one that was held. In the chunks of this
app it stands: `[[chunk-3 1732100000.123]]` is the fourth, sent at that second of the Unix clock. The
price is one more path to serve; it gives away nothing but the server's clock.

What may be asked for: `?chunks=8&pause=0.4&size=0&type=text/plain&fail=5`. `pause` is in seconds, `size`
pads a chunk to so many bytes, `type` is one of `TYPES`, `fail` breaks the body off behind so many chunks.

Rule: plain WSGI and plain ASGI, without a header that any proxy looks at: what a layer does to this body
it does to any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from ..errors import StreamKitError

__all__ = ["DRIP_FIELD", "TYPES", "Drip", "DripBroken", "async_probe_app", "probe_app"]

DRIP_FIELD = "X-Streamkit-Drip"  # tells the doctor that it may ask for `fail`
TYPES = {
    "text/plain": "%s\n",
    "text/html": "<p>%s</p>\n",
    "text/event-stream": "data: %s\n\n",
    "application/x-ndjson": '{"drip": "%s"}\n',
}


class DripBroken(StreamKitError):
    """A drip broke off, because the request asked for it."""


@dataclass(frozen=True)
class Drip:
    """What is dripped: how many chunks, how far apart, of what kind."""

    chunks: int = 8
    pause: float = 0.4  # seconds between two chunks; longer than any lag that is no fault
    size: int = 0  # bytes that a chunk has at least
    content_type: str = "text/plain"
    fail: int | None = None  # chunks after which it breaks off

    @classmethod
    def asked(cls, query: str) -> Drip:
        """Of a query string. What is not there, or no such value, is as usual; what is too much is less."""
        values = {name: found[-1] for name, found in parse_qs(query).items()}
        kind = values.get("type", "")
        return cls(
            chunks=int(_number(values.get("chunks"), cls.chunks, 1000)),
            pause=_number(values.get("pause"), cls.pause, 60.0),
            size=int(_number(values.get("size"), cls.size, 64 * 1024)),
            content_type=kind if kind in TYPES else cls.content_type,
            fail=int(_number(values["fail"], 1, 1000)) if "fail" in values else None,
        )

    @property
    def fields(self) -> list[tuple[str, str]]:
        return [("Content-Type", f"{self.content_type}; charset=utf-8"), (DRIP_FIELD, "1")]

    def chunk(self, number: int, now: float) -> bytes:
        """One chunk; `now` is the time of the Unix clock."""
        mark = f"[[chunk-{number} {now:.3f}]]"
        padding = " " + "." * (self.size - len(mark)) if self.size > len(mark) else ""
        return (TYPES[self.content_type] % (mark + padding)).encode("ascii")

    def is_broken_at(self, number: int) -> bool:
        return self.fail is not None and number >= self.fail


def _number(text: str | None, usual: float, most: float) -> float:
    try:
        value = usual if text is None else float(text)
    except ValueError:
        return usual
    return min(value, most) if value >= 0 else usual


def probe_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The drip as a WSGI app."""
    drip = Drip.asked(environ.get("QUERY_STRING", ""))
    start_response("200 OK", drip.fields)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else _chunks(drip)


def _chunks(drip: Drip) -> Iterator[bytes]:
    for number in range(drip.chunks):
        if number:
            time.sleep(drip.pause)
        if drip.is_broken_at(number):
            raise DripBroken(f"broken off behind {number} chunks, as the request asked")
        yield drip.chunk(number, time.time())


async def async_probe_app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The drip as an ASGI app; its lifespan has nothing to start."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] != "http":
        raise DripBroken(f"the drip speaks HTTP, not {scope['type']}")
    drip = Drip.asked(scope.get("query_string", b"").decode("latin-1"))
    fields = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in drip.fields]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    if scope["method"] != "HEAD":
        left = asyncio.ensure_future(_left(receive))
        try:
            await _send_chunks(drip, send, left)
        finally:
            left.cancel()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Returns when the client leaves: after that, `send` may be silent for ever."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_chunks(
    drip: Drip, send: Callable[[dict[str, Any]], Awaitable[None]], left: asyncio.Future[None]
) -> None:
    for number in range(drip.chunks):
        if number:
            await asyncio.wait({left}, timeout=drip.pause)
        if left.done():
            return
        if drip.is_broken_at(number):
            raise DripBroken(f"broken off behind {number} chunks, as the request asked")
        chunk = {"type": "http.response.body", "body": drip.chunk(number, time.time()), "more_body": True}
        await send(chunk)
