"""What a layer is given in a stream's place, and what of its answer the stream gets.

A layer that would hold a stream sees a *placeholder*: the stream's head and no body. What it adds
to that head, cookies say, is the stream's too; what it computed from the empty body is not.

Rule: heads and bodies as values; nothing here calls a layer or an app.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.headers import Pairs, is_streaming, value_of

__all__ = ["NO_STORE", "PLACEHOLDER_STATUS", "is_computed", "is_meant", "is_stream", "merged", "placeholder"]

# Caches keep 200 and some others on their own judgement, never a 202 (RFC 9110, 15.1); those that
# ask for nothing but the status, as asgi-caches does, refuse it too.
PLACEHOLDER_STATUS = 202

NO_STORE = ("Cache-Control", "no-store, private, max-age=0")

# What layers compute from a body, or from how long it may be kept.
_COMPUTED = frozenset(
    {
        "accept-ranges", "age", "cache-control", "content-digest", "content-encoding", "content-length",
        "content-md5", "digest", "etag", "expires", "last-modified", "repr-digest", "transfer-encoding",
    }
)  # fmt: skip


def is_stream(headers: Pairs, body: Any, environ: Any = None) -> bool:
    """Whether a WSGI response comes piece by piece, as far as can be told before it is read."""
    if isinstance(body, (list, tuple)) or hasattr(type(body), "__len__"):
        return False
    if getattr(body, "streaming", True) is False:  # Django's word for a body that is all there
        return False
    wrapper = environ.get("wsgi.file_wrapper") if environ is not None else None
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return False
    return value_of(headers, "content-length") is None or is_streaming(headers)


def placeholder(status: int, headers: Iterable[tuple[str, str]]) -> tuple[int, Pairs]:
    """The head that a layer sees in place of a stream's."""
    kept = [pair for pair in headers if pair[0].lower() not in ("content-length", "cache-control")]
    return (PLACEHOLDER_STATUS if 200 <= status < 300 else status), [*kept, NO_STORE]


def is_computed(status: int, given: int, headers: Pairs) -> bool:
    """Whether the stream's own status stands, not the one the layer has answered with.

    `given` is the placeholder's. A 304 that comes of the empty body's ETag counts as computed.
    """
    if status == given or 200 <= status < 300:
        return True
    has_own = value_of(headers, "etag") is not None or value_of(headers, "last-modified") is not None
    return status == 304 and not has_own


def merged(own: Pairs, sent: Pairs, came: Pairs, status: int) -> Pairs:
    """The stream's own headers with what the layer has changed: `sent` went in, `came` came out."""
    if status == 304:  # it bears what is news to the client and no more (RFC 9110, 15.4.5)
        names = {name.lower() for name, _ in came}
        came = [*(pair for pair in sent if pair[0].lower() not in names), *came]
    before = {(name.lower(), value) for name, value in sent}
    added = [
        (name, value)
        for name, value in came
        if (name.lower(), value) not in before and name.lower() not in _COMPUTED
    ]
    after = {(name.lower(), value) for name, value in came}

    def stays(name: str, value: str) -> bool:
        # Value by value: a layer may put another in the place of one, or a second one beside it.
        return name in _COMPUTED or (name, value) in after

    return [*(pair for pair in own if stays(pair[0].lower(), pair[1])), *added]


def is_meant(error: BaseException) -> bool:
    """Whether a layer has raised this as its answer: `abort(403)`, `PermissionDenied`."""
    made_in = type(error).__module__
    return hasattr(error, "get_response") or made_in.startswith(
        ("django.core.exceptions", "django.http", "pyramid.httpexceptions", "starlette.exceptions")
    )
