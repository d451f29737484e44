"""The synchronous twin of an asynchronous stream, for code in worker threads.

    def export(stream):                     # in a thread
        csv.writer(stream).writerow(...)
    await run_in_threadpool(export, scope["streamkit.stream"].sync)

Rule: a chunk is left to the stream, as by a producer's own thread; whatever else it takes is
carried over to the stream's loop and waited for. So order and backpressure are the stream's. On
that loop's own thread a call would wait for itself: refused.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import copy_context
from datetime import datetime
from typing import Any, TypeVar

from ..core.hooks import Hook, check_hook
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import ClientDisconnected, StreamClosed, StreamError
from ..types import Chunk
from .loop import loop_of_this_thread
from .mirror import Mirror
from .pool import pool
from .thread import NOT_IN_HOOK
from .waits import check_timeout

Result = TypeVar("Result")
_LOG = logging.getLogger("streamkit")

_ON_LOOP = "`.sync` is for worker threads: on the event loop, await the stream itself"
LOOK_SECONDS = 1.0  # between two looks whether the loop that a thread waits for is still there


class _Hooking(threading.local):
    """What this thread is doing."""

    origin: AsyncResponseStream | None = None  # the stream whose hook of the commit runs here


_hooking = _Hooking()


class Twin(Mirror, ResponseStream):
    """Everything is the other stream's; only the waiting is done here."""

    _origin: AsyncResponseStream

    def __init__(self, origin: AsyncResponseStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stand_for(origin)
        self._loop = loop
        if not origin._senders:
            origin._senders = set()

    def _wait_for(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        if loop_of_this_thread() is self._loop:
            coroutine.close()
            raise StreamError(_ON_LOOP)
        return result_on(self._loop, coroutine, if_closed=self._why_not)

    def _why_not(self) -> Exception:
        """What to raise where the loop is closed: after the stream's end, or under it."""
        try:
            self._origin._check_open(0)
        except StreamClosed as error:
            return error
        return ClientDisconnected()

    def _send(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The same for what commits, which a hook of the commit would wait for without end."""
        if _hooking.origin is self._origin and not self._origin.committed:
            coroutine.close()
            raise StreamError(NOT_IN_HOOK)
        return self._wait_for(coroutine)

    def write(self, data: Chunk, /) -> int:
        # Most threads have no loop at all, which costs least to ask.
        if _get_running_loop() is not None and loop_of_this_thread() is self._loop:
            raise StreamError(_ON_LOOP)
        size = self._origin._put_from_thread(data)
        return self._send(self._write(data)) if size is None else size

    async def _write(self, data: Chunk) -> int:
        origin, task = self._origin, asyncio.current_task()
        origin._senders.add(task)
        try:
            return await origin.write(data)
        except asyncio.CancelledError:
            if origin.connected:
                raise
            raise ClientDisconnected from None  # cut off: the client took nothing
        finally:
            origin._senders.discard(task)

    def commit(self) -> None:
        if self._origin._head is not None:
            return  # every `flush` comes here

        async def commit() -> None:
            await self._origin.commit()

        self._send(commit())

    def close(self) -> None:
        if self._origin._is_over:
            return  # its loop may be closed by now
        if self._origin._puts_off_close(for_thread=True):
            self._origin._hear_from_thread()
            if self._origin._awaits_threads():  # asked again: its producer may have looked just before
                return

        async def close() -> None:
            await self._origin.close()

        self._send(close())

    def abort(self, reason: object = None) -> None:
        self._origin._hear_from_thread()
        try:
            self._loop.call_soon_threadsafe(self._origin.abort, reason)
        except RuntimeError:
            pass  # the loop was closed: nothing more of it is sent

    def wait_committed(self, timeout: float | None = None) -> bool:
        check_timeout(timeout)
        if self._origin.outcome is not None:
            return self._origin._head is not None
        return self._wait_for(self._origin.wait_committed(timeout))

    def wait_finished(self, timeout: float | None = None) -> bool:
        check_timeout(timeout)
        if self._origin.outcome is not None:
            return True
        return self._wait_for(self._origin.wait_finished(timeout))

    def stale(
        self, *, etag: str | None = None, last_modified: datetime | None = None, weak: bool = False
    ) -> bool:
        async def stale() -> bool:
            if self._origin._is_stale(etag, last_modified, weak):
                return True
            await self._origin.close()  # hooks of the commit are for this thread too, and may be awaited
            return False

        return self._send(stale())

    # -- hooks: synchronous code, so they run on a worker thread and get this twin

    def on_commit(self, hook: Hook) -> Hook:
        check_hook("on_commit", hook, awaits=False)

        def hooking(stream: Twin) -> None:
            around, _hooking.origin = _hooking.origin, self._origin
            try:
                hook(stream)
            finally:
                _hooking.origin = around

        self._origin.on_commit(self._on_worker(hooking))
        return hook

    def on_error(self, hook: Hook) -> Hook:
        check_hook("on_error", hook, awaits=False)
        self._origin.on_error(self._on_worker(hook))
        return hook

    def on_finish(self, hook: Hook) -> Hook:
        check_hook("on_finish", hook, awaits=False)
        self._origin.on_finish(self._on_worker(hook))
        return hook

    def _on_worker(self, hook: Callable[..., object]) -> Callable[..., Any]:
        def carried(_: AsyncResponseStream, *details: object) -> Any:
            if loop_of_this_thread() is not self._loop:
                return hook(self, *details)  # added too late: at once, by the thread that added it
            return on_worker(lambda: hook(self, *details))

        return carried


def result_on(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Result],
    *,
    if_closed: Callable[[], Exception],
) -> Result:
    """Have that loop run it, and wait in this thread; raises `if_closed()` if the loop ends first."""
    try:
        done = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise if_closed() from None
    while True:
        try:
            return done.result(LOOK_SECONDS)
        except CancelledError:  # with the loop, which leaves its clients at its end
            raise ClientDisconnected from None
        except FutureTimeout:
            is_closed = loop.is_closed()  # asked first: what it did until then is done
            if done.cancelled():  # just now
                raise ClientDisconnected from None
            if done.done():
                return done.result()  # it came just now, or the time-out is its own
            if is_closed:
                _closed(coroutine)
                raise if_closed() from None


def _closed(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close what no loop will run on: what its clean-up raises must not hide why."""
    try:
        coroutine.close()
    except Exception:
        _LOG.exception("tidying up on a closed event loop failed")


async def on_worker(call: Callable[[], Result]) -> Result:
    """Run blocking code on a pooled thread, in a copy of this context, and await its result."""
    loop, context = asyncio.get_running_loop(), copy_context()
    future: asyncio.Future[Result] = loop.create_future()

    def job() -> None:
        try:
            result = context.run(call)
        except BaseException as error:
            outcome: Callable[[], None] = _failing(future, error)
        else:
            outcome = _succeeding(future, result)
        try:
            loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            pass  # the loop was closed: nobody waits for the result any more

    pool.submit(job)
    return await future


def _succeeding(future: asyncio.Future[Result], result: Result) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(result)


def _failing(future: asyncio.Future[Result], error: BaseException) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
