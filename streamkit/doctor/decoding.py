"""Take a content coding off as the bytes come (RFC 9110, section 8.4).

Rule: what cannot be taken off is told, in `fault` or by `can_read`, and never raised. A decoder never
gives more than `limit` bytes in all, whatever the encoder promised.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from typing import Any, Protocol

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Decoder(Protocol):
    """One content coding."""

    fault: str | None
    can_read: bool  # whether payload can be told from the wire

    def feed(self, received: bytes) -> bytes: ...


def can_read_brotli() -> bool:
    """Whether one of the two packages that call themselves brotli is installed."""
    return any(importlib.util.find_spec(name) is not None for name in ("brotli", "brotlicffi"))


def decoder_for(coding: str | None, limit: int) -> Decoder:
    """The decoder of a Content-Encoding."""
    # A proxy that compresses what says "identity" adds its own coding behind that.
    names = [
        name for part in (coding or "").lower().split(",") if (name := part.strip()) not in ("", "identity")
    ]
    if not names:
        return Identity()
    name = ", ".join(names)
    if name in ("gzip", "x-gzip", "deflate"):
        return Inflate(limit)
    if name == "br" and can_read_brotli():
        return Brotli(limit)
    return Unreadable()


class Identity:
    """No coding."""

    fault: str | None = None
    can_read = True

    def feed(self, received: bytes) -> bytes:
        return received


class Unreadable(Identity):
    """A coding that nothing here knows: only the bytes on the wire can be counted."""

    can_read = False


class Inflate:
    """gzip, of one member or many, and deflate with or without zlib's head."""

    can_read = True

    def __init__(self, limit: int) -> None:
        self.fault: str | None = None
        self._left = limit
        self._inflate = zlib.decompressobj(GZIP_OR_ZLIB)
        self._is_fresh = True

    def feed(self, received: bytes) -> bytes:
        payload = b""
        while received and self.fault is None and self._left > 0:
            try:
                piece = self._inflate.decompress(received, self._left)
            except zlib.error as error:
                if not self._is_fresh:
                    self.fault = f"cannot be decompressed: {error}"
                    break
                # Some senders of "deflate" leave zlib's head out.
                self._inflate, self._is_fresh = zlib.decompressobj(-zlib.MAX_WBITS), False
                continue
            self._is_fresh = False
            self._left -= len(piece)
            payload += piece
            received = self._inflate.unused_data
            if self._inflate.eof:
                self._inflate, self._is_fresh = zlib.decompressobj(GZIP_OR_ZLIB), bool(received)
        return payload


class Brotli:
    """Brotli, where a package for it is installed."""

    can_read = True

    def __init__(self, limit: int) -> None:
        self.fault: str | None = None
        self._left = limit
        name = "brotli" if importlib.util.find_spec("brotli") is not None else "brotlicffi"
        self._error: type[Exception] = importlib.import_module(name).error
        self._decompressor: Any = importlib.import_module(name).Decompressor()

    def feed(self, received: bytes) -> bytes:
        if self.fault is not None or self._left <= 0:
            return b""
        try:
            payload: bytes = self._decompressor.process(received)
        except self._error as error:
            self.fault = f"cannot be decompressed: {error}"
            return b""
        payload = payload[: self._left]
        self._left -= len(payload)
        return payload
