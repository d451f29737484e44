"""What both kinds of response stream share: the head and the end; their hooks stand in `hooks`.

Rule: nothing here sends, waits or logs. Each attribute has its default on the class, so
that a stream nobody touches costs its engine's few attributes and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from werkzeug.http import dump_cookie

from ..errors import (
    AlreadyCommitted,
    BodyNotAllowed,
    BodyTooLong,
    BodyTooShort,
    ClientDisconnected,
    HeaderError,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    UnsupportedData,
)
from ..options import Options
from ..syntax import check_cookie, check_status
from ..types import Chunk, Outcome
from .commit import State, after
from .compression import Coder, chosen, coder_for
from .conditional import dated, is_fresh, quoted
from .framing import Body, Request, frame, has_body
from .headers import (
    DEFAULT_CONTENT_TYPE,
    IDENTITY,
    UTF_8,
    Headers,
    Pairs,
    charset_of,
    finished,
    is_streaming,
    value_of,
    without_hop_by_hop,
)
from .hooks import Hooked
from .request import NO_FIELDS, Fields
from .shared import Shared

if TYPE_CHECKING:
    from .response import StreamingResponse

_OVER = (State.FINISHED, State.ABORTED)
HTTP11 = Request("GET", (1, 1), False)


class BaseStream(Hooked):
    """The head, the hooks and the end of one response, without the body's journey."""

    response: StreamingResponse | None = None  # the description, where there is one
    options: Options = Options()
    request: Request = HTTP11
    ignore_disconnect: bool = False
    foreign: bool = False  # made by other code, passing through
    imperative: bool = False  # written by an application that runs whatever the method

    _status: int = 200
    _pairs: Pairs = []  # noqa: RUF012  # the head as described; never changed in place
    _headers: Headers | None = None  # the same, once somebody has asked for it
    _head: tuple[int, Pairs] | None = None  # the head as it leaves
    _state: State = State.STARTED
    _body: Body = Body.STREAM
    _fields: Fields = NO_FIELDS  # what the request says that the head depends on
    _not_modified: bool = False  # its client has it, so 304 stands for what would have been said
    _coding: str | None = None  # what the body is compressed with on its way to the server
    _limit: int | None = None  # the declared length in bytes
    _accepted: int = 0  # bytes taken against it
    _charset: str | None = None
    _bom: bytes = b""  # the byte-order mark of that charset, where it has one
    _busy: bool = False  # a chunk is on its way to the client
    _tail: bytes = b"\n\n"  # the last two bytes handed over; at first, as after a blank line
    _connected: bool = True
    _outcome: Outcome | None = None
    _failure: BaseException | None = None  # the last error of the producer
    _failed: bool = False  # and no hook has mended it
    _failing: BaseException | None = None  # the error that `fail_async` is at work on
    _cut: bool = False  # its adapter raised: no final message may follow
    _lingers: bool = False  # the cut waits for the completion to be read
    _abort: StreamAborted | None = None
    _ending: StreamEnded | None = None  # why it was ended from outside: a limit, or shutdown
    _given_up: bool = False  # its client took nothing for too long
    _home: set[Any] | None = None  # the open streams among which it stands
    _deadline: float | None = None  # of `max_duration`, by the monotonic clock
    _watch: Any = None  # what the clock of `engines.clock` knows of it
    _when_committed: Any = None  # the milestones of `engines.waits`
    _when_finished: Any = None

    # -- the head

    @property
    def status(self) -> int:
        """The status code; setting it raises `HeaderError`, and after the commit `AlreadyCommitted`."""
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        status = check_status(status)
        self._check_uncommitted("change the status")
        self._status = status
        self._check_uncommitted("change the status")  # a commit may have come between

    @property
    def headers(self) -> Headers:
        """The headers; changing them raises `HeaderError`, and after the commit `AlreadyCommitted`."""
        headers = self._headers
        if headers is None:
            head = self._head
            made = Headers(head[1] if head is not None else without_hop_by_hop(self._pairs))
            headers = self.__dict__.setdefault("_headers", made)
            if self._state is not State.STARTED:
                headers.freeze()
        return headers

    def set_cookie(
        self,
        key: str,
        value: str = "",
        *,
        max_age: timedelta | int | None = None,
        expires: str | datetime | int | float | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
        partitioned: bool = False,
    ) -> None:
        """Add a Set-Cookie header (RFC 6265); `max_age` in seconds, `expires` a time or its timestamp.

        Raises `HeaderError` for what makes no cookie, and `AlreadyCommitted` after the commit.
        """
        self._check_uncommitted("set a cookie")
        check_cookie(key, value)
        try:
            cookie = dump_cookie(
                key,
                value,
                max_age=max_age,
                expires=expires,
                path=path,
                domain=domain,
                secure=secure,
                httponly=httponly,
                samesite=samesite,
                partitioned=partitioned,
            )
        except (TypeError, ValueError, AttributeError) as error:  # werkzeug checks few of them
            raise HeaderError(f"wanted the attributes of a cookie (RFC 6265), but {error}") from error
        self.headers.add("Set-Cookie", cookie)

    def _is_stale(self, etag: str | None, last_modified: datetime | None, weak: bool) -> bool:
        """Set the validators, and the status to 304 where the client's copy is fresh."""
        self._check_uncommitted("answer a conditional request")
        headers = self.headers
        if etag is not None:
            headers["ETag"] = quoted(etag, weak=weak)
        if last_modified is not None:
            headers["Last-Modified"] = dated(last_modified)
        method, fields = self._asked()
        if not is_fresh(method, fields, self._status, list(headers)):
            return True
        self.status = 304
        self._not_modified = True
        return False

    def _is_fresh_for(self, fields: Fields) -> bool:
        """Note what the request says; whether the described validators then make this a 304."""
        self._fields = fields
        if not is_fresh(self.request.method, fields, self._status, self._pairs):
            return False
        self._status = 304
        self._not_modified = True
        return True

    def _asked(self) -> tuple[str, Fields]:
        """The request's method, and the fields that the head depends on."""
        return self.request.method, self._fields

    def _check_uncommitted(self, what: str) -> None:
        if self._state is not State.STARTED:
            raise AlreadyCommitted(what)

    @property
    def content_type(self) -> str:
        """The Content-Type as it stands now."""
        pairs: Iterable[tuple[str, str]] = self._pairs if self._headers is None else self._headers
        return value_of(pairs, "content-type") or DEFAULT_CONTENT_TYPE

    # -- what has happened

    @property
    def committed(self) -> bool:
        """Whether the head is fixed: it has left, or is on its way."""
        return self._state is not State.STARTED

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written: closed, aborted, or ended by the server."""
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

    def _fix_head(self) -> None:
        """Commit: from here on status and headers are what will be sent."""
        self._state = after(self._state, "commit")
        headers = self._headers
        if headers is not None:
            headers.freeze()
        response = self.response
        length = response.content_length if response is not None else None
        self._body = body = frame(
            self.request,
            self._status,
            content_length=length,
            endless=response is not None and response.endless,
            http10=self.options.http10,
        )
        if length is not None and body is Body.STREAM:
            self._limit = length
        pairs = self._pairs if headers is None else list(headers)
        if type(pairs) is Shared and body is Body.STREAM and length is None and not self.options.compress:
            self._head = (self._status, pairs.finished_with(self.options))
            return
        default_type = None if self.foreign else DEFAULT_CONTENT_TYPE
        coding = None
        if self.options.compress and length is None:  # a declared length is that of the bytes as they are
            coding = self._choose_coding(pairs, self._status, body, default_type)
        pairs = finished(
            pairs,
            self.options,
            self._status,
            body,
            content_length=length,
            default_type=default_type,
            foreign=self.foreign,
            coding=coding,
            not_modified=self._not_modified,
        )
        self._head = (self._status, pairs)

    def _choose_coding(
        self, pairs: Pairs, status: int, body: Body, default_type: str | None = None
    ) -> str | None:
        """What the body is to be compressed with, for its head; see `compression.chosen`."""
        accept, endless = self._asked()[1].accept_encoding, self._is_endless(pairs)
        coding = chosen(
            self.options.compress, pairs, status, accept, endless=endless, default_type=default_type
        )
        if coding != IDENTITY and (body is Body.STREAM or body is Body.WHOLE):
            self._coding = coding
        return coding

    def _is_endless(self, pairs: Pairs) -> bool:
        """Whether no end can be expected, also of a type that was set after it was described."""
        response = self.response
        if response is not None and (response.endless or response.is_file):
            return response.endless
        return is_streaming(pairs)

    def _new_coder(self) -> Coder:
        """What compresses the body, whose head is fixed and says so."""
        assert self._head is not None
        assert self._coding is not None
        return coder_for(self._coding, endless=self._is_endless(self._head[1]))

    def _coder_if_any(self) -> Coder | None:
        """The same; None for a body that is sent as it is."""
        return None if self._coding is None else self._new_coder()

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
        if (self._state in _OVER or self._outcome is not None) and self._connected:
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
