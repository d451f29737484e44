"""What Roda's streaming specs check, D1-D18 of the scenarios, in every shape that each fits.

Rule: Roda's `handle_stream_error` is `on_error` here, its queue `high_water`.
"""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE, WsgiServer, environ_of, until
from shapes import (
    BUFFERED,
    DESCRIBED,
    FUNCTIONS,
    SHAPES,
    SYNC,
    WITH_STREAM,
    Asked,
    Run,
    Serve,
    Shape,
    serving,
)

import streamkit
from streamkit.errors import ClientDisconnected, UnsupportedData


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BUFFERED, ids=str)
def buffered(request: pytest.FixtureRequest) -> Iterator[Serve]:
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


@pytest.fixture(params=[shape for shape in DESCRIBED if shape.interface == "wsgi"], ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


def test_shifting_returns_the_stream_and_writing_the_bytes_written(synced: Serve) -> None:
    """D1"""
    results: list[Any] = []

    def program(stream: Any) -> Run:
        results.append((stream << "a" << "b") is stream)
        results.append((yield "cde"))

    answer = synced(program).finish()
    assert results == [True, 3]
    assert (answer.status, answer.body) == (200, b"abcde")
    assert answer.header("Content-Type")
    assert answer.header("Content-Length") is None


def test_a_file_copied_into_the_stream_arrives_intact(synced: Serve) -> None:
    """D2"""
    content = bytes(range(256)) * 400

    def program(stream: Any) -> Run:
        shutil.copyfileobj(io.BytesIO(content), stream, 1000)
        yield from ()

    assert synced(program).finish().body == content


@pytest.mark.parametrize("own_hook", [False, True])
def test_chunks_before_an_error_arrive_and_nothing_after_it(served: Serve, own_hook: bool) -> None:
    """D3, D9: the callback runs, and the error goes on to the consumer."""
    boom, calls = RuntimeError("boom"), []

    def program() -> Run:
        yield "a"
        yield "b"
        raise boom
        yield "c"

    asked = {"on_error": lambda stream, error: calls.append("error")} if own_hook else {}
    answer = served(program, callback=lambda: calls.append("callback"), **asked).finish()
    assert (answer.body, answer.complete) == (b"ab", False)
    assert answer.error is boom
    assert until(lambda: "callback" in calls)
    assert calls == (["error", "callback"] if own_hook else ["callback"])


def spelling(word: str, error: BaseException) -> Callable[[], Run]:
    """A program for `loop=True`: one letter a turn, then the error."""
    letters = iter(word)

    def program() -> Run:
        letter = next(letters, None)
        if letter is None:
            raise error
        yield letter

    return program


def test_a_loop_runs_until_an_error_and_calls_back_once(functions: Serve) -> None:
    """D4"""
    boom, calls = RuntimeError("boom"), []
    program = spelling("abc", boom)
    answer = functions(program, loop=True, callback=lambda: calls.append("callback")).finish()
    assert (answer.body, answer.complete) == (b"abc", False)
    assert answer.error is boom
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_an_on_error_of_a_loop_that_raises_ends_it_after_what_it_wrote(functions: Serve) -> None:
    """D5"""
    calls: list[str] = []

    def broken(stream: Any, error: BaseException) -> Run:
        yield "1"
        raise LookupError("the hook fails too")

    program, hook = spelling("ab", RuntimeError("boom")), functions.hook(broken)
    answer = functions(program, loop=True, on_error=hook, callback=lambda: calls.append("callback")).finish()
    assert (answer.body, answer.complete) == (b"ab1", False)
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_an_on_error_that_closes_ends_the_loop_in_peace(functions: Serve) -> None:
    """D6"""
    calls: list[str] = []

    def closing(stream: Any, error: BaseException) -> Run:
        yield stream.close

    program, hook = spelling("abc", RuntimeError("boom")), functions.hook(closing)
    answer = functions(program, loop=True, on_error=hook, callback=lambda: calls.append("callback")).finish()
    assert (answer.body, answer.complete, answer.error) == (b"abc", True, None)
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_an_on_error_that_returns_lets_the_loop_go_on(functions: Serve) -> None:
    """D7"""
    calls, letters = [], iter("abc")

    def program(stream: Any) -> Run:
        letter = next(letters, None)
        if letter is None:
            yield stream.close
        else:
            yield letter
            raise RuntimeError("after each letter")

    def ignoring(stream: Any, error: BaseException) -> Run:
        yield "1"

    hook = functions.hook(ignoring)
    answer = functions(program, loop=True, on_error=hook, callback=lambda: calls.append("callback")).finish()
    assert (answer.body, answer.complete, answer.error) == (b"a1b1c1", True, None)
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_the_thread_engine_runs_the_producer_on_a_thread_of_its_own() -> None:
    """D8"""
    threads: list[threading.Thread] = []

    def program(stream: streamkit.ResponseStream) -> None:
        threads.append(threading.current_thread())
        for letter in "abc":
            stream.write(letter)

    with WsgiServer(streamkit.stream(program, engine="thread")) as server:
        answer = server.request().finish()
        assert answer.body == b"abc"
        assert threads[0] is not answer.thread


def test_leaving_stops_the_producer(served: Serve) -> None:
    """D10: an endless one, which nothing else could stop."""
    stopped = threading.Event()

    def program() -> Run:
        try:
            while True:
                yield b"x" * 1000
        finally:
            stopped.set()

    answer = served(program, window=0)
    assert answer.read()
    answer.leave()
    answer.through()
    assert stopped.wait(PATIENCE)


def test_closing_unread_runs_the_callback_once(served: Serve) -> None:
    """D11, D15"""
    calls: list[str] = []

    def program() -> Run:
        while True:
            yield b"x" * 1000

    answer = served(program, callback=lambda: calls.append("callback"), window=0)
    answer.leave()
    answer.through()
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_a_body_closed_before_it_is_asked_for_anything_calls_back_once(shape: Shape) -> None:
    """D15: and again closed, it does not call back again."""
    calls: list[str] = []

    def program() -> Run:
        while True:
            yield b"x" * 1000

    app = shape.build(program, Asked(lambda: None, {"callback": lambda: calls.append("callback")}))
    body = app(environ_of(), lambda *head: lambda chunk: None)
    body.close()
    assert until(lambda: "callback" in calls)
    body.close()
    assert calls.count("callback") == 1


def test_the_write_that_passes_the_high_water_waits_for_the_reader_and_no_other_does(buffered: Serve) -> None:
    """D12"""
    written: list[int] = []
    done = threading.Event()

    def program() -> Run:
        for number in range(100):
            yield b"x" * 100
            written.append(number)
        done.set()

    answer = buffered(program, window=0, options={"high_water": 1000})
    assert until(lambda: len(written) >= 9), "a write waited while there was room"
    # What must never happen cannot be waited for: a short look finds it on most machines.
    assert not done.wait(0.1)
    assert len(written) <= 24, "what is held and one write waiting, and as much in the server's hand"
    assert len(answer.rest()) == 100 * 100
    assert done.wait(PATIENCE)


def test_a_disconnect_ends_a_loop_whatever_on_error_says(functions: Serve) -> None:
    """D14"""
    errors: list[type] = []
    ended = threading.Event()

    def program() -> Run:
        yield b"x" * 1000

    def ignoring(stream: Any, error: BaseException) -> Run:
        errors.append(type(error))
        yield from ()

    answer = functions(
        program, loop=True, on_error=functions.hook(ignoring), callback=ended.set, window=0,
        options={"high_water": 2000},
    )  # fmt: skip
    assert answer.read()
    answer.leave()
    answer.through()
    assert ended.wait(PATIENCE)
    assert errors == [ClientDisconnected]


def test_a_head_request_runs_no_producer_and_calls_back_once(described: Serve) -> None:
    """D15, D16, S19, X7"""
    calls: list[str] = []

    def program() -> Run:
        calls.append("begun")
        yield "x"

    answer = described(program, method="HEAD", callback=lambda: calls.append("callback")).finish()
    assert (answer.status, answer.body, answer.error) == (200, b"", None)
    assert until(lambda: calls)
    assert calls == ["callback"]


def test_a_described_producer_has_not_begun(described: Serve) -> None:
    """D16"""
    begun: list[str] = []

    def program() -> Run:
        begun.append("begun")
        yield "x"

    asked = Asked(lambda: None, {})
    described.shape.build(program, asked)
    assert begun == []
    assert described(program).finish().body == b"x"
    assert begun == ["begun"]


def test_an_error_that_nobody_waits_for_any_more_is_not_lost(
    pushed: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """D16: it reaches the server or the log, once."""
    left, late = threading.Event(), RuntimeError("raised after the leave")
    ended = threading.Event()

    def program(stream: Any) -> Run:
        stream.ignore_disconnect = True
        stream.on_finish(lambda stream: ended.set())
        yield "first"
        assert left.wait(PATIENCE)
        raise late

    answer = pushed(program, window=0)
    assert answer.read() == b"first"
    answer.leave()
    left.set()
    answer.through()
    assert ended.wait(PATIENCE)

    def seen() -> int:
        logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is late]
        return len(logged) + (answer.error is late)

    assert until(seen)
    assert seen() == 1


def test_shifting_takes_any_object_and_write_only_text_and_bytes(synced: Serve) -> None:
    """D17, S2"""

    def program(stream: Any) -> Run:
        stream << 1 << None << 2.5 << b"bytes" << ["list"] << True
        for value in (None, 5, ["a"], object()):
            with pytest.raises(UnsupportedData) as refused:
                yield lambda value=value: stream.write(value)
            assert isinstance(refused.value, TypeError)

    assert synced(program).finish().body == b"12.5bytes['list']True"


@pytest.mark.parametrize("way", ["to the end", "an error", "a leave"])
def test_resources_are_open_while_the_producer_runs_and_closed_after_it(described: Serve, way: str) -> None:
    """D18: unlike resources opened around `stream(...)`, which close before it runs (roda#412)."""
    events: list[str] = []

    @contextmanager
    def resource(name: str) -> Iterator[None]:
        events.append(f"open {name}")
        try:
            yield
        finally:
            events.append(f"close {name}")

    def program() -> Run:
        try:
            events.append("begin")
            yield "x"
            if way == "an error":
                raise RuntimeError("boom")
            while way == "a leave":
                yield b"x" * 1000
        finally:
            events.append("end")

    answer = described(program, resources=[resource("one"), resource("two")], window=0)
    assert answer.read()
    if way == "a leave":
        answer.leave()
    answer.finish()
    assert until(lambda: len(events) == 6)
    assert events == ["open one", "open two", "begin", "end", "close two", "close one"]
