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


@pytest.mark.parametrize(
    "odd", [{1, 2}, {"a": {1, 2}}, object(), {(1, 2): 3}, "\udc80"], ids=lambda odd: type(odd).__name__
)
def test_what_json_has_no_word_for_is_named_with_the_number_of_its_row(
    served: Downloads, kind: Any, odd: Any
):
    answer = served(lambda: json_lines(kind([1, 2, odd, 4]), "a")).finish()
    assert answer.body.startswith(b'1\n2\n{"error"')
    assert not answer.complete
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error).startswith(f"row 3: wanted what JSON has words for, got {type(odd).__name__}: ")


def test_a_row_that_contains_itself_is_named_with_its_number(served: Downloads, kind: Any):
    odd: list[Any] = []
    odd.append(odd)
    answer = served(lambda: json_lines(kind([1, odd]), "a")).finish()
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error).startswith("row 2: ")


def test_what_an_encoder_raises_is_its_own(served: Downloads, kind: Any):
    answer = served(lambda: json_lines(kind([1, {2}]), "a", json=json.dumps)).finish()
    assert answer.body.startswith(b'1\n{"error"')
    assert type(answer.error) is TypeError


def test_rows_before_one_that_an_encoder_makes_several_lines_of_are_sent(served: Downloads, kind: Any):
    encode = lambda row: json.dumps(row, indent=None if row != [3] else 1)  # noqa: E731
    answer = served(lambda: json_lines(kind([[1], [2], [3]]), "a", json=encode)).finish()
    assert answer.body.startswith(b'[1]\n[2]\n{"error"')
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error).startswith("row 3: wanted one line for each row")


def test_rows_that_were_made_before_a_failure_are_sent_before_the_error(served: Downloads, kind: Any):
    def rows() -> Iterator[Any]:
        yield from range(5000)
        raise LookupError

    answer = served(lambda: json_lines(kind(rows()), "a")).finish()
    *lines, last = answer.body.splitlines()
    assert [int(line) for line in lines] == list(range(5000))
    assert list(json.loads(last)) == ["error"]
    assert not answer.complete
    assert isinstance(answer.error, LookupError)


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
