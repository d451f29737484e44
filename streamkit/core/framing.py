"""What kind of body a response has, and how long it may be.

Rule: decided once for each response, from the request's version and method, the status,
and what was declared; nothing here sends. Transfer-Encoding and Connection are never
ours: the server frames the body, this module only says what it is handed.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from typing import NamedTuple

from ..types import Environ, Scope

# What a client of HTTP/1.0 is told, with a 505, in place of what it cannot have.
NEEDS_HTTP11 = "This response needs HTTP/1.1 or later.\n"
TOO_LONG = "This response is too long for HTTP/1.0; ask with HTTP/1.1.\n"

_BODILESS = frozenset({204, 205, 304})
_VERSION = re.compile(r"(?:HTTP/)?(\d+)(?:\.(\d+))?")


class Body(Enum):
    STREAM = "stream"  # chunk by chunk, as they are made
    WHOLE = "whole"  # held until it is complete, then sent with its Content-Length
    UNSENT = "unsent"  # HEAD: as for GET, without the bytes
    NONE = "none"  # the status has no body


class Request(NamedTuple):
    """What framing needs to know of a request."""

    method: str
    version: tuple[int, int]
    closes: bool  # the client said "Connection: close"
    hangs: bool = False  # the server leaves the client waiting when an application raises in mid-stream

    @classmethod
    def of_environ(cls, environ: Environ) -> Request:
        protocol = environ.get("SERVER_PROTOCOL", "HTTP/1.1")
        if protocol == "HTTP/1.1":
            method = environ["REQUEST_METHOD"]
            return _USUAL.get(method) or cls(method, (1, 1), False)
        return cls(
            environ["REQUEST_METHOD"],
            version_of(protocol),
            "close" in options_of(environ.get("HTTP_CONNECTION", "")),
        )

    @classmethod
    def of_scope(cls, scope: Scope) -> Request:
        protocol = scope.get("http_version", "1.1")
        hangs = _hangs(scope, protocol)
        if protocol == "1.1" and not hangs:
            method = scope["method"]
            return _USUAL.get(method) or cls(method, (1, 1), False)
        connection = b",".join(value for name, value in scope["headers"] if name == b"connection")
        closes = "close" in options_of(connection.decode("latin-1"))
        return cls(scope["method"], version_of(protocol), closes, hangs)


def _hangs(scope: Scope, protocol: str) -> bool:
    """Known by what the servers that run here say of themselves: no version, or 2.1."""
    version = scope.get("asgi", {}).get("spec_version")
    if version is None:
        return "daphne.server" in sys.modules
    return version == "2.1" and not protocol.startswith("1") and "hypercorn" in sys.modules


# The requests of almost every day, made once.
_USUAL = {method: Request(method, (1, 1), False) for method in ("GET", "HEAD", "POST")}
HTTP11 = _USUAL["GET"]


def version_of(protocol: str) -> tuple[int, int]:
    """`HTTP/1.1`, `HTTP/2`, `1.0` and `1` (granian's 1.0) as two numbers; 1.1 for what is none."""
    match = _VERSION.fullmatch(protocol.strip())
    return (int(match[1]), int(match[2] or 0)) if match else (1, 1)


def options_of(connection: str) -> frozenset[str]:
    """The connection options of a Connection header (RFC 9110, section 7.6.1)."""
    return frozenset(option.strip().lower() for option in connection.split(","))


def has_body(status: int) -> bool:
    """False for 1xx, 204, 205 and 304 (RFC 9110, section 6.4.1; 205: section 15.3.6)."""
    return status >= 200 and status not in _BODILESS


def frame(
    request: Request,
    status: int,
    *,
    content_length: int | None = None,
    endless: bool = False,
    http10: str = "auto",
) -> Body:
    """The kind of body for this response.

    An HTTP/1.0 client knows no chunks: its stream ends with the connection, which is only
    safe when the client said that the connection closes, or with a declared length; all
    else is held whole, unless it has no end.
    """
    if not has_body(status):
        return Body.NONE
    if request.method == "HEAD":
        return Body.UNSENT
    if request.version >= (1, 1) or content_length is not None or http10 == "stream":
        return Body.STREAM
    if http10 == "buffer":
        return Body.WHOLE
    return Body.STREAM if request.closes or endless else Body.WHOLE
