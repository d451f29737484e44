"""A content coding that is none: it makes layers that compress step aside.

Layers leave alone what is coded already. So the head of a description goes through the stack with
`Content-Encoding: x-streamkit`, and the wrap outside of the stack takes it off; `identity` would
free fewer layers (Starlette's and New Relic's among them look for any value, others exempt that one).

Rule: the mark never reaches a server, also where a layer has kept a head and sends it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..types import ASGIHeaders
from .headers import Pairs, value_of

__all__ = ["MARK", "USED", "marked", "marked_fields", "may_be_marked", "unmarked", "unmarked_fields"]

MARK = "x-streamkit"
_FIELD = (b"content-encoding", MARK.encode())
_LENGTH = len(_FIELD[0])

# Not empty once a head was marked in this process: before that none has to be looked at.
USED: list[bool] = []


def marked(headers: Pairs) -> Pairs:
    """These headers with the mark, where they name no coding."""
    _use()
    return headers if value_of(headers, "content-encoding") else [*headers, ("Content-Encoding", MARK)]


def marked_fields(fields: ASGIHeaders) -> ASGIHeaders:
    """The same for ASGI, of a head whose names are in lower case."""
    _use()
    for name, value in fields:
        if name == _FIELD[0] and value:
            return fields
    return [*fields, _FIELD]


def _use() -> None:
    if not USED:
        USED.append(True)


def may_be_marked(headers: Iterable[tuple[str | bytes, Any]]) -> bool:
    """Whether a name is as long as `Content-Encoding`, which few are: then a closer look is worth it."""
    for pair in headers:  # noqa: SIM110 -- a generator would take three times as long
        if len(pair[0]) == _LENGTH:
            return True
    return False


def unmarked(headers: Pairs) -> Pairs:
    """These headers without the mark, alone or among codings that a layer has added."""
    for name, value in headers:
        if len(name) == _LENGTH and MARK in value and name.lower() == "content-encoding":
            return _taken_off(headers)
    return headers


def unmarked_fields(fields: ASGIHeaders) -> ASGIHeaders:
    """The same for ASGI, also where a layer has written the names in any case."""
    if _FIELD in fields:
        fields = [field for field in fields if field != _FIELD]
    for name, value in fields:
        if len(name) == _LENGTH and _FIELD[1] in value:
            kept = unmarked([(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in fields])
            return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in kept]
    return fields


def _taken_off(headers: Pairs) -> Pairs:
    kept: Pairs = []
    for name, value in headers:
        if name.lower() == "content-encoding":
            value = ", ".join(coding for part in value.split(",") if (coding := part.strip()) != MARK)
            if not value:
                continue
        kept.append((name, value))
    return kept
