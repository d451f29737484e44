"""`zip_files`: an archive that is written while it is sent."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from downloading import WAYS, Downloads, awaited, sent_length, serving
from driving import PATIENCE, until

from streamkit.downloads import zip_files
from streamkit.downloads.contents import BLOCK, pieces
from streamkit.errors import AlreadyServed, OptionsError, ProducerError, UnsupportedData

NOISE = bytes((number * number * 7919 >> 3) & 0xFF for number in range(300_000))


class Boom(Exception):
    pass


@pytest.fixture(params=WAYS)
def served(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


@pytest.fixture(params=["members", "async-members"])
def kind(request: Any) -> Callable[[Any], Any]:
    return (lambda members: members) if request.param == "members" else awaited


def contents(body: bytes) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(body))
    assert archive.testzip() is None
    return {info.filename: archive.read(info) for info in archive.infolist()}


def test_each_member_is_in_the_archive_whatever_its_content_comes_from(
    served: Downloads, kind: Any, tmp_path: Path
):
    path = tmp_path / "on disk.bin"
    path.write_bytes(NOISE)
    opened = io.BytesIO(NOISE)

    def members() -> Any:
        return [
            path,
            ("renamed/über.bin", path),
            ("text", "é"),
            ("bytes", b"abc"),
            ("bytearray", bytearray(NOISE)),
            ("file", opened),
            ("text file", io.StringIO("é" * 70_000)),
            ("pieces", (piece for piece in ("a", b"b", bytearray(b"c"), NOISE))),
            ("called", lambda: [b"x", b"y"]),
            ("empty", b""),
            ("folder/", None),
        ]

    answer = served(lambda: zip_files(kind(members()), "all.zip")).finish()
    assert answer.complete, answer.error
    assert answer.header("Content-Type") == "application/zip"
    assert contents(answer.body) == {
        "on disk.bin": NOISE,
        "renamed/über.bin": NOISE,
        "text": "é".encode(),
        "bytes": b"abc",
        "bytearray": NOISE,
        "file": NOISE,
        "text file": "é".encode() * 70_000,
        "pieces": b"abc" + NOISE,
        "called": b"xy",
        "empty": b"",
        "folder/": b"",
    }
    assert opened.closed


def test_a_path_may_be_text_and_the_text_of_a_pair_is_its_content(
    served: Downloads, kind: Any, tmp_path: Path
):
    path = tmp_path / "on disk.bin"
    path.write_bytes(NOISE)
    (tmp_path / "sub").mkdir()
    members = [str(path), f"{tmp_path}/sub/", ("notes.txt", "text"), ("named.txt", str(path))]
    answer = served(lambda: zip_files(kind(members), "all.zip")).finish()
    assert answer.complete, answer.error
    assert contents(answer.body) == {
        "on disk.bin": NOISE,
        "sub/": b"",
        "notes.txt": b"text",
        "named.txt": str(path).encode(),
    }


def test_a_path_that_is_not_there_is_a_real_error(served: Downloads, kind: Any, tmp_path: Path):
    answer = served(lambda: zip_files(kind([f"{tmp_path}/no.txt"]), "all.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, FileNotFoundError)


@pytest.mark.parametrize(
    "member", [5, None, b"a.txt", "", ["a.txt", b"x"], ("a.txt",), ("a", b"x", 1)], ids=repr
)
def test_a_member_that_is_neither_a_path_nor_a_pair_is_refused_with_what_was_wanted(
    served: Downloads, kind: Any, member: Any
):
    answer = served(lambda: zip_files(kind([member]), "all.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, ProducerError)
    assert "wanted a member as a path (str or os.PathLike) or as a tuple of name and content" in str(
        answer.error
    )
    assert repr(member) in str(answer.error)


def test_one_path_in_place_of_the_members_is_refused():
    for path in ("/srv/a.pdf", b"/srv/a.pdf", Path("/srv/a.pdf")):
        with pytest.raises(ProducerError, match="wanted members as an iterable"):
            zip_files(path, "all.zip")  # type: ignore[arg-type]


@pytest.mark.parametrize("among", ["list", "async"])
def test_an_async_source_may_stand_in_a_list_and_among_async_members(served: Downloads, among: str):
    async def opening() -> Any:
        return awaited([b"later"])

    members = [("a", awaited([b"x", "y"])), ("b", opening), ("c", b"z")]
    make = lambda: zip_files(members if among == "list" else awaited(members), "a.zip")  # noqa: E731
    assert contents(served(make).finish().body) == {"a": b"xy", "b": b"later", "c": b"z"}


def test_an_async_source_among_other_members_is_refused(served: Downloads):
    answer = served(lambda: zip_files(iter([("a", awaited([b"x"]))]), "a.zip")).finish()
    assert isinstance(answer.error, ProducerError)


def test_a_tree_is_a_generator_of_paths(served: Downloads, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    members = ((path.relative_to(tmp_path).as_posix(), path) for path in sorted(tmp_path.rglob("*")))
    assert contents(served(lambda: zip_files(members, "a.zip")).finish().body) == {
        "sub/": b"",
        "sub/a.txt": b"a",
    }


def test_dates_and_modes_are_those_of_the_files(served: Downloads, tmp_path: Path):
    path = tmp_path / "a.sh"
    path.write_text("echo")
    path.chmod(0o755)
    own = zipfile.ZipInfo("own", (2001, 2, 3, 4, 5, 6))
    body = served(lambda: zip_files([path, (own, b"x" * 99), ("now", b"x")], "a.zip")).finish().body
    first, second, third = zipfile.ZipFile(io.BytesIO(body)).infolist()
    assert stat.S_IMODE(first.external_attr >> 16) == 0o755
    assert (second.date_time, second.compress_type) == ((2001, 2, 3, 4, 5, 6), zipfile.ZIP_STORED)
    assert third.date_time[0] > 2020
    assert own.file_size == 0, "the caller's own was changed"


def test_compression_and_level_are_those_of_zipfile(served: Downloads):
    def packed(**more: Any) -> zipfile.ZipInfo:
        body = served(lambda: zip_files([("a", [b"abc" * 30_000])], "a.zip", **more)).finish().body
        assert contents(body) == {"a": b"abc" * 30_000}
        return zipfile.ZipFile(io.BytesIO(body)).infolist()[0]

    assert packed(compression=zipfile.ZIP_STORED).compress_size == 90_000
    assert packed(level=1).compress_size > packed(level=9).compress_size
    assert packed(compression=zipfile.ZIP_BZIP2).compress_type == zipfile.ZIP_BZIP2


@pytest.mark.parametrize(
    "wrong", [{"compression": 99}, {"level": 10}, {"level": -1}, {"level": "9"}, {"on_progress": 1}]
)
def test_what_does_not_hold_is_refused_when_it_is_described(wrong: Any):
    with pytest.raises(OptionsError, match=next(iter(wrong))):
        zip_files([("a", b"")], "a.zip", **wrong)


@pytest.mark.parametrize("members", ["text", None, 5, lambda stream: None])
def test_members_that_cannot_be_iterated_are_refused(members: Any):
    with pytest.raises(ProducerError):
        zip_files(members, "a.zip")


@pytest.mark.parametrize("member", [("", b""), (5, b""), ("/", b""), ("/", Path(__file__))])
def test_a_member_without_a_name_is_a_real_error(served: Downloads, kind: Any, member: Any):
    answer = served(lambda: zip_files(kind([member]), "a.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, ProducerError)


@pytest.mark.parametrize("source", [5, [5]])
def test_content_that_is_none_is_a_real_error(served: Downloads, kind: Any, source: Any):
    answer = served(lambda: zip_files(kind([("a", source)]), "a.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, UnsupportedData)


def test_a_first_member_that_is_not_there_is_a_real_error(served: Downloads, kind: Any, tmp_path: Path):
    answer = served(lambda: zip_files(kind([tmp_path / "none"]), "a.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, FileNotFoundError)


def test_an_archive_that_fails_is_cut_and_opens_nowhere(served: Downloads, kind: Any):
    def failing() -> Iterator[bytes]:
        yield NOISE
        raise Boom

    members = [("whole", NOISE), ("half", failing()), ("never", b"x")]
    answer = served(lambda: zip_files(kind(members), "a.zip", compression=zipfile.ZIP_STORED)).finish()
    assert answer.body.startswith(b"PK")
    assert not answer.complete
    assert isinstance(answer.error, Boom)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(answer.body))


def test_the_first_bytes_arrive_before_the_last_member_is_made(served: Downloads, kind: Any):
    arrived = threading.Event()

    def late() -> Iterator[bytes]:
        assert arrived.wait(PATIENCE), "the first member was held back"
        yield b"late"

    make = lambda: zip_files(kind([("a", NOISE), ("b", late())]), "a.zip", compression=0)  # noqa: E731
    answer = served(make)
    assert answer.read().startswith(b"PK")
    arrived.set()
    assert contents(answer.finish().body) == {"a": NOISE, "b": b"late"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_written_to_a_pipe_arrives_before_the_pipe_is_closed(
    served: Downloads, kind: Any, tmp_path: Path
):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arrived = threading.Event()

    def write() -> None:
        with open(pipe, "wb", buffering=0) as opened:
            opened.write(NOISE[:40_000])
            arrived.wait(PATIENCE)
            opened.write(b"late")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    answer = served(lambda: zip_files(kind([pipe]), "a.zip", compression=0))
    assert answer.read().startswith(b"PK")
    arrived.set()
    assert contents(answer.finish().body) == {"pipe": NOISE[:40_000] + b"late"}
    writer.join(PATIENCE)


@pytest.mark.parametrize(("size", "visits"), [(0, 1), (1, 1), (BLOCK - 1, 1), (BLOCK, 2)])
def test_a_small_file_among_async_members_takes_one_visit_to_a_thread(size: int, visits: int, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(NOISE[:size])
    seen: list[Any] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **values: Any) -> Any:
            seen.append(args)
            return super().submit(*args, **values)

    async def read() -> bytes:
        asyncio.get_running_loop().set_default_executor(Counting(1))
        archive = zip_files(awaited([path]), "a.zip").producer
        return b"".join([chunk async for chunk in archive])

    assert contents(asyncio.run(read())) == {"file": NOISE[:size]}
    assert len(seen) == visits


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_that_opens_after_the_client_has_left_is_closed(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened: list[Any] = []
    writer = threading.Thread(target=pipe.write_bytes, args=(b"late",), daemon=True)

    async def leave() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        class Noting(ThreadPoolExecutor):
            def submit(self, call: Any, *args: Any, **values: Any) -> Any:
                def noted() -> Any:
                    loop.call_soon_threadsafe(begun.set)
                    result = call(*args, **values)
                    opened.append(result[0])
                    return result

                return super().submit(noted)

        loop.set_default_executor(Noting(1))
        reading = asyncio.ensure_future(anext(aiter(zip_files(awaited([pipe]), "a.zip").producer)))
        await begun.wait()
        reading.cancel()
        await asyncio.wait([reading])
        writer.start()  # only now the pipe can be opened
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)  # what the thread has left for the loop

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    assert [file.closed for file in opened] == [True]
    writer.join(PATIENCE)


def test_files_are_closed_when_the_client_leaves(served: Downloads, kind: Any):
    opened = io.BytesIO(NOISE * 40)
    answer = served(lambda: zip_files(kind([("a", opened)]), "a.zip", compression=0))
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: opened.closed)


def test_files_in_a_list_are_closed_also_those_that_nobody_came_to(served: Downloads):
    opened = [io.BytesIO(NOISE * 40), io.BytesIO(b"never read")]
    members = [(str(number), file) for number, file in enumerate(opened)]
    answer = served(lambda: zip_files(members, "a.zip", compression=0))
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: all(file.closed for file in opened))


def test_files_in_a_list_are_closed_unread_for_head(served: Downloads):
    opened = io.BytesIO(NOISE)
    answer = served(lambda: zip_files([("a", opened)], "a.zip"), method="HEAD").finish()
    assert (answer.status, answer.body) == (200, b"")
    assert opened.closed


def test_members_that_can_be_read_once_are_not_sent_twice(served: Downloads):
    for members in (iter([("a", b"x")]), [("a", iter([b"x"]))], [("a", io.BytesIO(b"x"))]):
        download = zip_files(members, "a.zip")
        assert contents(served(lambda download=download: download).finish().body) == {"a": b"x"}
        second = served(lambda download=download: download).finish()
        assert not second.committed
        assert isinstance(second.error, AlreadyServed)


def test_what_can_be_read_again_can_be_sent_again(served: Downloads):
    download = zip_files([("a", b"x"), ("b", lambda: iter([b"y"]))], "a.zip")
    for _ in range(2):
        assert contents(served(lambda: download).finish().body) == {"a": b"x", "b": b"y"}


def test_progress_tells_complete_members_and_bytes(served: Downloads, kind: Any):
    seen: list[tuple[int, int]] = []
    members = [(str(number), NOISE) for number in range(3)]
    make = lambda: zip_files(  # noqa: E731
        kind(members), "a.zip", compression=0, on_progress=lambda *told: seen.append(told)
    )
    answer = served(make).finish()
    assert seen == sorted(set(seen))
    assert seen[-1] == (3, len(answer.body))
    assert {done for done, _ in seen} == {0, 1, 2, 3}


def test_progress_among_async_members_is_awaited(served: Downloads):
    seen: list[tuple[int, int]] = []

    async def on_progress(members: int, sent: int) -> None:
        await asyncio.sleep(0)
        seen.append((members, sent))

    answer = served(lambda: zip_files(awaited([("a", b"x")]), "a.zip", on_progress=on_progress)).finish()
    assert seen == [(1, len(answer.body))]


def test_a_member_of_unknown_length_has_room_for_more_than_4_gib(served: Downloads):
    body = served(lambda: zip_files([("a", [b"x"]), ("b", b"x")], "a.zip")).finish().body
    unknown, known = (body.index(b"PK\3\4"), body.rindex(b"PK\3\4"))
    assert body[unknown + 28 : unknown + 30] == b"\x14\0"  # 20 bytes of extra: sizes of 8 bytes
    assert body[known + 28 : known + 30] == b"\0\0"


def test_so_has_one_whose_length_nobody_says_before_it_is_read(served: Downloads, kind: Any, tmp_path: Path):
    pipe, path = tmp_path / "pipe", tmp_path / "path"
    os.mkfifo(pipe)
    path.write_bytes(b"x")
    writer = threading.Thread(target=pipe.write_bytes, args=(b"x",), daemon=True)
    writer.start()
    members = [pipe, (zipfile.ZipInfo("bare"), path), path]
    body = served(lambda: zip_files(kind(members), "a.zip")).finish().body
    writer.join(PATIENCE)
    assert contents(body) == {"pipe": b"x", "bare": b"x", "path": b"x"}
    heads = [info.header_offset for info in zipfile.ZipFile(io.BytesIO(body)).infolist()]
    assert [body[head + 28] for head in heads] == [20, 20, 0]


def test_members_without_content_are_sent_as_they_gather(served: Downloads, kind: Any):
    count = 20_000
    seen: list[tuple[int, int]] = []
    members = ((f"{number}/", None) for number in range(count))
    make = lambda: zip_files(kind(members), "a.zip", on_progress=lambda *told: seen.append(told))  # noqa: E731
    answer = served(make).finish()
    assert len(contents(answer.body)) == count
    first, *others = [done for done, _ in seen]
    assert first < count / 10, "all of them were held until the end"
    assert others[-1] == count


@pytest.mark.parametrize("source", ["text", [b"bytes"], Path(__file__)], ids=["text", "pieces", "file"])
def test_content_under_the_name_of_a_folder_is_refused(served: Downloads, kind: Any, source: Any):
    answer = served(lambda: zip_files(kind([(zipfile.ZipInfo("a/"), source)]), "a.zip")).finish()
    assert not answer.committed
    assert isinstance(answer.error, ProducerError)
    assert "'a/'" in str(answer.error)


@pytest.mark.parametrize("source", [bytes, io.BytesIO, lambda: iter(())], ids=["bytes", "file", "pieces"])
def test_a_folder_may_have_a_source_without_content_as_in_another_archive(
    served: Downloads, kind: Any, source: Any
):
    answer = served(lambda: zip_files(kind([("a/", source), ("a/b", b"x")]), "a.zip")).finish()
    assert contents(answer.body) == {"a/": b"", "a/b": b"x"}


def test_a_file_name_that_is_no_utf8_does_not_end_the_archive(served: Downloads, kind: Any, tmp_path: Path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("a file system where names are UTF-8")
    answer = served(lambda: zip_files(kind([path, ("next", b"y")]), "a.zip")).finish()
    assert contents(answer.body) == {"caf\N{REPLACEMENT CHARACTER}.txt": b"x", "next": b"y"}


def test_big_pieces_are_cut_before_they_are_compressed():
    assert [len(piece) for piece in pieces(memoryview(bytes(BLOCK * 2 + 1)))] == [BLOCK, BLOCK, 1]


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_a_big_archive_takes_no_more_memory_than_a_small_one(way: str):
    def blocks(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield NOISE[:65536]

    async def async_blocks(count: int) -> AsyncIterator[bytes]:
        for block in blocks(count):
            yield block

    def peak(count: int) -> int:
        source: Any = blocks(count) if way == "wsgi" else async_blocks(count)
        tracemalloc.start()
        try:
            assert (
                sent_length(way, lambda: zip_files([("a", source)], "a.zip", compression=0)) > count * 65536
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4000) < peak(40) + 2 * 1024 * 1024


def test_a_path_that_cannot_be_opened_after_the_client_has_left_is_nobodys_error(tmp_path: Path):
    (tmp_path / "there").write_bytes(b"x")
    begun, left = threading.Event(), threading.Event()
    complaints: list[Any] = []

    class Going(os.PathLike):  # type: ignore[type-arg]
        def __fspath__(self) -> str:
            if threading.current_thread() is threading.main_thread():
                return str(tmp_path / "there")
            begun.set()
            assert left.wait(PATIENCE)
            raise FileNotFoundError("gone meanwhile")

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        executor = ThreadPoolExecutor(1)
        loop.set_default_executor(executor)
        reading = asyncio.ensure_future(anext(aiter(zip_files(awaited([Going()]), "a.zip").producer)))
        while not begun.is_set():  # noqa: ASYNC110  # it is set by a thread
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        left.set()
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)  # what the thread has left for the loop

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    assert complaints == []


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here that opens and cannot be read")
def test_a_file_that_cannot_be_read_is_closed_and_its_error_told(served: Downloads, kind: Any):
    path = Path("/proc/self/mem")  # whose first byte belongs to nobody
    answer = served(lambda: zip_files(kind([("a", path)]), "a.zip")).finish()
    assert isinstance(answer.error, OSError)
    assert not answer.complete
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            opened.append(os.readlink(descriptor))
        except FileNotFoundError:  # the one that lists them, or another thread's
            continue
    assert not [name for name in opened if name.endswith("/mem")]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("content", [None, NOISE[:9000]], ids=["folders", "small"])
def test_each_chunk_of_small_members_is_told_of(is_async: bool, content: Any):
    told: list[int] = []
    members: Any = [(f"{number}/", None) for number in range(2000)]
    if content is not None:  # whose bytes come when the compressor ends
        members = [(f"{number}", content) for number in range(150)]

    async def read() -> list[int]:
        archive = zip_files(awaited(members), "a.zip", on_progress=lambda _, sent: told.append(sent))
        return [len(chunk) async for chunk in archive.producer]

    if is_async:
        sizes = asyncio.run(asyncio.wait_for(read(), PATIENCE))
    else:
        archive: Any = zip_files(members, "a.zip", on_progress=lambda _, sent: told.append(sent)).producer
        sizes = [len(chunk) for chunk in archive]
    assert len(sizes) > 2
    assert told == list(accumulate(sizes))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_iterator_of_members_is_closed_where_the_client_leaves(is_async: bool):
    closed: list[bool] = []

    class Members:
        def __iter__(self) -> Iterator[Any]:
            try:
                yield "a", NOISE
                yield "b", NOISE
            finally:
                closed.append(True)

    class AsyncMembers:
        async def __aiter__(self) -> AsyncIterator[Any]:
            try:
                yield "a", NOISE
                yield "b", NOISE
            finally:
                closed.append(True)

    async def leave() -> None:
        chunks = aiter(zip_files(AsyncMembers(), "a.zip", compression=0).producer)
        await anext(chunks)
        await chunks.aclose()
        assert closed == [True]

    if is_async:
        asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    else:
        chunks: Any = iter(zip_files(Members(), "a.zip", compression=0).producer)
        next(chunks)
        chunks.close()
    assert closed == [True]
