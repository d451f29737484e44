"""Many small texts as few chunks, by `stream.gather()`, on each engine that has it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer

import streamkit

Serve = Callable[[Any], Answer]


@pytest.fixture(params=["wsgi", "asgi"])
def served(request: Any) -> Iterator[Serve]:
    with ExitStack() as servers:

        def serve(producer: Any) -> Answer:
            response: Any = streamkit.stream(producer)
            server: Any = WsgiServer if request.param == "wsgi" else AsgiServer
            answer: Answer = servers.enter_context(server(response)).request()
            return answer

        yield serve


def test_what_waits_is_sent_while_the_producer_waits_for_something_else(served: Serve):
    go = threading.Event()

    def producer(stream: Any) -> None:
        gather = stream.gather()
        gather.parts.append("a")
        assert go.wait(PATIENCE)
        gather.parts.append("b")
        gather.flush()
        gather.close()

    answer = served(producer)
    assert answer.read() == b"a"
    go.set()
    assert answer.rest() == b"b"
    assert answer.complete


def test_what_waits_is_sent_while_a_task_waits(served: Serve):
    go = threading.Event()

    async def producer(stream: Any) -> None:
        gather = stream.gather()
        gather.parts.append("a")
        await asyncio.to_thread(go.wait, PATIENCE)
        gather.parts.append("b")
        await gather.flush()
        gather.close()

    answer = served(producer)
    assert answer.read() == b"a"
    go.set()
    assert answer.rest() == b"b"
    assert answer.complete


def test_hooks_of_the_commit_that_wait_keep_the_order(served: Serve):
    go = threading.Event()

    async def producer(stream: Any) -> None:
        @stream.on_commit
        async def hook(stream: Any) -> None:
            await asyncio.to_thread(go.wait, PATIENCE)
            stream.headers["X-Hook"] = "ran"

        gather = stream.gather()
        for text in ("a", "b", "c"):
            gather.parts.append(text)
            gather.push()
        gather.parts.append("d")
        asyncio.get_running_loop().call_later(0.1, go.set)
        await gather.flush()
        gather.close()

    answer = served(producer).finish()
    assert answer.header("X-Hook") == "ran"
    assert b"".join(answer.chunks) == b"abcd"


@pytest.mark.parametrize("waits", [True, False])
def test_what_a_hook_raises_is_raised_to_the_producer(served: Serve, waits: bool):
    seen: list[str] = []

    async def producer(stream: Any) -> None:
        @stream.on_commit
        async def hook(stream: Any) -> None:
            await asyncio.sleep(0)
            raise LookupError("hook")

        gather = stream.gather()
        try:
            gather.parts.append("a")
            if waits:
                gather.push()
            await gather.flush()
        except LookupError:
            seen.append("raised")
            raise
        finally:
            gather.close()

    answer = served(producer).finish()
    assert seen == ["raised"]
    assert isinstance(answer.error, LookupError)
    assert not answer.committed


SAID: ContextVar[str] = ContextVar("said", default="nothing")


def test_hooks_of_a_commit_by_the_clock_see_the_context_of_the_producer_and_leave_no_trace_in_it(
    served: Serve,
):
    go = threading.Event()
    seen: list[str] = []

    def producer(stream: Any) -> None:
        @stream.on_commit
        def hook(stream: Any) -> None:
            seen.append(SAID.get())
            SAID.set("the hook's")

        SAID.set("the producer's")
        gather = stream.gather()
        gather.parts.append("a")
        assert go.wait(PATIENCE)
        seen.append(SAID.get())
        gather.close()

    answer = served(producer)
    assert answer.read() == b"a"
    go.set()
    answer.finish()
    assert seen == ["the producer's"] * 2


def test_nothing_is_committed_after_a_hook_that_raised_beside_the_producer(served: Serve):
    raised = threading.Event()

    def producer(stream: Any) -> None:
        gather = stream.gather()

        @stream.on_commit
        def hook(stream: Any) -> None:
            try:
                raise LookupError("hook")
            finally:
                raised.set()

        try:
            gather.parts.append("a")
            assert raised.wait(PATIENCE)
            gather.parts.append("b")
            gather.flush()
        finally:
            gather.close()

    answer = served(producer).finish()
    assert isinstance(answer.error, LookupError)
    assert not answer.committed


def test_jobs_are_handed_over_as_they_become_ready(served: Serve):
    first = threading.Event()

    def producer(stream: Any) -> None:
        gather = stream.gather()

        def last() -> str:
            assert first.wait(PATIENCE)
            return "last"

        gather.begin(1, last)
        gather.begin(2, lambda: "first")
        gather.begin(3, lambda: 1 // 0)
        found = {}
        while (ready := gather.next()) is not None:
            found[ready.key] = ready.result if ready.error is None else type(ready.error).__name__
            if len(found) == 2:
                first.set()
        gather.parts.append(repr(found))
        gather.flush()
        gather.close()

    body = served(producer).finish().body.decode()
    assert body.endswith("1: 'last'}")
    assert "3: 'ZeroDivisionError'" in body


def test_no_more_than_some_jobs_run_at_a_time_and_all_run(served: Serve):
    lock, running, most = threading.Lock(), [0], [0]
    pair = threading.Barrier(2)

    def job() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.01)
        pair.wait(PATIENCE)  # two run side by side, or none goes on
        with lock:
            running[0] -= 1

    def producer(stream: Any) -> None:
        gather = stream.gather()
        for key in range(100):
            gather.begin(key, job)
        count = 0
        while gather.next() is not None:
            count += 1
        stream.write(str(count))
        gather.close()

    assert served(producer).finish().body == b"100"
    assert not pair.broken
    assert most[0] <= 32


def test_a_producer_that_waits_for_a_job_is_released_when_its_stream_is_ended(served: Serve):
    go, ended = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        gather = stream.gather()
        gather.parts.append("a")
        gather.flush()
        gather.begin(1, lambda: go.wait(PATIENCE))
        threading.Timer(0.05, lambda: stream.abort("enough")).start()
        try:
            gather.next()
        except streamkit.StreamClosed:
            ended.set()
            raise
        finally:
            gather.close()

    answer = served(producer)
    answer.finish()
    assert ended.wait(PATIENCE)
    go.set()
    assert not answer.complete


def test_a_reader_has_a_turn_when_the_first_piece_is_flushed_by_a_producer_that_never_waits():
    came: list[bytes] = []
    in_time: list[bool] = []

    def producer(stream: Any) -> None:
        gather = stream.gather()
        gather.parts.append("a")
        gather.flush()
        latest = time.monotonic() + 0.1
        while not came and time.monotonic() < latest:
            pass
        in_time.append(bool(came))
        gather.close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1.0)  # so long a thread that only computes keeps the others waiting
    try:
        for _ in range(30):  # it is offered to the reader, who may be too slow to take it
            came.clear()
            response: Any = streamkit.stream(producer)
            environ: dict[str, Any] = {"SERVER_PROTOCOL": "HTTP/1.1"}
            setup_testing_defaults(environ)
            body = response(environ, lambda *head: lambda data: None)
            try:
                came.extend(body)
            finally:
                body.close()
            if any(in_time):
                break
    finally:
        sys.setswitchinterval(interval)
    assert any(in_time)
