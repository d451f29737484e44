"""One GET request to an app in this process, bounded in time.

    ask_wsgi(probes.app, trace, Request("/events"), seconds=10)

The app runs on a thread of its own, so that one that never comes back is left behind, and named.

Rule: what comes is told to the trace's reader at once, and nothing is kept of it. The app sees an
ordinary GET of HTTP/1.1 by a client that accepts gzip, deflate and br.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..types import Message
from .record import CURRENT, Trace, active

__all__ = ["Answer", "Request", "ask_asgi", "ask_wsgi"]

LEAVE_BOUND = 1.0  # seconds that the app has to end once its client has left
STALL_LOOK = 0.02  # seconds between two looks at whether the loop still turns
STALL = 0.2  # seconds without a turn that count


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()

    def fields(self) -> dict[str, str]:
        """The header fields, by their names in lower case."""
        usual = {
            "host": "localhost",
            "accept": "text/html, text/event-stream, */*",
            "accept-encoding": "gzip, deflate, br",
            "user-agent": "streamkit-doctor",
        }
        return {**usual, **{name.lower(): value for name, value in self.headers}}


@dataclass
class Answer:
    """How a request ended."""

    error: BaseException | None = None
    hung: bool = False


def ask_wsgi(app: Any, trace: Trace, request: Request, seconds: float) -> Answer:
    """Ask a WSGI app."""

    def run() -> None:
        body: Any = None
        try:
            body = app(_environ(request), _start_response(trace))
            for piece in body:
                trace.reader.chunk(piece)
                if trace.over:
                    break
            else:
                trace.reader.end()
        finally:
            if hasattr(body, "close"):
                body.close()

    return _bounded(run, trace, seconds)


def _environ(request: Request) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.fields().items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def _start_response(trace: Trace) -> Callable[..., Callable[[bytes], None]]:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None and trace.reader.crossings:
            raise exc_info[1]
        trace.reader.head(int(status.split(" ", 1)[0]), headers)
        return trace.reader.chunk

    return start_response


def ask_asgi(app: Any, trace: Trace, request: Request, seconds: float) -> Answer:
    """Ask an ASGI app, between the start and the end of its lifespan."""
    return _bounded(lambda: asyncio.run(_exchange(app, trace, request)), trace, seconds)


async def _exchange(app: Any, trace: Trace, request: Request) -> None:
    async with contextlib.AsyncExitStack() as stack:
        state = await stack.enter_async_context(_Lifespan(app))
        watch = asyncio.ensure_future(_watch_loop(trace))
        stack.callback(watch.cancel)
        left = asyncio.Event()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]
                trace.reader.head(message["status"], headers)
            elif message["type"] == "http.response.body":
                trace.reader.chunk(bytes(message.get("body", b"")))
                if not message.get("more_body"):
                    trace.reader.end()
                    left.set()

        await app({**_scope(request), "state": state.copy()}, receive, send)


def _scope(request: Request) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in request.fields().items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }


async def _watch_loop(trace: Trace) -> None:
    """Note each time for which the loop could not run."""
    while True:
        asleep = time.monotonic()
        await asyncio.sleep(STALL_LOOK)
        stalled = time.monotonic() - asleep - STALL_LOOK
        if stalled >= STALL and trace.source is not None:
            trace.stalls.append(stalled)


class _Lifespan:
    """An ASGI app's lifespan; an app that has none is as good."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> dict[str, Any]:
        self._task = asyncio.ensure_future(self._run())
        await self._to_app.put({"type": "lifespan.startup"})
        answer = await self._from_app.get()
        if answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(f"the app's lifespan did not start: {answer.get('message', '')}")
        return self.state

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        if not self._task.done():
            await self._to_app.put({"type": "lifespan.shutdown"})
            await asyncio.wait({self._task}, timeout=LEAVE_BOUND)
        self._task.cancel()
        # How it shuts down is not what was asked, and does not change what was seen of its streams.
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        finally:
            # An app without a lifespan raises; a server goes on all the same (ASGI, lifespan).
            self._from_app.put_nowait({"type": "lifespan.none"})


def _bounded(run: Callable[[], None], trace: Trace, seconds: float) -> Answer:
    """Run it on a thread, and leave it behind if it is not back in time."""
    answer = Answer()

    def target() -> None:
        trace.reading_thread = threading.get_ident()
        CURRENT.set(trace.reader)
        try:
            run()
        except BaseException as error:
            answer.error = error

    with active(trace):
        context = copy_context()
        thread = threading.Thread(target=context.run, args=(target,), daemon=True, name="streamkit-doctor")
        thread.start()
        thread.join(seconds)
        answer.hung = thread.is_alive()
        # Once it is over the source lets everything pass and then ends: most threads are back now.
        trace.cut = trace.over = True
    thread.join(LEAVE_BOUND if answer.hung else None)
    return answer
