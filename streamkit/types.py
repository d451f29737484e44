"""The words of both interfaces as types.

Rule: names are those of PEP 3333 and of the ASGI specification; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

# WSGI
Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
WSGIHeaders: TypeAlias = list[tuple[str, str]]
Write: TypeAlias = Callable[[bytes], object]


class StartResponse(Protocol):
    """The server's `start_response`."""

    def __call__(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = ..., /) -> Write: ...


WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

# ASGI
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
ASGIHeaders: TypeAlias = list[tuple[bytes, bytes]]

# Streams
Chunk: TypeAlias = str | bytes | bytearray | memoryview
Outcome: TypeAlias = Literal["finished", "failed", "disconnected", "timed_out", "shut_down", "aborted"]
EngineName: TypeAlias = Literal["auto", "thread", "greenlet", "task"]
