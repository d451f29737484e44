"""What none of the originals' suites pins and probing showed to matter: X1-X18 of the scenarios.

Rule: no test says what only one engine can do, unless its name says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from shapes import BUFFERED, DESCRIBED, FUNCTIONS, SHAPES, SYNC_FUNCTIONS, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.errors import AlreadyCommitted, ClientDisconnected, StreamError

LOUD = ("WARNING", "ERROR", "CRITICAL")


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


@pytest.fixture(params=SYNC_FUNCTIONS, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def test_a_producer_that_returns_without_closing_is_closed_for(pushed: Serve) -> None:
    """X1: Rails hangs for ever."""
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        streams.append(stream)
        yield "a"

    answer = pushed(program).finish()
    assert (answer.body, answer.complete) == (b"a", True)
    assert streams[0].closed
    assert until(lambda: streams[0].outcome == "finished")


def test_a_producer_that_writes_nothing_gives_an_empty_response(described: Serve) -> None:
    """X1"""

    def program() -> Run:
        yield from ()

    answer = described(program, status=201).finish()
    assert (answer.status, answer.body, answer.complete) == (201, b"", True)
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("turn", range(3))
def test_a_full_channel_a_close_and_a_leave_never_wait_for_each_other(functions: Serve, turn: int) -> None:
    """X2: 12 chunks of 3 MB, as they wedge Puma."""
    streams: list[Any] = []
    stopped = threading.Event()

    def program(stream: Any) -> Run:
        streams.append(stream.sync if functions.shape.awaits else stream)
        try:
            for _ in range(12):
                yield bytes(3_000_000)
        except (StreamError, OSError):
            pass
        finally:
            stopped.set()

    answer = functions(program, window=0, options={"high_water": 1000})
    assert answer.read()
    closer = threading.Thread(target=lambda: streams[0].close())
    closer.start()
    answer.leave()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert stopped.wait(PATIENCE)
    answer.through()


def test_closing_twice_with_a_full_channel_waits_for_nobody(functions: Serve) -> None:
    """X3: what was accepted still arrives."""
    streams: list[Any] = []
    full, written = threading.Event(), []

    def program(stream: Any) -> Run:
        streams.append(stream.sync if functions.shape.awaits else stream)
        try:
            for number in range(1000):
                if number == 2:
                    full.set()
                written.append((yield bytes(1000)))
        except StreamError:
            pass

    answer = functions(program, window=0, keep_open=True, options={"high_water": 1000})
    assert answer.read()
    assert answer.read()
    assert full.wait(PATIENCE)
    closer = threading.Thread(target=lambda: [streams[0].close() for _ in range(2)])
    closer.start()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert answer.finish().complete
    assert sum(written) <= len(answer.body) <= sum(written) + 1000


def test_a_stream_that_failed_ends_abnormally_unless_it_is_to_finish(served: Serve) -> None:
    """X4, X5"""
    boom = RuntimeError("boom")

    def program() -> Run:
        yield "so far"
        raise boom

    answer = served(program).finish()
    assert (answer.complete, answer.error) == (False, boom)
    assert (answer.body, len(answer.starts)) == (b"so far", 1)


def test_with_on_failure_finish_a_failed_stream_ends_cleanly(served: Serve) -> None:
    """X4"""

    def program() -> Run:
        yield "so far"
        raise RuntimeError("boom")

    options = {"on_failure": "finish", "completion": {"text/plain": " (cut short)"}}
    answer = served(program, options=options).finish()
    assert (answer.complete, answer.error) == (True, None)
    assert answer.body == b"so far (cut short)"


def test_the_head_is_fixed_from_the_first_write_on_whether_it_was_read_or_not(pushed: Serve) -> None:
    """X10: also in the window before the server has taken the head."""
    refused: list[str] = []

    def changes(stream: Any) -> list[Any]:
        return [
            lambda: setattr(stream, "status", 500),
            lambda: stream.headers.__setitem__("X-Late", "1"),
            lambda: stream.headers.add("X-Late", "1"),
            lambda: stream.headers.pop("X-Early"),
            lambda: stream.set_cookie("late", "1"),
        ]

    def program(stream: Any) -> Run:
        stream.headers["X-Early"] = "1"
        yield "a"
        for change in changes(stream):
            with pytest.raises(AlreadyCommitted):
                change()
            refused.append("then")

    answer = pushed(program, status=201).finish()
    assert (answer.body, answer.complete, answer.error) == (b"a", True, None)
    assert len(refused) == 5
    assert (answer.status, answer.header("X-Early"), answer.header("X-Late")) == (201, "1", None)
    assert answer.values("Set-Cookie") == []


def test_on_commit_may_still_change_the_head(pushed: Serve) -> None:
    """X10: it is called once, just before."""
    calls: list[bool] = []

    def late_header(stream: Any) -> None:
        calls.append(stream.committed)
        stream.headers["X-Late"] = "in time"
        stream.status = 203

    def program(stream: Any) -> Run:
        stream.on_commit(late_header)
        yield "a"
        yield "b"

    answer = pushed(program).finish()
    assert (answer.status, answer.header("X-Late"), answer.body) == (203, "in time", b"ab")
    assert calls == [False]


def test_open_streams_cost_no_threads_under_asgi() -> None:
    """X13: for async producers, and for kept ones whose sync producer has returned."""

    async def waiting(stream: Any) -> None:
        await stream.write("a")

    with AsgiServer(streamkit.stream(waiting, keep_open=True)) as server:
        first = server.request()
        assert first.read() == b"a"
        before = threading.active_count()
        answers = [server.request() for _ in range(100)]
        assert all(answer.read() == b"a" for answer in answers)
        assert threading.active_count() <= before + 2


MEDIA_TYPES = ["text/html", "text/event-stream", "application/x-ndjson", "application/json", "text/csv"]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("where", ["description", "stream", "options"])
def test_on_error_hears_once_of_an_error_in_every_format(pushed: Serve, media_type: str, where: str) -> None:
    """X17"""
    boom, heard = RuntimeError("boom"), []

    def hook(stream: Any, error: BaseException) -> None:
        heard.append(error)

    def program(stream: Any) -> Run:
        if where == "stream":
            stream.on_error(hook)
        yield "so far\n"
        raise boom

    asked: dict[str, Any] = {"description": {"on_error": hook}, "options": {"options": {"on_error": hook}}}
    answer = pushed(program, content_type=media_type, **asked.get(where, {})).finish()
    assert heard == [boom]
    clean = media_type == "text/event-stream"
    assert (answer.complete, answer.error) == ((True, None) if clean else (False, boom))


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_on_error_hears_once_of_a_leave_in_every_format(served: Serve, media_type: str) -> None:
    """X17"""
    heard: list[type] = []

    def program() -> Run:
        while True:
            yield b"x" * 1000

    options = {"on_error": lambda stream, error: heard.append(type(error)), "high_water": 2000}
    answer = served(program, content_type=media_type, options=options, window=0)
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: heard)
    assert heard == [ClientDisconnected]


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_chunk_is_no_end(served: Serve, empty: str | bytes) -> None:
    """X18"""

    def program() -> Run:
        yield empty
        yield "a"
        yield empty
        yield "b"

    answer = served(program).finish()
    assert (answer.body, answer.complete) == (b"ab", True)


def test_an_empty_write_commits(pushed: Serve) -> None:
    """X18"""
    seen: list[object] = []

    def program(stream: Any) -> Run:
        seen.append(stream.committed)
        seen.append((yield b""))
        seen.append(stream.committed)

    answer = pushed(program, status=201).finish()
    assert (answer.status, answer.body, answer.complete) == (201, b"", True)
    assert seen == [False, 0, True]


def test_shifting_none_is_no_end(synced: Serve) -> None:
    """X18"""

    def program(stream: Any) -> Run:
        stream << "a" << None << "b"
        yield from ()

    assert synced(program).finish().body == b"ab"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_the_async_twin_awaits_what_the_design_marks_and_nothing_else(interface: str) -> None:
    """`commit` and `abort` are not awaited, `close` and all that may wait is."""
    seen: list[object] = []

    async def producer(stream: streamkit.AsyncResponseStream) -> None:
        stream.commit()
        seen.append(stream.committed)
        seen.append(await stream.write("a"))
        seen.append(await stream.writeln("b"))
        await stream.writelines(["c", "d"])
        await stream.flush()
        seen.append(await stream.wait_committed(PATIENCE))
        await stream.close()  # type: ignore[func-returns-value]
        await stream.close()  # type: ignore[func-returns-value]
        seen.append(stream.closed)
        stream.abort("for nothing")

    described = streamkit.stream(producer)
    with WsgiServer(described) if interface == "wsgi" else AsgiServer(described) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, answer.error) == (b"ab\ncd", True, None)
    assert seen == [True, 1, 2, True, True]
