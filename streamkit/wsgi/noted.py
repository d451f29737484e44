"""An ordinary response under WSGI, of which a hook on its request's stream wants to be told.

Rule: its body goes on chunk by chunk as the application has returned it; here they are counted, and
the end is told as it was. A list is all there, and a file is the server's: they go on untouched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..core.framing import has_body
from ..core.headers import value_of
from ..engines.ending import outcome_of, settle
from ..engines.write import RequestStream
from ..types import Environ
from .foreign import is_server_file


def noted(stream: RequestStream, body: Any, environ: Environ) -> Iterable[bytes]:
    """The body, whose end is told by itself (`stream.told_later`) unless it is known now."""
    if isinstance(body, (list, tuple)):
        stream._sent += sum(len(chunk) for chunk in body if isinstance(chunk, bytes))
        return body
    if is_server_file(environ, body):
        stream._sent += _length(stream) or 0
        return body  # type: ignore[no-any-return]
    stream.told_later = True
    return Noted(stream, body, is_head=environ["REQUEST_METHOD"] == "HEAD")


def _length(stream: RequestStream) -> int | None:
    """The Content-Length of the application's head, if it has one."""
    length = value_of(stream._pairs, "content-length") or ""
    return int(length) if length.isdecimal() and length.isascii() else None


class Noted:
    """The iterable that the server sends, and whose end it hears of."""

    def __init__(self, stream: RequestStream, body: Iterable[bytes], *, is_head: bool) -> None:
        self._stream = stream
        self._body = body
        self._is_head = is_head
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Noted:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            chunk = next(self._chunks)
        except StopIteration:
            settle(self._stream, outcome_of(self._stream))
            raise
        except BaseException:
            self._fail()
            raise
        if isinstance(chunk, bytes):
            self._stream._sent += len(chunk)
        return chunk

    def close(self) -> None:
        """The server is done, or the client gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._fail()
            raise
        finally:
            self._leave()

    def _fail(self) -> None:
        self._stream._failed = True
        settle(self._stream, outcome_of(self._stream))

    def _leave(self) -> None:
        if self._stream.outcome is not None:
            return
        # Asked for now: the application may have replaced its head, as long as that was not sent.
        expected = _length(self._stream)
        has_none = self._is_head or not has_body(self._stream.status)
        if not has_none and (expected is None or self._stream._sent < expected):
            self._stream._connected = False
        settle(self._stream, outcome_of(self._stream))

    def __del__(self) -> None:
        self._leave()
