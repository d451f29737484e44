"""Events that a client missed, and how they come before those that are made for it.

    history = History(size=1000)
    return event_stream(feed(), replay=history)

Rule: what a client has had, by its own word or by the replay, is not sent to it again; where
nobody knows what it missed, it is told so, by one event.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from itertools import count
from operator import itemgetter
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

from ..errors import EventFieldError, OptionsError, ProducerError
from .events import ServerSentEvent, encode_fields, id_text

RESET_EVENT = "stream-reset"
_KNOWN = 10  # ids that a history knows, for each event that it keeps: who lags behind brings none back


class Replay(Protocol):
    """Where the events are found that a client missed."""

    def since(self, last_event_id: str, /) -> Iterable[ServerSentEvent] | None:
        """The events after this one, oldest first; None if that is no longer known.

        May be a coroutine function, or an asynchronous generator, where the producer is
        asynchronous. It is asked when the producer's iterator has been made, and before that is
        advanced: an iterable that is there to listen from its `__iter__` on misses nothing in
        between. (The body of a generator begins only when it is advanced, which `History` allows for.)
        """


_histories: WeakSet[History] = WeakSet()


class History:
    """The last `size` events, kept in this process; a `Replay`.

        history.add(event)    # where the event is made, before it is told to those who listen

    Given as `replay=`, it also keeps each event with an id that a stream sends, once whatever the
    number of streams; but what is made while no stream is open it learns from `add` alone. Safe to
    use from any thread.
    """

    _new_mutex: ClassVar[Callable[[], AbstractContextManager[Any]]] = nullcontext

    def __init__(self, size: int = 1000) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionsError([f"size: wanted a whole number of events from 1 up, got {size!r}"])
        self.size = size
        # Whoever asks must not find the later of two events without the other, for which it would never ask
        # again. The thread that has it may take it again: a destructor may add an event in the midst of
        # `add`, whose own is then out of order.
        self._mutex = type(self)._new_mutex()
        _histories.add(self)
        self._events: deque[tuple[int, ServerSentEvent]] = deque(maxlen=size)
        self._places: OrderedDict[str, int] = OrderedDict()  # by id; the order in which they came
        self._count = count(1)

    def add(self, event: ServerSentEvent) -> None:
        """Keep this event; one whose id is known, or that has none, changes nothing."""
        if not isinstance(event, ServerSentEvent):
            raise EventFieldError("event to keep", "a ServerSentEvent", event)
        if not _has_id(event):
            return
        if type(event.id) is not int or event.event is not None or event.retry is not None:
            encode_fields(None, event.event, event.id, event.retry)  # what cannot be sent is refused here
        id = id_text(event.id)
        with self._mutex:
            if id in self._places:
                return
            place = next(self._count)
            _dropped = self._events[0] if self._events else None  # whose destructor runs without the mutex
            self._events.append((place, event))
            self._places[id] = place
            if len(self._places) > _KNOWN * self.size:
                self._places.popitem(last=False)

    def since(self, last_event_id: str) -> list[ServerSentEvent] | None:
        """The events after this one, oldest first; None if they are no longer all kept."""
        with self._mutex:
            place = self._places.get(last_event_id)
            if place is None:
                return None
            kept = sorted(self._events, key=itemgetter(0))
            if kept[0][0] > place + 1:
                return None
            return [event for at, event in kept if at > place and self._places.get(id_text(event.id)) == at]

    def place_of(self, id: str | int) -> int | None:
        """Which event of all that came this was, counted from 1; None if that is not known."""
        return self._places.get(id_text(id))

    def __len__(self) -> int:
        return len(self._events)

    def __reduce__(self) -> tuple[Any, ...]:
        with self._mutex:  # which is no part of a copy
            return type(self), (self.size,), (list(self._events), list(self._places.items()))

    def __setstate__(self, state: tuple[list[Any], list[Any]]) -> None:
        events, places = state
        self._events.extend(events)
        self._places.update(places)
        self._count = count(1 + max(self._places.values(), default=0))


def guarded_by(new_mutex: Callable[[], AbstractContextManager[Any]]) -> None:
    """The engines say what keeps the threads of a history apart; the core knows none."""
    History._new_mutex = staticmethod(new_mutex)


def guard_anew() -> None:
    """After a fork: a thread that was in the midst of something exists in the parent only."""
    for history in _histories:
        history._mutex = type(history)._new_mutex()


class Had:
    """How far one client has come: what it has had, and what is still to be sent to it first."""

    def __init__(self, replay: Any, last_event_id: str) -> None:
        self._replay = replay
        self._history = replay if isinstance(replay, History) else None
        self._last = last_event_id
        self._ids = {last_event_id}
        self._place = 0  # in the history: all up to here it has had
        self._may_have_gap = False  # between the replay and the first live event

    def missed(self, found: Any) -> list[Any]:
        """The events to begin with, of what `since` has found; a reset where that is not known."""
        if found is None:
            self._ids.clear()
            return [ServerSentEvent({"last_event_id": self._last}, RESET_EVENT)]
        if isinstance(found, (str, bytes, ServerSentEvent)) or not isinstance(found, Iterable):
            raise ProducerError(
                f"replay: wanted an iterable of ServerSentEvent, or None, from since() of {self._replay!r}, "
                f"got {_told(found)}"
            )
        events = list(found)
        if self._history is not None:
            self._move_past(events)
            self._may_have_gap = True
        else:
            self._ids.update(id_text(event.id) for event in events if _has_id(event))
        return events

    def _move_past(self, events: list[Any]) -> None:
        assert self._history is not None
        if events:
            self._last = id_text(events[-1].id)
        self._place = self._history.place_of(self._last) or self._place

    def includes(self, id: str | int | None) -> bool:
        """Whether the client has had the event with this id."""
        if id is None or id == "":
            return False
        place = None if self._history is None else self._history.place_of(id)
        return id_text(id) in self._ids if place is None else place <= self._place

    def before(self, item: Any) -> list[Any]:
        """What is to be sent before this live item: what was kept after the replay, and before it."""
        history = self._history
        if history is None or not self._may_have_gap or not _has_id(item) or self.includes(item.id):
            return []
        self._may_have_gap = False
        found = history.since(self._last)
        if found is None:
            return self.missed(None)
        place = history.place_of(item.id)
        if place is not None:
            found = [event for event in found if (history.place_of(event.id or "") or 0) < place]
        self._move_past(found)
        return found


def _has_id(item: Any) -> bool:
    return isinstance(item, ServerSentEvent) and item.id is not None and item.id != ""


def _told(found: Any) -> str:
    """What came, in words; a coroutine is closed, for nobody can await it."""
    if isinstance(found, Awaitable):
        close = getattr(found, "close", None)
        if close is not None:
            close()
        return "an awaitable, which only an asynchronous producer can wait for"
    return repr(found)


async def _found(replay: Any, last_event_id: str) -> Any:
    found = replay.since(last_event_id)
    if isinstance(found, Awaitable):
        found = await found
    return [event async for event in found] if isinstance(found, AsyncIterable) else found


class Described(Protocol):
    """The description, as far as its events go."""

    def encode_item(self, item: Any, *, keeps: bool = True) -> bytes: ...


def function(producer: Any, replay: Replay | None) -> Any:
    """A synchronous producer that is called when the client has what it missed."""

    @wraps(producer)
    def with_replay(stream: Any) -> Any:
        response = stream.response  # not from outside: it holds this function
        last = response.last_event_id
        if replay is not None and last is not None and response.had is None:
            response.had = had = Had(replay, last)
            for event in had.missed(replay.since(last)):
                stream.write(response.encode_item(event, keeps=False))
        return producer(stream)

    return with_replay


def async_function(producer: Any, replay: Replay | None) -> Any:
    """The same for an asynchronous one."""

    @wraps(producer)
    async def with_replay(stream: Any) -> Any:
        response = stream.response
        last = response.last_event_id
        if replay is not None and last is not None and response.had is None:
            response.had = had = Had(replay, last)
            for event in had.missed(await _found(replay, last)):
                await stream.write(response.encode_item(event, keeps=False))
        return await producer(stream)

    return with_replay


class Items:
    """An iterable producer, as the events that it gives."""

    def __init__(
        self, response: Described, source: Iterable[Any], replay: Replay | None, last_event_id: str | None
    ) -> None:
        self._response, self._source = response, source
        self._replay, self._last_event_id = replay, last_event_id
        self._opened: tuple[Any, ...] = (source,)

    def __iter__(self) -> Iterator[bytes]:
        response, had = self._response, None
        try:
            iterator = iter(self._source)
            if iterator is not self._source:
                self._opened = (iterator, self._source)
            if self._replay is not None and self._last_event_id is not None:
                had = Had(self._replay, self._last_event_id)
                for event in had.missed(self._replay.since(self._last_event_id)):
                    yield response.encode_item(event, keeps=False)
            for item in iterator:
                if had is not None:
                    for event in had.before(item):
                        yield response.encode_item(event, keeps=False)
                    if _has_id(item) and had.includes(item.id):
                        continue
                yield response.encode_item(item)
        finally:
            self.close()

    def close(self) -> None:
        """Close what was iterated, once, whether or not that has begun."""
        opened, self._opened = self._opened, ()
        for iterable in opened:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()


class AsyncItems:
    """The same for an asynchronous one."""

    def __init__(
        self,
        response: Described,
        source: AsyncIterable[Any],
        replay: Replay | None,
        last_event_id: str | None,
    ) -> None:
        self._response, self._source = response, source
        self._replay, self._last_event_id = replay, last_event_id
        self._opened: tuple[Any, ...] = (source,)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response, had = self._response, None
        try:
            iterator = aiter(self._source)
            if iterator is not self._source:
                self._opened = (iterator, self._source)
            if self._replay is not None and self._last_event_id is not None:
                had = Had(self._replay, self._last_event_id)
                for event in had.missed(await _found(self._replay, self._last_event_id)):
                    yield response.encode_item(event, keeps=False)
            async for item in iterator:
                if had is not None:
                    for event in had.before(item):
                        yield response.encode_item(event, keeps=False)
                    if _has_id(item) and had.includes(item.id):
                        continue
                yield response.encode_item(item)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close what was iterated, once, whether or not that has begun."""
        opened, self._opened = self._opened, ()
        for iterable in opened:
            close = getattr(iterable, "aclose", None)
            if close is not None:
                await close()
