"""A WSGI application, served on one thread for each request, as PEP 3333 has it.

Rule: the application is called, iterated and closed on that thread, on every path. The iterable
is advanced only when a chunk is wanted, and `write()` returns only when another one is.
"""

from __future__ import annotations

import re
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from ..errors import HeaderError
from ..syntax import check_name, check_value
from ..types import Environ, ExcInfo, WSGIHeaders
from ._exchange import Exchange, Head
from ._meeting import Deadline, shown
from ._request import Request

_STATUS = re.compile(r"[1-9]\d\d [^\r\n\0]*").fullmatch
_FOREVER = Deadline(None)
_JOIN_SECONDS = 1.0  # for a thread that has nothing left to execute


class WSGIExchange(Exchange):
    """One request to a WSGI application."""

    def __init__(self, app: Callable[..., Any], request: Request, environ: Environ, read_ahead: int) -> None:
        super().__init__(request, read_ahead)
        self._app = app
        self._environ = environ
        # The application sees the context variables of the test, and changes its own copies.
        self._thread = threading.Thread(
            target=copy_context().run,
            args=(self._serve,),
            name=f"streamkit-testing {request.method} {request.path}",
            daemon=True,
        )

    def begin(self) -> None:
        """Call the application."""
        self._thread.start()

    def join(self) -> None:
        self._thread.join(_JOIN_SECONDS)

    def where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return shown(traceback.extract_stack(frame)) if frame is not None else ""

    def _serve(self) -> None:
        body: Any = None
        try:
            body = self._app(self._environ, self._start_response)
            self._send_each(body)
        except BaseException as error:
            self.fail(error)
        try:
            # "must call that method upon completion of the current request, whether the request
            # was completed normally, or terminated early" -- PEP 3333
            close = getattr(body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self.fail(error)
        del body
        self.end()

    def _send_each(self, body: Any) -> None:
        if isinstance(body, (str, bytes)) or not hasattr(body, "__iter__"):
            raise self.violation(f"wanted an iterable of bytes from the application (PEP 3333), got {body!r}")
        chunks = iter(body)
        while self.until(self.may_go_on, _FOREVER) and not self.left:
            try:
                chunk = next(chunks)
            except StopIteration:
                self._check_started("the body ended")
                self.finish()
                return
            self._check_chunk(chunk)
            self._check_started("a chunk came")
            self.arrive(chunk)
            # Most servers send the head with the first chunk also where that is empty. PEP 3333 wants a
            # non-empty one: so it may still be replaced, unless the test looks at it first.
            self.flush()

    def _start_response(
        self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        try:
            if exc_info is not None and self.head_left:
                # "if exc_info is provided, and the HTTP headers have already been sent, start_response
                # must raise an error, and should re-raise using the exc_info tuple" -- PEP 3333
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self.head is not None:
                raise self.violation("start_response was called a second time without exc_info (PEP 3333)")
            self.start(self._checked(status, headers))
        finally:
            exc_info = None  # "avoid creating a circular reference" -- PEP 3333
        return self._write

    def _checked(self, status: Any, headers: Any) -> Head:
        if not isinstance(status, str) or not _STATUS(status):
            raise self.violation(f"wanted a status such as '200 OK' (PEP 3333), got {status!r}")
        # "the response_headers argument is a list of (header_name, header_value) tuples" -- PEP 3333
        if type(headers) is not list:
            raise self.violation(f"wanted the headers as a list (PEP 3333), got {headers!r}")
        for field in headers:
            if type(field) is not tuple or len(field) != 2:
                raise self.violation(f"wanted each header as a tuple of name and value, got {field!r}")
            try:
                check_value(check_name(field[0]), field[1])
            except HeaderError as error:
                raise self.violation(str(error)) from None
        return Head(int(status[:3]), list(headers))

    def _check_chunk(self, chunk: Any) -> None:
        if type(chunk) is not bytes:
            raise self.violation(f"wanted each chunk as bytes (PEP 3333), got {chunk!r}")

    def _check_started(self, what: str) -> None:
        if self.head is None:
            raise self.violation(f"{what} before start_response was called (PEP 3333)")

    def _write(self, chunk: bytes) -> None:
        """PEP 3333's imperative way to send."""
        self._check_chunk(chunk)
        if not self.left:
            self.arrive(chunk)
            self.flush()
            if chunk:
                self.until(self.may_go_on, _FOREVER)
        if self.left:
            raise self.gone
