"""`send_file`: a file that is there, with ranges and conditions (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from downloading import WAYS, Downloads, serving
from driving import scope_of, until
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import FileStorage

from streamkit.downloads import Download, send_file
from streamkit.downloads.files import range_of
from streamkit.errors import AlreadyServed, BodyTooShort, HeaderError, OptionsError, ProducerError

CONTENT = bytes(range(256)) * 1000
SIZE = len(CONTENT)
THEN = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"

# Dates in which a number is too large for whatever it is put into.
HOSTILE = [
    "Tue, 14 Nov 2023 22:13:20 +999999999999999",
    "Tue, 14 Nov 99999999999999999999 22:13:20 GMT",
    "Tue, 14 Nov 2023 99999999999999999999:13:20 GMT",
]


class Upload:
    """As Starlette's: it has to be awaited."""

    async def read(self, size: int = -1) -> bytes:
        return b""


@pytest.fixture(params=WAYS)
def served(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(CONTENT)
    os.utime(path, (THEN, THEN))
    return path


def etag_of(path: Path) -> str:
    return dict(send_file(path).headers)["ETag"]


# ---------------------------------------------------------------- the whole file


def test_a_path_is_sent_whole_with_its_length_name_type_and_validators(served: Downloads, path: Path):
    answer = served(lambda: send_file(path)).finish()
    assert (answer.status, answer.body, answer.complete) == (200, CONTENT, True)
    assert answer.header("Content-Length") == str(SIZE)
    assert answer.header("Content-Type") == "video/mp4"
    assert (
        answer.header("Content-Disposition") == "attachment; filename=\"film.mp4\"; filename*=UTF-8''film.mp4"
    )
    assert answer.header("Accept-Ranges") == "bytes"
    assert answer.header("Last-Modified") == DATE
    assert answer.header("ETag") == etag_of(path)
    assert answer.header("Cache-Control") == "private, no-cache, no-transform"


def test_name_type_disposition_and_headers_may_be_given(served: Downloads, path: Path):
    own = {"ETag": '"own"', "X-A": "1"}
    make = lambda: send_file(str(path), "a.csv", disposition="inline", type="json", headers=own)  # noqa: E731
    answer = served(make).finish()
    assert (answer.header("ETag"), answer.header("X-A")) == ('"own"', "1")
    assert answer.header("Content-Type") == "application/json"
    assert (answer.header("Content-Disposition") or "").startswith('inline; filename="a.csv"')


def test_a_file_object_is_sent_from_where_it_stands_and_closed(served: Downloads, path: Path):
    opened = path.open("rb")
    opened.seek(100)
    answer = served(lambda: send_file(opened)).finish()
    assert (answer.body, answer.header("Content-Length")) == (CONTENT[100:], str(SIZE - 100))
    assert 'filename="film.mp4"' in (answer.header("Content-Disposition") or "")
    assert (answer.header("ETag"), answer.header("Last-Modified")) == (None, None)
    assert opened.closed


def test_etag_and_last_modified_may_be_given(served: Downloads):
    when = datetime.fromtimestamp(THEN, timezone.utc)
    answer = served(lambda: send_file(io.BytesIO(b"abc"), "a", etag="v1", last_modified=when)).finish()
    assert (answer.header("ETag"), answer.header("Last-Modified")) == ('"v1"', DATE)


def test_a_file_that_cannot_seek_is_a_download_as_any_other(served: Downloads):
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    answer = served(lambda: send_file(os.fdopen(reader, "rb"), "a"), sent=[("Range", "bytes=1-")]).finish()
    assert (answer.status, answer.body) == (200, b"piped")
    assert (answer.header("Accept-Ranges"), answer.header("Content-Length")) == ("none", None)


def test_a_file_that_cannot_seek_has_the_validators_that_were_given(served: Downloads, path: Path):
    changed = datetime.fromtimestamp(THEN, timezone.utc)
    make = lambda: send_file(Piped(path, "rb"), etag="v7", last_modified=changed)  # noqa: E731
    answer = served(make).finish()
    assert (answer.body, answer.header("ETag"), answer.header("Last-Modified")) == (CONTENT, '"v7"', DATE)
    assert served(make, sent=[("If-None-Match", '"v7"')]).finish().status == 304


class Piped(io.FileIO):
    def seekable(self) -> bool:
        return False


def test_an_upload_is_sent_back_though_it_is_no_context_manager(served: Downloads):
    upload = FileStorage(io.BytesIO(CONTENT), "film.mp4")
    answer = served(lambda: send_file(upload, "film.mp4"), sent=[("Range", "bytes=10-19")]).finish()
    assert (answer.status, answer.body) == (206, CONTENT[10:20])
    assert upload.closed


def test_a_file_from_the_future_was_changed_now(served: Downloads, path: Path):
    os.utime(path, (4_000_000_000, 4_000_000_000))  # in 2096
    before = datetime.now(timezone.utc).replace(microsecond=0)
    answer = served(lambda: send_file(path)).finish()
    changed = parsedate_to_datetime(answer.header("Last-Modified") or "")
    assert before <= changed <= datetime.now(timezone.utc)


def test_an_empty_file_is_sent_whole_whatever_the_range(served: Downloads):
    answer = served(lambda: send_file(io.BytesIO(b""), "a"), sent=[("Range", "bytes=0-")]).finish()
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")


def test_head_gets_the_length_and_no_range(served: Downloads, path: Path):
    answer = served(lambda: send_file(path), method="HEAD", sent=[("Range", "bytes=0-9")]).finish()
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", str(SIZE))


def test_a_path_can_be_sent_again_and_a_file_object_cannot(served: Downloads, path: Path):
    again = send_file(path)
    assert [served(lambda: again).finish().body for _ in range(2)] == [CONTENT] * 2
    once = send_file(path.open("rb"))
    assert served(lambda: once).finish().body == CONTENT
    second = served(lambda: once).finish()
    assert not second.committed
    assert isinstance(second.error, AlreadyServed)


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=100000-", 100_000, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        ("bytes=-99999999", 0, SIZE),
        ("bytes=255990-99999999", 255_990, SIZE),
        ("Bytes=1-2", 1, 3),
    ],
)
def test_one_range_is_answered_with_its_part(
    served: Downloads, path: Path, wanted: str, start: int, stop: int
):
    answer = served(lambda: send_file(path), sent=[("Range", wanted)]).finish()
    assert (answer.status, answer.body, answer.complete) == (206, CONTENT[start:stop], True)
    assert answer.header("Content-Range") == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.header("Content-Length") == str(stop - start)
    assert answer.header("ETag") == etag_of(path)
    assert answer.header("Cache-Control") == "private, no-cache, no-transform"


def test_a_range_of_a_file_object_counts_from_where_it_stands(served: Downloads):
    opened = io.BytesIO(b"0123456789")
    opened.seek(4)
    answer = served(lambda: send_file(opened, "a"), sent=[("Range", "bytes=1-2")]).finish()
    assert (answer.body, answer.header("Content-Range")) == (b"56", "bytes 1-2/6")
    assert opened.closed


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=0-1,5-6",
        "bytes=9-1",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "bytes",
        "bytes=0-1x",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_range_that_is_none_or_several_gets_the_whole_file(served: Downloads, path: Path, wanted: str):
    answer = served(lambda: send_file(path), sent=[("Range", wanted)]).finish()
    assert (answer.status, len(answer.body)) == (200, SIZE)


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=99999999-", "bytes=-0"])
def test_a_range_of_which_nothing_is_there_is_416(served: Downloads, path: Path, wanted: str):
    opened = path.open("rb")
    answer = served(lambda: send_file(opened), sent=[("Range", wanted)]).finish()
    assert (answer.status, answer.body, answer.header("Content-Length")) == (416, b"", "0")
    assert answer.header("Content-Range") == f"bytes */{SIZE}"
    assert answer.header("Content-Disposition") is None
    assert opened.closed


def test_a_range_is_for_get_alone(served: Downloads, path: Path):
    answer = served(lambda: send_file(path), method="POST", sent=[("Range", "bytes=0-1")]).finish()
    assert answer.status == 200


def test_a_response_of_another_status_is_sent_as_it_is(served: Downloads, path: Path):
    answer = served(lambda: send_file(path, status=203), sent=[("Range", "bytes=0-1")]).finish()
    assert (answer.status, answer.body) == (203, CONTENT)


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_a_slice(size: int, first: int, last: int):
    content = bytes(range(size))
    for wanted, expected in (
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[max(0, size - last) :]),
        (f"bytes={first}-{last}", content[first : last + 1] if last >= first else content),
    ):
        start, stop = range_of(wanted, size) or (0, size)
        assert content[start:stop] == expected


@pytest.mark.parametrize(
    ("condition", "status"),
    [("{etag}", 206), (DATE, 206), ('"other"', 200), ("W/{etag}", 200), (EARLIER, 200), ("nonsense", 200)]
    + [(hostile, 200) for hostile in HOSTILE],
)
def test_if_range_gives_a_part_only_of_the_file_that_the_client_has(
    served: Downloads, path: Path, condition: str, status: int
):
    sent = [("Range", "bytes=0-1"), ("If-Range", condition.format(etag=etag_of(path)))]
    assert served(lambda: send_file(path), sent=sent).finish().status == status


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("If-None-Match", "{etag}", 304),
        ("If-None-Match", 'W/{etag}, "x"', 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"x"', 200),
        ("If-Modified-Since", DATE, 304),
        ("If-Modified-Since", EARLIER, 200),
        ("If-Modified-Since", "nonsense", 200),
        ("If-Match", "{etag}", 200),
        ("If-Match", "*", 200),
        ("If-Match", '"x"', 412),
        ("If-Match", "W/{etag}", 412),
        ("If-Unmodified-Since", DATE, 200),
        ("If-Unmodified-Since", EARLIER, 412),
        *(("If-Modified-Since", hostile, 200) for hostile in HOSTILE),
        *(("If-Unmodified-Since", hostile, 200) for hostile in HOSTILE),
    ],
)
def test_a_condition_decides_whether_the_file_is_sent(
    served: Downloads, path: Path, name: str, value: str, status: int
):
    called: list[int] = []
    sent = [(name, value.format(etag=etag_of(path)))]
    answer = served(lambda: send_file(path, callback=lambda: called.append(1)), sent=sent).finish()
    assert (answer.status, len(answer.body)) == (status, SIZE if status == 200 else 0)
    assert answer.header("ETag") == etag_of(path)
    assert answer.header("Content-Disposition") is None or status == 200
    assert called == [1]


def test_not_modified_has_neither_length_nor_type_and_closes_the_file(served: Downloads, path: Path):
    opened = path.open("rb")
    answer = served(lambda: send_file(opened, etag="v"), sent=[("If-None-Match", '"v"')]).finish()
    assert (answer.status, answer.header("Content-Length"), answer.header("Content-Type")) == (
        304,
        None,
        None,
    )
    assert opened.closed


def test_if_none_match_is_stronger_than_if_modified_since(served: Downloads, path: Path):
    sent = [("If-None-Match", '"x"'), ("If-Modified-Since", DATE)]
    assert served(lambda: send_file(path), sent=sent).finish().status == 200


# ---------------------------------------------------------------- how it ends


def test_a_file_that_shrinks_while_it_is_sent_is_cut(served: Downloads, path: Path):
    path.write_bytes(CONTENT * 20)
    answer = served(lambda: send_file(path))
    first = answer.read()
    os.truncate(path, SIZE * 10)  # far behind what a slow client's stream has read by now
    assert first + answer.finish().body[len(first) :] == CONTENT * 10
    assert not answer.complete
    assert isinstance(answer.error, BodyTooShort)


def test_a_file_that_grows_while_it_is_sent_is_sent_as_long_as_it_was(served: Downloads, path: Path):
    path.write_bytes(CONTENT * 20)
    answer = served(lambda: send_file(path))
    answer.read()
    with path.open("ab") as opened:
        opened.write(CONTENT)
    assert (answer.finish().body, answer.complete) == (CONTENT * 20, True)


@pytest.mark.parametrize("content", [b"shorter", CONTENT * 2], ids=["shorter", "longer"])
def test_a_description_that_is_kept_sends_the_file_that_is_there_when_it_is_served(
    served: Downloads, path: Path, content: bytes
):
    download = send_file(path, headers={"X-A": "1"})
    old = etag_of(path)
    path.write_bytes(content)
    answer = served(lambda: download, sent=[("If-None-Match", old), ("If-Range", old)]).finish()
    assert (answer.status, answer.body, answer.complete) == (200, content, True)
    assert answer.header("Content-Length") == str(len(content))
    assert (answer.header("ETag"), answer.header("X-A")) == (etag_of(path), "1")
    assert answer.header("Last-Modified") == dict(send_file(path).headers)["Last-Modified"]
    part = served(lambda: download, sent=[("Range", "bytes=-3")]).finish()
    assert (part.status, part.body) == (206, content[-3:])


def test_a_description_that_is_kept_keeps_the_validators_that_it_was_given(served: Downloads, path: Path):
    changed = datetime(2020, 1, 1, tzinfo=timezone.utc)
    download = send_file(path, etag="v7", last_modified=changed)
    path.write_bytes(b"another")
    answer = served(lambda: download).finish()
    assert (answer.body, answer.header("ETag")) == (b"another", '"v7"')
    assert answer.header("Last-Modified") == "Wed, 01 Jan 2020 00:00:00 GMT"


def test_a_description_that_is_kept_sends_another_file_of_the_same_date_and_length(
    served: Downloads, path: Path
):
    download = send_file(path)
    put_in_place(path, CONTENT[::-1])
    os.utime(path, (THEN, THEN))
    assert served(lambda: download).finish().body == CONTENT[::-1]


def test_a_file_that_is_replaced_after_its_head_was_made_is_a_real_error(served: Downloads, path: Path):
    @contextmanager
    def replacing() -> Iterator[None]:
        put_in_place(path, CONTENT * 2)
        yield

    answer = served(lambda: send_file(path, resources=[replacing()])).finish()
    assert not answer.committed, "the new file's bytes under the old one's length and ETag"
    assert isinstance(answer.error, OSError)


def put_in_place(path: Path, content: bytes) -> None:
    """As careful programs write: another file, under the name of the old one."""
    other = path.with_suffix(".new")
    other.write_bytes(content)
    os.replace(other, path)


def test_a_file_that_has_gone_is_a_real_error(served: Downloads, path: Path):
    download = send_file(path)
    path.unlink()
    answer = served(lambda: download).finish()
    assert not answer.committed
    assert isinstance(answer.error, FileNotFoundError)


def test_a_file_is_closed_when_the_client_leaves(served: Downloads):
    opened = io.BytesIO(bytes(5_000_000))
    answer = served(lambda: send_file(opened, "a"))
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: opened.closed)


def test_a_file_is_closed_unread_for_head(served: Downloads):
    opened = io.BytesIO(b"abc")
    served(lambda: send_file(opened, "a"), method="HEAD").finish()
    assert opened.closed


# ---------------------------------------------------------------- what is refused


def test_a_path_that_is_not_there_is_an_error_at_once(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        send_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        send_file(tmp_path)


@pytest.mark.parametrize("source", [io.StringIO("text"), 5, None, b"abc", [b"abc"], Upload()])
def test_what_is_no_file_of_bytes_is_refused(source: Any):
    with pytest.raises(ProducerError, match="wanted a path or a file"):
        send_file(source)


def test_validators_that_cannot_be_sent_are_refused(path: Path):
    with pytest.raises(HeaderError, match="etag"):
        send_file(path, etag='a"b')
    with pytest.raises(OptionsError, match="last_modified"):
        send_file(path, last_modified=THEN)  # type: ignore[arg-type]


def test_it_is_a_download_with_the_facts_as_they_were_given(path: Path):
    download = send_file(path, type="video/mp4", disposition="inline")
    assert isinstance(download, Download)
    assert (download.filename, download.disposition, download.type) == ("film.mp4", "inline", "video/mp4")


def test_names_of_fields_are_read_in_any_case(tmp_path: Path):
    """ASGI has them in lower case; adapters of other interfaces do not all keep to it."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**scope_of(), "headers": [(b"Range", b"bytes=2-4")]}
    asyncio.run(send_file(path)(scope, receive, send))
    assert sent[0]["status"] == 206
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b"234"


@pytest.mark.parametrize("condition", ["yesterday", 'W/"x"', ""])
def test_if_range_without_a_date_gives_all_of_a_file_that_has_none(served: Downloads, condition: str):
    sent = [("Range", "bytes=0-1"), ("If-Range", condition)]
    answer = served(lambda: send_file(io.BytesIO(b"abcdef"), "a.bin"), sent=sent).finish()
    assert (answer.status, answer.body) == (200, b"abcdef")


@pytest.mark.parametrize("options", [{}, {"cache_control": "public, max-age=60"}], ids=["ours", "own"])
def test_a_304_has_the_cache_control_of_the_200(served: Downloads, tmp_path: Path, options: Any):
    """RFC 9110, section 15.4.5."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    make = lambda: send_file(path, options=options)  # noqa: E731
    first = served(make).finish()
    for name, validator in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")):
        again = served(make, sent=[(name, first.header(validator))]).finish()
        assert (again.status, again.body) == (304, b"")
        assert again.header("Cache-Control") == first.header("Cache-Control")
