"""Starlette and FastAPI: endpoints that return descriptions, and live endpoints.

    @app.get("/ticks")                      # FastAPI; or Route("/ticks", ticks)
    @live
    async def ticks(request, stream):
        await stream.write("tick\\n")

A description may also be returned as it is from a Starlette endpoint: it is an ASGI application.
`respond` begins it inside the endpoint, so that an error before the first write is the endpoint's,
and exception handlers see it.

Rule: middleware sees an ordinary response, whose body comes piece by piece.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ._missing import missing

try:
    from starlette.requests import Request
    from starlette.responses import Response
except ImportError as error:
    raise missing("starlette", error) from error

from ..core.live import described
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..errors import ProducerError
from ..types import Receive, Scope, Send
from ._asgi import Begun

__all__ = ["EventStreamResponse", "live", "respond"]

View = TypeVar("View", bound=Callable[..., Any])


class BegunResponse(Response):
    """A response whose body is still being made."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun
        self.background = None
        self.status_code = begun.status
        self.init_headers({})
        self.raw_headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in begun.headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._begun.send_body(send)
        if self.background is not None:
            await self.background()


class EventStreamResponse(Response):
    """`response_class=EventStreamResponse`: OpenAPI then says `text/event-stream`."""

    media_type = "text/event-stream"


class _Deferred(Response):
    """A description that is begun when the response is sent: where there is no request at hand."""

    def __init__(self, description: StreamingResponse) -> None:
        self._description = description
        self.background = None
        self.status_code = description.status
        self.init_headers({})
        self.raw_headers = [
            (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in description.headers
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._description(scope, receive, send)
        if self.background is not None:
            await self.background()


def respond(description: StreamingResponse) -> Response:
    """A description as a response of Starlette's, for endpoints that must return one (FastAPI)."""
    if not isinstance(description, StreamingResponse):
        raise ProducerError(f"wanted a description, as streamkit.stream() makes one, got {description!r}")
    return _Deferred(description)


def live(view: View) -> View:
    """An endpoint that is called as `view(request, stream, **values)` and streams from its first write on.

    Until then it is an ordinary endpoint: it may raise `HTTPException`, or return a response.
    Synchronous endpoints run on a pooled thread. In FastAPI the other parameters are its own:
    dependencies, path and query parameters.
    """

    @functools.wraps(view)
    async def serve(request: Request, **values: Any) -> Any:
        begun = Begun(described(view, (request,), values), None)
        try:
            await begun.begin(request.scope, request.receive)
        except StepAside as aside:
            return aside.response
        return BegunResponse(begun)

    serve.__signature__ = _without_stream(view)  # type: ignore[attr-defined]
    return serve  # type: ignore[return-value]


def _without_stream(view: Callable[..., Any]) -> inspect.Signature:
    """What FastAPI is to see: the request, and all but the stream, which is ours to give."""
    signature = inspect.signature(view, eval_str=True)
    names = list(signature.parameters)
    if len(names) < 2:
        raise ProducerError(f"a live endpoint takes (request, stream, ...), but {view!r} takes {signature}")
    parameters = [
        parameter.replace(annotation=Request) if name == names[0] else parameter
        for name, parameter in signature.parameters.items()
        if name != names[1]
    ]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
