"""The description of a streamed response, to be carried out by whoever serves it.

    @app.get("/ticks")
    def ticks():
        return streamkit.stream(ticking)

Rule: a description has not begun. Serving is calling it, `response(environ,
start_response)` or `await response(scope, receive, send)`; how that is done, the two
adapters have said with `carried_out_by`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar, TypeAlias, get_args, overload

from ..errors import AlreadyServed, EngineUnavailable, HeaderError, OptionsError, ProducerError
from ..options import Options
from ..syntax import check_status
from ..types import EngineName, Environ, Receive, Scope, Send, StartResponse
from .headers import DEFAULT_CONTENT_TYPE, STREAMING_TYPES, Headers, Items, Pairs, media_type_in
from .hooks import check_hook
from .producers import Kind, Producer, check_takes_stream, is_one_shot, kind_of
from .shared import Shared, content_type_alone

Resource: TypeAlias = "AbstractContextManager[Any] | AbstractAsyncContextManager[Any]"

_ENGINES = get_args(EngineName)


class StreamingResponse:
    """Describe a response that is sent while `producer` makes it.

    The producer is a function that takes the stream, an async function that does, an
    iterable of text or bytes, or an async iterable; under WSGI and ASGI alike.

    - `status`, `headers`, `content_type`: the head; a Content-Type among the headers wins.
    - `callback()`: called once when the stream has ended, however, also if it never began.
    - `keep_open`: the stream outlives its producer; whoever holds it writes on and closes it.
    - `loop`: call the producer again and again, until the stream is closed or the client gone.
    - `content_length`: in bytes; sent, and enforced with `BodyTooLong` and `BodyTooShort`.
    - `on_error(stream, error)`: called once for each error after the commit.
    - `engine`: `thread` or `task`, where the choice is not to be left to streamkit.
    - `resources`: context managers entered before the producer runs, left after it has ended.
    - `heartbeat_bytes`: bytes that say nothing in this body, where its media type has none of its own.
    - `compress`: the option of this name, for this response.
    - `options`: options of this response, over those of the app.

    Raises `ProducerError`, `HeaderError` and `OptionsError`, all before anything is sent.
    """

    _asgi_single_callable = True  # asgiref's word for an application of ASGI 3; `__call__` serves both kinds
    _wsgi: ClassVar[Callable[..., Iterable[bytes]]]
    _asgi: ClassVar[Callable[..., Awaitable[None]]]
    is_file: ClassVar[bool] = False  # a client keeps it, and must not take a part for the whole
    closes_unread: ClassVar[bool] = False  # its producer, though it is called, holds what can be read once
    gathers: ClassVar[bool] = False  # its bytes say where a chunk ends, so a few may travel together
    # What producers get has these over a plain stream's methods: for sync ones, and for async ones.
    faces: ClassVar[tuple[type, type] | None] = None
    # A stream holds its description for as long as it is open, and a dict of so many is 1.5 KiB.
    __slots__ = (
        "__dict__", "__weakref__", "_served", "callback", "content_length", "endless", "engine", "headers",
        "heartbeat_bytes", "keep_open", "kind", "loop", "media_type", "on_error", "options", "producer",
        "resources", "status",
    )  # fmt: skip
    media_type: str  # in lower case, without parameters
    endless: bool  # no end can be expected, so the body cannot be held whole
    # What a framework puts around whatever runs for it on another pooled thread than its producer's.
    beside: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None

    def __init__(
        self,
        producer: Producer,
        *,
        status: int = 200,
        headers: Items = None,
        content_type: str | None = DEFAULT_CONTENT_TYPE,
        callback: Callable[[], object] | None = None,
        keep_open: bool = False,
        loop: bool = False,
        content_length: int | None = None,
        on_error: Callable[..., object] | None = None,
        engine: EngineName | None = None,
        resources: Iterable[Resource] = (),
        heartbeat_bytes: bytes | None = None,
        compress: bool | Sequence[str] | None = None,
        options: Options | Mapping[str, Any] | None = None,
    ) -> None:
        self._served = False
        self.producer: Any = producer
        self.kind = kind_of(producer)
        check_takes_stream(producer)
        if isinstance(producer, StreamingResponse):
            raise ProducerError(f"wanted a producer, got the description of a response: {producer!r}")
        self.status = check_status(status)
        self.headers = _described_headers(headers, content_type)
        self.callback = callback
        self.on_error = on_error
        if callback is not None:
            check_hook("callback", callback, awaits=self.kind.is_async)
        if on_error is not None:
            check_hook("on_error", on_error, awaits=self.kind.is_async)
        if keep_open or loop:
            _check_flags(keep_open=keep_open, loop=loop)
        self.keep_open = keep_open
        self.loop = loop
        self.content_length = _length_or_none(content_length)
        self.engine = engine
        self.resources: tuple[Any, ...] = _resources(resources, self.kind) if resources else ()
        self.heartbeat_bytes = heartbeat_bytes
        self.media_type, self.endless = _nature(self.headers, keep_open or loop)
        self.options = None if options is None else Options.of(options, {})
        if compress is not None:
            chosen = compressing(compress)
            self.options = chosen if self.options is None else self.options.merged(chosen)
        if engine is not None and engine not in _ENGINES:
            raise OptionsError([f"engine: wanted one of {', '.join(_ENGINES)} or None, got {engine!r}"])
        if heartbeat_bytes is not None and (not isinstance(heartbeat_bytes, bytes) or not heartbeat_bytes):
            raise OptionsError([f"heartbeat_bytes: wanted some bytes or None, got {heartbeat_bytes!r}"])
        if loop and self.kind.is_iterable:
            raise ProducerError("loop=True repeats its producer: wanted a function, not an iterable")

    def describe_head(self, headers: Pairs) -> None:
        """Take these headers in place of those described."""
        self.headers = headers
        self.media_type, self.endless = _nature(headers, self.keep_open or self.loop)

    def options_over(self, app_wide: Options) -> Options:
        """The app's options with this response's own over them."""
        return app_wide if self.options is None else app_wide.merged(self.options)

    def for_request(self, request: Any) -> StreamingResponse:
        """What answers this request (a WSGI environ or an ASGI scope): this, or something in its place."""
        return self

    def item_encoder(self) -> Callable[[Any], bytes] | None:
        """What makes a chunk of an item of an asynchronous iterable; None where its items are chunks."""
        return None

    def last_words(self, outcome: str) -> bytes:
        """What the body says last, where it says how it has ended."""
        return b""

    def begin(self) -> None:
        """Note that serving begins; an iterator can be served once only (`AlreadyServed`)."""
        if self._served and self.kind.is_iterable and is_one_shot(self.producer):
            raise AlreadyServed(f"{self.producer!r} was served before and has no chunks left")
        self._served = True

    def engine_for(self, *, app_wide: EngineName) -> EngineName:
        """`thread` or `task`, as the producer needs; `EngineUnavailable` if it cannot run so."""
        fitting: EngineName = "task" if self.kind.is_async else "thread"
        if fitting == "thread" and "greenlet" in (self.engine, app_wide):
            raise EngineUnavailable(
                "this version has no greenlet engine yet: leave `engine` out, or use 'thread'"
            )
        if self.engine in ("thread", "task", "greenlet") and self.engine != fitting:
            raise EngineUnavailable(
                f"engine {self.engine!r} cannot run this producer ({self.kind.value}): "
                f"leave `engine` out, or use {fitting!r}"
            )
        return fitting

    @overload
    def __call__(self, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]: ...
    @overload
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...
    def __call__(self, *request: Any, **named: Any) -> Any:
        """Serve it: as a WSGI app with two arguments, as an ASGI app with three."""
        if not named and len(request) == 3:
            return StreamingResponse._asgi(self, *request)
        if not named and len(request) == 2:
            return StreamingResponse._wsgi(self, *request)
        if not request and named.keys() == {"scope", "receive", "send"}:  # as Daphne calls an application
            return StreamingResponse._asgi(self, **named)
        raise TypeError(
            "a response is called with (environ, start_response) or (scope, receive, send), "
            f"not with {len(request) + len(named)} arguments"
        )

    def __repr__(self) -> str:
        return f"<StreamingResponse {self.status} {self.media_type} of {self.producer!r}>"


def carried_out_by(
    *,
    wsgi: Callable[..., Iterable[bytes]] | None = None,
    asgi: Callable[..., Awaitable[None]] | None = None,
) -> None:
    """An adapter says how it carries a description out: `wsgi(response, environ, start_response)`."""
    if wsgi is not None:
        StreamingResponse._wsgi = staticmethod(wsgi)
    if asgi is not None:
        StreamingResponse._asgi = staticmethod(asgi)


# To describe is all that `stream` does, so it is the description's own constructor.
stream = StreamingResponse


def _described_headers(headers: Items, content_type: str | None) -> Pairs:
    if content_type is not None and not isinstance(content_type, str):
        raise HeaderError(f"wanted content_type as text such as 'text/html', or None, got {content_type!r}")
    if headers is None:
        return [] if content_type is None else content_type_alone(content_type)
    pairs = list(Headers(headers))
    if content_type is not None and not any(name.lower() == "content-type" for name, _ in pairs):
        pairs[:0] = content_type_alone(content_type)
    return pairs


def _nature(headers: Pairs, kept: bool) -> tuple[str, bool]:
    """The media type without its parameters, and whether no end can be expected."""
    media_type = headers.media_type if type(headers) is Shared else media_type_in(headers)
    return media_type, kept or media_type in STREAMING_TYPES


def compressing(compress: bool | Sequence[str]) -> Options:
    """The options that say so; those of `True` are shared, because an open stream holds its options."""
    return _COMPRESSING if compress is True else Options(compress=compress)


_COMPRESSING = Options(compress=True)


def _resources(resources: object, kind: Kind) -> tuple[Any, ...]:
    wanted = "resources: wanted a list of context managers"
    if _can(resources, "enter") or _can(resources, "aenter"):  # a file would be taken line by line
        raise OptionsError([f"{wanted}, got one by itself: {resources!r}"])
    if not isinstance(resources, Iterable):
        raise OptionsError([f"{wanted}, got {resources!r}"])
    listed = tuple(resources)
    for resource in listed:
        if not _can(resource, "enter") and not (kind.is_async and _can(resource, "aenter")):
            only = ", which only an asynchronous producer can enter" if _can(resource, "aenter") else ""
            raise OptionsError([f"{wanted}, got {resource!r}{only}"])
    return listed


def _can(resource: object, enter: str) -> bool:
    return hasattr(type(resource), f"__{enter}__")


def _check_flags(**flags: object) -> None:
    """Refuse what is only true by chance, as the text "no" is."""
    strange = {name: flag for name, flag in flags.items() if flag not in (True, False, None)}
    if strange:
        raise OptionsError([f"{name}: wanted True or False, got {flag!r}" for name, flag in strange.items()])


def _length_or_none(length: object) -> int | None:
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise HeaderError(f"wanted content_length as a whole number of bytes from 0 up, got {length!r}")
    return length
