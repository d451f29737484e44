"""Starlette and FastAPI: endpoints that return descriptions, and live endpoints.

    @app.get("/ticks")                      # FastAPI; or Route("/ticks", ticks)
    @live
    async def ticks(request, stream):
        await stream.write("tick\\n")

A description may also be returned as it is from a Starlette endpoint: it is an ASGI application.
FastAPI wants `respond(description)`. Either way what is raised before the first write is the
endpoint's, and exception handlers see it.

Rule: middleware sees an ordinary response, whose body comes piece by piece.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any, TypeVar, get_type_hints

from ._missing import missing

try:
    from starlette.requests import Request
    from starlette.responses import Response
except ImportError as error:
    raise missing("starlette", error) from error

from ..core.headers import Pairs
from ..core.live import described, is_async_view
from ..core.producers import kind_of
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..engines.messages import encoded
from ..errors import ProducerError
from ..options import Options
from ..sse import event_stream
from ..templates import TemplateResponse
from ..templates import Templates as PlainTemplates
from ..types import Receive, Scope, Send
from ._asgi import CLIENT_LEFT, Begun, LastOfProducer, decoded, is_on_loop, own, shared
from ._session import watched
from ._templates import split

__all__ = ["EventStreamResponse", "Templates", "live", "respond"]

View = TypeVar("View", bound=Callable[..., Any])

_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Streaming(Response):
    """A response whose body is made by a producer; its head may be changed as that of any other."""

    def __init__(self, status: int, headers: Pairs) -> None:
        self.status_code = status
        self.raw_headers = encoded(headers)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class _Begun(_Streaming):
    """A response whose body is being made already."""

    def __init__(self, begun: Begun, last: LastOfProducer) -> None:
        super().__init__(begun.status, begun.headers)
        self._begun, self._last = begun, last

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            await self._begun.send_body(send)
        finally:
            await self._last.wait()

    def __del__(self) -> None:
        self._begun.abandon()  # something else was sent in its place


class _Deferred(_Streaming):
    """A description that is begun when the response is sent: where there is no request at hand."""

    def __init__(self, description: StreamingResponse, context: Context | None) -> None:
        super().__init__(description.status, description.headers)
        self._description = description
        self._context = context

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = self._description
        served.status = self.status_code
        served.describe_head(decoded(self.raw_headers))
        if "session" in scope:
            scope["session"] = watched(served, scope["session"])
        last = LastOfProducer(served)
        try:
            if self._context is None:
                await served(scope, receive, send)
            else:
                await self._stream_in(self._context, served, scope, receive, send)
        finally:
            await last.wait()

    @staticmethod
    async def _stream_in(
        context: Context, served: StreamingResponse, scope: Scope, receive: Receive, send: Send
    ) -> None:
        begun = Begun(served, None, context)
        if await begun.begin(scope, receive):
            try:
                await begun.send_start(send)
                await begun.send_body(send)
            finally:
                await begun.end()


class EventStreamResponse(Response):
    """`response_class=EventStreamResponse`: OpenAPI then says `text/event-stream`.

    FastAPI makes it of what an endpoint yields: then each item is one event, as in
    `streamkit.event_stream(generator)`. Text is a body that is there already. Raises `ProducerError`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: Any = None,
    ) -> None:
        is_whole = content is None or isinstance(content, (str, bytes, memoryview))
        if not is_whole and (isinstance(content, Mapping) or not kind_of(content).is_iterable):
            raise ProducerError(
                f"wanted a generator, or text, for an event stream, got {type(content).__name__}: "
                "an endpoint that has a description returns respond(description)"
            )
        super().__init__(content if is_whole else None, status_code, headers, media_type, background)
        self._items = None if is_whole else content
        if not is_whole:
            del self.headers["content-length"], self.headers["content-type"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._items is None:
            await super().__call__(scope, receive, send)
            return
        headers = decoded(self.raw_headers)
        response = respond(event_stream(self._items, status=self.status_code, headers=headers))
        response.background = self.background
        await response(scope, receive, send)


def respond(description: StreamingResponse) -> Response:
    """A description as a response of Starlette's, for endpoints that must return one (FastAPI).

    The producer has the context variables of the endpoint, also of a synchronous one, which
    Starlette runs on a worker thread in a context of its own.
    """
    return _Deferred(own(description), None if is_on_loop() else copy_context())


class Templates:
    """`streamkit.Templates` of a `Jinja2Templates` of Starlette's: `Templates(Jinja2Templates("pages"))`.

    Templates have the context that its `TemplateResponse` gives: the request, that of the context
    processors, and `url_for`. `options` go over those of the app. Raises `ProducerError`.
    """

    def __init__(self, templates: Any, options: Options | Mapping[str, Any] | None = None) -> None:
        environment = getattr(templates, "env", None)
        if environment is None:
            raise ProducerError(f"wanted starlette.templating.Jinja2Templates, got {templates!r}")
        self._processors = templates.context_processors
        self._templates = PlainTemplates(environment, options)

    def chunked(self, request: Request, name: Any = None, **wishes_and_context: Any) -> Response:
        """Respond with a page that is sent while it is rendered; as `streamkit.Templates.chunked`."""
        return respond(self._described("chunked", request, name, wishes_and_context))

    def view(self, request: Request, name: Any = None, **wishes_and_context: Any) -> Response:
        """Respond with a page that is sent whole; as `streamkit.Templates.view`."""
        return respond(self._described("view", request, name, wishes_and_context))

    def fragment(self, request: Request, name: Any, **context: Any) -> Any:
        """Render a template whole, as `Markup`, to be written by an error hook; as `Templates.fragment`."""
        return self._templates.fragment(name, **self._context(request, context))

    no_chunk = staticmethod(PlainTemplates.no_chunk)

    def _described(self, way: str, request: Request, name: Any, given: dict[str, Any]) -> TemplateResponse:
        wishes, context = split(given)
        described: Any = getattr(self._templates, way)
        return described(name, context=self._context(request, context), **wishes)  # type: ignore[no-any-return]

    def _context(self, request: Request, context: dict[str, Any]) -> dict[str, Any]:
        context.setdefault("request", request)
        for processor in self._processors:
            context.update(processor(request))
        return context


def live(view: View) -> View:
    """An endpoint that is called as `view(request, stream, **values)` and streams from its first write on.

    Until then it is an ordinary endpoint: it may raise `HTTPException`, or return a response.
    Synchronous endpoints run on a pooled thread. HEAD runs the endpoint up to its first write, for
    only the endpoint knows its head. In Starlette the values are those of the path, as far as the endpoint
    names them, or takes any. In FastAPI the other parameters are its own: dependencies, path and query
    parameters. Raises `ProducerError`.
    """
    is_async_view(view, "request", "stream")
    signature = inspect.signature(view)
    is_method = next(iter(signature.parameters)) == "self"
    name_of_request = list(signature.parameters)[is_method]
    takes = _taken_of_path(signature, 2 + is_method)

    @functools.wraps(view)
    async def serve(*before: Any, **values: Any) -> Any:
        if name_of_request in values:  # as FastAPI gives it
            before = (*before, values.pop(name_of_request))
        else:
            path = before[-1].path_params.items()
            values = {**{name: value for name, value in path if takes(name)}, **values}
        request = before[-1]  # a method has its instance before it
        description = described(view, before, values)
        if "session" in request.scope:
            request.scope["session"] = watched(description, request.scope["session"])
        # The endpoint may read the request's body while its stream watches for a leave.
        request._receive, leave = shared(request.receive)
        last = LastOfProducer(description)
        begun = Begun(description, None)
        try:
            has_head = await begun.begin(request.scope, leave, runs_for_head=True)
        except StepAside as aside:
            return aside.response
        if has_head:
            return _Begun(begun, last)
        await last.wait()
        return Response(status_code=CLIENT_LEFT)

    serve.__signature__ = _without_stream(view, signature, is_method=is_method)  # type: ignore[attr-defined]
    return serve  # type: ignore[return-value]


def _taken_of_path(signature: inspect.Signature, given: int) -> Callable[[str], bool]:
    """Which values of a path the endpoint takes by name; none of its first parameters, which are `given`."""
    parameters = list(signature.parameters.values())
    ours = {parameter.name for parameter in parameters[:given]}
    if any(parameter.kind is _VAR_KEYWORD for parameter in parameters):
        return lambda name: name not in ours
    named = {parameter.name for parameter in parameters[given:] if parameter.kind in _KEYWORD}
    return named.__contains__


def _without_stream(
    view: Callable[..., Any], signature: inspect.Signature, *, is_method: bool
) -> inspect.Signature:
    """What FastAPI is to see: the request, and all but the stream, which is ours to give."""
    parameters = list(signature.parameters.values())
    instance, (request, _, *others) = parameters[:is_method], parameters[is_method:]
    names = names_around(view)
    return inspect.Signature(
        [
            *instance,
            request.replace(annotation=Request),
            *(other.replace(annotation=evaluated(other.annotation, names)) for other in others),
        ]
    )


def function_of(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The function within its decorators, within a partial one, or of an object that can be called."""
    function = inspect.unwrap(endpoint)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function if inspect.isroutine(function) else inspect.unwrap(type(function).__call__)


def names_around(endpoint: Callable[..., Any]) -> dict[str, Any]:
    """The names of the module that an endpoint stands in."""
    names: dict[str, Any] = getattr(function_of(endpoint), "__globals__", {})
    return names


def evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation itself, where it stands in quotes, or all do in its module."""
    if not isinstance(annotation, str):
        return annotation
    try:  # with the names in quotes within it: `list["Item"]`
        holder = SimpleNamespace(__annotations__={"it": annotation})
        found = get_type_hints(holder, names, include_extras=True)["it"]
    except Exception:
        return annotation  # known to type checkers only; whoever needs it says so
    return None if found is type(None) else found
