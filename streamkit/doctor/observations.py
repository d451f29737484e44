"""What was seen of one request: values that `address` makes and `judge` reads.

Rule: values only, seconds since the request was sent, bytes of the decoded payload unless a name says
`wire`. What is derived from them alone (bursts, marks) is derived here, so that both sides agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from statistics import median

from .findings import Arrival, Track
from .http1 import Framing, Head

PAUSE = 0.03  # seconds; arrivals that stand closer together are one burst
CLOCK_ERROR = 0.05  # seconds by which one machine's wall clock may seem to differ from itself
LONGEST_LAG = 1.0  # seconds by which something may delay each chunk of a stream, and all alike
MARK = re.compile(rb"\[\[chunk-(\d+) (\d+\.\d+)\]\]")


class Ending(Enum):
    """How a body ended."""

    COMPLETE = "complete"  # all that its framing promised
    CUT = "cut"  # the connection ended before that
    CLOSED = "closed"  # the connection ended, and nothing else was promised
    OPEN = "open"  # it went on when it was left


@dataclass(frozen=True)
class Question:
    """One request: a GET or a HEAD."""

    name: str  # for the time line
    method: str = "GET"
    version: str = "1.1"
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Mark:
    """One chunk that carries the time at which it was sent."""

    number: int
    sent: float  # seconds since the request was sent, by the sender's clock
    arrived: float  # the same by ours


@dataclass(frozen=True)
class Observation:
    """One request and all that came of it."""

    question: Question
    watched: float = 0.0  # seconds from the request until it was left, or over
    head: Head | None = None
    head_at: float | None = None
    framing: Framing = Framing.NONE
    arrivals: tuple[Arrival, ...] = ()
    wire: tuple[Arrival, ...] = ()  # the same before the content coding was taken off
    payload: bytes = field(default=b"", repr=False)
    can_read: bool = True  # whether the content coding is one that can be taken off here
    ending: Ending = Ending.OPEN
    ended_at: float | None = None
    after_end: int = 0  # bytes that followed the end of the response
    followed_by: bytes = b""  # the first of them
    fault: str | None = None  # what was no HTTP, or no valid coding
    problem: str | None = None  # why there is no head
    began: float = 0.0  # when the request was sent, by this machine's wall clock
    is_local: bool = False  # whether both ends are one machine, and so one clock

    @property
    def is_over(self) -> bool:
        return self.ending is not Ending.OPEN

    @property
    def seen(self) -> tuple[Arrival, ...]:
        """When the payload came; on the wire where the coding cannot be read."""
        return self.arrivals if self.can_read else self.wire

    @property
    def size_seen(self) -> int:
        """Bytes of payload; on the wire where the coding cannot be read."""
        return self.seen[-1].offset if self.seen else 0

    @property
    def bursts(self) -> tuple[Arrival, ...]:
        """The arrivals with those joined that stand closer together than `PAUSE`: the time of the
        first of each, and the offset after its last."""
        bursts: list[Arrival] = []
        last = 0.0
        for arrival in self.seen:
            if bursts and arrival.at - last < PAUSE:
                bursts[-1] = Arrival(bursts[-1].at, arrival.offset)
            else:
                bursts.append(arrival)
            last = arrival.at
        return tuple(bursts)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The chunks that carry their own times."""
        marks = []
        position = 0
        for found in MARK.finditer(self.payload):
            while position < len(self.arrivals) - 1 and self.arrivals[position].offset < found.end():
                position += 1
            marks.append(Mark(int(found[1]), float(found[2]) - self.began, self.arrivals[position].at))
        return tuple(marks)

    @property
    def lags(self) -> tuple[float, ...]:
        """How long each marked chunk was on its way, in seconds.

        Two machines' clocks differ by nobody knows what: between them, longer than the fastest one. So
        it is behind a proxy on this machine, too, if its app is on another.
        """
        lags = [mark.arrived - mark.sent for mark in self.marks]
        least = min(lags, default=0.0)
        is_one_clock = self.is_local and -CLOCK_ERROR <= least <= LONGEST_LAG
        return tuple(lag - (0.0 if is_one_clock else least) for lag in lags)

    @property
    def longest_silence(self) -> float:
        """Seconds without a byte of the body, from the head to the end or to the last look."""
        if self.head_at is None:
            return 0.0
        times = [self.head_at, *(arrival.at for arrival in self.wire), self.ended_at or self.watched]
        return max(later - earlier for earlier, later in pairwise(times))

    @property
    def last_silence(self) -> float:
        """Seconds between the last byte of the body and the end, or the last look."""
        last = self.wire[-1].at if self.wire else self.head_at
        return (self.ended_at or self.watched) - last if last is not None else 0.0

    @property
    def usual_pause(self) -> float:
        """The median of the seconds between two bursts; 0 where there are no two."""
        times = [burst.at for burst in self.bursts]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return median(gaps) if gaps else 0.0

    def track(self) -> Track:
        """Its row of the time line."""
        return Track(self.question.name, self.seen, self.head_at, self.ended_at, self._remark())

    def _remark(self) -> str:
        if self.head is None:
            return self.problem or "no answer"
        parts = [f"{self.head.status}"]
        if coding := self.head.get("Content-Encoding"):
            parts.append(coding)
        if self.question.method == "GET":
            parts.append(self.framing.value)
            parts.append("still open" if not self.is_over else self.ending.value)
        elif not self.is_over:
            parts.append("not closed")
        return ", ".join(parts)
