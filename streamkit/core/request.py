"""What a description may want to know of the request that it answers, from either interface.

Rule: nothing is read from the client here; header names are given in lower case.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import parse_qs

KEY = "streamkit.stream"  # where a request's response stream stands, in the environ or scope


class Fields(NamedTuple):
    """What of a request the head of its response may depend on; None where it was not sent."""

    accept_encoding: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None


NO_FIELDS = Fields()
_ASGI_NAMES = {name.replace("_", "-").encode(): name for name in Fields._fields}
_ALL = frozenset(_ASGI_NAMES)
_CONDITIONS = _ALL - {b"accept-encoding"}
_NAME = itemgetter(0)  # of a header


def fields_of(request: Any, *, encoding: bool) -> Fields:
    """Those of a WSGI environ or an ASGI scope; Accept-Encoding only where it is wanted.

    They outlive the request's own mapping, which holds its stream and must not be held by it.
    """
    if "wsgi.version" in request:
        get = request.get
        accept = get("HTTP_ACCEPT_ENCODING") if encoding else None
        known, since = get("HTTP_IF_NONE_MATCH"), get("HTTP_IF_MODIFIED_SINCE")
        if accept is None and known is None and since is None:
            return NO_FIELDS
        return Fields(accept, known, since)
    headers = request.get("headers", ())
    if type(headers) is list and (_ALL if encoding else _CONDITIONS).isdisjoint(map(_NAME, headers)):
        return NO_FIELDS  # in less time, as most requests say nothing of the kind
    found: dict[str, str] | None = None
    for raw, value in headers:
        if raw in _ASGI_NAMES and (encoding or raw != b"accept-encoding"):
            name, text = _ASGI_NAMES[raw], value.decode("latin-1")
            if found is None:
                found = {}
            # "append ... each subsequent field line value ... separated by a comma" -- RFC 9110, 5.3
            found[name] = f"{found[name]}, {text}" if name in found else text
    return NO_FIELDS if found is None else Fields(**found)


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
