"""Iterables, advanced by whoever reads them: no engine, no thread, no task.

The stream is a channel that its own reader fills: each chunk is written to it and taken
out again, so the head, the checks, the errors and the end are those of every stream.

Rule: an iterable is closed by the thread or task that advanced it, on every path.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    nullcontext,
)
from contextvars import Context
from typing import Any

from ..core.context import awaited_in, inherited, rest_in, steps_of
from ..errors import ClientDisconnected, ProtocolViolation, StreamClosed
from ..types import Chunk
from . import producing, thread
from .ending import fail, fail_async
from .logs import log_error
from .ready import turn
from .task import TaskStream
from .thread import ThreadStream

UNBOUNDED = sys.maxsize  # nobody else reads: what waits here was made on request
_END: Any = object()
_ELSEWHERE = "the stream was closed while its iterable had more"
_NOTHING = nullcontext()  # what needs no leaving, where there are no resources

# Neither an iterable nor a server's `send` need ever suspend: every so many chunks the loop
# gets its turn, and a leave is noticed.
TURNS = 32


class Pull:
    """A synchronous iterable and its stream, as one reader (WSGI)."""

    def __init__(self, stream: ThreadStream, context: Context | None) -> None:
        self.stream = stream
        self._context = context
        assert stream.response is not None
        self._opened: AbstractContextManager[Any] = ExitStack() if stream.response.resources else _NOTHING
        self._iterator: Iterator[Chunk] | None = None
        self._is_open = False

    def wait_head(self, timeout: float | None = None) -> bool:
        """Advance until the head is fixed, or the iterable has ended."""
        stream = self.stream
        stream._pulling = True
        while stream._head is None and not stream._done:
            self._run(self._advance)
        stream._pulling = False
        return True

    def next_chunk(self) -> bytes | None:
        """What comes next; None at the end. Raises the iterable's error."""
        stream = self.stream
        while not stream._chunks:
            if stream._done or not stream._connected:
                if self._is_open:  # it was ended from elsewhere, or its client was given up
                    closed = StreamClosed(_ELSEWHERE) if stream._connected else ClientDisconnected()
                    self._run(self._close, stream._ending or stream._error or closed)
                stream.raise_error()
                if stream._given_up and stream._ending is not None:
                    raise stream._ending  # the client may come to life again, and take half a body for whole
                return None
            stream._pulling = True
            if self._iterator is None:
                self._run(self._advance)
                stream._pulling = False
                continue
            # Written out: this is what each chunk goes through.
            try:
                if self._context is None:
                    chunk = next(self._iterator, _END)
                else:
                    chunk = self._context.run(next, self._iterator, _END)
            except BaseException as error:
                self._run(self._fail, error)
                stream._pulling = False
                continue
            if stream._direct and not stream._chunks:
                sent = chunk if type(chunk) is bytes else b"" if stream.foreign else stream._utf8(chunk)
                if sent:
                    stream._pulling = False
                    stream._hand_over(sent)
                    return sent
            self._run(self._put, chunk)
            stream._pulling = False
        with stream._mutex:
            return stream._take()

    def _run(self, step: Callable[..., object], *arguments: Any) -> None:
        if self._context is None:
            step(*arguments)
        else:
            self._context.run(step, *arguments)

    def _advance(self) -> None:
        """One step, by way of the stream, which the first chunk commits."""
        response = self.stream.response
        assert response is not None
        try:
            if self._iterator is None:
                self._is_open = True
                if isinstance(self._opened, ExitStack):
                    for resource in response.resources:
                        self._opened.enter_context(resource)
                self._iterator = iter(response.producer)
            chunk = next(self._iterator, _END)
        except BaseException as error:
            self._fail(error)
            return
        self._put(chunk)

    def _put(self, chunk: Any) -> None:
        """Send it the stream's way; or end the stream, if that was the last."""
        stream = self.stream
        response = stream.response
        assert response is not None
        try:
            if chunk is not _END:
                if stream.foreign and not isinstance(chunk, bytes):
                    raise ProtocolViolation(f"wanted bytes from the application (PEP 3333), got {chunk!r}")
                stream.write(chunk)
                return
            self._is_open = False
            with self._opened:
                thread.close_iterator(response.producer, self._iterator)
                stream.commit()  # its hooks find the resources open, as they do at a first chunk
        except BaseException as error:
            self._fail(error)
            return
        thread.end_of_producer(stream, response)

    def _fail(self, error: BaseException) -> None:
        """The iterable has failed, or what it gave could not be sent; a resource may take that on itself."""
        stream = self.stream
        if not self._close(error):
            fail(stream, error, stream._end)
            return
        assert stream.response is not None
        thread.end_of_producer(stream, stream.response)

    def leave(self) -> None:
        """The reader is gone: close the iterable here and now."""
        self.stream.leave()
        self._run(self._close, ClientDisconnected())

    abandon = leave  # no lock of this thread's can be held: nobody else writes

    def _close(self, error: BaseException) -> bool:
        """Close what is open, and log what that raises; whether a resource has taken the error on itself."""
        if not self._is_open:
            return False
        self._is_open = False
        response = self.stream.response
        assert response is not None
        try:
            thread.close_iterator(response.producer, self._iterator)
        except Exception as fault:
            log_error(self.stream, "closing the iterable failed", fault)
        try:
            return bool(self._opened.__exit__(type(error), error, error.__traceback__))
        except Exception as fault:
            if fault is not error:
                log_error(self.stream, "leaving a resource failed", fault)
            return False


class AsyncPull:
    """An asynchronous iterable and its stream, as one reader (ASGI)."""

    def __init__(self, stream: TaskStream) -> None:
        self.stream = stream
        # A server may begin the next request of a connection in the context of this one's task.
        self._context = inherited(stream.options.excluded_context)
        assert stream.response is not None
        self._opened: AbstractAsyncContextManager[Any] = (
            AsyncExitStack() if stream.response.resources else _NOTHING
        )
        self._encode = stream.response.item_encoder()
        self._turns = 0
        self._iterator: AsyncIterator[Chunk] | None = None
        self._is_open = False

    async def wait_head_async(self, timeout: float | None = None) -> bool:
        """Advance until the head is fixed, or the iterable has ended."""
        stream = self.stream
        stream._pulling = True
        while stream._head is None and not stream._done:
            await awaited_in(self._context, self._advance())
        stream._pulling = False
        return True

    async def next_chunk_async(self) -> bytes | None:
        """What comes next; None at the end. Raises the iterable's error."""
        stream = self.stream
        while not stream._chunks:
            if stream._done:
                stream.raise_error()
                return None
            self._turns += 1
            if not self._turns % TURNS:
                await turn()
            stream._pulling = True
            if self._iterator is None:
                await awaited_in(self._context, self._advance())
                stream._pulling = False
                continue
            # Written out: this is what each chunk goes through.
            try:
                steps = steps_of(self._iterator.__anext__())
                try:
                    waits_for = self._context.run(next, steps)
                except StopIteration as end:
                    chunk = end.value
                else:
                    chunk = await rest_in(self._context, steps, waits_for)
                if self._encode is not None:
                    chunk = self._encode(chunk)
            except BaseException as error:
                await awaited_in(self._context, self._end(error))
                continue
            stream._pulling = False
            # Else it goes behind what was written beside the iterable meanwhile.
            if stream._direct and not stream._chunks:
                sent = chunk if type(chunk) is bytes else stream._utf8(chunk)
                if sent:
                    stream._hand_over(sent)
                    return sent
            await awaited_in(self._context, self._write(chunk))
        with stream._mutex:
            return stream._take()

    async def _advance(self) -> None:
        """One step, by way of the stream, which the first chunk commits."""
        response = self.stream.response
        assert response is not None
        try:
            if self._iterator is None:
                self._is_open = True
                if isinstance(self._opened, AsyncExitStack):
                    await producing.enter_all(self._opened, response.resources)
                self._iterator = aiter(response.producer)
        except BaseException as error:
            await self._end(error, of_iterable=False)
            return
        try:
            chunk = await anext(self._iterator)
            if self._encode is not None:
                chunk = self._encode(chunk)
        except BaseException as error:
            await self._end(error)
            return
        await self._write(chunk)

    async def _write(self, chunk: Any) -> None:
        try:
            await self.stream.write(chunk)
        except BaseException as error:
            await self._end(error, of_iterable=False)

    async def _end(self, error: BaseException, *, of_iterable: bool = True) -> None:
        """The iterable has come to its end, or failed; or what it gave could not be sent."""
        stream = self.stream
        response = stream.response
        assert response is not None
        try:
            if not of_iterable or not isinstance(error, StopAsyncIteration):
                raise error
            self._is_open = False
            async with self._opened:
                await producing.close_iterator(response.producer, self._iterator)
                await stream.commit()  # its hooks find the resources open, as they do at a first chunk
        except BaseException as fault:
            del error  # its traceback refers to this frame
            stream.stop_committing()
            taken = await self._close(fault)
            stream._pulling = False
            if isinstance(fault, asyncio.CancelledError):
                raise
            if not taken:
                await fail_async(stream, fault, stream._end)
                return
        await producing.end_of_producer(stream, response)
        stream._pulling = False

    async def close(self, error: BaseException) -> bool:
        """Close what is open, and log what that raises; whether a resource has taken the error on itself."""
        return self._is_open and await awaited_in(self._context, self._close(error))

    async def _close(self, error: BaseException) -> bool:
        if not self._is_open:
            return False
        self._is_open = False
        response = self.stream.response
        assert response is not None
        try:
            await producing.close_iterator(response.producer, self._iterator)
        except Exception as fault:
            log_error(self.stream, "closing the iterable failed", fault)
        try:
            return bool(await self._opened.__aexit__(type(error), error, error.__traceback__))
        except Exception as fault:
            if fault is not error:
                log_error(self.stream, "leaving a resource failed", fault)
            return False
