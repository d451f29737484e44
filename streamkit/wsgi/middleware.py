"""The middleware: each request gets its stream, and what does not stream passes.

Rule: an answer that is like the last one that was no stream's costs two looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

from ..core.context import unchunked
from ..core.headers import Pairs, is_streaming, value_of
from ..core.marking import USED, may_be_marked, unmarked
from ..engines.passing import begin_answer
from ..engines.registry import signals
from ..engines.write import RequestStream
from ..errors import NotAnApplication
from ..options import Options
from ..types import Environ, StartResponse, WSGIApp
from ..unbuffer.stripping import stripped
from .answer import answer_of, answered, concluded
from .foreign import is_iterable
from .whole import carry_app

# A type of body; where the head had its Content-Type, which, and where the name of its Content-Length.
_Whole: TypeAlias = "tuple[type, int, tuple[str, str] | None, int, str]"
# Of a head that is empty, or no list of pairs: `answered` says what was wanted.
_NOT_PAIRS = (LookupError, TypeError, ValueError, AttributeError)


class StreamingMiddleware:
    """Give a WSGI app its response stream, and every stream in it the same care.

    `options` is an `Options` or a mapping; keyword arguments go over it. Raises
    `OptionsError` and `NotAnApplication`.
    """

    # Whoever looks for layers asks for `__dict__`: from then on, what stands there is slow (CPython 3.11).
    __slots__ = (
        "__dict__", "__weakref__", "_app_on_worker", "_inner", "_plain_type", "_whole", "app", "options",
    )  # fmt: skip

    def __init__(
        self, app: WSGIApp, options: Options | Mapping[str, Any] | None = None, **overrides: Any
    ) -> None:
        if not callable(app):
            raise NotAnApplication(f"wanted a WSGI application, got {app!r}")
        self.app = app
        self._inner: WSGIApp = self._first
        self.options = Options.of(options, overrides)
        self._app_on_worker = self.options.engine == "thread"
        # The next answer that is no stream's is most often like the last.
        self._plain_type = ("Content-Type", "text/html; charset=utf-8")  # of a list
        self._whole: _Whole = (list, 0, None, 0, "")  # of any other iterable
        if self.options.signals:
            signals.hook_in()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = begin_answer(RequestStream, self.options, environ, start_response)
        if unchunked.ever and stream.outer is None:
            unchunked.forget()
        if self._app_on_worker:
            return carry_app(self._inner, stream, environ)
        try:
            body = self._inner(environ, stream.start)
        except BaseException as error:
            return answer_of(environ, stream, partial(concluded, stream, error))
        if stream.is_like(body, self._plain_type, self._whole):
            headers: Pairs | None = stream.app_headers
        else:
            headers = self._plain_headers(stream, body)
            if headers is None:
                return answer_of(environ, stream, partial(answered, stream, body))
        stream.environ = None  # it holds the stream, and must not be held by it
        start_response(stream.app_status, headers)  # type: ignore[arg-type]  # where there is a head, both are
        return body

    def _plain_headers(self, stream: RequestStream, body: Any) -> Pairs | None:
        """The head to go on with, if this is no stream and nobody has touched its request's."""
        if stream.app_status is None or not stream.plain:
            return None
        headers = stream.app_headers
        try:
            is_whole = type(body) is list or type(body) is tuple
            if not (self._is_plain(headers) if is_whole else self._is_whole(headers, body)):
                return None
            # Some layer may have kept a marked head, and send it again now.
            return unmarked(headers) if USED and may_be_marked(headers) else headers
        except _NOT_PAIRS:
            return None

    def _is_plain(self, headers: Pairs) -> bool:
        """Whether this is no stream's head; its media type is known from then on."""
        if not isinstance(headers, (list, tuple)) or is_streaming(headers):
            return False
        name, value = headers[0]
        if name.lower() == "content-type":
            self._plain_type = (name, value)
        return True

    def _is_whole(self, headers: Pairs, body: Any) -> bool:
        """Whether a length is declared for this body, which is no stream's."""
        kind, type_at, content_type, length_at, length = self._whole
        try:
            if (
                type(body) is kind
                and headers[type_at] == content_type
                and headers[length_at][0] == length
                # Of two, the first is the one that counts.
                and (not type_at or value_of(headers, "content-type") == headers[type_at][1])
            ):
                return True
        except _NOT_PAIRS:
            pass  # fewer headers than last time, or none: looked at in full below
        if not is_iterable(body):
            return False
        if not isinstance(headers, (list, tuple)) or is_streaming(headers):
            return False
        at: dict[str, int] = {}
        for index, pair in enumerate(headers):
            at.setdefault(pair[0].lower(), index)
        if "content-length" not in at:
            return False
        if "content-type" in at:
            type_at, length_at = at["content-type"], at["content-length"]
            name, value = headers[type_at]
            self._whole = (type(body), type_at, (name, value), length_at, headers[length_at][0])
        return True

    def _first(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self._stripped()(environ, start_response)

    def _stripped(self) -> WSGIApp:
        """The app, whose buffering layers are out of the way; by the first request all of them stand."""
        self._inner = stripped(self.app, self.options.strip, "wsgi", owner=self)
        return self._inner
