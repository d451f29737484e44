"""A description that is served in two steps: its head first, its body when the framework gets there.

Rule: the description is served by the ASGI adapter alone, in a task of its own; nothing is read
ahead, so a slow client holds the producer up as ever.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import Context, copy_context
from typing import Any

from .. import asgi
from ..core.headers import Pairs
from ..core.response import StreamingResponse
from ..engines.inbox import Inbox
from ..engines.logs import ASGI_LOG
from ..errors import ClientDisconnected, ProducerError
from ..options import Options
from ..templates import TemplateResponse
from ..types import ASGIHeaders, Message, Receive, Scope, Send

# nginx's word for "the client hung up before there was an answer"; nobody is there to read it.
CLIENT_LEFT = 499

# How long the end of a request waits for a producer that has not heard of the end of its response; less
# than a shutdown gives open streams, and than whoever reads an aborted one has to wait for its end.
LAST_SECONDS = 4.0


def own(description: object) -> StreamingResponse:
    """A copy that an adapter may change; the original counts as served. `ProducerError` if it is none."""
    if not isinstance(description, StreamingResponse):
        raise ProducerError(f"wanted a description, as streamkit.stream() makes one, got {description!r}")
    served = copy.copy(description)  # still knows whether it was served before
    description.begin()
    return served


def is_on_loop() -> bool:
    """Whether an event loop runs on this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class LastOfProducer:
    """Entered by a synchronous producer, which after a leave runs on until its next write.

    Whoever then closes what it uses waits for it, and for the deferred blocks of a page, which run
    beside it; but not for ever.
    """

    def __init__(self, description: StreamingResponse) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = threading.Lock()
        self._running = 0
        self._over = asyncio.Event()
        self._over.set()  # until it is entered: for HEAD, say, the producer never runs
        if not description.kind.is_async:
            description.resources = (self, *description.resources)
            if isinstance(description, TemplateResponse):
                description.beside = self._beside

    def __enter__(self) -> None:
        with self._turn:
            self._running += 1
            self._over.clear()  # nobody waits yet

    def __exit__(self, *exc_info: object) -> None:
        with self._turn:
            self._running -= 1
            if self._running:
                return
        try:
            self._loop.call_soon_threadsafe(self._over.set)
        except RuntimeError:
            pass  # the loop is closed

    def _beside(self, job: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with self:
                return job()

        return run

    async def wait(self) -> None:
        """Wait until it has ended; asynchronous ones the ASGI adapter waits for."""
        if not self._over.is_set():
            try:
                await asyncio.wait_for(self._over.wait(), LAST_SECONDS)
            except asyncio.TimeoutError:  # another class on CPython 3.10
                ASGI_LOG.warning(
                    "a producer went on for more than %g s after its response; what it uses is closed",
                    LAST_SECONDS,
                )


def decoded(fields: ASGIHeaders) -> Pairs:
    """Headers as text; `engines.messages.encoded` is the way back."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


class Begun:
    """A description whose head is known; its producer runs in a copy of `context`."""

    def __init__(
        self, description: StreamingResponse, options: Options | None, context: Context | None = None
    ) -> None:
        self._description = description
        self._options = options
        self._context = copy_context() if context is None else context
        self._loop = asyncio.get_running_loop()
        self._start: asyncio.Future[Message] = self._loop.create_future()
        self._released: asyncio.Future[Send] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._has_body = True

    async def begin(self, scope: Scope, receive: Receive, *, runs_for_head: bool = False) -> bool:
        """Serve it up to its head; False if the client left before there was one.

        Raises what the producer raises until then. `runs_for_head`: only the producer knows its
        head, so it runs for HEAD too, until it has said it.
        """
        self._has_body = not (runs_for_head and scope["method"] == "HEAD")
        if not self._has_body:
            scope = {**scope, "method": "GET", "http_version": "1.1"}
        serving = asgi.respond(self._description, scope, receive, self._send, self._options)
        self._task = task = self._context.run(self._loop.create_task, serving)
        try:
            first: list[asyncio.Future[Any]] = [task, self._start]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.end()
            raise
        if not self._start.done():
            try:
                task.result()  # raises what the producer raised
            except ClientDisconnected:
                pass  # the caller hears of it by what is returned
            return False
        if not self._has_body:
            await self.end()
        return True

    @property
    def status(self) -> int:
        status: int = self._start.result()["status"]
        return status

    @property
    def headers(self) -> Pairs:
        return decoded(self._start.result()["headers"])

    async def _send(self, message: Message) -> None:
        if not self._start.done():
            self._start.set_result(message)
            return
        send = self._released.result() if self._released.done() else await asyncio.shield(self._released)
        await send(message)

    async def send_start(self, send: Send) -> None:
        """Send the head as it was committed."""
        await send(self._start.result())

    async def send_body(self, send: Send) -> None:
        """Send the body, to whatever end; raises the producer's error."""
        assert self._task is not None
        if not self._has_body:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._released.set_result(send)
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            await self.end()
            raise

    async def end(self) -> None:
        """Cut what is not over, and wait until the producer has been told."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    def abandon(self) -> None:
        """Nobody will read the body, or read on. May be called from any thread."""
        if self._task is not None and not self._task.done():
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:
                pass  # the loop is closed, and everything on it over

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as an asynchronous iterator, for frameworks that send by themselves."""
        task, new_future = self._task, self._loop.create_future
        assert task is not None
        if not self._has_body:
            return
        news: asyncio.Future[Message | None] = new_future()
        taken: asyncio.Future[None] = new_future()

        async def hand_over(message: Message) -> None:
            nonlocal taken
            taken = new_future()
            if not news.done():
                news.set_result(message)
            await taken

        def is_over(_: object) -> None:
            if not news.done():
                news.set_result(None)

        task.add_done_callback(is_over)
        self._released.set_result(hand_over)
        try:
            while (message := await news) is not None:
                news = new_future()
                if message.get("body"):
                    yield message["body"]
                taken.set_result(None)
            task.result()
        finally:
            await self.end()


def shared(receive: Receive) -> tuple[Receive, Receive]:
    """One `receive` for two: for the view, which reads the body, and for whom only a leave concerns."""
    inbox = Inbox(receive)

    async def leave() -> Message:
        left = asyncio.Event()
        inbox.watch(left.set, at_once=True)
        try:
            await left.wait()
        finally:
            inbox.stop()
        return {"type": "http.disconnect"}

    return inbox.receive, leave
