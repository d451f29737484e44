"""Asynchronous producers as tasks, written to from their loop.

`TaskStream` has its reader on the same loop (ASGI) and needs no lock; `BridgeStream` has
its reader in a thread (WSGI) and its producer on the shared loop thread.

Rule: with `producing` the twin of `thread`; only `await` differs.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..core.commit import State
from ..core.framing import Body, Request
from ..core.response import StreamingResponse
from ..core.stream import ResponseStream
from ..errors import ClientDisconnected, StreamEnded, StreamError
from ..options import Options
from ..types import Chunk
from .channel import Channel
from .compiled import STREAMS
from .ending import fail_async, run_commit_hooks
from .faces import faced
from .gather import LoopGather
from .handed import logged
from .late import close_told_async
from .reading import Wake, resolve
from .ready import DONE, Lasting, Ready, keep, ready, ready_on
from .thread import HOOK_FAILED, NOT_IN_HOOK
from .twin import Twin
from .waits import LoopWaits, future_of

# The `_at_work` of the stream whose producer works here, or has made this task, as `asyncio.wait_for` does.
WORKING: ContextVar[object] = ContextVar("streamkit.producer", default=None)


class Early:
    """What was written before there was a head, and how it is taken once there is one."""

    __slots__ = ("data", "put")

    def __init__(self, data: Chunk) -> None:
        self.data = data
        self.put: Awaitable[int] | None = None


class LoopStream(Channel, LoopWaits):
    """A response stream over a channel, for a producer on a loop."""

    _loop: asyncio.AbstractEventLoop
    _ready: Ready
    _committing: asyncio.Future[bool] | None = None  # the hooks at work; then whether all returned
    _hooking: asyncio.Task[None] | None = None  # in which they are awaited
    _early: tuple[Early, ...] = ()  # written meanwhile
    _called: bool = False  # a thread has called the reader, which has not heard it yet
    _asks_loop: bool = False  # what threads write has to come to the loop, after what is on its way there

    def _waker(self, future: asyncio.Future[None]) -> Wake:
        """How the reader wakes a writer that waits for room."""
        raise NotImplementedError

    def write(self, data: Chunk, /) -> Awaitable[int]:
        # Taken now wherever that can be: what is not awaited, by mistake, must not be lost.
        if self._head is None:
            chunk = self._encode(data)
            self._check_open(len(chunk))
            committing = self.commit()
            if self._head is None:
                early = Early(data if isinstance(data, str) else chunk)
                self._early += (early,)
                return self._write_after(committing, early)
        return self._put(data)

    async def _write_after(self, committing: Awaitable[None], early: Early) -> int:
        await committing
        return await (self._put(early.data) if early.put is None else early.put)

    def _put_early(self, early: tuple[Early, ...]) -> None:
        """Take what was written while the hooks of the commit were at work, in that order."""
        try:
            for write in early:
                write.put = self._put(write.data)
        except Exception:
            return  # it and those after it try again when they are awaited, and raise it there

    def _put(self, data: Chunk) -> Awaitable[int]:
        chunk = self._encode(data)
        with self._mutex:
            if self._bom and isinstance(data, str):
                chunk = self._encode(data)  # only here is it known whether it begins the body
            size = len(chunk)
            full = False
            try:
                if self._admits(size):
                    self._append(chunk)
                    full = self._room < 0
            except (ClientDisconnected, StreamEnded):
                self._heard = id(asyncio.current_task())
                raise
        return self._wait_for_room(size) if full else ready(size, self._ready, self._loop)

    def _put_from_thread(self, data: Chunk) -> int | None:
        chunk = data if type(data) is bytes else self._utf8(data)
        with self._mutex:
            # What `_admits` asks, written out: this is what each chunk of a thread goes through.
            if (
                chunk
                and self._state is State.COMMITTED
                and self._connected
                and self._ending is None
                and self._limit is None
                and self._body is Body.STREAM
                and not self._early
                and not self._asks_loop
            ):
                size = len(chunk)
                self._direct = False  # from now on whoever writes on the loop takes the mutex too
                self._chunks.append(chunk)
                room = self._room = self._room - size
                if not self._called:
                    self._call_reader()
                if room < 0:
                    self._wait_on_thread()
                return size
        return self._put_checked(data)

    def _put_checked(self, data: Chunk) -> int | None:
        if self._head is None or self._early or self._asks_loop:
            return None
        chunk = data if type(data) is bytes else self._encode(data)
        with self._mutex:
            if self._bom and isinstance(data, str):
                chunk = self._encode(data)
            size = len(chunk)
            if self._admits(size):
                self._direct = False
                self._hold(chunk)
                if not self._called:
                    self._call_reader()
                if self._room < 0:
                    self._wait_on_thread()
        return size

    def _awaits_threads(self) -> bool:
        return self._at_work is not None

    def _hear_from_thread(self) -> None:
        self._asks_loop = True

    def _call_reader(self) -> None:
        """Tell the reader that there is something, from any thread; the mutex is held."""
        self._wake_reader()

    async def _wait_for_room(self, size: int) -> int:
        """Wait until the reader has taken some."""
        while True:
            with self._mutex:
                try:
                    if not self._must_wait():
                        return size
                except (ClientDisconnected, StreamEnded):
                    self._heard = id(asyncio.current_task())
                    raise
                turn: asyncio.Future[None] = self._loop.create_future()
                self._writers += (self._waker(turn),)
            await turn

    def commit(self) -> Awaitable[None]:
        if self._head is not None or self._is_over:
            return DONE
        me = id(asyncio.current_task())
        with self._mutex:
            committer = self._committer
            if committer is None:
                self._committer = me
        if committer == me:
            raise StreamError(NOT_IN_HOOK)
        if committer is not None:
            return self._until_hooks_returned()
        waiting: Awaitable[None] | None = None
        try:
            waiting = run_commit_hooks(self)
        finally:
            if waiting is None:
                self._committer = None
        if waiting is not None:
            committing: asyncio.Future[bool] = self._loop.create_future()
            self._committing = committing
            self._committer = 0  # nobody, until the task of the hooks begins
            self._hooking = self._keep(self._commit_after(waiting, committing))
            return Lasting(self._hooking)
        with self._mutex:
            if self._state is State.STARTED:
                self._commit_now()
        return DONE

    async def _until_hooks_returned(self) -> None:
        """Wait until the hooks that another task runs are through, or the stream is at its end."""
        milestone = asyncio.wrap_future(future_of(self, "_when_committed"))
        if self._committing is not None and not self._is_over:
            awaited: list[asyncio.Future[Any]] = [self._committing, milestone]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if self._head is None and not self._is_over:
            raise StreamError(HOOK_FAILED)

    async def _commit_after(self, waiting: Awaitable[None], committing: asyncio.Future[bool]) -> None:
        self._committer = id(asyncio.current_task())
        returned = False
        try:
            await waiting
            with self._mutex:
                if self._state is State.STARTED:
                    self._commit_now()
            returned = True
        finally:
            self._committing = self._committer = None
            if returned:
                self._put_early(self._early)
            self._early = ()
            committing.set_result(returned)

    def stop_committing(self) -> None:
        """Its producer has failed, or was cancelled: nobody needs the hooks of the commit any more."""
        hooking, self._hooking = self._hooking, None
        if hooking is not None and self._head is None:
            self._loop.call_soon(hooking.cancel)  # not before it has begun: what it awaits would be lost

    def close(self) -> Awaitable[None]:
        if self._is_over:
            return DONE
        if self._puts_off_close():
            self._hear_from_thread()  # there a thread's write is refused
            return DONE
        return self._close()

    def _close(self) -> Awaitable[None]:
        if self._head is None:
            committing = self.commit()
            if self._head is None:  # hooks of the commit run first
                return Lasting(self._keep(self._close_after(committing)))
        error = self._complete()
        if error is not None:
            self._keep(fail_async(self, error, self._end))
            raise error
        return DONE

    def _is_at_work(self) -> bool:
        return self._at_work is not None and WORKING.get() is self._at_work

    async def _close_after(self, committing: Awaitable[None]) -> None:
        try:
            await committing
            await self.close()
        except BaseException as error:
            # Cancelled with the hooks of the commit, it has no error of its own: its producer had one.
            if not (isinstance(error, asyncio.CancelledError) and self._is_over):
                await fail_async(self, error, self._end)

    def _run_late(self, hooks: list[Callable[..., Any]], *details: Any) -> None:
        for hook in hooks:
            result = hook(self, *details)
            if asyncio.iscoroutine(result):
                self._keep(logged(self, result))

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return keep(self._loop.create_task(coroutine))

    def gather(self) -> LoopGather:
        """Where a producer of many small texts leaves them; see `core.gathering`."""
        return LoopGather(self)

    @property
    def sync(self) -> ResponseStream:
        return faced(Twin, self.response, asynchronous=False)(self, self._loop)


class TaskStream(LoopStream):
    """Producer and reader on one loop: nothing is shared between threads, unless a twin writes."""

    __slots__ = ("_asks_loop", "_called", "_early", "_loop", "_ready")

    def __init__(
        self,
        options: Options,
        request: Request,
        log: logging.Logger,
        response: StreamingResponse | None = None,
        high_water: int | None = None,
    ) -> None:
        super().__init__(options, request, log, response, high_water)
        self._loop = loop = asyncio.get_running_loop()
        self._ready = ready_on(loop)
        self._asks_loop = self._called = False
        self._early = ()

    # Almost nobody else wants it, and of all that can stand in a `with` it costs least.
    _new_mutex = staticmethod(cast("Callable[[], threading.Lock]", _thread.RLock))

    def _close_late(self) -> None:
        close_told_async(self)

    def end_soon(self, ending: StreamEnded) -> None:
        self.end_early(ending)  # its clock strikes on its own loop, to which it is bound

    def _waker(self, future: asyncio.Future[None]) -> Wake:
        return partial(resolve, future)

    def _park_on_loop(self) -> asyncio.Future[None]:
        # The future itself: a reader parks once for each chunk that it waits for.
        future: asyncio.Future[None] = self._loop.create_future()
        self._wake = cast("Wake", future)
        return future

    def _wake_reader(self) -> None:
        parked: Any = self._wake  # a future: see `_park_on_loop`
        if parked is not None:
            self._wake = None
            if not parked.done():
                try:
                    parked.set_result(None)
                except RuntimeError:  # the loop was closed under its request: nobody reads any more
                    self._connected = self._direct = False

    def _call_reader(self) -> None:
        # Whether it is parked only its own thread can tell, which parks without the mutex.
        self._called = True
        try:
            self._loop.call_soon_threadsafe(self._answer_call)
        except RuntimeError:  # the loop was closed under its request: nobody reads any more
            self._connected = False
            raise ClientDisconnected from None

    def _answer_call(self) -> None:
        with self._mutex:
            self._called = False
            self._wake_reader()

    def until_next(self) -> asyncio.Future[None] | None:
        if self._chunks or self._done or not self._connected:
            return None
        return self._park_on_loop()

    def write(self, data: Chunk, /) -> Awaitable[int]:
        # What `LoopStream` does, in less time: nobody else is at work between these lines.
        chunk = data if type(data) is bytes else self._encode(data)
        if chunk and (self._direct or self._commits_for(chunk)):
            size = len(chunk)
            self._chunks.append(chunk)
            room = self._room = self._room - size
            if self._wake is not None:
                self._wake_reader()
            if room >= 0:
                return self._ready.get(size) or ready(size, self._ready, self._loop)
            return self._wait_for_room(size)
        return super().write(data)

    def close(self) -> Awaitable[None]:
        # What `LoopStream` does, in less time, for the end that almost all come to.
        if self._direct and self._fails is None and self._unlogged is None and sys.exc_info()[1] is None:
            response = self.response
            if response is None or type(response).last_words is StreamingResponse.last_words:
                with self._mutex:  # a thread's write comes before this, or is refused
                    if self._direct:
                        self._end_now(None)
                        return DONE
        return super().close()

    def _commits_for(self, chunk: bytes) -> bool:
        """Commit for the first chunk, where no hook stands before it; whether it needs no further check."""
        if self._head is not None or self._commit_hooks:
            return False
        if self._committer is not None or self._state is not State.STARTED:
            return False
        self._check_open(len(chunk))
        with self._mutex:  # a thread must see none of it, or all
            self._commit_now()
        return self._direct


if not TYPE_CHECKING and STREAMS is not None:
    TaskStream.write = STREAMS.Write(TaskStream, TaskStream.write)
