"""A description that is served in two steps: its head first, its body when the framework gets there.

Rule: the description is served by the ASGI adapter alone, in a task of its own; nothing is read
ahead, so a slow client holds the producer up as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from .. import asgi
from ..core.response import StreamingResponse
from ..options import Options
from ..types import Message, Receive, Scope, Send


class Begun:
    """A description whose head is known."""

    def __init__(self, description: StreamingResponse, options: Options | None) -> None:
        self._description = description
        self._options = options
        self._start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._released: asyncio.Future[Send] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, scope: Scope, receive: Receive) -> None:
        """Serve it up to its head; raises what its producer raises until then."""
        loop = asyncio.get_running_loop()
        serving = asgi.respond(self._description, scope, receive, self._send, self._options)
        self._task = task = loop.create_task(serving)
        try:
            first: list[asyncio.Future[Any]] = [task, self._start]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if not self._start.done():
            task.result()  # raises what the producer raised
            raise asyncio.CancelledError("the client left before there was anything to say")

    @property
    def status(self) -> int:
        status: int = self._start.result()["status"]
        return status

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._start.result()["headers"]]

    async def _send(self, message: Message) -> None:
        if not self._start.done():
            self._start.set_result(message)
            return
        send = self._released.result() if self._released.done() else await asyncio.shield(self._released)
        await send(message)

    async def send_body(self, send: Send) -> None:
        """Send the body, to whatever end; raises the producer's error."""
        assert self._task is not None
        if not self._released.done():
            self._released.set_result(send)
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            await self._cancel()
            raise

    async def _cancel(self) -> None:
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as an asynchronous iterator, for frameworks that send by themselves."""
        assert self._task is not None
        handed: asyncio.Queue[tuple[Message, asyncio.Future[None]]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def hand_over(message: Message) -> None:
            taken: asyncio.Future[None] = loop.create_future()
            handed.put_nowait((message, taken))
            await taken

        self._released.set_result(hand_over)
        try:
            while True:
                getting = loop.create_task(handed.get())
                either: list[asyncio.Future[Any]] = [getting, self._task]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    self._task.result()
                    return
                message, taken = getting.result()
                if message.get("body"):
                    yield message["body"]
                if not taken.done():
                    taken.set_result(None)
                if not message.get("more_body"):
                    await asyncio.wait([self._task])
                    self._task.result()
                    return
        finally:
            await self._cancel()
