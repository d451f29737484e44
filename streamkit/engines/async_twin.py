"""The asynchronous twin of a stream that a thread makes, for hooks that stand on the loop.

    scope["streamkit.stream"].on_commit(hook)     # and the response is a description with a sync producer

Rule: such a hook runs on the request's own loop, and its twin's calls on a worker, so neither
waits for itself; the thread that makes the response waits until the hook has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..core.hooks import Hook, check_hook
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import StreamError
from ..types import Chunk
from .ending import finished
from .handed import logged
from .mirror import Mirror
from .ready import keep
from .thread import NOT_IN_HOOK
from .twin import on_worker, result_on

_CLOSED = "the event loop is closed on which a hook of this stream was to run, or to end"


class AsyncTwin(Mirror, AsyncResponseStream):
    """Everything is the other stream's; only the waiting is done here."""

    _origin: ResponseStream

    def __init__(
        self, origin: ResponseStream, loop: asyncio.AbstractEventLoop, *, commits: bool = False
    ) -> None:
        self._stand_for(origin)
        self._loop = loop
        self._commits = commits  # it is for a hook of the commit, for which the origin waits

    def _on_worker(self, call: Callable[[], Any]) -> Awaitable[Any]:
        if self._commits and not self._origin.committed:
            raise StreamError(NOT_IN_HOOK)
        return keep(self._loop.create_task(on_worker(call)))

    def write(self, data: Chunk, /) -> Awaitable[int]:
        return self._on_worker(lambda: self._origin.write(data))

    def commit(self) -> Awaitable[None]:
        return self._on_worker(self._origin.commit)

    def close(self) -> Awaitable[None]:
        return self._on_worker(self._origin.close)

    def abort(self, reason: object = None) -> None:
        self._origin.abort(reason)

    async def wait_committed(self, timeout: float | None = None) -> bool:
        return await on_worker(lambda: self._origin.wait_committed(timeout))

    async def wait_finished(self, timeout: float | None = None) -> bool:
        return await on_worker(lambda: self._origin.wait_finished(timeout))

    @property
    def sync(self) -> ResponseStream:
        return self._origin

    def on_commit(self, hook: Hook) -> Hook:
        check_hook("on_commit", hook, awaits=True)
        self._origin.on_commit(on_loop(hook, self._loop, commits=True))
        return hook

    def on_error(self, hook: Hook) -> Hook:
        check_hook("on_error", hook, awaits=True)
        self._origin.on_error(on_loop(hook, self._loop))
        return hook

    def on_finish(self, hook: Hook) -> Hook:
        check_hook("on_finish", hook, awaits=True)
        self._origin.on_finish(on_loop(hook, self._loop))
        return hook


def on_loop(
    hook: Callable[..., Any], loop: asyncio.AbstractEventLoop, *, commits: bool = False
) -> Callable[..., None]:
    """This hook as one of a stream that a thread makes: it still runs on its loop, and may be awaited."""

    def carried(stream: ResponseStream, *details: object) -> None:
        async def call() -> None:
            await finished(hook(AsyncTwin(stream, loop, commits=commits), *details))

        if asyncio._get_running_loop() is loop:  # added too late: at once, and whoever added it goes on
            keep(loop.create_task(logged(stream, call())))
        else:
            result_on(loop, call(), if_closed=lambda: StreamError(_CLOSED))

    return carried
