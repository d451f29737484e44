"""Server-sent events as bytes: SSE1 to SSE9, E1 to E4 as far as one event shows them."""

from __future__ import annotations

import itertools
import json
import sys
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from enum import Enum, IntEnum
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.core import events
from streamkit.core.events import (
    HEARTBEAT,
    Decoder,
    ServerSentEvent,
    comment,
    encode,
    encode_fields,
)
from streamkit.errors import EventFieldError, StreamKitError


def decoded(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def seen_by_httpx(*chunks: bytes) -> list[httpx_sse.ServerSentEvent]:
    """What the second judge makes of it: an independent decoder, over its public face."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))
    return list(httpx_sse.EventSource(response).iter_sse())


@pytest.fixture(params=["orjson", "stdlib"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A test runs with orjson, where it is installed, and once more without it."""
    if request.param == "stdlib":
        monkeypatch.setitem(sys.modules, "orjson", None)
    events.json_encoder.cache_clear()
    yield request.param
    events.json_encoder.cache_clear()


# The scenarios


@pytest.mark.usefixtures("encoder")
def test_text_is_sent_as_it_is_and_objects_as_json() -> None:
    """SSE1"""
    assert encode('{"name":"John"}') == b'data: {"name":"John"}\n\n'
    assert encode({"name": "John"}) == b'data: {"name":"John"}\n\n'


def test_event_id_and_retry_are_one_line_each() -> None:
    """SSE2, SSE3, SSE4, E1, E2"""
    assert encode(ServerSentEvent("a", event="tick")) == b"event: tick\ndata: a\n\n"
    assert encode(ServerSentEvent("a", retry=1500)) == b"retry: 1500\ndata: a\n\n"
    assert encode(ServerSentEvent("a", id=1)) == b"id: 1\ndata: a\n\n"
    assert encode(ServerSentEvent("a", id="2")) == b"id: 2\ndata: a\n\n"


def test_two_lines_of_data_are_two_data_lines_of_one_event() -> None:
    """SSE5, E3"""
    assert encode("first line.\nsecond line.") == b"data: first line.\ndata: second line.\n\n"


@pytest.mark.parametrize("data", ["a", "a\nb", {"a": [1, 2]}, ""])
@pytest.mark.parametrize("fields", [{}, {"event": "e"}, {"id": 1, "retry": 2}, {"event": "", "id": "1"}])
def test_an_event_is_one_bytes_object_that_a_blank_line_ends(data: Any, fields: dict[str, Any]) -> None:
    """SSE6"""
    made = encode(ServerSentEvent(data, **fields))
    assert type(made) is bytes
    assert made.endswith(b"\n\n")
    assert made.count(b"\n\n") == 1
    assert made == encode_fields(data, **fields)


def test_the_order_is_retry_event_id_data_and_zero_and_empty_text_are_sent_but_none_is_not() -> None:
    """SSE7"""
    assert encode(ServerSentEvent("a", "e", "1", 5)) == b"retry: 5\nevent: e\nid: 1\ndata: a\n\n"
    assert encode(ServerSentEvent("", "", "", 0)) == b"retry: 0\nevent: \nid: \ndata: \n\n"
    assert encode(ServerSentEvent(0, id=0)) == b"id: 0\ndata: 0\n\n"
    assert encode(ServerSentEvent("a", None, None, None)) == b"data: a\n\n"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_each_end_of_line_in_data_begins_a_data_line(end: str) -> None:
    """SSE8"""
    assert encode(f"a{end}b{end}{end}event: no") == b"data: a\ndata: b\ndata: \ndata: event: no\n\n"
    assert encode(end) == b"data: \ndata: \n\n"


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\r", "\r\n", "a\n\ndata: injected"])
def test_an_end_of_line_in_event_or_id_is_refused(field: str, value: str) -> None:
    """SSE8, E1"""
    with pytest.raises(ValueError, match=f"^{field}: wanted a str without CR") as caught:
        encode(ServerSentEvent("a", **{field: value}))
    assert isinstance(caught.value, EventFieldError)
    assert isinstance(caught.value, StreamKitError)
    assert (caught.value.field, caught.value.value) == (field, value)


def test_nul_is_refused_in_an_id_and_allowed_elsewhere() -> None:
    """SSE8"""
    with pytest.raises(EventFieldError, match=r"^id: wanted a str without CR, LF and NUL"):
        encode(ServerSentEvent("a", id="1\0"))
    assert decoded(encode(ServerSentEvent("\0", event="\0"))) == [ServerSentEvent("\0", "\0")]


@pytest.mark.usefixtures("encoder")
def test_what_is_no_text_is_json() -> None:
    """SSE9"""
    assert encode(5) == b"data: 5\n\n"
    assert encode(True) == b"data: true\n\n"
    assert encode([None, 1.5, "ü\u2028\n"]) == 'data: [null,1.5,"ü\u2028\\n"]\n\n'.encode()


def test_none_is_no_data_and_the_text_null_is_json_null() -> None:
    """SSE9, differently: a stream must be able to send an id alone"""
    assert encode(ServerSentEvent(id="1")) == b"id: 1\n\n"
    assert encode("null") == b"data: null\n\n"


@pytest.mark.parametrize("retry", [1.5, 1000.0, "1000", True, False, -1, 2**64, b"1", [1]])
def test_a_retry_that_is_no_whole_number_of_milliseconds_is_refused(retry: Any) -> None:
    """SSE9"""
    with pytest.raises(EventFieldError, match=r"^retry: wanted whole milliseconds") as caught:
        encode(ServerSentEvent("a", retry=retry))
    assert caught.value.value is retry


@pytest.mark.usefixtures("encoder")
def test_a_time_can_be_sent() -> None:
    """E4"""
    assert (
        encode(datetime(2024, 5, 17, 12, 30, tzinfo=timezone.utc)) == b'data: "2024-05-17T12:30:00+00:00"\n\n'
    )


# Fields


def test_an_event_may_be_an_id_or_a_retry_alone() -> None:
    assert encode(ServerSentEvent(retry=100, id=7)) == b"retry: 100\nid: 7\n\n"
    assert encode(ServerSentEvent(event="e")) == b"event: e\n\n"


@pytest.mark.parametrize("empty", [None, ServerSentEvent()])
def test_an_event_of_nothing_is_refused(empty: Any) -> None:
    with pytest.raises(EventFieldError, match=r"^data: wanted something, as event, id and retry are None"):
        encode(empty)


@pytest.mark.parametrize("value", [1.5, b"1", True, ["1"], uuid.UUID(int=1)])
def test_a_type_is_text_and_an_id_is_text_or_a_whole_number(value: Any) -> None:
    with pytest.raises(EventFieldError, match=r"^event: wanted a str, got"):
        encode_fields("a", value)
    with pytest.raises(EventFieldError, match=r"^id: wanted a str or an int, got"):
        encode_fields("a", id=value)


@pytest.mark.parametrize("field", ["data", "event", "id"])
def test_a_lone_surrogate_is_refused_by_the_name_of_its_field(field: str) -> None:
    fields = {"data": "a", field: "x\udc80y"}
    with pytest.raises(EventFieldError, match=f"^{field}: wanted text without lone surrogates"):
        encode_fields(**fields)


@pytest.mark.usefixtures("encoder")
def test_a_lone_surrogate_in_json_is_refused_too() -> None:
    with pytest.raises(EventFieldError, match=r"^data: wanted text without lone surrogates.*got dict: \{'a'"):
        encode_fields({"a": "\ud800"}, "e", "1")


def test_a_refusal_shows_the_beginning_of_a_long_value() -> None:
    with pytest.raises(EventFieldError, match=r"got str: 'a{56}\.\.\.$"):
        encode_fields("a", "a" * 1000 + "\n")


class Colour(str, Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Loud(str):
    def __str__(self, *spec: str) -> str:
        return "LOUD"

    __format__ = __str__


def test_a_subclass_of_text_or_of_a_number_is_sent_by_its_value_on_every_python() -> None:
    assert encode(ServerSentEvent(Colour.RED, Colour.RED, Colour.RED, Level.HIGH)) == (
        b"retry: 3\nevent: red\nid: red\ndata: red\n\n"
    )
    assert encode_fields(Loud("a"), Loud("b"), Loud("c")) == b"event: b\nid: c\ndata: a\n\n"
    assert encode_fields("a", id=Level.HIGH) == b"id: 3\ndata: a\n\n"


def test_an_event_is_a_frozen_value() -> None:
    event = ServerSentEvent({"a": 1}, id="1")
    assert event == ServerSentEvent(data={"a": 1}, event=None, id="1", retry=None)
    assert repr(event) == "ServerSentEvent(data={'a': 1}, event=None, id='1', retry=None)"
    with pytest.raises(AttributeError):
        event.data = "b"  # type: ignore[misc]


# JSON


@dataclass
class Point:
    x: int
    y: int
    _seen: bool = False


Pair = namedtuple("Pair", "left right")

SAME_WITH_AND_WITHOUT_ORJSON = [
    ({"ü": "€", "a": None}, '{"ü":"€","a":null}'),
    (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
    ({1: "a", None: "b", False: "c"}, '{"1":"a","null":"b","false":"c"}'),
    (2**70, str(2**70)),
    (Pair(1, (2, 3)), "[1,[2,3]]"),
    ([float("nan"), float("inf"), -float("inf"), 0.1], "[null,null,null,0.1]"),
    ({2**70: float("nan")}, f'{{"{2**70}":null}}'),
    (datetime(2024, 5, 17, 12, 30, 0, 250), '"2024-05-17T12:30:00.000250"'),
    (date(2024, 5, 17), '"2024-05-17"'),
    (time(12, 30), '"12:30:00"'),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    ([Colour.RED, Level.HIGH], '["red",3]'),
    ({"p": Point(1, 2)}, '{"p":{"x":1,"y":2}}'),
]


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize(("data", "text"), SAME_WITH_AND_WITHOUT_ORJSON, ids=lambda value: str(value)[:30])
def test_json_is_the_same_with_and_without_orjson(data: object, text: str) -> None:
    assert encode(data) == f"data: {text}\n\n".encode()


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"bytes", "no bytes"),
        ({1, 2}, "no set"),
        ([object()], "no object"),
        (Point, "no type"),
        ({(1, 2): 3}, "keys must be str"),
        (CIRCLE, "Circular reference"),
    ],
    ids=["bytes", "set", "object", "class", "key", "circle"],
)
def test_what_json_cannot_carry_is_refused_with_the_reason(data: Any, says: str) -> None:
    with pytest.raises(EventFieldError, match=f"^data: wanted text, or what JSON can carry .{says}"):
        encode(data)


@pytest.mark.usefixtures("encoder")
def test_an_own_encoder_takes_the_place_of_ours_for_all_but_text() -> None:
    assert encode({1}, json=lambda data: json.dumps(sorted(data))) == b"data: [1]\n\n"
    assert encode(ServerSentEvent({1}, "e"), json=lambda data: b'"bytes"') == b'event: e\ndata: "bytes"\n\n'
    assert encode("text", json=lambda data: "never") == b"data: text\n\n"


def test_an_own_encoder_may_indent() -> None:
    made = encode({"a": 1, "b": 2}, json=lambda data: json.dumps(data, indent=1))
    assert made == b'data: {\ndata:  "a": 1,\ndata:  "b": 2\ndata: }\n\n'
    assert json.loads(decoded(made)[0].data) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("made", "wanted"), [(None, "str or bytes"), (bytearray(b"a"), "str or bytes"), (b"\xff", "UTF-8")]
)
def test_an_own_encoder_that_returns_neither_text_nor_utf_8_is_named(made: Any, wanted: str) -> None:
    with pytest.raises(EventFieldError, match=f"^data: wanted {wanted} from the encoder given as json"):
        encode(1, json=lambda data: made)


def test_an_error_of_an_own_encoder_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        encode(1, json=lambda data: str(data // 0))


def test_a_comment_is_lines_with_a_colon_and_a_blank_line() -> None:
    assert comment("hello") == b": hello\n\n"
    assert comment("") == b": \n\n"
    assert comment("a\nb\r\nc\rdata: d\n") == b": a\n: b\n: c\n: data: d\n: \n\n"


def test_a_comment_is_text() -> None:
    with pytest.raises(EventFieldError, match=r"^comment: wanted a str, got bytes"):
        comment(b"a")  # type: ignore[arg-type]
    with pytest.raises(EventFieldError, match=r"^comment: wanted text without lone surrogates"):
        comment("\ud800")


def test_a_heartbeat_is_nothing_to_either_judge_also_after_an_id_and_inside_an_event() -> None:
    stream = [
        HEARTBEAT,
        encode(ServerSentEvent("a", id="1")),
        HEARTBEAT,
        b"data: b\n",
        HEARTBEAT,
        b"data: c\n\n",
    ]
    assert [event.data for event in decoded(*stream)] == ["a", "b\nc"]
    assert [event.data for event in seen_by_httpx(*stream)] == ["a", "b\nc"]


# There and back

AWKWARD = st.sampled_from("\r\n \t\0:\ufeff\u2028\x85\x0c\x1eab")
TEXT = st.text(st.one_of(AWKWARD, st.characters(codec="utf-8")), max_size=20)
ONE_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=10)
EVENTS = st.lists(
    st.builds(
        ServerSentEvent,
        data=TEXT,
        event=st.none() | ONE_LINE,
        id=st.none() | ONE_LINE,
        retry=st.none() | st.integers(0, 2**64 - 1),
    ),
    max_size=4,
)
CUTS = st.lists(st.integers(0, 200), max_size=8)


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(sent=EVENTS, cuts=CUTS, beats=st.booleans())
def test_any_events_in_any_cut_come_back_to_us_and_to_an_independent_decoder(
    sent: list[ServerSentEvent], cuts: list[int], beats: bool
) -> None:
    between = HEARTBEAT if beats else b""
    chunks = pieces(b"".join(encode(event) + between for event in sent), cuts)
    expected, id_in_force = [], None
    for event in sent:
        id_in_force = id_in_force if event.id is None else event.id
        data = event.data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append(ServerSentEvent(data, event.event or None, id_in_force, event.retry))
    assert decoded(*chunks) == expected
    assert [(event.data, event.event, event.id, event.retry) for event in seen_by_httpx(*chunks)] == [
        (event.data, event.event or "message", event.id or "", event.retry) for event in expected
    ]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=TEXT)
def test_any_comment_is_nothing(text: str) -> None:
    assert decoded(comment(text), encode("a"), comment(text)) == [ServerSentEvent("a")]
    assert len(seen_by_httpx(comment(text), encode("a"), comment(text))) == 1


@pytest.mark.parametrize("text", ["", "\n", "\n\n", "a\n", " a", "  ", ":", "\ufeff", "data: a\n\ndata: b"])
def test_text_that_looks_like_the_format_comes_back_as_it_was(text: str) -> None:
    assert decoded(encode(text)) == [ServerSentEvent(text)]
    assert [event.data for event in seen_by_httpx(encode(text))] == [text]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    data=st.recursive(
        st.booleans() | st.integers(-(2**80), 2**80) | st.floats(-1e300, 1e300) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ).filter(lambda data: not isinstance(data, str))
)
def test_any_json_comes_back_with_and_without_orjson(data: Any) -> None:
    for encoded in (encode(data), encode(data, json=events._stdlib_json)):
        assert encoded.count(b"\n") == 2
        assert json.loads(decoded(encoded)[0].data) == data
