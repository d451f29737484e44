"""`json_lines`: one JSON text a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from downloading import WAYS, Downloads, awaited, serving

from streamkit.downloads import json_lines
from streamkit.errors import OptionsError, ProducerError, UnsupportedData

ROWS = [{"id": 1, "text": "é\n\u2028"}, [1, None, "x"], "text", 5]


@pytest.fixture(params=WAYS)
def served(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


@pytest.fixture(params=["rows", "async-rows"])
def kind(request: Any) -> Any:
    return (lambda rows: rows) if request.param == "rows" else awaited


def test_each_row_is_one_line_of_json_in_utf8(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind(ROWS), "a.jsonl")).finish()
    assert answer.complete
    assert answer.body.endswith(b"\n")
    assert [json.loads(line) for line in answer.body[:-1].split(b"\n")] == ROWS


def test_it_is_no_application_json_whatever_the_extension(served: Downloads):
    for filename in ("a.jsonl", "a.json", "a"):
        answer = served(lambda filename=filename: json_lines(ROWS, filename)).finish()
        assert answer.header("Content-Type") == "application/x-ndjson"
    assert json_lines(ROWS, "a", type="application/jsonl").media_type == "application/jsonl"
    assert json_lines(ROWS, "a.json").type is None


def test_dates_are_known_and_another_encoder_may_be_given(served: Downloads, kind: Any):
    assert served(lambda: json_lines(kind([date(2024, 1, 2)]), "a")).finish().body == b'"2024-01-02"\n'
    assert (
        served(lambda: json_lines(kind([1, 2]), "a", json=lambda row: b"[%d]" % row)).finish().body
        == b"[1]\n[2]\n"
    )
    assert served(lambda: json_lines(kind([1, 2]), "a", json=str)).finish().body == b"1\n2\n"


def test_many_rows_travel_together_and_none_is_lost(served: Downloads, kind: Any):
    rows = [{"number": number} for number in range(20_000)]
    seen: list[tuple[int, int]] = []
    answer = served(lambda: json_lines(kind(rows), "a", on_progress=lambda *told: seen.append(told))).finish()
    assert [json.loads(line)["number"] for line in answer.body.splitlines()] == list(range(20_000))
    assert seen[-1] == (20_000, len(answer.body))
    assert len(answer.chunks) < 1000


def test_no_rows_are_an_empty_file(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([]), "a")).finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


def test_a_file_that_fails_ends_with_an_error_record_and_is_cut(served: Downloads, kind: Any):
    def rows() -> Iterator[Any]:
        yield {"a": 1}
        raise LookupError

    answer = served(lambda: json_lines(kind(rows()), "a")).finish()
    first, last = answer.body.splitlines()
    assert (first, list(json.loads(last))) == (b'{"a":1}', ["error"])
    assert not answer.complete
    assert isinstance(answer.error, LookupError)


def test_a_row_that_is_no_json_is_a_real_error_where_it_is_the_first(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([object()]), "a")).finish()
    assert not answer.committed
    assert isinstance(answer.error, TypeError)


def test_http10_gets_it_whole(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([1, 2]), "a"), version="1.0").finish()
    assert (answer.body, answer.header("Content-Length")) == (b"1\n2\n", "4")


def test_an_encoder_that_makes_several_lines_is_refused(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([[1]]), "a", json=lambda row: json.dumps(row, indent=1))).finish()
    assert not answer.committed
    assert isinstance(answer.error, ProducerError)


def test_an_encoder_that_makes_no_text_is_refused(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([1]), "a", json=lambda row: row)).finish()
    assert isinstance(answer.error, UnsupportedData)


def test_an_encoder_that_is_no_function_is_refused():
    with pytest.raises(OptionsError, match="json"):
        json_lines([1], "a", json="json")  # type: ignore[arg-type]
