"""The clock of the threads' streams: it stops when it has none, and starts again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from driving import PATIENCE

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
