"""The WSGI side: a middleware for any app, and how a description is carried out (PEP 3333).

    app = streamkit.wsgi.StreamingMiddleware(app, {"high_water": 256 * 1024})

What does not stream passes through as it is: the same iterable, the same `file_wrapper`.

Rule: `start_response` of the server is called once, when the head is known and before the
iterable is returned; until then an error is a real 500, raised to whoever would have seen it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

from .core.base import BaseStream
from .core.commit import State, after
from .core.context import inherited, unchunked
from .core.framing import Body, Request, frame, has_body
from .core.headers import IDENTITY, Pairs, is_streaming, value_of
from .core.request import NO_FIELDS, fields_of
from .core.response import StreamingResponse, carried_out_by
from .engines import thread
from .engines.bodies import (
    ChannelStream,
    HeldBody,
    Reader,
    discard,
    head_only,
    plain_answer,
    refuse,
    reject,
    started,
    too_many,
)
from .engines.clock import thread_clock
from .engines.coded import CodedRest
from .engines.ending import (
    WSGI_LOG,
    fail,
    is_end_of,
    last_words,
    linger,
    log_error,
    needs_settling,
    outcome_of,
    settle,
)
from .engines.faces import faced
from .engines.hints import hints_of_environ
from .engines.line import Line, line_of
from .engines.pull import UNBOUNDED, Pull
from .engines.registry import check_room, signals
from .engines.task import BridgeStream
from .engines.thread import ThreadStream
from .engines.wholeapp import AppStream
from .engines.write import Answer, RequestStream
from .errors import (
    ApplicationFailed,
    BufferLimitExceeded,
    ClientDisconnected,
    NotAnApplication,
    ProtocolViolation,
    StreamEnded,
    TooManyStreams,
)
from .options import Options
from .syntax import status_line
from .types import Environ, StartResponse, WSGIApp
from .unbuffer.marker import marking
from .unbuffer.stripping import stripped

__all__ = ["StreamingMiddleware", "respond"]

KEY = "streamkit.stream"

_DEFAULTS = Options()


# A type of body; where the head had its Content-Type, which, and where the name of its Content-Length.
_Whole: TypeAlias = "tuple[type, int, tuple[str, str] | None, int, str]"


class StreamingMiddleware:
    """Give a WSGI app its response stream, and every stream in it the same care.

    `options` is an `Options` or a mapping; keyword arguments go over it. Raises
    `OptionsError` and `NotAnApplication`.
    """

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
        self._plain_type = "text/html; charset=utf-8"  # of a list
        self._whole: _Whole = (list, 0, None, 0, "")  # of any other iterable
        if self.options.signals:
            signals.hook_in()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # Written out for the response that does not stream: each call here would cost it dearly.
        stream = RequestStream()
        stream.options = self.options
        stream.environ = environ
        stream.start_response = start_response
        stream.app_status = _NOTHING
        stream.plain = True
        if KEY in environ:
            stream.outer = environ[KEY]
        elif unchunked.ever:
            unchunked.forget()
        environ[KEY] = stream
        if self._app_on_worker:
            return _carry_app(self._inner, stream, environ)
        try:
            body = self._inner(environ, stream.start)
        except BaseException as error:
            return _answer_of(environ, stream, partial(_concluded, stream, error))
        status = stream.app_status
        if status is not None and stream.plain:
            headers = stream.app_headers
            if type(body) is list or type(body) is tuple:
                plain = (headers and headers[0][1] == self._plain_type) or self._is_plain(headers)
            else:
                plain = self._is_whole(headers, body)
            if plain:
                stream.environ = None  # it holds the stream, and must not be held by it
                start_response(status, headers)
                return body
        return _answer_of(environ, stream, partial(_answered, stream, body))

    def _is_plain(self, headers: Pairs) -> bool:
        """Whether this is no stream's head; its media type is known from then on."""
        if is_streaming(headers):
            return False
        if headers and headers[0][0].lower() == "content-type":
            self._plain_type = headers[0][1]
        return True

    def _is_whole(self, headers: Pairs, body: Any) -> bool:
        """Whether a length is declared for this body, which is no stream's."""
        kind, type_at, content_type, length_at, length = self._whole
        try:
            if type(body) is kind and headers[type_at] == content_type and headers[length_at][0] == length:
                return True
        except IndexError:
            pass
        if not hasattr(type(body), "__iter__") or isinstance(body, (str, bytes)) or is_streaming(headers):
            return False
        at = {pair[0].lower(): index for index, pair in enumerate(headers)}
        if "content-length" not in at:
            return False
        if "content-type" in at:
            type_at, length_at = at["content-type"], at["content-length"]
            self._whole = (type(body), type_at, headers[type_at], length_at, headers[length_at][0])
        return True

    def _first(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self._stripped()(environ, start_response)

    def _stripped(self) -> WSGIApp:
        """The app, whose buffering layers are out of the way; by the first request all of them stand."""
        self._inner = stripped(self.app, self.options.strip, "wsgi", owner=self)
        return self._inner


_NOTHING: str | None = None


def _answer_of(
    environ: Environ, stream: RequestStream, answer: Callable[[], Iterable[bytes]]
) -> Iterable[bytes]:
    """The answer, which is a real 500 also on uWSGI: that sends nothing when an application raises."""
    try:
        return answer()
    except Exception as error:
        if "uwsgi.version" not in environ or stream.outer is not None or stream._server_started:
            raise
        WSGI_LOG.error("answered 500: the application failed before its first chunk", exc_info=error)
        return plain_answer(stream.start_response, 500, "Internal Server Error\n")


def _answered(stream: RequestStream, body: Any) -> Iterable[bytes]:
    """The application has returned: find out what its answer is."""
    if stream._state is not State.STARTED:
        _close_foreign(stream, body)
        return _concluded(stream, None)
    if stream.refused is not None:
        _close_foreign(stream, body)
        return _concluded(stream, stream.refused)
    try:
        if body is None or not hasattr(type(body), "__iter__") or isinstance(body, (str, bytes)):
            raise ProtocolViolation(
                f"wanted an iterable of bytes from the application (PEP 3333), got {body!r}"
            )
        return _passed_on(stream, body)
    finally:
        stream.environ = None
        if not stream.plain and needs_settling(stream) and stream.carried is None and stream.passing is None:
            settle(stream, "finished")


def _passed_on(stream: RequestStream, body: Any) -> Iterable[bytes]:
    answer, environ = stream.answer, stream.environ
    assert environ is not None
    if stream.carried is not None and stream.carried._head is None:
        stream.carried = None  # a description that came to nothing: what was returned instead is the response
    if stream.early is not None or stream._foreign_write is not None:
        rest = body if stream.early is None else _Joined(stream.early, body)
        return rest if stream._coder is None else CodedRest(rest, stream._coder)
    if stream.carried is not None and answer is not None:
        stream.release((answer[0], _without_strangers(answer, stream.carried, body)))
        return body  # type: ignore[no-any-return]
    if answer is not None and not _is_stream(answer, body, environ):
        stream.release()
        return body  # type: ignore[no-any-return]
    if stream.outer is not None:
        stream.outer.is_carried_by(stream)
    return _cared_for(stream, body, environ)


def _is_stream(answer: Answer, body: Any, environ: Environ) -> bool:
    headers = answer[1]
    if is_streaming(headers):
        return True
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return False  # the server sends files in a way of its own
    if getattr(body, "streaming", True) is False:
        return False  # Django's word for a body that is all there
    return not isinstance(body, (list, tuple)) and value_of(headers, "content-length") is None


def _without_strangers(answer: Answer, carried: BaseStream, body: Any) -> Pairs:
    """The head of a description, without the ETag and Content-Length that layers have put on it."""
    status, headers, _ = answer
    ours = carried._head
    if ours is None or not status.startswith(str(ours[0])) or isinstance(body, (list, tuple)):
        return headers  # a layer has put another response in its place
    own = {name.lower() for name, _ in ours[1]}
    if carried._body is Body.WHOLE:
        own.add("content-length")
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in ("etag", "content-length") or name.lower() in own
        # "identity ... SHOULD NOT be used in" it -- RFC 9110, 8.4.1; Django's room holds layers off by it.
        if value != IDENTITY or name.lower() != "content-encoding"
    ]


def _close_foreign(stream: RequestStream, body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        try:
            close()
        except Exception as error:
            log_error(stream, "closing what the application returned failed", error)


def _concluded(stream: RequestStream, error: BaseException | None) -> Iterable[bytes]:
    """End a stream that the application wrote by itself; it has returned, or raised."""
    if stream._state is State.STARTED and error is not None:
        stream.environ = None
        stream._failed = True
        settle(stream, "failed")
        if stream.refused is not None:
            return too_many(stream.start_response, stream.refused, stream.request.method)
        raise error
    if stream._ending is not None and stream._connected and not stream.closed:
        return _ended_early(stream, stream._ending, error)
    has_body = stream._body in (Body.STREAM, Body.WHOLE)
    if error is None and has_body and not stream.closed and stream.answer is not None:
        code = int(stream.answer[0][:3]) if stream.answer[0][:3].isdigit() else 200
        if code >= 500 or stream.answer[2] is not None:
            error = ApplicationFailed(code)
    if error is None and stream.spool is not None:
        error = stream.spool.exceeded
    try:
        if error is not None:
            fail(stream, error, stream._end)
        else:
            stream.close()
    except BaseException as fault:  # a body that is too short, or over the limit
        fail(stream, fault, stream._end)
    return _sent(stream)


def _ended_early(stream: RequestStream, ending: StreamEnded, error: BaseException | None) -> Iterable[bytes]:
    """Say the last words of a stream that was ended from outside."""
    if error is not None and not is_end_of(stream, error):
        log_error(stream, "the application failed at the end of its stream", error)
    words, clean = last_words(stream, ending)
    if words and stream._body is Body.STREAM:
        try:
            stream._give(words)
        except ClientDisconnected:
            clean = True  # nobody is there to be told
    stream._lingers = bool(words) and not clean
    stream._end(None if clean else ending)
    return _sent(stream)


def _sent(stream: RequestStream) -> Iterable[bytes]:
    with stream._lock:  # a write of another thread's that is under way ends first
        stream.environ = None
    failure, spool = stream._error, stream.spool
    if isinstance(failure, BufferLimitExceeded):
        settle(stream, "failed")
        return refuse(stream.start_response, failure, spool)
    if spool is not None and failure is None and stream._head is not None:
        spool.complete()
        status, pairs = stream._head
        stream.start_response(status_line(status), [*pairs, ("Content-Length", str(spool.size))])
        return HeldBody(spool, stream)
    if spool is not None:
        spool.close()
    settle(stream, outcome_of(stream))
    if stream.server_error is not None:
        raise stream.server_error  # the server's own word for a leave, for the server
    if failure is not None and (stream._head is None or stream._body in (Body.STREAM, Body.WHOLE)):
        linger(stream)
        raise failure
    if failure is not None:  # the head was all that the client is to get
        log_error(stream, "the application failed after its head", failure)
    if stream._coder is not None and stream._connected and stream._abort is None:
        return iter((stream._coder.last(),))  # no list: waitress takes one of one chunk for the whole body
    return []


class _Joined:
    """What was written through `write()`, before what was returned."""

    def __init__(self, early: list[bytes], body: Iterable[bytes]) -> None:
        self._early, self._body = early, body

    def __iter__(self) -> Iterator[bytes]:
        yield from self._early
        yield from self._body

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


# ---------------------------------------------------------------- descriptions


def respond(
    response: StreamingResponse,
    environ: Environ,
    start_response: StartResponse,
    options: Options | None = None,
) -> Iterable[bytes]:
    """Carry out a description as a WSGI application.

    Options are the response's own over `options`, or over those of the wrapped app that
    the request came through. An error before the commit is raised here.
    """
    outer = environ.get(KEY)
    if options is None:
        options = outer.options if isinstance(outer, (RequestStream, AppStream)) else _DEFAULTS
    response.begin()
    response = response.for_request(environ)
    options = response.options_over(options)
    request = Request.of_environ(environ)
    engine = response.engine_for(app_wide=options.engine)
    stream, reader = _reader(response, options, request, engine)
    fields = fields_of(environ, encoding=bool(options.compress))
    is_fresh = fields is not NO_FIELDS and stream._is_fresh_for(fields)
    if isinstance(outer, (RequestStream, AppStream)):
        outer.is_carried_by(stream)
        if "gzip" in outer.options.strip:
            start_response = marking(start_response, stream)
    if request.version < (1, 1) and options.http10 == "reject":
        discard(stream, response)
        return reject(start_response, request)
    if is_fresh or request.method == "HEAD" or (response.kind.is_iterable and not has_body(response.status)):
        return head_only(stream, response, start_response)
    try:
        check_room(stream, thread_clock)
    except TooManyStreams as error:
        discard(stream, response)
        return too_many(start_response, error)
    stream._line = _line_of(environ)
    if not isinstance(stream, BridgeStream):  # whose loop a server that blocks would hold up
        stream._hints = hints_of_environ(environ)
    if reader is stream:
        context = inherited(options.excluded_context)
        if isinstance(stream, BridgeStream):
            stream.start(context)
        else:
            thread.start(stream, context)
    return started(stream, reader, start_response, options.commit_after_for(response.media_type))


def _line_of(environ: Environ) -> Line | None:
    """The connection of a stream that is about to begin; no chunk is to wait in its server."""
    if "eventlet.input" in environ:
        environ["eventlet.minimum_write_chunk_size"] = 1  # bytes; it gathers 4096 otherwise
    return line_of(environ)


def _reader(
    response: StreamingResponse, options: Options, request: Request, engine: str
) -> tuple[ChannelStream, Reader]:
    if engine == "task":
        bridge = faced(BridgeStream, response, asynchronous=True)(options, request, WSGI_LOG, response)
        return bridge, bridge
    asks_for_thread = response.engine == "thread" or options.engine == "thread"
    pulled = (
        response.kind.is_iterable
        and not asks_for_thread
        and not response.keep_open
        # Whoever is pulled cannot be waited for.
        and options.commit_after_for(response.media_type) is None
    )
    if not pulled:
        stream = faced(ThreadStream, response, asynchronous=False)(options, request, WSGI_LOG, response)
        return stream, stream
    stream = ThreadStream(options, request, WSGI_LOG, response, UNBOUNDED)
    return stream, Pull(stream, inherited(options.excluded_context))


carried_out_by(wsgi=respond)


# ---------------------------------------------------------------- the streams of other code


class _ForeignResponse(StreamingResponse):
    """What another framework streams, as a description of ours."""

    def __init__(self, body: Iterable[bytes]) -> None:
        super().__init__(body, headers=None, content_type=None)


class _ForeignStream(ThreadStream):
    """Its head is the application's answer, which may come as late as the first chunk."""

    foreign = True
    request_stream: RequestStream
    _answer: Answer | None = None  # as it was taken last

    def take_answer(self) -> None:
        """The head as the application has given it, once it has: hooks of the commit may change it."""
        answer = self.request_stream.answer
        if answer is None or answer == self._answer:
            return
        self._answer = answer
        self._status = int(answer[0][:3])
        self._pairs = answer[1]
        if self.response is not None:
            self.response.describe_head(answer[1])

    def commit(self) -> None:
        self.take_answer()
        super().commit()

    def _fix_head(self) -> None:
        self.take_answer()
        if self._answer is None:
            raise ProtocolViolation(
                "the application returned its first chunk without calling start_response (PEP 3333)"
            )
        pairs = self._pairs if self._headers is None else list(self._headers)
        if value_of(pairs, "content-length") is None or is_streaming(pairs):
            super()._fix_head()
        else:  # an ordinary response whose head came late
            self._state = after(self._state, "commit")
            if self._headers is not None:
                self._headers.freeze()
            self._body = frame(self.request, self._status, content_length=0)
            self._head = (self._status, pairs)

    def _check_open(self, size: int) -> None:
        """The application was not told what it may send: what it may not is dropped."""


def _cared_for(outer: RequestStream, body: Any, environ: Environ) -> Iterable[bytes]:
    """A stream that the application made in its own way."""
    options, request = outer.options, Request.of_environ(environ)
    response = _ForeignResponse(body)
    stream = _ForeignStream(options, request, WSGI_LOG, response, UNBOUNDED)
    stream.request_stream = outer
    if options.compress:
        stream._fields = fields_of(environ, encoding=True)
    outer.passing = stream
    outer._pass_hooks_to(stream)
    stream.take_answer()
    reader = Pull(stream, None)
    if request.version < (1, 1) and options.http10 == "reject":
        discard(stream, response)
        return reject(outer.start_response, request)
    if outer.answer is not None and (request.method == "HEAD" or not has_body(stream._status)):
        return head_only(stream, response, outer.start_response)
    try:
        check_room(stream, thread_clock)
    except TooManyStreams as error:
        discard(stream, response)
        return too_many(outer.start_response, error)
    stream._line = _line_of(environ)

    def start_response(status: str, headers: Pairs, exc_info: Any = None) -> Any:
        said = outer.answer[0] if outer.answer is not None else status
        return outer.start_response(said if said[:3] == status[:3] else status, headers)

    return started(stream, reader, start_response, None)


# ---------------------------------------------------------------- the whole app on a worker


def _carry_app(app: WSGIApp, stream: RequestStream, environ: Environ) -> Iterable[bytes]:
    """Run the application on a pooled worker, so that its stream has a reader of its own."""
    on_worker = AppStream(stream.options, Request.of_environ(environ), WSGI_LOG)
    on_worker.request_stream = stream
    on_worker._fields = fields_of(environ, encoding=bool(stream.options.compress))
    environ[KEY] = on_worker
    on_worker.start_app(app, environ, copy_context())
    on_worker.wait_head()
    if stream.refused is not None:
        environ[KEY] = stream
        settle(on_worker, "failed")
        if on_worker.returned is not None:
            _close_foreign(stream, on_worker.returned[0])
        return _concluded(stream, stream.refused)
    if on_worker.returned is None:
        on_worker._line = _line_of(environ)
        return started(on_worker, on_worker, stream.start_response, None)
    environ[KEY] = stream
    if needs_settling(on_worker) and on_worker.carried is None:
        settle(on_worker, "finished")
    return _answered(stream, on_worker.returned[0])
