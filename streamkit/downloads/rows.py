"""The two commonest exports: CSV, and one JSON text a line.

    streamkit.csv_rows(cursor, "orders.csv", header=["id", "customer", "total"])
    streamkit.json_lines(orders(), "orders.jsonl")

Rows come from an iterable or an async iterable. The first one is sent as soon as it is
there; then many travel together, for a chunk a row would cost more than the row. None waits
long: an async row at most 0.1 s; a synchronous one until the next arrives, if that takes longer.

The price of the first row's haste: an error in the second is one after the commit. The rows
before it are sent; a row that cannot be written is named by its number, from 1.

Rule: a pen writes rows into memory (`put`) and gives what has gathered (`take`); the two
bodies decide when. What is in the fields is the caller's: a text that begins with `=` is a
formula to a spreadsheet, and goes out as it is.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..core.events import json_encoder
from ..core.headers import charset_of
from ..core.producers import kind_of
from ..errors import OptionsError, ProducerError, UnsupportedData, shown
from .batches import AsyncBatches, Batches, Progress
from .description import Download, Wishes
from .media_types import media_type_of_download

if TYPE_CHECKING:
    from typing_extensions import Unpack

_A_ROW = "a row as a sequence of fields or as a mapping"
_TEXTS = (str, bytes, bytearray, memoryview)

Dialect: TypeAlias = "str | csv.Dialect | type[csv.Dialect]"
Rows: TypeAlias = "Iterable[Any] | AsyncIterable[Any]"


def csv_rows(
    rows: Rows,
    filename: str | None,
    *,
    header: Sequence[str] | None = None,
    dialect: Dialect = "excel",
    encoding: str | None = None,
    on_progress: Progress | None = None,
    disposition: str = "attachment",
    type: str | None = None,
    **more: Unpack[Wishes],
) -> Download:
    """Describe a CSV file (RFC 4180) of `rows`, sent while they are read.

    - `rows`: sequences of fields, or mappings, as the first row is one or the other. Of mappings
      `header` picks the columns, which each has to have; without it the first row's keys are the
      header, and each has to have these and no others.
    - `header`: the column names, sent with the first row; alone if there is none.
    - `dialect`: a name or a dialect of the `csv` module.
    - `encoding`: the charset of `type`, or UTF-8; `utf-8-sig` is what Excel recognises.
    - `on_progress(rows, bytes)`: called after each chunk that was taken, with what has been
      sent so far; awaited where `rows` is async and it can be. What it raises ends the download.

    The type is text/csv where neither `type` nor the extension says another. Raises
    `ProducerError`, `OptionsError` and `HeaderError`; while it is sent, `ProducerError` for what
    is no such row, what `csv` raises, and `UnicodeEncodeError`.
    """
    charset = encoding or charset_of(media_type_of_download(type, filename, "text/csv"))
    columns = None if header is None else _names(header)
    _check_csv(dialect, charset)

    def pen(first: Any) -> Pen:
        return CsvPen(first, columns, dialect, charset)

    body = _body_of(rows, pen, on_progress)
    return _CsvDownload(body, filename, disposition=disposition, type=type, **more)


def json_lines(
    rows: Rows,
    filename: str | None,
    *,
    json: Callable[[Any], str | bytes] | None = None,
    on_progress: Progress | None = None,
    disposition: str = "attachment",
    type: str | None = None,
    **more: Unpack[Wishes],
) -> Download:
    """Describe a file of JSON Lines: each of `rows` as one JSON text and a newline, in UTF-8.

    `json(row)` makes the text, in place of our own encoder (which also knows dates, UUIDs,
    enums and dataclasses); more than one line of it is a `ProducerError`, and so is what our own
    has no words for. `on_progress` is as for `csv_rows`. The type is application/x-ndjson, whatever
    the extension, unless `type` says another. A file that fails half-way ends with an `error`
    record, and is cut.
    """
    if json is not None and not callable(json):
        raise OptionsError([f"json: wanted a function or None, got {json!r}"])

    def pen(first: Any) -> Pen:
        return JsonPen(json)

    body = _body_of(rows, pen, on_progress)
    return _JsonLinesDownload(body, filename, disposition=disposition, type=type, **more)


class _RowsDownload(Download):
    closes_unread = True  # the rows


class _CsvDownload(_RowsDownload):
    otherwise = "text/csv"


class _JsonLinesDownload(_RowsDownload):
    def _media_type(self) -> str:  # many JSON texts are no application/json, also in a file named so
        return media_type_of_download(self.type or "ndjson", None)


class Pen(Protocol):
    """Writes rows into memory; a new one for each body."""

    @property
    def put(self) -> Callable[[Any], int]:
        """Write one row; about how many bytes that made."""

    def check(self, row: Any) -> None:
        """Refuse a row of a wrong kind that `put` would take; called where the class changes."""

    def take(self, last: bool = False) -> bytes:
        """What has gathered since the last time; where that fails, the next call gives the rows before."""

    def refuse(self, row: Any, number: int, error: Exception) -> None:
        """`put` raised this at the row of that number: raise what says more, if anything does."""

    @property
    def dropped(self) -> int:
        """The rows that were put and that no `take` gives, because one of them made it fail."""


class CsvPen:
    """Rows as lines of CSV; the first row tells whether they are sequences or mappings."""

    def __init__(self, first: Any, header: list[str] | None, dialect: Dialect, charset: str) -> None:
        self.dropped = 0
        self._text = io.StringIO(newline="")
        self._encoder = codecs.getincrementalencoder(charset)()
        writer = csv.writer(self._text, dialect)
        write: Callable[[Any], int] = writer.writerow
        self._dialect = writer.dialect
        if isinstance(first, _TEXTS):
            raise _wrong_row(1, _A_ROW, first)
        self.put = write
        self._columns: list[str] | None = None  # of mappings
        self._strict = header is None
        if isinstance(first, Mapping):
            header = self._columns = list(first) if header is None else header
            self.put = _put_mapping(write, header, self._strict)
        if header is not None:
            write(header)

    def check(self, row: Any) -> None:
        # `csv` writes the letters of a text, and the keys of a mapping. Where columns are picked by their
        # names, what has them need not be a mapping: a `sqlite3.Row` is none.
        if isinstance(row, _TEXTS) or (self._columns is None and isinstance(row, Mapping)):
            raise csv.Error("wrong kind of row")  # `refuse` says it in words

    def take(self, last: bool = False) -> bytes:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        state = self._encoder.getstate()
        try:
            return self._encoder.encode(text, last)
        except UnicodeEncodeError as error:
            self._encoder.setstate(state)
            whole, self.dropped = _rows_before(error.start, text, self._dialect)
            self._text.write(whole)
            raise

    def refuse(self, row: Any, number: int, error: Exception) -> None:
        columns = self._columns
        if columns is None:
            if not isinstance(error, csv.Error):
                return
            if not isinstance(row, Iterable) or isinstance(row, _TEXTS):
                raise _wrong_row(number, _A_ROW, row) from error
            if isinstance(row, Mapping):
                raise _wrong_row(number, "a sequence of fields as the first row is one", row) from error
            raise csv.Error(f"row {number}: {error}") from error
        if not isinstance(row, Mapping):
            raise _wrong_row(number, "a mapping as the first row is one", row) from error
        keys = list(row)
        if any(name not in keys for name in columns) or (self._strict and len(keys) != len(columns)):
            whose = "first" if self._strict else "header"
            raise ProducerError(
                f"row {number}: wanted a mapping with the columns of the {whose}, {columns}, got {keys}"
            ) from error
        if isinstance(error, csv.Error):
            raise csv.Error(f"row {number}: {error}") from error


class JsonPen:
    """Rows as lines of JSON."""

    dropped = 0

    def __init__(self, json: Callable[[Any], str | bytes] | None) -> None:
        self._is_own = json is None
        self._dumps: Callable[[Any], Any] = json_encoder() if json is None else json
        self._lines: list[bytes] = []
        self.put: Callable[[Any], int] = self._put_own if json is None else self._put_given

    def _put_own(self, row: Any) -> int:
        line = self._dumps(row).encode()
        self._lines.append(line)
        return len(line) + 1

    def _put_given(self, row: Any) -> int:
        made = self._dumps(row)
        line = made.encode() if isinstance(made, str) else made
        if not isinstance(line, bytes):
            raise UnsupportedData(made)
        if b"\n" in line:
            raise ProducerError("wanted one line for each row, but the encoder given as json made several")
        self._lines.append(line)
        return len(line) + 1

    def check(self, row: Any) -> None:
        """JSON has rows of every kind."""

    def take(self, last: bool = False) -> bytes:
        lines = self._lines
        if not lines:
            return b""
        self._lines = []
        return b"\n".join(lines) + b"\n"

    def refuse(self, row: Any, number: int, error: Exception) -> None:
        if self._is_own and isinstance(error, (TypeError, ValueError, RecursionError)):
            raise _wrong_row(number, "what JSON has words for", row, f" ({error})") from error
        if isinstance(error, ProducerError):
            raise ProducerError(f"row {number}: {error}") from error


def _put_mapping(write: Callable[[Any], int], columns: list[str], strict: bool) -> Callable[[Any], int]:
    """Write the fields of these columns; `strict` refuses a row that has more, or fewer."""
    if len(columns) == 1:
        name = columns[0]
        fields: Callable[[Any], Any] = lambda row: (row[name],)  # noqa: E731
    else:
        fields = itemgetter(*columns) if columns else lambda row: ()
    if not strict:
        return lambda row: write(fields(row))
    count = len(columns)

    def put(row: Any) -> int:
        if len(row) != count:
            raise KeyError  # `CsvPen.refuse` says it in words
        return write(fields(row))

    return put


def _rows_before(stop: int, text: str, dialect: Any) -> tuple[str, int]:
    """The rows of this text that end before `stop`, and how many do not."""
    quote, end_of_row, escape = dialect.quotechar, dialect.lineterminator, dialect.escapechar
    marks = [re.escape(mark) for mark in (quote, end_of_row) if mark]
    marks = [re.escape(escape) + "(?s:.)", *marks] if escape else marks
    end = others = 0
    is_quoted = False
    for mark in re.finditer("|".join(marks), text):
        if mark[0] == quote:  # one in a field stands twice, and changes nothing
            is_quoted = not is_quoted
        elif mark[0] == end_of_row and not is_quoted:
            if mark.end() <= stop:
                end = mark.end()
            else:
                others += 1
    return text[:end], others


def _wrong_row(number: int, wanted: str, row: object, why: str = "") -> ProducerError:
    return ProducerError(f"row {number}: wanted {wanted}, got {type(row).__name__}: {shown(row)}{why}")


def _body_of(rows: Any, pen: Callable[[Any], Pen], on_progress: Progress | None) -> Batches | AsyncBatches:
    if on_progress is not None and not callable(on_progress):
        raise OptionsError([f"on_progress: wanted a function or None, got {on_progress!r}"])
    kind = None if isinstance(rows, (str, bytes)) else kind_of(rows)
    if kind is None or not kind.is_iterable:
        raise ProducerError(f"wanted rows as an iterable or an async iterable, got {rows!r}")
    return AsyncBatches(rows, pen, on_progress) if kind.is_async else Batches(rows, pen, on_progress)


def _names(header: Any) -> list[str]:
    if isinstance(header, (str, bytes)) or not isinstance(header, Iterable):
        raise OptionsError([f"header: wanted a sequence of column names or None, got {header!r}"])
    return list(header)


def _check_csv(dialect: Any, charset: str) -> None:
    faults = []
    try:
        csv.writer(io.StringIO(), dialect)
    except (csv.Error, TypeError) as error:
        faults.append(f"dialect: wanted a dialect of the csv module, got {dialect!r} ({error})")
    try:
        codecs.getincrementalencoder(charset)
        "".encode(charset)  # which refuses those that are none of text, as hex and rot13
    except (LookupError, TypeError, ValueError):  # unknown, no text, or with a NUL in it
        faults.append(f"encoding: wanted a text encoding that Python knows, got {charset!r}")
    if faults:
        raise OptionsError(faults)
