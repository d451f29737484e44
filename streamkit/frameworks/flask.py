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

import contextlib
import copy
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, TypeVar

from ._missing import missing
from ._session import watched

try:
    import flask
    from flask import globals as flask_globals
except ImportError as error:
    raise missing("flask", error) from error

from .. import wsgi
from ..core.live import described, is_async_view
from ..core.response import StreamingResponse
from ..core.steps import StepAside
from ..engines.ending import forget
from ..engines.line import line_of
from ..engines.pool import pool
from ..errors import ProducerError
from ..options import Options
from ..templates import TemplateResponse
from ..types import Environ, StartResponse, WSGIApp
from ._flask_templates import FlaskTemplates, add_tags

__all__ = ["StreamKit", "live", "respond"]

_LOG = logging.getLogger("streamkit.wsgi")

View = TypeVar("View", bound=Callable[..., Any])

# Where a request's own context stands in its environ.
CONTEXT = "streamkit.flask.context"

# Flask's test client in a `with` block and its debugger push the contexts again, in the caller's context.
PRESERVE = "werkzeug.debug.preserve_context"

# How long the server's thread waits, after its client has left, for a producer that has not heard of it
# yet; then that is left alone, and tears down itself.
LAST_SECONDS = 1.0

# The same where nobody else could tear down: see `_Kept`.
LAST_SECONDS_HERE = 30.0


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

    producer: _Producer | None = None  # of the body, where it is one of ours

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
        return body if self.producer is None else _Kept(self, self.producer, body, environ)


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

    served, producer = copy.copy(description), _Producer(awaited=description.kind.is_async)
    served.resources = (producer, *description.resources)
    if isinstance(served, TemplateResponse):
        served.beside = producer.beside
    description.begin()  # it would not know of its copy's service
    watched(served, _session())
    options: Options | None = flask.current_app.extensions.get("streamkit")
    body: Any = wsgi.respond(served, environ, start_response, options)
    status, headers = head
    responses: Any = flask.current_app.response_class
    made = _streaming(responses)(body, status=status, headers=headers)
    if not any(name.lower() == "content-type" for name, _ in headers):
        made.headers.pop("Content-Type", None)  # Werkzeug's default; a 204 has none
    made.direct_passthrough = True  # whoever asks for its data would wait for the end
    made.producer = producer
    return made  # type: ignore[no-any-return]


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


# ---------------------------------------------------------------- until the end


def _request_context() -> Any:
    """The innermost context of the request: Flask 3.2 has one where earlier versions have two."""
    proxy: Any = vars(flask_globals).get("request_ctx", flask_globals.app_ctx)
    return proxy._get_current_object()


def _session() -> Any:
    """The session, looked at in silence: its own property notes an access, and adds `Vary: Cookie`."""
    context = _request_context()
    return context._session if hasattr(context, "_session") else context.session


class _Producer:
    """A description's producer, seen from outside: whether it still needs the contexts, and its error.

    It stands among the resources of the description that is served, so it is told of every end. The
    deferred blocks of a page run beside it, and may outlive it when the client leaves.
    """

    def __init__(self, *, awaited: bool) -> None:
        self._awaited = awaited
        self._turn = threading.Lock()
        self._running = 0
        self._over = threading.Event()
        self._over.set()  # until it is entered: for HEAD, say, the producer never runs
        self._error: BaseException | None = None
        self._last: Callable[[BaseException | None], object] | None = None

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def __enter__(self) -> None:
        with self._turn:
            self._running += 1
            self._over.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._turn:
            self._running -= 1
            self._error = error or self._error
            if self._running:
                return
            self._over.set()
            last, error = self._last, self._error
            if last is not None:
                self._error = None
        if last is None:
            return
        if self._awaited:
            pool.submit(functools.partial(last, error))  # its loop has others to serve
        else:
            last(error)

    def beside(self, job: Callable[[], Any]) -> Callable[[], Any]:
        """What runs a job that needs the contexts too."""

        def run() -> Any:
            self.__enter__()
            try:
                return job()
            finally:
                self.__exit__(None, None, None)  # its error is the page's, or nobody's

        return run

    def after(self, last: Callable[[BaseException | None], object], seconds: float, *, here: bool) -> None:
        """Call `last(error)` once the producer has ended, or by the producer if it takes longer.

        With `here` it is called on this thread in any case.
        """
        self._over.wait(seconds)
        with self._turn:
            if not here and not self._over.is_set():
                self._last = last
                return
            error, self._error = self._error, None  # its frames hold us
        last(error)


class _Kept:
    """A body on its way to the server, for whose length the request is not torn down.

    The contexts were pushed in the context of the request; only there can they be popped. Where
    `StreamKit` has made one for this request alone, any thread can do so, and nothing is left on the
    server's, whatever happens. Elsewhere that is the context of the server's thread: there the
    contexts stay pushed until `close()`, which has to be called on the same thread.
    """

    _response: Any = None

    def __init__(self, response: Any, producer: _Producer, body: Iterable[bytes], environ: Environ) -> None:
        apart: Context | None = environ.get(CONTEXT)
        self._run: Callable[..., Any] = _call if apart is None else functools.partial(_run_in, apart)
        self._thread = threading.get_ident() if apart is None else None
        self._iterator = iter(body)
        self._producer = producer
        # Werkzeug's debugger swallows an error that comes after the head, and ends the body as a whole one.
        self._line = line_of(environ) if PRESERVE in environ else None
        self._context = _request_context()
        self._context.push()  # popped by Flask when the response has left, in place of the first
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk: bytes = self._run(next, self._iterator)
        except BaseException as ending:
            if self._producer.is_over:  # so whoever has had the last byte finds all torn down
                self.close()
            if self._line is not None and not isinstance(ending, StopIteration):
                self._line.cut()
            raise
        return chunk

    def close(self) -> None:
        """The body is over: close it, then the contexts, when the producer needs them no more."""
        response, self._response = self._response, None
        if response is None:
            return
        here = self._thread is not None
        try:
            self._run(response.close)
        except Exception:  # a whole body is not to be spoilt by it
            _LOG.exception("a call_on_close function failed at the end of a stream")
        finally:
            seconds = LAST_SECONDS_HERE if here else LAST_SECONDS
            self._producer.after(self._tear_down, seconds, here=here)

    def _tear_down(self, error: BaseException | None) -> None:
        if self._thread not in (None, threading.get_ident()):
            _LOG.error(
                "a body was closed by another thread than its server's, so its request cannot be torn down: "
                "use StreamKit(app)"
            )
            return
        try:
            self._run(self._context.pop, error)
        except Exception:
            _LOG.exception("a teardown function failed at the end of a stream")

    def __del__(self) -> None:
        if self._response is None:
            return
        # The server has dropped it without a word.
        if self._thread == threading.get_ident():
            self.close()
        else:
            with contextlib.suppress(RuntimeError):  # at the interpreter's end there are no new threads
                pool.submit(self.close)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _run_in(context: Context, function: Callable[..., Any], *arguments: Any) -> Any:
    """As `context.run`, also for a layer that reads the body while the app is still on the stack."""
    try:
        context.run(_nothing)
    except RuntimeError:  # "cannot enter context: ... is already entered": it is the current one
        return function(*arguments)
    return context.run(function, *arguments)


def _nothing() -> None:
    """Tells whether a context can be entered."""
