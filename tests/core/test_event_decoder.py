"""How the bytes of an event stream become events.

Rule: the rules of WHATWG HTML 9.2.6 and of the Encoding standard's UTF-8 decoder are written out
here once more, step by step over the whole stream, as `events_by_the_rules`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.core.events import Decoder, ServerSentEvent, encode
from streamkit.errors import EventTooLong, OptionsError, StreamKitError

BOM = b"\xef\xbb\xbf"


def pieces(whole: bytes, cuts: list[int]) -> Iterator[bytes]:
    """`whole` in pieces, empty ones among them."""
    start = 0
    for end in sorted(cuts):
        yield whole[start:end]
        start = max(start, min(end, len(whole)))
    yield whole[start:]


def decoded(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def data_of(*chunks: bytes) -> list[str]:
    return [event.data for event in decoded(*chunks)]


# The rules, once more


def utf8_by_the_rules(octets: bytes) -> str:
    """Encoding standard, 8.1.1: the UTF-8 decoder, byte for byte."""
    text: list[str] = []
    point = needed = seen = 0
    lower, upper = 0x80, 0xBF
    place = 0
    while place < len(octets):
        byte = octets[place]
        place += 1
        if not needed:
            if byte <= 0x7F:
                text.append(chr(byte))
            elif 0xC2 <= byte <= 0xDF:
                needed, point = 1, byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                lower = 0xA0 if byte == 0xE0 else 0x80
                upper = 0x9F if byte == 0xED else 0xBF
                needed, point = 2, byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                lower = 0x90 if byte == 0xF0 else 0x80
                upper = 0x8F if byte == 0xF4 else 0xBF
                needed, point = 3, byte & 0x7
            else:
                text.append("\ufffd")
        elif not lower <= byte <= upper:
            point = needed = seen = 0
            lower, upper = 0x80, 0xBF
            place -= 1  # "Restore byte to ioQueue."
            text.append("\ufffd")
        else:
            lower, upper = 0x80, 0xBF
            point, seen = (point << 6) | (byte & 0x3F), seen + 1
            if seen == needed:
                text.append(chr(point))
                point = needed = seen = 0
    return "".join(text) + ("\ufffd" if needed else "")


def events_by_the_rules(octets: bytes) -> tuple[list[tuple[str, str, str]], str, int | None]:
    """What is dispatched (type, data, lastEventId), the last event ID string, the reconnection time."""
    text = utf8_by_the_rules(octets.removeprefix(BOM))
    lines = re.split("\r\n|\r|\n", text)[:-1]
    dispatched = []
    data = kind = id_buffer = last_event_id = ""
    reconnection: int | None = None
    for line in lines:
        if line == "":
            last_event_id = id_buffer
            if data != "":
                dispatched.append((kind or "message", data[:-1], last_event_id))
            data = kind = ""
            continue
        field, _, value = line.partition(":")
        if value[:1] == " ":
            value = value[1:]
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            reconnection = int(value)
    return dispatched, last_event_id, reconnection


TOKENS = st.one_of(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b":",
            b" ",
            b"\0",
            BOM,
            b"data",
            b"data:",
            b"event:",
            b"id:",
            b"id: 7",
        ]
    ),
    st.sampled_from(
        [b"retry:", b"12", b"\xd9\xa3", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0c", b"\xe2\x82", b"\xf0\x9f"]
    ),
    st.binary(max_size=4),
    st.text(max_size=3).map(str.encode),
)
STREAMS = st.lists(TOKENS, max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=8)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(stream=STREAMS, cuts=CUTS)
def test_any_bytes_in_any_cut_are_read_by_the_rules_of_the_standard(stream: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    events = [event for piece in pieces(stream, cuts) for event in decoder.feed(piece)]
    dispatched = [(event.event or "message", event.data, event.id or "") for event in events]
    assert (dispatched, decoder.last_event_id, decoder.retry) == events_by_the_rules(stream)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(octets=st.binary(max_size=12))
def test_bytes_that_are_no_utf_8_become_as_many_replacement_characters_as_in_a_browser(octets: bytes) -> None:
    octets = octets.translate(None, b"\r\n")
    assert data_of(b"data: " + octets + b"\n\n") == [utf8_by_the_rules(octets)]


@pytest.mark.parametrize(
    "octets", [b"\xf0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xc0\xaf"]
)
def test_overlong_surrogate_and_unfinished_sequences_are_replaced_as_in_a_browser(octets: bytes) -> None:
    assert data_of(b"data:" + octets + b"\n\n") == [utf8_by_the_rules(octets)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(stream=STREAMS)
def test_what_was_decoded_can_be_encoded_and_is_then_decoded_to_the_same(stream: bytes) -> None:
    events = decoded(stream)
    assert decoded(*map(encode, events)) == events


# What a decoded event holds


def test_a_field_that_was_not_sent_is_none() -> None:
    assert decoded(b"data: a\n\n") == [ServerSentEvent("a")]
    assert decoded(b"event: e\nid: 1\nretry: 5\ndata: a\n\n") == [ServerSentEvent("a", "e", "1", 5)]


def test_an_empty_type_is_no_type() -> None:
    assert decoded(b"event:\ndata: a\n\n") == [ServerSentEvent("a")]


def test_the_id_stays_in_force_until_another_comes_and_none_means_that_there_never_was_one() -> None:
    ids = [event.id for event in decoded(b"data:\n\nid: 1\ndata:\n\ndata:\n\nid\ndata:\n\ndata:\n\n")]
    assert ids == [None, "1", "1", "", ""]


def test_a_decoder_goes_on_with_the_id_of_the_connection_before() -> None:
    decoder = Decoder(last_event_id="41")
    assert decoder.feed(b"data: a\n\n") == [ServerSentEvent("a", id="41")]
    assert decoder.last_event_id == "41"


def test_the_type_and_the_retry_belong_to_one_event() -> None:
    assert decoded(b"event: e\nretry: 5\ndata: a\n\ndata: b\n\n") == [
        ServerSentEvent("a", "e", retry=5),
        ServerSentEvent("b"),
    ]


def test_a_block_without_data_gives_no_event_but_its_id_and_retry_count() -> None:
    decoder = Decoder()
    assert decoder.feed(b"event: e\nid: 9\nretry: 100\n\n") == []
    assert (decoder.last_event_id, decoder.retry) == ("9", 100)
    assert decoder.feed(b"data: a\n\n") == [ServerSentEvent("a", id="9")]


def test_an_id_counts_with_its_blank_line_and_a_retry_at_once() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 1\nretry: 5\n")
    assert (decoder.last_event_id, decoder.retry) == ("", 5)
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"1.5",
        b"1e3",
        b" 1",
        b"1 ",
        b"1_000",
        b"x",
        "٣".encode(),
        b"1" * 21,
        b"9" * 100_000,
    ],
)
def test_a_retry_that_is_not_digits_alone_or_fits_no_64_bits_is_ignored(value: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"retry:7\n\nretry: " + value + b"\ndata: a\n\n") == [ServerSentEvent("a")]
    assert decoder.retry == 7


def test_a_retry_may_be_all_that_64_bits_hold() -> None:
    assert decoded(b"retry:18446744073709551615\ndata:\n\n")[0].retry == 2**64 - 1
    assert decoded(b"retry:18446744073709551616\ndata:\n\n")[0].retry is None


# Lines


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_there_as_soon_as_its_blank_line_is(end: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a" + end) == []
    assert decoder.feed(end[:1]) == [ServerSentEvent("a")]
    assert decoder.feed(end[1:] + b"data: b" + end + end) == [ServerSentEvent("b")]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_character_that_ends_a_line_elsewhere_does_not_here(character: str) -> None:
    assert data_of(f"data: a{character}b\n\n".encode()) == [f"a{character}b"]


def test_an_empty_piece_between_cr_and_lf_changes_nothing() -> None:
    assert data_of(b"data: a\r", b"", b"\ndata: b\r", b"", b"\n\r", b"", b"\n") == ["a\nb"]


def test_a_bom_may_arrive_in_pieces_and_counts_only_at_the_very_beginning() -> None:
    assert data_of(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == ["a"]
    assert data_of(b"\n" + BOM + b"data: a\n\n") == []
    assert data_of(BOM + b"\ndata: a\n\n") == ["a"]


def test_an_event_without_its_blank_line_is_nothing() -> None:
    assert decoded(b"data: a\n\ndata: b\n") == [ServerSentEvent("a")]
    assert decoded(b"data: a") == []


def test_any_bytes_like_object_is_taken_and_text_is_not() -> None:
    decoder = Decoder()
    assert decoder.feed(bytearray(b"data: a\n")) == []
    assert decoder.feed(memoryview(b"\n")) == [ServerSentEvent("a")]
    with pytest.raises(TypeError, match="bytes-like"):
        decoder.feed("data: a\n\n")  # type: ignore[arg-type]


# Size


def test_a_megabyte_that_comes_byte_by_byte_takes_time_in_proportion_to_its_length() -> None:
    decoder = Decoder()
    decoder.feed(b"data:")
    began = time.process_time()
    for _ in range(1_000_000):
        decoder.feed(b"x")
    assert len(decoder.feed(b"\n\n")[0].data) == 1_000_000
    # Half a second; copying what is there for each byte would take minutes.
    assert time.process_time() - began < 20


def test_many_lines_of_data_that_come_one_by_one_take_time_in_proportion_to_their_number() -> None:
    decoder = Decoder()
    began = time.process_time()
    for _ in range(200_000):
        decoder.feed(b"data: xxxx\n")
    assert decoder.feed(b"\n")[0].data == "\n".join(["xxxx"] * 200_000)
    assert time.process_time() - began < 20


LINE = b"data: 0123456789\n"


@pytest.mark.parametrize(
    ("held", "chunk"),
    [
        ([], b"x" * 101),
        ([b"x"] * 100, b"x"),
        ([LINE] * 5, LINE),
        ([LINE] * 5, b"data: 0123456789"),
        ([], LINE * 6),
        ([], b":" + b"x" * 100 + b"\n"),
    ],
)
def test_a_limit_ends_an_event_that_grows_beyond_it(held: list[bytes], chunk: bytes) -> None:
    decoder = Decoder(limit=100)
    for piece in held:
        assert decoder.feed(piece) == []
    with pytest.raises(EventTooLong, match="passes the 100 bytes") as caught:
        decoder.feed(chunk)
    assert (caught.value.limit, caught.value.events) == (100, [])
    assert isinstance(caught.value, StreamKitError)
    assert isinstance(caught.value, ValueError)


def test_the_events_before_one_that_is_too_long_are_not_lost() -> None:
    with pytest.raises(EventTooLong) as caught:
        Decoder(limit=100).feed(b"data: a\n\ndata: " + b"b" * 200)
    assert caught.value.events == [ServerSentEvent("a")]


def test_a_decoder_that_met_an_event_too_long_stays_ended() -> None:
    decoder = Decoder(limit=100)
    with pytest.raises(EventTooLong):
        decoder.feed(b"data: " + b"b" * 200)
    with pytest.raises(EventTooLong) as caught:
        decoder.feed(b"\n\ndata: c\n\n")
    assert caught.value.events == []


def test_a_limit_is_for_one_event_and_not_for_a_stream_of_heartbeats_or_events() -> None:
    decoder = Decoder(limit=100)
    for _ in range(100):
        assert decoder.feed(b":\n: still here\n") == []
        assert len(decoder.feed(b"data: a\n\n" * 20)) == 20


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "100"])
def test_a_limit_is_a_number_of_bytes_from_1_up(limit: object) -> None:
    with pytest.raises(OptionsError, match="limit: wanted a number of bytes"):
        Decoder(limit=limit)  # type: ignore[arg-type]
