"""A header with a newline, wherever it comes from: the error names the header and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shapes import FUNCTIONS, Run, Serve, refusal, serving

import streamkit
from streamkit.errors import HeaderError

VALUES = ["1\r\nX-Injected: 1", "1\n2", "1\r2", "1\0"]


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def changes_of(headers: Any, value: str) -> list[Callable[[], object]]:
    return [
        lambda: headers.__setitem__("X-Bad", value),
        lambda: headers.add("X-Bad", value),
        lambda: headers.set("X-Bad", value),
        lambda: headers.setdefault("X-Bad", value),
        lambda: headers.setlist("X-Bad", ["1", value]),
        lambda: headers.extend([("X-Bad", value)]),
        lambda: headers.extend({"X-Bad": ["1", value]}),
        lambda: headers.update({"X-Bad": value}),
        lambda: headers.add("X-Bad", "1", parameter=value),
        lambda: headers.__ior__({"X-Bad": value}),
    ]


@pytest.mark.parametrize("value", VALUES)
def test_a_header_with_a_newline_is_refused_by_its_name_and_its_value(functions: Serve, value: str) -> None:
    refused: list[object] = []

    def program(stream: Any) -> Run:
        changes = changes_of(stream.headers, value)
        refused.extend(refusal(change, HeaderError, "X-Bad", repr(value)[1:-1]) for change in changes)
        yield "x"

    answer = functions(program).finish()
    assert (answer.body, answer.error, len(refused)) == (b"x", None, 10)
    assert answer.values("X-Bad") == []


@pytest.mark.parametrize("value", VALUES)
def test_a_described_header_with_a_newline_is_refused_by_its_name_and_its_value(value: str) -> None:
    for headers in ({"X-Bad": value}, [("X-Bad", value)], iter([("X-Bad", value)])):
        refusal(
            lambda headers=headers: streamkit.stream(["x"], headers=headers),
            HeaderError,
            "X-Bad",
            repr(value),
        )
    for describe in (
        lambda: streamkit.stream(["x"], content_type=value),
        lambda: streamkit.event_stream(["x"], content_type=value),
        lambda: streamkit.send_stream(["x"], "a.csv", type=f"text/csv;{value}"),
    ):
        refusal(describe, HeaderError, "Content-Type", repr(value)[1:-1])
