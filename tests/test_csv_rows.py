"""`csv_rows`: rows as a CSV file, sent while they are read; and when what has gathered is sent."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from downloading import WAYS, Downloads, awaited, sent_length, serving
from driving import PATIENCE, until
from hypothesis import given
from hypothesis import strategies as st

from streamkit.downloads import Download, batches, csv_rows
from streamkit.errors import AlreadyServed, HeaderError, OptionsError, ProducerError

ROWS = [(1, "plain", 2.5), (2, 'a "quote", a comma', None), (3, "two\nlines", "é")]
FOREVER = 1e9


class Boom(Exception):
    pass


@pytest.fixture(params=WAYS)
def served(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


@pytest.fixture(params=["rows", "async-rows"])
def kind(request: Any) -> Callable[[Any], Any]:
    """How the rows of a test come: as they are, or from an async generator."""
    return (lambda rows: rows) if request.param == "rows" else awaited


def plainly(rows: Any, *head: Any, dialect: str = "excel") -> bytes:
    """The same file by the csv module alone."""
    text = io.StringIO(newline="")
    csv.writer(text, dialect).writerows([*head, *rows])
    return text.getvalue().encode()


# ---------------------------------------------------------------- what is in the file


def test_the_rows_are_written_as_the_csv_module_writes_them(served: Downloads, kind: Any):
    answer = served(lambda: csv_rows(kind(ROWS), "a.csv")).finish()
    assert (answer.body, answer.complete) == (plainly(ROWS), True)
    assert answer.header("Content-Type") == "text/csv"
    assert answer.header("Content-Disposition") == "attachment; filename=\"a.csv\"; filename*=UTF-8''a.csv"
    assert answer.header("Accept-Ranges") == "none"


def test_a_header_stands_above_the_rows_and_alone_where_there_are_none(served: Downloads, kind: Any):
    header = ["id", "text", "number"]
    assert served(lambda: csv_rows(kind(ROWS), "a.csv", header=header)).finish().body == plainly(ROWS, header)
    assert served(lambda: csv_rows(kind([]), "a.csv", header=header)).finish().body == plainly([], header)


def test_no_rows_and_no_header_are_an_empty_file(served: Downloads, kind: Any):
    answer = served(lambda: csv_rows(kind([]), "a.csv")).finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


def test_mappings_bring_their_header_with_them(served: Downloads, kind: Any):
    rows = [{"a": 1, "b": 2}, {"b": 4, "a": 3}]
    assert served(lambda: csv_rows(kind(rows), "a.csv")).finish().body == b"a,b\r\n1,2\r\n3,4\r\n"


@pytest.mark.parametrize(
    ("header", "expected"), [(["b"], b"b\r\n2\r\n"), (["b", "a"], b"b,a\r\n2,1\r\n"), ([], b"\r\n\r\n")]
)
def test_a_header_picks_the_columns_of_mappings(served: Downloads, header: Any, expected: bytes):
    assert served(lambda: csv_rows([{"a": 1, "b": 2}], "a.csv", header=header)).finish().body == expected


@pytest.mark.parametrize("odd", [{"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}, {}], ids=repr)
def test_a_mapping_with_other_columns_than_the_first_ends_the_download_with_its_number(
    served: Downloads, kind: Any, odd: Any
):
    rows = [{"a": 1, "b": 2}, {"a": 3, "b": 4}, odd]
    answer = served(lambda: csv_rows(kind(rows), "a.csv")).finish()
    assert (answer.body, answer.complete) == (b"a,b\r\n1,2\r\n3,4\r\n", False)
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error) == (
        f"row 3: wanted a mapping with the columns of the first, ['a', 'b'], got {list(odd)!r}"
    )


def test_a_mapping_without_a_column_of_the_header_ends_the_download_with_its_number(
    served: Downloads, kind: Any
):
    rows = [{"a": 1, "b": 2}, {"b": 4}]
    for header in (["a"], ["b", "a"]):
        make = lambda header=header: csv_rows(kind(rows), "a.csv", header=header)  # noqa: E731
        answer = served(make).finish()
        assert not answer.complete
        assert isinstance(answer.error, ProducerError)
        assert str(answer.error) == (
            f"row 2: wanted a mapping with the columns of the header, {header!r}, got ['b']"
        )


@pytest.mark.parametrize("odd", [5, None, [1, 2], "ab"], ids=repr)
def test_a_row_among_mappings_that_is_none_is_named_with_its_number(served: Downloads, kind: Any, odd: Any):
    answer = served(lambda: csv_rows(kind([{"a": 1, "b": 2}, odd]), "a.csv")).finish()
    assert answer.body == b"a,b\r\n1,2\r\n"
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error) == (
        f"row 2: wanted a mapping as the first row is one, got {type(odd).__name__}: {odd!r}"
    )


def test_an_error_of_a_mapping_with_all_columns_is_its_own(served: Downloads, kind: Any):
    class Lazy(dict[str, int]):
        def __getitem__(self, name: str) -> int:
            raise KeyError("of the application")

    answer = served(lambda: csv_rows(kind([Lazy(a=1)]), "a.csv")).finish()
    assert type(answer.error) is KeyError


def test_a_dialect_is_one_of_the_csv_module(served: Downloads, kind: Any):
    expected = plainly(ROWS, dialect="excel-tab")
    answer = served(lambda: csv_rows(kind(ROWS), "a.tsv", dialect="excel-tab")).finish()
    assert (answer.body, answer.header("Content-Type")) == (expected, "text/tab-separated-values")


def test_the_encoding_is_that_of_the_type_or_the_one_given(served: Downloads, kind: Any):
    typed = served(lambda: csv_rows(kind([("é",)]), "a", type="text/csv; charset=latin-1")).finish()
    assert typed.body == b"\xe9\r\n"
    given = served(lambda: csv_rows(kind([("é",)] * 9000), "a", encoding="utf-8-sig")).finish()
    assert given.body == b"\xef\xbb\xbf" + b"\xc3\xa9\r\n" * 9000
    assert given.header("Content-Type") == "text/csv"


# The csv module of CPython 3.10 cannot write a NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.lists(TEXT, min_size=1), max_size=5))
def test_any_rows_are_as_the_csv_module_writes_them(rows: Any):
    assert b"".join(csv_rows(rows, "a.csv").producer) == plainly(rows)


# ---------------------------------------------------------------- when it is sent


def test_the_first_row_arrives_before_the_second_is_made(served: Downloads):
    arrived = threading.Event()

    def rows() -> Iterator[Any]:
        yield [1]
        assert arrived.wait(PATIENCE), "the first row was held back"
        yield [2]

    answer = served(lambda: csv_rows(rows(), "a.csv", header=["n"]))
    assert answer.read() == b"n\r\n1\r\n"
    arrived.set()
    assert answer.finish().body == b"n\r\n1\r\n2\r\n"
    assert answer.complete


def test_rows_that_come_slowly_arrive_each_by_itself(served: Downloads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "MOMENT", 0)  # so every row is slow
    arrived = threading.Semaphore(0)

    def rows() -> Iterator[Any]:
        for number in range(4):
            yield [number]
            assert arrived.acquire(timeout=PATIENCE), "a row was held back"

    answer = served(lambda: csv_rows(rows(), "a.csv"))
    for number in range(4):
        assert answer.read() == b"%d\r\n" % number
        arrived.release()
    assert answer.finish().complete


def test_an_async_row_arrives_after_a_moment_while_the_next_is_waited_for(served: Downloads):
    arrived = threading.Event()

    async def rows() -> AsyncIterator[Any]:
        yield [1]
        yield [2]
        yield [3]
        assert await asyncio.to_thread(arrived.wait, PATIENCE), "the rows were held back"
        yield [4]

    answer = served(lambda: csv_rows(rows(), "a.csv"))
    assert answer.read() == b"1\r\n"
    assert until(lambda: answer.body == b"1\r\n2\r\n3\r\n")
    arrived.set()
    assert answer.finish().body == b"1\r\n2\r\n3\r\n4\r\n"
    assert answer.complete


def test_rows_that_come_fast_travel_together(served: Downloads, kind: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "MOMENT", FOREVER)  # so none is slow
    rows = [(number, "x" * 50) for number in range(20_000)]
    seen: list[tuple[int, int]] = []
    answer = served(
        lambda: csv_rows(kind(rows), "a.csv", on_progress=lambda *told: seen.append(told))
    ).finish()
    assert answer.body == plainly(rows)
    sizes = [sent - before for (_, sent), (_, before) in zip(seen[1:], seen, strict=False)]
    assert all(batches.CHUNK <= size < batches.CHUNK + 100 for size in sizes[:-1])


def test_async_rows_that_never_wait_leave_the_loop_its_turns(served: Downloads):
    async def rows() -> AsyncIterator[Any]:
        while True:
            yield ["x" * 1000]

    answer = served(lambda: csv_rows(rows(), "a.csv"))
    assert answer.read()
    answer.leave()
    answer.through()


# ---------------------------------------------------------------- progress


def test_progress_tells_rows_and_bytes_at_most_once_a_chunk(served: Downloads, kind: Any):
    seen: list[tuple[int, int]] = []
    rows = [(number, "x" * 100) for number in range(5000)]
    make = lambda: csv_rows(kind(rows), "a.csv", on_progress=lambda *told: seen.append(told))  # noqa: E731
    answer = served(make).finish()
    assert seen == sorted(set(seen))
    assert seen[0] == (1, len(plainly(rows[:1])))
    assert seen[-1] == (5000, len(answer.body))
    assert all(sent == len(plainly(rows[:count])) for count, sent in seen)
    assert len(seen) < 100


def test_progress_of_async_rows_is_awaited(served: Downloads):
    seen: list[tuple[int, int]] = []

    async def on_progress(rows: int, sent: int) -> None:
        await asyncio.sleep(0)
        seen.append((rows, sent))

    served(lambda: csv_rows(awaited([[1], [2]]), "a.csv", on_progress=on_progress)).finish()
    assert seen[-1] == (2, 6)


def test_what_progress_raises_ends_the_download(served: Downloads, kind: Any):
    def on_progress(rows: int, sent: int) -> None:
        raise Boom

    answer = served(lambda: csv_rows(kind(ROWS), "a.csv", on_progress=on_progress)).finish()
    assert not answer.complete
    assert isinstance(answer.error, Boom)


# ---------------------------------------------------------------- how it ends


class Table:
    """Rows as a database cursor gives them: they fail after `last`, and are to be closed."""

    def __init__(self, last: float) -> None:
        self.last = last
        self.made = 0
        self.closed = 0

    def __iter__(self) -> Table:
        return self

    def __next__(self) -> Any:
        if self.made >= self.last:
            raise Boom
        self.made += 1
        return [self.made, "x" * 100]

    def close(self) -> None:
        self.closed += 1


class AsyncTable(Table):
    def __aiter__(self) -> AsyncTable:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        return next(self)

    async def aclose(self) -> None:
        self.close()

    __iter__ = None  # type: ignore[assignment]


@pytest.fixture(params=[Table, AsyncTable])
def table(request: Any) -> type[Table]:
    chosen: type[Table] = request.param
    return chosen


def test_an_error_before_the_first_row_is_a_real_error_also_under_a_header(served: Downloads, table: Any):
    rows = table(0)
    answer = served(lambda: csv_rows(rows, "a.csv", header=["n", "x"])).finish()
    assert not answer.committed
    assert isinstance(answer.error, Boom)
    assert rows.closed


def test_an_error_after_it_cuts_the_connection(served: Downloads, table: Any):
    rows = table(5000)
    answer = served(lambda: csv_rows(rows, "a.csv")).finish()
    assert answer.status == 200
    assert not answer.complete
    assert isinstance(answer.error, Boom)
    assert rows.closed


def numbered(count: int) -> bytes:
    return plainly([number, "x" * 100] for number in range(1, count + 1))


@pytest.mark.parametrize("made", [1, 2, 3, 50, 5000])
def test_rows_that_were_made_before_a_failure_are_sent_before_it(
    served: Downloads, table: Any, made: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "MOMENT", FOREVER)
    seen: list[tuple[int, int]] = []
    make = lambda: csv_rows(table(made), "a.csv", on_progress=lambda *told: seen.append(told))  # noqa: E731
    answer = served(make).finish()
    assert answer.body == numbered(made)
    assert not answer.complete
    assert isinstance(answer.error, Boom)
    assert seen[-1] == (made, len(answer.body))
    assert len(seen) == len(set(seen))


def test_rows_that_were_made_before_a_row_that_cannot_be_encoded_are_sent(
    served: Downloads, kind: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "MOMENT", FOREVER)
    good = [(1, "é"), (2, 'two\r\n"lines"'), (3, "plain")]
    seen: list[tuple[int, int]] = []
    for bad in ("\u20ac", 'in its\r\nsecond "line" \u20ac'):
        rows = [*good, (4, bad), (5, "never sent")]
        make = lambda rows=rows: csv_rows(  # noqa: E731
            kind(rows), "a.csv", encoding="latin-1", on_progress=lambda *told: seen.append(told)
        )
        answer = served(make).finish()
        assert answer.body == plainly(good).decode().encode("latin-1")
        assert not answer.complete
        assert isinstance(answer.error, UnicodeEncodeError)
        assert seen[-1] == (3, len(answer.body))


def test_an_encoding_that_shifts_between_alphabets_is_where_it_was_before_the_row_that_failed(
    served: Downloads, kind: Any
):
    rows = [("あ",), ("い",), ("う\u20ac",)]
    answer = served(lambda: csv_rows(kind(rows), "a.csv", encoding="iso2022_jp")).finish()
    assert answer.body.decode("iso2022_jp") == "あ\r\nい\r\n"
    assert isinstance(answer.error, UnicodeEncodeError)


def test_a_first_row_that_cannot_be_encoded_is_a_real_error_also_under_a_header(served: Downloads, kind: Any):
    make = lambda: csv_rows(kind([("\u20ac",), ("b",)]), "a.csv", header=["a"], encoding="latin-1")  # noqa: E731
    answer = served(make).finish()
    assert not answer.committed
    assert isinstance(answer.error, UnicodeEncodeError)


def test_an_escape_character_does_not_hide_where_a_row_ends(served: Downloads):
    class Escaped(csv.excel):
        doublequote = False
        escapechar = "\\"

    good = [("a",), ('5" and\r\n\\',), ("b",)]
    make = lambda: csv_rows([*good, ("\u20ac",)], "a.csv", dialect=Escaped, encoding="latin-1")  # noqa: E731
    text = io.StringIO(newline="")
    csv.writer(text, Escaped).writerows(good)
    assert served(make).finish().body == text.getvalue().encode()


def test_a_failure_before_anything_was_sent_is_a_real_error_over_http10_too(served: Downloads, table: Any):
    answer = served(lambda: csv_rows(table(3), "a.csv"), version="1.0").finish()
    assert not answer.committed
    assert isinstance(answer.error, Boom)


def test_an_error_of_progress_is_not_followed_by_what_has_gathered(served: Downloads, kind: Any):
    seen: list[int] = []

    def on_progress(rows: int, sent: int) -> None:
        seen.append(sent)
        if rows > 1:
            raise Boom

    rows = [(number, "x" * 100) for number in range(2000)]
    answer = served(lambda: csv_rows(kind(rows), "a.csv", on_progress=on_progress)).finish()
    assert len(seen) == 2
    assert len(answer.body) == seen[1]
    assert isinstance(answer.error, Boom)


def test_the_error_is_not_lost_when_the_client_leaves_before_the_last_rows_are_sent():
    body = iter(csv_rows(Table(3), "a.csv").producer)
    assert [next(body), next(body)] == [numbered(1), numbered(3)[len(numbered(1)) :]]
    with pytest.raises(Boom) as caught:
        body.close()
    assert caught.value.__context__ is None  # or it would be taken for the leave itself


def test_rows_are_closed_when_the_client_leaves(served: Downloads, table: Any):
    rows = table(FOREVER)
    answer = served(lambda: csv_rows(rows, "a.csv"))
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: rows.closed)
    assert rows.made < 100_000


def test_rows_are_not_read_for_head_but_closed(served: Downloads):
    rows = Table(9)
    answer = served(lambda: csv_rows(rows, "a.csv"), method="HEAD").finish()
    assert (answer.status, answer.body, rows.made) == (200, b"", 0)
    assert rows.closed


def test_async_rows_are_closed_unread_where_a_loop_runs(served: Downloads):
    rows = AsyncTable(9)
    served(lambda: csv_rows(rows, "a.csv"), method="HEAD").finish()
    assert rows.made == 0
    assert "asgi" not in served.way or until(lambda: rows.closed)


def test_rows_that_can_be_read_once_are_not_sent_twice_as_an_empty_file(served: Downloads, kind: Any):
    download = csv_rows(kind(iter(ROWS)), "a.csv")
    assert served(lambda: download).finish().body == plainly(ROWS)
    second = served(lambda: download).finish()
    assert not second.committed
    assert isinstance(second.error, AlreadyServed)


def test_a_list_of_rows_can_be_sent_again(served: Downloads):
    download = csv_rows(ROWS, "a.csv")
    assert [served(lambda: download).finish().body for _ in range(2)] == [plainly(ROWS)] * 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("row", ["text", b"bytes", 1, None])
def test_a_row_that_has_no_fields_is_refused_before_anything_is_sent(served: Downloads, kind: Any, row: Any):
    for header in (None, ["a"]):
        answer = served(lambda header=header: csv_rows(kind([row, row]), "a.csv", header=header)).finish()
        assert not answer.committed
        assert isinstance(answer.error, ProducerError)
        assert str(answer.error) == (
            f"row 1: wanted a row as a sequence of fields or as a mapping, got {type(row).__name__}: {row!r}"
        )


def test_a_later_row_that_has_no_fields_is_named_with_its_number(served: Downloads, kind: Any):
    answer = served(lambda: csv_rows(kind([[1], [2], 3]), "a.csv")).finish()
    assert answer.body == b"1\r\n2\r\n"
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error).startswith("row 3: wanted a row as a sequence of fields")
    assert isinstance(answer.error.__cause__, csv.Error)


def test_after_a_mapping_a_row_is_picked_from_by_name_if_it_can_be(served: Downloads, kind: Any):
    """As a `sqlite3.Row`, which is no mapping to Python."""

    class Row:
        def keys(self) -> list[str]:
            return ["b", "a"]

        def __len__(self) -> int:
            return 2

        def __getitem__(self, name: str) -> str:
            return name.upper()

    answer = served(lambda: csv_rows(kind([{"a": 1, "b": 2}, Row()]), "a.csv")).finish()
    assert (answer.body, answer.complete) == (b"a,b\r\n1,2\r\nA,B\r\n", True)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"a": 3}, "a sequence of fields as the first row is one, got dict"),
        ("ab", "a row as a sequence of fields or as a mapping, got str"),
        (b"ab", "a row as a sequence of fields or as a mapping, got bytes"),
    ],
)
def test_a_later_row_of_another_kind_is_named_with_its_number(
    served: Downloads, kind: Any, row: Any, wanted: str
):
    answer = served(lambda: csv_rows(kind([[1], (2,), row, [4]]), "a.csv")).finish()
    assert answer.body == b"1\r\n2\r\n", "its keys, or its letters, are no fields"
    assert not answer.complete
    assert isinstance(answer.error, ProducerError)
    assert str(answer.error).startswith(f"row 3: wanted {wanted}")


def test_what_the_csv_module_refuses_is_named_with_the_number_of_its_row(served: Downloads, kind: Any):
    class Bare(csv.excel):
        quoting = csv.QUOTE_NONE

    answer = served(lambda: csv_rows(kind([["a"], ["b,c"]]), "a.csv", dialect=Bare)).finish()
    assert answer.body == b"a\r\n"
    assert isinstance(answer.error, csv.Error)
    assert str(answer.error).startswith("row 2: need to escape")


def test_an_error_of_the_csv_module_from_the_rows_themselves_is_theirs(served: Downloads, kind: Any):
    def rows() -> Iterator[Any]:
        yield ["a"]
        raise csv.Error("of the application")

    answer = served(lambda: csv_rows(kind(rows()), "a.csv")).finish()
    assert str(answer.error) == "of the application"


@pytest.mark.parametrize("headers", [["id"], ["id", "ab"], "id", [("X-A", "1", "2")]], ids=repr)
def test_column_names_given_as_headers_are_refused(headers: Any):
    with pytest.raises(HeaderError, match="pairs of name and value"):
        csv_rows(ROWS, "a.csv", headers=headers)


@pytest.mark.parametrize("rows", ["text", None, 5, lambda stream: None])
def test_rows_that_cannot_be_iterated_are_refused(rows: Any):
    with pytest.raises(ProducerError):
        csv_rows(rows, "a.csv")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"header": "abc"}, "header"),
        ({"header": 5}, "header"),
        ({"dialect": "excell"}, "dialect"),
        ({"encoding": "utf-9"}, "encoding"),
        ({"encoding": "hex"}, "encoding"),
        ({"encoding": "rot13"}, "encoding"),
        ({"on_progress": 5}, "on_progress"),
    ],
)
def test_what_does_not_hold_is_refused_when_it_is_described(wrong: Any, word: str):
    with pytest.raises(OptionsError, match=word):
        csv_rows(ROWS, "a.csv", **wrong)


def test_a_charset_that_nobody_knows_is_refused():
    with pytest.raises(HeaderError, match="charset"):
        csv_rows(ROWS, "a.csv", type="text/csv; charset=utf-9")


def test_it_is_a_download_with_the_facts_as_they_were_given():
    download = csv_rows(ROWS, "report", disposition="inline", type=None, status=201)
    assert isinstance(download, Download)
    assert (download.filename, download.disposition, download.type) == ("report", "inline", None)
    assert (download.status, download.media_type) == (201, "text/csv")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_a_million_rows_take_no_more_memory_than_ten_thousand(way: str):
    def rows(count: int) -> Iterator[Any]:
        for number in range(count):
            yield number, "some name", "x@example.org"

    async def async_rows(count: int) -> AsyncIterator[Any]:
        for row in rows(count):
            yield row

    def peak(count: int) -> int:
        source: Any = rows(count) if way == "wsgi" else async_rows(count)
        tracemalloc.start()
        try:
            assert sent_length(way, lambda: csv_rows(source, "a.csv")) > count * 20
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1_000_000) < peak(10_000) + 2 * 1024 * 1024


def test_a_header_alone_is_a_whole_file(served: Downloads, kind: Any):
    answer = served(lambda: csv_rows(kind([]), "a.csv", header=["id"])).finish()
    assert (answer.body, answer.complete, answer.error) == (b"id\r\n", True, None)
