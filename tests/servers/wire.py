"""An HTTP/1 client that sees what is on the wire.

    with Connection(port) as connection:
        connection.ask("GET", "/ticks")
        head = connection.head()
        for chunk in connection.chunks():
            print(chunk.arrived, chunk.payload)
        assert connection.ending is Ending.COMPLETE

Rule: nothing here forgives. Framing that RFC 9112 forbids raises `BadFraming`, and how a body
ended is told and never guessed: a client that takes half a body for a whole one would pass
the tests that this one is for. Every wait is bounded by the socket's time-out.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

PATIENCE = 40.0  # seconds without a byte before a read gives up; only a failing test waits so long
READ_SIZE = 64 * 1024  # bytes asked of the kernel at once
LONGEST_HEAD = 64 * 1024  # bytes; far above what any test sends

STATUS_LINE = re.compile(rb"HTTP/(\d\.\d) (\d{3}) ([^\r\n]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


class BadFraming(AssertionError):
    """The peer sent what no HTTP/1 message may contain."""


class Framing(Enum):
    """How the end of a body is known."""

    NONE = "none"
    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


class Ending(Enum):
    """How a body ended."""

    COMPLETE = "complete"  # all that its framing promised
    TRUNCATED = "truncated"  # the connection ended before that
    CLOSE_DELIMITED = "close-delimited"  # the connection ended, and nothing else was promised


@dataclass(frozen=True)
class Head:
    """Status line and fields of one response."""

    version: str
    status: int
    fields: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Every value of a field, names compared without case."""
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that may stand once at most."""
        values = self.all(name)
        if len(values) > 1:
            raise BadFraming(f"{name} stands {len(values)} times: {values}")
        return values[0] if values else None

    @property
    def stays_open(self) -> bool:
        """Whether the server offers the connection for another request."""
        connection = (self.get("Connection") or "").lower()
        return connection == "keep-alive" if self.version == "1.0" else "close" not in connection


@dataclass(frozen=True)
class Chunk:
    """One framed chunk, or (unchunked) what one read of the socket gave; when, by the monotonic clock."""

    payload: bytes
    arrived: float


@dataclass(frozen=True)
class Reply:
    """One whole response."""

    head: Head
    body: bytes
    framing: Framing
    ending: Ending

    @property
    def status(self) -> int:
        return self.head.status


class Connection:
    """One TCP connection to a server on this machine."""

    def __init__(self, port: int, *, patience: float = PATIENCE, receive_buffer: int | None = None) -> None:
        self._open(socket.AF_INET, ("127.0.0.1", port), patience, receive_buffer)

    def _open(
        self,
        family: socket.AddressFamily,
        address: tuple[str, int] | str,
        patience: float,
        receive_buffer: int | None,
    ) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(patience)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.framing = Framing.NONE
        self.ending: Ending | None = None
        self._method = "GET"
        self._length = 0
        self._waiting = b""
        self._was_reset = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, method: str, path: str, version: str = "1.1", fields: dict[str, str] | None = None) -> None:
        """Send a request without a body."""
        lines = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        self._method, self.ending = method, None
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))

    def head(self) -> Head:
        """Read the head of the next response."""
        while b"\r\n\r\n" not in self._waiting:
            if len(self._waiting) > LONGEST_HEAD:
                raise BadFraming(f"no end of the head in {len(self._waiting)} bytes")
            if not self._read():
                raise BadFraming(f"the connection ended inside the head: {self._waiting!r}")
        text, _, self._waiting = self._waiting.partition(b"\r\n\r\n")
        head = parse_head(text)
        self.framing, self._length = framing_of(self._method, head)
        return head

    def chunks(self) -> Iterator[Chunk]:
        """The body, piece by piece; sets `ending` at the end."""
        if self.framing is Framing.CHUNKED:
            yield from self._framed_chunks()
        elif self.framing is Framing.NONE:
            self.ending = Ending.COMPLETE
        else:
            yield from self._plain_chunks()

    def reply(self) -> Reply:
        """Read one whole response."""
        head = self.head()
        body = b"".join([chunk.payload for chunk in self.chunks()])
        assert self.ending is not None
        return Reply(head, body, self.framing, self.ending)

    def read_until(self, mark: bytes) -> bytes:
        """Read the body until `mark` has arrived; the rest can be read on."""
        got = bytearray()
        for chunk in self.chunks():
            got += chunk.payload
            if mark in got:
                return bytes(got)
        raise AssertionError(f"the body ended ({self.ending}) without {mark!r}: {bytes(got)[-200:]!r}")

    def rest_of_connection(self) -> bytes:
        """What else arrives before the server closes."""
        while self._read():
            pass
        rest, self._waiting = self._waiting, b""
        return rest

    def reset(self) -> None:
        """Leave with a TCP reset, as a killed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Leave in order."""
        self.socket.close()

    def _read(self) -> bool:
        """Wait for more bytes; False at the end of the connection."""
        try:
            received = self.socket.recv(READ_SIZE)
        except ConnectionError:
            self._was_reset = True
            return False
        self._waiting += received
        return bool(received)

    def _take(self, size: int) -> bytes | None:
        """Exactly `size` bytes, or None if the connection ends before."""
        while len(self._waiting) < size:
            if not self._read():
                return None
        taken, self._waiting = self._waiting[:size], self._waiting[size:]
        return taken

    def _take_line(self) -> bytes | None:
        while b"\r\n" not in self._waiting:
            if not self._read():
                return None
        line, _, self._waiting = self._waiting.partition(b"\r\n")
        return line

    def _framed_chunks(self) -> Iterator[Chunk]:
        while True:
            line = self._take_line()
            if line is None:
                break
            if not CHUNK_SIZE.fullmatch(line):
                raise BadFraming(f"not a chunk size: {line[:80]!r}")
            size = int(line, 16)
            if size == 0:
                self._end_of_chunks()
                return
            payload = self._take(size)
            if payload is None:
                break
            arrived = time.monotonic()
            closing = self._take(2)
            if closing is None:
                break
            if closing != b"\r\n":
                raise BadFraming(f"{closing!r} after a chunk of {size} bytes")
            yield Chunk(payload, arrived)
        self.ending = Ending.TRUNCATED

    def _end_of_chunks(self) -> None:
        """`last-chunk trailer-section CRLF`; no test asks for trailers."""
        line = self._take_line()
        if line:
            raise BadFraming(f"a trailer that nobody asked for: {line[:80]!r}")
        self.ending = Ending.COMPLETE if line == b"" else Ending.TRUNCATED

    def _plain_chunks(self) -> Iterator[Chunk]:
        by_length = self.framing is Framing.LENGTH
        while not by_length or self._length:
            if not self._waiting and not self._read():
                broken = by_length or self._was_reset
                self.ending = Ending.TRUNCATED if broken else Ending.CLOSE_DELIMITED
                return
            size = min(self._length, len(self._waiting)) if by_length else len(self._waiting)
            payload, self._waiting = self._waiting[:size], self._waiting[size:]
            self._length -= size
            yield Chunk(payload, time.monotonic())
        self.ending = Ending.COMPLETE


def parse_head(text: bytes) -> Head:
    """Parse a head without its blank line."""
    first, *lines = text.split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise BadFraming(f"not a status line: {first[:120]!r}")
    fields = []
    for line in lines:
        field = FIELD_LINE.fullmatch(line)
        if field is None:
            raise BadFraming(f"not a field line: {line[:120]!r}")
        fields.append((field[1].decode("ascii"), field[2].decode("latin-1")))
    return Head(status_line[1].decode("ascii"), int(status_line[2]), tuple(fields))


def framing_of(method: str, head: Head) -> tuple[Framing, int]:
    """The message body length of RFC 9112, section 6.3, and the length where one is declared."""
    coding, length = head.get("Transfer-Encoding"), head.get("Content-Length")
    if coding is not None and length is not None:
        raise BadFraming("Transfer-Encoding and Content-Length in one head")
    if length is not None and not re.fullmatch(r"\d+", length):
        raise BadFraming(f"not a length: {length!r}")
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return Framing.NONE, 0
    if coding is not None:
        if coding.lower() != "chunked":
            raise BadFraming(f"not a transfer coding that was asked for: {coding!r}")
        return Framing.CHUNKED, 0
    return (Framing.CLOSE, 0) if length is None else (Framing.LENGTH, int(length))


def fetch(
    port: int, path: str, *, method: str = "GET", version: str = "1.1", fields: dict[str, str] | None = None
) -> Reply:
    """One request on a connection of its own."""
    with Connection(port) as connection:
        connection.ask(method, path, version, fields)
        return connection.reply()
