"""Many small texts as few chunks: `stream.gather()`.

A producer appends to a plain list, which costs it no lock. Whoever finds that some of it has
waited for a while sends it: a clock for threads, a timer of the loop for tasks.

Rule: whoever sends has the turn. Only the producer waits for it; a clock that does not get it
leaves, and looks again. What may run application code, or wait, is no work for the clock.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..core.gathering import Ready
from ..types import Chunk
from .beside import LoopBeside, ThreadBeside
from .clock import ThreadClock
from .ending import report, report_async
from .logs import log_error
from .pool import pool

if TYPE_CHECKING:
    from .task import LoopStream
    from .thread import ThreadStream

MENDED = "a job failed; an on_error hook has seen to it"
TICK = 0.025  # seconds; what two looks have seen has waited for less than 0.05
YIELD = 0.005  # seconds; so long one thread of Python may keep the others waiting (sys.getswitchinterval)

WAKE = 0.0005  # seconds; in which a server can send a head and a first piece


class _Pace:
    """What a clock wants to know of whom it looks at."""

    tick = TICK
    max_duration = None


gather_clock = ThreadClock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gather_clock.forget)


class _Gathering:
    """What both kinds share."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        stream._apart = True  # where a template is flushed, a chunk ends
        self.parts: list[str] = []
        self.taken = 0
        self.on_first: Callable[[str], object] | None = None
        self._seen = -1  # the number of takings at the last look that found something
        self._error: BaseException | None = None  # of a push beside the producer

    def _take(self) -> str:
        text = self._taken_off()
        first = self.on_first
        if first is not None and text:
            self.on_first = None
            if not self.stream.committed:
                first(text)
        return text

    def _taken_off(self) -> str:
        # Two steps, between which the producer may append: only what was copied is taken off.
        taken = self.parts[:]
        del self.parts[: len(taken)]
        self.taken += 1
        return "".join(taken)

    def _has_waited(self) -> bool:
        """Whether something waits that the last look has seen too."""
        if not self.parts:
            self._seen = -1
            return False
        seen, self._seen = self._seen, self.taken
        return seen == self.taken

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _may_go_on(self) -> bool:
        stream = self.stream
        return not stream.closed and stream.connected and stream.committed and bool(stream._error_calls())


class ThreadGather(_Gathering):
    """Of a stream whose producer runs on a thread."""

    options = _Pace
    _home: Any = None
    _deadline: float | None = None

    def __init__(self, stream: ThreadStream) -> None:
        super().__init__(stream)
        self._turn = threading.Lock()
        self._beside: ThreadBeside | None = None
        self._context = copy_context()
        self._yielded = 0.0  # when the reader was given its turn
        gather_clock.add(self)

    def flush(self, *, last: bool = False) -> None:
        with self._turn:  # also where nothing is left: what was taken beside may be on its way
            if self.parts and self._error is None:
                self._push()
        self._raise_error()
        if last:
            return
        now = time.monotonic()
        if now - self._yielded >= YIELD:
            # A template that need not wait would keep its reader from running. For the first piece
            # it is given time to wake up.
            time.sleep(0 if self._yielded else WAKE)
            self._yielded = now

    def take_back(self) -> str:
        with self._turn:
            return self._taken_off()

    def _push(self) -> None:
        text = self._take()
        if text:
            self.stream.write(text)

    def _look(self, now: float) -> None:
        if self._has_waited() and self.stream._room >= 0:
            context = self._context.copy()  # hooks of the commit see what the producer sees
            push, around = self._push_beside, getattr(self.stream.response, "beside", None)
            if around is not None and self.stream._head is None:
                push = around(push)  # and close what they open on that thread
            try:
                pool.submit(lambda: context.run(push))  # which may wait
            except RuntimeError:
                pass  # the machine has no thread for it now; the clock comes again

    def _push_beside(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._push()
        except BaseException as error:
            self._error = error  # for the producer
        finally:
            self._turn.release()

    def begin(self, key: Any, job: Callable[[], Any]) -> None:
        if self._beside is None:
            self._beside = ThreadBeside(self.stream)
        self._beside.begin(key, job)

    def next(self) -> Ready | None:
        return None if self._beside is None else self._beside.next()

    def is_mended(self, error: BaseException) -> bool:
        if not self._may_go_on() or not report(self.stream, error):
            return False
        log_error(self.stream, MENDED, error)
        return True

    def close(self) -> None:
        gather_clock.streams.discard(self)
        with self._turn:
            self.parts.clear()
        if self._beside is not None:
            self._beside.close()


class LoopGather(_Gathering):
    """Of a stream whose producer is a task."""

    def __init__(self, stream: LoopStream) -> None:
        super().__init__(stream)
        self._loop = stream._loop
        self._timer = self._loop.call_later(TICK, self._look)
        self._pushing: asyncio.Task[None] | None = None
        self._queue: deque[str] = deque()  # pushed meanwhile
        self._beside: LoopBeside | None = None

    def push(self) -> None:
        text = self._take() if self.parts else ""
        if not text:
            return
        if self._pushing is not None:
            self._queue.append(text)
            return
        sent = self.stream.write(self._as_written(text))
        if inspect.iscoroutine(sent):  # hooks of the commit, a full channel, a reader in another thread
            self._pushing = self._loop.create_task(self._push(sent))

    def _as_written(self, text: str) -> Chunk:
        """Bytes, which have a short way, where it is certain already what they are."""
        stream = self.stream
        if stream._bom or stream._commit_hooks or stream._committer is not None:
            return text
        encoded: bytes = stream._encode(text)
        return encoded

    async def _push(self, sent: Awaitable[Any]) -> None:
        try:
            await sent
            while self._queue:
                await self.stream.write(self._queue.popleft())
        except BaseException as error:
            self._error = error  # for the producer
        finally:
            self._pushing = None

    def take_back(self) -> str:
        return self._taken_off()

    async def flush(self, *, last: bool = False) -> None:
        while self._pushing is not None:
            await asyncio.wait([self._pushing])
        self._raise_error()
        if self.parts:
            text = self._take()
            if text:
                await self.stream.write(self._as_written(text))
        if not last:
            await asyncio.sleep(0)  # a template that need not wait would keep its reader from running

    def _look(self) -> None:
        self._timer = self._loop.call_later(TICK, self._look)
        if self._has_waited() and self.stream._room >= 0 and self._pushing is None:
            try:
                self.push()
            except Exception as error:
                self._error = error  # for the producer

    def begin(self, key: Any, job: Coroutine[Any, Any, Any]) -> None:
        if self._beside is None:
            self._beside = LoopBeside(self.stream)
        self._beside.begin(key, job)

    async def next(self) -> Ready | None:
        return None if self._beside is None else await self._beside.next()

    async def is_mended(self, error: BaseException) -> bool:
        if not self._may_go_on() or not await report_async(self.stream, error):
            return False
        log_error(self.stream, MENDED, error)
        return True

    def close(self) -> None:
        self._timer.cancel()
        self.parts.clear()
        if self._pushing is not None:
            self._pushing.cancel()
        if self._beside is not None:
            self._beside.close()
