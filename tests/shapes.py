"""One producer, served in each of the ways that streamkit knows.

    @pytest.fixture(params=SHAPES, ids=str)
    def served(request):
        yield from serving(request.param)

    def test_something(served):
        def program(stream):             # or without the stream: `def program():`
            stream.status = 201
            count = yield b"a chunk"     # written; what `write` returns or raises comes back
            yield lambda: stream.flush() # called, and awaited where the stream's twin awaits
        answer = served(program)         # an `Answer`, see driving.py

Rule: a program is a generator and knows neither interface nor engine; it may block, and
raise, and it sees what a write raises at its `yield`. An iterable body has no stream.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import pytest
from driving import WINDOW, Answer, App, AsgiServer, Sent, WsgiServer, until

import streamkit
from streamkit.errors import StreamKitError

Run = Generator[Any, Any, None]
Program = Callable[..., Run]
Builder = Callable[[Program, "Asked"], App]
END: Any = object()


@dataclass(frozen=True)
class Asked:
    """What is asked of the response, besides its body."""

    before: Callable[[], object]  # called in the request, before anything of streamkit
    response: dict[str, Any]  # as `streamkit.stream` takes it

    def describe(self, producer: Any) -> Any:
        self.before()
        return streamkit.stream(producer, **self.response)

    def put_on(self, stream: Any) -> None:
        """Set on a request's own stream what a description would have said."""
        self.before()
        response = {name: value for name, value in self.response.items() if name != "options"}
        if "status" in response:
            stream.status = response.pop("status")
        for name, value in response.pop("headers", {}).items():
            stream.headers[name] = value
        if "content_type" in response:
            stream.headers["Content-Type"] = response.pop("content_type")
        if "callback" in response:
            callback = response.pop("callback")
            stream.on_finish(lambda stream: callback())
        if "on_error" in response:
            stream.on_error(response.pop("on_error"))
        assert not response, f"a request's own stream cannot be asked for {sorted(response)}"


def begun(program: Program, stream: Any) -> Run:
    return program(stream) if inspect.signature(program).parameters else program()


def push(run: Run, stream: Any) -> None:
    """Write what the program yields, call what can be called, and tell it what came of it."""
    step: Callable[[], Any] = partial(next, run)
    while True:
        try:
            wish = step()
        except StopIteration:
            return
        try:
            got = wish() if callable(wish) else stream.write(wish)
        except BaseException as error:
            step = partial(run.throw, error)
        else:
            step = partial(run.send, got)


async def push_awaiting(run: Run, stream: Any) -> None:
    """The same for a stream whose writes are awaited; the program may block all the same."""
    step: Callable[[], Any] = partial(next, run)
    try:
        while (wish := await beside_the_loop(step, run)) is not END:
            try:
                got = wish() if callable(wish) else stream.write(wish)
                if inspect.isawaitable(got):
                    got = await got
            except BaseException as error:
                step = partial(run.throw, error)
            else:
                step = partial(run.send, got)
    finally:
        run.close()


async def awaited_chunks(run: Run) -> AsyncIterator[Any]:
    try:
        while (chunk := await beside_the_loop(partial(next, run), run)) is not END:
            yield chunk
    finally:
        run.close()


async def beside_the_loop(step: Callable[[], Any], run: Run) -> Any:
    """One step of a program, on a thread; the program sees a cancellation when the step has ended."""
    work = asyncio.ensure_future(asyncio.to_thread(stepped, step))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError as gone:
        await asyncio.wait([work])
        if not work.cancelled() and work.exception() is None and work.result() is not END:
            run.throw(gone)
        raise


def stepped(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except StopIteration:
        return END


def function(program: Program) -> Callable[[Any], None]:
    return lambda stream: push(begun(program, stream), stream)


def async_function(program: Program) -> Callable[[Any], Any]:
    async def producer(stream: Any) -> None:
        await push_awaiting(begun(program, stream), stream)

    return producer


def synced_function(program: Program) -> Callable[[Any], Any]:
    """An asynchronous producer that has a thread do its work."""

    async def producer(stream: Any) -> None:
        twin = stream.sync
        work = asyncio.ensure_future(asyncio.to_thread(push, begun(program, twin), twin))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # the thread hears at its next write what has happened
            error = work.exception()
            if error is not None:
                raise error from None
            raise

    return producer


def iterable(program: Program) -> Run:
    return program()


def async_iterable(program: Program) -> AsyncIterator[Any]:
    return awaited_chunks(program())


def on_engine(engine: str, build: Builder, program: Program, asked: Asked) -> App:
    """A description that asks for its engine, where streamkit would choose another way."""
    return build(program, replace(asked, response={"engine": engine, **asked.response}))


def wsgi_description(make: Callable[[Program], Any], program: Program, asked: Asked) -> App:
    return lambda environ, start_response: asked.describe(make(program))(environ, start_response)


def asgi_description(make: Callable[[Program], Any], program: Program, asked: Asked) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asked.describe(make(program))(scope, receive, send)

    return app


def wrapped(build: Builder, kind: Any, program: Program, asked: Asked, **options: Any) -> App:
    """A description served by a view, inside an app that is wrapped: what most applications do."""
    return streamkit.wrap(build(program, asked), options, kind=kind)


def wsgi_stream(engine: str, program: Program, asked: Asked) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        asked.put_on(stream)
        push(begun(program, stream), stream)
        return unused(start_response, stream)

    return streamkit.wrap(app, {"engine": engine, **asked.response.get("options", {})}, kind="wsgi")


def asgi_stream(synced: bool, program: Program, asked: Asked) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        asked.put_on(stream)
        if synced:
            run = begun(program, stream.sync)
            await asyncio.to_thread(push, run, stream.sync)
        else:
            await push_awaiting(begun(program, stream), stream)
        if not stream.committed:
            head = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body"})

    return streamkit.wrap(app, asked.response.get("options"), kind="asgi")


def unused(start_response: Any, stream: Any) -> list[bytes]:
    """The response of its own that an app gives where it wrote nothing."""
    if not stream.committed:
        start_response("200 OK", [("Content-Type", "text/plain")])
    return []


@dataclass(frozen=True)
class Shape:
    name: str
    build: Builder
    awaits: bool = False  # its stream's writes are awaited
    synced: bool = False  # its producer is asynchronous, and a thread writes to the twin of its stream
    described: bool = False  # made by `streamkit.stream`
    has_stream: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def interface(self) -> str:
        return self.name[:4]


def _described(interface: str, kind: str, make: Callable[[Program], Any], **more: bool) -> Shape:
    build: Builder = partial(wsgi_description if interface == "wsgi" else asgi_description, make)
    if kind.startswith("wrapped-"):
        build = partial(wrapped, build, interface)
    elif kind.startswith("carried-"):
        build = partial(wrapped, build, interface, engine="thread")
    elif kind.startswith(("thread-", "task-")):
        build = partial(on_engine, kind.partition("-")[0], build)
    return Shape(f"{interface}-{kind}", build, described=True, **more)


SHAPES = [
    shape
    for interface in ("wsgi", "asgi")
    for shape in (
        _described(interface, "function", function),
        _described(interface, "async-function", async_function, awaits=True),
        _described(interface, "iterable", iterable, has_stream=False),
        _described(interface, "async-iterable", async_iterable, has_stream=False, awaits=True),
        _described(interface, "wrapped-function", function),
        _described(interface, "wrapped-async-iterable", async_iterable, has_stream=False, awaits=True),
    )
] + [
    _described("wsgi", "thread-iterable", iterable, has_stream=False),
    _described("wsgi", "carried-function", function),
    _described("asgi", "task-async-iterable", async_iterable, has_stream=False, awaits=True),
    _described("wsgi", "synced-function", synced_function, synced=True),
    _described("asgi", "synced-function", synced_function, synced=True),
    Shape("wsgi-environ-write", partial(wsgi_stream, "auto")),
    Shape("wsgi-environ-thread", partial(wsgi_stream, "thread")),
    Shape("asgi-scope", partial(asgi_stream, False), awaits=True),
    Shape("asgi-scope-sync", partial(asgi_stream, True)),
]
WITH_STREAM = [shape for shape in SHAPES if shape.has_stream]
SYNC = [shape for shape in WITH_STREAM if not shape.awaits]
DESCRIBED = [shape for shape in SHAPES if shape.described]
FUNCTIONS = [shape for shape in DESCRIBED if shape.has_stream]
SYNC_FUNCTIONS = [shape for shape in FUNCTIONS if not shape.awaits]
ITERABLES = [shape for shape in SHAPES if not shape.has_stream]
# Between the producer of these and the server is a channel: it can write while nothing reads.
BUFFERED = [shape for shape in WITH_STREAM if shape.described or shape.name == "wsgi-environ-thread"]


class Serve:
    """Serves programs in one shape; what it served is hung up on when the test ends."""

    def __init__(self, shape: Shape, servers: ExitStack) -> None:
        self.shape = shape
        self.failures: list[BaseException] = []  # of assertions inside programs: they must not get lost
        self._running: list[Program] = []
        self._servers = servers

    def __call__(self, program: Program, *, method: str = "GET", version: str = "1.1", sent: Sent = (),
                 window: int = WINDOW, before: Callable[[], object] = lambda: None,
                 **response: Any) -> Answer:  # fmt: skip
        app = self.shape.build(self._watched(program), Asked(before, response))
        server = WsgiServer(app) if self.shape.interface == "wsgi" else AsgiServer(app)
        self._servers.enter_context(server)
        return server.request(method, sent=sent, version=version, window=window)

    def ended(self) -> bool:
        """Wait until every program that has begun is over, whatever the answers say."""
        return until(lambda: not self._running)

    def _watched(self, program: Program) -> Program:
        @wraps(program)
        def run(*stream: Any) -> Run:
            self._running.append(program)
            try:
                return (yield from program(*stream))
            except (AssertionError, pytest.fail.Exception) as failure:
                self.failures.append(failure)
                raise
            finally:
                self._running.remove(program)

        return run

    def hook(self, program: Program) -> Callable[..., Any]:
        """A hook that writes what the program yields, awaited where the shape's writes are."""
        if not self.shape.awaits:
            return lambda stream, *more: push(program(stream, *more), stream)

        async def hook(stream: Any, *more: Any) -> None:
            await push_awaiting(program(stream, *more), stream)

        return hook


def serving(shape: Shape) -> Iterator[Serve]:
    with ExitStack() as servers:
        serve = Serve(shape, servers)
        yield serve
    assert serve.ended(), "a program was still running when its server was through with it"
    for failure in serve.failures:
        raise failure


def refusal(call: Callable[[], object], kind: type[StreamKitError], *said: str) -> StreamKitError:
    with pytest.raises(kind) as refused:
        call()
    message = str(refused.value)
    assert all(words in message for words in said), f"{said} are not all in {message!r}"
    return refused.value
