"""What a description may want to know of the request that it answers, from either interface.

Rule: nothing is read from the client here; header names are given in lower case.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs


def header_of(request: Any, name: str) -> str | None:
    """A header of a WSGI environ or an ASGI scope, as text; None without it.

    Read as UTF-8, which is what browsers send in Last-Event-ID, and as Latin-1 if it is none.
    """
    if "wsgi.version" in request:
        value: str | None = request.get("HTTP_" + name.upper().replace("-", "_"))
        return None if value is None else _text(value.encode("latin-1"))
    wanted = name.encode("ascii")
    found = [value for key, value in request.get("headers", ()) if key == wanted]
    return _text(found[-1]) if found else None


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def query_of(request: Any, name: str) -> str | None:
    """The first value of a parameter in the query string; None without it."""
    if "wsgi.version" in request:
        query = request.get("QUERY_STRING", "").encode("latin-1")
    else:
        query = request.get("query_string", b"")
    values = parse_qs(_text(query), keep_blank_values=True).get(name)
    return values[0] if values else None
