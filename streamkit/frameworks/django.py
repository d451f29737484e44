"""Django: a middleware, `respond`, and live views, under WSGI and ASGI.

    MIDDLEWARE = ["streamkit.frameworks.django.StreamKitMiddleware", ...]      # first
    STREAMKIT = {"heartbeat": 15}

    @live
    def ticks(request, stream):
        stream.headers["Content-Type"] = "text/event-stream"
        stream.write("data: 1\\n\\n")

    def export(request):
        return respond(request, streamkit.stream(rows, content_type="text/csv"))

Rule: Django gets a `StreamingHttpResponse` whose head is known, and whose body is made piece by
piece elsewhere; a producer's database connections are closed on the thread that opened them, when it ends.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from ._missing import missing

try:
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse, HttpResponseBase
except ImportError as error:
    raise missing("django", error) from error

from asgiref.sync import (
    AsyncToSync,
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)

from .. import wsgi
from ..core.live import described, is_async_view
from ..core.request import KEY
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..engines.registry import signals
from ..errors import ClientDisconnected
from ..options import Options
from ..templates import TemplateResponse
from ..unbuffer.stripping import stripped
from ._asgi import CLIENT_LEFT, Begun, is_on_loop, own
from ._django_responses import IDENTITY, AsyncBody, LaterHere, LaterOnLoop, Streaming
from ._django_templates import DjangoTemplates
from ._django_threads import (
    Connections,
    OwnThread,
    Surroundings,
    apart,
    beside,
    close_pooled,
    closing_hooks,
    is_pooled,
    then_closed,
    untied,
)
from ._session import watched

__all__ = ["StreamKitMiddleware", "Templates", "live", "respond"]

View = TypeVar("View", bound=Callable[..., Any])
GetResponse = Callable[[HttpRequest], Any]

_END: Any = object()


# ---------------------------------------------------------------- the middleware


class StreamKitMiddleware:
    """Give every stream its last care, inside Django's own chain; options in `settings.STREAMKIT`.

    Synchronous and asynchronous, as the chain around it is. Under ASGI a `StreamingHttpResponse` of
    an ordinary iterator goes out piece by piece too; Django alone would read it whole first.
    Raises `OptionsError` at start.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.options = _settings() or Options()
        # Django makes the innermost first: all that stands below is there by now.
        self._get_response: GetResponse = stripped(get_response, self.options.strip, None, owner=self)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self._hook_in()
        self._is_first = True
        self._is_outermost = settings.MIDDLEWARE[:1] == [f"{type(self).__module__}.{type(self).__qualname__}"]

    def _hook_in(self) -> None:
        if self.options.signals:
            signals.hook_in()

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_first:  # by now the server's handlers stand, whatever way it was started
            self._is_first = False
            self._hook_in()
        _carry(request)
        if self._is_async:
            return self._call_async(request)
        try:
            response = _without_mark(self._get_response(request))
            # Below synchronous middleware the chain is synchronous, under ASGI too; what stands above this
            # one wants an ordinary iterator then.
            return _in_pieces(request, response) if self._is_outermost else response
        finally:
            close_pooled()  # with `engine="thread"` all of Django runs on one of our threads

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        return _in_pieces(request, _without_mark(await self._get_response(request)))


def _carry(request: HttpRequest) -> None:
    """The stream of `streamkit.wrap` stands in `request.META` under ASGI as it does under WSGI."""
    scope = getattr(request, "scope", None)  # Django copies nothing of it but the headers
    if scope is not None and KEY in scope:
        request.META[KEY] = scope[KEY]


def _in_pieces(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """What Django would read whole under ASGI."""
    if response.streaming and not response.is_async and hasattr(request, "scope"):
        response.streaming_content = _one_by_one(iter(response.streaming_content))
    return response


def _without_mark(response: HttpResponseBase) -> HttpResponseBase:
    """Take off what has kept compressing middleware away: RFC 9110 wants no `identity` there."""
    if isinstance(response, Streaming) and response.headers.get("Content-Encoding") == IDENTITY:
        del response.headers["Content-Encoding"]
    return response


async def _one_by_one(iterator: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What Django reads whole, in pieces; on the request's own thread, which has its connections."""
    advance = sync_to_async(lambda: next(iterator, _END))
    while (chunk := await advance()) is not _END:
        yield chunk


_last_settings: tuple[Any, Options] = (None, Options())


def _settings() -> Options | None:
    """`settings.STREAMKIT`, read once; None without it."""
    global _last_settings
    given = getattr(settings, "STREAMKIT", None)
    if given is None:
        return None
    if _last_settings[0] is not given:
        _last_settings = (given, Options.of(given, {}))
    return _last_settings[1]


def _options(around: Any) -> Options:
    """The settings over the options of the app that `streamkit.wrap` made of Django, if it did."""
    outer, chosen = getattr(around.get(KEY), "options", None), _settings()
    if outer is None:
        return chosen or Options()
    return outer if chosen is None else outer.merged(chosen)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- serving


def _cared_for(
    request: HttpRequest, description: object, around: Any, *, own_thread: bool
) -> tuple[StreamingResponse, Options]:
    """A copy of the description that minds what Django keeps for each thread; and its options, whole."""
    served = own(description)
    options, served.options = served.options_over(_options(around)), None
    if hasattr(request, "session"):
        request.session = watched(served, request.session)
    if isinstance(served, TemplateResponse):
        served.captured = untied(served.captured)
    served.beside = served.beside or beside()
    cares: list[Any] = [Surroundings()]
    if not served.kind.is_async:
        cares.append(Connections())
    elif own_thread:
        cares.append(OwnThread())
    options = Options.of(options, closing_hooks(options.on_error, options.on_finish, loops=served.loop))
    served.callback, served.on_error = then_closed(served.callback), then_closed(served.on_error)
    served.resources = (*cares, *served.resources)
    return served, options


def respond(request: HttpRequest, description: StreamingResponse) -> HttpResponseBase:
    """Begin to serve a description; returns when its head is known, as a response of Django's.

    What the producer raises until then is raised here. An asynchronous view may await the response,
    to have it raised there; when it returns the response as it is, Django has it begin, after the view. Under
    ASGI Django does so also with what a synchronous live view returns in place of a stream, which cannot
    catch what the producer raises.
    """
    is_asgi = hasattr(request, "scope")
    # A synchronous live view runs on a thread that no loop waits for: a loop of its own would end with it.
    if not is_on_loop() and not (is_asgi and is_pooled()):
        begin: Any = async_to_sync(_begun) if is_asgi else _begun_here
        return begin(request, description)
    served = own(description)
    later = LaterOnLoop if is_asgi else LaterHere
    return later(served, functools.partial(_begun if is_asgi else _begun_here, request, served))


class Templates(DjangoTemplates):
    __doc__ = DjangoTemplates.__doc__

    def _respond(self, request: HttpRequest, page: StreamingResponse) -> HttpResponseBase:
        return respond(request, page)


def live(view: View) -> View:
    """A view that is called as `view(request, stream, **url_values)` and streams from its first write on.

    A method of a class-based view, called as `get(self, request, stream)`, can be one.

    Until then it is an ordinary view: it may raise `Http404`, or return a response. Asynchronous
    views need ASGI, or run on one shared loop thread under WSGI. HEAD runs the view up to its first
    write, for only the view knows its head. Raises `ProducerError`.
    """
    if is_async_view(view, "request", "stream"):

        @functools.wraps(view)
        async def serve_async(*args: Any, **values: Any) -> Any:
            request, description = _described(view, args, values)
            # On the server's own thread under WSGI: the loop of this view ends with it.
            begin = _begun if hasattr(request, "scope") else sync_to_async(_begun_here)
            try:
                return await begin(request, description, runs_for_head=True)
            except StepAside as aside:
                return aside.response

        return serve_async  # type: ignore[return-value]

    @functools.wraps(view)
    def serve(*args: Any, **values: Any) -> Any:
        request, description = _described(view, args, values)
        begin: Any = async_to_sync(_begun) if hasattr(request, "scope") else _begun_here
        try:
            return begin(request, description, runs_for_head=True)
        except StepAside as aside:
            return aside.response

    return serve  # type: ignore[return-value]


def _described(
    view: Callable[..., Any], given: tuple[Any, ...], values: dict[str, Any]
) -> tuple[HttpRequest, StreamingResponse]:
    """The request, and the view as a producer; values of the URL without a name come after the stream."""
    if "request" in values:  # given by its name, as it may be to any view
        given = (*given, values.pop("request"))
    at = 0 if hasattr(given[0], "META") else 1  # a method has its object before the request
    first, args = given[: at + 1], given[at + 1 :]
    if not args:
        return first[at], described(view, first, values)
    if is_async_view(view):

        async def run_async(stream: Any, **values: Any) -> Any:
            return await view(*first, stream, *args, **values)

        return first[at], described(run_async, (), values)
    return first[at], described(lambda stream, **values: view(*first, stream, *args, **values), (), values)


def _begun_here(
    request: HttpRequest, description: StreamingResponse, *, runs_for_head: bool = False
) -> HttpResponseBase:
    """Begin under WSGI."""
    environ = request.META
    head: list[Any] = []
    if runs_for_head and request.method == "HEAD":
        environ = {**environ, "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
    served, options = _cared_for(request, description, environ, own_thread=True)

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = [status, headers]

    try:
        body: Any = apart().run(wsgi.respond, served, environ, start_response, options)
    except ClientDisconnected:
        return HttpResponse(status=CLIENT_LEFT)
    if environ is not request.META:
        body.close()
        body = ()
    return Streaming(body, int(head[0][:3]), head[1], options)


async def _begun(
    request: HttpRequest, description: StreamingResponse, *, runs_for_head: bool = False
) -> HttpResponseBase:
    """Begin under ASGI."""
    has_thread_above = getattr(AsyncToSync.executors, "current", None) is not None
    is_test = asyncio.get_running_loop() in AsyncToSync.loop_thread_executors
    # Asynchronous throughout, the request has a thread of its own, which is free, and ends with it.
    is_free = is_test or not has_thread_above
    served, options = _cared_for(request, description, request.scope, own_thread=not is_free)
    begun = Begun(served, options, None if is_free else apart())
    if not await begun.begin(request.scope, _never, runs_for_head=runs_for_head):
        return HttpResponse(status=CLIENT_LEFT)
    return Streaming(AsyncBody(begun), begun.status, begun.headers, options)


async def _never() -> dict[str, Any]:
    """Django listens for the client's leave itself, and closes the response then."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}
