"""The clock of the threads' streams: it stops when it has none, and starts again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from driving import PATIENCE, until

from streamkit import Options
from streamkit.engines import clock as clock_module
from streamkit.engines.clock import ThreadClock


class Looked:
    """A stream that says that it was looked at, and is then over."""

    def __init__(self, clock: ThreadClock) -> None:
        self.options = Options(heartbeat=0.05)
        self.clock = clock
        self.looked = threading.Event()
        self.by: Any = None

    def _look(self, now: float) -> None:
        self.by = threading.current_thread()
        self.clock.streams.discard(self)
        self.looked.set()


def test_a_clock_that_has_stopped_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "IDLE_SECONDS", 0.0)
    clock = ThreadClock()
    for _ in range(3):
        stream = Looked(clock)
        clock.add(stream)
        assert stream.looked.wait(PATIENCE)
        stream.by.join(PATIENCE)
        assert not stream.by.is_alive()


class Noted:
    def __init__(self, heartbeat: float) -> None:
        self.options = Options(heartbeat=heartbeat)

    def _look(self, now: float) -> None:
        """Nothing is to be done about it."""


def test_a_stream_that_comes_as_the_clock_stops_is_looked_at_as_often_as_it_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock_module, "IDLE_SECONDS", 0.0)
    clock, early, late = ThreadClock(), Noted(60.0), Noted(0.05)
    coming = threading.Thread(target=lambda: clock.add(late))

    class Streams(set[Any]):
        def __len__(self) -> int:
            size = super().__len__()
            if clock._lock.locked() and not size and coming.ident is None:
                coming.start()  # after the clock has looked for streams, and before it has stopped
                assert until(clock._bell.is_set)
            return size

    clock.streams = Streams()
    clock.add(early)
    clock.streams.discard(early)
    clock._bell.set()
    assert until(lambda: coming.ident is not None)
    coming.join(PATIENCE)
    assert clock._tick == late.options.tick
    clock.streams.discard(late)
