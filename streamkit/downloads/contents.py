"""The content of one member of an archive, in pieces, whatever it is that has it.

Rule: a piece has at most `BLOCK` bytes, and a source is closed when it was read, or read no further.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing
from os import PathLike
from typing import IO, Any, TypeAlias

from ..errors import ProducerError, UnsupportedData
from .batches import close, close_async

Source: TypeAlias = (
    "str | bytes | bytearray | memoryview | PathLike[str] | IO[bytes]"
    " | Iterable[str | bytes] | AsyncIterable[str | bytes] | Callable[[], Any]"
)

BLOCK = 64 * 1024  # bytes read, and compressed, at a time


def pieces(source: Any) -> Generator[bytes | memoryview, None, None]:
    """The content of a member, at most `BLOCK` bytes at a time; closed when it was read."""
    source = source() if callable(source) else source
    if isinstance(source, PathLike):
        source = open(source, "rb", buffering=0)  # noqa: SIM115  # closed below, as what we are given
    try:
        if isinstance(source, (str, bytes, bytearray, memoryview)):
            yield from _cut(source)
        elif hasattr(source, "read"):
            while block := source.read(BLOCK):
                yield from _cut(block)
        elif isinstance(source, Iterable):
            for piece in source:
                yield from _cut(piece)
        elif is_for_tasks(source):
            raise ProducerError(f"wanted async members around an async source, got {source!r} among others")
        else:
            raise UnsupportedData(source)
    finally:
        close(source)


async def pieces_async(source: Any) -> AsyncGenerator[bytes | memoryview, None]:
    """The same, awaited; what is read from a disk is read on a thread."""
    source = await finished(source()) if callable(source) else source
    if isinstance(source, PathLike):
        async with aclosing(_blocks_of(source)) as blocks:
            async for block in blocks:
                yield block
    elif hasattr(source, "read"):
        try:
            while block := await asyncio.to_thread(source.read, BLOCK):
                for piece in _cut(block):
                    yield piece
        finally:
            close(source)
    elif hasattr(type(source), "__aiter__"):
        chunks = aiter(source)
        try:
            async for chunk in chunks:
                for piece in _cut(chunk):
                    yield piece
        finally:
            await close_async(chunks)
    else:
        for piece in pieces(source):
            yield piece


async def _blocks_of(path: PathLike[str]) -> AsyncGenerator[bytes, None]:
    opening = asyncio.get_running_loop().run_in_executor(None, _opened, path)
    try:
        file, block = await asyncio.shield(opening)
    except asyncio.CancelledError:  # the thread cannot be called back: a pipe opens when its writer comes
        opening.add_done_callback(_let_go)
        raise
    try:
        while block:
            yield block
            block = b"" if file.closed else await asyncio.to_thread(file.read, BLOCK)
    finally:
        file.close()


def _let_go(opening: asyncio.Future[tuple[IO[bytes], bytes]]) -> None:
    """Close what was opened for somebody who has left meanwhile."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


def _opened(path: PathLike[str]) -> tuple[IO[bytes], bytes]:
    """A file and its first block; closed already where that is all: one visit to a thread is enough then."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by whoever gets it
    try:
        block = file.read(BLOCK)
        # A pipe gives what is there, and would keep us waiting for what is not.
        if len(block) < BLOCK and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            rest = file.read(BLOCK - len(block))
            block += rest
            if not rest:
                file.close()
        return file, block
    except BaseException:
        file.close()
        raise


def _cut(data: Any) -> Iterator[bytes | memoryview]:
    if isinstance(data, str):
        data = data.encode()
    elif not isinstance(data, (bytes, bytearray, memoryview)):
        raise UnsupportedData(data)
    if len(data) <= BLOCK and not isinstance(data, memoryview):
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, len(view), BLOCK):
        yield view[start : start + BLOCK]


def is_for_tasks(source: Any) -> bool:
    """Whether only a task can read it."""
    return hasattr(type(source), "__aiter__") or inspect.iscoroutinefunction(source)


async def finished(result: Any) -> Any:
    """A result, awaited where it has to be."""
    return await result if inspect.isawaitable(result) else result
