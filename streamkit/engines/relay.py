"""An application's own messages on their way to the server.

Rule: what does not stream goes on as it is, looked at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from ..core.framing import Body
from ..core.headers import STREAMING_TYPES, media_type_of
from ..core.marking import MARK, USED, may_be_marked, unmarked_fields
from ..errors import ClientDisconnected, ProtocolViolation
from ..syntax import check_status
from ..types import Message
from .cared import no_headers
from .compiled import REQUESTS
from .noted import Noted
from .passing import PLAIN_TYPES, both, nothing
from .phases import CARED, CARRIED, CARRYING, DROPPING, HELD, NEW, NOTED, ORDER, OVER, OWN, PASSING
from .pull import TURNS

_FILES = ("http.response.pathsend", "http.response.zerocopysend")
_MARK = MARK.encode()
_STRANGERS = frozenset({b"etag", b"content-length"})  # what layers add, to streams too


class Relay(Noted):
    """The application's `receive` and `send`, and what becomes of its messages."""

    __slots__ = ()

    def __call__(self) -> Awaitable[Message]:
        """ASGI's `receive` for the application."""
        return self.inbox.receive()

    def _send_in_full(self, message: Message) -> Awaitable[Any]:
        """ASGI's `send` for the application; the head waits until it is known whether a stream follows."""
        try:
            kind = message["type"]
        except (LookupError, TypeError):
            raise ProtocolViolation(
                f"wanted an ASGI message, a dict with its type, got {message!r}"
            ) from None
        phase = self.phase
        if phase == PASSING:
            if kind == "http.response.body":
                if "more_body" not in message or not message["more_body"]:
                    self.phase = OVER
                    self.scope = None  # it holds the stream, and must not be held by it
                send = self.server_send
                return send(message)
        elif phase == CARED:
            if kind == "http.response.body":
                if self._direct and self._connected and message.get("more_body"):
                    chunk = message.get("body")
                    if type(chunk) is bytes and chunk:
                        return self._write_through(chunk)
                return self._send_foreign(message)
        elif phase == NEW:
            if kind == "http.response.start":
                type_at, content_type, length_at, length = self.middleware.plain_head
                try:
                    headers = message["headers"]
                    is_plain = headers[type_at] == content_type and headers[length_at][0] == length
                except (LookupError, TypeError):
                    is_plain = False
                if is_plain and not self.touched and (len(headers) == 2 or _says_no_more(headers, type_at)):
                    self.phase = PASSING
                    send = self.server_send
                    return send(message)
                return self._begin(message)
        elif phase == HELD and kind == "http.response.body" and not message.get("more_body"):
            if self.touched:
                return self._both_noted(message)
            self.phase = OVER
            self.scope = None
            return both(self.server_send, self._start, message)
        return self._send_slowly(kind, message)

    if REQUESTS is None:
        send = _send_in_full

    def _begin(self, message: Message, marks: bool = True) -> Awaitable[None]:
        """Look at a head: it goes on, it waits for what follows it, or it is a stream's."""
        headers = message.get("headers", ())
        if not isinstance(headers, (list, tuple)):  # "an iterable": one that can be gone through once
            headers = _listed(headers)
            message = {**message, "headers": headers}
        typed = sized = None
        for pair in headers:
            name = pair[0].lower()  # Django's are not in lower case
            if name == b"content-length":
                sized = pair
            elif name == b"content-type":
                typed = pair if typed is None else typed
            elif name == b"content-encoding" and marks and _MARK in pair[1]:
                return self._begin({**message, "headers": unmarked_fields(headers)}, False)
        if typed is not None and typed[1] not in PLAIN_TYPES and _is_streaming(typed[1]):
            return self._begin_foreign(_kept(message, headers))
        if sized is None:
            self._start = message
            self.phase = HELD
            return nothing()
        if typed is not None:
            # Copies: an application may keep its pairs, and change them.
            kept = type(typed)(map(bytes, typed)) if type(typed) in (tuple, list) else None
            at, length_at = headers.index(typed), headers.index(sized)
            self.middleware.plain_head = (at, kept, length_at, bytes(sized[0]))
        if self.touched:
            self._note(message)
            return self._send_noted(message)
        self.phase = PASSING
        return self.server_send(message)

    def _both_noted(self, body: Message) -> Awaitable[None]:
        assert self._start is not None
        self._note(self._start)
        return self._send_noted(self._start, body)

    def _send_slowly(self, kind: str, message: Message) -> Awaitable[Any]:
        if kind not in ("http.response.start", "http.response.body"):
            if self.phase == HELD and kind in _FILES:  # the server sends this body in a way of its own
                if self.touched:
                    return self._both_noted(message)
                self.phase = PASSING
                return both(self.server_send, self._start, message)
            if self.phase == NOTED and kind in _FILES:
                return self._send_noted(message)
            return self.server_send(message)  # extensions go on untouched
        if self.phase == NOTED and kind == "http.response.body":
            return self._send_noted(message)
        if self.phase == CARRYING and kind == "http.response.body":
            return self._send_carried(message)
        if self.phase == CARRIED and kind == "http.response.start":
            if self._carrier() is None:  # another answer takes its place
                self._take_back()
                self.phase = NEW
                return self._send_in_full(message)
            self.phase = CARRYING
            return self.server_send(self._without_strangers(message))
        if self.phase == OWN:  # written by our own stream: theirs is dropped
            if kind == "http.response.start":
                self._app_status = check_status(message.get("status"))
            return nothing()
        if kind == "http.response.body" and self.phase == HELD:
            return self._send_foreign(message)
        if kind == "http.response.body" and self.phase == DROPPING:
            if not message.get("more_body"):
                self.phase = OVER
                return self._finish("finish")
            self._turns += 1
            if self._turns % TURNS:
                return nothing()
            self._connected = False  # an application that does not listen would go on for ever
            raise ClientDisconnected
        raise ProtocolViolation(
            f"ASGI messages out of order: wanted {ORDER[self.phase]} next, got {kind} (ASGI, HTTP protocol)"
        )

    def _send_carried(self, message: Message) -> Awaitable[None]:
        assert self.carried is not None
        if not message.get("more_body"):
            if self.carried._cut and not message.get("body"):
                return nothing()  # a layer that ends what has failed cleanly
            self.phase = OVER
            self.scope = None
        return self.server_send(message)

    def _without_strangers(self, message: Message) -> Message:
        """The head of a description, without the ETag and Content-Length that layers have put on it."""
        assert self.carried is not None
        ours = self.carried._head
        if ours is None or message["status"] != ours[0]:
            return message  # a layer has put another response in its place
        headers = list(message["headers"])
        strangers = {bytes(name).lower() for name, _ in headers} & _STRANGERS
        if strangers:
            strangers -= {name.lower().encode("latin-1") for name, _ in ours[1]}
            if self.carried._body is Body.WHOLE:
                strangers.discard(b"content-length")
            headers = [field for field in headers if bytes(field[0]).lower() not in strangers]
        return {**message, "headers": headers}


def _kept(message: Message, headers: Any) -> Message:
    """A head that is to wait: its application may change it, once it has sent it."""
    kept = {**message}
    if type(headers) is list:
        kept["headers"] = headers.copy()
    return kept


def _says_no_more(headers: Any, type_at: int) -> bool:
    """Whether neither a mark nor an earlier Content-Type, which would be the one that counts, is there."""
    if type_at:
        for pair in headers[:type_at]:
            if len(pair[0]) == 12 and pair[0].lower() == b"content-type":
                return False
    return not USED or not may_be_marked(headers)


def _listed(headers: Any) -> list[Any]:
    if isinstance(headers, Mapping) or not isinstance(headers, Iterable):
        raise no_headers(headers)
    return list(headers)


def _is_streaming(content_type: Any) -> bool:
    if not isinstance(content_type, bytes):
        return False  # the server, or the stream that this turns out to be, refuses it
    return media_type_of(content_type.decode("latin-1")) in STREAMING_TYPES
