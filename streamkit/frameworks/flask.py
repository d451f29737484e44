"""Flask: views that return descriptions, and live views.

    kit = StreamKit(app)                      # or StreamKit().init_app(app)

    @app.get("/ticks")
    @live
    def ticks(stream):
        stream.headers["Content-Type"] = "text/event-stream"
        for n in range(100):
            stream.write(f"data: {n}\\n\\n")

Options stand in `app.config["STREAMKIT"]`. The request's contexts live until the stream has ended: its
`teardown_request` and `teardown_appcontext` functions run then, once, on the server's thread.

Rule: errors before the first write are raised inside the view, where Flask's own handlers find them.
"""

from __future__ import annotations

import copy
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ._missing import missing

try:
    import flask
    from flask.globals import request_ctx
except ImportError as error:
    raise missing("flask", error) from error

from .. import wsgi
from ..core.live import described
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..errors import ProducerError
from ..options import Options

__all__ = ["StreamKit", "live", "respond"]

_LOG = logging.getLogger("streamkit.wsgi")

View = TypeVar("View", bound=Callable[..., Any])

# How long the server's thread waits, after its client has left, for a producer that still holds the
# request's contexts; a plain generator would hold the thread as long as it likes.
LAST_SECONDS = 30.0


class StreamKit:
    """The extension: `StreamKit(app, options)`, or `init_app` later.

    Wraps `app.wsgi_app`, and lets views return descriptions as they are. `options` go over those
    in `app.config["STREAMKIT"]`. Raises `OptionsError`.
    """

    def __init__(
        self, app: flask.Flask | None = None, options: Options | Mapping[str, Any] | None = None
    ) -> None:
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask, options: Options | Mapping[str, Any] | None = None) -> None:
        """Set this app up."""
        chosen = Options.of(app.config.get("STREAMKIT"), {})
        for more in (self._options, options):
            if more is not None:
                chosen = chosen.merged(Options.of(more, {}))
        app.extensions["streamkit"] = chosen
        inner: Any = app.wsgi_app
        wrapped: Any = wsgi.StreamingMiddleware(inner, chosen)
        app.wsgi_app = wrapped  # type: ignore[method-assign]
        app.response_class = _response_class(app.response_class)


def _response_class(base: type[flask.Response]) -> type[flask.Response]:
    """The app's own class of responses, which makes one of a description too."""

    def force_type(cls: Any, response: Any, environ: Any = None) -> Any:
        if isinstance(response, StreamingResponse):
            return respond(response)
        return super(made, cls).force_type(response, environ)

    made: Any = type(base.__name__, (base,), {"force_type": classmethod(force_type)})
    return made  # type: ignore[no-any-return]


def respond(description: StreamingResponse) -> flask.Response:
    """Begin to serve a description; returns when its head is known, as a response of Flask's.

    What the producer raises until then is raised here, so that Flask's error handlers, its
    debugger and `abort(404)` do their work.
    """
    if not isinstance(description, StreamingResponse):
        raise ProducerError(f"wanted a description, as streamkit.stream() makes one, got {description!r}")
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = [status, headers]
        return None

    ended = threading.Event()
    served = _until_the_end(description, ended)
    body = wsgi.respond(served, flask.request.environ, start_response, _options())
    status, headers = head
    made = flask.current_app.response_class(_Body(body, ended), status=status, headers=headers)
    made.direct_passthrough = True  # whoever asks for its data would wait for the end
    return made


def _options() -> Options | None:
    chosen: Options | None = flask.current_app.extensions.get("streamkit")
    return chosen


def _until_the_end(description: StreamingResponse, ended: threading.Event) -> StreamingResponse:
    """The description, whose producer says when it is over."""
    served = copy.copy(description)
    served.resources = (_Told(ended), *description.resources)
    return served


class _Told:
    """Entered by a producer, so that its end is known whatever way it takes."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended
        ended.set()  # until it is entered: for HEAD, say, the producer never runs

    def __enter__(self) -> None:
        self._ended.clear()

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()


class _Body:
    """The body, for whose length the request's contexts stay pushed on the server's thread."""

    def __init__(self, body: Iterable[bytes], ended: threading.Event) -> None:
        self._body, self._ended = body, ended
        self._iterator = iter(body)
        proxy: Any = request_ctx
        self._context: Any = proxy._get_current_object()
        self._context.push()  # popped by Flask when the view's response leaves, instead of the first
        self._thread = threading.get_ident()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        """The body is over: close it, then the contexts, when the producer needs them no more."""
        context, self._context = self._context, None
        if context is None:
            return
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._ended.wait(LAST_SECONDS)
            self._pop(context)

    def _pop(self, context: Any) -> None:
        if self._thread != threading.get_ident():
            _LOG.error("a response was closed by another thread than its server's: its contexts stay pushed")
            return
        try:
            context.pop()
        except Exception:
            _LOG.exception("a teardown function failed, or the server has left the request's own context")


def live(view: View) -> View:
    """A view that is called as `view(stream, **url_values)` and streams from its first write on.

    Until then it is an ordinary view: it may raise, `abort`, set cookies, or return a response.
    Returning without `close()` closes.
    """

    @functools.wraps(view)
    def serve(**values: Any) -> Any:
        try:
            return respond(described(view, (), values))
        except StepAside as aside:
            return aside.response

    return serve  # type: ignore[return-value]
