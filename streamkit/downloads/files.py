"""A file that is there already, with ranges and conditions (RFC 9110, sections 13 and 14).

    streamkit.send_file("/srv/reports/2024.pdf")
    streamkit.send_file("/srv/video.mp4", disposition="inline")   # a player may seek

One range is answered with 206; several get the whole file, which is what they may get. What
the client has already is answered with 304. The price: a description's head then depends on
the request, so it is made by `for_request` when it is served; a server that has `sendfile`
is faster with its own.

Rule: the length is known before the first byte and enforced, so a file that shrinks under
way is a body too short, and cut.
"""

from __future__ import annotations

import copy
import inspect
import io
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from werkzeug.http import http_date, parse_etags, unquote_etag

from ..core.conditional import date_of, is_among, is_fresh, quoted
from ..core.headers import Headers, Pairs, value_of
from ..core.request import Fields
from ..core.response import StreamingResponse
from ..errors import AlreadyServed, OptionsError, ProducerError
from .batches import close
from .description import Download, Wishes

if TYPE_CHECKING:
    from typing_extensions import Unpack

BLOCK = 64 * 1024  # bytes read at a time; as many as streams hold for a slow client

# "bytes=0-99", "bytes=100-", "bytes=-100" (RFC 9110, section 14.1.2); more digits than a file has
# bytes are no range that anyone means.
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE).fullmatch

# What of a request says whether a file is wanted, and which part of it.
_NAMES = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_WSGI_NAMES = {"HTTP_" + name.upper().replace("-", "_"): name for name in _NAMES}
_ASGI_NAMES = {name.encode(): name for name in _NAMES}

# "the sender ... SHOULD NOT generate representation metadata other than" those -- RFC 9110, 15.4.5
_OF_A_BODY = frozenset({"content-disposition", "content-type", "content-encoding", "accept-ranges"})


def send_file(
    path_or_file: str | PathLike[str] | IO[bytes],
    filename: str | None = None,
    *,
    disposition: str = "attachment",
    type: str | None = None,
    etag: str | None = None,
    last_modified: datetime | None = None,
    **more: Unpack[Wishes],
) -> Download:
    """Describe a file that is there: a path, or a file open for reading bytes, which is closed.

    `filename` is the path's last part unless given. `etag` (without quotes) and `last_modified`
    are those of the path, when it is served, unless given; a file object has none of its own.
    Ranges and conditional requests are honoured if the file can seek; if it cannot, it is a
    download as any other. Raises `OSError` at once if there is no such file, and what `send_stream` raises.
    """
    source = _source_of(path_or_file)
    if filename is None:
        name = (
            path_or_file if isinstance(path_or_file, (str, PathLike)) else getattr(path_or_file, "name", None)
        )
        filename = os.path.basename(os.fspath(name)) if isinstance(name, (str, PathLike)) else None
    if last_modified is not None and not isinstance(last_modified, datetime):
        raise OptionsError([f"last_modified: wanted a datetime or None, got {last_modified!r}"])
    ours = dict(source.validators)
    if etag is not None:
        ours["ETag"] = quoted(etag)
    if last_modified is not None:
        ours["Last-Modified"] = http_date(last_modified)
    if source.size is not None:
        ours["Accept-Ranges"] = "bytes"
    given = list(Headers(more.get("headers")))
    more["headers"] = [*given, *(pair for pair in ours.items() if value_of(given, pair[0].lower()) is None)]
    if source.size is None:
        return Download(_Part(source, 0, None), filename, disposition=disposition, type=type, **more)
    return FileDownload(source, filename, disposition=disposition, type=type, **more)


class _Source(NamedTuple):
    path: str | None
    file: Any
    start: int = 0  # where a file object stood when it was given
    size: int | None = None
    stat: os.stat_result | None = None
    validators: tuple[tuple[str, str], ...] = ()


def _validators_of(known: os.stat_result) -> tuple[tuple[str, str], ...]:
    # "MUST NOT generate a Last-Modified date that is later than the ... time of message origination"
    # -- RFC 9110, section 8.8.2.1
    changed = datetime.fromtimestamp(min(int(known.st_mtime), int(time.time())), timezone.utc)
    return ("ETag", quoted(f"{known.st_mtime_ns:x}-{known.st_size:x}")), ("Last-Modified", http_date(changed))


def _source_of(path_or_file: Any) -> _Source:
    if isinstance(path_or_file, (str, PathLike)):
        path = os.fspath(path_or_file)
        known = os.stat(path)
        if not stat.S_ISREG(known.st_mode):
            raise IsADirectoryError(f"wanted a regular file, got {path!r}")
        return _Source(path, None, 0, known.st_size, known, _validators_of(known))
    read = getattr(path_or_file, "read", None)
    if isinstance(path_or_file, io.TextIOBase) or read is None or inspect.iscoroutinefunction(read):
        raise ProducerError(f"wanted a path or a file open for reading bytes, got {path_or_file!r}")
    seekable = getattr(path_or_file, "seekable", None)
    if seekable is None or not seekable():
        return _Source(None, path_or_file)
    start = path_or_file.tell()
    end = path_or_file.seek(0, os.SEEK_END)
    path_or_file.seek(start)
    return _Source(None, path_or_file, start, max(0, end - start))


def _are_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is None or other is None or os.path.samestat(one, other)


class _Part:
    """Some of a file, as an iterable of chunks."""

    def __init__(self, source: _Source, start: int, length: int | None) -> None:
        self.source = source
        self.start = start
        self.length = length

    def __iter__(self) -> Iterator[bytes]:
        path, file, offset, size, known, _ = self.source
        if getattr(file, "closed", False):
            raise AlreadyServed(f"{file!r} was served before and is closed")
        opened = file if path is None else open(path, "rb", buffering=0)  # noqa: SIM115  # closed below
        try:
            if known is not None and not _are_same(known, os.fstat(opened.fileno())):
                raise OSError(f"{path!r} was replaced by another file after its length had been read")
            if size is not None:
                opened.seek(offset + self.start)
            left = self.length
            while left is None or left > 0:
                block = opened.read(BLOCK if left is None else min(BLOCK, left))
                if not block:
                    return
                left = None if left is None else left - len(block)
                yield block
        finally:
            close(opened)

    def close(self) -> None:
        """Close the file that was given, read or not."""
        close(self.source.file)


class FileDownload(Download):
    """Describe a file of known length; which part of it is sent, the request says."""

    _is_answer = False

    def __init__(self, source: _Source, filename: str | None, **more: Any) -> None:
        self.source = source
        self.size: int = source.size or 0
        super().__init__(_Part(source, 0, self.size), filename, content_length=self.size, **more)

    def for_request(self, request: Mapping[str, Any]) -> StreamingResponse:
        """The response to this request: the file, a part of it, or that the client has it already."""
        return self if self._is_answer else self._as_it_is()._answer_to(request)

    def _as_it_is(self) -> FileDownload:
        """This description of the file that is there now: one that was kept may be older than that."""
        if self.source.path is None:
            return self
        try:
            source = _source_of(self.source.path)
        except OSError:
            return self  # to open it will fail too, where an error takes its course
        if source.validators == self.source.validators and _are_same(source.stat, self.source.stat):
            return self
        now = copy.copy(self)
        now.source = source
        now.size = now.content_length = source.size or 0
        now.producer = _Part(source, 0, now.size)
        renewed = dict(zip(self.source.validators, source.validators, strict=True))
        now.describe_head([renewed.get(pair, pair) for pair in self.headers])
        return now

    def _answer_to(self, request: Mapping[str, Any]) -> StreamingResponse:
        if self.status != 200:
            return self
        fields = _fields_of(request)
        if not fields:
            return self
        method = request.get("REQUEST_METHOD") or request.get("method", "GET")
        status = _precondition(method, fields, self.headers)
        if status == 304:
            return self  # which its validators make a 304, with the Cache-Control that a 304 must have
        if status is not None:
            return self._without_body(status)
        wanted = fields.get("range")
        if method != "GET" or wanted is None or not self.size or not _may_be_part(fields, self.headers):
            return self
        span = range_of(wanted, self.size)
        if span is None:
            return self
        start, stop = span
        if start >= stop:
            return self._without_body(416, ("Content-Range", f"bytes */{self.size}"))
        part = copy.copy(self)
        part._is_answer = True
        part.status = 206
        part.content_length = stop - start
        part.producer = _Part(self.source, start, stop - start)
        part.describe_head([*self.headers, ("Content-Range", f"bytes {start}-{stop - 1}/{self.size}")])
        return part

    def _without_body(self, status: int, *more: tuple[str, str]) -> StreamingResponse:
        return StreamingResponse(
            _Part(self.source, 0, 0),
            status=status,
            headers=[*(pair for pair in self.headers if pair[0].lower() not in _OF_A_BODY), *more],
            content_length=None if status == 304 else 0,
            callback=self.callback,
            resources=self.resources,
            options=self.options,
        )


def range_of(wanted: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last, of a file of `size` bytes.

    None: the whole file, for a range in other units, several, or one that is none
    (RFC 9110, section 14.2, lets a server ignore it). Empty: nothing of it is there.
    """
    match = _RANGE(wanted.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        return max(0, size - int(match[2])), size
    start = int(match[1])
    if not match[2]:
        return start, max(start, size)
    last = int(match[2])
    return None if last < start else (start, max(start, min(last + 1, size)))


def _fields_of(request: Mapping[str, Any]) -> dict[str, str]:
    """The fields that matter here, by their names in lower case."""
    if "REQUEST_METHOD" in request:
        return {name: request[key] for key, name in _WSGI_NAMES.items() if key in request}
    fields: dict[str, str] = {}
    for raw, value in request.get("headers", ()):
        name = _ASGI_NAMES.get(raw.lower())
        if name is not None:
            text = value.decode("latin-1")
            fields[name] = f"{fields[name]}, {text}" if name in fields else text
    return fields


def _precondition(method: str, fields: Mapping[str, str], headers: Pairs) -> int | None:
    """The status of a request whose conditions say that no body is wanted (RFC 9110, section 13.2.2)."""
    if "if-match" in fields:
        etag, is_weak = unquote_etag(value_of(headers, "etag"))
        wanted = parse_etags(fields["if-match"])
        if not (wanted.star_tag or (etag is not None and not is_weak and wanted.is_strong(etag))):
            return 412
    elif "if-unmodified-since" in fields:
        changed = date_of(value_of(headers, "last-modified"))
        unmodified = date_of(fields["if-unmodified-since"])
        if changed is not None and unmodified is not None and changed > unmodified:
            return 412
    known = fields.get("if-none-match")
    if known is not None:
        held = 304 if method in ("GET", "HEAD") else 412
        return held if is_among(known, headers) else None
    asked = Fields(if_modified_since=fields.get("if-modified-since"))
    return 304 if is_fresh(method, asked, 200, headers) else None


def _may_be_part(fields: Mapping[str, str], headers: Pairs) -> bool:
    """Whether the file is still the one that the client has a part of (RFC 9110, section 13.1.5)."""
    if "if-range" not in fields:
        return True
    held = fields["if-range"].strip()
    if held.startswith('"'):  # a weak one never matches: its bytes may differ
        return held == value_of(headers, "etag")
    date = date_of(held)
    return date is not None and date == date_of(value_of(headers, "last-modified"))
