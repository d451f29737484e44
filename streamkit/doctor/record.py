"""What crossed the boundaries of an app's layers while one response went through them.

Each layer has a passage: what it was asked for, and each byte that came out of it. The innermost
passage that gives bytes is the *source*. After each of its chunks the source takes a *step*: it waits
until the reader outside has seen that chunk, or until it is clear that he will not. What a layer has
passed on at a step is what it passes on while the response is being made; so whether it holds bytes is
read from the order of events, and no machine is too slow for it.

Rule: a passage is told, and never asks; nothing here knows WSGI, ASGI or a framework. The lock is held
for the entry of one event, and never while other code runs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .decoding import decoder_for

__all__ = ["CURRENT", "SHORT", "Crossing", "Head", "Passage", "Probed", "Step", "Trace", "active", "entered"]

MARK = b"[[chunk-"  # what each chunk of a probe stream begins with

HEAD_PATIENCE = 0.3  # seconds a head may take to the reader, before it counts as withheld
PATIENCE = 1.0  # seconds a chunk may take to the reader, before it counts as held; none is lost if it comes
SHORT = 0.05  # the same for each further chunk, once one was held
MOST_BYTES = 16 * 1024 * 1024  # of one boundary's payload; what comes behind is not decoded
LATE = 0.25  # the same once the reader got something, but less than was sent: a layer changes its length


@dataclass(frozen=True, eq=False)
class Probed:
    """One layer of the app, as it is named to its owner."""

    name: str  # "django.middleware.gzip.GZipMiddleware"
    configured: str | None = None  # "settings.MIDDLEWARE[2]", "app.py:12"
    is_view: bool = False  # the innermost: what it gives is the app's own doing
    is_stream: bool = False  # what it gives is meant as a stream, however short it is


@dataclass(frozen=True)
class Head:
    """A start of the response."""

    count: int  # its place in the order of all events
    at: float  # seconds since the request
    status: int
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Crossing:
    """Bytes that came out; the sums are what came until then, these bytes included."""

    count: int
    at: float
    raw: int
    offset: int  # bytes of decoded payload
    marks: int  # chunks of a probe stream that begin in it


@dataclass(frozen=True)
class Step:
    """The moment at which whatever streams had passed on what the source gave."""

    count: int
    kind: str  # "head" or "chunk"


class Passage:
    """One call of one layer, and what came out of it."""

    def __init__(self, trace: Trace, layer: Probed, parent: Passage | None) -> None:
        self.trace, self.layer, self.parent = trace, layer, parent
        self.shown = layer  # the same by a better name, where one comes to be known
        self.front: Passage | None = None  # the outermost of the layers inside this one call
        self.heads: list[Head] = []
        self.crossings: list[Crossing] = []
        self.ended = False
        self.returned = False
        self.is_lazy = False  # it came back without a head, which comes when its body is read
        self.whole = False  # the body was given at once, as a list or with its length
        self.mismatch = False  # a sync body where an async one is awaited, or the other way
        self.error: BaseException | None = None
        self._decoder = decoder_for(None, MOST_BYTES)
        self._raw = self._offset = self._marks = 0
        self._tail = b""

    def head(self, status: int, headers: Iterable[tuple[str, str]], *, again: bool = False) -> None:
        """The layer starts the response; `again` if it may, with an `exc_info` (PEP 3333)."""
        given = tuple((str(name).lower(), str(value)) for name, value in headers)
        encoding = next((value for name, value in given if name == "content-encoding"), None)
        with self.trace.lock:
            if again:
                self.heads.clear()
            self.heads.append(Head(self.trace.tick(), self.trace.now(), status, given))
            if not self.crossings:
                self._decoder = decoder_for(encoding, MOST_BYTES)
            if any(name == "content-length" for name, _ in given):
                self.whole = True
        self.trace.seen_by(self)

    def chunk(self, data: bytes) -> None:
        """The layer gives bytes."""
        if not data:
            return
        with self.trace.lock:
            read = self._decoder.feed(data)
            self._raw += len(data)
            self._offset += len(read)
            window = self._tail + read
            self._marks += window.count(MARK)
            # So short that no mark fits into it: none is counted twice.
            self._tail = window[-(len(MARK) - 1) :]
            self.crossings.append(
                Crossing(self.trace.tick(), self.trace.now(), self._raw, self._offset, self._marks)
            )
        self.trace.seen_by(self)

    def end(self) -> None:
        """The body is complete."""
        self.ended = True

    def fail(self, error: BaseException) -> None:
        """The layer raised."""
        if self.error is None:
            self.error = error

    @property
    def is_cut(self) -> bool:
        """Whether it is the source, and has given enough."""
        return self.trace.cut and self is self.trace.source

    @property
    def offset(self) -> int:
        """Bytes of payload that came out so far."""
        return self.crossings[-1].offset if self.crossings else 0

    def is_inside(self, other: Passage) -> bool:
        """Whether it was reached through the other."""
        passage = self.parent
        while passage is not None:
            if passage is other:
                return True
            passage = passage.parent
        return False


# Which passage runs now. A layer may call what it likes, in any order and on any thread that copies its
# context: what it calls is what finds it here.
CURRENT: ContextVar[Passage | None] = ContextVar("streamkit.doctor.passage", default=None)


class Trace:
    """All that was seen of one request."""

    def __init__(
        self,
        kind: str,
        *,
        probe: Probed | None = None,
        most: int = 24,
        patience: float = PATIENCE,
        media_type: str = "",
    ) -> None:
        self.lock = threading.Lock()
        self.kind = kind  # "wsgi" or "asgi": what the client outside speaks
        self.probe = probe  # whose place the probe stream takes; None where the app's own view is asked
        self.patience = patience  # seconds for which a chunk is waited for, before it counts as held
        self.media_type = media_type  # of the probe stream
        self.most = most  # chunks that are enough to know; then the source is cut
        self.passages: list[Passage] = []
        self.steps: list[Step] = []
        self.source: Passage | None = None
        self.cut = False
        self.over = False
        self.stalls: list[float] = []  # seconds for which the loop could not run
        self.reader = Passage(self, Probed("the client"), None)
        self.reading_thread: int | None = None
        self._count = 0
        self._begun = time.monotonic()
        self._read = threading.Condition()
        self._missed = False

    def now(self) -> float:
        return time.monotonic() - self._begun

    def tick(self) -> int:
        """The next place in the order of events; under the lock."""
        self._count += 1
        return self._count

    def enter(self, layer: Probed, parent: Passage) -> Passage:
        """A layer is called."""
        passage = Passage(self, layer, parent)
        with self.lock:
            self.passages.append(passage)
        return passage

    def seen_by(self, passage: Passage) -> None:
        """Bytes or a head came out of a layer: wake whoever waits for the reader, or find the source."""
        if passage is self.reader:
            with self._read:
                self._read.notify_all()
        else:
            with self.lock:
                is_placed = self.source is not None and self.source.layer is self.probe
                is_deeper = self.source is None or passage.is_inside(self.source)
                if passage.layer is self.probe or (is_deeper and not is_placed):
                    self.source = passage

    def children(self, passage: Passage) -> list[Passage]:
        return [other for other in self.passages if other.parent is passage]

    # A step of the source, for sync and for async code.

    def step(self, passage: Passage, kind: str = "chunk") -> None:
        """After the source gave something: let it pass, then note who has passed it on."""
        if passage is not self.source or self.over:
            return
        # Who reads on this very thread can see nothing before we return: there is nothing to wait for.
        if threading.get_ident() != self.reading_thread:
            begun, start = time.monotonic(), self.reader.offset
            with self._read:
                while not self._arrived(passage, kind):
                    left = begun + self._bound(kind, start) - time.monotonic()
                    if left <= 0:
                        break
                    self._read.wait(min(left, LATE))
        self._note(passage, kind)

    async def astep(self, passage: Passage, kind: str = "chunk") -> None:
        """The same on a loop."""
        if passage is not self.source or self.over:
            return
        begun, start = time.monotonic(), self.reader.offset
        turns = 0
        while not self._arrived(passage, kind) and time.monotonic() < begun + self._bound(kind, start):
            turns += 1
            await asyncio.sleep(0 if turns < 20 else 0.005)
        self._note(passage, kind)

    def _arrived(self, passage: Passage, kind: str) -> bool:
        if self.over:
            return True
        if kind == "head":
            return bool(self.reader.heads)
        if self.probe is not None and self.reader.crossings and passage.crossings:
            return self.reader.crossings[-1].marks >= passage.crossings[-1].marks
        return self.reader.offset >= passage.offset

    def _bound(self, kind: str, start: int) -> float:
        if kind == "head":
            return HEAD_PATIENCE
        if self._missed:
            return SHORT
        return min(self.patience, LATE) if self.reader.offset > start else self.patience

    def _note(self, passage: Passage, kind: str) -> None:
        if kind == "chunk":
            self._missed = not self._arrived(passage, kind)
        with self.lock:
            self.steps.append(Step(self.tick(), kind))
            if self.probe is None and sum(step.kind == "chunk" for step in self.steps) >= self.most:
                self.cut = True


_ACTIVE: list[Trace] = []


@contextmanager
def active(trace: Trace) -> Iterator[Trace]:
    """Until the end of the block, what runs without a context of its own belongs to this trace."""
    _ACTIVE.append(trace)
    try:
        yield trace
    finally:
        trace.over = True
        _ACTIVE.remove(trace)


def entered(layer: Probed) -> Passage | None:
    """The passage of a layer that is called now; None outside of a trace."""
    current = CURRENT.get()
    if current is not None:
        return None if current.trace.over else current.trace.enter(layer, current)
    if not _ACTIVE or _ACTIVE[-1].over:
        return None
    # The context was lost on the way, to a thread, say: it is inside what was entered last and still runs.
    trace = _ACTIVE[-1]
    running = [passage for passage in trace.passages if not passage.returned]
    return trace.enter(layer, running[-1] if running else trace.reader)
