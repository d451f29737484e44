"""`stream.sync` in a thread, where the server fails, the client takes nothing or the request is cancelled."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from driving import PATIENCE, until
from twinned import (
    CHUNK,
    SCOPE,
    Told,
    error_of_writes,
    failing,
    nothing,
    producer_of,
    request_by,
    scope_app,
    sending,
    server_for,
    take,
    write_all,
)

from streamkit import ClientDisconnected
from streamkit.errors import StreamError


def test_a_send_that_fails_is_told_to_each_further_write() -> None:
    heard: list[BaseException] = []

    def job(twin: Any) -> None:
        twin.write(b"first")
        heard.append(error_of_writes(twin))
        heard.append(error_of_writes(twin))
        raise heard[-1]

    error, told = RuntimeError("the server says so"), Told()
    app = scope_app(producer_of(job, nothing), {"options": told.options})
    with pytest.raises(RuntimeError, match="the server says so"):
        request_by(app, sending(2, failing(error)))
    assert heard == [error, error]
    assert (told.errors, told.outcomes) == ([error], ["failed"])


def test_a_send_that_finds_the_client_gone_ends_the_thread_as_any_leave() -> None:
    heard: list[BaseException] = []

    def job(twin: Any) -> None:
        twin.write(b"first")
        heard.append(error_of_writes(twin))

    told = Told()
    app = scope_app(producer_of(job, nothing), {"options": told.options})
    request_by(app, sending(2, failing(OSError())))
    assert [type(error) for error in heard] == [ClientDisconnected]
    assert [type(error) for error in told.errors] == [ClientDisconnected]
    assert told.outcomes == ["disconnected"]


@pytest.mark.parametrize("end", ["return", "close", "twin.close", "with"])
def test_a_send_that_fails_behind_the_last_write_fails_the_stream(end: str) -> None:
    def job(twin: Any) -> None:
        twin.write(b"first")
        twin.write(CHUNK)
        if end == "with":
            with twin:
                twin.write(CHUNK)
        elif end == "twin.close":
            twin.close()

    async def after(stream: Any) -> None:
        if end == "close":
            await stream.close()

    error, told = RuntimeError("the server says so"), Told()
    with pytest.raises(RuntimeError, match="the server says so"):
        request_by(scope_app(producer_of(job, after), {"options": told.options}), sending(1, failing(error)))
    assert (told.errors, told.outcomes) == ([error], ["failed"])


def test_a_client_that_takes_nothing_is_given_up_also_where_two_threads_began() -> None:
    is_first = threading.Event()
    may_one_go, may_two_go = asyncio.Event(), asyncio.Event()
    heard: list[BaseException] = []

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        if body == b"one":
            is_first.set()
            await may_one_go.wait()
        elif body == b"two":  # begun while the first was with the server, and over after what follows it
            may_one_go.set()
            await may_two_go.wait()
        elif body:
            may_two_go.set()
            await asyncio.Event().wait()

    def write_two(twin: Any) -> None:
        assert is_first.wait(PATIENCE)
        twin.write(b"two")

    def job(twin: Any) -> None:
        other = threading.Thread(target=write_two, args=(twin,))
        other.start()
        twin.write(b"one")
        heard.append(error_of_writes(twin))
        other.join(PATIENCE)

    told = Told()
    options = {"write_timeout": 0.3, **told.options}
    request_by(scope_app(producer_of(job, nothing), {"options": options}), send)
    assert [type(error) for error in heard] == [ClientDisconnected]
    assert told.outcomes == ["timed_out"]


@pytest.mark.parametrize("end", ["abort", "close"])
def test_a_stream_that_is_ended_does_not_wait_for_ever_for_a_client_that_takes_nothing(end: str) -> None:
    told = Told()

    async def producer(stream: Any) -> None:
        work = asyncio.ensure_future(asyncio.to_thread(error_of_writes, stream.sync))
        sizes, latest = [-1], time.monotonic() + PATIENCE
        while len(sizes) < 20 or sizes[-20] < stream.tell():
            assert time.monotonic() < latest, "nothing holds the thread up"
            sizes.append(stream.tell())
            await asyncio.sleep(0.005)
        if end == "abort":
            stream.abort("enough")
        else:
            await stream.close()
        await work

    options = {"high_water": 10_000, "write_timeout": 0.5 if end == "close" else 60, **told.options}
    with server_for("scope", producer, {"options": options}) as server:
        answer = server.request(window=1000)
        assert until(lambda: told.outcomes), "it waits for the client"
        assert not answer.complete
    assert told.outcomes == ["aborted" if end == "abort" else "timed_out"]


def test_a_thread_that_goes_on_writing_does_not_keep_the_loop_from_writing() -> None:
    is_over = threading.Event()
    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))
        await asyncio.sleep(0.001)

    async def producer(stream: Any) -> None:
        def job() -> None:
            while not is_over.wait(0.0001):  # so that there is always something, and room for more
                twin.write(b"thread\n")

        await stream.write(b"first\n")
        twin = stream.sync
        work = asyncio.ensure_future(asyncio.to_thread(job))
        try:
            for _ in range(10):
                await stream.write(b"loop\n")
        finally:
            is_over.set()
        await work

    request_by(scope_app(producer, {}), send)
    lines = b"".join(bodies).splitlines()
    assert lines.count(b"loop") == 10
    assert lines.count(b"thread") < 2_000  # some 40; ten thousand and more where it starves
    assert lines[0] == b"first"


def test_a_stream_with_a_twin_is_gone_with_its_request() -> None:
    streams: list[Any] = []

    async def producer(stream: Any) -> None:
        streams.append(weakref.ref(stream))
        await asyncio.to_thread(write_all, stream.sync)

    gc.collect()
    gc.disable()
    try:
        request_by(scope_app(producer, {}), take)
        assert [stream() for stream in streams] == [None]
    finally:
        gc.enable()


def test_a_thread_that_waits_is_released_when_its_request_is_cancelled() -> None:
    heard: list[BaseException] = []
    is_stuck = threading.Event()

    def job(twin: Any) -> None:
        twin.write(b"first")
        heard.append(error_of_writes(twin))

    async def main() -> None:
        bodies = 0

        async def send(message: Any) -> None:
            nonlocal bodies
            bodies += message["type"] == "http.response.body"
            if bodies > 2:
                is_stuck.set()
                await asyncio.Event().wait()

        app = scope_app(producer_of(job, nothing), {"options": {"high_water": 10_000}})
        request = asyncio.create_task(app({**SCOPE}, asyncio.Event().wait, send))
        assert await asyncio.to_thread(is_stuck.wait, PATIENCE)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(request, PATIENCE)
        assert await asyncio.to_thread(until, lambda: heard)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left or not (await asyncio.wait(left, timeout=PATIENCE))[1]

    asyncio.run(main())
    assert [type(error) for error in heard] == [ClientDisconnected]


def test_a_first_write_after_the_request_was_cancelled_finds_the_client_gone() -> None:
    streams: list[Any] = []
    begun = asyncio.Event()

    async def producer(stream: Any) -> None:
        streams.append(stream.sync)
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        request = asyncio.create_task(scope_app(producer, {})({**SCOPE}, asyncio.Event().wait, take))
        await begun.wait()
        request.cancel()
        await asyncio.wait([request])
        with pytest.raises(ClientDisconnected):
            await asyncio.to_thread(streams[0].write, b"late")

    asyncio.run(main())


def test_a_send_that_the_server_cancels_leaves_no_hole() -> None:
    heard: list[BaseException] = []
    is_cancelled = threading.Event()

    async def send(message: Any) -> None:
        if CHUNK in message.get("body", b"") and not is_cancelled.is_set():
            is_cancelled.set()
            raise asyncio.CancelledError

    def job(twin: Any) -> None:
        twin.write(b"first")
        twin.write(CHUNK)
        assert is_cancelled.wait(PATIENCE)
        with pytest.raises(StreamError, match="cancelled") as caught:
            twin.write(b"")
        heard.append(caught.value)
        raise caught.value

    with pytest.raises(StreamError, match="cancelled"):
        request_by(scope_app(producer_of(job, nothing), {}), send)
    assert len(heard) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin eagerly from CPython 3.12 on")
def test_a_client_that_takes_nothing_is_given_up_where_tasks_begin_eagerly() -> None:
    heard: list[BaseException] = []

    async def send(message: Any) -> None:
        if CHUNK in message.get("body", b""):
            await asyncio.Event().wait()

    def job(twin: Any) -> None:
        twin.write(b"first")
        heard.append(error_of_writes(twin))

    app = scope_app(producer_of(job, nothing), {"options": {"write_timeout": 0.3}})

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        await app(scope, receive, send)

    request_by(eager, send)
    assert [type(error) for error in heard] == [ClientDisconnected]
