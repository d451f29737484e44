"""What every request costs, whether it streams or not: its stream's first fields, and short cuts.

`_passing.c` is this file compiled, with short cuts for the commonest cases: an answer's `start` and
`is_like`, and the `send` of messages. Whatever is not that common they leave to the Python that
decides, to `_start_in_full` and `_send_in_full`, which are `start` and `send` where nothing is compiled.

Rule: nothing but speed depends on which of the two is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..core.marking import USED, may_be_marked
from ..core.request import KEY
from ..types import Environ, Message, Receive, Scope, Send, StartResponse, WSGIHeaders
from .compiled import REQUESTS
from .phases import HELD, NEW, OVER, PASSING

# The most common types of what is no stream; of any other it is asked what it means.
PLAIN_TYPES = frozenset(
    {
        b"text/html; charset=utf-8", b"text/html", b"application/json", b"text/plain; charset=utf-8",
        b"text/plain", b"text/css; charset=utf-8", b"text/javascript; charset=utf-8", b"image/png",
        b"image/jpeg", b"image/svg+xml", b"application/octet-stream",
    }
)  # fmt: skip


async def nothing() -> None:
    """A message that goes no further now: a coroutine, as from a server's own `send`."""


async def both(send: Send, start: Message | None, body: Message) -> None:
    """A head that was held, and the body that it waited for."""
    assert start is not None
    await send(start)
    await send(body)


if REQUESTS is not None:
    REQUESTS.share(KEY, (NEW, HELD, PASSING, OVER), USED, PLAIN_TYPES, nothing, both)


class PassingAnswer:
    """What there is of a WSGI request's stream before anything touches it."""

    # What every request needs is in slots: on CPython 3.11 a default on the class makes an
    # attribute five times as slow.
    __slots__ = ("app_headers", "app_status", "environ", "options", "plain", "start_response")

    outer: Any  # the stream of a wrap around this one
    app_status: str | None  # what the application gave to start_response
    app_headers: WSGIHeaders  # the same, once there is a status
    plain: bool  # nothing has touched it: the application answers by itself
    environ: Environ | None
    options: Any
    start_response: StartResponse  # the server's

    def is_like(self, body: object, plain_type: object, whole: object) -> bool:
        """Whether this answer is at a glance like the last one that was no stream's.

        `plain_type` is its first field, `whole` what there was beside a body that was no list.
        """
        if self.app_status is None or not self.plain or type(body) is not list:
            return False
        headers = self.app_headers
        if type(headers) is not list or not headers or headers[0] != plain_type:
            return False
        try:
            return not USED or not may_be_marked(headers)
        except (LookupError, TypeError):
            return False  # no list of pairs: refused when it is looked at in full


class PassingMessages:
    """What there is of an ASGI request's stream before anything touches it."""

    __slots__ = ("_start", "middleware", "phase", "scope", "server_receive", "server_send", "touched")

    outer: Any  # the stream of a wrap around this one
    middleware: Any
    phase: int
    touched: bool  # the end has to be told to somebody
    scope: Scope | None
    server_receive: Receive
    server_send: Send
    _start: Message | None  # the application's start, until it is known what follows


AnswerKind = TypeVar("AnswerKind", bound=PassingAnswer)
MessagesKind = TypeVar("MessagesKind", bound=PassingMessages)


def begin_answer(
    kind: type[AnswerKind], options: Any, environ: Environ, start_response: StartResponse
) -> AnswerKind:
    """The stream of a WSGI request, in its environ from here on."""
    stream = kind()
    stream.options = options
    stream.environ = environ
    stream.start_response = start_response
    stream.app_status = None
    stream.plain = True
    if KEY in environ:
        stream.outer = environ[KEY]
    environ[KEY] = stream
    return stream


def begin_messages(
    kind: type[MessagesKind], middleware: Any, scope: Scope, receive: Receive, send: Send
) -> MessagesKind:
    """The stream of an ASGI request, in its scope from here on."""
    stream = kind()
    stream.middleware = middleware
    stream.scope = scope
    stream.server_receive = receive
    stream.server_send = send
    stream.phase = NEW
    stream.touched = False
    stream._start = None
    if KEY in scope:
        stream.outer = scope[KEY]
    scope[KEY] = stream
    return stream


if not TYPE_CHECKING and REQUESTS is not None:
    PassingAnswer, PassingMessages = REQUESTS.PassingAnswer, REQUESTS.PassingMessages
    begin_answer, begin_messages = REQUESTS.begin_answer, REQUESTS.begin_messages
