"""`streamkit.shutdown`: every open stream hears of it, and comes to an end within the grace.

Rule: what has an end of its own may come to it; what has none is told at once.
"""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, scope_of, until
from shapes import BUFFERED, FUNCTIONS, SHAPES, Run, Serve, Shape, serving

import streamkit
from streamkit.engines import registry
from streamkit.engines.clock import loop_clock, thread_clock
from streamkit.errors import InvalidTimeout, StreamEnded

EVENTS = "text/event-stream"
# Under WSGI, with a producer that does not run in the server's thread.
CARRIED = [shape for shape in SHAPES if shape.interface == "wsgi" and shape in BUFFERED]
LOUD = ("WARNING", "ERROR", "CRITICAL")


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def ticking() -> Run:
    pause = threading.Event()
    for number in range(100_000):
        yield b"data: %d\n\n" % number
        pause.wait(0.005)


def test_an_open_event_stream_gets_a_farewell_and_a_clean_end(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """X14"""
    outcomes: list[object] = []
    # The head waits for the first event, however long a busy machine takes for it.
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome), "commit_after": PATIENCE}
    answer = served(ticking, content_type=EVENTS, options=options)
    assert answer.read().startswith(b"data: 0\n\n")  # more of them if it was slow
    assert streamkit.shutdown(grace=PATIENCE)
    assert answer.finish().complete
    last = answer.body.decode().split("\n\n")[-2]
    found = re.fullmatch(r"retry: (\d+)", last)
    assert found, last
    assert 1600 <= int(found[1]) <= 2400
    assert outcomes == ["shut_down"]
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def test_a_body_with_an_end_may_come_to_it(served: Serve) -> None:
    last = threading.Event()
    ended: list[bool] = []

    def program() -> Run:
        yield b"a"
        assert last.wait(PATIENCE)
        yield b"b"

    answer = served(program)
    assert answer.read() == b"a"
    ending = threading.Thread(target=lambda: ended.append(streamkit.shutdown(grace=PATIENCE)))
    ending.start()
    last.set()
    assert answer.finish().body == b"ab"
    assert answer.complete
    ending.join(PATIENCE)
    assert ended == [True]


def test_a_body_that_does_not_come_to_its_end_is_cut(served: Serve) -> None:
    outcomes: list[object] = []
    errors: list[type] = []
    options = {
        "on_finish": lambda stream: outcomes.append(stream.outcome),
        "on_error": lambda stream, error: errors.append(type(error)),
    }
    answer = served(ticking, options=options)
    assert answer.read().startswith(b"data: 0\n\n")  # more of them if it was slow
    assert streamkit.shutdown(grace=0.6)
    answer.finish()
    assert not answer.complete
    assert isinstance(answer.error, StreamEnded)
    assert (outcomes, errors) == (["shut_down"], [StreamEnded])


def test_a_stream_that_is_kept_open_ends_cleanly_whatever_its_type(functions: Serve) -> None:
    def program() -> Run:
        yield b"a"

    answer = functions(program, keep_open=True)
    assert answer.read() == b"a"
    assert streamkit.shutdown(grace=PATIENCE)
    assert answer.finish().complete
    assert answer.error is None


def test_a_silent_producer_does_not_hold_the_shutdown_up(functions: Serve) -> None:
    told = threading.Event()

    def program() -> Run:
        yield b"data: 1\n\n"
        assert told.wait(PATIENCE)

    answer = functions(program, content_type=EVENTS)
    assert answer.read() == b"data: 1\n\n"
    ending = threading.Thread(target=streamkit.shutdown, args=(PATIENCE,))
    ending.start()
    # While the producer still waits:
    assert answer.read().startswith(b"retry: ")
    told.set()
    ending.join(PATIENCE)
    assert answer.finish().complete


def test_a_client_that_takes_nothing_does_not_hold_the_shutdown_up(functions: Serve) -> None:
    outcomes: list[object] = []

    def program() -> Run:
        for _ in range(10_000):
            yield b"x" * 16_384

    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    answer = functions(program, window=0, options=options)
    assert answer.read()
    streamkit.shutdown(grace=0.2)
    assert until(lambda: outcomes == ["shut_down"]), outcomes
    assert functions.ended()


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.described], ids=str)
def test_a_stream_may_begin_after_a_shutdown(shape: Shape) -> None:
    """Whether requests still come is the server's affair."""

    def program() -> Run:
        yield b"a"

    for served in serving(shape):
        first = served(ticking, content_type=EVENTS)
        first.read()
        assert streamkit.shutdown(grace=PATIENCE)
        assert served(program).finish().body == b"a"


@pytest.mark.parametrize("shape", CARRIED, ids=str)
def test_a_stream_is_not_missed_before_its_server_knows_of_it(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer runs beside the server's thread, which is held up here where it counts the stream in."""
    began, ended = threading.Event(), threading.Event()
    outcomes: list[object] = []
    add = thread_clock.add

    def held_up(stream: Any) -> None:
        ended.wait(0.3)
        add(stream)

    def program() -> Run:
        yield b"data: 0\n\n"
        began.set()
        assert ended.wait(PATIENCE)
        yield b"data: 1\n\n"

    def shut_down() -> None:
        assert began.wait(PATIENCE)
        streamkit.shutdown(PATIENCE)
        ended.set()

    monkeypatch.setattr(thread_clock, "add", held_up)
    ending = threading.Thread(target=shut_down)
    ending.start()
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    for served in serving(shape):
        assert b"data: 1" not in served(program, content_type=EVENTS, options=options).finish().body
        ending.join(PATIENCE)
    assert outcomes == ["shut_down"]


class Short:
    """A stream that is over at the next look, when another one is open."""

    options = streamkit.Options(grace=0.05)
    response = _head = _ending = None

    def end_early(self, ending: StreamEnded) -> None:
        pass

    give_up = end_early


def test_the_lifespans_shutdown_is_not_held_up_by_clients_that_go_on_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "open_streams", lambda: [(None, Short())])
    ending = threading.Thread(target=lambda: asyncio.run(registry.shutdown_async()), daemon=True)
    ending.start()
    ending.join(PATIENCE)
    assert not ending.is_alive()


def test_without_an_open_stream_there_is_nothing_to_wait_for() -> None:
    assert streamkit.shutdown() is True
    assert streamkit.shutdown(grace=0) is True


@pytest.mark.parametrize("grace", [-1, "5", True, float("inf"), float("nan")])
def test_a_grace_that_is_no_time_is_refused(grace: Any) -> None:
    with pytest.raises(InvalidTimeout, match="seconds"):
        streamkit.shutdown(grace)


def test_the_lifespans_shutdown_ends_open_streams_before_the_app_hears_of_it() -> None:
    """Servers send it when they have stopped accepting; granian and daphne never get so far."""
    order: list[str] = []

    async def producer(stream: Any) -> None:
        stream.on_finish(lambda stream: order.append(f"the stream: {stream.outcome}"))
        await stream.write("data: 1\n\n")
        await asyncio.Event().wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            order.append("the app")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await streamkit.stream(producer, content_type=EVENTS)(scope, receive, send)

    async def lifespan(wrapped: Any) -> list[str]:
        said: list[str] = []
        asked = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            return {"type": next(asked)}

        async def send(message: dict[str, str]) -> None:
            said.append(message["type"])

        await wrapped({"type": "lifespan"}, receive, send)
        return said

    wrapped = streamkit.wrap(app)
    with AsgiServer(wrapped) as server:
        answer = server.request()
        assert answer.read() == b"data: 1\n\n"
        said = asyncio.run_coroutine_threadsafe(lifespan(wrapped), server.loop).result(PATIENCE)
        answer.finish()
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert order == ["the stream: shut_down", "the app"]


def test_on_an_event_loop_it_does_not_wait() -> None:
    async def producer(stream: Any) -> None:
        await stream.write("data: 1\n\n")
        await asyncio.Event().wait()

    with AsgiServer(streamkit.stream(producer, content_type=EVENTS)) as server:
        answer = server.request()
        assert answer.read() == b"data: 1\n\n"

        async def ask() -> bool:
            return streamkit.shutdown(PATIENCE)

        assert asyncio.run_coroutine_threadsafe(ask(), server.loop).result(PATIENCE) is False
        assert answer.finish().complete


def test_a_description_without_a_wrap_leaves_the_sigint_of_asyncio_run_alone() -> None:
    async def serve() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            pass

        await streamkit.stream(["a"])(scope_of("GET"), receive, send)

    before = signal.getsignal(signal.SIGINT)
    asyncio.run(serve())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stream_that_has_just_come_to_its_end_is_given_up_in_silence() -> None:
    """As by a shutdown that has looked for open streams a moment before."""
    complaints: list[str] = []
    outcomes: list[Any] = []

    async def producer(stream: Any) -> None:
        await stream.write("data: 1\n\n")
        await asyncio.Event().wait()

    async def request() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, said: complaints.append(said["message"]))
        has_begun, is_over, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            has_begun.set()

        async def hook(stream: Any) -> None:
            outcomes.append(stream.outcome)
            is_over.set()
            await may_end.wait()

        described = streamkit.stream(producer, content_type=EVENTS, options={"on_finish": hook})
        serving_it = asyncio.ensure_future(described(scope_of(), asyncio.Event().wait, send))
        await asyncio.wait_for(has_begun.wait(), PATIENCE)
        (stream,) = loop_clock().streams
        ending = StreamEnded("shut_down", "the server is shutting down")
        stream.end_early(ending)
        await asyncio.wait_for(is_over.wait(), PATIENCE)
        loop.call_soon(stream.give_up, ending)
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.wait_for(serving_it, PATIENCE)

    asyncio.run(request())
    assert (outcomes, complaints) == (["shut_down"], [])


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_stream_that_is_all_there_has_finished_although_a_shutdown_found_its_client_slow(kind: str) -> None:
    outcomes: list[object] = []
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    is_written = threading.Event()

    def function(stream: Any) -> None:
        stream.write(b"a" * 1000)
        stream.write(b"b" * 1000)
        stream.close()
        is_written.set()

    async def coroutine(stream: Any) -> None:
        await stream.write(b"a" * 1000)
        await stream.write(b"b" * 1000)
        await stream.close()
        is_written.set()

    described = streamkit.stream(function if kind == "function" else coroutine, options=options)
    with WsgiServer(described) as server:
        answer = server.request(window=0)
        assert answer.read()
        assert is_written.wait(PATIENCE)
        streamkit.shutdown(grace=0.01)
        answer.finish()
    assert (answer.body, answer.complete) == (b"a" * 1000 + b"b" * 1000, True)
    assert outcomes == ["finished"]
