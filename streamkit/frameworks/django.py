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
import copy
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from ._missing import missing

try:
    from django.conf import settings
    from django.db import connections
    from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
except ImportError as error:
    raise missing("django", error) from error

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction

from .. import wsgi
from ..core.live import described
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..errors import ProducerError
from ..options import Options
from ._asgi import Begun

__all__ = ["StreamKitMiddleware", "live", "respond"]

View = TypeVar("View", bound=Callable[..., Any])
GetResponse = Callable[[HttpRequest], Any]

_IDENTITY = "identity"  # a Content-Encoding that makes compressing middleware step aside


class StreamKitMiddleware:
    """Give every stream its head's finish, inside Django's own chain; options in `settings.STREAMKIT`.

    Synchronous and asynchronous, as the chain around it is. Raises `OptionsError` at start.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        self.options = _options()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._call_async(request)
        return _without_mark(self._get_response(request))

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        return _without_mark(await self._get_response(request))


def _options() -> Options:
    return Options.of(getattr(settings, "STREAMKIT", None), {})


def _without_mark(response: HttpResponseBase) -> HttpResponseBase:
    """Take off what has kept compressing middleware away: RFC 9110 wants no `identity` there."""
    if isinstance(response, _Streaming) and response.headers.get("Content-Encoding") == _IDENTITY:
        del response.headers["Content-Encoding"]
    return response


class _Streaming(StreamingHttpResponse):
    """A response whose body is still being made."""

    def __init__(self, body: Any, status: int, headers: Iterable[tuple[str, str]]) -> None:
        super().__init__(body, status=status)
        del self.headers["Content-Type"]  # ours is the one that was committed
        cookies = []
        for name, value in headers:
            if name.lower() == "set-cookie":
                cookies.append(value)
            elif name in self.headers:
                self.headers[name] = f"{self.headers[name]}, {value}"
            else:
                self.headers[name] = value
        for cookie in cookies:
            self.cookies.load(cookie)
        if "Content-Encoding" not in self.headers:
            self.headers["Content-Encoding"] = _IDENTITY


class _Connections:
    """Entered by a producer: its own database connections end with it, on its thread."""

    def __enter__(self) -> None:
        """Nothing is opened here: Django connects when it is asked something."""

    def __exit__(self, *exc_info: object) -> None:
        for connection in connections.all(initialized_only=True):
            connection.close()


def _with_connections(description: StreamingResponse) -> StreamingResponse:
    served = copy.copy(description)
    served.resources = (_Connections(), *description.resources)
    return served


def respond(request: HttpRequest, description: StreamingResponse) -> HttpResponseBase:
    """Begin to serve a description; returns when its head is known, as a response of Django's.

    What the producer raises until then is raised here. In an asynchronous view, await
    `respond_async`; a synchronous view may call this under ASGI too.
    """
    served = _checked(description)
    scope = getattr(request, "scope", None)
    if scope is not None:
        begun: Any = async_to_sync(_begun)
        return begun(request, served)
    if description.kind.is_iterable and not description.kind.is_async:
        served = copy.copy(description)  # pulled by the server's own thread, whose connections are Django's
    else:
        served = _with_connections(description)
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = [status, headers]
        return None

    body = wsgi.respond(served, request.META, start_response, _options())
    return _Streaming(_Body(body), int(head[0][:3]), head[1])


async def respond_async(request: HttpRequest, description: StreamingResponse) -> HttpResponseBase:
    """`respond` for asynchronous views, under ASGI."""
    return await _begun(request, _checked(description))


def _checked(description: object) -> StreamingResponse:
    if not isinstance(description, StreamingResponse):
        raise ProducerError(f"wanted a description, as streamkit.stream() makes one, got {description!r}")
    return description


async def _begun(request: HttpRequest, description: StreamingResponse) -> HttpResponseBase:
    served = description if description.kind.is_async else _with_connections(description)
    begun = Begun(served, _options())
    await begun.begin(request.scope, _never)
    return _Streaming(_AsyncBody(begun), begun.status, begun.headers)


async def _never() -> dict[str, Any]:
    """Django listens for the client's leave itself, and closes the response then."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


class _Body:
    """The body under WSGI: Django closes it with the response."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        self._iterator = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


class _AsyncBody:
    """The body under ASGI."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._begun.chunks()


def live(view: View) -> View:
    """A view that is called as `view(request, stream, **url_values)` and streams from its first write on.

    Until then it is an ordinary view: it may raise `Http404`, or return a response. Asynchronous
    views need ASGI, or run on one shared loop thread under WSGI.
    """
    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def serve_async(request: HttpRequest, *args: Any, **values: Any) -> Any:
            try:
                description = described(view, (request,), values)
                if hasattr(request, "scope"):
                    return await _begun(request, description)
                # Under WSGI Django runs this on a loop of its own that ends with the view.
                return await asyncio.to_thread(respond, request, description)
            except StepAside as aside:
                return aside.response

        return serve_async  # type: ignore[return-value]

    @functools.wraps(view)
    def serve(request: HttpRequest, *args: Any, **values: Any) -> Any:
        try:
            return respond(request, described(view, (request,), values))
        except StepAside as aside:
            return aside.response

    return serve  # type: ignore[return-value]
