"""A content coding that is none: it makes layers that compress step aside.

Layers leave alone what is coded already. So the head of a description goes through the stack with
`Content-Encoding: x-streamkit`, and the wrap outside of the stack takes it off; `identity` would
free fewer layers (Starlette's and New Relic's among them look for any value, others exempt that one).

Rule: the mark never reaches a server, also where a layer has kept a head and sends it again.
"""

from __future__ import annotations

from .headers import Pairs, value_of

__all__ = ["MARK", "USED", "marked", "unmarked"]

MARK = "x-streamkit"

# Not empty once a head was marked in this process: before that none has to be looked at.
USED: list[bool] = []


def marked(headers: Pairs) -> Pairs:
    """These headers with the mark, where they name no coding."""
    if not USED:
        USED.append(True)
    return headers if value_of(headers, "content-encoding") else [*headers, ("Content-Encoding", MARK)]


def unmarked(headers: Pairs) -> Pairs:
    """These headers without the mark, alone or among codings that a layer has added."""
    for name, value in headers:
        if len(name) == 16 and MARK in value and name.lower() == "content-encoding":
            return _taken_off(headers)
    return headers


def _taken_off(headers: Pairs) -> Pairs:
    kept: Pairs = []
    for name, value in headers:
        if name.lower() == "content-encoding":
            value = ", ".join(coding for part in value.split(",") if (coding := part.strip()) != MARK)
            if not value:
                continue
        kept.append((name, value))
    return kept
