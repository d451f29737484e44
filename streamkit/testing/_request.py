"""One request in the words of both interfaces.

Rule: nothing here sends. What no client could send is refused with `OptionsError`, all faults in
one message, before the application sees anything of it.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote_to_bytes, urlencode
from wsgiref.util import FileWrapper

from ..errors import HeaderError, OptionsError
from ..syntax import HOP_BY_HOP, check_name, check_value
from ..types import Environ, Scope

Query: TypeAlias = "str | Mapping[str, Any] | Iterable[tuple[str, Any]]"
Fields: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"

VERSIONS = ("1.0", "1.1", "2", "3")
# 2.3, as uvicorn, hypercorn and granian say: from 2.4 on a `send` to nobody raises.
ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.3"}

_CLIENT, _SERVER = ("127.0.0.1", 50000), ("localhost", 80)
_WITH_BODY = ("PATCH", "POST", "PUT")  # these say a length also where it is 0
# What RFC 3986 lets stand in a path or a query; "%" begins what is quoted already.
_UNQUOTED = "%/:@!$&'()*+,;=~-._"


@dataclass(frozen=True)
class Request:
    """What a client says."""

    method: str
    path: str  # percent-encoded
    query: str  # percent-encoded
    headers: tuple[tuple[str, str], ...]
    body: bytes
    http_version: str

    def environ(self, extra: Mapping[str, Any] | None) -> Environ:
        """A WSGI request as a threaded server makes it, with `extra` over it."""
        environ: Environ = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            # "strings ... containing only code points representable in ISO-8859-1" -- PEP 3333
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "QUERY_STRING": self.query,
            "SERVER_NAME": _SERVER[0],
            "SERVER_PORT": str(_SERVER[1]),
            "SERVER_PROTOCOL": f"HTTP/{self.http_version}",
            "SERVER_SOFTWARE": "streamkit.testing",
            "REMOTE_ADDR": _CLIENT[0],
            "REMOTE_PORT": str(_CLIENT[1]),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
        }
        for name, value in self.headers:
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            joint = "; " if key == "HTTP_COOKIE" else ", "
            environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
        environ.update(extra or {})
        return environ

    def scope(self, extra: Mapping[str, Any] | None, state: Mapping[str, Any]) -> Scope:
        """An ASGI request, with `extra` over it; `state` is the lifespan's, and is copied."""
        return {
            "type": "http",
            "asgi": dict(ASGI_VERSIONS),
            "http_version": self.http_version,
            "method": self.method,
            "scheme": "http",
            "path": unquote_to_bytes(self.path).decode("utf-8", "replace"),
            "raw_path": self.path.encode("ascii"),
            "query_string": self.query.encode("ascii"),
            "root_path": "",
            "headers": [
                (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in self.headers
            ],
            "client": _CLIENT,
            "server": _SERVER,
            "state": dict(state),
            **(extra or {}),
        }


def request_of(
    method: Any, path: Any, query: Any, headers: Any, body: Any, http_version: Any, extras: Mapping[str, Any]
) -> Request:
    """The request that was asked for. Raises `OptionsError`; `extras` are mappings by their names."""
    faults: list[str] = []
    if not isinstance(method, str) or not method.isascii() or not method.isalpha():
        faults.append(f"method: wanted a method such as 'GET', got {method!r}")
    if not isinstance(path, str) or not path.startswith("/"):
        faults.append(f"path: wanted a str that begins with '/', got {path!r}")
        path = "/"
    if not isinstance(body, bytes):
        faults.append(f"body: wanted bytes, got {type(body).__name__}: {body!r}")
        body = b""
    if http_version not in VERSIONS:
        faults.append(f"http_version: wanted one of {', '.join(VERSIONS)}, got {http_version!r}")
    faults += [
        f"{name}: wanted a mapping or None, got {extra!r}"
        for name, extra in extras.items()
        if extra is not None and not isinstance(extra, Mapping)
    ]
    path, mark, asked = path.partition("?")
    if mark and query is not None:
        faults.append(f"query: given twice, in the path as {asked!r} and as {query!r}")
    query = asked if query is None else _query_text(query, faults)
    fields = _fields(headers, faults)
    if faults:
        raise OptionsError(faults)
    method = method.upper()
    given = {name.lower() for name, _ in fields}
    if "host" not in given:
        fields.insert(0, ("Host", _SERVER[0]))
    if (body or method in _WITH_BODY) and not given & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    return Request(
        method, quote(path, _UNQUOTED), quote(query, _UNQUOTED + "?"), tuple(fields), body, http_version
    )


def _query_text(query: Any, faults: list[str]) -> str:
    if isinstance(query, str):
        return query
    try:
        return urlencode(query, doseq=True)
    except (TypeError, ValueError):
        faults.append(f"query: wanted a str, a mapping, or pairs of name and value, got {query!r}")
        return ""


def _fields(headers: Any, faults: list[str]) -> list[tuple[str, str]]:
    if headers is None:
        return []
    try:
        fields = [
            (name, value) for name, value in (headers.items() if hasattr(headers, "items") else headers)
        ]
    except (TypeError, ValueError):
        faults.append(f"headers: wanted a mapping, or pairs of name and value, got {headers!r}")
        return []
    for name, value in fields:
        try:
            # A client may speak of its connection; an application may not.
            if not isinstance(name, str) or name.lower() not in HOP_BY_HOP:
                check_name(name)
            check_value(name, value)
        except HeaderError as error:
            faults.append(f"headers: {error}")
    return fields


def seconds(name: str, value: Any) -> float:
    """A bound on a wait; `OptionsError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise OptionsError([f"{name}: wanted a finite number of seconds from 0 up, got {value!r}"])
    return float(value)


def count(name: str, value: Any) -> int:
    """A whole number from 0 up; `OptionsError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionsError([f"{name}: wanted a whole number from 0 up, got {value!r}"])
    return int(value)
