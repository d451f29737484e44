"""Streams that are ended from outside, and that their application closes, as `ensure close` does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE
from shapes import WITH_STREAM, Run, Serve, serving

import streamkit

EVENTS = "text/event-stream"


@pytest.fixture(params=WITH_STREAM, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def closing(stream: Any) -> Run:
    pause = threading.Event()
    try:
        for number in range(10_000):
            yield b"data: %d\n\n" % number
            pause.wait(0.005)
    finally:
        yield stream.close


@pytest.mark.parametrize("how", ["max_duration", "shutdown"])
@pytest.mark.parametrize("content_type", ["text/plain", EVENTS])
def test_a_stream_that_is_ended_early_ends_as_its_kind_does_though_its_application_closes_it(
    served: Serve, content_type: str, how: str
) -> None:
    outcomes: list[str] = []
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    has_an_end = content_type != EVENTS  # of its own, for which a shutdown waits
    if how == "max_duration":
        seconds = 0.2 if has_an_end else 0.6  # within which a busy machine sends a head
        answer = served(closing, content_type=content_type, options={"max_duration": seconds, **options})
    else:
        answer = served(closing, content_type=content_type, options=options)
        assert answer.read()
        streamkit.shutdown(0.1 if has_an_end else PATIENCE)
    answer.finish()
    assert answer.complete is (content_type == EVENTS)
    assert outcomes == ["timed_out" if how == "max_duration" else "shut_down"]
    if content_type == EVENTS and how == "shutdown":
        assert b"retry: " in answer.body.splitlines()[-2] + answer.body.splitlines()[-1]
