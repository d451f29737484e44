"""What Sinatra's `stream` specs check, S1-S20 of the scenarios, in every shape that each fits.

Rule: Sinatra's `callback` blocks are `callback=` and `on_finish` here; its scheduler is the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer, until
from shapes import DESCRIBED, FUNCTIONS, SHAPES, SYNC, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.errors import ClientDisconnected


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def test_shifts_can_be_chained(synced: Serve) -> None:
    """S1"""

    def program(out: Any) -> Run:
        out << "Hello" << " "
        out << "World!"
        yield from ()

    assert synced(program).finish().body == b"Hello World!"


def test_what_is_shifted_becomes_text(synced: Serve) -> None:
    """S2"""

    class Symbol:
        def __str__(self) -> str:
            return "symbol"

    def program(out: Any) -> Run:
        out << Symbol() << 42 << b" raw"
        yield from ()

    assert synced(program).finish().body == b"symbol42 raw"


def test_the_callback_runs_after_the_producer(served: Serve) -> None:
    """S4"""
    events: list[str] = []

    def program() -> Run:
        yield "a"
        yield "b"
        events.append("end")

    answer = served(program, callback=lambda: events.append("callback")).finish()
    assert answer.body == b"ab"
    assert until(lambda: len(events) == 2)
    assert events == ["end", "callback"]


def test_a_stream_kept_open_outlives_its_producer(functions: Serve) -> None:
    """S5: the callback waits for the real end."""
    ended, streams, calls = threading.Event(), [], []

    def program(stream: Any) -> Run:
        streams.append(stream)
        yield "a"
        ended.set()

    answer = functions(program, keep_open=True, callback=lambda: calls.append("callback"))
    assert answer.read() == b"a"
    assert ended.wait(PATIENCE)
    # What must never happen cannot be waited for: a short look finds it on most machines.
    assert not until(lambda: calls or streams[0].closed, within=0.1)
    answer.leave()
    if functions.shape.interface == "wsgi":  # an idle WSGI stream sees the leave at its next write
        writer = streams[0].sync if functions.shape.awaits else streams[0]
        writer.write("is anybody there?")
    answer.through()
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_all_callbacks_run(pushed: Serve) -> None:
    """S6"""
    calls: list[object] = []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: calls.append("one"))

        @stream.on_finish
        def two(stream: Any) -> None:
            calls.append("two")

        stream.on_finish(lambda stream: calls.append(stream.outcome))
        yield "a"

    answer = pushed(program, callback=lambda: calls.append("callback"))
    assert answer.finish().complete
    assert until(lambda: len(calls) == 4)
    assert sorted(map(str, calls)) == ["callback", "finished", "one", "two"]


def test_one_failing_callback_keeps_no_other_from_running(
    pushed: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """S6: it is logged, and the body is none the worse for it."""
    calls: list[str] = []

    def failing(*stream: Any) -> None:
        raise LookupError("the hook is broken")

    def program(stream: Any) -> Run:
        stream.on_finish(failing)
        stream.on_finish(lambda stream: calls.append("after it"))
        yield "a"

    answer = pushed(program).finish()
    assert (answer.body, answer.complete, answer.error) == (b"a", True, None)
    assert until(lambda: calls)
    assert calls == ["after it"]
    assert sum("the hook is broken" in str(record.exc_info) for record in caplog.records) == 1


def test_closing_in_a_callback_does_not_call_it_again(pushed: Serve) -> None:
    """S9"""
    calls: list[str] = []

    def closing(stream: Any) -> Run:
        calls.append("finish")
        yield stream.close

    hook = pushed.hook(closing)

    def program(stream: Any) -> Run:
        stream.on_finish(hook)
        yield "a"
        yield stream.close

    assert pushed(program).finish().complete
    assert until(lambda: calls)
    assert calls == ["finish"]


def test_closed_is_false_before_the_close_and_true_after_it(pushed: Serve) -> None:
    """S12, SC3"""
    seen: list[bool] = []

    def program(stream: Any) -> Run:
        seen.append(stream.closed)
        yield "a"
        seen.append(stream.closed)
        yield stream.close
        seen.append(stream.closed)

    assert pushed(program).finish().complete
    assert pushed.ended()
    assert seen == [False, False, True]


def test_a_declared_content_length_is_kept(described: Serve) -> None:
    """S14, R37, X9"""

    def program() -> Run:
        yield "Hello "
        yield "World!"

    answer = described(program, content_length=12).finish()
    assert answer.header("Content-Length") == "12"
    assert (answer.body, answer.complete) == (b"Hello World!", True)


class Chat:
    """One stream kept open, into which other requests write: `/`, `/push` and `/close`."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.stream: Any = None
        self.asynchronous = asynchronous
        self.events: list[str] = []

    def opening(self, out: Any) -> None:
        self.stream = out
        out << "hi!"

    async def opening_async(self, out: Any) -> None:
        self.stream = out
        await out.write("hi!")

    def described(self, path: str) -> Any:
        if path == "/":
            producer: Any = self.opening_async if self.asynchronous else self.opening
            return streamkit.stream(producer, keep_open=True, callback=lambda: self.events.append("closed"))
        return streamkit.stream([self.act(path)])

    def act(self, path: str) -> str:
        out = self.stream.sync if self.asynchronous else self.stream
        if path == "/push":
            out << "hello"
        else:
            out.close()
        return "ok"

    async def act_async(self, path: str) -> str:
        """As a task on the loop of the stream: it needs no twin."""
        if path == "/push":
            await self.stream.write("hello")
        elif asyncio.iscoroutine(closing := self.stream.close()):
            await closing
        return "ok"

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.described(environ["PATH_INFO"])(environ, start_response)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if self.asynchronous and scope["path"] != "/":
            response = streamkit.stream([await self.act_async(scope["path"])])
        else:
            response = await asyncio.to_thread(self.described, scope["path"])
        await response(scope, receive, send)


@pytest.fixture(
    params=itertools.product(("wsgi", "asgi"), (False, True), (False, True)),
    ids=lambda way: f"{way[0]}-{'async' if way[1] else 'sync'}{'-wrapped' if way[2] else ''}",
)
def chat(request: pytest.FixtureRequest) -> Iterator[tuple[Chat, Callable[[str], Answer]]]:
    interface, asynchronous, wrapped = request.param
    chat = Chat(asynchronous=asynchronous)
    app = chat.wsgi if interface == "wsgi" else chat.asgi
    served: Any = streamkit.wrap(app) if wrapped else app
    with ExitStack() as stack:
        server = stack.enter_context(WsgiServer(served) if interface == "wsgi" else AsgiServer(served))
        yield chat, lambda path: server.request(path=path)


def test_other_requests_write_into_a_stream_that_was_kept_open(
    chat: tuple[Chat, Callable[[str], Answer]],
) -> None:
    """S15, S16"""
    room, ask = chat
    listening = ask("/")
    assert listening.read() == b"hi!"
    assert ask("/push").finish().body == b"ok"
    assert listening.read() == b"hello"
    assert ask("/push").finish().body == b"ok"
    assert listening.read() == b"hello"
    assert room.events == []
    assert ask("/close").finish().body == b"ok"
    assert listening.finish().complete
    assert listening.body == b"hi!hellohello"
    assert until(lambda: room.events)
    assert room.events == ["closed"]


def test_threads_that_write_into_one_stream_lose_nothing(functions: Serve) -> None:
    """S16"""
    streams: list[Any] = []
    made = threading.Event()

    def program(stream: Any) -> Run:
        streams.append(stream.sync if functions.shape.awaits else stream)
        made.set()
        yield from ()

    def write(letter: str) -> None:
        for _ in range(200):
            streams[0].write(letter * 10)

    answer = functions(program, keep_open=True, options={"high_water": 500})
    assert made.wait(PATIENCE)
    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcde"]
    for writer in writers:
        writer.start()
    reader = threading.Thread(target=answer.finish)
    reader.start()
    for writer in writers:
        writer.join(PATIENCE)
    streams[0].close()
    reader.join(PATIENCE)
    assert answer.complete
    written = [answer.body[start : start + 10] for start in range(0, len(answer.body), 10)]
    assert sorted(written) == sorted([letter * 10 for letter in (b"a", b"b", b"c", b"d", b"e")] * 200)


def test_a_hook_added_after_the_end_runs_at_once(pushed: Serve) -> None:
    """S17"""
    streams: list[Any] = []
    calls: list[object] = []

    def program(stream: Any) -> Run:
        streams.append(stream)
        yield "a"

    assert pushed(program).finish().complete
    assert until(lambda: streams[0].outcome)
    for register in (streams[0].on_finish, streams[0].on_commit):
        register(lambda stream: calls.append(stream.outcome))
    assert calls == ["finished", "finished"]


def test_an_error_in_the_producer_changes_no_status_and_reaches_the_server(served: Serve) -> None:
    """S8, S18, X5: callbacks run first, and no second head is sent."""
    boom, calls = RuntimeError("boom"), []

    def program() -> Run:
        yield "a"
        raise boom

    answer = served(program, status=201, callback=lambda: calls.append("callback")).finish()
    assert [start[0] for start in answer.starts] == [201]
    assert answer.body == b"a"
    assert answer.error is boom
    assert calls == ["callback"]


@pytest.mark.parametrize("status", [204, 205, 304])
def test_an_iterable_under_a_status_without_a_body_sends_nothing(described: Serve, status: int) -> None:
    """S20"""

    def program() -> Run:
        yield from ()

    answer = described(program, status=status).finish()
    assert (answer.status, answer.body, answer.complete, answer.error) == (status, b"", True, None)
    assert answer.header("Content-Length") is None


def test_a_write_after_the_client_left_raises_from_every_thread(functions: Serve) -> None:
    """S16: who holds a kept stream is told, wherever it writes."""
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        streams.append(stream.sync if functions.shape.awaits else stream)
        yield "a"

    answer = functions(program, keep_open=True)
    assert answer.read() == b"a"
    answer.leave()

    def told() -> bool:
        try:
            streams[0].write("is anybody there?")
        except ClientDisconnected:
            return True
        return False

    assert until(told)
    answer.through()


def test_a_loop_ends_with_an_error_that_comes_before_the_commit_and_no_hook_hears_of_it(
    functions: Serve,
) -> None:
    runs: list[int] = []
    told: list[BaseException] = []

    def program() -> Run:
        runs.append(len(runs))
        if len(runs) > 1:
            yield b"late"
        raise ValueError("at once")

    answer = functions(program, loop=True, on_error=lambda stream, error: told.append(error)).through()
    assert isinstance(answer.error, ValueError)
    assert (runs, told, answer.starts) == ([0], [], [])
