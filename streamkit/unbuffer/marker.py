"""The mark of `core.marking` on its way: put on by who serves a description, taken off by the wrap outside.

Rule: only a head that is sure to pass a wrap of ours is marked.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..core.base import BaseStream
from ..core.framing import Body
from ..core.marking import MARK, marked, marked_fields, unmarked, unmarked_fields
from ..types import ExcInfo, Message, Send, StartResponse, Write, WSGIHeaders

__all__ = ["MARK", "UnmarkedSend", "marked_fields", "marking", "unmarked", "unmarked_fields"]


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

    __slots__ = ("__self__", "_send", "args")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.__self__: Any = getattr(send, "__self__", None)  # whose transport `abort_transport` finds
        self.args: Any = getattr(send, "args", None)  # the same, where it is a partial

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": unmarked_fields(list(message.get("headers", ())))}
        return self._send(message)
