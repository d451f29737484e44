"""ASGI's messages, and the few ways of sending them.

Rule: nothing here knows a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ..core.framing import Request
from ..core.headers import Pairs
from ..core.shared import Shared
from ..errors import TooManyStreams
from ..types import ASGIHeaders, Message, Receive, Scope, Send
from .logs import ASGI_LOG
from .registry import RETRY_AFTER, TOO_MANY
from .spool import Spool

CLOSE_SECONDS = 0.5  # daphne looks once a second for applications that have failed


def uncancel() -> None:
    """Take our own cancellation of the current task back (CPython 3.11 counts them)."""
    take_back: Callable[[], int] | None = getattr(asyncio.current_task(), "uncancel", None)
    if take_back is not None:
        take_back()


async def take_back(times: int) -> None:
    """Take as many cancellations of the current task back, whatever the application has made of them."""
    for _ in range(times):
        uncancel()
    task: Any = asyncio.current_task()
    try:
        await asyncio.sleep(0)  # one that has not struck yet, as before CPython 3.13
    except asyncio.CancelledError:
        if hasattr(task, "cancelling") and task.cancelling():  # not ours
            raise


def encoded(pairs: Pairs) -> ASGIHeaders:
    """Headers as ASGI wants them: lower-case names, and bytes; a list of its own, which layers may change."""
    if type(pairs) is Shared:
        if pairs.encoded is None:
            pairs.encoded = [_encoded(pair) for pair in pairs]
        return pairs.encoded.copy()
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
    request = _twisted_request(send)
    if request is not None:
        request.transport.abortConnection()
    return request is not None


def _twisted_request(send: Send) -> Any:
    """The request behind daphne's `send`, which is its method with the request already given; or None."""
    given = getattr(send, "args", None)
    request = given[0] if isinstance(given, tuple) and given else None
    words = ("notifyFinish", "loseConnection", "transport")  # of `twisted.web.http.Request`
    return request if request is not None and all(hasattr(request, word) for word in words) else None


def can_close(send: Send) -> bool:
    """Whether `close_after_error` can close the connection behind a server's own `send`."""
    return _twisted_request(send) is not None


def request_of(scope: Scope, send: Send) -> Request:
    """What framing needs to know; no server leaves its client waiting where we can close the connection."""
    request = Request.of_scope(scope)
    return request._replace(hangs=False) if request.hangs and can_close(send) else request


async def close_after_error(send: Send) -> None:
    """Close the connection with the body cut short, after all that was sent, where the server would not.

    daphne meets an error in mid-response with an error page, which it cannot send; its client waits, and
    from then on it looks after no application's end. Of a connection that is closed it only logs the error.
    """
    request = _twisted_request(send)
    if request is None or request.channel is None:
        return
    lost = asyncio.Event()
    request.notifyFinish().addBoth(lambda _: lost.set())
    request.loseConnection()
    try:
        await asyncio.wait_for(lost.wait(), CLOSE_SECONDS)
    except asyncio.TimeoutError:  # another class on CPython 3.10
        request.transport.abortConnection()  # a client that takes nothing
        await heard()


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


async def send_whole(
    send: Send, status: int, pairs: Pairs, spool: Spool, on_last: Callable[[], object]
) -> None:
    """Send a body that was held, with its length; `on_last()` is called before the last message."""
    try:
        spool.complete()
        headers = encoded([*pairs, ("Content-Length", str(spool.size))])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        piece = b""
        for following in spool.pieces():
            if piece:
                await send(body_message(piece, more=True))
            piece = following
        on_last()
        await send(body_message(piece, more=False))
    finally:
        spool.close()


async def spooled(spool: Spool, chunk: bytes) -> None:
    """Add to a spool; the disk is not waited for on the loop."""
    if spool.on_disk:
        await asyncio.get_running_loop().run_in_executor(None, spool.write, chunk)
    else:
        spool.write(chunk)
