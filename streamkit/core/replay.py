"""Events that a client missed, and how they come before those that are made for it.

Rule: what was replayed is not sent again by the producer behind it; where nobody knows what was
missed, the client is told so, by one event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any, Protocol

from ..errors import OptionsError
from .events import ServerSentEvent

RESET_EVENT = "stream-reset"


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


class Described(Protocol):
    """The description for one request."""

    last_event_id: str | None
    end_event: bool
    keep_open: bool

    def encode_item(self, item: Any) -> bytes: ...

    def last_words(self, outcome: str) -> bytes: ...


def missed_by(response: Described, found: Iterable[ServerSentEvent] | None) -> list[ServerSentEvent]:
    """What a client gets before the live events; a reset where nobody knows what it missed."""
    if found is None:
        return [ServerSentEvent({"last_event_id": response.last_event_id}, RESET_EVENT)]
    return list(found)


def function(response: Described, producer: Any, replay: Replay | None) -> Any:
    """A synchronous producer that is called when the client has what it missed."""

    def with_replay(stream: Any) -> Any:
        if replay is not None and response.last_event_id is not None:
            for event in missed_by(response, replay.since(response.last_event_id)):
                stream.write(response.encode_item(event))
        result = producer(stream)
        if response.end_event and not response.keep_open and not stream.closed:
            stream.write(response.last_words("finished"))
        return result

    return with_replay


def async_function(response: Described, producer: Any, replay: Replay | None) -> Any:
    """The same for an asynchronous one."""

    async def with_replay(stream: Any) -> Any:
        if replay is not None and response.last_event_id is not None:
            found: Any = replay.since(response.last_event_id)
            if isinstance(found, Awaitable):
                found = await found
            for event in missed_by(response, found):
                await stream.write(response.encode_item(event))
        result = await producer(stream)
        if response.end_event and not response.keep_open and not stream.closed:
            await stream.write(response.last_words("finished"))
        return result

    return with_replay


class Items:
    """An iterable producer, as the events that it gives."""

    def __init__(self, response: Described, source: Iterable[Any], replay: Replay | None) -> None:
        self._response, self._source, self._replay = response, source, replay

    def __iter__(self) -> Iterator[bytes]:
        response, seen = self._response, set[str]()
        iterator = iter(self._source)
        try:
            if self._replay is not None and response.last_event_id is not None:
                for event in missed_by(response, self._replay.since(response.last_event_id)):
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


class AsyncItems:
    """The same for an asynchronous one."""

    def __init__(self, response: Described, source: AsyncIterable[Any], replay: Replay | None) -> None:
        self._response, self._source, self._replay = response, source, replay

    async def __aiter__(self) -> AsyncIterator[bytes]:
        response, seen = self._response, set[str]()
        iterator = aiter(self._source)
        try:
            if self._replay is not None and response.last_event_id is not None:
                found: Any = self._replay.since(response.last_event_id)
                if isinstance(found, Awaitable):
                    found = await found
                for event in missed_by(response, found):
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
