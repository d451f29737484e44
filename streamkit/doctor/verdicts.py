"""What one layer did to a body, told from what went into it and what came out.

    verdict(Observation(inside, outside, steps=6))      Verdict("layer-buffers", ...) or None

Two boundaries are compared, level by level: a level is what had crossed when the source of the body
took a step, so whatever is missing outside was held, however fast or slow the machine. Payload is
compared decoded, and in chunks of the probe stream where both sides show all of them: a layer may add
bytes, or take some away, and hold nothing.

Rule: pure. No clock, no app, no framework; the sentences are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Level", "Observation", "Side", "Verdict", "verdict"]

BODILESS = (204, 205, 304)


@dataclass(frozen=True)
class Level:
    """What had crossed a boundary at one moment."""

    raw: int = 0  # bytes as they were sent
    offset: int = 0  # bytes of decoded payload
    marks: int = 0  # chunks of the probe stream that begin in it


@dataclass(frozen=True)
class Side:
    """One boundary of a layer."""

    levels: tuple[Level, ...] = ()  # one a step
    total: Level = Level()  # when all was over
    chunks: int = 0
    starts: int = 1
    status: int | None = 200
    head_in_time: bool = True  # whether the head had crossed before the first chunk was made
    ended: bool = True
    error: str | None = None  # what was raised here


@dataclass(frozen=True)
class Observation:
    """Both boundaries of one layer; `inside` is None where it called nothing."""

    inside: Side | None
    outside: Side
    hung: bool = False  # the request was not over in time
    cut: bool = False  # the source was ended early, by us


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a layer: one of the codes of `findings.CODES`, and the figures for it."""

    code: str
    held: int = 0  # chunks of the source that were held
    of: int = 0  # chunks of the source
    most: int = 0  # bytes of payload held at once
    until: int = 0  # bytes of payload that had gone in when the first came out early
    lost: int = 0  # bytes of payload, or chunks of the probe stream
    early: int = 0  # bytes that left while the payload was held
    starts: int = 0
    error: str | None = None


def verdict(seen: Observation) -> Verdict | None:
    """What this layer did wrong; None where it did nothing wrong."""
    inside, outside = seen.inside, seen.outside
    if outside.error is not None and (inside is None or inside.error is None):
        return Verdict("layer-raises", error=outside.error)
    if inside is None:
        return None
    if outside.starts > 1 and inside.starts <= 1:
        return Verdict("layer-starts-twice", starts=outside.starts)
    if seen.hung and inside.ended and not outside.ended:
        return Verdict("layer-hangs", of=inside.chunks)
    if inside.total.raw == 0 or inside.error is not None or outside.error is not None:
        return None
    if outside.status != inside.status and (outside.status in BODILESS or not _is_same_body(inside, outside)):
        return None  # another response stands in the place of this one
    if outside.total.raw == 0:
        return None if seen.cut and not inside.ended else Verdict("layer-swallows", lost=inside.total.offset)
    lost = _lost(inside, outside) if not seen.cut else None
    marked = inside.total.marks > 0
    # Chunks with marks are known to be lost; without them, one that was held is likelier.
    return (lost if marked else None) or _held(inside, outside) or lost or _late_head(inside, outside)


def _is_same_body(inside: Side, outside: Side) -> bool:
    return inside.total.offset == outside.total.offset or outside.total.marks > 0


def _held(inside: Side, outside: Side) -> Verdict | None:
    given, passed, exact = _measured(inside, outside)
    late = _missing(given, passed) if exact else _standing_still(given, passed, outside.total.offset)
    if not late:
        return None
    levels = list(zip(inside.levels, outside.levels, strict=False))
    of = sum(level.raw > 0 for level, _ in levels)
    most = max(0, *(levels[index][0].offset - levels[index][1].offset for index in late))
    first = late[0]
    early = levels[first][1].raw
    if passed[first] == 0 and early:
        return Verdict("layer-header-only", len(late), of, most, early=early)
    # Where the first payload came out while there was still more to come: that many had to go in.
    until = next((into.offset for into, out in levels if out.offset), 0)
    return Verdict("layer-holds" if until else "layer-buffers", len(late), of, most, until)


def _measured(inside: Side, outside: Side) -> tuple[Sequence[int], Sequence[int], bool]:
    """Levels of both sides in one measure, and whether equal figures mean the same bytes."""
    given, passed = [level.offset for level in inside.levels], [level.offset for level in outside.levels]
    if inside.total.offset == outside.total.offset:
        return given, passed, True
    if inside.total.marks and inside.total.marks == outside.total.marks:
        return [level.marks for level in inside.levels], [level.marks for level in outside.levels], True
    return given, passed, False


def _missing(given: Sequence[int], passed: Sequence[int]) -> list[int]:
    """The steps at which something that had gone in had not come out."""
    return [index for index, (g, p) in enumerate(zip(given, passed, strict=False)) if p < g]


def _standing_still(given: Sequence[int], passed: Sequence[int], total: int) -> list[int]:
    """The same for a layer that changes the length: steps at which more had gone in, nothing more had
    come out, and something came later."""
    late = []
    before_in = before_out = 0
    for index, (g, p) in enumerate(zip(given, passed, strict=False)):
        if g > before_in and p == before_out and total > p:
            late.append(index)
        before_in, before_out = g, p
    return late


def _lost(inside: Side, outside: Side) -> Verdict | None:
    if inside.total.marks:
        lost = inside.total.marks - outside.total.marks
        return Verdict("layer-loses", of=inside.total.marks, lost=lost) if lost > 0 else None
    # Without marks a layer that shortens cannot be told from one that loses, unless little is left.
    lost = inside.total.offset - outside.total.offset
    return Verdict("layer-loses", lost=lost) if outside.total.offset * 2 < inside.total.offset else None


def _late_head(inside: Side, outside: Side) -> Verdict | None:
    return Verdict("layer-late-head") if inside.head_in_time and not outside.head_in_time else None
