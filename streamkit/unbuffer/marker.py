"""A content coding that is none: it makes layers that compress step aside.

Layers leave alone what is coded already. So the head of a description goes through the stack with
`Content-Encoding: x-streamkit`, and the wrap outside of the stack takes it off; `identity` would
free fewer layers (Starlette's and New Relic's among them look for any value, others exempt that one).

Rule: only a head that is sure to pass a wrap of ours is marked; the mark never reaches a server.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..core.base import BaseStream
from ..core.framing import Body
from ..core.headers import Pairs, value_of
from ..types import ExcInfo, Message, Send, StartResponse, Write, WSGIHeaders

__all__ = ["MARK", "UnmarkedSend", "marked", "marking", "unmarked"]

MARK = "x-streamkit"


def marked(headers: Pairs) -> Pairs:
    """These headers with the mark, where they name no coding."""
    return headers if value_of(headers, "content-encoding") else [*headers, ("Content-Encoding", MARK)]


def unmarked(headers: Pairs) -> Pairs:
    """These headers without the mark, alone or among codings that a layer has added."""
    kept: Pairs = []
    for name, value in headers:
        if len(name) == 16 and MARK in value and name.lower() == "content-encoding":
            value = ", ".join(coding for part in value.split(",") if (coding := part.strip()) != MARK)
            if not value:
                continue
        kept.append((name, value))
    return kept


def marking(start_response: StartResponse, stream: BaseStream) -> StartResponse:
    """PEP 3333's `start_response` for this stream: it marks its head, and no refusal in its place."""

    def start(status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = None) -> Write:
        if stream._head is not None and stream._body is Body.STREAM:
            headers = marked(headers)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start


class UnmarkedSend:
    """ASGI's `send` of a wrap through which a marked head comes."""

    __slots__ = ("__self__", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.__self__: Any = getattr(send, "__self__", None)  # whose transport `abort_transport` finds

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers", ())]
            headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in unmarked(pairs)]
            message = {**message, "headers": headers}
        return self._send(message)
