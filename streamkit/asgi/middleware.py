"""The middleware: each request gets its stream, and what does not stream passes.

Rule: a request that does not stream costs one object, and each of its messages one look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engines.loop import Loops
from ..engines.passing import begin_messages
from ..engines.phases import OVER
from ..engines.registry import shutdown_async, signals
from ..engines.send import ScopeStream
from ..engines.tended import NO_HEAD
from ..errors import NotAnApplication, ProtocolViolation
from ..options import Options
from ..types import ASGIApp, Message, Receive, Scope, Send
from ..unbuffer.stripping import stripped


class StreamingMiddleware:
    """Give an ASGI app its response stream, and every stream in it the same care.

    `options` is an `Options` or a mapping; keyword arguments go over it. Raises
    `OptionsError` and `NotAnApplication`.
    """

    # Whoever looks for layers asks for `__dict__`: from then on, what stands there is slow (CPython 3.11).
    __slots__ = ("__dict__", "__weakref__", "_inner", "app", "loops", "options", "plain_head")

    def __init__(
        self, app: ASGIApp, options: Options | Mapping[str, Any] | None = None, **overrides: Any
    ) -> None:
        if not callable(app):
            raise NotAnApplication(f"wanted an ASGI application, got {app!r}")
        self.app = app
        self._inner: ASGIApp = self._first
        self.options = Options.of(options, overrides)
        self.loops = Loops()
        self.plain_head = NO_HEAD
        if self.options.signals:
            signals.hook_in()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pass(scope, receive, send)
            return
        stream = begin_messages(ScopeStream, self, scope, receive, send)
        try:
            await self._inner(scope, stream, stream.send)
        except BaseException as error:
            await stream.conclude(_named(error, self.app))
        else:
            if stream.phase != OVER or stream.touched:
                await stream.conclude(None)

    async def _first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The first request on a loop: by now the server's handlers stand, whatever way it was started."""
        await self.loops.note_until_end(self._begin_anew)
        if self.options.signals:
            signals.hook_in()
        self._inner = self._stripped()
        await self._inner(scope, receive, send)

    def _begin_anew(self) -> None:
        """The loop has ended: another may follow, in tests above all."""
        self._inner = self._first

    def _stripped(self) -> ASGIApp:
        """The app, whose buffering layers are out of the way; by the first request all of them stand."""
        return stripped(self.app, self.options.strip, "asgi", owner=self)  # type: ignore[no-any-return]

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no HTTP request goes on untouched; open streams end before the app's shutdown."""
        if scope["type"] != "lifespan":
            await self._inner(scope, receive, send)
            return
        if self.options.signals:
            signals.hook_in()

        async def receive_lifespan() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await shutdown_async()
            return message

        await self._inner(scope, receive_lifespan, send)


def _named(error: BaseException, app: ASGIApp) -> BaseException:
    """The error; where the call of the application itself was it, a word on what was wanted."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if type(error) is not TypeError or trace is None or trace.tb_frame.f_code.co_filename != __file__:
        return error
    wanted = ProtocolViolation(
        f"wanted an ASGI application, which is awaited with (scope, receive, send), got {app!r}: {error}"
    )
    wanted.__cause__ = error
    return wanted
