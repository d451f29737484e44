"""Many rows in one chunk, without letting any of them wait for long.

Rule: the first row goes at once. Then a chunk is sent when `CHUNK` bytes have gathered, or
when a row comes and the chunk before is older than `MOMENT`; an async body also looks at the
clock while it waits for a row. A synchronous one cannot: nobody can interrupt its `next`.
Rows that were made before a failure are sent before it takes its course, once the first has
gone; until then nothing is, so that the failure is a real error.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.producers import is_one_shot
from ..errors import AlreadyServed, ClientDisconnected, StreamClosed

if TYPE_CHECKING:
    from ..core.stream import AsyncResponseStream
    from .rows import Pen

Progress: TypeAlias = Callable[[int, int], object]

# Bytes that make a chunk: two of them fill the 64 KiB that streams and servers hold for a client.
CHUNK = 32 * 1024
MOMENT = 0.1  # seconds; a person takes as much for "at once"

END: Any = object()


class Batches:
    """The body of synchronous rows: an iterable of chunks."""

    def __init__(self, rows: Iterable[Any], pen: Callable[[Any], Pen], on_progress: Progress | None) -> None:
        self.rows = rows
        self.pen = pen
        self.on_progress = on_progress
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        check_unspent(self.rows, self._begun)
        self._begun = True
        rows = iter(self.rows)
        try:
            first = next(rows, END)
            pen = self.pen(first)
            if first is not END:
                put_row(pen, first, 1)
                yield from self._chunks(rows, pen)
            elif chunk := pen.take(True):
                yield chunk
                (self.on_progress or _untold)(0, len(chunk))
        finally:
            close(rows)

    def _chunks(self, rows: Iterator[Any], pen: Pen) -> Iterator[bytes]:
        """The first row, which is in the pen, and all after it."""
        tell = self.on_progress or _untold
        put, take = pen.put, pen.take
        chunk = take()
        yield chunk
        count, size, sent, kind = 1, 0, len(chunk), None
        tell(count, sent)
        latest = monotonic()
        try:
            for row in rows:
                try:  # not by `put_row`: a call a row would cost a tenth of it
                    if row.__class__ is not kind:
                        pen.check(row)
                        kind = row.__class__
                    size += put(row)
                except Exception as error:
                    pen.refuse(row, count + 1, error)
                    raise
                count += 1
                if size >= CHUNK or monotonic() - latest >= MOMENT:
                    chunk = take()
                    yield chunk
                    size = 0
                    sent += len(chunk)
                    tell(count, sent)
                    latest = monotonic()
            chunk = take(True)
        except Exception:
            chunk = take()
            if chunk:
                try:
                    yield chunk
                except GeneratorExit:
                    pass  # the client has left, and what failed is still to be told
                else:
                    tell(count - pen.dropped, sent + len(chunk))
            raise
        if chunk:
            yield chunk
            tell(count, sent + len(chunk))

    def close(self) -> None:
        """Close the rows, read or not."""
        close(self.rows)


class AsyncBatches:
    """The body of asynchronous rows: a producer that writes chunks."""

    def __init__(
        self, rows: AsyncIterable[Any], pen: Callable[[Any], Pen], on_progress: Progress | None
    ) -> None:
        self.rows = rows
        self.pen = pen
        self.on_progress = on_progress
        self._begun = False
        self._closing: asyncio.Task[None] | None = None

    async def __call__(self, stream: AsyncResponseStream) -> None:
        check_unspent(self.rows, self._begun)
        self._begun = True
        rows = aiter(self.rows)
        try:
            first = await anext(rows, END)
            pen = self.pen(first)
            sender = _Sender(stream, pen, self.on_progress)
            try:
                if first is not END:
                    put_row(pen, first, 1)
                    sender.rows = 1
                    await sender.send()
                    await self._send_each(rows, sender)
                await sender.send(last=True)
            finally:
                await sender.stop()
        finally:
            await close_async(rows)
            await self.aclose()

    async def _send_each(self, rows: AsyncIterator[Any], sender: _Sender) -> None:
        pen = sender.pen
        put, kind = pen.put, None
        try:
            async for row in rows:
                try:
                    if row.__class__ is not kind:
                        pen.check(row)
                        kind = row.__class__
                    sender.size += put(row)
                except Exception as error:
                    pen.refuse(row, sender.rows + 1, error)
                    raise
                sender.rows += 1
                if sender.size >= CHUNK or monotonic() - sender.latest >= MOMENT:
                    await sender.send()
                elif sender.timer is None:
                    sender.send_soon()
        except Exception:
            await sender.send_made()
            raise

    async def aclose(self) -> None:
        """Close the rows, read or not."""
        await close_async(self.rows)

    def close(self) -> None:
        """The same, for an engine that cannot wait for it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # no loop here that the rows could belong to
        self._closing = loop.create_task(self.aclose())


class _Sender:
    """Sends what a pen has gathered: when it is told to, or by a timer. One chunk after the other."""

    def __init__(self, stream: AsyncResponseStream, pen: Pen, on_progress: Progress | None) -> None:
        self.stream = stream
        self.pen = pen
        self.on_progress = on_progress
        self.rows = 0
        self.bytes = 0
        self.size = 0  # bytes, about, that have gathered
        self.latest = monotonic()  # when the last chunk went
        self.failed = False
        self.timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    async def send(self, *, last: bool = False) -> None:
        """Send all that has gathered, after what is on its way."""
        self._disarm()
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await sending
        await self._send_gathered(last)

    async def send_made(self) -> None:
        """Send what was made before a failure, unless it was the sending that has failed."""
        if not self.failed:
            with suppress(ClientDisconnected, StreamClosed):  # nobody is there, but the failure is to be told
                await self.send()

    def send_soon(self) -> None:
        """Send all that has gathered when its moment is over, whatever else is waited for."""
        self.timer = asyncio.get_running_loop().call_later(MOMENT, self._send_now)

    def _send_now(self) -> None:
        self.timer = None
        sending = self._sending
        if sending is not None and not sending.done():
            self.send_soon()  # the client is slow: more may gather
        elif sending is None or sending.exception() is None:  # an error waits for `send` to raise it
            self._sending = asyncio.ensure_future(self._send_gathered())

    async def _send_gathered(self, last: bool = False) -> None:
        self.size = 0
        fault: Exception | None = None
        try:
            chunk = self.pen.take(last)
        except Exception as error:
            fault = error
            chunk = self.pen.take() if self.bytes else b""
        try:
            if chunk:
                await self._write(chunk, self.rows - self.pen.dropped)
                if not last:
                    await asyncio.sleep(0)  # rows that never wait must not keep the loop from sending them
            if fault is not None:
                raise fault
        except BaseException:
            self.failed = True
            raise

    async def _write(self, chunk: bytes, rows: int) -> None:
        await self.stream.write(chunk)
        self.latest = monotonic()
        self.bytes += len(chunk)
        if self.on_progress is not None:
            told = self.on_progress(rows, self.bytes)
            if inspect.isawaitable(told):
                await told

    async def stop(self) -> None:
        """Let go of what is on its way; raises what the timer's sending has raised, if nobody heard of it."""
        self._disarm()
        sending = self._sending
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])
            error = None if sending.cancelled() else sending.exception()
            # Of a leave or an end the download knows: raised here, it would keep the rows open, in a ring.
            if error is not None and not isinstance(error, (ClientDisconnected, StreamClosed)):
                raise error

    def _disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def put_row(pen: Pen, row: Any, number: int) -> None:
    """Write a row, or raise what says which one cannot be written."""
    try:
        pen.put(row)
    except Exception as error:
        pen.refuse(row, number, error)
        raise


def check_unspent(source: object, begun: bool) -> None:
    """Refuse to send again what can be read once only: it would be an empty file that looks whole."""
    if begun and is_one_shot(source):
        raise AlreadyServed(f"{source!r} was served before and has nothing left")


def close(opened: object) -> None:
    """Close what can be closed; a second time changes nothing."""
    closing = getattr(opened, "close", None)
    if closing is not None:
        closing()


async def close_async(opened: object) -> None:
    """`close`, awaited."""
    closing = getattr(opened, "aclose", None)
    if closing is not None:
        await closing()


def _untold(rows: int, sent: int) -> None:
    """Nobody asked."""
