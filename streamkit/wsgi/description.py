"""A description as a WSGI application.

Rule: an error before the commit is raised before anything is returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ..core.context import inherited
from ..core.framing import Request, has_body
from ..core.request import KEY, NO_FIELDS, fields_of
from ..core.response import StreamingResponse, carried_out_by
from ..engines import thread
from ..engines.bodies import ChannelStream, Reader, discard, head_only, reject, started
from ..engines.bridge import BridgeStream
from ..engines.faces import faced
from ..engines.hints import hints_of_environ
from ..engines.line import line_of
from ..engines.logs import WSGI_LOG
from ..engines.pull import UNBOUNDED, Pull
from ..engines.thread import ThreadStream
from ..engines.wholeapp import AppStream
from ..engines.write import RequestStream
from ..options import Options
from ..types import Environ, StartResponse
from ..unbuffer.marker import marking

_DEFAULTS = Options()


def respond(
    response: StreamingResponse,
    environ: Environ,
    start_response: StartResponse,
    options: Options | None = None,
) -> Iterable[bytes]:
    """Carry out a description as a WSGI application.

    Options are the response's own over `options`, or over those of the wrapped app that
    the request came through. An error before the commit is raised here.
    """
    outer = environ.get(KEY)
    if options is None:
        options = outer.options if isinstance(outer, (RequestStream, AppStream)) else _DEFAULTS
    response.begin()
    response = response.for_request(environ)
    options = response.options_over(options)
    request = Request.of_environ(environ)
    engine = response.engine_for(app_wide=options.engine)
    stream, reader = _reader(response, options, request, engine)
    fields = fields_of(environ, encoding=bool(options.compress))
    is_fresh = fields is not NO_FIELDS and stream._is_fresh_for(fields)
    if isinstance(outer, (RequestStream, AppStream)):
        outer.is_carried_by(stream)
        if "gzip" in outer.options.strip:
            start_response = marking(start_response, stream)
    if request.version < (1, 1) and options.http10 == "reject":
        discard(stream, response)
        return reject(start_response, request)
    if is_fresh or request.method == "HEAD" or (response.kind.is_iterable and not has_body(response.status)):
        return head_only(stream, response, start_response)
    stream._line = line_of(environ)
    if not isinstance(stream, BridgeStream):  # whose loop a server that blocks would hold up
        stream._hints = hints_of_environ(environ)
    begin = None  # an iterable begins where it is first read
    if reader is stream:
        context = inherited(options.excluded_context)
        begin = (
            partial(stream.start, context)
            if isinstance(stream, BridgeStream)
            else partial(thread.start, stream, context)
        )
    return started(stream, reader, start_response, options.commit_after_for(response.media_type), begin)


def _reader(
    response: StreamingResponse, options: Options, request: Request, engine: str
) -> tuple[ChannelStream, Reader]:
    if engine == "task":
        bridge = faced(BridgeStream, response, asynchronous=True)(options, request, WSGI_LOG, response)
        return bridge, bridge
    asks_for_thread = response.engine == "thread" or options.engine == "thread"
    pulled = (
        response.kind.is_iterable
        and not asks_for_thread
        and not response.keep_open
        # Whoever is pulled cannot be waited for.
        and options.commit_after_for(response.media_type) is None
    )
    if not pulled:
        stream = faced(ThreadStream, response, asynchronous=False)(options, request, WSGI_LOG, response)
        return stream, stream
    stream = ThreadStream(options, request, WSGI_LOG, response, UNBOUNDED)
    return stream, Pull(stream, inherited(options.excluded_context))


carried_out_by(wsgi=respond)
