"""What holds for streams of every shape, and no other file says: leaves, heads, contexts, ends of many kinds.

Rule: as in test_rails_live.py, a test says nothing about one interface or engine unless its name does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from driving import (
    PATIENCE,
    Answer,
    AsgiAnswer,
    AsgiServer,
    WsgiAnswer,
    WsgiServer,
    environ_of,
    scope_of,
    until,
)
from shapes import (
    DESCRIBED,
    FUNCTIONS,
    ITERABLES,
    SHAPES,
    WITH_STREAM,
    Asked,
    Run,
    Serve,
    Shape,
    refusal,
    serving,
)

import streamkit
from streamkit.errors import BodyNotAllowed, StreamError, StreamKitError

LOCALE: ContextVar[str] = ContextVar("locale_of_app", default="none")
LOUD = ("WARNING", "ERROR", "CRITICAL")
AWAITED = [shape for shape in FUNCTIONS if shape.awaits]
OWN = [shape for shape in WITH_STREAM if not shape.described]  # the stream of the environ or the scope


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=ITERABLES, ids=str)
def iterable(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=AWAITED, ids=str)
def awaited(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=OWN, ids=str)
def own(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [
        f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}"
        for record in caplog.records
        if record.levelname in LOUD
    ]


# -- a client that left


def test_with_ignore_disconnect_a_leave_is_no_error_for_anybody(
    pushed: Serve, loud: Callable[[], list[str]]
) -> None:
    """R13: every write says how much it was given, no hook hears of an error, and the end is told once."""
    left, done = threading.Event(), threading.Event()
    counts: list[int] = []
    errors: list[BaseException] = []
    outcomes: list[object] = []

    def program(stream: Any) -> Run:
        stream.ignore_disconnect = True
        stream.on_error(lambda stream, error: errors.append(error))
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        yield "first"
        assert left.wait(PATIENCE)
        for _ in range(15):
            count = yield "more"
            counts.append(count)
        done.set()

    answer = pushed(program, window=0)
    assert answer.read() == b"first"
    answer.leave()
    left.set()
    assert done.wait(PATIENCE)
    answer.through()
    assert until(lambda: outcomes)
    assert (counts, errors, loud()) == ([4] * 15, [], [])
    assert len(outcomes) == 1
    # What the server itself raised goes back to it.
    assert answer.error is None or isinstance(answer.error, BrokenPipeError)


def test_a_full_stream_a_close_and_a_leave_never_wait_for_each_other_where_the_app_writes_itself(
    own: Serve,
) -> None:
    """X2: the stream of the environ or the scope, closed from beside the writes."""
    streams: list[Any] = []
    stopped = threading.Event()

    def program(stream: Any) -> Run:
        streams.append(stream.sync if own.shape.awaits else stream)
        try:
            for _ in range(12):
                yield bytes(3_000_000)
        except (StreamError, OSError):
            pass
        finally:
            stopped.set()

    answer = own(program, window=0)
    assert answer.read()
    closer = threading.Thread(target=lambda: [streams[0].close() for _ in range(2)])
    closer.start()
    answer.leave()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert stopped.wait(PATIENCE)
    answer.through()


# -- bodies


def test_a_buffer_that_an_iterable_uses_again_leaves_earlier_chunks_alone(iterable: Serve) -> None:
    """R30"""

    def program() -> Run:
        buffer = bytearray(b"foo")
        for content in (b"bar", b"baz", b"qux"):
            buffer[:] = content
            yield buffer
        view = memoryview(buffer)
        for content in (b"one", b"two"):
            view[:] = content
            yield view

    assert iterable(program, window=0).finish().body == b"barbazquxonetwo"


@pytest.mark.parametrize("given", [{"Content-Length": "3"}, {"content-length": "3"}])
def test_a_content_length_among_described_headers_does_not_cut_the_body(
    described: Serve, given: dict[str, str]
) -> None:
    """R37"""

    def program() -> Run:
        yield "longer "
        yield "than three"

    answer = described(program, headers=given).finish()
    assert answer.header("Content-Length") is None
    assert (answer.body, answer.complete, answer.error) == (b"longer than three", True, None)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_an_endless_body_under_a_status_without_one_is_not_sent_and_does_not_hang(
    described: Serve, status: int
) -> None:
    """X8, S20: a write is refused, so that its producer fails; an iterable is not asked for anything."""
    calls: list[str] = []
    running: list[str] = []

    def program() -> Run:
        running.append("begun")
        try:
            while True:
                yield b"x" * 1000
        finally:
            running.append("stopped")

    answer = described(program, status=status, callback=lambda: calls.append("callback")).finish()
    assert answer.body == b""
    if described.shape.has_stream:
        assert isinstance(answer.error, BodyNotAllowed)
        assert (answer.error.status, answer.committed) == (status, False)
        assert until(lambda: running == ["begun", "stopped"])
    else:
        assert (answer.status, answer.complete, answer.error) == (status, True, None)
        assert running == []
    assert until(lambda: calls)
    assert calls == ["callback"]


@pytest.mark.parametrize("status", [101, 103])
def test_a_status_of_1xx_has_no_body_and_no_length(pushed: Serve, status: int) -> None:
    """R42"""

    def program(stream: Any) -> Run:
        stream.status = status
        with pytest.raises(BodyNotAllowed):
            yield "x"
        yield stream.commit

    answer = pushed(program).finish()
    assert (answer.status, answer.body) == (status, b"")
    assert answer.header("Content-Length") is None


@pytest.mark.parametrize(("method", "version"), [("HEAD", "1.1"), ("HEAD", "1.0"), ("GET", "1.0")])
def test_a_declared_length_is_told_to_every_kind_of_client(
    described: Serve, method: str, version: str
) -> None:
    """X9, X6, X7"""

    def program() -> Run:
        yield "Hello "
        yield "World!"

    answer = described(program, method=method, version=version, content_length=12).finish()
    assert (answer.status, answer.header("Content-Length"), answer.complete) == (200, "12", True)
    assert answer.body == (b"" if method == "HEAD" else b"Hello World!")


@pytest.mark.parametrize(("length", "chunks"), [(5, ["abc"]), (5, ["abc", "def"]), (0, ["a"]), (5, [])])
def test_a_wrong_length_makes_the_outcome_failed_and_every_hook_hears_of_it_once(
    described: Serve, length: int, chunks: list[str]
) -> None:
    """X9, D15"""
    calls: list[str] = []
    outcomes: list[object] = []

    def program() -> Run:
        for chunk in chunks:
            assert isinstance(chunk, str)
            yield chunk

    answer = described(
        program,
        content_length=length,
        callback=lambda: calls.append("callback"),
        options={"on_finish": lambda stream: outcomes.append(stream.outcome)},
    ).finish()
    assert not answer.complete
    assert isinstance(answer.error, StreamKitError)
    assert until(lambda: calls and outcomes)
    assert (calls, outcomes) == (["callback"], ["failed"])


# -- errors in loops


def test_of_two_errors_in_a_loop_neither_is_lost_and_none_told_twice(
    functions: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """D5: the producer's own goes to the server, the hook's to the log."""
    boom, late = RuntimeError("boom"), LookupError("the hook fails too")
    letters = iter("ab")

    def program() -> Run:
        letter = next(letters, None)
        if letter is None:
            raise boom
        yield letter

    def broken(stream: Any, error: BaseException) -> None:
        raise late

    answer = functions(program, loop=True, on_error=broken).finish()
    assert (answer.body, answer.complete) == (b"ab", False)

    def told(error: BaseException) -> int:
        logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
        return len(logged) + (answer.error is error)

    assert until(lambda: told(boom) and told(late))
    assert (told(boom), told(late)) == (1, 1)


# -- streams in other hands


def test_another_thread_cuts_a_kept_stream_of_an_async_producer(awaited: Serve) -> None:
    """R31: through the twin."""
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        yield "written"
        streams.append(stream.sync)

    answer = awaited(program, keep_open=True)
    assert answer.read() == b"written"
    assert until(lambda: streams)
    streams[0].abort("enough")
    assert (answer.finish().body, answer.complete) == (b"written", False)
    assert until(lambda: streams[0].outcome == "aborted")


def test_another_thread_writes_to_a_kept_stream_of_an_async_producer_and_ends_it(awaited: Serve) -> None:
    """R34: through the twin."""
    streams: list[Any] = []
    made, results = threading.Event(), []

    def program(stream: Any) -> Run:
        streams.append(stream.sync)
        made.set()
        yield from ()

    def write() -> None:
        assert made.wait(PATIENCE)
        results.append(streams[0].write("foo"))
        results.append(streams[0].wait_committed(PATIENCE))
        streams[0].close()
        results.append(streams[0].wait_finished(PATIENCE))

    writer = threading.Thread(target=write)
    writer.start()
    answer = awaited(program, keep_open=True)
    assert answer.read() == b"foo"
    assert answer.finish().complete
    writer.join(PATIENCE)
    assert results == [3, True, True]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "soon"])
def test_an_awaited_wait_of_less_than_nothing_is_refused(interface: str, timeout: Any) -> None:
    refused: list[str] = []

    async def producer(stream: streamkit.AsyncResponseStream) -> None:
        for wait in (stream.wait_committed, stream.wait_finished):
            with pytest.raises(StreamKitError) as caught:
                await wait(timeout)
            assert isinstance(caught.value, ValueError)
            refused.append(str(caught.value))
        await stream.write("x")

    app = streamkit.stream(producer)
    with WsgiServer(app) if interface == "wsgi" else AsgiServer(app) as server:
        answer = server.request().finish()
    assert (answer.body, answer.error) == (b"x", None)
    assert len(refused) == 2
    assert all(repr(timeout) in message for message in refused)


def test_context_is_excluded_for_a_whole_asgi_app_or_for_one_response() -> None:
    """R18"""

    def program(stream: streamkit.ResponseStream) -> None:
        stream.write(LOCALE.get())

    async def awaiting(stream: streamkit.AsyncResponseStream) -> None:
        await stream.write(LOCALE.get())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        LOCALE.set("de")
        _, kind, *own = scope["path"].split("/")
        options = {"excluded_context": []} if own else None
        producer = program if kind == "sync" else awaiting
        await streamkit.stream(producer, options=options)(scope, receive, send)

    with AsgiServer(streamkit.wrap(app, excluded_context=["locale_of_app"])) as server:
        for kind in ("sync", "async"):
            assert server.request(path=f"/{kind}").finish().body == b"none"
            assert server.request(path=f"/{kind}/own").finish().body == b"de"


def served_in_turn(app_for: Callable[[], Any], interface: str) -> list[tuple[bytes, object]]:
    """What three requests bring that are served in turn, on the same thread or in the same task."""
    answers: list[Answer] = []

    async def serve() -> None:
        for _ in range(3):
            answer = AsgiAnswer(asyncio.get_running_loop(), b"", 65536, None)
            await answer.serve(app_for(), scope_of())
            answers.append(answer)
            assert LOCALE.get() == "none"

    if interface == "asgi":
        asyncio.run(serve())
    for _ in range(3 if interface == "wsgi" else 0):
        answer = WsgiAnswer()
        answer.serve(app_for(), environ_of())
        answers.append(answer)
        assert LOCALE.get() == "none"
    return [(answer.body, answer.error) for answer in answers]


@pytest.mark.parametrize("shape", [shape for shape in DESCRIBED if not shape.awaits], ids=str)
def test_what_a_producer_sets_it_sees_later_and_the_next_request_of_its_server_does_not(shape: Shape) -> None:
    """R14, R15, R19: set before a chunk, and after one."""

    def program() -> Run:
        yield LOCALE.get()
        for place in "abc":
            LOCALE.set(place)
            yield place
            yield LOCALE.get()

    bodies = served_in_turn(lambda: shape.build(program, Asked(lambda: None, {})), shape.interface)
    assert bodies == [(b"noneaabbcc", None)] * 3


@pytest.mark.parametrize("kind", ["function", "iterable", "waiting-iterable"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_an_async_producer_sets_it_sees_later_and_the_next_request_does_not(
    interface: str, kind: str
) -> None:
    """R14, R15, R19"""

    async def chunks() -> AsyncIterator[str]:
        yield LOCALE.get()
        for place in "abc":
            LOCALE.set(place)
            if kind == "waiting-iterable":
                await asyncio.sleep(0.001)
            yield place
            yield LOCALE.get()

    async def producer(stream: streamkit.AsyncResponseStream) -> None:
        async for chunk in chunks():
            await stream.write(chunk)

    bodies = served_in_turn(lambda: streamkit.stream(producer if kind == "function" else chunks()), interface)
    assert bodies == [(b"noneaabbcc", None)] * 3


def test_kept_streams_whose_sync_producer_has_returned_cost_no_threads_under_asgi() -> None:
    """X13: and each is still written to from elsewhere."""
    streams: list[Any] = []

    def threads() -> int:
        return sum(thread.name.startswith("streamkit") for thread in threading.enumerate())

    def opening(stream: streamkit.ResponseStream) -> None:
        stream.write("a")
        streams.append(stream)

    before = threads()  # of tests that came before, too
    with AsgiServer(streamkit.stream(opening, keep_open=True)) as server:
        first = server.request()
        assert first.read() == b"a"
        answers = [server.request() for _ in range(100)]
        assert all(answer.read() == b"a" for answer in answers)
        assert until(lambda: len(streams) == 101)
        # Pooled threads leave some two seconds after their last work.
        assert until(lambda: threads() <= before + 3)
        for stream in streams:
            stream.write("b")
            stream.close()
        for answer in (first, *answers):
            assert answer.finish().body == b"ab"
            assert answer.complete


# -- below a mount


class Mounted:
    """A kept stream in an application that is mounted in another one, and requests that write into it."""

    def __init__(self) -> None:
        self.stream: Any = None

    def opening(self, out: Any) -> None:
        self.stream = out
        out << "hi!"

    def answer_to(self, path: str) -> Any:
        if path == "/":
            return streamkit.stream(self.opening, keep_open=True)
        if path == "/push":
            self.stream << "hello"
        else:
            self.stream.close()
        return streamkit.stream(["ok"])

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        assert environ["SCRIPT_NAME"] == "/chat"
        return self.answer_to(environ["PATH_INFO"])(environ, start_response)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["root_path"] == "/chat"
        path = scope["path"].removeprefix("/chat")
        response = await asyncio.to_thread(self.answer_to, path)
        await response(scope, receive, send)


@pytest.mark.parametrize("wrapped", ["outside", "inside", "both"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_other_requests_write_into_a_kept_stream_of_a_mounted_application(
    interface: str, wrapped: str
) -> None:
    """S15"""
    room = Mounted()
    inner: Any = room.wsgi if interface == "wsgi" else room.asgi
    if wrapped != "outside":
        inner = streamkit.wrap(inner)
    if interface == "wsgi":
        from werkzeug.exceptions import NotFound
        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        app: Any = DispatcherMiddleware(NotFound(), {"/chat": inner})
    else:
        from starlette.applications import Starlette
        from starlette.routing import Mount

        app = Starlette(routes=[Mount("/chat", app=inner)])
    if wrapped != "inside":
        app = streamkit.wrap(app)
    with WsgiServer(app) if interface == "wsgi" else AsgiServer(app) as server:
        listening = server.request(path="/chat/")
        assert listening.read() == b"hi!"
        assert server.request(path="/chat/push").finish().body == b"ok"
        assert listening.read() == b"hello"
        assert server.request(path="/chat/close").finish().body == b"ok"
        assert listening.finish().complete
        assert listening.body == b"hi!hello"


# -- wrong use that has begun


@pytest.mark.parametrize("chunk", [5, None, ["a"], object()])
def test_a_wrong_chunk_after_a_good_one_is_an_error_that_cuts_the_body(served: Serve, chunk: Any) -> None:
    """The good one is not lost, and the error says what came."""
    told: list[BaseException] = []

    def program() -> Run:
        yield "good"
        yield chunk

    answer = served(program, options={"on_error": lambda stream, error: told.append(error)}).finish()
    assert (answer.body, answer.complete) == (b"good", False)
    assert isinstance(answer.error, TypeError)
    assert isinstance(answer.error, StreamKitError)
    assert type(chunk).__name__ in str(answer.error)
    assert told == [answer.error]


def test_a_status_or_a_header_that_may_not_be_sent_is_refused_by_an_awaited_stream_too(
    awaited: Serve,
) -> None:
    done = threading.Event()

    def program(stream: Any) -> Run:
        for status in (0, 99, 1000, "200 OK", None, 200.5, True):
            refusal(lambda status=status: setattr(stream, "status", status), StreamKitError, repr(status))
        for value in ("1\r\nX-Injected: 1", "1\n2", "1\0"):
            refusal(lambda value=value: stream.headers.__setitem__("X-Bad", value), StreamKitError)
        done.set()
        yield "x"

    answer = awaited(program).finish()
    assert (answer.status, answer.body, done.is_set()) == (200, b"x", True)
    assert answer.header("X-Bad") is None
