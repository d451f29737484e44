"""Every way in which a stream can end, and what each must not forget: X1, X4, X5, X15 and D15.

Rule: whatever happens, the hooks run once, the outcome says which way it was, and an error
before the commit is a real error page.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, environ_of, until
from shapes import DESCRIBED, FUNCTIONS, SHAPES, WITH_STREAM, Asked, Run, Serve, Shape, serving

import streamkit
from streamkit.errors import AlreadyServed, StreamAborted, StreamKitError


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
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


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    ("way", "outcome"), [("end", "finished"), ("early error", "failed"), ("late error", "failed")]
)
def test_hooks_hear_of_every_end_once_and_which_it_was(
    served: Serve, way: str, outcome: str, version: str
) -> None:
    """D15: also of an error before the commit, and of a body that is held whole."""
    calls: list[str] = []
    outcomes: list[object] = []

    def program() -> Run:
        if way == "early error":
            raise RuntimeError("before the commit")
        yield "x"
        if way == "late error":
            raise RuntimeError("after the commit")

    answer = served(
        program,
        version=version,
        callback=lambda: calls.append("callback"),
        options={"on_finish": lambda stream: outcomes.append(stream.outcome)},
    ).finish()
    assert (answer.error is None) == (way == "end")
    assert until(lambda: calls and outcomes)
    assert (calls, outcomes) == (["callback"], [outcome])


def test_an_on_commit_hook_that_raises_is_an_error_before_the_commit(pushed: Serve) -> None:
    """X5"""
    boom, raised = RuntimeError("boom"), []

    def refusing(stream: Any) -> None:
        raise boom

    def program(stream: Any) -> Run:
        stream.on_commit(refusing)
        try:
            yield "x"
        except RuntimeError as error:
            raised.append(error)
            raise

    answer = pushed(program).finish()
    assert raised == [boom]
    assert answer.error is boom
    assert not answer.committed


def test_an_abort_before_the_commit_sends_nothing(pushed: Serve) -> None:
    """X15: the server answers with a page of its own."""
    outcomes: list[object] = []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        stream.abort("no more paper")
        yield from ()

    answer = pushed(program).finish()
    assert not answer.committed
    assert isinstance(answer.error, StreamAborted)
    assert "no more paper" in str(answer.error)
    assert until(lambda: outcomes)
    assert outcomes == ["aborted"]


def test_an_abort_after_the_commit_cuts_the_body(pushed: Serve) -> None:
    """X4"""
    outcomes: list[object] = []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        yield "x"
        stream.abort("no more paper")

    answer = pushed(program).finish()
    assert not answer.complete
    assert isinstance(answer.error, StreamAborted)
    assert until(lambda: outcomes)
    assert outcomes == ["aborted"]


def test_the_head_does_not_wait_longer_than_commit_after(described: Serve) -> None:
    """The options' table: "then it is sent anyway"."""
    go = threading.Event()

    def program() -> Run:
        assert go.wait(PATIENCE)
        yield "x"

    answer = described(program, status=201, options={"commit_after": 0.05})
    assert answer.status == 201
    assert not go.is_set()
    go.set()
    assert (answer.finish().body, answer.complete) == (b"x", True)


def test_a_wsgi_body_that_is_read_but_never_closed_calls_back(shape: Shape) -> None:
    """D15: WsgiToAsgi never calls `close()`."""
    calls: list[str] = []

    def program() -> Run:
        yield "x"

    app = shape.build(program, Asked(lambda: None, {"callback": lambda: calls.append("callback")}))
    body = app(environ_of(), lambda *head: lambda chunk: None)
    assert b"".join(body) == b"x"
    assert until(lambda: calls)
    body.close()
    assert calls == ["callback"]


def test_a_wsgi_body_that_is_dropped_calls_back_and_stops_its_producer(shape: Shape) -> None:
    """D15"""
    calls: list[str] = []
    stopped = threading.Event()

    def program() -> Run:
        try:
            for _ in range(1_000_000):
                yield b"x" * 1000
        finally:
            stopped.set()

    response = {"callback": lambda: calls.append("callback"), "options": {"high_water": 1000}}
    body = shape.build(program, Asked(lambda: None, response))(environ_of(), lambda *head: lambda chunk: None)
    assert next(iter(body))
    del body
    gc.collect()
    assert stopped.wait(PATIENCE)
    assert until(lambda: calls)
    assert calls == ["callback"]


@pytest.mark.parametrize("way", ["entering", "leaving"])
def test_a_resource_that_fails_is_an_error_of_the_stream(described: Serve, way: str) -> None:
    """D18: before the first chunk a real 500, after the last one a cut."""
    boom, events = RuntimeError("boom"), []

    @contextmanager
    def resource() -> Iterator[None]:
        if way == "entering":
            raise boom
        yield
        raise boom

    def program() -> Run:
        events.append("begun")
        yield "x"

    answer = described(program, resources=[resource()]).finish()
    assert answer.error is boom
    assert not answer.complete
    assert (answer.committed, events) == ((False, []) if way == "entering" else (True, ["begun"]))


def test_a_resource_that_swallows_the_error_ends_the_stream_in_order(described: Serve) -> None:
    @contextmanager
    def resource() -> Iterator[None]:
        with suppress(ValueError):
            yield

    def program() -> Run:
        yield "x"
        raise ValueError("nothing to worry about")

    answer = described(program, resources=[resource()]).finish()
    assert (answer.body, answer.complete, answer.error) == (b"x", True, None)


def test_an_async_resource_serves_an_async_producer(described: Serve) -> None:
    """D18: for a synchronous one it is refused before anything is sent."""
    events: list[str] = []

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        events.append("open")
        yield
        events.append("closed")

    def program() -> Run:
        events.append("begun")
        yield "x"

    answer = described(program, resources=[resource()]).finish()
    if described.shape.awaits or described.shape.synced:
        assert (answer.body, answer.complete, answer.error) == (b"x", True, None)
        assert until(lambda: len(events) == 3)
        assert events == ["open", "begun", "closed"]
    else:
        assert isinstance(answer.error, (StreamKitError, TypeError, AttributeError))
        assert (answer.committed, events) == (False, [])


def test_an_iterator_is_served_once_and_a_list_as_often_as_one_likes() -> None:
    """A second client would get a body without its beginning."""
    with WsgiServer(streamkit.stream(iter(["a", "b"]))) as server:
        assert server.request().finish().body == b"ab"
        answer = server.request().finish()
        assert isinstance(answer.error, AlreadyServed)
        assert not answer.committed
    with WsgiServer(streamkit.stream(["a", "b"])) as server:
        assert [server.request().finish().body for _ in range(2)] == [b"ab", b"ab"]


def test_a_kept_stream_whose_producer_fails_is_ended(functions: Serve) -> None:
    """X4: nobody else may know that it is still open."""
    boom = RuntimeError("boom")

    def program(stream: Any) -> Run:
        yield "x"
        raise boom

    answer = functions(program, keep_open=True).finish()
    assert (answer.body, answer.complete) == (b"x", False)
    assert answer.error is boom


@pytest.mark.parametrize(
    "error", [StopIteration, StopAsyncIteration, KeyError, SystemExit, GeneratorExit, RecursionError]
)
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_whatever_a_producer_raises_the_body_is_not_taken_for_whole(
    error: type[BaseException], interface: str, asynchronous: bool
) -> None:
    """X4: a StopIteration, say, would look like a clean end to a server."""

    def producer(stream: streamkit.ResponseStream) -> None:
        stream.write("x")
        raise error("boom")

    async def async_producer(stream: streamkit.AsyncResponseStream) -> None:
        await stream.write("x")
        raise error("boom")

    described = streamkit.stream(async_producer if asynchronous else producer)
    with WsgiServer(described) if interface == "wsgi" else AsgiServer(described) as server:
        answer = server.request().finish()
        assert (answer.body, answer.complete) == (b"x", False)
        assert isinstance(answer.error, error) or isinstance(answer.error.__cause__, error)  # type: ignore[union-attr]
        assert server.request().finish().body == b"x", "the next request is served as ever"
