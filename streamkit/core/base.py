"""What both kinds of response stream share: what has happened to one, and what may be written to it.

The head stands in `head`, the hooks in `hooks`.

Rule: nothing here sends, waits or logs. Each attribute has its default on the class, so
that a stream nobody touches costs its engine's few attributes and no more.
"""

from __future__ import annotations

from typing import Any

from ..errors import (
    BodyNotAllowed,
    BodyTooLong,
    BodyTooShort,
    ClientDisconnected,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    UnsupportedData,
)
from ..types import Chunk, Outcome
from .closing import Closing
from .commit import State
from .framing import Body, has_body
from .head import Headed
from .headers import UTF_8, charset_of
from .hooks import Hooked

_OVER = (State.FINISHED, State.ABORTED)


class BaseStream(Headed, Hooked, Closing):
    """One response: its head, its hooks and its end, without the body's journey."""

    ignore_disconnect: bool = False
    imperative: bool = False  # written by an application that runs whatever the method

    _accepted: int = 0  # bytes taken against the declared length
    _charset: str | None = None
    _bom: bytes = b""  # the byte-order mark of that charset, where it has one
    _busy: bool = False  # a chunk is on its way to the client
    _direct: bool  # a chunk of bytes needs no further check
    _tail: bytes = b"\n\n"  # the last two bytes handed over; at first, as after a blank line
    _connected: bool = True
    _outcome: Outcome | None = None
    _failure: BaseException | None = None  # the last error of the producer
    _failed: bool = False  # and no hook has mended it
    _unlogged: BaseException | None = None  # of the producer, while the hooks are told
    _failing: BaseException | None = None  # the error that `fail_async` is at work on
    _heard: int | None = None  # the `id` of the task whose write has heard that the stream is over
    _cut: bool = False  # its adapter raised: no final message may follow
    _uncarried: BaseException | None = None  # what its server, or a layer, has raised when it was sent
    _lingers: bool = False  # the cut waits for the completion to be read
    _abort: StreamAborted | None = None
    _ending: StreamEnded | None = None  # why it was ended from outside: a limit, or shutdown
    _given_up: bool = False  # its client took nothing for too long
    _home: set[Any] | None = None  # the open streams among which it stands
    _deadline: float | None = None  # of `max_duration`, by the monotonic clock
    _watch: Any = None  # what the clock of `engines.clock` knows of it
    _when_committed: Any = None  # the milestones of `engines.waits`
    _when_finished: Any = None

    # -- what has happened

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written: closed, aborted, or ended by the server."""
        return self._put_off is not None or self._is_over

    @property
    def _is_over(self) -> bool:
        """The same, where an end that was put off has not come yet."""
        return self._state in _OVER or self._outcome is not None

    @property
    def connected(self) -> bool:
        """False once the client is known to have left."""
        return self._connected

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended; None while it has not."""
        return self._outcome

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body that were handed to the server, counted before they are compressed."""
        raise NotImplementedError

    def tell(self) -> int:
        """Bytes written so far."""
        raise NotImplementedError

    @property
    def at_line_start(self) -> bool:
        """Whether what was written so far ends with a line's end, or nothing was written."""
        return self.tail.endswith((b"\n", b"\r"))

    @property
    def tail(self) -> bytes:
        """The last two bytes of what was written so far; as after a blank line if nothing was."""
        return self._tail

    # -- decisions that the engines share

    def _encode(self, chunk: Chunk) -> bytes:
        """The chunk as bytes of its own; `UnsupportedData` if it is neither text nor bytes."""
        if isinstance(chunk, str):
            charset, bom = self._charset, self._bom
            if charset is None:
                is_fixed = self._head is not None  # asked before the type, which may change until then
                charset = charset_of(self.content_type)
                bom = "".encode(charset)
                if is_fixed:
                    self._bom = bom
                    self._charset = charset
            try:
                encoded = chunk.encode(charset)
            except UnicodeEncodeError as error:
                error.reason += f", and the Content-Type of this response is {self.content_type!r}"
                raise
            # "U+FEFF at the beginning ... is a signature": anywhere else it is a character -- RFC 2781, 3.2
            return encoded[len(bom) :] if bom and (not chunk or self._has_begun()) else encoded
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            return bytes(chunk)
        raise UnsupportedData(chunk)

    def _utf8(self, chunk: Any) -> bytes:
        """The bytes of a text, once the head is fixed and says so; empty where more has to be asked."""
        if type(chunk) is str and self._charset == UTF_8:
            try:
                return chunk.encode()
            except UnicodeEncodeError:
                pass  # `_encode` will say what is wrong
        return b""

    def _has_begun(self) -> bool:
        """Whether some of the body was taken already; between threads it holds under the stream's lock."""
        return self._busy or self.tell() > 0

    def _check_open(self, size: int) -> None:
        """Refuse a write that can never be sent, before it commits anything."""
        if self._ending is not None:
            raise self._ending
        if self._abort is not None:
            raise StreamClosed(f"cannot write to a closed stream: {self._abort}")
        if self.closed and self._connected:
            raise StreamClosed("cannot write to a closed stream")
        if size and self._status != 200 and not has_body(self._status):
            raise BodyNotAllowed(self._status)

    def _admits(self, size: int) -> bool:
        """Whether a write of this size is to be sent; False: it is dropped on purpose."""
        self._check_open(size)
        if self._ending is not None:  # also where `_check_open` refuses nothing
            raise self._ending
        if not self._connected:
            if self.ignore_disconnect:
                return False
            raise ClientDisconnected
        if self._limit is not None and self._accepted + size > self._limit:
            raise BodyTooLong(self._limit, self._accepted + size)
        if size and self.imperative and self._body is Body.UNSENT:
            raise ClientDisconnected  # nobody reads the body of a HEAD: the application may stop
        return size > 0 and self._body not in (Body.UNSENT, Body.NONE)

    def _shortfall(self) -> BodyTooShort | None:
        """The error of a body that ends before its declared length."""
        limit = self._limit
        if limit is None or self._accepted == limit or not self._connected:
            return None
        return BodyTooShort(limit, self._accepted)

    def _claim(self, outcome: Outcome) -> bool:
        """Set the outcome; False if it was set before. One caller wins, whatever the threads."""
        token = object()
        if self.__dict__.setdefault("_settled", token) is not token:
            return False
        self._outcome = outcome
        self._go_home()
        return True

    def _gives_up(self, ending: StreamEnded) -> bool:
        """Note that its client is as good as gone; False if that was known."""
        if self._given_up:
            return False
        if self._ending is None:
            self._ending = ending
        self._given_up = True
        return True

    def _go_home(self) -> None:
        """It is no longer one of the open streams."""
        home = self._home
        if home is not None:
            home.discard(self)

    def __repr__(self) -> str:
        what = self._outcome or self._state.value
        return f"<{type(self).__name__} {self._status} {what}>"
