"""The two commonest exports: CSV, and one JSON text a line.

    streamkit.csv_rows(cursor, "orders.csv", header=["id", "customer", "total"])
    streamkit.json_lines(orders(), "orders.jsonl")

Rows come from an iterable or an async iterable. The first one is sent as soon as it is
there; then many travel together, for a chunk a row would cost more than the row. None waits
long: an async row at most 0.1 s; a synchronous one until the next arrives, if that takes longer.

The price of the first row's haste: an error in the second is one after the commit.

Rule: a pen writes rows into memory (`put`) and gives what has gathered (`take`); the two
bodies decide when. What is in the fields is the caller's: a text that begins with `=` is a
formula to a spreadsheet, and goes out as it is.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..core.events import json_encoder
from ..core.headers import charset_of
from ..core.producers import kind_of
from ..errors import OptionsError, ProducerError, UnsupportedData
from .batches import AsyncBatches, Batches, Progress
from .description import Download, Wishes
from .media_types import media_type_of_download

if TYPE_CHECKING:
    from typing_extensions import Unpack

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

    - `rows`: sequences of fields, or mappings: then `header` picks the columns, and without
      it the first row's keys are the header.
    - `header`: the column names, sent with the first row; alone if there is none.
    - `dialect`: a name or a dialect of the `csv` module.
    - `encoding`: the charset of `type`, or UTF-8; `utf-8-sig` is what Excel recognises.
    - `on_progress(rows, bytes)`: called after each chunk that was taken, with what has been
      sent so far; awaited where `rows` is async and it can be. What it raises ends the download.

    The type is text/csv where neither `type` nor the extension says another. Raises
    `ProducerError`, `OptionsError` and `HeaderError`; while it is sent, what `csv` raises.
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
    enums and dataclasses); more than one line of it is a `ProducerError`. `on_progress` is as
    for `csv_rows`. The type is application/x-ndjson, whatever the extension, unless `type`
    says another. A file that fails half-way ends with an `error` record, and is cut.
    """
    if json is not None and not callable(json):
        raise OptionsError([f"json: wanted a function or None, got {json!r}"])
    dumps = json_encoder() if json is None else json

    def pen(first: Any) -> Pen:
        return JsonPen(dumps)

    body = _body_of(rows, pen, on_progress)
    return _JsonLinesDownload(body, filename, disposition=disposition, type=type, **more)


class _CsvDownload(Download):
    otherwise = "text/csv"


class _JsonLinesDownload(Download):
    def _media_type(self) -> str:  # many JSON texts are no application/json, also in a file named so
        return media_type_of_download(self.type or "ndjson", None)


class Pen(Protocol):
    """Writes rows into memory; a new one for each body."""

    @property
    def put(self) -> Callable[[Any], int]:
        """Write one row; about how many bytes that made."""

    def take(self, last: bool = False) -> bytes:
        """What has gathered since the last time."""


class CsvPen:
    """Rows as lines of CSV; the first row tells whether they are sequences or mappings."""

    def __init__(self, first: Any, header: list[str] | None, dialect: Dialect, charset: str) -> None:
        self._text = io.StringIO(newline="")
        self._encode = codecs.getincrementalencoder(charset)().encode
        write: Callable[[Any], int] = csv.writer(self._text, dialect).writerow
        if isinstance(first, (str, bytes, bytearray, memoryview)):
            raise ProducerError(
                f"wanted rows as sequences of fields or as mappings, got {type(first).__name__}: {first!r}"
            )
        self.put = write
        if isinstance(first, Mapping):
            strict = header is None
            header = list(first) if header is None else header
            self.put = _put_mapping(write, header, strict)
        if header is not None:
            write(header)

    def take(self, last: bool = False) -> bytes:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return self._encode(text, last)


class JsonPen:
    """Rows as lines of JSON."""

    def __init__(self, dumps: Callable[[Any], str | bytes]) -> None:
        self._dumps = dumps
        self._lines: list[bytes] = []

    def put(self, row: Any) -> int:
        made = self._dumps(row)
        line = made.encode() if isinstance(made, str) else made
        if not isinstance(line, bytes):
            raise UnsupportedData(made)
        self._lines.append(line)
        return len(line) + 1

    def take(self, last: bool = False) -> bytes:
        lines = self._lines
        if not lines:
            return b""
        self._lines = []
        chunk = b"\n".join(lines) + b"\n"
        if chunk.count(b"\n") != len(lines):
            raise ProducerError("wanted one line for each row, but the encoder given as json made several")
        return chunk


def _put_mapping(write: Callable[[Any], int], columns: list[str], strict: bool) -> Callable[[Any], int]:
    """Write the fields of these columns; `strict` refuses a row that has others."""
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
            raise ProducerError(f"wanted rows with the columns of the first, {columns}, got {list(row)}")
        return write(fields(row))

    return put


def _body_of(rows: Any, pen: Callable[[Any], Pen], on_progress: Progress | None) -> Batches | AsyncBatches:
    if on_progress is not None and not callable(on_progress):
        raise OptionsError([f"on_progress: wanted a function or None, got {on_progress!r}"])
    kind = kind_of(rows)
    if not kind.is_iterable:
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
    except (LookupError, TypeError, ValueError):  # unknown, no text, or with a NUL in it
        faults.append(f"encoding: wanted a text encoding that Python knows, got {charset!r}")
    if faults:
        raise OptionsError(faults)
