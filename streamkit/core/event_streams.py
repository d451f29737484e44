"""What the producer of an event stream writes to, for threads and for tasks.

Rule: an event is one write. What it leaves out is the description's to say, or was set for the next data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from .events import ServerSentEvent, comment, encode_fields
from .stream import AsyncResponseStream, ResponseStream

DONE = "streamkit.done"  # the id by which a client is known that is not to come back
LEFT_OUT: Any = object()

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
        response = self.response
        if (
            response.is_plain
            and response.kept is None
            and response.had is None
            and data is not None
            and data is not LEFT_OUT
            and not isinstance(data, ServerSentEvent)
        ):  # as below, where there is nothing to look up
            return encode_fields(
                data,
                None if event is LEFT_OUT else event,
                None if id is LEFT_OUT else id,
                None if retry is LEFT_OUT else retry,
                response.json,
            )
        if isinstance(data, ServerSentEvent):
            data, *own = (LEFT_OUT if field is None else field for field in data)
            event = own[0] if event is LEFT_OUT else event
            id = own[1] if id is LEFT_OUT else id
            retry = own[2] if retry is LEFT_OUT else retry
        kept = response.kept
        if kept is not None and data is not LEFT_OUT:
            if event is LEFT_OUT:
                event = kept.get("event", LEFT_OUT)
            if id is LEFT_OUT:
                id = kept.get("id", LEFT_OUT)
            if retry is LEFT_OUT:
                retry = kept.get("retry", LEFT_OUT)
        chunk: bytes = response.encode_fields(data, event, id, retry)
        if data is not LEFT_OUT:
            response.kept = None
        had = response.had
        if had is None or id is LEFT_OUT:
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
        data: Any = LEFT_OUT,
        *,
        event: str | None = LEFT_OUT,
        id: str | int | None = LEFT_OUT,
        retry: int | None = LEFT_OUT,
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
        data: Any = LEFT_OUT,
        *,
        event: str | None = LEFT_OUT,
        id: str | int | None = LEFT_OUT,
        retry: int | None = LEFT_OUT,
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
