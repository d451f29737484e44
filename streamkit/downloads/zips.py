"""A ZIP archive that is written while it is sent.

    streamkit.zip_files(["/srv/a.pdf", ("notes.txt", "now"), ("log.csv", lines())], "all.zip")
    streamkit.zip_files(((p.relative_to(top).as_posix(), p) for p in top.rglob("*")), "top.zip")

The standard library's `zipfile`, into memory that is emptied as it fills. Measured beside
zipstream-ng and stream-zip it is as fast, in the same memory, and takes asynchronous members
too. The price: compression runs where the members are read, some 1 ms for 64 KiB.

Rule: the archive's end is sent after its last member and at no other time, so a download
that fails has none, and no program takes it for whole.
"""

from __future__ import annotations

import copy
import io
import os
import re
import stat
import time
import zipfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing, closing
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from ..core.producers import kind_of
from ..errors import OptionsError, ProducerError
from .batches import CHUNK, MOMENT, Progress, check_unspent, close, close_async
from .contents import Source, finished, is_for_tasks, pieces, pieces_async
from .description import Download, Wishes

if TYPE_CHECKING:
    from typing_extensions import Unpack

Member: TypeAlias = "str | PathLike[str] | tuple[str | zipfile.ZipInfo, Source]"

# In a file name that is no UTF-8 each byte that is none; an archive has no other name for the file.
_SURROGATE = re.compile("[\ud800-\udfff]")


def zip_files(
    members: Iterable[Member] | AsyncIterable[Member],
    filename: str | None,
    *,
    compression: int = zipfile.ZIP_DEFLATED,
    level: int | None = None,
    on_progress: Progress | None = None,
    disposition: str = "attachment",
    type: str | None = None,
    **more: Unpack[Wishes],
) -> Download:
    """Describe a ZIP archive of `members`, sent while they are read; one larger than 4 GiB is ZIP64.

    A member is a path (a `str` by itself is one too), or a pair of its name in the archive (`/`
    between folders) and its content: text (sent as UTF-8), bytes, a `Path`, a file open for reading
    bytes, an iterable of text or bytes, or a function without arguments that returns one of these;
    in an async iterable of members, or a list, also an async iterable, or an async function. A
    `ZipInfo` in place of the name is taken as it is. A folder's path makes an entry, not its
    contents. What can be closed is closed when it was read.

    - `compression`, `level`: as `zipfile.ZipFile` takes them; stored is best for what is
      compressed already.
    - `on_progress(members, bytes)`: called after each chunk that was taken, with the members
      that are complete and the bytes sent; awaited among async members. What it raises ends the download.

    The type is application/zip where neither `type` nor the extension says another. Raises
    `ProducerError`, `OptionsError`, `HeaderError`; while it is sent, what reading raises.
    """
    _check_compression(compression, level)
    if on_progress is not None and not callable(on_progress):
        raise OptionsError([f"on_progress: wanted a function or None, got {on_progress!r}"])
    kind = None if isinstance(members, (str, bytes, PathLike)) else kind_of(members)
    if kind is None or not kind.is_iterable:
        raise ProducerError(f"wanted members as an iterable or an async iterable, got {members!r}")
    is_async = kind.is_async or any(is_for_tasks(source) for source in _sources(members))
    body = (_AsyncZip if is_async else _Zip)(members, compression, level, on_progress)
    return _ZipDownload(body, filename, disposition=disposition, type=type, **more)


class _ZipDownload(Download):
    otherwise = "application/zip"


class _Sink:
    """Where `zipfile` writes to; it can neither seek nor tell, so sizes follow each member's data."""

    def __init__(self) -> None:
        self.members = 0  # that are complete
        self._taken = self._sent = 0  # bytes: in the last chunk, in all before
        self._gathered = io.BytesIO()
        self.write: Callable[[bytes], int] = self._gathered.write  # as it is, for eight calls a member
        self._latest = time.monotonic()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Its type asks for it, though `zipfile` leaves open what it is given."""

    def is_due(self) -> bool:
        """Whether what has gathered should go."""
        size = self._gathered.tell()
        return size >= CHUNK or (size > 0 and time.monotonic() - self._latest >= MOMENT)

    def take(self) -> bytes:
        chunk = self._gathered.getvalue()
        self._gathered.seek(0)
        self._gathered.truncate()
        self._taken = len(chunk)
        return chunk

    def taken(self, on_progress: Progress | None) -> object:
        """The chunk has gone: tell of it, and count its age from now."""
        self._sent += self._taken
        self._latest = time.monotonic()
        return None if on_progress is None else on_progress(self.members, self._sent)


class _Folder:
    """Where the content of a folder goes, which has none, whatever stands for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Its entry is in the archive already."""

    def write(self, piece: bytes | memoryview) -> None:
        if piece:
            raise ProducerError(f"wanted no content for {self.name!r}, which names a folder")


class _Body:
    """What both bodies know: the members, and how to begin one."""

    def __init__(
        self, members: Any, compression: int, level: int | None, on_progress: Progress | None
    ) -> None:
        self.members = members
        self.compression = compression
        self.level = level
        self.on_progress = on_progress
        self._begun = False

    def begin(self) -> tuple[_Sink, zipfile.ZipFile]:
        for source in (self.members, *_sources(self.members)):
            check_unspent(source, self._begun)
        self._begun = True
        sink = _Sink()
        return sink, zipfile.ZipFile(sink, "w", self.compression, compresslevel=self.level)

    def entry(self, archive: zipfile.ZipFile, member: Any) -> tuple[IO[bytes] | _Folder, Any]:
        """Where the content of this member is to be written, and the content."""
        info, source = _info_of(member, self.compression, self.level)
        if info.is_dir():
            archive.writestr(info, b"")
            is_path = isinstance(source, PathLike) and os.path.isdir(source)
            return _Folder(info.filename), b"" if source is None or is_path else source
        # The header, which comes first, says whether sizes have 8 bytes: an unknown one may need them,
        # and that of a pipe, or of what a system makes up, is 0 to whoever asks.
        unknown = not info.file_size and not isinstance(source, bytes)
        return archive.open(info, "w", force_zip64=unknown), source

    def close(self) -> None:
        """Close the members, and what is in them, read or not."""
        for source in (*_sources(self.members), self.members):
            close(source)


class _Zip(_Body):
    """An archive of synchronous members: an iterable of chunks."""

    def __iter__(self) -> Iterator[bytes]:
        sink, archive = self.begin()
        members = iter(self.members)
        try:
            with archive:  # after an error its end goes into memory that nobody sends
                for member in members:
                    entry, source = self.entry(archive, member)
                    with entry, closing(pieces(source)) as read:
                        for piece in read:
                            entry.write(piece)
                            if sink.is_due():
                                yield sink.take()
                                sink.taken(self.on_progress)
                    sink.members += 1
                    if sink.is_due():  # also what has no content
                        yield sink.take()
                        sink.taken(self.on_progress)
            yield sink.take()
            sink.taken(self.on_progress)
        finally:
            close(members)


class _AsyncZip(_Body):
    """The same of asynchronous members, or sources: an async iterable."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sink, archive = self.begin()
        members = _each(self.members)
        try:
            with archive:
                async for member in members:
                    entry, source = self.entry(archive, member)
                    with entry:
                        async with aclosing(pieces_async(source)) as read:
                            async for piece in read:
                                entry.write(piece)
                                if sink.is_due():
                                    yield sink.take()
                                    await finished(sink.taken(self.on_progress))
                    sink.members += 1
                    if sink.is_due():
                        yield sink.take()
                        await finished(sink.taken(self.on_progress))
            yield sink.take()
            await finished(sink.taken(self.on_progress))
        finally:
            await members.aclose()

    async def aclose(self) -> None:
        """`close`, awaited."""
        for source in (*_sources(self.members), self.members):
            await close_async(source)
        self.close()


def _info_of(member: Any, compression: int, level: int | None) -> tuple[zipfile.ZipInfo, Any]:
    """What the archive says of this member, and the member's content."""
    if isinstance(member, str) and member:
        member = Path(member)
    if isinstance(member, PathLike):
        member = (os.path.basename(os.fspath(member)), member)
    if not isinstance(member, tuple) or len(member) != 2:
        raise ProducerError(
            "wanted a member as a path (str or os.PathLike) or as a tuple of name and content, "
            f"got {type(member).__name__}: {member!r}"
        )
    name, source = member
    source = source.encode() if isinstance(source, str) else source
    if isinstance(name, zipfile.ZipInfo):
        return copy.copy(name), source  # `zipfile` writes into it
    if not isinstance(name, str) or not name.strip("/"):
        raise ProducerError(f"wanted the name of a member as text or a ZipInfo, got {name!r}")
    name = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", name)
    if isinstance(source, PathLike):
        info = zipfile.ZipInfo.from_file(source, name, strict_timestamps=False)
    else:
        info = zipfile.ZipInfo(name, time.localtime()[:6])
        info.external_attr = (stat.S_IFDIR | 0o755 if info.is_dir() else stat.S_IFREG | 0o644) << 16
        info.file_size = len(source) if isinstance(source, bytes) else 0
    info.compress_type = zipfile.ZIP_STORED if info.is_dir() else compression
    info._compresslevel = level  # type: ignore[attr-defined]  # public, as `compress_level`, from 3.13 on
    return info, source


def _sources(members: Any) -> list[Any]:
    """The contents that are there before the members are iterated."""
    if not isinstance(members, (list, tuple)):
        return []
    return [member[1] for member in members if isinstance(member, tuple) and len(member) == 2]


async def _each(members: Any) -> AsyncGenerator[Any, None]:
    if not hasattr(type(members), "__aiter__"):
        for member in members:
            yield member
        return
    iterator = aiter(members)
    try:
        async for member in iterator:
            yield member
    finally:
        await close_async(iterator)


def _check_compression(compression: Any, level: Any) -> None:
    if compression not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):  # not every Python has the others
        try:
            zipfile.ZipFile(io.BytesIO(), "w", compression).close()
        except (NotImplementedError, RuntimeError) as error:
            raise OptionsError([f"compression: {error}"]) from None
    if level is not None and (isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 9):
        raise OptionsError([f"level: wanted a whole number from 0 to 9, or None, got {level!r}"])
