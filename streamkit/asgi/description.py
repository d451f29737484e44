"""A description as an ASGI application.

Rule: its coroutine is the exchange's own: no other frame stays while the stream is open.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from asgiref.sync import markcoroutinefunction

from ..core.response import StreamingResponse, carried_out_by
from ..options import Options
from ..types import Receive, Scope, Send
from .exchange import Exchange


def respond(
    response: StreamingResponse,
    scope: Scope,
    receive: Receive,
    send: Send,
    options: Options | None = None,
) -> Coroutine[Any, Any, None]:
    """Carry out a description as an ASGI application.

    Options are the response's own over `options`, or over those of the wrapped app that
    the request came through. An error before the commit is raised before anything is sent.
    """
    # No coroutine function: its frame would stay for as long as the stream is open.
    return Exchange(receive, send).run(response, scope, options)


carried_out_by(asgi=respond)
# uvicorn and Daphne ask for this, and take an application that says no for ASGI 2; WSGI servers do not ask.
markcoroutinefunction(StreamingResponse.__call__)
