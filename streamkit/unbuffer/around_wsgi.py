"""A WSGI layer that holds streams, between two halves that hand streams past it.

    Outside( layer( Inside(app) ) )

`Inside` takes a stream off and gives the layer a placeholder; `Outside` puts it back. Layers further
out and further in treat the stream as ever; what is no stream goes through the layer untouched.

Rule: bodies are handed on as the objects they are, and `start_response` of the server is called once.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..core.headers import Pairs
from ..syntax import status_line
from ..types import Environ, ExcInfo, StartResponse, Write, WSGIApp, WSGIHeaders
from .heads import is_computed, is_stream, merged, placeholder

LOG = logging.getLogger("streamkit")

_numbers = itertools.count()


class Caught(NamedTuple):
    """A stream that was taken off, and the placeholder that the layer got for it."""

    status: str
    headers: Pairs
    body: Any
    given: int
    sent: Pairs


class InsideWSGI:
    """The inner half: the app, whose streams the layer does not see."""

    def __init__(self, app: WSGIApp) -> None:
        self.app = app
        self.key = f"streamkit.unbuffer.{next(_numbers)}"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        caught: list[Caught] | None = environ.get(self.key)
        if caught is None:
            return self.app(environ, start_response)
        head = _Head(start_response)
        body = self.app(environ, head)
        if head.passed:  # it writes by itself
            return body
        if head.answer is None:  # a generator function: its head comes with its first chunk
            body = _Begun(body)
        if head.answer is None or head.answer[2] is not None:
            head.pass_on()
            return body
        status, headers, _ = head.answer
        code = int(status[:3])
        if not is_stream(headers, body, environ) or code in (204, 304):
            head.pass_on()
            return body
        given, sent = placeholder(code, headers)
        caught.append(Caught(status, headers, body, given, sent))
        start_response(status if given == code else status_line(given), list(sent))
        return []


class OutsideWSGI:
    """The outer half: the layer, called with streams taken off and put back."""

    def __init__(self, wrapped: WSGIApp, inside: InsideWSGI) -> None:
        self.wrapped = wrapped
        self._key = inside.key

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        caught: list[Caught] = []
        before = environ.get(self._key)
        environ[self._key] = caught
        head = _Head(start_response)
        body: Any = ()
        try:
            body = self.wrapped(environ, head)
            if head.answer is None and not head.passed:
                body = _Begun(body)
        except BaseException as error:
            if not caught or not isinstance(error, Exception):
                for lost in caught:
                    _close(lost.body)
                raise
            _failed(self.wrapped, error)
            head.answer = None
        finally:
            if before is None:
                environ.pop(self._key, None)
            else:
                environ[self._key] = before
        if not caught or head.passed:
            for lost in caught:
                _close(lost.body)
            head.pass_on()
            return body  # type: ignore[no-any-return]
        for lost in caught[:-1]:  # the layer has called the app more than once
            _close(lost.body)
        return self._restored(caught[-1], head, body, start_response)

    def _restored(
        self, stream: Caught, head: _Head, body: Any, start_response: StartResponse
    ) -> Iterable[bytes]:
        """The stream, with what the layer has added to its head; or the layer's refusal."""
        status, headers = stream.status, stream.headers
        if head.answer is not None:
            code = int(head.answer[0][:3])
            if not is_computed(code, stream.given, headers):
                _close(stream.body)
                head.pass_on()
                return body  # type: ignore[no-any-return]
            headers = merged(headers, stream.sent, head.answer[1], code)
        try:
            for _ in body:  # of the placeholder: it is empty, or made of nothing
                pass
        except Exception as error:
            _failed(self.wrapped, error)
        try:
            start_response(status, headers)
            return _Restored(stream.body, body)
        except BaseException:
            _close(stream.body)
            _close(body)
            raise


def _failed(layer: Any, error: Exception) -> None:
    LOG.warning(
        "%r failed on the empty body that stands for a stream; the stream goes on", layer, exc_info=error
    )


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


class _Head:
    """A `start_response` that keeps what it is told until it is known whose head it is."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._write: Write | None = None
        self.answer: tuple[str, WSGIHeaders, ExcInfo | None] | None = None
        self.passed = False

    def __call__(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None = None) -> Write:
        self.answer = (status, headers, exc_info)
        if self.passed:
            return self._start(status, headers, exc_info)
        return self.write

    def _start(self, status: str, headers: WSGIHeaders, exc_info: ExcInfo | None) -> Write:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def pass_on(self) -> None:
        """Say it to whoever is outside, now and from now on."""
        if not self.passed:
            self.passed = True
            if self.answer is not None:
                self._write = self._start(*self.answer)

    def write(self, chunk: bytes) -> None:
        """PEP 3333's `write`: whoever uses it wants its head sent."""
        self.pass_on()
        assert self._write is not None
        self._write(chunk)


class _Begun:
    """A body whose first chunk was asked for, so that its head is known."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._iterator = iter(body)
        self._first: list[bytes] = []
        try:
            self._first = list(itertools.islice(self._iterator, 1))
        except BaseException:
            _close(body)
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._first.pop() if self._first else next(self._iterator)

    def close(self) -> None:
        _close(self._body)


class _Restored:
    """The stream's body; the layer's own, long empty, is closed after it."""

    def __init__(self, body: Any, of_layer: Any) -> None:
        self._body, self._of_layer = body, of_layer
        self._iterator: Iterator[bytes] = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            _close(self._of_layer)
