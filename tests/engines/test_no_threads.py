"""A machine that has no thread left: a clear error, and nothing that would hold up what comes later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until

import streamkit
from streamkit.engines import thread
from streamkit.engines.clock import ThreadClock
from streamkit.engines.loop import LoopThread
from streamkit.engines.pool import Pool
from streamkit.engines.registry import open_streams

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

    def __iter__(self) -> Iterator[bytes]:
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
