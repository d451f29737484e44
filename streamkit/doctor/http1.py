"""The head and the framing of one HTTP/1 response, fed piece by piece (RFC 9112).

    body = Body(framing_of("GET", head))
    payload = body.feed(received)

Rule: no socket and no clock. What a sender may not write is told in `fault`, as text, and never
raised: a doctor wants to know of it, and to see the rest all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

LONGEST_HEAD = 64 * 1024  # bytes; twice what nginx and uvicorn take
LONGEST_LINE = 4 * 1024  # bytes of a chunk's size line, or of a trailer

STATUS_LINE = re.compile(r"HTTP/(\d\.\d) (\d{3})(?: (.*))?")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Framing(Enum):
    """How the end of a body is known (RFC 9112, section 6.3)."""

    NONE = "none"
    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


@dataclass(frozen=True)
class Head:
    """Status line and fields of one response."""

    version: str
    status: int
    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The values of a field, joined by a comma as RFC 9110 joins them; None where it is missing."""
        values = [value for known, value in self.fields if known.lower() == name.lower()]
        return ", ".join(values) if values else None

    def has(self, name: str, word: str) -> bool:
        """Whether a field's comma list holds this word, compared without case and without `=value`."""
        words = (part.split("=")[0].strip().lower() for part in (self.get(name) or "").split(","))
        return word.lower() in words

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return (self.get("Content-Type") or "").split(";")[0].strip().lower()


def parse_head(text: bytes) -> Head | None:
    """Parse a head without its blank line; None where it is not one of HTTP/1."""
    first, *lines = text.decode("latin-1").replace("\r\n", "\n").split("\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None:
        return None
    fields = [line.partition(":") for line in lines if ":" in line]
    return Head(
        status_line[1], int(status_line[2]), tuple((name.strip(), value.strip()) for name, _, value in fields)
    )


def framing_of(method: str, head: Head) -> tuple[Framing, int]:
    """How the body is delimited, and the length where one is declared."""
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return Framing.NONE, 0
    if head.has("Transfer-Encoding", "chunked"):
        return Framing.CHUNKED, 0
    length = (head.get("Content-Length") or "").split(",")[0].strip()
    if re.fullmatch(r"[0-9]{1,18}", length):
        return Framing.LENGTH, int(length)
    return Framing.CLOSE, 0


class Body:
    """Takes a body out of its framing."""

    def __init__(self, framing: tuple[Framing, int]) -> None:
        self.framing, self._left = framing
        self.fault: str | None = None
        self.is_whole = self.framing is Framing.NONE or framing == (Framing.LENGTH, 0)
        self._waiting = b""
        self._chunk: int | None = None  # bytes of the current chunk that are to come; None: a size line
        self._in_trailers = False

    def feed(self, received: bytes) -> bytes:
        """The payload in these bytes; what follows the end of the body is a fault."""
        if self.fault is not None or self.is_whole:
            self._complain_of_more(received)
            return b""
        if self.framing is Framing.CHUNKED:
            self._waiting += received
            return b"".join(self._chunks())
        if self.framing is Framing.LENGTH:
            payload, more = received[: self._left], received[self._left :]
            self._left -= len(payload)
            self.is_whole = not self._left
            self._complain_of_more(more)
            return payload
        return received

    def _complain_of_more(self, received: bytes) -> None:
        if received and self.fault is None:
            self.fault = f"{len(received)} bytes follow the end of the response"

    def _chunks(self) -> list[bytes]:
        payloads = []
        at = 0  # how much of what waits is read; cutting it off at each chunk would take quadratic time
        while self.fault is None and not self.is_whole:
            if self._chunk:
                taken = self._waiting[at : at + self._chunk]
                at += len(taken)
                self._chunk -= len(taken)
                payloads.append(taken)
                if self._chunk:
                    break
                continue
            end = self._waiting.find(b"\n", at)
            if end < 0:
                if len(self._waiting) - at > LONGEST_LINE:
                    self.fault = f"no line end in {len(self._waiting) - at} bytes where a chunk's size stands"
                break
            self._read_line(self._waiting[at:end].removesuffix(b"\r"))
            at = end + 1
        self._waiting = self._waiting[at:]
        if self.is_whole:
            self._complain_of_more(self._waiting)
        return payloads

    def _read_line(self, line: bytes) -> None:
        if self._in_trailers:
            self.is_whole = not line
        elif self._chunk == 0:  # the line end behind a chunk's data
            self._chunk = None
            if line:
                self.fault = f"{line[:40]!r} stands where a chunk's line should end"
        elif (size := CHUNK_SIZE.fullmatch(line)) is None:
            self.fault = f"{line[:40]!r} stands where a chunk's size should"
        elif int(size[1], 16):
            self._chunk = int(size[1], 16)
        else:
            self._in_trailers = True
