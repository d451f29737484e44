"""What follows a line that `write` has left without its end: events keep to lines of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from shapes import Run, Serve, serving
from test_event_stream import FUNCTIONS

from streamkit.sse import Decoder


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.mark.parametrize("written", ["data: ha", "data: ha\n", "data: ha\r", "data: ha\n\n"], ids=repr)
def test_done_ends_a_stream_for_good_also_after_half_a_line(functions: Serve, written: str) -> None:
    def program(stream: Any) -> Run:
        yield lambda: stream.write(written)
        yield lambda: stream.done()

    answer, decoder = functions(program).finish(), Decoder()
    assert [seen.data for seen in decoder.feed(answer.body)] == ["ha"]
    assert decoder.last_event_id == "streamkit.done"
    assert answer.complete


def test_a_comment_after_half_a_line_is_no_part_of_it(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        yield lambda: stream.write("data: ha")
        yield lambda: stream.comment("c")

    assert functions(program).finish().body == b"data: ha\n: c\n\n"


def test_a_hook_s_event_after_half_a_line_is_what_it_says(functions: Serve) -> None:
    """Its type, and the end for good; what was cut is at least no event of its own."""

    def program(stream: Any) -> Run:
        yield lambda: stream.write('data: {"cu')
        raise RuntimeError("cut")

    def hook(stream: Any, error: Any) -> Run:
        yield lambda: stream.send("sorry", event="failed")
        yield lambda: stream.send("twice")
        yield lambda: stream.done()

    answer, decoder = functions(program, on_error=functions.hook(hook)).finish(), Decoder()
    seen = [(event.event, event.data) for event in decoder.feed(answer.body)]
    assert seen == [("failed", '{"cu\nsorry'), (None, "twice")]
    assert decoder.last_event_id == "streamkit.done"
