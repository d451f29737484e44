"""One request: what the application has sent, and how far the test has asked.

The application's side calls `start`, `arrive`, `finish`, `fail` and `end`, and may go on when
`may_go_on` says so. The test's side takes the head and the chunks.

Rule: nothing here knows WSGI or ASGI, and nothing runs here. A body's chunks are never empty, so
b"" stands for its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, NamedTuple, TypeVar

from ..core.framing import has_body
from ..errors import ProtocolViolation, StreamKitError
from ._meeting import Deadline, Meeting
from ._request import Request

T = TypeVar("T")


class NotOpen(StreamKitError, RuntimeError):
    """A client or a connection was used before it was opened, or after its end."""


class Head(NamedTuple):
    status: int
    headers: list[tuple[str, str]]


class Exchange(Meeting):
    """What both sides know of one request; all of it is changed under `turn`."""

    def __init__(self, request: Request, read_ahead: int) -> None:
        super().__init__()
        self.request = request
        self.read_ahead = read_ahead  # chunks that may lie unread before anybody asks
        self.head: Head | None = None
        self.flushed = False  # the head may be seen
        self.head_left = False  # the head was seen, or a chunk has followed it
        self.complete = False  # the body was ended as a whole one
        self.left = False  # the test has disconnected
        self.over = False  # the application has returned, and was closed
        self.gone = BrokenPipeError(32, "the client is gone")  # what a write to nobody raises
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._is_error_seen = False
        self._unread: deque[bytes] = deque()
        self._asking = 0  # waits of the test that only the application can end
        self._declared: int | None = None  # bytes that Content-Length says
        self._arrived = 0  # bytes, dropped ones too
        self._taken = self._taken_bytes = 0

    # -- the application's side

    def may_go_on(self) -> Literal[True] | None:
        """Whether the next chunk is wanted, or nobody is there to want it."""
        wanted = len(self._unread) < self.read_ahead or (self._asking and not self._unread)
        return True if wanted or self.left else None

    def start(self, head: Head) -> None:
        """Take the head. It may be replaced until `head_left`."""
        lengths = {value.strip() for name, value in head.headers if name.lower() == "content-length"}
        if len(lengths) > 1 or not all(length.isascii() and length.isdigit() for length in lengths):
            raise self.violation(f"wanted Content-Length as one number of bytes, got {sorted(lengths)}")
        with self.turn:
            self.head = head
            self._declared = int(lengths.pop()) if lengths and self._has_body(head) else None
            self.changed()

    def flush(self) -> None:
        """The head leaves, if there is one."""
        with self.turn:
            self.flushed = self.flushed or self.head is not None
            self.changed()

    def arrive(self, chunk: bytes) -> None:
        """Take a chunk of the body; dropped where the request has none, or nobody reads."""
        with self.turn:
            if self.left or not chunk or self.head is None:
                return
            self.flushed = self.head_left = True
            if not has_body(self.head.status):
                raise self.violation(f"a response with status {self.head.status} has no body (RFC 9110)")
            self._arrived += len(chunk)
            if self._has_body(self.head):
                self._check_length(self._arrived)
                self._unread.append(chunk)
            self.changed()

    def finish(self) -> None:
        """The body is complete."""
        with self.turn:
            self.flush()
            if self._declared is not None and self._arrived < self._declared and not self.left:
                raise self.violation(
                    f"the body ended after {self._arrived} bytes, but Content-Length says {self._declared}"
                )
            self.complete = not self.left
            self.changed()

    def fail(self, error: BaseException) -> None:
        """Keep the application's first error; our own word for a leave is none."""
        with self.turn:
            if self._error is None and not _comes_from(error, self.gone):
                self._error, self._trace = error, error.__traceback__
            self.changed()

    def violation(self, rule: str) -> ProtocolViolation:
        """The error of a breach. The test is told of it, whether or not the application lets it pass."""
        error = ProtocolViolation(rule)
        self.fail(error)
        return error

    def end(self) -> None:
        """The application has returned, and what it returned was closed."""
        with self.turn:
            self.over = True
            self.changed()

    def cancel(self) -> bool:
        """Stop the application; False where that cannot be done."""
        return False

    def join(self) -> None:
        """Wait until nothing of this exchange runs any more; it is `over`."""

    def where(self) -> str:
        """Where in its code the application is; "" where that cannot be said."""
        return ""

    def _has_body(self, head: Head) -> bool:
        return self.request.method != "HEAD" and has_body(head.status)

    def _check_length(self, size: int) -> None:
        if self._declared is not None and size > self._declared:
            raise self.violation(f"the body has {size} bytes, but Content-Length says {self._declared}")

    # -- the test's side

    @property
    def error(self) -> BaseException | None:
        """The application's error. Whoever has looked at it is not told of it at the end."""
        self._is_error_seen = self._is_error_seen or self._error is not None
        return self._error

    @property
    def ended(self) -> bool:
        return self.complete or self.left or self.over or self._error is not None

    def ask(self, attempt: Callable[[], T | None], deadline: Deadline) -> T | None:
        """Wait for what only the application can bring; while that lasts, it may go on."""
        with self._asked(attempt) as asked:
            return self.until(asked, deadline)

    async def ask_async(self, attempt: Callable[[], T | None], deadline: Deadline) -> T | None:
        """The same, for a task."""
        with self._asked(attempt) as asked:
            return await self.until_async(asked, deadline)

    @contextmanager
    def _asked(self, attempt: Callable[[], T | None]) -> Iterator[Callable[[], T | None]]:
        asks = False

        def asked() -> T | None:
            nonlocal asks
            taken = attempt()
            if asks != (taken is None):
                # Under the lock of the taking: the application may not go on for a wish that is fulfilled.
                asks = taken is None
                self._asking += 1 if asks else -1
                self.changed()
            return taken

        try:
            yield asked
        finally:
            if asks:
                with self.turn:
                    self._asking -= 1

    def take_head(self) -> Head | None:
        """The head, once it has left."""
        if self.head is not None and self.flushed:
            self.head_left = True
            return self.head
        self._check_readable()
        return None

    def take(self) -> bytes | None:
        """The next chunk; b"" at the end of a complete body."""
        if self._unread:
            chunk = self._unread.popleft()
            self._taken += 1
            self._taken_bytes += len(chunk)
            self.changed()
            return chunk
        if self.complete:  # what the application still raises is no matter of the body
            return b""
        self._check_readable()
        return None

    def _check_readable(self) -> None:
        self.raise_error()
        if self.left:
            raise NotOpen("nothing can be read: this connection was disconnected by the test")

    def put_back(self, chunks: Iterable[bytes]) -> None:
        """Chunks that were taken in vain."""
        with self.turn:
            for chunk in reversed(list(chunks)):
                self._unread.appendleft(chunk)
                self._taken -= 1
                self._taken_bytes -= len(chunk)

    def through(self) -> Literal[True] | None:
        """Whether the application is over."""
        return True if self.over else None

    def leave(self) -> None:
        """The client hangs up; nothing happens where the body is complete."""
        with self.turn:
            if not self.complete and not self.over:
                self.left = True
                self._unread.clear()
                self.changed()

    def raise_error(self) -> None:
        """Raise the application's error, as the server would get it."""
        error = self.error
        if error is not None:
            raise error.with_traceback(self._trace)  # without the frames of an earlier raise

    def raise_unseen(self) -> None:
        """Raise the application's error if the test was not told of it before."""
        if not self._is_error_seen:
            self.raise_error()

    def timed_out(self, wanted: str, timeout: float | None) -> TimeoutError:
        """What a wait raises that was in vain."""
        place = self.where()
        place = f"; the application is in {place}" if place else ""
        return TimeoutError(f"wanted {wanted} within {timeout:.3g} s, but {self.so_far()}{place}")

    def not_through(self, wanted: str, timeout: float | None) -> TimeoutError:
        """What a wait for the application's end raises that was in vain."""
        late = self.timed_out(wanted, timeout)
        if self.ended:
            return late
        return TimeoutError(
            f"{late}; it is not asked for more meanwhile: read to the end, or disconnect, before"
        )

    def so_far(self) -> str:
        """What has come, in words."""
        if self.head is None:
            return "the application has not started a response"
        if not self.flushed:
            return "the head has not left: no chunk has followed it"
        read = f"{self._taken_bytes} bytes read in {self._taken} chunks"
        dropped = self._arrived and not self._has_body(self.head)
        return f"so far: status {self.head.status}, {read}" + (
            f", {self._arrived} bytes dropped, for {self.request.method} has no body" if dropped else ""
        )


def _comes_from(error: BaseException | None, origin: BaseException) -> bool:
    """Whether `error` is `origin`, or was raised `from` it. What went wrong besides is an error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if error is origin:
            return True
        seen.add(id(error))
        error = error.__cause__
    return False
