"""What the application holds while its response is being made.

`ResponseStream` is written to from any thread, `AsyncResponseStream` from the loop; the
engines say how bytes travel and who waits.

Rule: the names are the same in both; what may wait is awaited in the second.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Awaitable, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

from ..types import Chunk
from .base import BaseStream


class _WrittenFile(BaseStream):
    """What a file says of itself that is open for writing alone."""

    def writable(self) -> bool:
        """True, as of a file that is open for writing; also once it is closed."""
        return True

    def readable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """False: what was written may have been sent."""
        return False

    def isatty(self) -> bool:
        """False."""
        return False


class ResponseStream(_WrittenFile):
    """A response being sent, for synchronous code; safe to use from any thread.

    It is also a file open for writing: `csv.writer`, `print(file=)`, `json.dump`,
    `zipfile` and `shutil.copyfileobj` write into it.
    """

    @abstractmethod
    def write(self, data: Chunk, /) -> int:
        """Send `str` (in the response's charset) or bytes; returns the number of bytes.

        The first write commits; an empty one commits and sends nothing. Waits while more
        than `high_water` bytes are held for a slow client. Raises `UnsupportedData`,
        `StreamClosed`, `ClientDisconnected`, `BodyNotAllowed`, `BodyTooLong`.
        """

    @abstractmethod
    def commit(self) -> None:
        """Send the head now. Once is enough; further calls are for nothing."""

    @abstractmethod
    def close(self) -> None:
        """Complete the response. Idempotent, and never waits. Raises `BodyTooShort`.

        While an error is on its way in the producer, as in `finally: stream.close()`, whether this
        is the end shows when the producer is over, or goes on for some seconds more: half a body
        must not look whole.
        """

    @abstractmethod
    def abort(self, reason: object = None) -> None:
        """Cut the response short, so that no client takes it for whole. Idempotent, never waits."""

    @abstractmethod
    def wait_committed(self, timeout: float | None = None) -> bool:
        """Wait for the commit, at most `timeout` seconds; whether it has happened.

        None waits without end. Raises `InvalidTimeout`.
        """

    @abstractmethod
    def wait_finished(self, timeout: float | None = None) -> bool:
        """Wait for the end (all was handed over, or never will be); as `wait_committed` otherwise."""

    def stale(
        self, *, etag: str | None = None, last_modified: datetime | None = None, weak: bool = False
    ) -> bool:
        """Whether the response has to be made; False if the client has it, and was told so with a 304.

            if not stream.stale(etag=report.version):
                return

        Sets ETag (`etag` is without its quotes; `weak` says that equal tags mean as good, not the
        same bytes) and Last-Modified, as far as they are given, and compares what then stands in the
        headers with If-None-Match, else If-Modified-Since, of a GET or HEAD (RFC 9110, section
        13.2.2). After False the stream is committed and closed, without a body. Raises `AlreadyCommitted`
        and `HeaderError`.
        """
        if self._is_stale(etag, last_modified, weak):
            return True
        self.commit()  # now, for amid an error the close is put off, and another answer would go out
        self.close()
        return False

    def writeln(self, text: Chunk = "") -> int:
        """Write `text`, and a newline unless it ends with one; as `write` otherwise."""
        if isinstance(text, str):
            return self.write(text if text.endswith("\n") else text + "\n")
        chunk = self._encode(text)
        return self.write(chunk if chunk.endswith(b"\n") else chunk + b"\n")

    def writelines(self, lines: Iterable[Chunk], /) -> None:
        """Write each of `lines` as it is; no newline is added."""
        for line in lines:
            self.write(line)

    def __lshift__(self, value: object) -> ResponseStream:
        """Write any object by its `str()`, and bytes as they are; None sends nothing. Returns the stream."""
        if value is not None:
            self.write(value if isinstance(value, (bytes, bytearray, memoryview)) else str(value))
        return self

    def flush(self) -> None:
        """Commit, and push what is held. Nothing is ever held back, so this only commits."""
        if not self.closed:
            self.commit()

    def _not_open_for_reading(self, *args: object) -> NoReturn:
        raise io.UnsupportedOperation("not opened for reading")

    read = read1 = readinto = readline = readlines = __next__ = _not_open_for_reading

    def __iter__(self) -> ResponseStream:
        return self

    def seek(self, offset: int, whence: int = 0, /) -> NoReturn:
        raise io.UnsupportedOperation("a response stream cannot seek")

    def truncate(self, size: int | None = None, /) -> NoReturn:
        raise io.UnsupportedOperation("a response stream cannot be truncated")

    def fileno(self) -> NoReturn:
        raise io.UnsupportedOperation("a response stream has no file descriptor")

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:  # an error must not look like a complete body
            self.close()


class AsyncResponseStream(_WrittenFile):
    """A response being sent, for asynchronous code on one event loop.

    The same names as `ResponseStream`; what may wait is awaited. `sync` is the twin for
    worker threads. Hooks may be coroutine functions.
    """

    _awaits_hooks = True
    _senders: Any = frozenset()  # the tasks of a twin's writes that are under way

    @abstractmethod
    def write(self, data: Chunk, /) -> Awaitable[int]:
        """Send `str` or bytes; the awaited result is the number of bytes. As `ResponseStream.write`."""

    @abstractmethod
    def commit(self) -> Awaitable[None]:
        """Send the head now. Need not be awaited, unless hooks of the commit are coroutines."""

    @abstractmethod
    def close(self) -> Awaitable[None]:
        """Complete the response. Idempotent, and never waits. Raises `BodyTooShort`.

        While an error is on its way in the producer, as in `finally: stream.close()`, whether this
        is the end shows when the producer is over, or goes on for some seconds more: half a body
        must not look whole.
        """

    @abstractmethod
    def abort(self, reason: object = None) -> None:
        """Cut the response short, so that no client takes it for whole. Idempotent, never waits."""

    @abstractmethod
    async def wait_committed(self, timeout: float | None = None) -> bool:
        """Wait for the commit, at most `timeout` seconds; whether it has happened.

        None waits without end. Raises `InvalidTimeout`.
        """

    @abstractmethod
    async def wait_finished(self, timeout: float | None = None) -> bool:
        """Wait for the end (all was handed over, or never will be); as `wait_committed` otherwise."""

    def _put_from_thread(self, data: Chunk) -> int | None:
        """`write` for a twin, on another thread; None where it has to be done on the loop."""
        return None

    def _hear_from_thread(self) -> None:
        """A twin has something to say on the loop: what is written from now on comes after it."""

    @property
    def sync(self) -> ResponseStream:
        """The twin for worker threads: the same stream, written without `await`."""
        raise NotImplementedError

    def stale(
        self, *, etag: str | None = None, last_modified: datetime | None = None, weak: bool = False
    ) -> bool:
        """Whether the response has to be made; False if the client has it, and was told so with a 304.

            if not stream.stale(etag=report.version):
                return

        Sets ETag (`etag` is without its quotes; `weak` says that equal tags mean as good, not the
        same bytes) and Last-Modified, as far as they are given, and compares what then stands in the
        headers with If-None-Match, else If-Modified-Since, of a GET or HEAD (RFC 9110, section
        13.2.2). After False the stream is closed without a body; nothing has to be awaited. Raises
        `AlreadyCommitted` and `HeaderError`.
        """
        if self._is_stale(etag, last_modified, weak):
            return True
        self.close()
        return False

    def writeln(self, text: Chunk = "") -> Awaitable[int]:
        """Write `text`, and a newline unless it ends with one; as `write` otherwise."""
        if isinstance(text, str):
            return self.write(text if text.endswith("\n") else text + "\n")
        chunk = self._encode(text)
        return self.write(chunk if chunk.endswith(b"\n") else chunk + b"\n")

    async def writelines(self, lines: Iterable[Chunk], /) -> None:
        """Write each of `lines` as it is; no newline is added."""
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Commit, and push what is held. Nothing is ever held back, so this only commits."""
        if not self.closed:
            await self.commit()

    async def __aenter__(self) -> AsyncResponseStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:  # an error must not look like a complete body
            await self.close()
