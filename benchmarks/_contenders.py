"""The apps that are served and compared.

Rule: every contender sends the same chunks, and is what a user would write with that
tool, no more. The path says what to send: `/<contender>/<chunks>/<bytes of a chunk>`,
and `/<contender>/<chunks>/<bytes>/<seconds between two>` for stamped chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from queue import Queue
from threading import Lock
from typing import Any

from starlette.responses import StreamingResponse

import streamkit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = "text/plain; charset=utf-8"
HEADERS = [("Content-Type", TEXT)]
STAMP = b"@%016x"  # nanoseconds of the monotonic clock, one clock for all of one machine


@dataclass(frozen=True)
class Ask:
    """What one request wants: so many chunks of so many bytes, `every` so many seconds."""

    count: int
    size: int
    every: float = 0.0

    def stamped(self) -> bytes:
        return (STAMP % time.monotonic_ns()).ljust(self.size, b".")

    def chunks(self) -> Iterator[bytes]:
        return self._paced() if self.every else repeat(b"x" * self.size, self.count)

    def texts(self) -> Iterator[str]:
        """The same as text, as most producers have it."""
        return repeat("x" * self.size, self.count)

    def _paced(self) -> Iterator[bytes]:
        for _ in range(self.count):
            time.sleep(self.every)
            yield self.stamped()

    async def chunks_on_the_loop(self) -> AsyncIterator[bytes]:
        """For `every` > 0 only: an async generator a chunk would slow the fast ones down."""
        for _ in range(self.count):
            await asyncio.sleep(self.every)
            yield self.stamped()


def asked(path: str) -> tuple[str, Ask]:
    name, count, size, *every = path[1:].split("/")
    return name, Ask(int(count), int(size), float(every[0]) if every else 0.0)


# ---------------------------------------------------------------- WSGI


def plain_generator(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """E0: what every framework does without a toolkit."""
    ask = environ["bench.ask"]

    def body() -> Iterator[bytes]:
        for chunk in ask.chunks():  # noqa: UP028 - a user's generator computes something between two chunks
            yield chunk

    start_response("200 OK", list(HEADERS))
    return body()


POOL = ThreadPoolExecutor(32)
END = b""


class QueueBody:
    """The reader's side of a thread bridge over a bounded queue, as Rails' ActionController::Live."""

    def __init__(self, ask: Ask) -> None:
        self.queue: Queue[bytes] = Queue(10)
        self.left = self.ended = False
        POOL.submit(self._produce, ask)

    def _produce(self, ask: Ask) -> None:
        for chunk in ask.chunks():
            if self.left:
                break
            self.queue.put(chunk)
        self.queue.put(END)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.queue.get():
            yield chunk
        self.ended = True

    def close(self) -> None:
        self.left = True
        while not self.ended:
            self.ended = self.queue.get() is END


def bare_lock(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The least that a second thread takes: a list and a lock, for one chunk at a time and no error."""
    ask: Ask = environ["bench.ask"]
    handed: list[bytes] = []
    turn = Lock()
    turn.acquire()

    def produce() -> None:
        for chunk in ask.chunks():
            handed.append(chunk)
            if turn.locked():
                turn.release()

    def body() -> Iterator[bytes]:
        left = ask.count
        while left:
            turn.acquire()
            while handed:
                yield handed.pop(0)
                left -= 1

    start_response("200 OK", list(HEADERS))
    POOL.submit(produce)
    return body()


def queue_bridge(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(HEADERS))
    return QueueBody(environ["bench.ask"])


def push(ask: Ask) -> Callable[[Any], None]:
    def producer(stream: Any) -> None:
        for chunk in ask.chunks():
            stream.write(chunk)

    return producer


def wsgi_function(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    response: Any = streamkit.stream(push(environ["bench.ask"]))
    body: Iterable[bytes] = response(environ, start_response)
    return body


def wsgi_text(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    ask = environ["bench.ask"]

    def producer(stream: Any) -> None:
        for text in ask.texts():
            stream.write(text)

    response: Any = streamkit.stream(producer)
    body: Iterable[bytes] = response(environ, start_response)
    return body


def wsgi_iterable(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    ask = environ["bench.ask"]

    def items() -> Iterator[bytes]:
        for chunk in ask.chunks():  # noqa: UP028 - as the plain generator
            yield chunk

    response: Any = streamkit.stream(items())
    body: Iterable[bytes] = response(environ, start_response)
    return body


def _writes_to_the_environ(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    stream = environ["streamkit.stream"]
    stream.headers["Content-Type"] = TEXT
    push(environ["bench.ask"])(stream)  # the middleware completes what is not closed
    return []


wsgi_environ: WSGIApp = streamkit.wrap(_writes_to_the_environ, kind="wsgi")

WSGI: dict[str, WSGIApp] = {
    "generator": plain_generator,
    "lock": bare_lock,
    "queue": queue_bridge,
    "thread": wsgi_function,
    "thread-text": wsgi_text,
    "iterable": wsgi_iterable,
    "environ": wsgi_environ,
}


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/cpu":
        body = repr(time.process_time()).encode()
        start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", str(len(body)))])
        return [body]
    name, environ["bench.ask"] = asked(path)
    return WSGI[name](environ, start_response)


# ---------------------------------------------------------------- ASGI


async def bare_send(scope: Scope, receive: Receive, send: Send) -> None:
    """A0: the interface itself, nothing between."""
    ask = scope["bench.ask"]
    headers = [(b"content-type", TEXT.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if ask.every:
        async for chunk in ask.chunks_on_the_loop():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    else:
        for chunk in ask.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def bare_call(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that a thread takes: it calls the loop for each chunk, and there is no error."""
    ask: Ask = scope["bench.ask"]
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    def produce() -> None:
        for chunk in ask.chunks():
            loop.call_soon_threadsafe(queue.put_nowait, chunk)

    headers = [(b"content-type", TEXT.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    POOL.submit(produce)
    for _ in range(ask.count):
        await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def async_items(ask: Ask) -> AsyncIterator[bytes]:
    for chunk in ask.chunks():
        yield chunk


def sync_items(ask: Ask) -> Iterator[bytes]:
    for chunk in ask.chunks():  # noqa: UP028 - as the plain generator
        yield chunk


async def starlette_async(scope: Scope, receive: Receive, send: Send) -> None:
    await StreamingResponse(async_items(scope["bench.ask"]), media_type="text/plain")(scope, receive, send)


async def starlette_sync(scope: Scope, receive: Receive, send: Send) -> None:
    await StreamingResponse(sync_items(scope["bench.ask"]), media_type="text/plain")(scope, receive, send)


async def asgi_task(scope: Scope, receive: Receive, send: Send) -> None:
    ask = scope["bench.ask"]

    async def producer(stream: Any) -> None:
        if ask.every:
            async for chunk in ask.chunks_on_the_loop():
                await stream.write(chunk)
        else:
            for chunk in ask.chunks():
                await stream.write(chunk)

    response: Any = streamkit.stream(producer)
    await response(scope, receive, send)


async def asgi_text(scope: Scope, receive: Receive, send: Send) -> None:
    ask = scope["bench.ask"]

    async def producer(stream: Any) -> None:
        for text in ask.texts():
            await stream.write(text)

    response: Any = streamkit.stream(producer)
    await response(scope, receive, send)


async def asgi_function(scope: Scope, receive: Receive, send: Send) -> None:
    response: Any = streamkit.stream(push(scope["bench.ask"]))
    await response(scope, receive, send)


async def asgi_iterable(scope: Scope, receive: Receive, send: Send) -> None:
    response: Any = streamkit.stream(async_items(scope["bench.ask"]))
    await response(scope, receive, send)


async def _writes_to_the_scope(scope: Scope, receive: Receive, send: Send) -> None:
    stream = scope["streamkit.stream"]
    stream.headers["Content-Type"] = TEXT
    for chunk in scope["bench.ask"].chunks():
        await stream.write(chunk)  # the middleware completes what is not closed


asgi_scope: ASGIApp = streamkit.wrap(_writes_to_the_scope, kind="asgi")


async def _writes_in_a_thread(scope: Scope, receive: Receive, send: Send) -> None:
    stream = scope["streamkit.stream"]
    stream.headers["Content-Type"] = TEXT
    await asyncio.to_thread(push(scope["bench.ask"]), stream.sync)


asgi_scope_sync: ASGIApp = streamkit.wrap(_writes_in_a_thread, kind="asgi")


async def asgi_task_sync(scope: Scope, receive: Receive, send: Send) -> None:
    ask = scope["bench.ask"]

    async def producer(stream: Any) -> None:
        await asyncio.to_thread(push(ask), stream.sync)

    response: Any = streamkit.stream(producer)
    await response(scope, receive, send)


ASGI: dict[str, ASGIApp] = {
    "send": bare_send,
    "call": bare_call,
    "starlette-async": starlette_async,
    "starlette-sync": starlette_sync,
    "task": asgi_task,
    "task-text": asgi_text,
    "function": asgi_function,
    "async-iterable": asgi_iterable,
    "scope": asgi_scope,
    "scope.sync": asgi_scope_sync,
    "task.sync": asgi_task_sync,
}


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path == "/cpu":
        headers = [(b"content-type", TEXT.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": repr(time.process_time()).encode()})
        return
    name, scope["bench.ask"] = asked(path)
    await ASGI[name](scope, receive, send)


# Who serves them, and whom each is compared with.
STACKS: dict[str, tuple[str, list[str]]] = {
    "gthread": ("generator", list(WSGI)),
    "uvicorn": ("send", list(ASGI)),
}
