"""An application that writes from its server's task, carried by the server's own `send`.

    async def app(scope, receive, send):
        stream = scope["streamkit.stream"]
        await stream.write("now\n")

`ScopeStream` stands in the scope of every request. Its `send` is the application's `send`, and
itself the application's `receive`, so that a request which does not stream costs one object.
What becomes of messages of the application's own stands in `relay` and `cared`.

Rule: until something touches it, it holds a few references and looks at each message once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State, after
from ..core.framing import Body
from ..core.hooks import HookName
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import ClientDisconnected, StreamAborted, StreamClosed, StreamError, TooManyStreams
from ..types import Chunk
from .async_twin import AsyncTwin
from .clock import loop_clock
from .concluding import Concluding
from .crossing import Crossing
from .ending import log_before_close, run_commit_hooks
from .handed import came_to_nothing, logged
from .messages import body_message, encoded, request_of
from .phases import CARED, CARRIED, HELD, NEW, OVER, OWN
from .ready import DONE, Lasting, keep
from .registry import check_room
from .thread import HOOK_FAILED, NOT_IN_HOOK
from .twin import Twin
from .waits import reached


class ScopeStream(Concluding):
    """`scope["streamkit.stream"]`: the response stream of this request, made on first use."""

    __slots__ = ()

    _committer: asyncio.Task[Any] | None = None  # the task whose hooks run before the head
    _headed: asyncio.Future[None] | None = None  # done when that task has sent the head, or failed to

    # -- our own stream

    def commit(self) -> Awaitable[None]:
        if self._head is not None or self._is_over:
            return DONE
        if self._waits_for_hooks():
            return Lasting(self._keep(self._until_headed()))
        waiting = self._start_commit()
        if waiting is None:
            self._fix_own_head()
        else:
            self._committer = None  # nobody, until the task of the hooks begins
        self._writer = asyncio.current_task()
        self._heading = self._keep(self._send_head(waiting, flush=True))
        return Lasting(self._heading)

    async def _commit(self) -> None:
        if self._waits_for_hooks():
            await self._until_headed()
        elif self._heading is not None and self._heading is not self._committer:
            await Lasting(self._heading)
        elif self._head is None:
            await self._send_head(self._start_commit())

    def _waits_for_hooks(self) -> bool:
        """Whether hooks of the commit are at work in another task."""
        return self._committing and self._committer is not asyncio.current_task()

    async def _until_headed(self) -> None:
        """Wait until the task of the hooks has sent the head, or failed to."""
        if self._headed is not None:
            await asyncio.wait([self._headed])
        if self._head is None and not self._is_over:
            raise StreamError(HOOK_FAILED)

    def _start_commit(self) -> Awaitable[None] | None:
        """Run the hooks of the commit, as far as they need not be awaited."""
        if self.phase == CARRIED and self._carrier() is None:
            self._take_back()
            self.phase = NEW
        if self.scope is None:
            raise StreamClosed("cannot write to a closed stream") if self._connected else ClientDisconnected()
        if self.phase != NEW:
            raise StreamError("this request is already answered by another stream or by messages of its own")
        if self._committing:
            raise StreamError(NOT_IN_HOOK)
        try:
            check_room(self, loop_clock())
        except TooManyStreams as error:
            self._refused, self.phase = error, OWN  # what the application sends instead is dropped
            raise
        if self.outer is not None:
            self.outer.is_carried_by(self)
        self._committing, self._committer = True, asyncio.current_task()
        waiting: Awaitable[None] | None = None
        try:
            waiting = run_commit_hooks(self)
        finally:
            self._committing = waiting is not None
            if waiting is None:
                self._committer = None
        if waiting is not None:
            self._headed = asyncio.get_running_loop().create_future()
        return waiting

    def _fix_own_head(self) -> None:
        assert self.scope is not None
        if self._abort is not None:  # by a hook of the commit
            raise self._abort
        self.middleware.loops.note()
        self.request = request_of(self.scope, self.root[0])
        self._fix_head()
        self.phase = OWN
        reached(self, "_when_committed")
        self._prepare_body()

    async def _send_head(self, waiting: Awaitable[None] | None = None, *, flush: bool = False) -> None:
        """Fix the head if hooks have kept it open, and send it."""
        if waiting is None:
            await self._send_start(flush=flush)
            return
        self._committer = asyncio.current_task()
        try:
            try:
                await waiting
            finally:
                self._committing = False
                self._committer = None
            await self._send_start(flush=flush)
        finally:
            if self._headed is not None:
                self._headed.set_result(None)

    async def _send_start(self, *, flush: bool) -> None:
        if self._head is None:
            self._fix_own_head()
        if not flush:
            self._writer = asyncio.current_task()
        if self._body is Body.WHOLE:
            self._attend()
            return
        assert self._head is not None
        status, pairs = self._head
        start = {"type": "http.response.start", "status": status, "headers": encoded(pairs)}
        try:
            await self.server_send(start)
            if self._attend() and flush and self._body is Body.STREAM:
                await self.server_send(body_message(b"", more=True))  # some servers wait for a body
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._connected = False
            raise ClientDisconnected from error

    def write(self, data: Chunk, /) -> Awaitable[int]:
        if self._direct and self._connected and self._state is State.COMMITTED:
            chunk = data if type(data) is bytes else self._utf8(data)
            if chunk:
                return self._write_through(chunk)
        return self._write(data)

    async def _write(self, data: Chunk) -> int:
        if self._crossing is not None:
            await self._crossing.empty()
        chunk = data if type(data) is bytes else self._encode(data)
        size = len(chunk)
        if self._head is None or self._heading is not None:
            self._check_open(size)
            await self._commit()
            if isinstance(data, str):
                chunk = self._encode(data)
                size = len(chunk)
        if self._admits(size):
            await self._hand_over(chunk)
        is_open = self._ending is None and self._put_off is None  # it may have ended during the write
        self._direct = is_direct = is_open and self._body is Body.STREAM
        if self._crossing is not None:  # whoever writes on the loop has to wait for the threads
            self._direct = False
            self._crossing.is_open = is_direct and self.phase == OWN
        return size

    def _put_from_thread(self, data: Chunk) -> int | None:
        crossing = self._crossing
        if crossing is None:
            return None
        if type(data) is bytes:
            chunk = data
        else:
            chunk = self._utf8(data) if isinstance(data, str) else self._encode(data)
        return len(chunk) if chunk and crossing.put(chunk) else None

    def _awaits_threads(self) -> bool:
        return self.scope is not None and self.phase in (NEW, OWN)

    def _hear_from_thread(self) -> None:
        if self._crossing is not None:
            self._crossing.is_open = False

    def close(self) -> Awaitable[None]:
        if self._is_over:
            return DONE
        if self._puts_off_close():
            self._hear_from_thread()  # there a thread's write is refused
            return DONE
        return self._close()

    def _is_at_work(self) -> bool:
        # The error of any task may be on its way to the application.
        return self._awaits_threads() or (self.phase == CARED and self._head is not None)

    def _close(self) -> Awaitable[None]:
        if self._unlogged is not None:
            log_before_close(self)
        if self._head is None:
            return Lasting(self._keep(self._close_after_commit()))
        if self._ending is not None and self._connected:  # no whole body, though its application says so
            return Lasting(self._keep(self._say_last_words(self._ending)))
        self._state = after(self._state, "finish")
        if self.spool is not None:
            return DONE
        return Lasting(self._keep(self._finish_after_head()))

    async def _finish_after_head(self) -> None:
        if self._heading is not None and not self._heading.done():
            await asyncio.wait([self._heading])
        await self._finish("finish")

    def stale(
        self, *, etag: str | None = None, last_modified: datetime | None = None, weak: bool = False
    ) -> bool:
        if self._is_stale(etag, last_modified, weak):
            return True
        self.commit()  # now, so that the application sees it committed
        self.close()
        return False

    async def _close_after_commit(self) -> None:
        await self._commit()
        if not self._is_over:
            await self._close()

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it beside the application, and have its end awaited by `conclude`."""
        task = keep(asyncio.get_running_loop().create_task(coroutine))
        self._beside = (*self._beside, task)
        return task

    def abort(self, reason: object = None) -> None:
        carrier = self._carrier()
        if carrier is not None:
            self._face_of(carrier).abort(reason)
        elif not self._is_over and self.phase != OVER:
            self._abort = self._error = StreamAborted(reason)
            self._state = after(self._state, "abort")
            self._direct = False
            if self._crossing is not None:
                self._crossing.cut()  # nobody takes it any more, and a client that is slow is not waited for
            if self.phase in (NEW, HELD):
                self.phase = OWN  # what the application sends instead is dropped

    def is_carried_by(self, stream: BaseStream) -> None:
        """A description is served inside: its stream is the response's."""
        if self.carried is not None and came_to_nothing(self.carried):
            self._take_back()
        self.carried = stream
        if self.phase == NEW:
            self.phase = CARRIED
        if (self._commit_hooks or self._error_hooks) and not self._is_over:
            self._hand_hooks_to(stream)
        if self.outer is not None:
            self.outer.is_carried_by(stream)

    def _hand_hooks_to(self, stream: BaseStream) -> None:
        """Whoever waits for the commit or for errors is told by the stream that carries the response."""
        face = self._face_of(stream)
        self._hand_commit_hooks_to(face)
        for hook in self._error_hooks or ():
            face.on_error(hook)

    def _face_of(self, stream: BaseStream) -> AsyncResponseStream:
        if isinstance(stream, AsyncResponseStream):
            return stream
        assert isinstance(stream, ResponseStream)
        return AsyncTwin(stream, self._loop())

    def _run_late(self, hooks: list[Callable[..., Any]], *details: Any) -> None:
        told = self._told()
        for hook in hooks:
            result = hook(told, *details)
            if asyncio.iscoroutine(result):
                keep(asyncio.get_running_loop().create_task(logged(self, result)))

    @property
    def sync(self) -> ResponseStream:
        loop = self._loop()
        if self._crossing is None:
            crossing = Crossing(self, loop, self.options.high_water)
            crossing.is_open = self._direct and self.phase == OWN
            self.__dict__.setdefault("_crossing", crossing)
        self._direct = False
        return Twin(self, loop)

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this request, asked for on it or from one of its worker threads."""
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            pass  # asked for by a worker thread
        loop = self.middleware.loops.known()
        if loop is None:
            raise StreamError("take `stream.sync` on the event loop, and hand it to the thread that writes")
        return loop

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body that were handed to the server."""
        return 0 if self.spool is not None else self._sent

    def tell(self) -> int:
        """Bytes written so far."""
        crossing = self._crossing
        if crossing is None:
            return self._sent
        with crossing.mutex:
            return self._sent + crossing.size

    @property
    def tail(self) -> bytes:
        crossing = self._crossing
        return self._tail if crossing is None else crossing.tail

    def _hooks(self, name: HookName) -> deque[Callable[..., Any]]:
        self.touched = True
        return super()._hooks(name)
