"""Errors of an application for which nobody waits any more: each is told of."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, scope_of, until

import streamkit
from streamkit.engines.pool import Pool
from streamkit.engines.registry import open_streams
from streamkit.errors import ClientDisconnected, StreamEnded, TooManyStreams
from streamkit.testing import Client

try:
    from builtins import ExceptionGroup as Group
except ImportError:  # CPython 3.10, for which pytest brings it
    from exceptiongroup import ExceptionGroup as Group


def told(caplog: pytest.LogCaptureFixture) -> list[Any]:
    errors = (record for record in caplog.records if record.levelname == "ERROR")
    return [record.exc_info[0] for record in errors if record.exc_info]


class ClientDisconnect(Exception):
    """As Starlette names it."""


def serve_and_leave(interface: str, tidied_up: Any) -> None:
    """A producer whose client leaves, and which comes to `tidied_up` then."""

    def producer(stream: Any) -> None:
        try:
            while True:
                stream.write(b"x" * 100_000)
        except OSError as leave:
            tidied_up(leave)
            raise

    def wsgi(environ: Any, start_response: Any) -> Any:
        return streamkit.wsgi.respond(streamkit.stream(producer), environ, start_response)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.asgi.respond(streamkit.stream(producer), scope, receive, send)

    app: Any = wsgi if interface == "wsgi" else asgi
    with Client(app, kind=interface, lifespan="off") as client:  # type: ignore[arg-type]
        connection = client.get("/")
        assert connection.next_chunk()
        connection.disconnect()


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_fails_while_a_producer_tidies_up_after_its_client_is_logged(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(leave: OSError) -> None:
        raise LookupError("the lock was gone")

    serve_and_leave(interface, fail)
    assert until(lambda: told(caplog) == [LookupError])


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_other_words_for_the_clients_leave_are_no_error(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    def say_as_starlette(leave: OSError) -> None:
        raise ClientDisconnect

    def say_of(leave: OSError) -> None:
        raise RuntimeError("nobody is there") from leave

    serve_and_leave(interface, say_as_starlette)
    serve_and_leave(interface, say_of)
    assert until(lambda: not open_streams())
    assert told(caplog) == []


def grouped(*errors: Exception) -> Exception:
    """What a task group raises of its tasks."""
    made: Exception = Group("unhandled errors in a TaskGroup", errors)
    return made


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_leave_that_a_task_group_tells_of_is_no_error_unless_another_stands_beside_it(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    def say_in_a_group(leave: OSError) -> None:
        raise grouped(leave, grouped(leave))

    def fail_beside(leave: OSError) -> None:
        raise grouped(leave, LookupError("the lock was gone"))

    serve_and_leave(interface, say_in_a_group)
    assert until(lambda: not open_streams())
    assert told(caplog) == []
    serve_and_leave(interface, fail_beside)
    assert until(lambda: told(caplog) == [Group])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with CPython 3.11")
@pytest.mark.parametrize("carried", ["description", "own"])
@pytest.mark.parametrize("says", ["send", "receive"])
def test_a_producer_with_a_task_group_hears_of_a_leave_once(
    carried: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    async def producer(stream: Any) -> None:
        stream.on_error(lambda told, error: heard.append(type(error)))
        stream.on_finish(lambda told: heard.append(told.outcome))

        async def ticking() -> None:
            while True:
                await stream.write("tick ")
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ticking())

    async def own(scope: Any, receive: Any, send: Any) -> None:
        await producer(scope["streamkit.stream"])

    async def request() -> None:
        has_left = asyncio.Event()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 3:
                has_left.set()
                if says == "send":
                    raise OSError("gone")

        async def receive() -> Any:
            await (has_left.wait() if says == "receive" else asyncio.Event().wait())
            return {"type": "http.disconnect"}

        app: Any = own if carried == "own" else streamkit.stream(producer)
        await asyncio.wait_for(streamkit.wrap(app, kind="asgi")(scope_of(), receive, send), PATIENCE)

    asyncio.run(request())
    assert heard == [ClientDisconnected, "disconnected"]
    assert told(caplog) == []


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_an_error_of_the_system_while_a_producer_tidies_up_is_logged(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve_and_leave(interface, lambda leave: os.stat("/nowhere/at all"))
    assert until(lambda: told(caplog) == [FileNotFoundError])


@pytest.mark.parametrize("word", [None, RuntimeError])
def test_what_fails_in_an_application_that_was_cut_off_for_a_leave_is_logged(
    word: type[Exception] | None, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.on_error(lambda told, error: heard.append(type(error)))
        await stream.write("x")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cut_off:
            if word is not None:
                raise word("stopped") from cut_off
            raise LookupError("the lock was gone")  # noqa: B904 - without `from`, as by a mistake

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answer = server.request()
        assert answer.read() == b"x"
        answer.leave()
        answer.through()
    lost = [LookupError] if word is None else []
    assert (told(caplog), heard) == (lost, [*lost, ClientDisconnected])


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_fails_while_a_producer_tidies_up_after_its_stream_was_ended_is_logged(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    def producer(stream: Any) -> None:
        try:
            while True:
                stream.write(b"data: 1\n\n")
                time.sleep(0.01)
        except StreamEnded:
            raise LookupError("the lock was gone")  # noqa: B904 - without `from`, as by a mistake

    described = streamkit.stream(producer, content_type="text/event-stream")
    with WsgiServer(described) if interface == "wsgi" else AsgiServer(described) as server:
        answer = server.request()
        assert answer.read()
        streamkit.shutdown(PATIENCE)
        answer.through()
    assert until(lambda: LookupError in told(caplog))


def test_what_an_application_raises_when_it_is_refused_a_stream_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        try:
            await stream.write("x")
        except TooManyStreams:
            raise LookupError("no page for it") from None
        await release.wait()

    with Client(streamkit.wrap(app, max_streams=1, kind="asgi"), lifespan="off") as client:
        first = client.get("/")
        assert first.next_chunk() == b"x"
        assert client.get("/").status == 503
        client._loop.loop.call_soon_threadsafe(release.set)  # type: ignore[union-attr]
        assert first.read() == b""
    assert until(lambda: told(caplog) == [LookupError])


@pytest.fixture
def is_full(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Once it is set, no further job has a thread."""
    is_full, start = threading.Event(), threading.Thread.start

    def start_perhaps(thread: threading.Thread) -> None:
        if thread.name == "ours" and is_full.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_perhaps)
    monkeypatch.setattr("streamkit.engines.beside.pool", Pool("ours"))
    return is_full


def test_a_job_that_has_no_thread_is_refused_and_not_waited_for(is_full: threading.Event) -> None:
    def producer(stream: Any) -> None:
        gather = stream.gather()
        is_full.set()
        with pytest.raises(RuntimeError):
            gather.begin("a", lambda: True)
        stream.write(str(gather.next()))
        gather.close()

    with WsgiServer(streamkit.stream(producer, options={"max_duration": PATIENCE})) as server:
        assert server.request().finish().body == b"None"


def test_a_job_that_waits_for_its_turn_has_it_where_no_further_thread_is_left(
    is_full: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.engines.beside.AT_ONCE", 1)

    def producer(stream: Any) -> None:
        gather, go_on = stream.gather(), threading.Event()
        gather.begin("a", lambda: go_on.wait(PATIENCE))
        gather.begin("b", lambda: True)
        is_full.set()
        go_on.set()
        stream.write(" ".join(gather.next().key for _ in range(2)))
        gather.close()

    with WsgiServer(streamkit.stream(producer, options={"max_duration": PATIENCE})) as server:
        assert server.request().finish().body == b"a b"
