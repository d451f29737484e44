"""Everything that streamkit raises.

    StreamKitError
    ├── OptionsError            (ValueError)       options that do not hold, all in one message
    ├── HeaderError             (ValueError)       a status, header or cookie that may not be sent
    ├── InvalidTimeout          (ValueError)       a wait of less than nothing
    ├── ProducerError           (TypeError)        what was given makes no chunks
    ├── UnsupportedData         (TypeError)        what was written is neither text nor bytes
    ├── EventFieldError         (ValueError)       a field of an event that cannot be sent
    ├── EventTooLong            (ValueError)       an event to be decoded that passes the limit
    ├── NotAnApplication        (TypeError)        what was wrapped is neither WSGI nor ASGI
    ├── ProtocolViolation                          the application broke PEP 3333 or the ASGI spec
    ├── EngineUnavailable                          nothing here can carry the stream that way
    └── StreamError                                one response stream cannot do that now
        ├── AlreadyCommitted                       the head has left, it cannot change
        ├── AlreadyServed                          a one-shot body was asked for twice
        ├── StreamClosed        (ValueError)       written after the end, as with any closed file
        │   └── StreamEnded                        by a limit, or at shutdown
        ├── StreamAborted                          cut short by `abort`
        ├── ClientDisconnected  (BrokenPipeError)  nobody is there to read
        ├── BodyNotAllowed                         the status has no body (RFC 9110)
        ├── BodyTooLong, BodyTooShort              against the declared Content-Length
        ├── BufferLimitExceeded                    a whole HTTP/1.0 body over `http10_limit`
        ├── TooManyStreams                         `max_streams` are open in this process
        └── ApplicationFailed                      the application answered 4xx or 5xx after its commit

Rule: facts stand in attributes, the text in `__str__`; a message says what was
wanted and what came.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Literal

__all__ = [
    "AlreadyCommitted",
    "AlreadyServed",
    "ApplicationFailed",
    "BodyNotAllowed",
    "BodyTooLong",
    "BodyTooShort",
    "BufferLimitExceeded",
    "ClientDisconnected",
    "EngineUnavailable",
    "EventFieldError",
    "EventTooLong",
    "HeaderError",
    "InvalidTimeout",
    "NotAnApplication",
    "OptionsError",
    "ProducerError",
    "ProtocolViolation",
    "StreamAborted",
    "StreamClosed",
    "StreamEnded",
    "StreamError",
    "StreamKitError",
    "TooManyStreams",
    "UnsupportedData",
]


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, of which a long one is cut to 60 characters."""
    try:
        text = repr(value)
    except Exception:  # its own affair: a message is still wanted
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


class StreamKitError(Exception):
    """The root: whatever streamkit raises of its own is one of these."""


class OptionsError(StreamKitError, ValueError):
    """One or more options do not hold; `faults` has a sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(tuple(faults))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "; ".join(self.faults)


class HeaderError(StreamKitError, ValueError):
    """A status, a header or a cookie that may not be sent."""


class InvalidTimeout(StreamKitError, ValueError):
    """A time-out that is neither None nor a number of seconds from 0 up."""

    def __init__(self, timeout: object) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"wanted a timeout in seconds from 0 up, or None to wait without end, but got {self.timeout!r}"


class ProducerError(StreamKitError, TypeError):
    """What was given as a producer makes no chunks of text or bytes."""


class UnsupportedData(StreamKitError, TypeError):
    """What was written is neither text nor bytes."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return (
            "a stream takes str, bytes, bytearray or memoryview, "
            f"but got {type(self.value).__name__}: {shown(self.value)} (`stream << value` writes str(value))"
        )


class EventFieldError(StreamKitError, ValueError):
    """A `field` of an event that cannot be sent: what was `wanted`, and the `value` that came."""

    def __init__(self, field: str, wanted: str, value: object) -> None:
        super().__init__(field, wanted, value)
        self.field, self.wanted, self.value = field, wanted, value

    def __str__(self) -> str:
        return f"{self.field}: wanted {self.wanted}, got {type(self.value).__name__}: {shown(self.value)}"


class EventTooLong(StreamKitError, ValueError):
    """An event to be decoded passed `limit` bytes; `events` are those that came whole just before it."""

    def __init__(self, limit: int, events: Sequence[Any]) -> None:
        super().__init__(limit, events)
        self.limit, self.events = limit, events

    def __str__(self) -> str:
        return f"an event passes the {self.limit} bytes that may be held for one"


class NotAnApplication(StreamKitError, TypeError):
    """What was to be wrapped is neither a WSGI nor an ASGI application."""


class ProtocolViolation(StreamKitError):
    """The application broke a rule of its interface (PEP 3333 or the ASGI specification)."""


class EngineUnavailable(StreamKitError):
    """The engine that was asked for, or any engine at all, cannot carry this stream here."""


class StreamError(StreamKitError):
    """A response stream cannot do what it was asked to do now."""


class AlreadyCommitted(StreamError):
    """Status, headers and cookies cannot change once the head has left; `what` was tried."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"cannot {self.what}: the response is committed, its status and headers have been sent"


class AlreadyServed(StreamError):
    """A response made from an iterator was served a second time; its chunks are gone."""


class StreamClosed(StreamError, ValueError):
    """The stream was closed before this write."""


class StreamEnded(StreamClosed):
    """The stream was ended from outside its producer, for `outcome` and, in words, `why`."""

    def __init__(self, outcome: Literal["timed_out", "shut_down"], why: str) -> None:
        super().__init__(outcome, why)
        self.outcome = outcome
        self.why = why

    def __str__(self) -> str:
        return f"the stream was ended: {self.why}"


class StreamAborted(StreamError):
    """The stream was cut short by `abort(reason)`; `reason` is what that was given, or None."""

    def __init__(self, reason: object = None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return "the stream was aborted" + (f": {self.reason}" if self.reason is not None else "")


class ClientDisconnected(StreamError, BrokenPipeError):
    """The client has left. Nobody's mistake, and never logged as an error.

    Its `errno` is EPIPE, by which servers know a client that has left, and keep silent too.
    """

    def __init__(self, code: int = errno.EPIPE, text: str = "the client has disconnected") -> None:
        super().__init__(code, text)

    def __str__(self) -> str:
        return "the client has disconnected"


class BodyNotAllowed(StreamError):
    """Responses with this `status` have no body (RFC 9110, sections 6.4.1 and 15)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"a response with status {self.status} has no body, so nothing may be written to it"


class BodyTooLong(StreamError):
    """More bytes than the declared Content-Length; `sent` counts those that were refused too."""

    def __init__(self, declared: int, sent: int) -> None:
        super().__init__(declared, sent)
        self.declared, self.sent = declared, sent

    def __str__(self) -> str:
        return f"the body would have {self.sent} bytes, but Content-Length says {self.declared}"


class BodyTooShort(StreamError):
    """The body ended with `sent` bytes, before the `declared` Content-Length."""

    def __init__(self, declared: int, sent: int) -> None:
        super().__init__(declared, sent)
        self.declared, self.sent = declared, sent

    def __str__(self) -> str:
        return f"the body has {self.sent} bytes, but Content-Length says {self.declared}"


class BufferLimitExceeded(StreamError):
    """A body that had to be held whole for an HTTP/1.0 client passed `http10_limit`; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the body passes the {self.limit} bytes that `http10_limit` lets be held for an HTTP/1.0 client"
        )


class TooManyStreams(StreamError):
    """`max_streams` streams (the `limit`) are open in this process: the client is to come again later."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} streams are open already, which is all that `max_streams` allows"


class ApplicationFailed(StreamError):
    """The application answered with an error's `status`, 4xx or 5xx, after it had committed its stream."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return f"the application answered {self.status} after its response stream was committed"
