"""ASGI's messages, and the few ways of sending them.

Rule: nothing here knows a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..core.headers import Pairs
from ..errors import TooManyStreams
from ..types import ASGIHeaders, Message, Receive, Send
from .ending import ASGI_LOG
from .registry import RETRY_AFTER, TOO_MANY
from .spool import Spool


def uncancel() -> None:
    """Take our own cancellation of the current task back (CPython 3.11 counts them)."""
    take_back: Callable[[], int] | None = getattr(asyncio.current_task(), "uncancel", None)
    if take_back is not None:
        take_back()


def encoded(pairs: Pairs) -> ASGIHeaders:
    """Headers as ASGI wants them: lower-case names, and bytes."""
    return [_ENCODED.get(pair) or _encoded(pair) for pair in pairs]


_ENCODED: dict[tuple[str, str], tuple[bytes, bytes]] = {}  # fields seen before


def _encoded(pair: tuple[str, str]) -> tuple[bytes, bytes]:
    field = (pair[0].lower().encode("latin-1"), pair[1].encode("latin-1"))
    if len(_ENCODED) < 256:
        _ENCODED[pair] = field
    return field


def abort_transport(send: Send, receive: Receive) -> bool:
    """Drop the connection behind a server's own `send` and `receive` with all that it still holds.

    ASGI has no word for it: a server that is told of an error first tries to send what waits,
    to a client that takes nothing. uvicorn's `send` belongs to an object that has its transport,
    gunicorn's `receive` to one that has its protocol; of any other server the connection stays
    until the server itself gives up.
    """
    # Frameworks put a function of their own before `send`, and leave `receive` alone.
    behind = getattr(receive, "__self__", None)
    for owner in (getattr(send, "__self__", None), behind, getattr(behind, "protocol", None)):
        abort: Callable[[], object] | None = getattr(getattr(owner, "transport", None), "abort", None)
        if abort is not None:
            abort()
            return True
    return False


async def heard() -> None:
    """Let the server hear of a transport that was aborted, before it finds the response incomplete."""
    for _ in range(3):
        await asyncio.sleep(0)


def body_message(chunk: bytes, *, more: bool) -> Message:
    """One `http.response.body`."""
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def plain_answer(send: Send, status: int, text: str, more: Iterable[tuple[str, str]] = ()) -> None:
    """A short response in plain text, whole."""
    body = text.encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more]
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
    await send(body_message(body, more=False))


async def too_many(send: Send, error: TooManyStreams) -> None:
    """Answer a client for whom there is no stream left now."""
    ASGI_LOG.warning("answered 503: %s", error)
    await plain_answer(send, 503, TOO_MANY, [("Retry-After", str(RETRY_AFTER))])


async def send_whole(send: Send, status: int, pairs: Pairs, spool: Spool) -> None:
    """Send a body that was held, with its length."""
    try:
        spool.complete()
        headers = encoded([*pairs, ("Content-Length", str(spool.size))])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in spool.pieces():
            await send(body_message(piece, more=True))
        await send(body_message(b"", more=False))
    finally:
        spool.close()


async def spooled(spool: Spool, chunk: bytes) -> None:
    """Add to a spool; the disk is not waited for on the loop."""
    if spool.on_disk:
        await asyncio.get_running_loop().run_in_executor(None, spool.write, chunk)
    else:
        spool.write(chunk)
