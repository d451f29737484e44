"""Jobs that run beside a producer, whose results it takes in the order in which they are ready.

Rule: a job that is begun is never waited for by one who leaves. What a job raises is its result;
where nobody takes it any more, it is logged.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..core.gathering import Ready
from ..errors import ClientDisconnected, StreamClosed
from .logs import log_error, log_of
from .pool import pool

if TYPE_CHECKING:
    from .channel import Channel
    from .reading import Wake
    from .task import LoopStream
    from .thread import ThreadStream

AT_ONCE = 32  # jobs of one stream that run at a time; the others wait for their turn

_Turn: TypeAlias = "tuple[Any, Callable[[], Any], Context]"  # a job by its key, and where it runs

_LATE = "a job failed after the end of its stream"
_ENDED = "the stream was ended before all of it was made"


def _wait_with_writers(stream: Channel, ring: Wake) -> None:
    """Have it ring when the stream ends; raises if it has, or nobody is there to wait for."""
    with stream._mutex:
        if stream._refusal is not None:
            raise stream._refusal
        if stream._abort is not None:
            raise StreamClosed(f"{_ENDED}: {stream._abort}")
        if not stream._connected and not stream.ignore_disconnect:
            raise ClientDisconnected
        if stream._ending is not None:
            raise stream._ending
        if stream.closed:
            raise StreamClosed(_ENDED)
        # Whoever ends a stream wakes its writers, and this is one.
        if ring not in stream._writers:
            stream._writers += (ring,)


class _Late:
    """In whose name a job is logged that outlives its stream, and must not keep it."""

    def __init__(self, stream: Channel) -> None:
        self._log = log_of(stream)

    def log(self, error: BaseException) -> None:
        log_error(cast("Channel", self), _LATE, error)


class ThreadBeside:
    """Jobs on pooled threads."""

    def __init__(self, stream: ThreadStream) -> None:
        self._stream: ThreadStream | None = stream
        self._late = _Late(stream)
        self._lock = threading.Lock()
        self._waiting: deque[_Turn] = deque()
        self._ready: deque[Ready] = deque()
        self._running = 0
        self._open = 0  # begun, and not handed over
        self._closed = False
        self._bell = threading.Event()
        self._ring = self._bell.set

    def begin(self, key: Any, job: Callable[[], Any]) -> None:
        self._open += 1
        with self._lock:
            self._waiting.append((key, job, copy_context()))
        turn = self._turn()
        if turn is not None:
            try:
                pool.submit(partial(self._run, turn))
            except RuntimeError:  # the machine has no thread for it: nobody may wait for it
                self._open -= 1
                with self._lock:
                    self._running -= 1
                raise

    def _turn(self) -> _Turn | None:
        """The next job, if it may begin now."""
        with self._lock:
            if not self._waiting or self._running >= AT_ONCE:
                return None
            self._running += 1
            return self._waiting.popleft()

    def _run(self, turn: _Turn | None) -> None:
        """Run this job, and on the same thread those that have waited for it: there may be no other."""
        while turn is not None:
            self._run_one(*turn)
            turn = self._turn()

    def _run_one(self, key: Any, job: Callable[[], Any], context: Context) -> None:
        try:
            ready = Ready(key, context.run(job), None)
        except BaseException as error:
            ready = Ready(key, None, error)
        with self._lock:
            self._running -= 1
            self._ready.append(ready)
            late = self._closed
        self._bell.set()
        if late and ready.error is not None:
            self._late.log(ready.error)

    def next(self) -> Ready | None:
        """Wait for the next; `ClientDisconnected` or `StreamClosed` where there is nobody to wait for."""
        stream = self._stream
        assert stream is not None
        while self._open:
            self._bell.clear()
            with self._lock:
                if self._ready:
                    self._open -= 1
                    return self._ready.popleft()
            _wait_with_writers(stream, self._ring)
            self._bell.wait()
        return None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._waiting.clear()
            untold = [ready.error for ready in self._ready if ready.error is not None]
            self._ready.clear()
        self._stream = None  # a job that hangs keeps nothing of it
        for error in untold:
            self._late.log(error)


class LoopBeside:
    """Jobs as tasks of the stream's loop."""

    def __init__(self, stream: LoopStream) -> None:
        self._stream = stream
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready: deque[Ready] = deque()
        self._open = 0
        self._closed = False
        self._bell: asyncio.Future[None] | None = None

    def begin(self, key: Any, job: Coroutine[Any, Any, Any]) -> None:
        self._open += 1
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(key, task))

    def _done(self, key: Any, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            error: BaseException | None = RuntimeError("the job was cancelled")
        else:
            error = task.exception()
        if self._closed:
            if error is not None and not task.cancelled():
                log_error(self._stream, _LATE, error)
            return
        self._ready.append(Ready(key, None if error is not None else task.result(), error))
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def next(self) -> Ready | None:
        """Wait for the next; raises as that of threads. A task whose client leaves is cancelled here, too."""
        while self._open:
            if self._ready:
                self._open -= 1
                return self._ready.popleft()
            self._bell = asyncio.get_running_loop().create_future()
            _wait_with_writers(self._stream, self._stream._waker(self._bell))
            await self._bell
        return None

    def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for ready in self._ready:
            if ready.error is not None:
                log_error(self._stream, _LATE, ready.error)
        self._ready.clear()
