"""Server-sent events: describe an event stream, and what its producer writes to.

    def ticks(stream):
        for number in count(int(stream.last_event_id or 0) + 1):
            stream.send({"number": number}, id=number)
            time.sleep(1)

    return streamkit.event_stream(ticks, retry=3000)

An iterable producer gives one event an item: a `ServerSentEvent`, text, or any object (JSON).
Silence is filled with comments, and the head leaves within a second, so that the browser's
`open` fires and no proxy gives up.

Rule: what stands here is said before a request comes, or of one request as a whole; its events
are written by the streams of `core.event_streams`. What the browser does about an end, it is told in
its own words: it comes back after `retry`, unless `done` has told it not to.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from inspect import getattr_static, iscoroutinefunction, isfunction
from typing import Any, TypeAlias

from .core.event_streams import DONE, LEFT_OUT, AsyncEventStream, EventStream
from .core.events import Decoder, ServerSentEvent, ToJSON, encode, encode_fields, json_text
from .core.headers import value_of
from .core.producers import Kind
from .core.replay import AsyncItems, Had, History, Items, Replay, async_function, function
from .core.request import header_of, query_of
from .core.response import StreamingResponse
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
END_EVENT = "streamkit.end"

_EMPTY: Any = {False: (Kind.ITERABLE, ()), True: (Kind.ASYNC_ITERABLE, ())}
_NO_CONTENT = 204  # "A client can be told to stop reconnecting using HTTP 204 No Content" -- 9.2.1


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
        heartbeat: float | None = LEFT_OUT,
        json: ToJSON | None = None,
        replay: Replay | None = None,
        last_event_id_param: str | None = None,
        end_event: bool = False,
        content_type: str | None = CONTENT_TYPE,
        options: Options | Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        if heartbeat is not LEFT_OUT:
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
        elif data is LEFT_OUT:
            data = None
        event = self.event if event is LEFT_OUT else event
        id = self.id if id is LEFT_OUT else id
        retry = self.retry if retry is LEFT_OUT else retry
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
                LEFT_OUT if data is None else data,
                LEFT_OUT if event is None else event,
                LEFT_OUT if id is None else id,
                LEFT_OUT if retry is None else retry,
                keeps=keeps,
            )
        return self.encode_fields(item, LEFT_OUT, LEFT_OUT, LEFT_OUT, keeps=keeps)

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
