"""How a body came, told from its times alone.

    way_of(observation)                     by the chunks' own times, or by the shape
    way_beside(observation, reference)      by another request for the same that streamed

Rule: pure, and says no more than is shown. Of a body whose chunks carry no times, `LUMP` says that it
came all at once, late, and leaves open who is to blame; only `SHOWN` ways are accusations.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from statistics import median

from .findings import Arrival
from .observations import PAUSE, Ending, Mark, Observation

LAG = 0.1  # seconds; HAProxy's are 0.2, a busy machine's below this in the median
SOON = 0.3  # seconds within which nobody notices that a body was held
FEW = 3  # marks, bursts or records from which something can be told
MANY = 8  # events that an app makes in one instant more seldom than something holds them
LATE = 1.0  # seconds without a byte, from which a shape alone can accuse
RECORDS = frozenset({"text/event-stream", "application/x-ndjson", "application/json-seq"})
STEPS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)  # bytes that a buffer may have: 1 KiB to 64 KiB
STEP_SLACK = 1.1  # a buffer is passed on with the chunk that filled it


class Way(Enum):
    """How a body came."""

    STREAMED = "streamed"
    EMPTY = "empty"
    FAST = "fast"  # over so soon that nothing was held for long
    LUMP = "lump"  # all at once, late, at its end
    NOTHING = "nothing"  # not a byte of payload, and still open
    UNSURE_STEPS = "unsure-steps"  # in steps as a buffer makes them, or as the app writes them
    # Shown to be held:
    BUFFERED = "buffered"
    IN_STEPS = "in-steps"
    ONE_BEHIND = "one-behind"
    LATE = "late"
    REPLAYED = "replayed"


SHOWN = frozenset({Way.BUFFERED, Way.IN_STEPS, Way.ONE_BEHIND, Way.LATE, Way.REPLAYED})


@dataclass(frozen=True)
class Delivery:
    """How a body came, and what shows it."""

    way: Way
    evidence: tuple[str, ...] = ()
    step: int | None = None  # bytes, of IN_STEPS

    @property
    def is_held(self) -> bool:
        return self.way in SHOWN


def way_of(seen: Observation) -> Delivery:
    """How it came, without comparison."""
    return _by_marks(seen) or _by_shape(seen)


def _by_marks(seen: Observation) -> Delivery | None:
    """Exactly: the chunks say when they were sent."""
    marks, lags = seen.marks, seen.lags
    if len(marks) < FEW:
        return None
    # Two clocks that differ shift all lags alike; a recording has kept its first chunk the longest.
    if seen.is_local and marks[0].sent < -LAG and lags[0] - min(lags) >= LAG:
        text = f"its first chunk was sent {-marks[0].sent:.1f} s before the request for it was"
        return Delivery(Way.REPLAYED, (text,))
    offset = marks[0].arrived - marks[0].sent - lags[0]  # of the two clocks
    overtaken = sum(
        lag >= LAG / 2 and mark.arrived >= follower.sent + offset - 0.01
        for mark, follower, lag in zip(marks, marks[1:], lags, strict=False)
    )
    said = (
        f"{len(marks)} chunks were sent over {marks[-1].sent - marks[0].sent:.1f} s;"
        f" they came {_span(lags)} after they were sent"
    )
    groups = _groups(marks)
    if overtaken * 2 >= len(marks) - 1:
        at = marks[-1].arrived
        if groups == 1:
            return Delivery(Way.BUFFERED, (said, f"all of them arrived in one instant, at {at:.1f} s"))
        if groups >= len(marks) - 1:
            return Delivery(Way.ONE_BEHIND, (said, "most arrived only when the next one was sent"))
        bursts = seen.bursts
        step = _step([bursts[0].offset, *_sizes(bursts)[1:-1]])
        return Delivery(Way.IN_STEPS, (said, f"they arrived in {groups} groups"), step)
    if median(lags) >= LAG:
        return Delivery(Way.LATE, (said,))
    return Delivery(Way.STREAMED, (said,))


def _span(lags: tuple[float, ...]) -> str:
    least, most = max(min(lags), 0.0), max(max(lags), 0.0)
    return f"{least:.2f} s to {most:.2f} s"


def _groups(marks: tuple[Mark, ...]) -> int:
    times = [mark.arrived for mark in marks]
    return 1 + sum(later - earlier >= PAUSE for earlier, later in pairwise(times))


def _by_shape(seen: Observation) -> Delivery:
    """As far as times alone can tell."""
    arrivals = seen.seen
    if not arrivals:
        return Delivery(Way.EMPTY if seen.is_over else Way.NOTHING)
    first, last = arrivals[0].at, arrivals[-1].at
    if last - first >= SOON or len(seen.bursts) >= FEW:
        return _steps(seen) or Delivery(Way.STREAMED)
    if not seen.is_over:
        return _steps(seen) or Delivery(Way.STREAMED)
    ended = seen.ended_at if seen.ended_at is not None else last
    if ended - last >= SOON:
        return Delivery(Way.STREAMED)  # it was passed on while the body was still open
    return Delivery(Way.FAST) if last < SOON else _lump(seen)


def _lump(seen: Observation) -> Delivery:
    at = seen.seen[0].at
    size = seen.seen[-1].offset
    said = f"not a byte came for {at:.1f} s, then all {size} bytes at once, and the end"
    if not is_event_stream(seen) or at < LATE:
        return Delivery(Way.LUMP, (said,))
    records = [record for record in _lines(seen.payload).split(b"\n\n") if record.strip()]
    beats = sum(all(line.startswith(b":") for line in record.split(b"\n")) for record in records)
    if beats >= FEW:
        return Delivery(Way.BUFFERED, (said, f"{beats} heartbeats stand in it, which are sent in silences"))
    if len(records) - beats >= MANY:
        return Delivery(Way.BUFFERED, (said, f"these are {len(records) - beats} events"))
    return Delivery(Way.LUMP, (said,))


def _lines(payload: bytes) -> bytes:
    return payload.replace(b"\r\n", b"\n")


def is_event_stream(seen: Observation) -> bool:
    """Whether it is declared as one."""
    return seen.head is not None and seen.head.media_type == "text/event-stream"


def is_of_records(seen: Observation) -> bool:
    """Whether it is declared as one record after the other."""
    return seen.head is not None and seen.head.media_type in RECORDS


def _steps(seen: Observation) -> Delivery | None:
    """Whether it came in steps of one size that buffers have, with some records in each.

    No app tears its own events. Lines it may tear, if it reads blocks of a file, say.
    """
    bursts = seen.bursts if seen.ending is Ending.OPEN else seen.bursts[:-1]
    if len(bursts) < 2 or not seen.can_read:
        return None
    step = _step(_sizes(bursts))
    if step is None:
        return None
    mark = b"\n\n" if is_event_stream(seen) else b"\n"
    ends = [burst.offset for burst in bursts]
    pieces = [_lines(seen.payload[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    if any(piece.count(mark) < FEW for piece in pieces):
        return None
    said = (
        f"it came in {len(seen.bursts)} bursts, of {', '.join(str(len(piece)) for piece in pieces[:6])} bytes"
    )
    torn = sum(not piece.endswith(b"\n") for piece in pieces)
    if torn * 2 >= len(pieces) and is_of_records(seen):
        return Delivery(Way.IN_STEPS, (said, f"{torn} of these bursts end in the middle of a record"), step)
    return Delivery(Way.UNSURE_STEPS, (said,), step)


def _sizes(bursts: tuple[Arrival, ...]) -> list[int]:
    ends = [burst.offset for burst in bursts]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _step(sizes: list[int]) -> int | None:
    """The size of buffer that these bursts are explained by, if all are by one."""
    for step in STEPS:
        if sizes and all(step * 0.98 <= size <= step * STEP_SLACK for size in sizes):
            return step
    return None


def is_encoders_header_only(seen: Observation) -> bool:
    """Whether the head of a compressed body came early, and its payload late."""
    if not seen.wire or not seen.can_read or seen.head is None or not seen.head.get("Content-Encoding"):
        return False
    late = seen.arrivals[0].at if seen.arrivals else seen.watched
    return seen.wire[0].offset <= 32 and late - seen.wire[0].at >= SOON


def way_beside(seen: Observation, reference: Observation) -> Delivery:
    """How it came, told also by another request for the same."""
    alone = way_of(seen)
    if alone.is_held or seen.marks:
        return alone
    model = reference.bursts
    if way_of(reference).way is not Way.STREAMED or len(model) < FEW:
        return alone
    said = f"in {reference.question.name} it came in {len(model)} bursts, the first at {model[0].at:.1f} s"
    if alone.way is Way.NOTHING and seen.watched >= 1.5 * model[FEW - 1].at + SOON:
        text = f"not a byte of payload came in {seen.watched:.1f} s"
        return Delivery(Way.BUFFERED, (said, text))
    if alone.way is Way.LUMP and seen.size_seen * 2 >= reference.size_seen:
        return Delivery(Way.BUFFERED, (said, *alone.evidence))
    if len(seen.bursts) * FEW <= len(model) and seen.size_seen * 2 >= reference.size_seen:
        return Delivery(Way.IN_STEPS, (said, f"here it came in {len(seen.bursts)} bursts"), alone.step)
    return alone
