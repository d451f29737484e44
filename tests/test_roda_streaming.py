"""What Roda's streaming specs check, D1-D9, D12 and D17 of the scenarios, in every shape that each fits.

Rule: Roda's `handle_stream_error` is `on_error` here, its queue `high_water`.
"""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, WsgiServer, until
from shapes import BUFFERED, FUNCTIONS, SHAPES, SYNC, Run, Serve, serving

import streamkit
from streamkit.errors import UnsupportedData


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BUFFERED, ids=str)
def buffered(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


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


def test_shifting_takes_any_object_and_write_only_text_and_bytes(synced: Serve) -> None:
    """D17, S2"""

    def program(stream: Any) -> Run:
        stream << 1 << None << 2.5 << b"bytes" << ["list"] << True
        for value in (None, 5, ["a"], object()):
            with pytest.raises(UnsupportedData) as refused:
                yield lambda value=value: stream.write(value)
            assert isinstance(refused.value, TypeError)

    assert synced(program).finish().body == b"12.5bytes['list']True"
