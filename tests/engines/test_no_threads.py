"""A machine that has no thread left: a clear error, and nothing that would hold up what comes later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, environ_of, until

import streamkit
from streamkit.engines import thread
from streamkit.engines.clock import ThreadClock
from streamkit.engines.loop import LoopThread
from streamkit.engines.pool import Pool
from streamkit.engines.registry import open_streams
from streamkit.engines.wholeapp import AppStream
from streamkit.errors import StreamEnded

NO_THREAD = "can't start new thread"
Refuse = Callable[[str], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Have threads with this name not start; with an empty one, they do again."""
    refused = ""
    start = threading.Thread.start

    def start_perhaps(self: threading.Thread) -> None:
        if refused and self.name.startswith(refused):
            raise RuntimeError(NO_THREAD)
        start(self)

    def refuse(name: str) -> None:
        nonlocal refused
        refused = name

    monkeypatch.setattr(threading.Thread, "start", start_perhaps)
    return refuse


def test_a_job_without_a_thread_is_refused_and_not_waited_for(refuse: Refuse) -> None:
    pool, ran = Pool("ours"), threading.Event()
    refuse("ours")
    with pytest.raises(RuntimeError, match=NO_THREAD):
        pool.submit(ran.set)
    assert not pool._busy
    refuse("")
    pool.submit(ran.set)
    assert ran.wait(PATIENCE)


def test_a_loop_whose_thread_did_not_start_runs_when_it_is_next_asked_for(refuse: Refuse) -> None:
    loops, ran = LoopThread(), threading.Event()
    refuse("streamkit-loop")
    with pytest.raises(RuntimeError, match=NO_THREAD):
        loops.running()
    assert loops._loop is not None
    loops._loop.call_soon_threadsafe(ran.set)  # who came between the two
    refuse("")
    assert until(loops.running().is_running)
    assert ran.wait(PATIENCE)
    loops.stop()


def test_a_clock_whose_thread_did_not_start_does_with_the_next_stream(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ThreadClock()
    monkeypatch.setattr("streamkit.engines.bodies.thread_clock", ours)
    refuse("streamkit-clock")

    def kept(environ: Any, start_response: Any) -> Any:
        described = streamkit.stream(lambda stream: stream.write(b"a"), options={"max_duration": 60})
        return described(environ, start_response)

    with WsgiServer(kept) as server:
        assert server.request().finish().error is not None
        assert not ours.streams
        refuse("")
        assert server.request().finish().body == b"a"
        assert ours._running


class Rows:
    """An iterable that tells when it is closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.begun = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        self.begun.set()
        yield b"a"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_producer_without_a_thread_is_an_error_before_the_commit(
    interface: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "pool", Pool("ours"))
    refuse("ours")
    outcomes: list[object] = []
    rows = Rows()
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    described: Any = streamkit.stream(rows, engine="thread", options=options)
    server = WsgiServer(described) if interface == "wsgi" else AsgiServer(described)
    with server:
        answer = server.request().finish()
    assert NO_THREAD in str(answer.error)
    assert not answer.starts
    assert (outcomes, rows.closed) == (["failed"], 1)
    assert not open_streams()


@pytest.mark.parametrize(
    ("interface", "engine"), [("wsgi", None), ("wsgi", "thread"), ("wsgi", "task"), ("asgi", "thread")]
)
@pytest.mark.parametrize("more", [{}, {"max_streams": 2}], ids=["", "max_streams"])
def test_a_stream_without_a_clock_is_closed_and_its_end_is_told(
    interface: str, engine: Any, more: dict[str, Any], refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ThreadClock()
    monkeypatch.setattr("streamkit.engines.bodies.thread_clock", clock)
    monkeypatch.setattr("streamkit.asgi.prepared.thread_clock", clock)
    rows, told = Rows(), []

    async def producer(stream: Any) -> None:
        raise AssertionError("it was not to run")

    options = {"on_finish": lambda stream: told.append(stream.outcome), **more}
    described: Any = streamkit.stream(
        producer if engine == "task" else rows,
        engine=engine,
        callback=lambda: told.append("callback"),
        options=options,
    )
    refuse("streamkit-clock")
    with WsgiServer(described) if interface == "wsgi" else AsgiServer(described) as server:
        answer = server.request().finish()
    assert NO_THREAD in str(answer.error)
    assert sorted(told) == ["callback", "failed"]
    assert rows.closed == (engine != "task")
    assert not clock.streams


@pytest.mark.parametrize("refused", ["streamkit-clock", "ours"])
def test_an_application_without_a_thread_has_its_end_told(
    refused: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, told = ThreadClock(), []
    monkeypatch.setattr("streamkit.engines.bodies.thread_clock", clock)
    monkeypatch.setattr("streamkit.engines.wholeapp.thread_clock", clock)
    monkeypatch.setattr("streamkit.engines.wholeapp.pool", Pool("ours"))

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["streamkit.stream"].write(b"a")
        return []

    wrapped = streamkit.wrap(
        app, engine="thread", on_finish=lambda stream: told.append(stream.outcome), kind="wsgi"
    )
    refuse(refused)
    with WsgiServer(wrapped) as server:
        answer = server.request().finish()
    assert NO_THREAD in str(answer.error)
    assert not answer.starts
    assert told == ["failed"]
    assert not clock.streams


class GivenUp(BaseException):
    """As gunicorn's SystemExit or gevent's Timeout, in whatever waits."""


def test_a_thread_that_did_start_before_its_starter_was_given_up_is_not_taken_for_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread, "pool", Pool("ours"))
    rows, start = Rows(), threading.Thread.start

    def start_and_give_up(self: threading.Thread) -> None:
        start(self)
        if self.name == "ours":
            assert rows.begun.wait(PATIENCE)
            raise GivenUp

    monkeypatch.setattr(threading.Thread, "start", start_and_give_up)
    described: Any = streamkit.stream(rows, engine="thread")
    with pytest.raises(GivenUp):
        described(environ_of(), lambda *answer: None)
    assert until(lambda: not thread.pool._busy)
    assert rows.closed == 1
    assert not open_streams()


@pytest.mark.parametrize("way", ["writes", "returns"])
def test_an_application_whose_server_gives_up_waiting_for_it_is_ended(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, told, go, through = Rows(), [], threading.Event(), threading.Event()
    close = rows.close

    def app(environ: Any, start_response: Any) -> Any:
        assert go.wait(PATIENCE)
        if way == "writes":
            try:
                environ["streamkit.stream"].write(b"a")
            finally:
                through.set()
        start_response("200 OK", [])
        return rows

    def closed() -> None:
        close()
        through.set()

    def give_up(self: Any, timeout: float | None = None) -> bool:
        raise GivenUp

    monkeypatch.setattr(rows, "close", closed)
    monkeypatch.setattr(AppStream, "wait_head", give_up)
    wrapped: Any = streamkit.wrap(
        app, engine="thread", on_finish=lambda stream: told.append(stream.outcome), kind="wsgi"
    )
    with pytest.raises(GivenUp):
        wrapped(environ_of(), lambda *answer: None)
    go.set()
    assert through.wait(PATIENCE)
    assert told == ["failed"]
    assert rows.closed == (way == "returns")
    assert not open_streams()


def test_a_stream_that_is_given_up_where_no_thread_is_left_has_its_end_told(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "pool", Pool("ours"))
    told: list[object] = []
    closing = threading.Event()

    def producer(stream: Any) -> None:
        stream.write(b"a")
        assert closing.wait(PATIENCE)

    options = {"write_timeout": 0.2, "on_finish": lambda stream: told.append(stream.outcome)}
    described: Any = streamkit.stream(producer, options=options)
    body = described(environ_of(), lambda *answer: None)  # its server never takes the chunk
    refuse("ours")
    assert until(lambda: told == ["timed_out"])
    assert not open_streams()
    closing.set()
    body.close()


class Full:
    """A pool whose machine has no thread from `begins` on, until `ends`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *users: str) -> None:
        self.refused, self._is_full = threading.Event(), threading.Event()
        start = threading.Thread.start

        def start_perhaps(thread: threading.Thread) -> None:
            if thread.name == "ours" and self._is_full.is_set():
                self.refused.set()
                raise RuntimeError(NO_THREAD)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_perhaps)
        ours = Pool("ours")
        for user in users:
            monkeypatch.setattr(f"streamkit.engines.{user}.pool", ours)
        self.begins, self.ends = self._is_full.set, self._is_full.clear


def test_a_stream_that_is_past_its_time_is_ended_when_there_is_a_thread_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = Full(monkeypatch, "thread", "channel")

    def producer(stream: Any) -> None:
        stream.write(b"a")
        full.begins()
        stream.wait_finished(PATIENCE)

    described = streamkit.stream(producer, options={"max_duration": 0.4})
    with WsgiServer(described) as server:
        answer = server.request()
        assert answer.read() == b"a"
        assert full.refused.wait(PATIENCE)
        full.ends()
        assert isinstance(answer.finish().error, StreamEnded)


def test_what_has_gathered_is_sent_when_there_is_a_thread_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full(monkeypatch, "thread", "gather")
    has_arrived = threading.Event()

    def producer(stream: Any) -> None:
        gather = stream.gather()
        full.begins()
        gather.parts.append("a")
        assert has_arrived.wait(PATIENCE)
        gather.flush(last=True)
        gather.close()

    with WsgiServer(streamkit.stream(producer)) as server:
        waiting = threading.Thread(target=lambda: (full.refused.wait(PATIENCE), full.ends()))
        waiting.start()
        answer = server.request()
        assert answer.read() == b"a"
        has_arrived.set()
        assert answer.finish().complete
        waiting.join(PATIENCE)
        assert full.refused.is_set()
