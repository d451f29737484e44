"""Bodies that are held for HTTP/1.0 obey `max_duration` and a shutdown, as where they are sent at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until
from shapes import SHAPES, Run, Serve, serving

import streamkit


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def endless() -> Run:
    pause = threading.Event()
    for number in range(100_000):
        yield b"%d\n" % number
        pause.wait(0.005)


def test_a_held_body_without_an_end_is_an_error_after_max_duration(served: Serve) -> None:
    outcomes: list[Any] = []
    options = {"max_duration": 0.6, "on_finish": lambda stream: outcomes.append(stream.outcome)}
    answer = served(endless, version="1.0", options=options).finish()
    assert not answer.complete or answer.status >= 500
    assert until(lambda: outcomes == ["timed_out"]), outcomes


def test_a_held_body_without_an_end_is_an_error_at_a_shutdown(served: Serve) -> None:
    outcomes: list[Any] = []
    begun = threading.Event()

    def program() -> Run:
        for chunk in endless():
            yield chunk
            begun.set()

    answer = served(
        program, version="1.0", options={"on_finish": lambda stream: outcomes.append(stream.outcome)}
    )
    assert begun.wait(PATIENCE)
    streamkit.shutdown(0.1)
    answer.finish()
    assert not answer.complete or answer.status >= 500
    assert until(lambda: outcomes == ["shut_down"]), outcomes
