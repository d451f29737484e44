"""Bodies that tell a passage what is read from them, sync and async.

Rule: what is read is handed on as it came. After each piece the source of the body takes its step, just
before the next piece is asked for: by then, whoever passes pieces on has passed on this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from .record import CURRENT, Passage

__all__ = ["AsyncWatched", "Watched", "watch_whole"]


class Watched:
    """An iterable body."""

    def __init__(self, body: Any, passage: Passage) -> None:
        self._body, self._passage = body, passage
        self._iterator: Iterator[Any] | None = None
        self._given = False

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        passage = self._passage
        if self._given:
            passage.trace.step(passage)
        if passage.is_cut:
            passage.end()
            raise StopIteration
        token = CURRENT.set(passage)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            piece = next(self._iterator)
        except StopIteration:
            passage.end()
            raise
        except BaseException as error:
            passage.fail(error)
            raise
        finally:
            CURRENT.reset(token)
        self._given = bool(piece)
        passage.chunk(_bytes(piece))
        return piece

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()


class AsyncWatched:
    """An async iterable body."""

    def __init__(self, body: Any, passage: Passage) -> None:
        self._body, self._passage = body, passage
        self._iterator: AsyncIterator[Any] | None = None
        self._given = False

    def __aiter__(self) -> AsyncWatched:
        return self

    async def __anext__(self) -> Any:
        passage = self._passage
        if self._given:
            await passage.trace.astep(passage)
        if passage.is_cut:
            passage.end()
            await self.aclose()
            raise StopAsyncIteration
        token = CURRENT.set(passage)
        try:
            if self._iterator is None:
                self._iterator = aiter(self._body)
            piece = await anext(self._iterator)
        except StopAsyncIteration:
            passage.end()
            raise
        except BaseException as error:
            passage.fail(error)
            raise
        finally:
            CURRENT.reset(token)
        self._given = bool(piece)
        passage.chunk(_bytes(piece))
        return piece

    async def aclose(self) -> None:
        """Close what can be closed: the iterator, which an async generator is itself."""
        if self._iterator is not None and hasattr(self._iterator, "aclose"):
            await self._iterator.aclose()


def watch_whole(pieces: Any, passage: Passage) -> None:
    """A body that was given at once."""
    passage.whole = True
    for piece in pieces:
        passage.chunk(_bytes(piece))
    passage.end()


def _bytes(piece: Any) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)
