"""The head of one response: as it was described, as it is changed, and as it leaves.

Rule: nothing here sends, waits or logs, and nothing here knows the body's journey. What may still
change stands in `status` and `headers`; `_fix_head` makes of it what leaves, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie

from ..errors import AlreadyCommitted, HeaderError
from ..options import Options
from ..syntax import check_cookie, check_status
from .commit import State, after
from .compression import Coder, chosen, coder_for
from .conditional import dated, is_fresh, quoted
from .framing import HTTP11, Body, Request, frame
from .headers import (
    DEFAULT_CONTENT_TYPE,
    IDENTITY,
    Headers,
    Items,
    Pairs,
    finished,
    is_streaming,
    value_of,
    without_hop_by_hop,
)
from .request import NO_FIELDS, Fields
from .shared import Shared

if TYPE_CHECKING:
    from .response import StreamingResponse


class Headed:
    """What has a head; each attribute has its default here, so that it costs an open stream nothing."""

    response: StreamingResponse | None = None  # the description, where there is one
    options: Options = Options()
    request: Request = HTTP11
    foreign: bool = False  # made by other code, passing through

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

    @property
    def committed(self) -> bool:
        """Whether the head is fixed: it has left, or is on its way."""
        return self._state is not State.STARTED

    @property
    def status(self) -> int:
        """The status code; setting it raises `HeaderError`, and after the commit `AlreadyCommitted`."""
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        self._check_uncommitted("change the status")
        self._status = check_status(status)
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

    @headers.setter
    def headers(self, headers: Items) -> None:
        mine = self.headers
        if headers is mine:  # `stream.headers |= more` has changed them, and now puts them back
            mine.check_open()
            return
        mine[:] = list(Headers(headers))

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

    # -- the commit

    def _fix_head(self) -> None:
        """Commit: from here on status and headers are what will be sent."""
        self._state = after(self._state, "commit")
        headers, pairs, response = self._headers, self._pairs, self.response
        length = response.content_length if response is not None else None
        shared: Shared | None = None
        if type(pairs) is Shared and headers is None and length is None and not self.options.compress:
            shared = pairs
            if self.request is HTTP11 and self._status == 200:  # as almost all are: `frame` says `STREAM`
                self._head = (200, shared.finished_with(self.options))
                return
        if headers is not None:
            headers.freeze()
        self._body = body = frame(
            self.request,
            self._status,
            content_length=length,
            endless=response is not None and response.endless,
            http10=self.options.http10,
        )
        if length is not None and body is Body.STREAM:
            self._limit = length
        if shared is not None and body is Body.STREAM:
            self._head = (self._status, shared.finished_with(self.options))
            return
        if headers is not None:
            pairs = list(headers)
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
