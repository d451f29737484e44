"""Wrap any app, whichever interface it speaks.

    app = streamkit.wrap(app, {"high_water": 256 * 1024})

Rule: what cannot be told apart is refused, with `kind=` as the way out; a wrong guess
would only show as a hanging request.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, overload

from asgiref.sync import iscoroutinefunction

from . import asgi, wsgi
from .core.response import StreamingResponse
from .errors import NotAnApplication, OptionsError
from .options import Options
from .types import ASGIApp, WSGIApp

__all__ = ["wrap"]

Kind = Literal["wsgi", "asgi"]


@overload
def wrap(
    app: WSGIApp,
    options: Options | Mapping[str, Any] | None = ...,
    *,
    kind: Literal["wsgi"] | None = ...,
    **overrides: Any,
) -> wsgi.StreamingMiddleware: ...
@overload
def wrap(
    app: ASGIApp,
    options: Options | Mapping[str, Any] | None = ...,
    *,
    kind: Literal["asgi"] | None = ...,
    **overrides: Any,
) -> asgi.StreamingMiddleware: ...
def wrap(
    app: Any,
    options: Options | Mapping[str, Any] | None = None,
    *,
    kind: Kind | None = None,
    **overrides: Any,
) -> wsgi.StreamingMiddleware | asgi.StreamingMiddleware:
    """The app in the streaming middleware of its kind; it stays reachable as `.app`.

    `options` is an `Options` or a mapping; keyword arguments go over it. `kind` settles
    what cannot be told from the app. Raises `NotAnApplication` and `OptionsError`.
    """
    if kind not in (None, "wsgi", "asgi"):
        raise OptionsError([f"kind: wanted 'wsgi', 'asgi' or None, got {kind!r}"])
    middleware = (
        wsgi.StreamingMiddleware if (kind or kind_of_app(app)) == "wsgi" else asgi.StreamingMiddleware
    )
    return middleware(app, options, **overrides)


def kind_of_app(app: Any) -> Kind:
    """Which interface this application speaks; `NotAnApplication` if that cannot be told."""
    if not callable(app):
        raise NotAnApplication(
            "wanted a WSGI application (environ, start_response) or an ASGI application "
            f"(scope, receive, send), got {app!r}"
        )
    is_async = iscoroutinefunction(app) or (
        not inspect.isroutine(app)
        and not inspect.isclass(app)
        and not isinstance(app, StreamingResponse)  # says so for servers' sake, and is of both kinds
        and iscoroutinefunction(type(app).__call__)
    )
    try:
        takes = {count for count in (2, 3) if _takes(inspect.signature(app), count)}
    except (ValueError, TypeError):
        takes = {2, 3}  # a builtin, say, that does not tell
    if is_async and 3 in takes:
        return "asgi"
    if not is_async and len(takes) == 1:
        return "wsgi" if takes == {2} else "asgi"
    if not is_async and takes == {2, 3} and _required(app) == 2:
        return "wsgi"
    raise NotAnApplication(
        f"cannot tell whether {app!r} is a WSGI application (environ, start_response) or an ASGI "
        "application (scope, receive, send): say kind='wsgi' or kind='asgi'"
        if takes == {2, 3}
        else f"wanted a WSGI application (environ, start_response) or an ASGI application (scope, receive, "
        f"send), got {app!r}, which takes other arguments"
    )


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _required(app: Any) -> int:
    try:
        parameters = inspect.signature(app).parameters.values()
    except (ValueError, TypeError):
        return 0  # a builtin, say, that does not tell
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is p.empty and p.kind in positional for p in parameters)
