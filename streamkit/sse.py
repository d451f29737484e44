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

import copy
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from .core.events import (
    Decoder,
    ServerSentEvent,
    ToJSON,
    comment,
    encode,
    encode_fields,
)
from .core.producers import Kind
from .core.replay import AsyncItems, History, Items, Replay, async_function, function
from .core.request import header_of, query_of
from .core.response import StreamingResponse
from .core.stream import AsyncResponseStream, ResponseStream
from .errors import OptionsError, ProducerError
from .options import Options
from .types import Producer

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
_NO_CONTENT = 204  # "A client can be told to stop reconnecting using HTTP 204 No Content" -- 9.2.1

Self = TypeVar("Self", bound="_Events")


class _Events:
    """What both faces of an event stream share."""

    response: Any
    _next: dict[str, Any] | None = None  # what `event`, `id` and `retry` have set for the next data

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
        kept = dict(self._next or ())
        encode_fields(**{"data": "", name: value})  # what cannot be sent is refused here
        kept[name] = value
        self._next = kept
        return self

    def _encoded(self, data: Any, event: Any, id: Any, retry: Any) -> bytes:
        response: EventStreamResponse = self.response
        kept = self._next
        if kept is not None:
            if event is _LEFT_OUT:
                event = kept.get("event", _LEFT_OUT)
            if id is _LEFT_OUT:
                id = kept.get("id", _LEFT_OUT)
            if retry is _LEFT_OUT:
                retry = kept.get("retry", _LEFT_OUT)
        chunk = response.encode_fields(data, event, id, retry)
        self._next = None
        return chunk


def _shown(value: object) -> Any:
    """What `<<` makes of a value: containers and numbers are JSON, all else is its `str()`."""
    return value if isinstance(value, (str, Mapping, list, tuple, int, float)) else str(value)


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

        `data` is text as it is, or any object as JSON. What is left out takes what was set for the
        next event, or the stream's default; None leaves it out of this event (for `data`: JSON's
        null). `retry` is in milliseconds. Raises `EventFieldError`, and what `write` raises.
        """
        return self.write(self._encoded(data, event, id, retry))

    def comment(self, text: str) -> int:
        """Send a comment, which no browser shows to its page."""
        return self.write(comment(text))

    def done(self) -> None:
        """End the stream for good: a browser that comes back is answered 204, and stops."""
        if not self.closed:
            self.write(_farewell_for_good())
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
        return self.write(self._encoded(data, event, id, retry))

    def comment(self, text: str) -> Awaitable[int]:
        """Send a comment, which no browser shows to its page."""
        return self.write(comment(text))

    async def done(self) -> None:
        """End the stream for good: a browser that comes back is answered 204, and stops."""
        if not self.closed:
            await self.write(_farewell_for_good())
            await self.close()


def _farewell_for_good() -> bytes:
    # An id without data: the browser keeps it and shows its page nothing.
    return encode_fields(id=DONE)


class EventStreamResponse(StreamingResponse):
    """The description of an event stream; made by `event_stream`."""

    faces = (EventStream, AsyncEventStream)
    last_event_id: str | None = None

    def __init__(
        self,
        producer: Producer | Iterable[Any] | AsyncIterable[Any],
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
            base = Options.of(options, {})
            options = base.merged(Options(heartbeat=heartbeat))
        super().__init__(producer, content_type=content_type, options=options, **more)
        encode_fields("", event, id, retry)  # what cannot be sent is refused here
        self.event, self.id, self.retry = event, id, retry
        self.json = json
        if json is not None and not callable(json):
            raise OptionsError([f"json: wanted a function that returns str or bytes, got {json!r}"])
        if replay is not None and not callable(getattr(replay, "since", None)):
            raise ProducerError(f"replay: wanted an object with since(last_event_id), got {replay!r}")
        self.replay = replay
        self.last_event_id_param = last_event_id_param
        self.end_event = end_event
        self._source: Any = producer
        self._remember: Callable[[ServerSentEvent], None] | None = getattr(replay, "add", None)
        self._has_defaults = (event, id, retry) != (None, None, None)

    def encode_fields(self, data: Any, event: Any, id: Any, retry: Any) -> bytes:
        """The bytes of one event, with this stream's defaults for what was left out."""
        if data is None:
            data = "null"
        elif data is _LEFT_OUT:
            data = None
        event = self.event if event is _LEFT_OUT else event
        id = self.id if id is _LEFT_OUT else id
        retry = self.retry if retry is _LEFT_OUT else retry
        chunk = encode_fields(data, event, id, retry, self.json)
        if self._remember is not None and id is not None:
            self._remember(ServerSentEvent(data, event, id, retry))
        return chunk

    def encode_item(self, item: Any) -> bytes:
        """The bytes of one item of an iterable producer."""
        if isinstance(item, ServerSentEvent):
            return self.encode_fields(
                _LEFT_OUT if item.data is None else item.data,
                _LEFT_OUT if item.event is None else item.event,
                _LEFT_OUT if item.id is None else item.id,
                _LEFT_OUT if item.retry is None else item.retry,
            )
        return self.encode_fields(item, _LEFT_OUT, _LEFT_OUT, _LEFT_OUT)

    def for_request(self, request: Any) -> StreamingResponse:
        """This description with what the client said; an empty answer for one that is not to come back."""
        last = header_of(request, "last-event-id")
        if last is None and self.last_event_id_param is not None:
            last = query_of(request, self.last_event_id_param)
        if last == DONE:
            return StreamingResponse((), status=_NO_CONTENT, content_type=None, callback=self.callback)
        mine = copy.copy(self)
        mine.last_event_id = last or None
        missed = self.replay if mine.last_event_id is not None else None
        if self.kind is Kind.ITERABLE:
            mine.producer = Items(mine, self._source, missed)
        elif self.kind is Kind.ASYNC_ITERABLE:
            mine.producer = AsyncItems(mine, self._source, missed)
        elif missed is not None or self.end_event:
            mine.producer = (async_function if self.kind.is_async else function)(mine, self._source, missed)
        return mine

    def last_words(self, outcome: str) -> bytes:
        """What tells the page how its stream has ended, where that is wanted."""
        return encode_fields({"outcome": outcome}, END_EVENT) if self.end_event else b""


# To describe is all that `event_stream` does, so it is the description's own constructor.
event_stream = EventStreamResponse
