"""A stream that the application has made in its own way.

Rule: its head is the application's, made fit for a stream; its iterable is pulled as it was returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.commit import after
from ..core.framing import Request, frame, has_body
from ..core.headers import Pairs, is_streaming, value_of
from ..core.request import fields_of
from ..core.response import StreamingResponse
from ..engines.answering import Answer
from ..engines.bodies import discard, head_only, reject, started
from ..engines.line import line_of
from ..engines.logs import WSGI_LOG
from ..engines.pull import UNBOUNDED, Pull
from ..engines.thread import ThreadStream
from ..engines.write import RequestStream
from ..errors import ProtocolViolation
from ..types import Environ, WSGIHeaders

_CODE = re.compile(r"[1-9][0-9]{2}( |$)").match


class _ForeignResponse(StreamingResponse):
    """What another framework streams, as a description of ours."""

    def __init__(self, body: Iterable[bytes]) -> None:
        super().__init__(body, headers=None, content_type=None)


class _ForeignStream(ThreadStream):
    """Its head is the application's answer, which may come as late as the first chunk."""

    foreign = True
    request_stream: RequestStream
    _answer: tuple[str, WSGIHeaders] | None = None  # as it was taken last

    def take_answer(self) -> None:
        """The head as the application has given it, once it has: hooks of the commit may change it."""
        answer = self.request_stream.answer
        if answer is None or answer[:2] == self._answer:
            return
        check_answer(answer)
        self._answer = answer[:2]
        self.request_stream._exc_info = None  # its frames hold the environ, which holds that
        self._status = int(answer[0][:3])
        self._pairs = answer[1]
        if self.response is not None:
            self.response.describe_head(answer[1])

    def commit(self) -> None:
        self.take_answer()
        super().commit()

    def _fix_head(self) -> None:
        self.take_answer()
        if self._answer is None:
            raise ProtocolViolation(
                "the application returned its first chunk without calling start_response (PEP 3333)"
            )
        pairs = self._pairs if self._headers is None else list(self._headers)
        if value_of(pairs, "content-length") is None or is_streaming(pairs):
            super()._fix_head()
        else:  # an ordinary response whose head came late
            self._state = after(self._state, "commit")
            if self._headers is not None:
                self._headers.freeze()
            self._body = frame(self.request, self._status, content_length=0)
            self._head = (self._status, pairs)

    def _check_open(self, size: int) -> None:
        """The application was not told what it may send: what it may not is dropped."""


def check_answer(answer: Answer) -> None:
    """Refuse what cannot be read as a head, before anything is sent."""
    status, headers, _ = answer
    if not isinstance(status, str) or not _CODE(status):
        raise ProtocolViolation(
            f"wanted a status such as '200 OK' in start_response (PEP 3333), got {status!r}"
        )
    # Werkzeug's headers are no list, and good enough for servers that only go through them.
    is_lasting = type(headers) is list or (
        isinstance(headers, Iterable) and not isinstance(headers, (Iterator, Mapping, str, bytes))
    )
    if not is_lasting or not all(map(_is_field, headers)):
        raise ProtocolViolation(
            f"wanted a list of (name, value) pairs in start_response (PEP 3333), got {headers!r}"
        )


def _is_field(pair: Any) -> bool:
    return isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)


def is_iterable(body: Any) -> bool:
    """Whether a server can go through this body; by indexes too, as PEP 3333's own `FileWrapper`."""
    by = type(body)
    return (hasattr(by, "__iter__") or hasattr(by, "__getitem__")) and not isinstance(body, (str, bytes))


def is_server_file(environ: Environ, body: Any) -> bool:
    """Whether this is PEP 3333's `wsgi.file_wrapper`, which the server sends in a way of its own."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Indexed:
    """A body that is gone through by indexes."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.close = getattr(body, "close", _nothing)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


def _nothing() -> None:
    pass


def cared_for(outer: RequestStream, body: Any, environ: Environ) -> Iterable[bytes]:
    """A stream that the application made in its own way."""
    options, request = outer.options, Request.of_environ(environ)
    response = _ForeignResponse(body if hasattr(type(body), "__iter__") else _Indexed(body))
    stream = _ForeignStream(options, request, WSGI_LOG, response, UNBOUNDED)
    stream.request_stream = outer
    if options.compress:
        stream._fields = fields_of(environ, encoding=True)
    outer.passing = stream
    outer.hand_hooks_to(stream)
    if outer.outer is not None:
        outer.outer.is_carried_by(stream)
    stream.take_answer()
    reader = Pull(stream, None)

    def start_response(status: str, headers: Pairs, exc_info: Any = None) -> Any:
        said = outer.answer[0] if outer.answer is not None else status
        return outer.start_response(said if said[:3] == status[:3] else status, headers)

    if request.version < (1, 1) and options.http10 == "reject":
        discard(stream, response)
        return reject(outer.start_response, request)
    if outer.answer is not None and (request.method == "HEAD" or not has_body(stream._status)):
        return head_only(stream, response, start_response)
    stream._line = line_of(environ)
    return started(stream, reader, start_response, None)
