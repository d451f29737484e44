"""The two clients: one application, any number of requests to it at a time.

Rule: whatever a client has begun (threads, tasks, a loop, the lifespan) ends with its `close`,
which says what did not. All waits are those of `_meeting`, with `await` or without.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

from ..errors import OptionsError
from ..middleware import Kind, kind_of_app
from ._exchange import Exchange, NotOpen
from ._meeting import Deadline
from ._request import Fields, Query, count, request_of, seconds
from .asgi import ASGIExchange, Lifespan, LoopThread
from .connection import _CANCEL_SECONDS, AsyncConnection, BaseConnection, Connection, note
from .wsgi import WSGIExchange

_CLOSED_DOORS = {
    "new": "open it first, with `with`",
    "starting": "its application has not started yet",
    "stopping": "it was told to shut down",
    "closed": "it is closed",
}

C = TypeVar("C", bound=BaseConnection)


class BaseClient(Generic[C]):
    """What both clients share: the application, and how a request to it is begun."""

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        kind: Kind | None = None,
        timeout: float = 5.0,
        read_ahead: int = 0,
        lifespan: Literal["auto", "on", "off"] = "auto",
    ) -> None:
        faults = []
        if kind not in (None, "wsgi", "asgi"):
            faults.append(f"kind: wanted 'wsgi', 'asgi' or None, got {kind!r}")
        if lifespan not in ("auto", "on", "off"):
            faults.append(f"lifespan: wanted 'auto', 'on' or 'off', got {lifespan!r}")
        if faults:
            raise OptionsError(faults)
        told = kind_of_app(app) if kind is None or not callable(app) else kind
        self.app = app
        self.kind: Kind = told
        self.timeout = seconds("timeout", timeout)
        self.read_ahead = count("read_ahead", read_ahead)
        self._connections: list[C] = []
        self._phase: Literal["new", "starting", "open", "stopping", "closed"] = "new"
        self._lifespan: Lifespan | None = None
        if told == "asgi" and lifespan != "off":
            self._lifespan = Lifespan(app, required=lifespan == "on")

    @property
    def state(self) -> Mapping[str, Any]:
        """What the application put into its lifespan's `state`; each request gets a copy."""
        return {} if self._lifespan is None else self._lifespan.state

    def get(
        self,
        path: str,
        *,
        query: Query | None = None,
        headers: Fields | None = None,
        body: bytes = b"",
        http_version: str = "1.1",
        read_ahead: int | None = None,
        environ_extra: Mapping[str, Any] | None = None,
        scope_extra: Mapping[str, Any] | None = None,
    ) -> C:
        """Begin a GET request; see `open`."""
        return self.open(
            "GET",
            path,
            query=query,
            headers=headers,
            body=body,
            http_version=http_version,
            read_ahead=read_ahead,
            environ_extra=environ_extra,
            scope_extra=scope_extra,
        )

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Fields | None = None,
        body: bytes = b"",
        http_version: str = "1.1",
        read_ahead: int | None = None,
        environ_extra: Mapping[str, Any] | None = None,
        scope_extra: Mapping[str, Any] | None = None,
    ) -> C:
        """Begin a request, and return its connection without waiting for anything.

        - `path` begins with "/" and may have a query; what needs quoting is quoted.
        - `query`: text, a mapping, or pairs. `headers`: a mapping, or pairs.
        - `http_version`: "1.0", "1.1", "2" or "3", as the application is to see it.
        - `read_ahead`: chunks that may be made before the test asks; None is the client's own.
        - `environ_extra`, `scope_extra`: laid over the WSGI environ, or the ASGI scope.

        Raises `OptionsError` for what no client could send, and `NotOpen` outside the `with`
        block of the client and after `shutdown`.
        """
        extras = {"environ_extra": environ_extra, "scope_extra": scope_extra}
        request = request_of(method, path, query, headers, body, http_version, extras)
        ahead = self.read_ahead if read_ahead is None else count("read_ahead", read_ahead)
        if self._phase != "open":
            raise NotOpen(f"this client takes no requests: {_CLOSED_DOORS[self._phase]}")
        exchange: Exchange
        if self.kind == "wsgi":
            exchange = wsgi = WSGIExchange(self.app, request, request.environ(environ_extra), ahead)
            wsgi.begin()
        else:
            scope = request.scope(scope_extra, self.state)
            exchange = asgi = ASGIExchange(self.app, request, scope, ahead)
            self._begin(asgi.begin)
        connection = self._connection(exchange)
        self._connections.append(connection)
        return connection

    @abstractmethod
    def _connection(self, exchange: Exchange) -> C: ...

    @abstractmethod
    def _begin(self, begin: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        """Call `begin(loop)` on the loop's thread."""

    def _forget(self, connection: C) -> None:
        if connection in self._connections:
            self._connections.remove(connection)

    def _start(self) -> None:
        if self._phase != "new":
            raise NotOpen("a client is opened once: make a new one")
        self._phase = "starting"

    def _stop(self) -> Lifespan | None:
        """Take no more requests, and tell the application; its lifespan, if it has one."""
        if self._phase == "open":
            self._phase = "stopping"
        lifespan = self._lifespan
        if lifespan is None or not lifespan.is_supported:
            return None
        lifespan.stop()
        return lifespan

    def _hang_up(self) -> list[C]:
        if self._phase == "new":
            self._lifespan = None  # it has not begun
        self._phase = "closed"
        connections = list(self._connections)
        for connection in connections:
            connection.disconnect()
        return connections


class Client(BaseClient[Connection]):
    """Drive a WSGI or ASGI application from a thread.

    - `kind`: "wsgi" or "asgi", where it cannot be told from the application.
    - `timeout`: seconds that each wait may last, where nothing else is said.
    - `read_ahead`: chunks that the application may make before the test asks for them.
    - `lifespan` (ASGI): "auto" runs it where the application has one, "on" wants one, "off" runs none.

    A WSGI request runs on a thread of its own, ASGI requests on one loop in a thread of its own.
    Raises `NotAnApplication` and `OptionsError`.
    """

    _loop: LoopThread | None = None

    def shutdown(self, *, wait: bool = False, timeout: float | None = None) -> bool:
        """Start a shutdown while connections are open; whether the application was told.

        ASGI applications with a lifespan get `lifespan.shutdown`. For others the interface has no
        such word: servers send a signal, tests call `streamkit.shutdown`. No more requests are
        taken. With `wait`, waits for the answer: raises `LifespanFailed` and `TimeoutError`.
        """
        deadline = Deadline(self.timeout if timeout is None else seconds("timeout", timeout))
        lifespan = self._stop()
        if lifespan is not None and wait and not lifespan.until(lifespan.stopped, deadline):
            raise lifespan.timed_out("shutdown", deadline.timeout)
        return lifespan is not None

    def close(self) -> None:
        """Disconnect and close all connections, end the lifespan, the loop, and all threads.

        Raises the first error that the test was not told of, `LifespanFailed`, and `TimeoutError`
        for what does not end. Idempotent.
        """
        deadline, faults = Deadline(self.timeout), Faults()
        for connection in self._hang_up():
            with faults:
                connection.close(deadline.left())
        with faults:
            self._end_lifespan()
        loop, self._loop = self._loop, None
        if loop is not None:
            with faults:
                loop.stop(self.timeout)
        faults.raise_first()

    def _end_lifespan(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is None:
            return
        deadline = Deadline(self.timeout if lifespan.is_supported else 0.0)
        lifespan.stop()
        faults = Faults()
        with faults:
            if not lifespan.until(lifespan.stopped, deadline):
                raise lifespan.timed_out("shutdown", deadline.timeout)
        if not lifespan.until(lifespan.through, deadline):
            lifespan.cancel()
            lifespan.until(lifespan.through, Deadline(_CANCEL_SECONDS))
        with faults:
            lifespan.ended()
        faults.raise_first()

    def _connection(self, exchange: Exchange) -> Connection:
        return Connection(exchange, self.timeout, self._forget)

    def _begin(self, begin: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        assert self._loop is not None
        loop = self._loop.loop
        loop.call_soon_threadsafe(begin, loop)  # in a copy of the test's context

    def __enter__(self) -> Client:
        self._start()
        if self.kind == "asgi":
            self._loop = LoopThread()
        try:
            lifespan, deadline = self._lifespan, Deadline(self.timeout)
            if lifespan is not None:
                self._begin(lifespan.begin)
                if not lifespan.until(lifespan.started, deadline):
                    raise lifespan.timed_out("startup", deadline.timeout)
        except BaseException as error:
            self._give_up(error)
            raise
        self._phase = "open"
        return self

    def _give_up(self, error: BaseException) -> None:
        try:
            self.close()
        except Exception as fault:
            note(error, fault)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._give_up(error)


class AsyncClient(BaseClient[AsyncConnection]):
    """Drive an ASGI or WSGI application from a task (asyncio).

    The same names and arguments as `Client`; what may wait is awaited. An ASGI application runs
    on the test's own loop, so a bound holds only while it does not block that; a WSGI request runs
    on a thread of its own. Tasks that the application itself leaves behind are the test's to end.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    async def shutdown(self, *, wait: bool = False, timeout: float | None = None) -> bool:
        """Start a shutdown while connections are open; see `Client.shutdown`."""
        deadline = Deadline(self.timeout if timeout is None else seconds("timeout", timeout))
        lifespan = self._stop()
        if lifespan is not None and wait and not await lifespan.until_async(lifespan.stopped, deadline):
            raise lifespan.timed_out("shutdown", deadline.timeout)
        return lifespan is not None

    async def close(self) -> None:
        """Disconnect and close all connections, end the lifespan; see `Client.close`."""
        deadline, faults = Deadline(self.timeout), Faults()
        for connection in self._hang_up():
            with faults:
                await connection.close(deadline.left())
        with faults:
            await self._end_lifespan()
        faults.raise_first()

    async def _end_lifespan(self) -> None:
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is None:
            return
        deadline = Deadline(self.timeout if lifespan.is_supported else 0.0)
        lifespan.stop()
        faults = Faults()
        with faults:
            if not await lifespan.until_async(lifespan.stopped, deadline):
                raise lifespan.timed_out("shutdown", deadline.timeout)
        if not await lifespan.until_async(lifespan.through, deadline):
            lifespan.cancel()
            await lifespan.until_async(lifespan.through, Deadline(_CANCEL_SECONDS))
        with faults:
            lifespan.ended()
        faults.raise_first()

    def _connection(self, exchange: Exchange) -> AsyncConnection:
        return AsyncConnection(exchange, self.timeout, self._forget)

    def _begin(self, begin: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        assert self._loop is not None
        begin(self._loop)

    async def __aenter__(self) -> AsyncClient:
        self._start()
        self._loop = asyncio.get_running_loop()
        try:
            lifespan, deadline = self._lifespan, Deadline(self.timeout)
            if lifespan is not None:
                self._begin(lifespan.begin)
                if not await lifespan.until_async(lifespan.started, deadline):
                    raise lifespan.timed_out("startup", deadline.timeout)
        except BaseException as error:
            await self._give_up(error)
            raise
        self._phase = "open"
        return self

    async def _give_up(self, error: BaseException) -> None:
        try:
            await self.close()
        except Exception as fault:
            note(error, fault)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._give_up(error)


class Faults:
    """What went wrong in several steps, each of which must be taken all the same."""

    def __init__(self) -> None:
        self._faults: list[BaseException] = []

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is not None:
            self._faults.append(error)
        return True

    def raise_first(self) -> None:
        """Raise the first one, with a note of the others."""
        if self._faults:
            first, *others = self._faults
            for other in others:
                note(first, other)
            raise first
