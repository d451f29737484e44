"""The client's end of one request: read it as slowly as you like, leave when you like.

    with client.get("/report") as connection:
        assert connection.status == 200
        for chunk in connection: ...

Rule: the two classes are twins, `Connection` for threads and `AsyncConnection` for tasks; what
needs no waiting is shared. Each wait has a bound: `timeout` seconds, where None is the client's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

from werkzeug.datastructures import Headers

from ..core.events import Decoder, ServerSentEvent
from ..errors import EventTooLong
from ._exchange import Exchange, Head, NotOpen
from ._meeting import Deadline
from ._request import count, seconds

READ_LIMIT = 64 * 1024 * 1024  # bytes of a body, or of one event; `http10_limit` holds as many
_CANCEL_SECONDS = 1.0  # for a cancelled application to tidy up

_HEAD = "the head of the response"
_CHUNK = "a chunk or the end of the body"
_EVENT = "a server-sent event or the end of the body"
_CLOSED = "the application to return, and to be closed"


class BaseConnection:
    """What both kinds of connection know without waiting."""

    def __init__(self, exchange: Exchange, timeout: float, forget: Callable[[Any], object]) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self._forget = forget
        self._is_closed = False
        self._decoder: Decoder | None = None
        self._events: deque[ServerSentEvent] = deque()

    @property
    def ended(self) -> bool:
        """Whether the application sends nothing more: the body is complete, cut, or was left."""
        return self._exchange.ended

    @property
    def complete(self) -> bool:
        """Whether the application ended the body as a whole one."""
        return self._exchange.complete

    @property
    def closed(self) -> bool:
        """Whether the application is through: its `close()` was called (WSGI), it has returned (ASGI)."""
        return self._exchange.over

    @property
    def error(self) -> BaseException | None:
        """What the application raised, or the breach of its interface; None without one.

        An error that the test has seen neither here nor raised is raised by `close`.
        """
        return self._exchange.error

    def disconnect(self) -> None:
        """Hang up. Does not wait; nothing happens when the body is complete.

        WSGI: `close()` is called, `write()` raises `BrokenPipeError`. ASGI: `receive` returns
        `http.disconnect`, and `send` returns in silence, or raises `BrokenPipeError` where the
        scope's `spec_version` is 2.4 or later. That error, and one raised `from` it, is no failure of
        the application.
        """
        self._exchange.leave()

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else seconds("timeout", timeout))

    def _decoded(self, chunk: bytes) -> None:
        if self._decoder is None:
            asked = {name.lower(): value for name, value in self._exchange.request.headers}
            self._decoder = Decoder(last_event_id=asked.get("last-event-id", ""), limit=READ_LIMIT)
        try:
            self._events.extend(self._decoder.feed(chunk))
        except EventTooLong as error:
            self._events.extend(error.events)
            raise

    def _too_much(self, limit: int) -> ValueError:
        return ValueError(
            f"the body passed the {limit} bytes of `limit` without an end: read it by next_chunk()"
        )

    def _still_running(self, deadline: Deadline, *, is_stopped: bool) -> TimeoutError:
        error = self._exchange.timed_out(_CLOSED, deadline.timeout)
        left = "the client has left" if self._exchange.left else "the body was complete"
        end = "it was cancelled" if is_stopped else "it still runs"
        return TimeoutError(f"{error}; {left}, and {end}")

    def __repr__(self) -> str:
        request = self._exchange.request
        return f"<{type(self).__name__} {request.method} {request.path}: {self._exchange.so_far()}>"


class Connection(BaseConnection):
    """One request and its response, for threads; made by `Client.get` and `Client.open`.

    Leaving the `with` block closes it. Its methods may be called from any thread.
    """

    @property
    def status(self) -> int:
        """The status code; waits for the head, see `wait_head`."""
        return self._head(None).status

    @property
    def headers(self) -> Headers:
        """The headers, names compared without case; waits for the head, see `wait_head`."""
        return Headers(self._head(None).headers)

    def wait_head(self, timeout: float | None = None) -> int:
        """Wait until the head has left, and return the status code.

        A WSGI application is asked for its first chunk, which PEP 3333 lets the head wait for; the
        chunk is kept. Raises the application's error, and `TimeoutError`.
        """
        return self._head(timeout).status

    def next_chunk(self, timeout: float | None = None) -> bytes | None:
        """The next chunk, as the application cut it; None at the end.

        Raises the application's error, `TimeoutError` when nothing came, and `NotOpen` after
        `disconnect`. Empty chunks are passed over.
        """
        return self._next(self._deadline(timeout), _CHUNK) or None

    def read(self, timeout: float | None = None, *, limit: int = READ_LIMIT) -> bytes:
        """The rest of the body, which must end within `timeout` seconds from now.

        Raises as `next_chunk` does, and `ValueError` beyond `limit` bytes; what was read until
        then can be read again.
        """
        deadline, limit, chunks, size = self._deadline(timeout), count("limit", limit), [], 0
        try:
            while chunk := self._next(deadline, "the end of the body"):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise self._too_much(limit)
        except BaseException:
            self._exchange.put_back(chunks)
            raise
        return b"".join(chunks)

    def next_event(self, timeout: float | None = None) -> ServerSentEvent | None:
        """The next server-sent event; None at the end. Heartbeats are none.

        It takes chunks as `next_chunk` does, and raises as that does; so read a body by one of the two.
        One event may have 64 MiB: then `EventTooLong`.
        """
        deadline = self._deadline(timeout)
        while not self._events:
            chunk = self._next(deadline, _EVENT)
            if not chunk:
                return None
            self._decoded(chunk)
        return self._events.popleft()

    def events(self) -> Iterator[ServerSentEvent]:
        """The server-sent events to the end, each awaited as by `next_event()`."""
        while (event := self.next_event()) is not None:
            yield event

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the application is through with the request, see `closed`.

        It is not asked for anything: read to the end, or disconnect, before. Raises `TimeoutError`.
        """
        deadline = self._deadline(timeout)
        if not self._exchange.until(self._exchange.through, deadline):
            raise self._exchange.not_through(_CLOSED, deadline.timeout)

    def close(self, timeout: float | None = None) -> None:
        """Disconnect, and wait until the application is through.

        Raises its error if the test was not told of it before, and `TimeoutError` if it goes on;
        a task is cancelled then. Idempotent.
        """
        deadline = self._deadline(timeout)
        if self._is_closed:
            return
        self._is_closed = True
        self._forget(self)
        exchange = self._exchange
        exchange.leave()
        if not exchange.until(exchange.through, deadline):
            late = self._still_running(deadline, is_stopped=False)
            if exchange.cancel() and exchange.until(exchange.through, Deadline(_CANCEL_SECONDS)):
                late = self._still_running(deadline, is_stopped=True)
            raise late
        exchange.join()
        exchange.raise_unseen()

    def _head(self, timeout: float | None) -> Head:
        deadline = self._deadline(timeout)
        head = self._exchange.ask(self._exchange.take_head, deadline)
        if head is None:
            raise self._exchange.timed_out(_HEAD, deadline.timeout)
        return head

    def _next(self, deadline: Deadline, wanted: str) -> bytes:
        chunk = self._exchange.ask(self._exchange.take, deadline)
        if chunk is None:
            raise self._exchange.timed_out(wanted, deadline.timeout)
        return chunk

    def __iter__(self) -> Iterator[bytes]:
        """The chunks to the end, each awaited as by `next_chunk()`."""
        while (chunk := self.next_chunk()) is not None:
            yield chunk

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception as fault:
            if error is None:
                raise
            note(error, fault)


class AsyncConnection(BaseConnection):
    """One request and its response, for tasks; made by `AsyncClient.get` and `AsyncClient.open`.

    The same names as `Connection`; what may wait is awaited. `status` and `headers` are there
    once the head has come, and raise `NotOpen` before: await `wait_head`, or a chunk.
    """

    @property
    def status(self) -> int:
        """The status code."""
        return self._come().status

    @property
    def headers(self) -> Headers:
        """The headers, names compared without case."""
        return Headers(self._come().headers)

    async def wait_head(self, timeout: float | None = None) -> int:
        """Wait until the head has left, and return the status code; see `Connection.wait_head`."""
        deadline = self._deadline(timeout)
        head = await self._exchange.ask_async(self._exchange.take_head, deadline)
        if head is None:
            raise self._exchange.timed_out(_HEAD, deadline.timeout)
        return head.status

    async def next_chunk(self, timeout: float | None = None) -> bytes | None:
        """The next chunk, as the application cut it; None at the end. See `Connection.next_chunk`."""
        return await self._next(self._deadline(timeout), _CHUNK) or None

    async def read(self, timeout: float | None = None, *, limit: int = READ_LIMIT) -> bytes:
        """The rest of the body, which must end within `timeout` seconds from now. See `Connection.read`."""
        deadline, limit, chunks, size = self._deadline(timeout), count("limit", limit), [], 0
        try:
            while chunk := await self._next(deadline, "the end of the body"):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise self._too_much(limit)
        except BaseException:
            self._exchange.put_back(chunks)
            raise
        return b"".join(chunks)

    async def next_event(self, timeout: float | None = None) -> ServerSentEvent | None:
        """The next server-sent event; None at the end. See `Connection.next_event`."""
        deadline = self._deadline(timeout)
        while not self._events:
            chunk = await self._next(deadline, _EVENT)
            if not chunk:
                return None
            self._decoded(chunk)
        return self._events.popleft()

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """The server-sent events to the end, each awaited as by `next_event()`."""
        while (event := await self.next_event()) is not None:
            yield event

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the application is through with the request; see `Connection.wait_closed`."""
        deadline = self._deadline(timeout)
        if not await self._exchange.until_async(self._exchange.through, deadline):
            raise self._exchange.not_through(_CLOSED, deadline.timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Disconnect, and wait until the application is through; see `Connection.close`."""
        deadline = self._deadline(timeout)
        if self._is_closed:
            return
        self._is_closed = True
        self._forget(self)
        exchange = self._exchange
        exchange.leave()
        try:
            through = await exchange.until_async(exchange.through, deadline)
        except asyncio.CancelledError:
            exchange.cancel()  # nobody waits any more, but nothing is left behind
            raise
        if not through:
            late = self._still_running(deadline, is_stopped=False)
            if exchange.cancel() and await exchange.until_async(exchange.through, Deadline(_CANCEL_SECONDS)):
                late = self._still_running(deadline, is_stopped=True)
            raise late
        exchange.join()
        exchange.raise_unseen()

    def _come(self) -> Head:
        exchange = self._exchange
        with exchange.turn:
            head = exchange.take_head()
        if head is None:
            raise NotOpen("the head has not come yet: await wait_head(), or a chunk, before you look at it")
        return head

    async def _next(self, deadline: Deadline, wanted: str) -> bytes:
        chunk = await self._exchange.ask_async(self._exchange.take, deadline)
        if chunk is None:
            raise self._exchange.timed_out(wanted, deadline.timeout)
        return chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks to the end, each awaited as by `next_chunk()`."""
        while (chunk := await self.next_chunk()) is not None:
            yield chunk

    async def __aenter__(self) -> AsyncConnection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except Exception as fault:
            if error is None:
                raise
            note(error, fault)


def note(error: BaseException, fault: BaseException) -> None:
    """Say of an error what else went wrong: in a note, or in its traceback before CPython 3.11."""
    if fault is error:
        return
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(f"and then, while closing: {type(fault).__name__}: {fault}")
        return
    _innermost(fault, error).__context__ = None  # neither may be shown within itself
    _innermost(error, fault).__context__ = fault


def _innermost(error: BaseException, bound: BaseException) -> BaseException:
    """The first of the errors that led to this one; not `bound`, nor what led to that."""
    while error.__context__ is not None and error.__context__ is not bound:
        error = error.__context__
    return error
