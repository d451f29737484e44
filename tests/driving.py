"""Drive a WSGI or an ASGI app in process, as a strict server with one client.

    with WsgiServer(app) as server:
        answer = server.request()
        assert answer.read() == b"the first chunk"
        answer.leave()

Rule: nothing here knows streamkit, and nothing waits without a bound. A client takes
`window` bytes unread, as the socket buffers of a real one do; then the server's sends
wait. With `window=0` a WSGI iterable is asked for a chunk only when the client asks.
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any
from wsgiref.validate import validator

PATIENCE = 20.0  # seconds until a wait is given up; a busy machine may need some of them
WINDOW = 64 * 1024  # bytes a client takes unread, about what loopback sockets hold

Header = tuple[str, str]
Sent = Iterable[Header]
App = Callable[..., Any]
Write = Callable[[bytes], None]


def until(true: Callable[[], object], within: float = PATIENCE) -> bool:
    """Ask until it is true, for what has no event to wait on; False if it never was."""
    latest = time.monotonic() + within
    while not true():
        if time.monotonic() > latest:
            return False
        time.sleep(0.005)
    return True


class Answer:
    """What one request has brought so far: the client's end of it, usable from any thread."""

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self.chunks: list[bytes] = []  # all that was sent, read or not, without the empty ones
        self.starts: list[tuple[int, list[Header]]] = []  # each head that the app sent
        self.error: BaseException | None = None  # what the server got from the app
        self.faults: list[str] = []  # breaches of the interface that no exception could report
        self.complete = False  # the body was ended as a whole one
        self._turn = threading.Condition()
        self._unread: deque[bytes] = deque()
        self._wanted = 0
        self._left = self._ended = self._over = False

    # The client

    @property
    def status(self) -> int:
        return self._head()[0]

    @property
    def headers(self) -> list[Header]:
        return self._head()[1]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def committed(self) -> bool:
        return bool(self.starts)

    def header(self, name: str) -> str | None:
        """The one value of a header, None without one; two are a failure."""
        values = self.values(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known.lower() == name.lower()]

    def read(self) -> bytes:
        """The next chunk; b"" at the end, complete or not."""
        with self._turn:
            self._wanted += 1
            self._changed()
            try:
                self._until(lambda: self._unread or self._ended or self._over, "a chunk or the end")
            finally:
                self._wanted -= 1
            chunk = self._unread.popleft() if self._unread else b""
            self._changed()
            return chunk

    def rest(self) -> bytes:
        return b"".join(iter(self.read, b""))

    def finish(self) -> Answer:
        """Read all that comes, and wait until the server is through with the app."""
        self.rest()
        return self.through()

    def leave(self) -> None:
        """Hang up, as a browser tab does that is closed."""
        with self._turn:
            self._left = True
            self._changed()

    def through(self) -> Answer:
        """Wait, without reading, until the server is through with the app."""
        with self._turn:
            self._until(lambda: self._over, "the end of the app's work")
        return self

    def _head(self) -> tuple[int, list[Header]]:
        with self._turn:
            self._until(lambda: self.starts or self._over, "the head")
        assert self.starts, f"the app sent no head; it raised {self.error!r}"
        return self.starts[0]

    def _until(self, true: Callable[[], object], wanted: str) -> None:
        arrived = self._turn.wait_for(true, PATIENCE)
        assert arrived, f"{wanted} did not come within {PATIENCE} s; so far {self.starts} {self.body[:200]!r}"

    # The server

    def _changed(self) -> None:
        self._turn.notify_all()

    def _held(self) -> int:
        with self._turn:  # a deque may not change while it is gone through
            return sum(map(len, self._unread))

    def _may_pull(self) -> bool:
        return self._left or self._wanted > len(self._unread) or self._held() < self.window

    def _may_go_on(self) -> bool:
        return self._left or self._held() <= self.window

    def _arrive(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._unread.append(chunk)
        self._changed()

    def _end(self, *, complete: bool = False, error: BaseException | None = None, over: bool = False) -> None:
        with self._turn:
            self.complete = self.complete or complete
            self.error = self.error or error
            self._ended = True
            self._over = self._over or over
            self._changed()


class WsgiAnswer(Answer):
    """One request, served on one thread of its own, as all servers do it."""

    returned: Iterable[bytes] | None = None  # what the app gave, before anything wrapped it
    thread: threading.Thread

    def start_response(self, status: str, headers: list[Header], exc_info: Any = None) -> Write:
        if exc_info and self.chunks:
            raise exc_info[1].with_traceback(exc_info[2])
        with self._turn:
            self.starts.append((int(status[:3]), list(headers)))
            if len(self.starts) > 1 and not exc_info:
                self.faults.append("start_response was called twice")
            self._changed()
        return self.write

    def write(self, chunk: bytes) -> None:
        """The imperative way to send: it comes back when the client has taken enough."""
        with self._turn:
            if self._left:
                raise BrokenPipeError(32, "the client is gone")
            if chunk:
                self._arrive(chunk)
            self._until(self._may_go_on, "a reader")

    def serve(self, app: App, environ: dict[str, Any]) -> None:
        error: BaseException | None = None
        iterable: Any = ()
        try:
            iterable = app(environ, self.start_response)
            self._send_each(iter(iterable))
        except BaseException as raised:
            error = raised
        self._end(error=error)
        try:
            getattr(iterable, "close", lambda: None)()
        except BaseException as raised:
            error = raised
        self._end(error=error, over=True)

    def _send_each(self, chunks: Any) -> None:
        while self._ready():
            try:
                chunk = next(chunks)
            except StopIteration:
                self._end(complete=bool(self.starts))
                return
            with self._turn:
                if not self.starts:
                    self.faults.append("a chunk came before start_response was called")
                if chunk and not self._left:
                    self._arrive(chunk)

    def _ready(self) -> bool:
        with self._turn:
            self._turn.wait_for(self._may_pull)
            return not self._left


class AsgiAnswer(Answer):
    """One request, served as one task on the server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes, window: int, gone: type[OSError] | None):
        super().__init__(window)
        self.messages: list[tuple[float, dict[str, Any]]] = []  # (seconds, message) as they were sent
        self._loop = loop
        self._news = asyncio.Event()
        self._body: bytes | None = body
        self._gone = gone

    def _changed(self) -> None:
        super()._changed()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def serve(self, app: App, scope: dict[str, Any]) -> None:
        error: BaseException | None = None
        try:
            await app(scope, self.receive, self.send)
        except BaseException as raised:
            error = raised
        self._end(error=error, over=True)

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._when(lambda: self._left or self._ended)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append((time.monotonic(), message))
        if fault := self._fault_of(message):
            self.faults.append(fault)
            raise AssertionError(fault)
        with self._turn:
            if self._left:
                if self._gone:
                    raise self._gone("the client is gone")
                return  # "send() after leave: silent" on all servers but one
            if message["type"] == "http.response.start":
                headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
                self.starts.append((message["status"], headers))
                self._changed()
                return
            if chunk := message.get("body", b""):
                self._arrive(chunk)
        if not message.get("more_body", False):
            self._end(complete=True)
        await self._when(self._may_go_on)

    def _fault_of(self, message: dict[str, Any]) -> str | None:
        kind = message.get("type")
        if kind == "http.response.start":
            if self.starts:
                return "http.response.start was sent twice"
            for name, value in message.get("headers", ()):
                if type(name) is not bytes or type(value) is not bytes or name != name.lower():
                    return f"a header is not two byte strings, the name in small letters: {name!r}, {value!r}"
            return None
        if kind != "http.response.body":
            return f"no server knows the message {kind!r}"
        if not self.starts and not self._left:
            return "http.response.body was sent before the start"
        if self.complete:
            return "http.response.body was sent after the end"
        return None if type(message.get("body", b"")) is bytes else "a body is not a byte string"

    async def _when(self, true: Callable[[], object]) -> None:
        while not true():
            self._news.clear()
            if not true():
                await self._news.wait()


class WsgiServer:
    """Serves any number of requests to one WSGI app, which `wsgiref.validate` watches."""

    def __init__(self, app: App, *, validated: bool = True) -> None:
        self.app = app
        self.validated = validated
        self.answers: list[WsgiAnswer] = []

    def request(self, method: str = "GET", path: str = "/", *, sent: Sent = (), body: bytes = b"",
                version: str = "1.1", window: int = WINDOW) -> WsgiAnswer:  # fmt: skip
        answer = WsgiAnswer(window)

        def noted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            answer.returned = self.app(environ, start_response)
            return answer.returned

        app = validator(noted) if self.validated else noted
        environ = environ_of(method, path, sent=sent, body=body, version=version)
        answer.thread = threading.Thread(target=answer.serve, args=(app, environ), daemon=True)
        self.answers.append(answer)
        answer.thread.start()
        return answer

    def __enter__(self) -> WsgiServer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _hang_up(self.answers, judged=kind is None)


class AsgiServer:
    """Serves any number of requests to one ASGI app, on a loop in a thread of its own."""

    def __init__(self, app: App, *, gone: type[OSError] | None = None) -> None:
        self.app = app
        self.gone = gone  # what a send raises after a leave; None: it returns in silence
        self.answers: list[AsgiAnswer] = []
        self.complaints: list[Mapping[str, Any]] = []  # what reached the loop's exception hook
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def request(self, method: str = "GET", path: str = "/", *, sent: Sent = (), body: bytes = b"",
                version: str = "1.1", window: int = WINDOW) -> AsgiAnswer:  # fmt: skip
        answer = AsgiAnswer(self.loop, body, window, self.gone)
        scope = scope_of(method, path, sent=sent, version=version)
        self.answers.append(answer)
        asyncio.run_coroutine_threadsafe(answer.serve(self.app, scope), self.loop)
        return answer

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.complaints.append(context))
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def __enter__(self) -> AsgiServer:
        self._thread.start()
        assert self._ready.wait(PATIENCE), "the loop did not start"
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            _hang_up(self.answers, judged=kind is None)
        finally:
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)
        if kind is None:
            assert not self._thread.is_alive(), "the loop did not come to its end"
            assert not self.complaints, f"the loop complained: {self.complaints}"


def _hang_up(answers: Iterable[Answer], *, judged: bool) -> None:
    for answer in answers:
        answer.leave()
    for answer in answers if judged else ():
        answer.through()
        assert not answer.faults, f"the interface was breached: {answer.faults}"


def environ_of(method: str = "GET", path: str = "/", *, sent: Sent = (), body: bytes = b"",
               version: str = "1.1") -> dict[str, Any]:  # fmt: skip
    """A WSGI request; `sent` are its headers."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": f"HTTP/{version}",
        "REMOTE_ADDR": "127.0.0.1", "CONTENT_LENGTH": str(len(body)), "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    for name, value in sent:
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def scope_of(method: str = "GET", path: str = "/", *, sent: Sent = (),
             version: str = "1.1") -> dict[str, Any]:  # fmt: skip
    """An ASGI request; `sent` are its headers."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": version,
        "method": method, "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in sent],
        "client": ("127.0.0.1", 50000), "server": ("localhost", 80), "state": {},
    }  # fmt: skip
