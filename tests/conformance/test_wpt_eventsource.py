"""The event-stream format as web-platform-tests pins it, eventsource/format-* and event-data.

Each case is named after the file there and written anew as bytes and as what a browser dispatches:
type, data, lastEventId. What those tests see by reconnecting is here a second decoder, begun with
the id of the first. The format-mime-* files are about the Content-Type alone, which no decoder sees.

Rule: a case is fed whole, byte by byte, and cut at every single place, and gives the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from streamkit.core.events import Decoder

BOM = b"\xef\xbb\xbf"
LONG = b"x" * 2048

Dispatched = tuple[str, str, str]  # type, data, lastEventId


def message(data: str, last_event_id: str = "") -> Dispatched:
    return ("message", data, last_event_id)


class Case(NamedTuple):
    number: int
    name: str
    sent: bytes
    dispatched: list[Dispatched]
    last_event_id: str = ""  # what the browser would send when it comes back
    retry: int | None = None
    sent_id: str = ""  # the Last-Event-ID of this connection

    def __str__(self) -> str:
        return f"{self.number:02}-{self.name}"


CASES = [
    # Only the BOM that begins the stream is one; a later one makes "data" an unknown name.
    Case(
        1, "format-bom", BOM + b"data:a\n\n" + BOM + b"data:b\n\ndata:c\n\n\n", [message("a"), message("c")]
    ),
    Case(2, "format-bom-2", BOM + BOM + b"data:a\n\ndata:b\n\ndata:c\n\n\n", [message("b"), message("c")]),
    Case(
        3,
        "format-comments",
        b"data:a\r:\0\n:\r\ndata:b\n:" + LONG + b"\rdata:c\n:data:no\r:" + LONG + b"\ndata:d\n\n",
        [message("a\nb\nc\nd")],
    ),
    # Neither the data nor the id of a block without its blank line count.
    Case(
        4,
        "format-data-before-final-empty-line",
        b"retry:500\ndata:whole\n\nid:7\ndata:half\n",
        [message("whole")],
        retry=500,
    ),
    Case(
        5,
        "format-field-data",
        b"data:\n\ndata\ndata\n\ndata:end\n\n\n",
        [message(""), message("\n"), message("end")],
    ),
    Case(
        6,
        "format-field-event",
        b"event:own\ndata:a\n\ndata:b\n\n\n",
        [("own", "a", ""), message("b")],
    ),
    Case(7, "format-field-event-empty", b"event: \ndata:a\n\n\n", [message("a")]),
    Case(
        8,
        "format-field-id: first connection",
        "id: …\nretry: 200\ndata: a\n\n".encode(),
        [message("a", "…")],
        last_event_id="…",
        retry=200,
    ),
    Case(
        9,
        "format-field-id: second connection",
        "data: …\n\n".encode(),
        [message("…", "…")],
        last_event_id="…",
        sent_id="…",
    ),
    Case(
        10,
        "format-field-id-2: two events without an id",
        "data: …\n\ndata: …\n\n".encode(),
        [message("…", "…"), message("…", "…")],
        last_event_id="…",
        sent_id="…",
    ),
    Case(
        11,
        "format-field-id-3: persists",
        b"id: 5\ndata: a\n\ndata:b\n\n",
        [message("a", "5"), message("b", "5")],
        last_event_id="5",
    ),
    Case(
        12,
        "format-field-id-3: changes and persists",
        b"id: 5\ndata: a\n\nid: 6\ndata:b\n\ndata:c\n\n",
        [message("a", "5"), message("b", "6"), message("c", "6")],
        last_event_id="6",
    ),
    Case(
        13,
        "format-field-id-3: resets",
        b"id: 5\ndata: a\n\nid:\ndata:b\n\ndata:c\n\n",
        [message("a", "5"), message("b"), message("c")],
    ),
    *(
        Case(14 + place, f"format-field-id-null: {value!r}", b"id:" + value + b"\ndata:a\n\n", [message("a")])
        for place, value in enumerate([b"\0\0", b"x\0", b"\0x", b"x\0x", b" \0"])
    ),
    Case(
        19,
        "format-field-parsing",
        b"data:\0\ndata:  a\rData:no\ndata\0:no\ndata:b\r\0data:no\nda-ta:no\rdata_no\ndata:c\rdata:\r\n"
        b" data:no\ndata:d\n\n",
        [message("\0\n a\nb\nc\n\nd")],
    ),
    # In decimal, whatever it begins with.
    Case(20, "format-field-retry", b"retry:03000\ndata:a\n\n\n", [message("a")], retry=3000),
    Case(21, "format-field-retry-bogus", b"retry:3000\nretry:10x\ndata:a\n\n\n", [message("a")], retry=3000),
    Case(22, "format-field-retry-empty", b"retry\ndata:a\n\n\n", [message("a")]),
    Case(
        23,
        "format-field-unknown",
        b"data:a\n data\ndata\nother:no\nonlytext\n:comment\ndata:b\n\n\n",
        [message("a\n\nb")],
    ),
    # A tab is no space, and only one space is taken off.
    Case(24, "format-leading-space", b"data:\ta\rdata: \ndata:b\n\n\n", [message("\ta\n\nb")]),
    Case(25, "format-newlines", b"data:a\r\ndata\ndata:b\r\n\r\n", [message("a\n\nb")]),
    Case(26, "format-newlines: CRLF, then a CR alone", b"data:a\r\ndata\ndata:b\r\n\r", [message("a\n\nb")]),
    Case(27, "format-null-character", b"data:\0\n\n\n\n", [message("\0")]),
    # Whatever charset the Content-Type names.
    Case(28, "format-utf-8", "data:ok…\n\n\n".encode(), [message("ok…")]),
    Case(
        29,
        "event-data",
        b"data:a\ndata: a\n\n:\nother:no\n\nother:no\nData:no\n\ndata\n\ndata:end\n\n",
        [message("a\na"), message(""), message("end")],
    ),
]


def ways_to_cut(sent: bytes) -> Iterator[list[bytes]]:
    yield [sent]
    yield [sent[place : place + 1] for place in range(len(sent))]
    for cut in range(1, len(sent)):
        yield [sent[:cut], sent[cut:]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_format_is_read_as_browsers_read_it_however_it_is_cut(case: Case) -> None:
    for pieces in ways_to_cut(case.sent):
        decoder = Decoder(last_event_id=case.sent_id)
        events = [event for piece in pieces for event in decoder.feed(piece)]
        dispatched = [(event.event or "message", event.data, event.id or "") for event in events]
        assert dispatched == case.dispatched, pieces
        assert (decoder.last_event_id, decoder.retry) == (case.last_event_id, case.retry), pieces


def test_the_cases_are_numbered_without_a_gap() -> None:
    assert [case.number for case in CASES] == list(range(1, len(CASES) + 1))
