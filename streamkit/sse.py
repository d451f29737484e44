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
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from .core.events import (
    Decoder,
    ServerSentEvent,
    ToJSON,
    comment,
    encode,
    encode_fields,
)
from .core.producers import Kind
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
RESET_EVENT = "stream-reset"
END_EVENT = "streamkit.end"

_LEFT_OUT: Any = object()
_NO_CONTENT = 204  # "A client can be told to stop reconnecting using HTTP 204 No Content" -- 9.2.1

Self = TypeVar("Self", bound="_Events")


class Replay(Protocol):
    """Where the events are found that a client missed."""

    def since(self, last_event_id: str, /) -> Iterable[ServerSentEvent] | None:
        """The events after this one, oldest first; None if that is no longer known.

        May be a coroutine function where the producer is asynchronous.
        """


class History:
    """The last `size` events, kept in this process; a `Replay` that fills itself.

    Given as `replay=`, it keeps each event with an id that a stream sends, once whatever the number
    of streams. It may also be filled by hand. Safe to use from any thread.
    """

    def __init__(self, size: int = 1000) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionsError([f"size: wanted a whole number of events from 1 up, got {size!r}"])
        self.size = size
        self._events: OrderedDict[str, ServerSentEvent] = OrderedDict()

    def add(self, event: ServerSentEvent) -> None:
        """Keep this event; one whose id is known, or that has none, changes nothing."""
        if event.id is None:
            return
        # Each of these is one step of the interpreter: no lock, so nothing that one could hold up.
        self._events.setdefault(str(event.id), event)
        while len(self._events) > self.size:
            try:
                self._events.popitem(last=False)
            except KeyError:
                break

    def since(self, last_event_id: str) -> list[ServerSentEvent] | None:
        """The events after this one, oldest first; None if it is not among those kept."""
        kept = list(self._events.items())
        for index, (id, _) in enumerate(kept):
            if id == last_event_id:
                return [event for _, event in kept[index + 1 :]]
        return None

    def __len__(self) -> int:
        return len(self._events)


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
            mine.producer = _Items(mine, self._source, missed)
        elif self.kind is Kind.ASYNC_ITERABLE:
            mine.producer = _AsyncItems(mine, self._source, missed)
        elif missed is not None or self.end_event:
            mine.producer = (_async_function if self.kind.is_async else _function)(mine, self._source, missed)
        return mine

    def last_words(self, outcome: str) -> bytes:
        """What tells the page how its stream has ended, where that is wanted."""
        return (
            encode_fields({"outcome": outcome}, END_EVENT, json=stdlib_json.dumps) if self.end_event else b""
        )


# To describe is all that `event_stream` does, so it is the description's own constructor.
event_stream = EventStreamResponse


def _missed_by(response: EventStreamResponse, found: Iterable[ServerSentEvent] | None) -> list[Any]:
    """What a client gets before the live events; a reset where nobody knows what it missed."""
    if found is None:
        return [ServerSentEvent({"last_event_id": response.last_event_id}, RESET_EVENT)]
    return list(found)


def _function(response: EventStreamResponse, producer: Any, replay: Replay | None) -> Any:
    def with_replay(stream: EventStream) -> Any:
        if replay is not None and response.last_event_id is not None:
            for event in _missed_by(response, replay.since(response.last_event_id)):
                stream.write(response.encode_item(event))
        result = producer(stream)
        if response.end_event and not response.keep_open and not stream.closed:
            stream.write(response.last_words("finished"))
        return result

    return with_replay


def _async_function(response: EventStreamResponse, producer: Any, replay: Replay | None) -> Any:
    async def with_replay(stream: AsyncEventStream) -> Any:
        if replay is not None and response.last_event_id is not None:
            found: Any = replay.since(response.last_event_id)
            if isinstance(found, Awaitable):
                found = await found
            for event in _missed_by(response, found):
                await stream.write(response.encode_item(event))
        result = await producer(stream)
        if response.end_event and not response.keep_open and not stream.closed:
            await stream.write(response.last_words("finished"))
        return result

    return with_replay


class _Items:
    """An iterable producer, as the events that it gives."""

    def __init__(self, response: EventStreamResponse, source: Iterable[Any], replay: Replay | None) -> None:
        self._response, self._source, self._replay = response, source, replay

    def __iter__(self) -> Iterator[bytes]:
        response, seen = self._response, set[str]()
        iterator = iter(self._source)
        try:
            if self._replay is not None and response.last_event_id is not None:
                for event in _missed_by(response, self._replay.since(response.last_event_id)):
                    seen.add(str(event.id))
                    yield response.encode_item(event)
            for item in iterator:
                if seen and isinstance(item, ServerSentEvent) and str(item.id) in seen:
                    continue  # it was among those that the client had missed
                yield response.encode_item(item)
            if response.end_event:
                yield response.last_words("finished")
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        """Close an iterable that was never begun, or once more one that was."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


class _AsyncItems:
    """The same for an asynchronous one."""

    def __init__(
        self, response: EventStreamResponse, source: AsyncIterable[Any], replay: Replay | None
    ) -> None:
        self._response, self._source, self._replay = response, source, replay

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response, seen = self._response, set[str]()
        iterator = aiter(self._source)
        try:
            if self._replay is not None and response.last_event_id is not None:
                found: Any = self._replay.since(response.last_event_id)
                if isinstance(found, Awaitable):
                    found = await found
                for event in _missed_by(response, found):
                    seen.add(str(event.id))
                    yield response.encode_item(event)
            async for item in iterator:
                if seen and isinstance(item, ServerSentEvent) and str(item.id) in seen:
                    continue  # it was among those that the client had missed
                yield response.encode_item(item)
            if response.end_event:
                yield response.last_words("finished")
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    async def aclose(self) -> None:
        """Close an iterable that was never begun, or once more one that was."""
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
