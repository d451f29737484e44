"""The contexts of a Flask request, which live until its stream has ended.

Rule: they are popped once, in the context in which they were pushed, with the producer's error if
it had one.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from types import TracebackType
from typing import Any

from flask import globals as flask_globals

from ..engines.line import line_of
from ..engines.pool import pool
from ..types import Environ

_LOG = logging.getLogger("streamkit.wsgi")

# Where a request's own context stands in its environ.
CONTEXT = "streamkit.flask.context"

# Flask's test client in a `with` block and its debugger push the contexts again, in the caller's context.
PRESERVE = "werkzeug.debug.preserve_context"

# How long the server's thread waits, after its client has left, for a producer that has not heard of it
# yet; then that is left alone, and tears down itself.
LAST_SECONDS = 1.0

# The same where nobody else could tear down: see `Kept`.
LAST_SECONDS_HERE = 30.0


def request_context() -> Any:
    """The innermost context of the request: Flask 3.2 has one where earlier versions have two."""
    proxy: Any = vars(flask_globals).get("request_ctx", flask_globals.app_ctx)
    return proxy._get_current_object()


class Producer:
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
        if not self._awaited:
            last(error)
            return
        try:
            pool.submit(functools.partial(last, error))  # its loop has others to serve
        except RuntimeError:  # the machine has no thread for it, and there is no second time
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


class Kept:
    """A body on its way to the server, for whose length the request is not torn down.

    The contexts were pushed in the context of the request; only there can they be popped. Where
    `StreamKit` has made one for this request alone, any thread can do so, and nothing is left on the
    server's, whatever happens. Elsewhere that is the context of the server's thread: there the
    contexts stay pushed until `close()`, which has to be called on the same thread.
    """

    _response: Any = None

    def __init__(self, response: Any, producer: Producer, body: Iterable[bytes], environ: Environ) -> None:
        apart: Context | None = environ.get(CONTEXT)
        self._run: Callable[..., Any] = _call if apart is None else functools.partial(_run_in, apart)
        self._thread = threading.get_ident() if apart is None else None
        self._iterator = iter(body)
        self._producer = producer
        # Werkzeug's debugger swallows an error that comes after the head, and ends the body as a whole one.
        self._line = line_of(environ) if PRESERVE in environ else None
        self._context = request_context()
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
