"""The whole application on a worker, where `engine="thread"` asks for it.

Rule: what it returns without streaming is treated as if the server's thread had run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import copy_context

from ..core.framing import Request
from ..core.request import KEY, fields_of
from ..engines.bodies import started
from ..engines.ending import close_foreign, settle
from ..engines.line import line_of
from ..engines.logs import WSGI_LOG
from ..engines.waits import reached
from ..engines.wholeapp import AppStream
from ..engines.write import RequestStream
from ..types import Environ, Outcome, WSGIApp
from .answer import answered, concluded, outcome_in_place


def carry_app(app: WSGIApp, stream: RequestStream, environ: Environ) -> Iterable[bytes]:
    """Run the application on a pooled worker, so that its stream has a reader of its own."""
    on_worker = AppStream(stream.options, Request.of_environ(environ), WSGI_LOG)
    on_worker.request_stream = stream
    on_worker._fields = fields_of(environ, encoding=bool(stream.options.compress))
    environ[KEY] = on_worker
    try:
        on_worker.start_app(app, environ, copy_context())
        on_worker.wait_head()
    except BaseException:  # no thread for it, or the server gives the request up: nobody will read
        on_worker._failed = True
        on_worker.leave()
        if on_worker.carried is None:
            settle(on_worker, "failed")
        else:  # which tells of its own end
            _claimed(on_worker, "failed")
        raise
    if stream.refused is not None:
        environ[KEY] = stream
        _claimed(on_worker, "failed")
        if on_worker.returned is not None:
            close_foreign(stream, on_worker.returned[0])
        return concluded(stream, stream.refused)
    if on_worker.returned is None:
        carried = on_worker.carried
        is_elsewhere = stream._is_written or (carried is not None and carried.outcome is not None)
        if on_worker._head is None and is_elsewhere:
            _claimed(on_worker, "failed")
            settle(stream, outcome_in_place(stream))  # a description has told the application-wide hook
            on_worker.raise_error()
        on_worker._line = line_of(environ)
        return started(on_worker, on_worker, stream.start_response, None)
    environ[KEY] = stream
    if on_worker.carried is None:
        _claimed(on_worker, "finished")
    (body,), on_worker.returned = on_worker.returned, None  # it may hold this stream, as its outer one
    return answered(stream, body)


def _claimed(on_worker: AppStream, outcome: Outcome) -> None:
    """Set the outcome of a stream whose hooks are another's."""
    if on_worker._claim(outcome):
        reached(on_worker, "_when_committed")
        reached(on_worker, "_when_finished")
