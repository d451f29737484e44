"""Server-sent events as bytes, and bytes as server-sent events.

    encode(ServerSentEvent({"n": 1}, event="tick", id=7))   # b'event: tick\nid: 7\ndata: {"n":1}\n\n'
    Decoder().feed(b"data: a\n\ndata: b")                   # [ServerSentEvent(data='a')], b has no end yet

The format is that of WHATWG HTML, section 9.2, in whose words the rules below are quoted. It
knows one end of line: CR, LF and CRLF in data all arrive as LF.

Rule: an event is encoded into one `bytes`, so that it is one write; no value may end its line
and begin a field of its own; the decoder makes an event of nothing that a browser would not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from functools import cache, lru_cache
from importlib import import_module
from json import JSONEncoder, loads
from typing import Any, NamedTuple, NoReturn, TypeAlias
from uuid import UUID

from ..errors import EventFieldError, EventTooLong, OptionsError

__all__ = [
    "HEARTBEAT",
    "Decoder",
    "ServerSentEvent",
    "comment",
    "encode",
    "encode_fields",
    "id_text",
    "json_text",
]

ToJSON: TypeAlias = Callable[[Any], "str | bytes"]

# No blank line: httpx-sse 0.4, and decoders written after it, make an empty event of one
# wherever an id was sent before (its issue 35). The comment alone is nothing to any of them.
HEARTBEAT = b":\n"

LARGEST_RETRY = 2**64 - 1  # milliseconds; Blink ignores what 64 bits do not hold

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event of an event stream. A field that is None is left out; 0 and "" are sent.

    - `data`: text as it is, any other object as JSON (the text "null" for JSON's null). Without
      data, browsers take note of `id` and `retry`, and dispatch no event.
    - `event`: the type; browsers call an event without one "message".
    - `id`: what a client that comes back names in Last-Event-ID; "" makes it forget the last one.
    - `retry`: milliseconds that a client waits before it comes back.

    Nothing is checked until the event is encoded. How decoded events look: see `Decoder`.
    """

    data: Any = None
    event: str | None = None
    id: str | int | None = None
    retry: int | None = None


def encode(event: ServerSentEvent | Any, *, json: ToJSON | None = None) -> bytes:
    """The bytes of one event; anything but a `ServerSentEvent` is the data of one.

    `json(data)` encodes data that is no text, in place of our own encoder; what it raises comes
    through. Raises `EventFieldError`, also for an event of which every field is None.
    """
    if isinstance(event, ServerSentEvent):
        return encode_fields(*event, json)
    return encode_fields(event, None, None, None, json)


def encode_fields(
    data: Any = None,
    event: str | None = None,
    id: str | int | None = None,
    retry: int | None = None,
    json: ToJSON | None = None,
) -> bytes:
    """The bytes of one event, from its fields; as `encode`, without a `ServerSentEvent` in between."""
    block = ""
    if retry is not None:
        block = _retry_line(retry)
    if event is not None:
        block += _event_line(event) if isinstance(event, str) else _refused("event", "a str", event)
    if id is not None and type(id) is not int:
        block += _id_line(id)
    if data is None:
        text = None
    else:
        if type(data) is str:
            text = data
        else:
            text = str.__str__(data) if isinstance(data, str) else json_text(data, json)
        if "\n" in text or "\r" in text:
            text = _one_end_of_line(text).replace("\n", "\ndata: ")
    try:
        # In as few steps as may be: this is what each event of a burst costs.
        if type(id) is int:
            if text is None:
                return f"{block}id: {id}\n\n".encode()
            return f"{block}id: {id}\ndata: {text}\n\n".encode()
        if text is not None:
            return f"{block}data: {text}\n\n".encode()
        if not block:
            _refused("data", "something, as event, id and retry are None too", None)
        return f"{block}\n".encode()
    except UnicodeEncodeError:
        raise _surrogate_among(event=event, id=id, data=data) from None


def comment(text: str) -> bytes:
    """Lines that decoders pass over, and a blank line; for a heartbeat, see `HEARTBEAT`.

    Raises `EventFieldError` for what is no text.
    """
    lines = _one_end_of_line(text) if isinstance(text, str) else _refused("comment", "a str", text)
    try:
        return f": {lines}".replace("\n", "\n: ").encode() + b"\n\n"
    except UnicodeEncodeError:
        raise _surrogate_among(comment=text) from None


def _one_end_of_line(text: str) -> str:
    # Not str.splitlines: it also splits at U+2028, form feed and others, which end no line here.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refused(field: str, wanted: str, value: object) -> NoReturn:
    raise EventFieldError(field, wanted, value)


def _surrogate_among(**values: object) -> EventFieldError:
    """The error for that of these values which UTF-8 cannot carry."""
    at_fault = (
        field
        for field, text in values.items()
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text)
    )
    field = next(at_fault, "data")  # where no text is, the JSON of the data
    return EventFieldError(field, "text without lone surrogates, which UTF-8 cannot carry", values[field])


@lru_cache(256)  # a stream has few types of events, and sends each many times
def _event_line(event: str) -> str:
    if "\n" in event or "\r" in event:
        _refused("event", "a str without CR and LF", event)
    return f"event: {str.__str__(event)}\n"


def _id_line(id: str | int) -> str:
    if isinstance(id, str):
        # "If the field value does not contain U+0000 NULL": an id with one is ignored by browsers.
        if "\n" in id or "\r" in id or "\0" in id:
            _refused("id", "a str without CR, LF and NUL", id)
    elif isinstance(id, bool) or not isinstance(id, int):
        _refused("id", "a str or an int", id)
    return f"id: {id_text(id)}\n"


def id_text(id: object) -> str:
    """An id as it is sent, and comes back: that of a member of an enumeration is its value."""
    if isinstance(id, str):
        return str.__str__(id)
    return int.__repr__(id) if isinstance(id, int) and not isinstance(id, bool) else str(id)


def _retry_line(retry: int) -> str:
    # "If the field value consists of only ASCII digits": no sign, no fraction.
    if isinstance(retry, bool) or not isinstance(retry, int) or not 0 <= retry <= LARGEST_RETRY:
        _refused("retry", "whole milliseconds (an int from 0 to 2**64 - 1)", retry)
    return f"retry: {int(retry)}\n"


def json_text(data: object, own: ToJSON | None = None) -> str:
    """Data that is no text, as `encode` sends it. Raises `EventFieldError`."""
    if own is None:
        try:
            return json_encoder()(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise EventFieldError("data", f"text, or what JSON can carry ({error})", data) from error
    made = own(data)
    if isinstance(made, bytes):
        try:
            return made.decode()
        except UnicodeDecodeError:
            _refused("data", "UTF-8 from the encoder given as json", made)
    if not isinstance(made, str):
        _refused("data", "str or bytes from the encoder given as json", made)
    return str.__str__(made)


@cache
def json_encoder() -> Callable[[Any], str]:
    """orjson where it is installed, because it is faster; it changes nothing else.

    What orjson refuses (integers over 64 bits, keys that are no text, named tuples) goes to the
    standard library, and what only orjson knows (dates, UUIDs, enums, dataclasses) goes to both.
    """
    try:
        dumps: Callable[[Any], bytes] = import_module("orjson").dumps
    except ImportError:
        return _stdlib_json

    def orjson_or_stdlib(value: Any) -> str:
        try:
            return dumps(value).decode()
        except TypeError:
            return _stdlib_json(value)

    return orjson_or_stdlib


def _stdlib_json(value: Any) -> str:
    try:
        return _strict_json(value)
    except ValueError:
        # NaN and Infinity are no JSON; JSON.stringify and orjson make null of them.
        return _strict_json(loads(_loose_json(value), parse_constant=lambda name: None))


def _as_json(value: object) -> object:
    """What the standard library does not know, as orjson sees it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return {name: getattr(value, name) for name in names if not name.startswith("_")}
    raise TypeError(f"no {type(value).__name__}")


_strict_json = JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_as_json
).encode
_loose_json = JSONEncoder(ensure_ascii=False, default=_as_json).encode


class Decoder:
    """Makes events of the bytes of an event stream, however they are cut.

        for event in decoder.feed(chunk):
            print(event.event or "message", event.data, event.id)

    Of a decoded event, `data` is the text; `event` is None where none, or an empty one, was sent;
    `id` is the last id in force, also if an earlier event brought it, and None before the first;
    `retry` is what this event brought. Blocks without data give no event, but their `id` and
    `retry` count. Bytes that are no UTF-8 become U+FFFD. An event that is not complete at the end
    is nothing: there is no call for the end.

    - `last_event_id`: the id in force; begins as what was sent in Last-Event-ID, "" for none.
    - `retry`: the last reconnection time that was sent, in milliseconds, or None.
    - `limit`: bytes that a line and the lines of one event's data may have, None for no limit.
    """

    __slots__ = (
        "_after_cr", "_at_start", "_block_retry", "_data", "_event", "_held", "_id", "_limit", "_line",
        "_overrun", "last_event_id", "retry",
    )  # fmt: skip

    def __init__(self, *, last_event_id: str = "", limit: int | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise OptionsError([f"limit: wanted a number of bytes from 1 up, or None, got {limit!r}"])
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._limit = sys.maxsize if limit is None else limit
        self._overrun = False
        self._line = bytearray()  # begun, but not ended yet
        self._at_start = True  # no line has ended yet: a BOM may stand before the first
        self._after_cr = False  # an LF that comes next belongs to the line that has ended
        self._id: str | None = last_event_id or None
        self._event = ""
        self._data: list[bytes] = []
        self._held = 0  # bytes of the lines in `_data`
        self._block_retry: int | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[ServerSentEvent]:
        """The events that these bytes complete. Raises `EventTooLong`, and then ever again."""
        if self._overrun:
            self._refuse([])
        events: list[ServerSentEvent] = []
        lines, rest = self._split(data if isinstance(data, bytes) else bytes(memoryview(data)))
        for line in lines:
            if self._held + len(line) > self._limit:
                self._refuse(events)
            event = self._take(line)
            if event is not None:
                events.append(event)
        self._line += rest
        if self._held + len(self._line) > self._limit:
            self._refuse(events)
        return events

    def _split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The lines that end in these bytes, and the beginning of the next one."""
        if not data:
            return [], b""
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()  # of bytes: at CR, LF and CRLF, and nowhere else
        rest = lines.pop() if lines and not data.endswith((b"\r", b"\n")) else b""
        if lines:
            if self._line:
                lines[0] = bytes(self._line) + lines[0]
                self._line.clear()
            if self._at_start:
                lines[0] = lines[0].removeprefix(_BOM)
                self._at_start = False
        return lines, rest

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        # The name of a comment is empty; as any unknown name, it is ignored.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._held += len(line) + 1
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry":
            self._take_retry(value)
        return None

    def _take_retry(self, digits: bytes) -> None:
        # `bytes.isdigit` knows ASCII only. int() takes quadratic time, so not of any length.
        if digits.isdigit() and len(digits) <= 64 and int(digits) <= LARGEST_RETRY:
            self.retry = self._block_retry = int(digits)

    def _dispatch(self) -> ServerSentEvent | None:
        """What a blank line makes of the lines before it."""
        data, event, retry = self._data, self._event, self._block_retry
        self._data, self._event, self._block_retry, self._held = [], "", None, 0
        self.last_event_id = self._id or ""
        if not data:
            return None
        return ServerSentEvent(_text(b"\n".join(data)), event or None, self._id, retry)

    def _refuse(self, events: list[ServerSentEvent]) -> NoReturn:
        self._overrun = True
        self._line.clear()
        self._data.clear()
        raise EventTooLong(self._limit, events)


def _text(value: bytes) -> str:
    # No byte of CR, LF or ":" is ever part of a longer character, so that decoding each piece
    # for itself is the "UTF-8 decode" of the whole.
    return value.decode("utf-8", "replace")
