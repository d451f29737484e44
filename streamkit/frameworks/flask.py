"""Flask: views that return descriptions, and live views.

    kit = StreamKit(app)                      # or StreamKit().init_app(app)

    @app.get("/ticks")
    @live
    def ticks(stream):
        stream.headers["Content-Type"] = "text/event-stream"
        for n in range(100):
            stream.write(f"data: {n}\\n\\n")

Options stand in `app.config["STREAMKIT"]`. The request's contexts live until the stream has ended: its
`teardown_request` and `teardown_appcontext` functions run then, once, with the producer's error if it
had one. The price: a producer that is a function (a live view is one) runs on a thread of its own, so
what belongs to one thread, as a plain `sqlite3` connection does, has to be opened and closed in it.

Rule: errors before the first write are raised inside the view, where Flask's own handlers find them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Any, TypeVar

from ._missing import missing
from ._session import watched

try:
    import flask
except ImportError as error:
    raise missing("flask", error) from error

from .. import wsgi
from ..core.live import described, is_async_view
from ..core.request import KEY
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..engines.ending import forget
from ..errors import ProducerError
from ..options import Options
from ..templates import TemplateResponse
from ..types import Environ, StartResponse, WSGIApp
from ._flask_contexts import CONTEXT, PRESERVE, Kept, Producer, request_context
from ._flask_templates import FlaskTemplates, add_tags

__all__ = ["StreamKit", "live", "respond"]

View = TypeVar("View", bound=Callable[..., Any])

_CONFIG = "streamkit.config"  # what `app.config["STREAMKIT"]` was, and the options made of it


class StreamKit:
    """The extension: `StreamKit(app, options)`, or `init_app` later.

    Wraps `app.wsgi_app`, and lets views return descriptions as they are. `options` go over those
    in `app.config["STREAMKIT"]`. Its `templates` send the pages of the current app in pieces:
    `kit.templates.chunked("page.html", albums=albums)`. Raises `OptionsError`.
    """

    def __init__(
        self, app: flask.Flask | None = None, options: Options | Mapping[str, Any] | None = None
    ) -> None:
        self._options = options
        self.templates = FlaskTemplates()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask, options: Options | Mapping[str, Any] | None = None) -> None:
        """Set this app up."""
        chosen = Options.of(app.config.get("STREAMKIT"), {})
        for more in (self._options, options):
            if more is not None:
                chosen = chosen.merged(Options.of(more, {}))
        app.extensions["streamkit"] = chosen
        wrapped: Any = wsgi.StreamingMiddleware(_apart(app.wsgi_app), chosen)
        app.wsgi_app = wrapped  # type: ignore[method-assign]
        app.dispatch_request = _beginning(app.dispatch_request)  # type: ignore[method-assign]
        responses: Any = app.response_class
        app.response_class = _streaming(responses)
        add_tags(app)


def _apart(app: Any) -> WSGIApp:
    """Serve each request in a context of its own, which can outlive the call of the app."""

    def serve(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if PRESERVE in environ:
            return app(environ, start_response)  # type: ignore[no-any-return]
        environ[CONTEXT] = context = copy_context()
        return context.run(app, environ, start_response)

    return serve


def _beginning(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    """Begin what a view returns while its errors are still the view's."""

    def dispatch_request(*arguments: Any) -> Any:
        answer = dispatch(*arguments)
        if isinstance(answer, tuple) and answer and isinstance(answer[0], StreamingResponse):
            return (respond(answer[0]), *answer[1:])
        return respond(answer) if isinstance(answer, StreamingResponse) else answer

    return dispatch_request


class _Streaming:
    """What the app's own class of responses gets: it can be made of a description."""

    producer: Producer | None = None  # of the body, where it is one of ours

    @classmethod
    def force_type(cls, response: Any, environ: Any = None) -> Any:
        """As Werkzeug's; called for what before_request functions and error handlers return."""
        if isinstance(response, StreamingResponse):
            return respond(response)
        above: Any = super()
        return above.force_type(response, environ)

    # What these make of the whole body a stream cannot have; `stale` does it by hand.

    def add_etag(self, *args: Any, **options: Any) -> None:
        """As Werkzeug's, but nothing for a stream."""
        if self.producer is None:
            above: Any = super()
            above.add_etag(*args, **options)

    def freeze(self) -> None:
        """As Werkzeug's, but nothing for a stream."""
        if self.producer is None:
            above: Any = super()
            above.freeze()

    def make_conditional(self, *args: Any, **options: Any) -> Any:
        """As Werkzeug's, but nothing for a stream."""
        above: Any = super()
        return self if self.producer is not None else above.make_conditional(*args, **options)

    def calculate_content_length(self) -> int | None:
        """As Werkzeug's, but nothing for a stream."""
        above: Any = super()
        return None if self.producer is not None else above.calculate_content_length()

    def get_app_iter(self, environ: Environ) -> Iterable[bytes]:
        """As Werkzeug's; called when the response leaves the app, so contexts are kept from here on."""
        above: Any = super()
        body: Iterable[bytes] = above.get_app_iter(environ)
        return body if self.producer is None else Kept(self, self.producer, body, environ)


@functools.cache
def _streaming(base: Any) -> Any:
    """This class of responses, with ours over it."""
    if issubclass(base, _Streaming):
        return base
    return type(base.__name__, (_Streaming, base), {"__module__": base.__module__})


def respond(description: StreamingResponse) -> flask.Response:
    """Begin to serve a description; returns when its head is known, as a response of Flask's.

    What the producer raises until then is raised here, so that Flask's error handlers, its
    debugger and `abort(404)` do their work.
    """
    if not isinstance(description, StreamingResponse):
        raise ProducerError(f"wanted a description, as streamkit.stream() makes one, got {description!r}")
    return _begun(description, flask.request.environ)


def _begun(description: StreamingResponse, environ: Environ) -> flask.Response:
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = [status, headers]
        return None

    served, producer = copy.copy(description), Producer(awaited=description.kind.is_async)
    served.resources = (producer, *description.resources)
    if isinstance(served, TemplateResponse):
        served.beside = producer.beside
    description.begin()  # it would not know of its copy's service
    watched(served, _session())
    body: Any = wsgi.respond(served, environ, start_response, _options(environ))
    status, headers = head
    responses: Any = flask.current_app.response_class
    made = _streaming(responses)(body, status=status, headers=headers)
    if not any(name.lower() == "content-type" for name, _ in headers):
        made.headers.pop("Content-Type", None)  # Werkzeug's default; a 204 has none
    made.direct_passthrough = True  # whoever asks for its data would wait for the end
    made.producer = producer
    return made  # type: ignore[no-any-return]


def _options(environ: Environ) -> Options | None:
    """Those of the extension; without it the config, over the options of `streamkit.wrap` around the app."""
    app = flask.current_app
    if "streamkit" in app.extensions:
        return app.extensions["streamkit"]  # type: ignore[no-any-return]
    given = app.config.get("STREAMKIT")
    if given is None:
        return None
    read = app.extensions.get(_CONFIG)
    if read is None or read[0] is not given:
        read = app.extensions[_CONFIG] = (given, Options.of(given, {}))
    outer = getattr(environ.get(KEY), "options", None)
    return read[1] if outer is None else outer.merged(read[1])


def live(view: View) -> View:
    """A view that is called as `view(stream, **url_values)` and streams from its first write on.

    Until then it is an ordinary view: it may raise, `abort`, set cookies, or return a response.
    Returning without `close()` closes. HEAD runs it up to its first write, for only the view knows
    its head. Raises `ProducerError`.
    """
    is_async_view(view, "stream")

    @functools.wraps(view)
    def serve(*instance: Any, **values: Any) -> Any:
        environ = flask.request.environ
        if flask.request.method == "HEAD":
            environ = {**environ, "REQUEST_METHOD": "GET"}
        try:
            return _begun(described(view, instance, values), environ)
        except StepAside as aside:
            forget(aside)
            return aside.response

    return serve  # type: ignore[return-value]


def _session() -> Any:
    """The session, looked at in silence: its own property notes an access, and adds `Vary: Cookie`."""
    context = request_context()
    return context._session if hasattr(context, "_session") else context.session
