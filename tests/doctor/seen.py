"""Observations made by hand, as `address` would have made them.

    drip([0.0, 0.3, 0.6])       three chunks with their times, each there when it was sent

Rule: times in seconds since the request, and nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamkit.doctor.findings import Arrival
from streamkit.doctor.http1 import Framing, Head
from streamkit.doctor.observations import Ending, Observation, Question

BEGAN = 1_700_000_000.0  # the wall clock when the request was sent

PLAIN = Question("HTTP/1.1")
COMPRESSED = Question("compressed", fields=(("Accept-Encoding", "gzip"),))
HTTP10 = Question("HTTP/1.0", version="1.0")
HEAD = Question("HEAD", method="HEAD")

CAREFUL = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


def head(status: int = 200, version: str = "1.1", **fields: str | None) -> Head:
    """A head with all that a stream should have, changed by `fields`; None takes one out."""
    given = {**CAREFUL, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return Head(version, status, tuple((name, value) for name, value in given.items() if value is not None))


def body(
    pieces: Sequence[tuple[float, bytes]],
    *,
    question: Question = PLAIN,
    ended: float | None = -1.0,
    ending: Ending | None = None,
    framing: Framing = Framing.CHUNKED,
    watched: float = 10.0,
    **fields: str | None,
) -> Observation:
    """A body of which each piece came at its time; it ended with the last one unless `ended` tells."""
    offset, arrivals, payload = 0, [], b""
    for at, piece in pieces:
        offset += len(piece)
        payload += piece
        arrivals.append(Arrival(at, offset))
    if ended == -1.0:
        ended = pieces[-1][0] if pieces else 0.0
    if ending is None:
        ending = Ending.OPEN if ended is None else Ending.COMPLETE
    return Observation(
        question, watched=watched if ended is None else ended, head=head(**fields),
        head_at=pieces[0][0] if pieces else 0.0, framing=framing, arrivals=tuple(arrivals),
        wire=tuple(arrivals), payload=payload, ending=ending, ended_at=ended, began=BEGAN, is_local=True,
    )  # fmt: skip


def drip(
    arrived: Sequence[float],
    *,
    sent: Sequence[float] | None = None,
    pause: float = 0.3,
    clock: float = 0.0,
    **more: object,
) -> Observation:
    """Chunks that carry their times: sent every `pause` seconds, by a clock that is `clock` seconds ahead."""
    times = [number * pause for number in range(len(arrived))] if sent is None else sent
    pieces = [
        (at, b"[[chunk-%d %.3f]]\n" % (number, BEGAN + time + clock))
        for number, (time, at) in enumerate(zip(times, arrived, strict=True))
    ]
    return body(pieces, **more)  # type: ignore[arg-type]


def steady(count: int = 6, pause: float = 0.5, **more: object) -> Observation:
    """Lines that come one after the other."""
    return body([(number * pause, b"line %d\n" % number) for number in range(count)], **more)  # type: ignore[arg-type]


def lump(at: float = 3.0, size: int = 42, **more: object) -> Observation:
    """All of it at once."""
    return body([(at, b"x" * size)], **more)  # type: ignore[arg-type]


def silent(watched: float = 10.0, **more: object) -> Observation:
    """A head, and nothing behind it."""
    return body([], ended=None, watched=watched, **more)  # type: ignore[arg-type]


def unanswered(watched: float = 10.0, question: Question = PLAIN) -> Observation:
    """No head."""
    return Observation(question, watched=watched, problem=f"no answer in {watched:.1f} s")


def elsewhere(seen: Observation) -> Observation:
    """The same from another machine."""
    return replace(seen, is_local=False)


def answered(status: int = 200, at: float = 0.0, extra: int = 0, **fields: str | None) -> Observation:
    """The answer to a HEAD."""
    return Observation(
        HEAD, watched=at, head=head(status, **fields), head_at=at, ending=Ending.COMPLETE, ended_at=at,
        after_end=extra,
    )  # fmt: skip
