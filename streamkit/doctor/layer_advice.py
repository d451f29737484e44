"""How a layer that holds chunks is freed.

Rule: pure, and tables. What a newer version does is written down only where it was run.
"""

from __future__ import annotations

from ..unbuffer.known import KNOWN
from .findings import Advice

__all__ = ["advice_for", "advice_for_server"]

# By the start of a layer's dotted name: what its own maker or framework offers.
OWN_WAYS: dict[str, tuple[Advice, ...]] = {
    "django.middleware.gzip.": (
        Advice(
            "your view",
            "it leaves encoded bodies alone",
            ('response["Content-Encoding"] = "identity"',),
        ),
    ),
    "starlette_compress.": (
        Advice("your view", "it flushes each chunk of text/event-stream, and of no other type"),
    ),
    "asgi_gzip.": (Advice("your view", "it leaves text/event-stream and what has an encoding alone"),),
    "werkzeug.middleware.profiler.": (
        Advice("your app", "it profiles whole responses only: put it in for a profile and take it out again"),
    ),
    "paste.gzipper.": (
        Advice("your app", "compress in streamkit instead", ("streamkit.wrap(app, compress=True)",)),
    ),
    "wsgigzip.": (
        Advice("your app", "compress in streamkit instead", ("streamkit.wrap(app, compress=True)",)),
    ),
}

BASE_WAY = Advice(
    "this function", "hand the response of call_next on, and work on its body chunk by chunk, in a generator"
)
ANY_WAY = Advice("this layer", "hand each chunk on before it asks for the next, or let streams pass")

SERVER_WAYS: dict[str, tuple[Advice, ...]] = {
    "eventlet": (
        Advice(
            "eventlet",
            "it gathers 4096 bytes before it sends; streamkit.wrap(app) sets this for each stream",
            ("environ['eventlet.minimum_write_chunk_size'] = 1",),
        ),
    ),
    "waitress": (Advice("waitress", "it sends at once with its default", ("send_bytes=1",)),),
}


def advice_for(code: str, name: str) -> tuple[Advice, ...]:
    """What can be done about this layer."""
    if code == "layer-late-head":
        return (Advice("your view", "send a first chunk at once, a comment or a space: the head goes too"),)
    if code == "layer-starts-twice":
        return (
            Advice("this layer", "it breaks the ASGI specification: take it out, or tell those who made it"),
        )
    # A function is accused by its own name, with that of what runs it behind; a closure by its factory's.
    dotted = name.partition(" ")[0].partition(".<locals>")[0]
    ways = [way for start, found in OWN_WAYS.items() if dotted.startswith(start) for way in found]
    known = KNOWN.get(dotted)
    if known is not None and known.streams_from is not None:
        newer = f"{known.package}>={known.streams_from}"
        ways.append(Advice("your requirements", "a newer version passes each chunk on", (newer,)))
    if not ways:
        ways.append(BASE_WAY if "BaseHTTPMiddleware" in name else ANY_WAY)
    kinds = "" if known is not None else f', strip=("etag", "gzip", "cache", "{dotted}")'
    around = Advice(
        "your app",
        "lead streams past this layer, which goes on to work for everything else; outside of all layers",
        (f"app = streamkit.wrap(app{kinds})",),
    )
    return (around, *ways)


def advice_for_server(server: str) -> tuple[Advice, ...]:
    """What can be done about a server that holds what it is given."""
    return SERVER_WAYS.get(server, ())
