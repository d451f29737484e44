"""An asynchronous producer under WSGI: on the shared loop thread, read by the server's.

Rule: whatever touches the producer is carried to its loop; the reader waits on locks, as for a thread.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from functools import partial
from typing import Any

from ..errors import StreamEnded
from .ending import outcome_of, settle_async
from .late import close_told_async
from .loop import loop_thread
from .producing import CLEANUP_SECONDS, start
from .reading import Wake, resolve
from .ready import keep, ready_on
from .task import LoopStream


class BridgeStream(LoopStream):
    """Producer on the shared loop thread, reader in the server's thread."""

    _cancelled = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop = loop_thread.running()
        self._ready = ready_on(self._loop)
        self._task: asyncio.Task[None] | None = None

    def _close_late(self) -> None:
        self._loop.call_soon_threadsafe(close_told_async, self)

    def _waker(self, future: asyncio.Future[None]) -> Wake:
        return partial(self._loop.call_soon_threadsafe, resolve, future)

    def start(self, context: Context) -> None:
        """Run the stream's producer on the shared loop, in this context."""
        self._loop.call_soon_threadsafe(self._start, context)

    def _start(self, context: Context) -> None:
        self._task = start(self, context)
        keep(self._task)
        if not self._connected and not self.ignore_disconnect:
            self._cancel()

    def leave(self) -> None:
        super().leave()
        if not self.ignore_disconnect:
            self._cancel_soon()

    def end_early(self, ending: StreamEnded) -> None:
        super().end_early(ending)
        self._cancel_soon()

    def _cancel_soon(self) -> None:
        """After the turn in which a write that waits hears of it."""
        self._loop.call_soon_threadsafe(lambda: self._loop.call_soon(self._cancel))

    def _cancel(self, *, was_told: bool = False) -> None:
        if self._task is None or self._cancelled or (self._done and self._ending is None):
            return
        if self._heard == id(self._task) and not was_told:
            self._loop.call_later(CLEANUP_SECONDS, partial(self._cancel, was_told=True))
            return
        self._cancelled = True  # once: a second one would strike the producer while it tidies up
        self._task.cancel()

    def _settle_elsewhere(self) -> None:
        asyncio.run_coroutine_threadsafe(settle_async(self, outcome_of(self)), self._loop)
