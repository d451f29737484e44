"""What an application has answered: the iterable that the server gets in its place.

Rule: what is no stream goes on as it was returned; an end is told once, to whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..core.base import BaseStream
from ..core.framing import Body
from ..core.headers import IDENTITY, Pairs, is_streaming, value_of
from ..engines.answering import Answer, code_of
from ..engines.bodies import HeldBody, plain_answer, refuse, too_many
from ..engines.coded import CodedRest
from ..engines.ending import close_foreign, fail, is_end_of, linger, needs_settling, outcome_of, settle
from ..engines.handed import came_to_nothing
from ..engines.logs import WSGI_LOG, log_error
from ..engines.write import RequestStream
from ..errors import (
    ApplicationFailed,
    BufferLimitExceeded,
    ProtocolViolation,
)
from ..syntax import status_line
from ..types import Environ, Outcome
from .foreign import cared_for, check_answer, is_iterable, is_server_file
from .noted import noted


def answer_of(
    environ: Environ, stream: RequestStream, answer: Callable[[], Iterable[bytes]]
) -> Iterable[bytes]:
    """The answer, which is a real 500 also on uWSGI: that sends nothing when an application raises."""
    try:
        return answer()
    except Exception as error:
        if "uwsgi.version" not in environ or stream.outer is not None or stream._server_started:
            raise
        WSGI_LOG.error("answered 500: the application failed before its first chunk", exc_info=error)
        return plain_answer(stream.start_response, 500, "Internal Server Error\n")


def answered(stream: RequestStream, body: Any) -> Iterable[bytes]:
    """The application has returned: find out what its answer is."""
    stream.has_returned = True
    if stream._put_off is not None and stream.answer is None:
        try:
            stream.close()
        except BaseException as error:  # a hook of the commit; or all streams are taken
            close_foreign(stream, body)
            return concluded(stream, error)
    if stream.is_own:
        close_foreign(stream, body)
        return concluded(stream, None)
    if stream.refused is not None:
        close_foreign(stream, body)
        return concluded(stream, stream.refused)
    if stream.carried is not None and _is_dropped(stream.carried):
        stream._take_back()  # a description that came to nothing: what was returned instead is the response
    outcome: Outcome = "failed"
    try:
        if not is_iterable(body):
            raise ProtocolViolation(
                f"wanted an iterable of bytes from the application (PEP 3333), got {body!r}"
            )
        passed_on = _passed_on(stream, body)
        outcome = "finished"
        return passed_on
    finally:
        stream.environ = None
        is_here = stream.carried is None and stream.passing is None and not stream.told_later
        # A page ends no stream: of that only the hooks on its request are told.
        ends = outcome == "failed" or stream._is_written or stream.is_page
        if ends and is_here and needs_settling(stream):
            settle(stream, outcome)


def _is_dropped(carried: BaseStream) -> bool:
    """Whether the response is not what this carries; closed by now, it was closed by a layer between."""
    return carried._head is None or carried._outcome == "disconnected" or came_to_nothing(carried)


def _passed_on(stream: RequestStream, body: Any) -> Iterable[bytes]:
    answer, environ = stream.answer, stream.environ
    assert environ is not None
    if stream._is_written:
        rest = body if stream.early is None else _Joined(stream.early, body)
        if needs_settling(stream):
            rest = noted(stream, rest, environ)
        return rest if stream._coder is None else CodedRest(rest, stream._coder)
    if stream.carried is not None and answer is not None:
        stream.release((answer[0], _without_strangers(answer, stream.carried, body)))
        return body  # type: ignore[no-any-return]
    if answer is not None and not _is_stream(answer, body, environ):
        stream.release()
        if not (stream._finish_hooks or stream._error_hooks):
            return body  # type: ignore[no-any-return]
        stream.is_page = True
        stream.note()
        return noted(stream, body, environ)
    return cared_for(stream, body, environ)


def _is_stream(answer: Answer, body: Any, environ: Environ) -> bool:
    check_answer(answer)
    headers = answer[1]
    if is_streaming(headers):
        return True
    if is_server_file(environ, body):
        return False
    if getattr(body, "streaming", True) is False:
        return False  # Django's word for a body that is all there
    return not isinstance(body, (list, tuple)) and value_of(headers, "content-length") is None


def _without_strangers(answer: Answer, carried: BaseStream, body: Any) -> Pairs:
    """The head of a description, without the ETag and Content-Length that layers have put on it."""
    status, headers, _ = answer
    ours = carried._head
    if ours is None or not status.startswith(str(ours[0])) or isinstance(body, (list, tuple)):
        return headers  # a layer has put another response in its place
    own = {name.lower() for name, _ in ours[1]}
    if carried._body is Body.WHOLE:
        own.add("content-length")
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in ("etag", "content-length") or name.lower() in own
        # "identity ... SHOULD NOT be used in" it -- RFC 9110, 8.4.1; Django's room holds layers off by it.
        if value != IDENTITY or name.lower() != "content-encoding"
    ]


def concluded(stream: RequestStream, error: BaseException | None) -> Iterable[bytes]:
    """End a stream that the application wrote by itself; it has returned, or raised."""
    stream.has_returned = True
    if not stream.is_own and error is not None:
        stream.environ = None
        stream._failed = True
        settle(stream, outcome_in_place(stream))
        if stream.refused is not None:
            return too_many(stream.start_response, stream.refused, stream.request.method)
        raise error
    if stream._ending is not None and stream._connected:
        if error is not None and not is_end_of(stream, error):
            log_error(stream, "the application failed at the end of its stream", error)
        stream.say_last_words(stream._ending)
        return _sent(stream)
    if error is not None and stream._is_closed_late() and stream._connected:
        stream._error = error  # who waited beside got an end, and the client has none yet
        return _sent(stream)
    has_body = stream._body in (Body.STREAM, Body.WHOLE)
    if error is None and has_body and not stream._is_over and stream.answer is not None:
        code = code_of(stream.answer[0])
        if stream._is_failure(code) or stream.answer[2] is not None:
            error = ApplicationFailed(code)
    if error is None and stream.spool is not None:
        error = stream.spool.exceeded
    try:
        if error is not None:
            fail(stream, error, stream._end)
        else:
            stream.close()
    except BaseException as fault:  # of a hook of the commit, or over the limit
        fail(stream, fault, stream._end)
    return _sent(stream)


def outcome_in_place(stream: RequestStream) -> Outcome:
    """How a response has ended that is not answered: as the description did that came to nothing."""
    outcome = None if stream.carried is None else stream.carried.outcome
    return "failed" if outcome is None or outcome == "finished" else outcome


def _sent(stream: RequestStream) -> Iterable[bytes]:
    with stream._lock:  # a write of another thread's that is under way ends first
        stream.environ = None
    stream._exc_info = None  # its frames hold the environ, which holds the stream
    failure, spool = stream._error, stream.spool
    if isinstance(failure, BufferLimitExceeded):
        settle(stream, "failed")
        return refuse(stream.start_response, failure, spool)
    if spool is not None and failure is None and stream._head is not None:
        stream._go_home()  # it is complete: nothing has to be done for it but to be sent
        spool.complete()
        status, pairs = stream._head
        stream.start_response(status_line(status), [*pairs, ("Content-Length", str(spool.size))])
        stream.spool = None  # what was held counts as sent from here on
        return HeldBody(spool, stream)
    if spool is not None:
        spool.close()
    settle(stream, outcome_of(stream))
    if stream.server_error is not None:
        raise stream.server_error  # the server's own word for a leave, for the server
    if failure is not None and (stream._head is None or stream._body in (Body.STREAM, Body.WHOLE)):
        linger(stream)
        raise failure
    if failure is not None:  # the head was all that the client is to get
        log_error(stream, "the application failed after its head", failure)
    if stream._coder is not None and stream._connected and stream._abort is None:
        return iter((stream._coder.last(),))  # no list: waitress takes one of one chunk for the whole body
    return []


class _Joined:
    """What was written through `write()`, before what was returned."""

    def __init__(self, early: list[bytes], body: Iterable[bytes]) -> None:
        self._early, self._body = early, body

    def __iter__(self) -> Iterator[bytes]:
        yield from self._early
        yield from self._body

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
