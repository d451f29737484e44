"""What a description is carried out with under ASGI: its stream, its reader, or another answer.

Rule: nothing of the application runs before it is known that it is to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from ..core.framing import Request, has_body
from ..core.hooks import is_async
from ..core.producers import Kind
from ..core.request import KEY, NO_FIELDS, fields_of
from ..core.response import StreamingResponse
from ..engines.async_twin import on_loop
from ..engines.clock import Clock, loop_clock, thread_clock
from ..engines.faces import faced
from ..engines.hints import hints_of_scope
from ..engines.inbox import Inbox
from ..engines.logs import ASGI_LOG
from ..engines.messages import can_close
from ..engines.pull import UNBOUNDED, AsyncPull
from ..engines.registry import check_room, signals
from ..engines.send import ScopeStream
from ..engines.task import TaskStream
from ..engines.thread import ThreadStream
from ..errors import ProtocolViolation, TooManyStreams
from ..options import Options
from ..types import EngineName, Receive, Scope, Send
from ..unbuffer.marker import UnmarkedSend
from .answers import ChannelStream, Reader, answer_503, answer_505, head_only

_DEFAULTS = Options()


def _reader(
    response: StreamingResponse, options: Options, request: Request, engine: EngineName
) -> tuple[ChannelStream, Reader]:
    if engine == "thread":
        options = _with_hooks_on_loop(options)
        on_thread = faced(ThreadStream, response, asynchronous=False)(options, request, ASGI_LOG, response)
        return on_thread, on_thread
    pulled = (
        response.kind is Kind.ASYNC_ITERABLE
        and response.engine is None
        and not response.keep_open
        # Whoever is pulled cannot be waited for.
        and options.commit_after_for(response.media_type) is None
    )
    if pulled:
        stream = TaskStream(options, request, ASGI_LOG, response, UNBOUNDED)
        return stream, AsyncPull(stream)
    made = TaskStream if response.faces is None else faced(TaskStream, response, asynchronous=True)
    stream = made(options, request, ASGI_LOG, response)
    return stream, stream


def _with_hooks_on_loop(options: Options) -> Options:
    """The application's hooks that are awaited run on its loop, also for what a thread makes."""
    hooks = {"on_error": options.on_error, "on_finish": options.on_finish}
    awaited = {name: hook for name, hook in hooks.items() if hook is not None and is_async(hook)}
    if not awaited:
        return options
    loop = asyncio.get_running_loop()
    return options.merged(Options(**{name: on_loop(hook, loop) for name, hook in awaited.items()}))


def clock_of(stream: ChannelStream) -> Clock:
    return thread_clock if isinstance(stream, ThreadStream) else loop_clock(stream._loop)


def _hook_in(loop: asyncio.AbstractEventLoop | None) -> None:
    """Stand before the server's handlers of signals, where no wrap has done so; once for each loop."""
    clock = loop_clock(loop)
    if not clock.hooked_in:
        clock.hooked_in = True
        signals.hook_in()


class Prepared:
    """One request whose description is to be carried out."""

    __slots__ = (
        "cut_off", "inbox", "last", "marks", "producer", "puller", "reader", "receive", "root", "send",
        "stream", "task",
    )  # fmt: skip

    stream: ChannelStream
    reader: Reader
    inbox: Inbox | None

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.send = send
        self.root = (send, receive)  # the server's own, below all layers
        self.inbox = None
        self.producer: asyncio.Task[None] | None = None
        self.task: asyncio.Task[Any] | None = None  # the request's own
        self.puller: asyncio.Task[Any] | None = None  # the same, where and while it waits for an iterable
        self.cut_off = False
        self.last = False  # the last message is on its way
        self.marks = False  # the head bears a mark, which the wrap outside takes off

    def _prepare(
        self, response: StreamingResponse, scope: Scope, options: Options | None
    ) -> Awaitable[None] | None:
        """Make the stream; what is to be awaited in its place, where this request gets another answer."""
        if scope["type"] != "http":
            raise ProtocolViolation(f"a streamed response answers http requests, not {scope['type']!r}")
        outer = scope.get(KEY)
        carrier = outer if outer is not None and isinstance(outer, ScopeStream) else None
        if options is None:
            options = carrier.options if carrier is not None else _DEFAULTS
        response.begin()
        response = response.for_request(scope)
        options = response.options_over(options)
        request = Request.of_scope(scope)
        engine = response.engine_for(app_wide=options.engine)
        stream, self.reader = _reader(response, options, request, engine)
        self.stream = stream
        fields = fields_of(scope, encoding=bool(options.compress))
        is_fresh = fields is not NO_FIELDS and stream._is_fresh_for(fields)
        if carrier is None and options.signals:
            _hook_in(stream._loop if isinstance(stream, TaskStream) else None)
        if carrier is not None:
            carrier.is_carried_by(stream)
            if "gzip" in carrier.options.strip:
                carrier.server_send = UnmarkedSend(carrier.server_send)
                self.marks = True
        if request.version < (1, 1) and options.http10 == "reject":
            return answer_505(stream, response, self.send)
        if (
            is_fresh
            or request.method == "HEAD"
            or (response.kind.is_iterable and not has_body(response.status))
        ):
            return head_only(stream, response, self.send)
        if options.max_streams is not None:
            try:
                check_room(stream, clock_of(stream))
            except TooManyStreams as error:
                return answer_503(stream, response, self.send, error)
        if carrier is not None:
            self.root = carrier.root
        if request.hangs and can_close(self.root[0]):
            stream.request = request._replace(hangs=False)
        if scope.get("extensions"):
            hints = hints_of_scope(scope, self.send, on_thread=isinstance(stream, ThreadStream))
            if hints is not None:  # what a stream does not have by itself gives it a dict
                stream._hints = hints
        return None
