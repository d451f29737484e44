"""What the doctor found: values that the parts of this room hand to each other, and to whoever asked.

    diagnosis = Diagnosis("http://127.0.0.1:8000/ticks", findings=(Finding("buffered", FAULT, …),))
    diagnosis.status        1

Rule: values only. Nothing here asks, judges or prints, and every code that a finding may have stands
in `CODES`: codes are stable, sentences are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..errors import StreamKitError

__all__ = ["CODES", "Advice", "Arrival", "CannotAsk", "Diagnosis", "Finding", "Severity", "Track"]


class CannotAsk(StreamKitError):
    """The target could not be asked: nothing is known of it. The text says why, and how to mend it."""


class Severity(Enum):
    """How bad a finding is."""

    FAULT = "fault"  # the stream does not arrive as it is made, or not to its end: exit status 1
    RISK = "risk"  # it arrives, but some client, or some day, will fare worse
    NOTE = "note"  # good to know; nothing is wrong


# What each code means, for the documentation and for `--json`. The first group is found from outside,
# at an address; the second inside, in an app's layers.
CODES: dict[str, str] = {
    "no-stream": "the response is complete in itself; nothing here is a stream",
    "buffered": "the whole body was held and came at once, at its end",
    "held-until-full": "bytes are held until there are so many of them",
    "one-behind": "each chunk is held until the next one is made",
    "replayed": "the body is a recording out of a cache, or one stream is shared among clients",
    "late": "each chunk is passed on, some tenths of a second late",
    "compressed-and-held": "without compression it streams; with it the payload is held",
    "http10-held": "it streams in HTTP/1.1, and is held for a client that speaks HTTP/1.0",
    "slow-head": "the head is withheld until the first chunk",
    "cut": "the stream is cut off after a silence, or after a time",
    "cannot-tell": "it came late or not at all, and nothing shows whether it was made late or held",
    "content-length": "a Content-Length stands on a stream",
    "chunked-to-http10": "a chunked body is sent to a client that speaks HTTP/1.0",
    "head-hangs": "HEAD is not answered in time",
    "head-differs": "HEAD is answered with another head than GET, or with a body",
    "no-heartbeat": "an event stream was silent for longer than proxies wait",
    "no-abnormal-end": "a body that breaks off looks like a whole one",
    "broken-end": "the body broke off",
    "accel-buffering": "X-Accel-Buffering: no is not sent, or not obeyed",
    "no-transform": "Cache-Control does not forbid to compress the stream",
    "no-store": "Cache-Control does not forbid to store or share the stream",
    "event-type": "an event stream is not declared as text/event-stream in UTF-8",
    "bad-framing": "what was sent is not HTTP as RFC 9112 writes it",
    "too-fast": "the body was over too soon to see whether anything holds it",
    # In an app's layers:
    "layer-buffers": "a layer reads the whole body before it passes on any of it",
    "layer-holds": "a layer holds bytes until it has so many",
    "layer-header-only": "a layer passes on an encoder's header and holds the payload",
    "layer-swallows": "a layer drops the body",
    "layer-loses": "a layer drops some of the body",
    "layer-raises": "a layer raises while the body goes through it",
    "layer-starts-twice": "a layer starts the response more than once",
    "layer-late-head": "a layer withholds the head until the first chunk",
    "layer-hangs": "a layer was not through in time",
    "producer-blocks": "the view blocks between its chunks: nothing else can run",
    "sync-async": "a sync body under ASGI, or an async one under WSGI, is read whole",
}


@dataclass(frozen=True)
class Advice:
    """One way to mend a finding."""

    where: str  # whose setting it is: "nginx", "your app", "settings.py", …
    text: str  # one sentence
    lines: tuple[str, ...] = ()  # what to set there, word for word


@dataclass(frozen=True)
class Finding:
    """One thing that is so, with what shows it."""

    code: str  # one of CODES
    severity: Severity
    sentence: str  # for a human
    evidence: tuple[str, ...] = ()  # what was seen, one sentence each
    advice: tuple[Advice, ...] = ()
    guilty: str | None = None  # the proxy or layer that is named, where one can be
    configured: str | None = None  # where it is set up: "settings.MIDDLEWARE[3]", "app.py:12"

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"a finding's code is one of findings.CODES, not {self.code!r}")


@dataclass(frozen=True)
class Arrival:
    """How much of the payload could be read when."""

    at: float  # seconds since the request was sent
    offset: int  # bytes of decoded payload until then, this arrival's included


@dataclass(frozen=True)
class Track:
    """One row of the time line: one request, or one side of a layer."""

    name: str
    arrivals: tuple[Arrival, ...] = ()
    head_at: float | None = None  # seconds since the request was sent; None where there was no head
    ended_at: float | None = None  # seconds; None where it was still open when it was left
    remark: str = ""  # a few words behind the row

    @property
    def size(self) -> int:
        """Bytes of decoded payload."""
        return self.arrivals[-1].offset if self.arrivals else 0


@dataclass(frozen=True)
class Diagnosis:
    """All that is known of one target."""

    target: str  # as it was asked for
    findings: tuple[Finding, ...] = ()
    tracks: tuple[Track, ...] = ()
    layers: tuple[str, ...] = ()  # of an app, from the outermost to the view
    facts: dict[str, str] = field(default_factory=dict)  # what was seen in passing: "Server": "nginx"
    refusal: str | None = None  # why it could not be asked; then there are no findings

    @property
    def status(self) -> int:
        """The exit status: 0 everything streams, 1 something holds it or cuts it, 2 it could not be asked."""
        if self.refusal is not None:
            return 2
        return int(any(finding.severity is Severity.FAULT for finding in self.findings))
