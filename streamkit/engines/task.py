"""Asynchronous producers as tasks, written to from their loop.

`TaskStream` has its reader on the same loop (ASGI) and needs no lock; `BridgeStream` has
its reader in a thread (WSGI) and its producer on the shared loop thread.

Rule: the twin of `thread`; only `await` differs.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, cast

from ..core.base import BaseStream
from ..core.commit import State
from ..core.framing import Request
from ..core.producers import Kind, check_returned
from ..core.response import StreamingResponse
from ..core.stream import ResponseStream
from ..errors import StreamEnded, StreamError
from ..options import Options
from ..types import Chunk
from .channel import Channel
from .ending import fail_async, log_error, raisable, report_async, run_commit_hooks
from .faces import faced
from .gather import LoopGather
from .handed import logged
from .reading import Wake, resolve
from .ready import DONE, Ready, ready, ready_on
from .thread import HOOK_FAILED, NOT_IN_HOOK, may_go_on
from .twin import Twin
from .waits import LoopWaits, future_of

Result = TypeVar("Result")


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
    _early: tuple[Early, ...] = ()  # written meanwhile

    def _waker(self, future: asyncio.Future[None]) -> Wake:
        """How the reader wakes a writer that waits for room."""
        raise NotImplementedError

    def write(self, data: Chunk, /) -> Awaitable[int]:
        # Taken now wherever that can be: what is not awaited, by mistake, must not be lost.
        if self._head is None:
            self._charset = None  # the headers may have been changed since it was asked for
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
            if self._admits(size):
                self._append(chunk)
                full = self._room < 0
        return self._wait_for_room(size) if full else ready(size, self._ready, self._loop)

    async def _wait_for_room(self, size: int) -> int:
        """Wait until the reader has taken some."""
        while True:
            with self._mutex:
                if not self._must_wait():
                    return size
                turn: asyncio.Future[None] = self._loop.create_future()
                self._writers += (self._waker(turn),)
            await turn

    def commit(self) -> Awaitable[None]:
        if self._head is not None or self.closed:
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
            return self._keep(self._commit_after(waiting, committing))
        with self._mutex:
            if self._state is State.STARTED:
                self._commit_now()
        return DONE

    async def _until_hooks_returned(self) -> None:
        """Wait until the hooks that another task runs are through, or the stream is at its end."""
        milestone = asyncio.wrap_future(future_of(self, "_when_committed"))
        if self._committing is not None and not self.closed:
            awaited: list[asyncio.Future[Any]] = [self._committing, milestone]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if self._head is None and not self.closed:
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
            early, self._early = self._early, ()
            if returned:
                self._put_early(early)
            committing.set_result(returned)

    def close(self) -> Awaitable[None]:
        if self.closed:
            return DONE
        if self._head is None:
            committing = self.commit()
            if self._head is None:  # hooks of the commit run first
                return self._keep(self._close_after(committing))
        error = self._complete()
        if error is not None:
            self._keep(fail_async(self, error, self._end))
            raise error
        return DONE

    async def _close_after(self, committing: Awaitable[None]) -> None:
        try:
            await committing
            await self.close()
        except BaseException as error:
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
    """Producer and reader on one loop: nothing is shared between threads."""

    __slots__ = ("_loop", "_ready")

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

    # Nobody else wants it, and of all that can stand in a `with` it costs least.
    _new_mutex = staticmethod(cast("Callable[[], threading.Lock]", _thread.RLock))

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
                parked.set_result(None)

    def until_next(self) -> asyncio.Future[None] | None:
        if self._chunks or self._done or not self._connected:
            return None
        return self._park_on_loop()

    def write(self, data: Chunk, /) -> Awaitable[int]:
        # What `LoopStream` does, in less time: nobody else is at work between these lines.
        if type(data) is bytes:
            chunk = data
        else:
            if self._head is None:
                self._charset = None
            chunk = self._encode(data)
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

    def _commits_for(self, chunk: bytes) -> bool:
        """Commit for the first chunk, where no hook stands before it; whether it needs no further check."""
        if self._head is not None or self._commit_hooks:
            return False
        if self._committer is not None or self._state is not State.STARTED:
            return False
        self._check_open(len(chunk))
        self._commit_now()
        return self._direct


# From CPython 3.12 on a task may run at once, up to its first wait: most need no turn of the loop.
EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

PRODUCER = "streamkit-producer"  # one name for all: a numbered one is a string for each

_kept: set[asyncio.Task[Any]] = set()


def keep(task: asyncio.Task[Result]) -> asyncio.Task[Result]:
    """Hold a task that nobody may await: a loop refers to its tasks only weakly."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return task


def start(stream: LoopStream, context: Context | None) -> asyncio.Task[None]:
    """Run the stream's producer as a task of its loop; `context` None is a copy of the current one."""
    loop = stream._loop
    if context is None:
        if EAGER and loop.get_task_factory() is None:
            return asyncio.Task(run(stream), loop=loop, name=PRODUCER, **EAGER)
        return loop.create_task(run(stream), name=PRODUCER)
    return context.run(partial(loop.create_task, run(stream), name=PRODUCER))


async def run(stream: LoopStream) -> None:
    """Run the producer to its end, and end the stream as it ended."""
    response = stream.response
    assert response is not None
    is_entered = not response.resources
    try:
        if response.resources:
            async with AsyncExitStack() as opened:
                await enter_all(opened, response.resources)
                is_entered = True
                check_returned(response.producer, await _producing(stream, response))
                if stream._head is None:
                    await stream.commit()  # its hooks find the resources open, as they do at a first write
        else:
            check_returned(response.producer, await _producing(stream, response))
    except BaseException as error:
        ended = not stream.connected or stream._ending or stream._refusal
        if ended and isinstance(error, asyncio.CancelledError):
            stream._end(None)  # by the leave, or an early end; whoever cancelled does not wait for the word
            return
        if not is_entered:
            await close_unread(stream, response)
        try:
            await fail_async(stream, error, stream._end)
        except BaseException:  # whatever a hook does, the reader is not left waiting
            stream._end(raisable(error))
            raise
        finally:
            del error
        return
    if stream._head is None or stream._limit is not None or response.keep_open:
        await end_of_producer(stream, response)
    else:
        stream.close()


async def enter_all(opened: AsyncExitStack, resources: tuple[Any, ...]) -> None:
    """Enter context managers of either kind."""
    for resource in resources:
        if hasattr(type(resource), "__aenter__"):
            await opened.enter_async_context(resource)
        else:
            opened.enter_context(resource)


async def end_of_producer(stream: LoopStream, response: StreamingResponse) -> None:
    """The producer has returned: close its stream, unless it is to stay open."""
    try:
        if stream._head is None:
            await stream.commit()
        if not response.keep_open:
            await stream.close()
    except BaseException as error:  # a hook of the commit, or a body that is too short
        await fail_async(stream, error, stream._end)


def _producing(stream: LoopStream, response: StreamingResponse) -> Awaitable[Any]:
    """The producer at work; no coroutine around it, which every open stream would keep."""
    if response.kind is Kind.ASYNC_ITERABLE:
        return _produce_from(stream, response.producer, response.item_encoder())
    if response.loop:
        return _produce_again(stream, response.producer)
    working: Awaitable[Any] = response.producer(stream)
    return working


async def _produce_again(stream: LoopStream, producer: Callable[..., Awaitable[Any]]) -> None:
    while not stream.closed and stream.connected:
        try:
            check_returned(producer, await producer(stream))
        except Exception as error:
            if not may_go_on(stream, error) or not await report_async(stream, error):
                raise
        # A producer that never waits would keep its reader, and the whole loop, from running.
        await asyncio.sleep(0)


async def _produce_from(
    stream: LoopStream, iterable: AsyncIterable[Any], encode: Callable[[Any], bytes] | None
) -> None:
    iterator = aiter(iterable)
    try:
        async for item in iterator:
            await stream.write(item if encode is None else encode(item))
    finally:
        await close_iterator(iterable, iterator)


async def close_iterator(iterable: object, iterator: object) -> None:
    """Close what was iterated, in the task that iterated it."""
    for opened in (iterator, iterable) if iterator is not iterable else (iterable,):
        close = getattr(opened, "aclose", None)
        if close is not None:
            await close()


async def close_unread(stream: BaseStream, response: StreamingResponse) -> None:
    """Close the iterable of a producer that is not to run, and log what that raises."""
    try:
        await close_iterator(response.producer, response.producer)
    except Exception as fault:
        log_error(stream, "closing the iterable failed", fault)
