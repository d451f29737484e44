"""A response stream is a file open for writing: SC1-SC6 of the scenarios, on every synchronous stream.

Rule: what writes here is the standard library, as it comes. SC5 (`map!`) has no counterpart in Python.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import until
from shapes import SYNC, SYNC_FUNCTIONS, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.errors import StreamClosed


@pytest.fixture(params=SYNC, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC_FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture
def body_of(synced: Serve) -> Callable[[Callable[[Any], object]], bytes]:
    """What arrives when a function has written to the stream."""

    def written(write: Callable[[Any], object]) -> bytes:
        raised: list[BaseException | None] = []

        def program(stream: Any) -> Run:
            try:
                write(stream)
            except BaseException as error:
                raised.append(error)
                raise
            raised.append(None)
            yield from ()

        answer = synced(program, content_type="application/octet-stream").finish()
        assert (answer.complete, answer.error) == (True, None)
        assert until(lambda: raised), "whoever closes early may go on for a while"
        assert raised == [None]
        return answer.body

    return written


Body = Callable[[Callable[[Any], object]], bytes]


def test_a_producer_gets_the_stream_of_its_own_description(functions: Serve) -> None:
    """SC1"""
    seen: list[Any] = []

    def program(stream: Any) -> Run:
        seen.append(stream.response)
        yield "a"

    asked: dict[str, Any] = {"status": 201, "callback": lambda: None}
    assert functions(program, **asked).finish().status == 201
    assert isinstance(seen[0], streamkit.StreamingResponse)
    assert (seen[0].status, seen[0].callback) == (201, asked["callback"])


def test_tell_counts_bytes(body_of: Body) -> None:
    """SC2"""
    positions: list[int] = []

    def write(stream: Any) -> None:
        positions.append(stream.tell())
        stream.write("né")
        positions.append(stream.tell())
        stream.write(b"12345")
        positions.append(stream.tell())

    assert body_of(write) == "né12345".encode()
    assert positions == [0, 3, 8]


def test_leaving_a_with_block_closes_the_stream(body_of: Body) -> None:
    """SC3: a second close changes nothing, and a write raises as with any closed file."""
    closed: list[bool] = []

    def write(stream: Any) -> None:
        with stream as entered:
            assert entered is stream
            stream.write("inside")
            closed.append(stream.closed)
        closed.append(stream.closed)
        stream.close()
        with pytest.raises(StreamClosed) as refused:
            stream.write("outside")
        assert isinstance(refused.value, ValueError)

    assert body_of(write) == b"inside"
    assert closed == [False, True]


def test_an_error_in_a_with_block_does_not_make_a_complete_body_of_half_a_one(synced: Serve) -> None:
    """SC3: Rails' documented `ensure stream.close` hides the error."""
    boom = RuntimeError("boom")

    def program(stream: Any) -> Run:
        with stream:
            stream.write("half")
            raise boom
        yield

    answer = synced(program).finish()
    assert (answer.body, answer.complete) == (b"half", False)
    assert answer.error is boom


def test_closing_fires_the_hooks_once(pushed: Serve) -> None:
    """SC3"""
    calls: list[str] = []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: calls.append(stream.outcome))
        yield "a"
        yield stream.close
        yield stream.close

    assert pushed(program).finish().complete
    assert until(lambda: calls)
    assert calls == ["finished"]


def test_the_stream_says_that_it_is_open_for_writing_only(pushed: Serve) -> None:
    """SC4"""
    said: list[bool] = []

    def program(stream: Any) -> Run:
        said.extend((stream.writable(), stream.readable(), stream.seekable(), stream.isatty()))
        yield "a"

    assert pushed(program).finish().complete
    assert said == [True, False, False, False]


def test_writelines_adds_no_newlines(pushed: Serve) -> None:
    """SC4"""

    def program(stream: Any) -> Run:
        yield lambda: stream.writelines(["a", b"b\n", bytearray(b"c")])

    assert pushed(program).finish().body == b"ab\nc"


def test_flush_returns_none_and_sends_the_head(pushed: Serve) -> None:
    """SC6"""
    seen: list[object] = []

    def program(stream: Any) -> Run:
        seen.append(stream.committed)
        seen.append((yield stream.flush))
        seen.append(stream.committed)

    answer = pushed(program, status=202).finish()
    assert (answer.status, answer.body, answer.complete) == (202, b"", True)
    assert seen == [False, None, True]


def test_print_writes_into_the_stream(body_of: Body) -> None:
    """SC4"""
    assert body_of(lambda stream: print("a", 1, None, sep="|", end="!\n", file=stream, flush=True)) == (
        b"a|1|None!\n"
    )


def test_csv_writes_into_the_stream(body_of: Body) -> None:
    """SC4"""
    rows = [["name", "note"], ["Zoë", 'said "hi", left'], ["", "two\nlines"]]
    body = body_of(lambda stream: csv.writer(stream).writerows(rows))
    assert list(csv.reader(io.StringIO(body.decode(), newline=""))) == rows


def test_json_dumps_into_the_stream(body_of: Body) -> None:
    """SC4"""
    tree = {"numbers": list(range(1000)), "text": "Zoë", "none": None}
    assert json.loads(body_of(lambda stream: json.dump(tree, stream))) == tree


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_written_into_the_stream_member_by_member(body_of: Body, compression: int) -> None:
    """SC4: without seeking back, by data descriptors."""
    members = {"a.txt": b"small", "b.bin": bytes(range(256)) * 1000}

    def write(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, content in members.items():
                with archive.open(name, "w") as member:
                    member.write(content)

    with zipfile.ZipFile(io.BytesIO(body_of(write))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members


def test_a_tar_is_written_into_the_stream(body_of: Body) -> None:
    """SC4"""
    content = b"content" * 5000

    def write(stream: Any) -> None:
        with tarfile.open(fileobj=stream, mode="w|gz") as archive:
            member = tarfile.TarInfo("a.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    with tarfile.open(fileobj=io.BytesIO(body_of(write))) as archive:
        extracted = archive.extractfile("a.bin")
        assert extracted is not None
        assert extracted.read() == content


def test_gzip_compresses_into_the_stream(body_of: Body) -> None:
    """SC4"""
    content = b"content" * 5000

    def write(stream: Any) -> None:
        with gzip.GzipFile(fileobj=stream, mode="wb") as packed:
            packed.write(content)

    assert gzip.decompress(body_of(write)) == content


def test_a_text_wrapper_around_the_stream_encodes_into_it(body_of: Body) -> None:
    """SC4"""

    def write(stream: Any) -> None:
        wrapper = io.TextIOWrapper(stream, encoding="utf-16-le", newline="\r\n")
        wrapper.write("Zoë\n")
        wrapper.flush()
        wrapper.detach()

    assert body_of(write) == "Zoë\r\n".encode("utf-16-le")


def test_a_copy_of_any_size_arrives_whole(body_of: Body) -> None:
    """SC4"""
    content = bytes(range(256)) * 4096  # 1 MiB: sixteen times what is held for a slow client
    assert body_of(lambda stream: shutil.copyfileobj(io.BytesIO(content), stream)) == content


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read", ()),
        ("read", (10,)),
        ("readline", ()),
        ("readlines", ()),
        ("readinto", (bytearray(1),)),
        ("__next__", ()),
        ("seek", (0,)),
        ("truncate", (0,)),
        ("fileno", ()),
    ],
)
def test_what_a_file_for_writing_cannot_do_is_unsupported(
    body_of: Body, name: str, arguments: tuple[Any, ...]
) -> None:
    """SC6"""

    def write(stream: Any) -> None:
        with pytest.raises(io.UnsupportedOperation):
            getattr(stream, name)(*arguments)
        assert not stream.committed
        stream.write("all the same")

    assert body_of(write) == b"all the same"


def test_iterating_the_stream_raises_only_when_it_is_asked_for_a_line(body_of: Body) -> None:
    """SC6"""

    def write(stream: Any) -> None:
        lines = iter(stream)
        with pytest.raises(io.UnsupportedOperation):
            next(lines)
        stream.write("x")

    assert body_of(write) == b"x"
