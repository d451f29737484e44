"""Compressed bodies on their way to a server.

Rule: what the server is handed in one piece was compressed and flushed in one piece, in the
order in which it was handed over; no engine above knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.compression import Coder
from ..types import Message, Send, Write

LARGE = 256 * 1024  # bytes; to compress so many takes milliseconds, for which the loop is not kept


class CodedSend:
    """ASGI's `send` for one compressed body; several tasks may call it."""

    __slots__ = ("__self__", "_coder", "_is_cut", "_send", "_turn", "args")

    def __init__(self, send: Send, coder: Coder) -> None:
        self._send = send
        self._coder = coder
        self._turn = asyncio.Lock()
        self._is_cut = False  # some of its bytes may never have gone
        self.__self__: Any = getattr(send, "__self__", None)  # whose transport `abort_transport` finds
        self.args: Any = getattr(send, "args", None)  # the same, where it is a partial

    async def __call__(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if message["type"] != "http.response.body" or (more and not body):
            await self._send(message)
            return
        async with self._turn:
            if self._is_cut:
                # No decoder gets over a gap: it is as with a connection that was cut.
                raise BrokenPipeError("a write of this compressed body was cut off; nothing can follow it")
            self._is_cut = True
            await self._send({**message, "body": await self._coded(bytes(body), more)})
            self._is_cut = False

    async def _coded(self, body: bytes, more: bool) -> bytes:
        call = self._coder.chunk if more else self._coder.last
        if len(body) < LARGE:
            return call(body)
        return await asyncio.get_running_loop().run_in_executor(None, call, body)


def coded_write(write: Write, coder: Coder) -> Write:
    """PEP 3333's `write` for one compressed body."""

    def write_coded(chunk: bytes) -> object:
        return write(coder.chunk(chunk)) if chunk else write(chunk)

    return write_coded


class CodedRest:
    """What an application that uses `write` has returned besides, and the end of its compressed body."""

    def __init__(self, body: Iterable[bytes], coder: Coder) -> None:
        self._body, self._coder = body, coder

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            yield self._coder.chunk(chunk) if chunk else chunk
        yield self._coder.last()

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
