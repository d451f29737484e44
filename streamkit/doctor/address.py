"""Ask an address, and write down what came when.

    address = Address.parse("https://example.org/events")
    observation = ask(address, Question("HTTP/1.1"), seconds=10)

Rule: nothing here judges. A request is a GET or a HEAD without a body, on a connection of its own that
is closed on every path; it is over after `seconds` at the latest, or after `limit` bytes. What the
other side does wrong stands in the observation and is never raised.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit

from .decoding import Decoder, decoder_for
from .findings import Arrival, CannotAsk
from .http1 import LONGEST_HEAD, Body, Head, framing_of, parse_head
from .observations import PAUSE, Ending, Observation, Question

READ_SIZE = 64 * 1024  # bytes asked of the kernel at once
LIMIT = 1024 * 1024  # bytes of one body; an answer longer than that is left
FOLLOWED_BY = 64  # bytes that are kept of what stands where nothing may
AGENT = "streamkit-doctor"
PORTS = {"http": 80, "https": 443}
SAFE = "/%:=&?~#+!$,;'@()*[]"  # what `quote` leaves as it is; a path may be quoted already
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class Address:
    """Where to ask."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, as they stand in the request line

    @classmethod
    def parse(cls, text: str, path: str | None = None) -> Address:
        """Of `http://host:port/path?query`, or of `host:port/path`; `path` stands for its path and query.

        Raises `CannotAsk` for what is no address.
        """
        parts = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = parts.port
        except ValueError as error:
            raise CannotAsk(f"{text!r} is no address: {error}") from error
        if parts.scheme not in PORTS or not parts.hostname:
            raise CannotAsk(f"an address is http://host/path or https://host/path, not {text!r}")
        if parts.username is not None:
            raise CannotAsk("an address with a password in it: send --header 'Authorization: ...' instead")
        whole = path if path is not None else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = quote(whole if whole.startswith("/") else f"/{whole}", safe=SAFE).partition("#")[0]
        return cls(parts.scheme, parts.hostname, port or PORTS[parts.scheme], target)

    @property
    def authority(self) -> str:
        """The Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode("ascii")
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def follow(self, location: str) -> Address:
        """Where a redirect leads."""
        return Address.parse(urljoin(str(self), location))

    def is_same_origin(self, other: Address) -> bool:
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)

    def with_query(self, name: str, value: str) -> Address:
        """The same with one more parameter."""
        mark = "&" if "?" in self.target else "?"
        return replace(self, target=f"{self.target}{mark}{name}={value}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def check_field(name: str, value: str) -> tuple[str, str]:
    """A field that may be sent (RFC 9110, section 5); raises `CannotAsk`."""
    if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        raise CannotAsk(f"a header is 'Name: value', not {name!r}: {value!r}")
    return name, value


def ask(
    address: Address,
    question: Question,
    *,
    seconds: float,
    limit: int = LIMIT,
    enough: int | None = None,
) -> Observation:
    """Send one request and watch its answer for `seconds`, the time to connect not counted.

    `enough`: as many bursts show what was to be shown; the answer is left then.
    """
    try:
        connection = _connect(address, min(seconds, 10.0))
    except (OSError, UnicodeError) as error:
        return Observation(question, problem=f"{address.authority}: {_reason(error)}")
    with connection:
        try:
            return _Watch(connection, address, question, seconds, limit, enough).watch()
        except OSError as error:
            return Observation(question, problem=f"{address.authority}: {_reason(error)}")


def _connect(address: Address, patience: float) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), patience)
    if address.scheme == "http":
        return connection
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        return context.wrap_socket(connection, server_hostname=address.host)
    except BaseException:
        connection.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    said = str(getattr(error, "strerror", None) or error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{said}; the environment's SSL_CERT_FILE names the certificates to trust"
    # What OpenSSL says of an answer that is no TLS; from 3.2 on the second, which not every Python can name.
    is_plain = getattr(error, "reason", "") == "WRONG_VERSION_NUMBER" or "record layer failure" in said
    return f"{said}: is it http:// there?" if is_plain else said


class _Watch:
    """One connection while it is watched."""

    def __init__(
        self,
        connection: socket.socket,
        address: Address,
        question: Question,
        seconds: float,
        limit: int,
        enough: int | None,
    ) -> None:
        self._connection, self._address, self._question = connection, address, question
        self._limit, self._enough = limit, enough
        self._waiting = b""
        self._arrivals: list[Arrival] = []
        self._wire: list[Arrival] = []
        self._payload = bytearray()
        self._followed_by = b""
        self._bursts = 0
        self._was_reset = False
        self._seconds = seconds
        self._start = self._began = 0.0

    def watch(self) -> Observation:
        """Send, and read until the end, the deadline, the limit or enough."""
        self._send()
        seen = Observation(self._question, began=self._began, is_local=self._is_local())
        head, head_at = self._head()
        if head is None or head_at is None:
            at = self._now()
            problem = "the connection ended without an answer" if self._ended else f"no answer in {at:.1f} s"
            if self._waiting:
                problem = f"what was sent is no head of HTTP/1: {self._waiting[:60]!r}"
            return replace(seen, watched=at, problem=problem)
        body = Body(framing_of(self._question.method, head))
        decoder = decoder_for(head.get("Content-Encoding"), self._limit)
        extra = self._read_body(body, decoder)
        ending = _ending_of(body, self._ended, self._was_reset)
        if self._question.method == "HEAD" and not self._ended:
            ending = Ending.OPEN  # though the request said `Connection: close`
        now = self._now()
        return replace(
            seen,
            head=head, head_at=head_at, watched=now, framing=body.framing, ending=ending,
            ended_at=None if ending is Ending.OPEN else now, after_end=extra, followed_by=self._followed_by,
            arrivals=tuple(self._arrivals), wire=tuple(self._wire), payload=bytes(self._payload),
            can_read=decoder.can_read, fault=body.fault or decoder.fault,
        )  # fmt: skip

    def _is_local(self) -> bool:
        ours, theirs = self._connection.getsockname(), self._connection.getpeername()
        return bool(ours[0] == theirs[0])

    def _send(self) -> None:
        question = self._question
        fields = [("Host", self._address.authority), ("User-Agent", AGENT), *question.fields]
        # A HEAD's answer ends with the connection, so that a body behind it is seen. In HTTP/1.0 this is
        # what nginx sends to the app, and what tells the app that a body may end so.
        if question.method == "HEAD" or question.version == "1.0":
            fields.append(("Connection", "close"))
        lines = [f"{question.method} {self._address.target} HTTP/{question.version}"]
        lines += [f"{name}: {value}" for name, value in fields]
        self._connection.settimeout(self._seconds)
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._start, self._began = time.monotonic(), time.time()
        self._ended = False

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _read(self) -> bytes | None:
        """More bytes; None at the end of the connection or of the time."""
        left = self._seconds - self._now()
        if left <= 0:
            return None
        self._connection.settimeout(left)
        try:
            received = self._connection.recv(READ_SIZE)
        except TimeoutError:
            return None
        except OSError:  # reset; or TLS that ended without its farewell
            self._ended = self._was_reset = True
            return None
        self._ended = not received
        return received or None

    def _head(self) -> tuple[Head | None, float | None]:
        while True:
            text, end, rest = self._waiting.partition(b"\r\n\r\n")
            if not end:
                received = self._read() if len(self._waiting) < LONGEST_HEAD else None
                if received is None:
                    return None, None
                self._waiting += received
                continue
            head = parse_head(text)
            if head is None:
                return None, None
            self._waiting = rest
            if head.status >= 200:
                return head, self._now()

    def _read_body(self, body: Body, decoder: Decoder) -> int:
        """Read to the end; gives how many bytes followed it."""
        received: bytes | None = self._waiting
        if self._question.method == "HEAD":
            extra = 0
            while received is not None:
                extra += len(received)
                self._followed_by = (self._followed_by + received)[:FOLLOWED_BY]
                received = self._read() if extra < READ_SIZE else None
            return extra
        while received is not None:
            if received:
                self._take(body.feed(received), decoder)
            if body.is_whole or body.fault or decoder.fault or self._has_enough():
                break
            received = self._read()
        return 0

    def _take(self, coded: bytes, decoder: Decoder) -> None:
        if not coded:
            return
        at = self._now()
        before = self._wire[-1] if self._wire else None
        if before is None or at - before.at >= PAUSE:
            self._bursts += 1
        self._wire.append(Arrival(at, (before.offset if before else 0) + len(coded)))
        payload = decoder.feed(coded)
        if payload:
            self._payload += payload
            self._arrivals.append(Arrival(at, len(self._payload)))

    def _has_enough(self) -> bool:
        if self._wire and max(self._wire[-1].offset, len(self._payload)) >= self._limit:
            return True
        return self._enough is not None and self._bursts >= self._enough


def _ending_of(body: Body, ended: bool, was_reset: bool) -> Ending:
    if body.is_whole:
        return Ending.COMPLETE
    if not ended:
        return Ending.OPEN
    if body.framing.value == "close" and not was_reset:
        return Ending.CLOSED
    return Ending.CUT
