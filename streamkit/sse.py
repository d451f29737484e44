"""Server-sent events: describe an event stream, and what its producer writes to.

    def ticks(stream):
        for number in count(int(stream.last_event_id or 0) + 1):
            stream.send({"number": number}, id=number)
            time.sleep(1)

    return streamkit.event_stream(ticks, retry=3000)

An iterable producer gives one event an item: a `ServerSentEvent`, text, or any object (JSON).
Silence is filled with comments, and the head leaves within a second, so that the browser's
`open` fires and no proxy gives up.

Rule: an event is one write. What the browser does about an end, it is told in its own words:
it comes back after `retry`, unless `done` has told it not to.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from inspect import getattr_static, iscoroutinefunction, isfunction
from typing import Any, TypeAlias, TypeVar

from .core.events import (
    Decoder,
    ServerSentEvent,
    ToJSON,
    comment,
    encode,
    encode_fields,
    json_text,
)
from .core.headers import value_of
from .core.producers import Kind
from .core.replay import AsyncItems, Had, History, Items, Replay, async_function, function
from .core.request import header_of, query_of
from .core.response import StreamingResponse
from .core.stream import AsyncResponseStream, ResponseStream
from .errors import OptionsError, ProducerError
from .options import Options

__all__ = [
    "AsyncEventStream",
    "Decoder",
    "EventStream",
    "EventStreamResponse",
    "History",
    "Replay",
    "ServerSentEvent",
    "encode",
    "event_stream",
]

CONTENT_TYPE = "text/event-stream"  # without a charset: "always encoded as UTF-8" -- WHATWG HTML, 9.2.6
DONE = "streamkit.done"  # the id by which a client is known that is not to come back
END_EVENT = "streamkit.end"

_LEFT_OUT: Any = object()
_EMPTY: Any = {False: (Kind.ITERABLE, ()), True: (Kind.ASYNC_ITERABLE, ())}
_NO_CONTENT = 204  # "A client can be told to stop reconnecting using HTTP 204 No Content" -- 9.2.1

Self = TypeVar("Self", bound="_Events")


class _Events:
    """What both faces of an event stream share."""

    response: Any
    at_line_start: Any
    _failure: BaseException | None

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that this client has had, by its own word; None the first time."""
        last: str | None = self.response.last_event_id
        return last

    def event(self: Self, name: str | None) -> Self:
        """The type of the next event. Returns the stream."""
        return self._keep("event", name)

    def id(self: Self, value: str | int | None) -> Self:
        """The id of the next event. Returns the stream."""
        return self._keep("id", value)

    def retry(self: Self, milliseconds: int | None) -> Self:
        """What the next event tells the browser to wait before it comes back. Returns the stream."""
        return self._keep("retry", milliseconds)

    def _keep(self: Self, name: str, value: Any) -> Self:
        encode_fields(**{"data": "", name: value})  # what cannot be sent is refused here
        kept = self.response.kept
        self.response.kept = {name: value} if kept is None else {**kept, name: value}
        return self

    def _encoded(self, data: Any, event: Any, id: Any, retry: Any) -> bytes:
        response: EventStreamResponse = self.response
        if (
            response.is_plain
            and response.kept is None
            and response.had is None
            and data is not None
            and data is not _LEFT_OUT
            and not isinstance(data, ServerSentEvent)
        ):  # as below, where there is nothing to look up
            return encode_fields(
                data,
                None if event is _LEFT_OUT else event,
                None if id is _LEFT_OUT else id,
                None if retry is _LEFT_OUT else retry,
                response.json,
            )
        if isinstance(data, ServerSentEvent):
            data, *own = (_LEFT_OUT if field is None else field for field in data)
            event = own[0] if event is _LEFT_OUT else event
            id = own[1] if id is _LEFT_OUT else id
            retry = own[2] if retry is _LEFT_OUT else retry
        kept = response.kept
        if kept is not None and data is not _LEFT_OUT:
            if event is _LEFT_OUT:
                event = kept.get("event", _LEFT_OUT)
            if id is _LEFT_OUT:
                id = kept.get("id", _LEFT_OUT)
            if retry is _LEFT_OUT:
                retry = kept.get("retry", _LEFT_OUT)
        chunk = response.encode_fields(data, event, id, retry)
        if data is not _LEFT_OUT:
            response.kept = None
        had = response.had
        if had is None or id is _LEFT_OUT:
            return chunk
        missed = [response.encode_item(event, keeps=False) for event in had.before(ServerSentEvent(id=id))]
        return b"".join(missed if had.includes(id) else [*missed, chunk])

    def _own_lines(self, chunk: bytes) -> bytes:
        """This chunk, also where `write` has left a line without its end, whose part it would become.

        `send` asks only when the producer has failed, amid a line perhaps: to ask takes as long as to send.
        """
        return chunk if self.at_line_start or not chunk else b"\n" + chunk


def _shown(value: object) -> Any:
    """What `<<` makes of a value: containers and numbers are JSON, bytes text, all else is its `str()`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return value  # for `send` to refuse
    return value if isinstance(value, (str, dict, list, tuple, int, float, Mapping)) else str(value)


class EventStream(_Events, ResponseStream):
    """A response stream that sends events; `write` stays raw."""

    def send(
        self,
        data: Any = _LEFT_OUT,
        *,
        event: str | None = _LEFT_OUT,
        id: str | int | None = _LEFT_OUT,
        retry: int | None = _LEFT_OUT,
    ) -> int:
        """Send one event, as one write; returns its size in bytes.

        `data` is text as it is, or any object as JSON; or it is a `ServerSentEvent`, whose fields
        count where nothing else is given. What is left out takes what was set for the next data,
        or the stream's default; None leaves it out of this event (for `data`: JSON's null).
        `retry` is in milliseconds. What the replay has sent already is not sent again, and what
        came since then goes first, in the same write. Raises `EventFieldError`, and what `write`
        raises.
        """
        chunk = self._encoded(data, event, id, retry)
        return self.write(chunk if self._failure is None else self._own_lines(chunk))

    def comment(self, text: str) -> int:
        """Send a comment, which no browser shows to its page."""
        return self.write(self._own_lines(comment(text)))

    def done(self) -> None:
        """End the stream for good: a browser that comes back is answered 204, and stops."""
        if not self.closed:
            self.write(self._own_lines(_farewell_for_good()))
            self.close()

    def __lshift__(self, value: object) -> EventStream:
        """Send any object as the data of an event; None sends nothing. Returns the stream."""
        if value is not None:
            self.send(_shown(value))
        return self


class AsyncEventStream(_Events, AsyncResponseStream):
    """The same, awaited."""

    def send(
        self,
        data: Any = _LEFT_OUT,
        *,
        event: str | None = _LEFT_OUT,
        id: str | int | None = _LEFT_OUT,
        retry: int | None = _LEFT_OUT,
    ) -> Awaitable[int]:
        """Send one event, as one write; the awaited result is its size. See `EventStream.send`."""
        chunk = self._encoded(data, event, id, retry)
        return self.write(chunk if self._failure is None else self._own_lines(chunk))

    def comment(self, text: str) -> Awaitable[int]:
        """Send a comment, which no browser shows to its page."""
        return self.write(self._own_lines(comment(text)))

    async def done(self) -> None:
        """End the stream for good: a browser that comes back is answered 204, and stops."""
        if not self.closed:
            await self.write(self._own_lines(_farewell_for_good()))
            await self.close()


def _farewell_for_good() -> bytes:
    # An id without data: the browser keeps it and shows its page nothing.
    return encode_fields(id=DONE)


def _beating(seconds: Any) -> Options:
    return _checked(seconds) if isinstance(seconds, (int, float)) else Options(heartbeat=seconds)


# Shared, because an open stream holds its options, and to check them takes longer than all the rest.
@lru_cache(64, typed=True)
def _checked(heartbeat: float) -> Options:
    return Options(heartbeat=heartbeat)


EventProducer: TypeAlias = (
    "Callable[[EventStream], object] | Callable[[AsyncEventStream], Awaitable[object]]"
    " | Iterable[Any] | AsyncIterable[Any]"
)


class EventStreamResponse(StreamingResponse):
    """The description of an event stream; made by `event_stream`."""

    faces = (EventStream, AsyncEventStream)
    gathers = True
    __slots__ = (
        "_history", "_source", "end_event", "event", "had", "id", "is_plain", "json", "kept", "last_event_id",
        "last_event_id_param", "replay", "retry",
    )  # fmt: skip

    def __init__(
        self,
        producer: EventProducer,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        heartbeat: float | None = _LEFT_OUT,
        json: ToJSON | None = None,
        replay: Replay | None = None,
        last_event_id_param: str | None = None,
        end_event: bool = False,
        content_type: str | None = CONTENT_TYPE,
        options: Options | Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        if heartbeat is not _LEFT_OUT:
            options = Options.of(options, {}).merged(_beating(heartbeat))
        if isinstance(producer, ServerSentEvent):
            raise ProducerError(f"wanted a producer of events, got one of them: put {producer!r} into a list")
        if isinstance(producer, Mapping):
            raise ProducerError(f"wanted a producer of events, got a mapping: put {producer!r} into a list")
        given: Any = producer
        super().__init__(given, content_type=content_type, options=options, **more)
        encode_fields("", event, id, retry)  # what cannot be sent is refused here
        self.event, self.id, self.retry = event, id, retry
        # Of one request, so that a stream and its twin share them:
        self.last_event_id: str | None = None
        self.kept: dict[str, Any] | None = None  # what `event`, `id` and `retry` have set for the next data
        self.had: Had | None = None  # what this client has had before its producer was called
        self.json = json
        if json is not None and not callable(json):
            raise OptionsError([f"json: wanted a function that returns str or bytes, got {json!r}"])
        self.replay = replay
        self._check_replay(replay)
        if last_event_id_param is not None and (
            not isinstance(last_event_id_param, str) or not last_event_id_param
        ):
            raise OptionsError(
                [f"last_event_id_param: wanted the name of a query parameter, got {last_event_id_param!r}"]
            )
        self.last_event_id_param = last_event_id_param
        self.end_event = end_event
        self._source: Any = producer
        # Another replay's events are its own affair, also where it happens to have a method `add`.
        self._history = replay if isinstance(replay, History) else None
        self.is_plain = (event, id, retry, self._history) == (None, None, None, None)

    def _check_replay(self, replay: Any) -> None:
        if replay is None:
            return
        since = getattr(replay, "since", None)
        # A class has it for its objects, unless it is one of the class's own.
        is_for_objects = isinstance(replay, type) and isfunction(getattr_static(replay, "since", None))
        if not callable(since) or is_for_objects:
            raise ProducerError(f"replay: wanted an object with since(last_event_id), got {replay!r}")
        if iscoroutinefunction(since) and not self.kind.is_async:
            raise ProducerError(
                f"replay: since() of {replay!r} is a coroutine function, which needs an asynchronous "
                f"producer, not a plain {self.kind.value}"
            )

    def encode_fields(self, data: Any, event: Any, id: Any, retry: Any, *, keeps: bool = True) -> bytes:
        """The bytes of one event, with this stream's defaults for what was left out."""
        if data is None:
            data = "null"
        elif data is _LEFT_OUT:
            data = None
        event = self.event if event is _LEFT_OUT else event
        id = self.id if id is _LEFT_OUT else id
        retry = self.retry if retry is _LEFT_OUT else retry
        if self._history is None or id is None or not keeps:
            return encode_fields(data, event, id, retry, self.json)
        if data is not None and not isinstance(data, str):
            data = json_text(data, self.json)  # as it is now: the application may change the object
        chunk = encode_fields(data, event, id, retry)
        self._history.add(ServerSentEvent(data, event, id, retry))
        return chunk

    def encode_item(self, item: Any, *, keeps: bool = True) -> bytes:
        """The bytes of one item of an iterable producer, or, if not `keeps`, of a replay."""
        if self.is_plain:  # nothing stands in for what is left out
            if isinstance(item, ServerSentEvent):
                return encode_fields(*item, self.json)
            return encode_fields("null" if item is None else item, None, None, None, self.json)
        if isinstance(item, ServerSentEvent):
            data, event, id, retry = item
            return self.encode_fields(
                _LEFT_OUT if data is None else data,
                _LEFT_OUT if event is None else event,
                _LEFT_OUT if id is None else id,
                _LEFT_OUT if retry is None else retry,
                keeps=keeps,
            )
        return self.encode_fields(item, _LEFT_OUT, _LEFT_OUT, _LEFT_OUT, keeps=keeps)

    def for_request(self, request: Any) -> StreamingResponse:
        """This description with what the client said; an empty answer for one that is not to come back."""
        last = header_of(request, "last-event-id")
        if last is None and self.last_event_id_param is not None:
            last = query_of(request, self.last_event_id_param)
        mine = self._copied()
        if last == DONE:
            mine._have_no_content()
            return mine
        mine.last_event_id = last or None
        missed = self.replay if mine.last_event_id is not None else None
        if self.kind is Kind.ITERABLE:
            mine.producer = Items(self, self._source, missed, mine.last_event_id)
        elif self.kind is Kind.ASYNC_ITERABLE:
            if missed is not None:  # else the items are all, see `item_encoder`
                mine.producer = AsyncItems(self, self._source, missed, mine.last_event_id)
        elif missed is not None:
            mine.producer = (async_function if self.kind.is_async else function)(self._source, missed)
        return mine

    def item_encoder(self) -> Callable[[Any], bytes] | None:
        return self.encode_item if self.producer is self._source else None

    def _copied(self) -> EventStreamResponse:
        # Not by copy.copy, which makes a dict for what is not in slots, though there is nothing.
        mine = object.__new__(type(self))
        for name in _FIELDS:
            setattr(mine, name, getattr(self, name))
        for name, value in vars(self).items():
            setattr(mine, name, value)
        return mine

    def _have_no_content(self) -> None:
        """Be a 204, with all else that was described: without the headers of CORS, a browser tries on."""
        self.status = _NO_CONTENT
        if not self.kind.is_iterable:
            self.kind, self.producer = _EMPTY[self.kind.is_async]  # else the iterable is closed unread
        self.keep_open = self.loop = False
        self.content_length = None
        headers = [(name, value) for name, value in self.headers if name.lower() != "content-type"]
        if value_of(headers, "cache-control") is None:
            # Varnish keeps a 204 for two minutes, and would send every client away with it.
            headers.append(("Cache-Control", "no-store"))
        self.describe_head(headers)

    def last_words(self, outcome: str) -> bytes:
        """What tells the page how its stream has ended, where that is wanted."""
        return encode_fields({"outcome": outcome}, END_EVENT) if self.end_event else b""


_FIELDS = tuple(
    name
    for name in (*StreamingResponse.__slots__, *EventStreamResponse.__slots__)
    if name not in ("__dict__", "__weakref__")
)

# To describe is all that `event_stream` does, so it is the description's own constructor.
event_stream = EventStreamResponse
