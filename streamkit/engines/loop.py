"""The event loops that streams are made on.

`loop_thread` is one on a thread of its own, for asynchronous producers under WSGI; `Loops` knows
the one that a middleware serves.

Rule: one a process, started on first use and made anew after a fork; it ends with the
interpreter. Whoever gives it work does so with `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib
import logging
import os
import selectors
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent import futures
from contextvars import Context
from typing import Any

from ..errors import EngineUnavailable

LOG = logging.getLogger("streamkit")


class LoopThread:
    """The shared loop; `running()` starts it if need be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and thread.is_alive():
            return loop
        begun: threading.Thread | None = None
        with self._lock:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None or (thread.ident is not None and not thread.is_alive()):
                if thread is not None and loop is not None:
                    loop.close()
                if thread is not None or loop is None:
                    # In a context of its own: what a loop is made with, its own handles keep for good.
                    self._loop = loop = Context().run(_new_loop)
                begun = threading.Thread(target=_run, args=(loop,), name="streamkit-loop", daemon=True)
                self._thread = begun
        if begun is not None:
            # Not under the lock: it waits, and where the lock was made before gevent patched the process,
            # the next greenlet would stop them all for it. What the loop is given meanwhile it keeps.
            try:
                begun.start()
            except Exception:  # the machine has no thread for it; the next who asks starts another
                self._thread = None
                raise
        return loop

    def is_elsewhere(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this is the loop, and runs on another thread."""
        return loop is self._loop and threading.current_thread() is not self._thread

    def stop(self) -> None:
        """End the loop and its thread; what still runs there is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(timeout=1.0)
        except futures.TimeoutError:
            return  # a producer keeps the loop from running: it ends with the process
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)
        if not thread.is_alive():
            loop.close()

    def forget(self) -> None:
        """After a fork: the thread exists in the parent only."""
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop for a thread of its own, or for what gevent makes of one."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is None or not gevent.is_module_patched("threading"):
        return asyncio.new_event_loop()
    return _unnoted_loop()


def _unnoted_loop() -> asyncio.AbstractEventLoop:
    """A loop that takes back asyncio's note of the running loop wherever it lets other greenlets run.

    All greenlets of its thread would find the note: Django then refuses every query, asgiref every
    asynchronous view, and `asyncio.run` to run.
    """

    others: asyncio.AbstractEventLoop | None = None  # of another greenlet, amid its `asyncio.run`

    @contextlib.contextmanager
    def unnoted() -> Iterator[None]:
        nonlocal others
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(others if others is not None and others.is_running() else None)
        try:
            yield
        finally:
            others = asyncio._get_running_loop()
            asyncio._set_running_loop(loop)

    class Selector(selectors.DefaultSelector):  # gevent's own, by now
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            with unnoted():
                return super().select(timeout)

    class Loop(asyncio.SelectorEventLoop):
        def run_in_executor(self, *job: Any) -> Any:  # type: ignore[override]
            with unnoted():  # to start a thread is to wait for it
                return super().run_in_executor(*job)

    return Loop(Selector())


def _run(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            # Of one task, which has it: the streams of all others go on.
            LOG.warning(
                "a task of the shared loop wanted the process to exit, which it cannot", exc_info=error
            )
        else:
            return


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=0.5)


loop_thread = LoopThread()
atexit.register(loop_thread.stop)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=loop_thread.forget)


def loop_of_this_thread() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs on this thread, or greenlet.

    Under gevent and eventlet the shared loop runs on a greenlet, and what asyncio notes for a
    thread it finds on all greenlets of it.
    """
    loop = asyncio._get_running_loop()
    return None if loop is None or loop_thread.is_elsewhere(loop) else loop


class Loops:
    """The loop that a middleware serves, for those who ask from a worker thread.

    To ask for the running loop costs CPython 3.10 and 3.11 a system call, so it is noted with the
    first request on it and whenever a stream is committed.
    """

    __slots__ = ("_end", "_then", "is_running", "loop")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_running: Callable[[], bool] = lambda: False  # whether the noted loop still runs
        self._then: Callable[[], None] = lambda: None

    def note(self) -> None:
        """Note the running loop; `EngineUnavailable` on trio, which has none of asyncio's."""
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            raise EngineUnavailable(
                "wanted an asyncio event loop, and none runs here: under hypercorn's trio worker, use "
                "`--worker-class asyncio` or `uvloop`"
            ) from None
        self.is_running = self.loop.is_running

    async def note_until_end(self, then: Callable[[], None]) -> None:
        """Note the running loop, and call `then` when it shuts down, or is found closed."""
        self.note()
        self._then = then
        # A loop that shuts down closes the asynchronous generators that were begun on it.
        self._end = _at_end(then)
        await self._end.__anext__()

    def known(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the calling worker thread, where that can be told."""
        if "anyio.to_thread" in sys.modules:
            anyio = importlib.import_module("anyio.from_thread")
            try:
                loop: asyncio.AbstractEventLoop = anyio.run_sync(asyncio.get_running_loop)
            except RuntimeError:
                pass  # not one of anyio's threads
            else:
                return loop
        asgiref = sys.modules.get("asgiref.sync")
        if asgiref is not None:
            told = getattr(asgiref.SyncToAsync.threadlocal, "main_event_loop", None)
            if told is not None and told.is_running():
                return told  # type: ignore[no-any-return]
        if self.is_running():
            return self.loop
        if self.loop is not None and self.loop.is_closed():
            self._then()  # it was closed without a shutdown: the next request is the first on another
        return None


async def _at_end(then: Callable[[], None]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        then()
