"""Show a diagnosis: as text with a time line, or as JSON.

    print(as_text(diagnosis, Look.of(sys.stdout)))
    print(as_json(diagnosis))

Rule: a diagnosis in, text out. What came from outside (header values, names) never reaches a terminal
with its control characters.
"""

from __future__ import annotations

import json
import os
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from .findings import Diagnosis, Finding, Severity, Track

SCHEMA = 1  # counts up when a field of the JSON changes its meaning or goes
WIDTH = 48  # columns of the time line
LINE = 100  # columns of text

COLOURS = {"fault": "31;1", "risk": "33", "note": "36", "good": "32;1", "faint": "2"}
NOT_SEEN = frozenset({"no-stream", "cannot-tell", "too-fast"})
AT_THE_END = frozenset({"broken-end", "cut"})  # what came before was not held
TITLES = {Severity.FAULT: "FAULT", Severity.RISK: "RISK", Severity.NOTE: "NOTE"}


@dataclass(frozen=True)
class Look:
    """What a terminal can show."""

    colour: bool = False
    blocks: bool = False  # whether it has more than ASCII

    @classmethod
    def of(cls, stream: TextIO) -> Look:
        """Of a stream: colour on a terminal, unless NO_COLOR is set (no-color.org) or TERM is dumb."""
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        try:
            "█·".encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(stream.isatty() and not plain, blocks=False)
        return cls(stream.isatty() and not plain, blocks=True)

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colour else text


def as_json(diagnosis: Diagnosis) -> str:
    """One JSON object; its fields are in the manual."""
    return json.dumps(_plain(diagnosis), indent=2)


def _plain(diagnosis: Diagnosis) -> dict[str, Any]:
    findings = [{**asdict(finding), "severity": finding.severity.value} for finding in diagnosis.findings]
    return {
        "schema": SCHEMA,
        "target": diagnosis.target,
        "status": diagnosis.status,
        "refusal": diagnosis.refusal,
        "findings": findings,
        "tracks": [_track(track) for track in diagnosis.tracks],
        "layers": list(diagnosis.layers),
        "facts": diagnosis.facts,
    }


def _track(track: Track) -> dict[str, Any]:
    arrivals = [{"at": round(arrival.at, 4), "offset": arrival.offset} for arrival in track.arrivals]
    return {
        "name": track.name,
        "head_at": _rounded(track.head_at),
        "ended_at": _rounded(track.ended_at),
        "remark": track.remark,
        "arrivals": arrivals,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def as_text(diagnosis: Diagnosis, look: Look | None = None) -> str:
    """For a human: time line, findings, and what it comes to."""
    look = look or Look()
    lines = [f"streamkit doctor {clean(diagnosis.target)}", *_facts(diagnosis, look), ""]
    if diagnosis.tracks:
        lines += [*_time_line(diagnosis.tracks, look), ""]
    if diagnosis.layers:
        lines += ["Layers, from the outermost:", *(f"  {clean(layer)}" for layer in diagnosis.layers), ""]
    for finding in diagnosis.findings:
        lines += [*_finding(finding, look), ""]
    lines.append(_verdict(diagnosis, look))
    text = "\n".join(line.rstrip() for line in lines)
    return text if look.blocks else text.translate(ASCII).encode("ascii", "replace").decode("ascii")


ASCII = str.maketrans({"█": "#", "─": "-", "·": ".", "…": "...", "→": "->"})


def clean(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join("?" if unicodedata.category(letter)[0] == "C" else letter for letter in text)


def _facts(diagnosis: Diagnosis, look: Look) -> list[str]:
    return [look.paint(f"  {name}: {clean(value)}", "faint") for name, value in diagnosis.facts.items()]


def _time_line(tracks: tuple[Track, ...], look: Look) -> Iterator[str]:
    """One row a request: when its head, its payload and its end came."""
    longest = max([0.1, *(_last(track) for track in tracks)])
    room = max(len(track.name) for track in tracks)
    yield f"{'':{room}}  0 s{longest:{WIDTH - 5}.1f} s"
    for track in tracks:
        row = _row(track, longest)
        size = f"{track.size:,} B".rjust(11)
        yield f"{clean(track.name):{room}}  {row} {size}  {look.paint(clean(track.remark), 'faint')}"
    yield look.paint(f"{'':{room}}  h head   █ payload   | end   > still open when it was left", "faint")


def _last(track: Track) -> float:
    return max(track.head_at or 0.0, track.ended_at or 0.0, track.arrivals[-1].at if track.arrivals else 0.0)


def _row(track: Track, longest: float) -> str:
    cells = [" "] * (WIDTH + 1)

    def place(at: float) -> int:
        return min(int(at / longest * (WIDTH - 1)), WIDTH - 1)

    if track.head_at is None and not track.arrivals:
        return "".join(cells)
    end = place(_last(track))
    cells[: end + 1] = "─" * (end + 1)
    if track.head_at is not None:
        cells[place(track.head_at)] = "h"
    for arrival in track.arrivals:
        cells[place(arrival.at)] = "█"
    cells[end + 1] = ">" if track.ended_at is None else "|"
    return "".join(cells)


def _finding(finding: Finding, look: Look) -> Iterator[str]:
    title = look.paint(TITLES[finding.severity], finding.severity.value)
    yield f"{title}  {finding.code}"
    yield from _wrapped(finding.sentence, "  ")
    if finding.configured:
        yield from _wrapped(f"It is set up at {finding.configured}.", "  ")
    for seen in finding.evidence:
        yield from _wrapped(f"· {seen}", "  ", "    ")
    for advice in finding.advice:
        yield from _wrapped(f"→ {advice.where}: {advice.text}", "  ", "    ")
        yield from (f"        {clean(line)}" for line in advice.lines)


def _wrapped(text: str, first: str, later: str | None = None) -> list[str]:
    later = first if later is None else later
    return textwrap.wrap(clean(text), LINE, initial_indent=first, subsequent_indent=later)


def _verdict(diagnosis: Diagnosis, look: Look) -> str:
    if diagnosis.refusal is not None:
        return look.paint(f"It could not be asked: {clean(diagnosis.refusal)}", "fault")
    faults = [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT]
    if not faults:
        return look.paint("It streams: nothing holds it back.", "good")
    codes = {finding.code for finding in faults} - NOT_SEEN
    if not codes:
        return look.paint("It was not seen to stream; nobody is accused.", "fault")
    if codes <= AT_THE_END:
        arrives = any(track.arrivals for track in diagnosis.tracks)
        said = "It arrives, and does not end as it should." if arrives else "It breaks off."
        return look.paint(said, "fault")
    return look.paint("It does not arrive as it is made.", "fault")
