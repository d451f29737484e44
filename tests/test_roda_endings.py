"""How Roda's streams end: by a leave, by an error, unread; D10-D18 of the scenarios.

Rule: whatever ends a stream, its callback runs once, its resources close, and no error is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from driving import PATIENCE, Answer, environ_of, until
from shapes import BUFFERED, DESCRIBED, FUNCTIONS, SHAPES, WITH_STREAM, Asked, Run, Serve, Shape, serving

from streamkit.errors import ClientDisconnected


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BUFFERED, ids=str)
def buffered(request: pytest.FixtureRequest) -> Iterator[Serve]:
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


@contextmanager
def set_at_the_end(left: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        left.set()


def test_a_disconnect_ends_a_loop_whose_producer_swallows_every_error(functions: Serve) -> None:
    """D14: what its writes raise is all that would stop it."""
    ended = threading.Event()

    def program() -> Run:
        with suppress(Exception):
            yield b"x" * 1000

    resources = [set_at_the_end(ended)]
    answer = functions(program, loop=True, resources=resources, window=0, options={"high_water": 2000})
    assert answer.read()
    answer.leave()
    answer.through()
    assert ended.wait(PATIENCE)


def test_a_loop_ends_when_its_producer_has_closed_the_stream(functions: Serve) -> None:
    """D6: closing again would do no harm, so nothing else stops it."""
    turns: list[int] = []
    ended = threading.Event()

    def program(stream: Any) -> Run:
        turns.append(1)
        yield stream.close

    answer = functions(program, loop=True, resources=[set_at_the_end(ended)]).finish()
    assert answer.complete
    assert ended.wait(PATIENCE)
    assert turns == [1]


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


def times_seen(error: BaseException, answer: Answer, caplog: pytest.LogCaptureFixture) -> int:
    """How often an error came to somebody's notice: the server's, or the log's."""
    logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
    return len(logged) + (answer.error is error)


def test_an_error_that_nobody_waits_for_any_more_is_not_lost(
    pushed: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """D16: it reaches the server or the log, once."""
    left, ended, late = threading.Event(), threading.Event(), RuntimeError("raised after the leave")

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
    assert until(lambda: times_seen(late, answer, caplog))
    assert times_seen(late, answer, caplog) == 1


def test_an_error_behind_chunks_that_nobody_read_is_not_lost(
    buffered: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """D16: the client leaves before the server has come as far as the error."""
    failed, boom = threading.Event(), RuntimeError("raised before the leave")

    def program(stream: Any) -> Run:
        stream.on_error(lambda stream, error: failed.set())
        yield "first"
        yield "second"
        raise boom

    answer = buffered(program, window=0)
    assert answer.status == 200
    assert failed.wait(PATIENCE)
    answer.leave()
    answer.through()
    assert until(lambda: times_seen(boom, answer, caplog))
    assert times_seen(boom, answer, caplog) == 1


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
