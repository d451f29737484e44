"""FastAPI: all of the room for Starlette, and endpoints that return a description as it is.

    app = FastAPI()
    app.router.route_class = StreamKitRoute        # or APIRouter(route_class=StreamKitRoute)

    @app.get("/export")
    def export(rows: Rows):
        return streamkit.csv_rows(rows, "rows.csv")

FastAPI makes JSON of whatever is no response of Starlette's, and asks nobody: without this class
of routes, an endpoint returns `respond(description)`.

Rule: an endpoint keeps its parameters, so its dependencies and its OpenAPI are FastAPI's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ._missing import missing

try:
    from fastapi.routing import APIRoute
except ImportError as error:
    raise missing("fastapi", error) from error

from starlette.responses import Response

from ..core.response import StreamingResponse
from .starlette import EventStreamResponse, Templates, evaluated, function_of, live, names_around, respond

__all__ = ["EventStreamResponse", "StreamKitRoute", "Templates", "live", "respond"]

_OURS = "_streamkit_responds"


class StreamKitRoute(APIRoute):
    """A class of routes whose endpoints may return a description, and say so in their annotation."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        super().__init__(path, _responding(endpoint), **given)


def _responding(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, whose description becomes a response; what yields makes one of its own."""
    is_function = inspect.isroutine(endpoint) or isinstance(endpoint, functools.partial)
    kind = endpoint if is_function else type(endpoint).__call__
    is_generator = inspect.isgeneratorfunction(kind) or inspect.isasyncgenfunction(kind)
    if is_generator or hasattr(endpoint, _OURS):  # a router that is included makes its routes anew
        return endpoint
    serve: Any
    # A decorator may be synchronous around what is not: FastAPI awaits what such a one returns.
    if any(map(inspect.iscoroutinefunction, (kind, function_of(endpoint)))):

        async def serve(*args: Any, **values: Any) -> Any:
            answer = endpoint(*args, **values)
            return _response(await answer if inspect.isawaitable(answer) else answer)

    else:

        def serve(*args: Any, **values: Any) -> Any:
            return _response(endpoint(*args, **values))

    functools.update_wrapper(serve, endpoint)
    serve.__signature__ = _signature(endpoint)
    setattr(serve, _OURS, True)
    return serve  # type: ignore[no-any-return]


def _response(answer: Any) -> Any:
    return respond(answer) if isinstance(answer, StreamingResponse) else answer


def _signature(endpoint: Callable[..., Any]) -> inspect.Signature:
    """The endpoint's own; where it returns a description, FastAPI is to see the response.

    Annotations in quotes are evaluated here: FastAPI before 0.123.5 does it among this module's names.
    """
    signature = inspect.signature(endpoint)
    names = names_around(endpoint)
    parameters = signature.parameters.values()
    given = [one.replace(annotation=evaluated(one.annotation, names)) for one in parameters]
    returned = evaluated(signature.return_annotation, names)
    if isinstance(returned, type) and issubclass(returned, StreamingResponse):
        returned = Response
    return signature.replace(parameters=given, return_annotation=returned)
