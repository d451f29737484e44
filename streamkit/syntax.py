"""What a status, a header name and a header value may be.

Rule: RFC 9110, sections 5.1 and 5.5, as narrow as PEP 3333 makes them: names are
tokens, values are ISO-8859-1 text without CR, LF and NUL, and hop-by-hop fields
belong to the server, because only it knows how the connection is framed.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from .errors import HeaderError

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

_KNOWN_NAMES: set[str] = set()  # names that were checked before; an application has few
_MOST_KNOWN = 256
_LONGEST_KNOWN = 64
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
FORBIDDEN = re.compile(r"[\r\n\0]").search
_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def check_name(name: object) -> str:
    """The name, if it may be sent; else `HeaderError`."""
    if not isinstance(name, str) or not _TOKEN(name):
        raise HeaderError(f"wanted a header name (a token of RFC 9110, section 5.6.2), got {name!r}")
    if name.lower() in HOP_BY_HOP:
        raise HeaderError(f"{name} is hop-by-hop: framing and the connection belong to the server (PEP 3333)")
    if type(name) is str and len(_KNOWN_NAMES) < _MOST_KNOWN and len(name) <= _LONGEST_KNOWN:
        _KNOWN_NAMES.add(name)
    return name


def is_plain(name: object, value: object) -> bool:
    """Whether a glance shows that this field may be sent; of any other only the checks can say."""
    # Printable ASCII has no CR, LF or NUL, and is ISO-8859-1.
    return (
        type(value) is str
        and type(name) is str
        and name in _KNOWN_NAMES
        and (value.isascii() and value.isprintable())
    )


def check_value(name: str, value: object) -> str:
    """The value, if it may be sent; else `HeaderError`."""
    if not isinstance(value, str):
        raise HeaderError(f"wanted a str as the value of {name}, got {type(value).__name__}: {value!r}")
    if FORBIDDEN(value):
        raise HeaderError(f"the value of {name} must not contain CR, LF or NUL: {value!r}")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise HeaderError(f"the value of {name} must be ISO-8859-1 text (PEP 3333), got {value!r}") from None
    return value


def check_cookie(key: object, value: object) -> None:
    """Refuse a cookie whose name is no token, or whose value is no text (RFC 6265, section 4.1.1)."""
    if not isinstance(key, str) or not _TOKEN(key):
        raise HeaderError(f"wanted the name of a cookie (a token of RFC 9110, section 5.6.2), got {key!r}")
    if not isinstance(value, str):
        raise HeaderError(f"wanted a str as the value of cookie {key}, got {type(value).__name__}: {value!r}")


def check_status(status: object) -> int:
    """The status code, if it is one (three digits, RFC 9110, section 15); else `HeaderError`."""
    if type(status) is int and 100 <= status <= 999:
        return status
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 999:
        raise HeaderError(f"wanted a status code from 100 to 999, got {status!r}")
    return int(status)  # an `HTTPStatus`, or another kind of int


def status_line(status: int) -> str:
    """The status as WSGI wants it: the code, a space, the reason phrase."""
    return _REASONS.get(status) or f"{status} Unknown"
