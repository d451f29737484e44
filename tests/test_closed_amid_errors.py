"""`close()` while an error is on its way: what becomes of the error decides what the end is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from shapes import SYNC, SYNC_FUNCTIONS, Run, Serve, serving

import streamkit


class Boom(Exception):
    pass


@pytest.fixture(params=SYNC, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC_FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("written", [True, False])
def test_a_close_on_the_way_of_an_error_makes_no_half_body_whole(
    pushed: Serve, written: bool, version: str
) -> None:
    told: list[Any] = []

    def program(stream: Any) -> Run:
        try:
            if written:
                yield "half"
            raise Boom
        finally:
            stream.close()

    options = {
        "on_error": lambda stream, error: told.append(type(error)),
        "on_finish": lambda stream: told.append(stream.outcome),
    }
    answer = pushed(program, version=version, options=options).finish()
    assert (answer.complete, type(answer.error)) == (False, Boom)
    is_cut = written and version == "1.1"
    assert answer.committed == is_cut, "until something was sent, it is a real 500"
    assert until(lambda: told == ([Boom, "failed"] if is_cut else ["failed"])), told


def test_a_close_amid_an_error_that_is_dealt_with_is_a_good_end(pushed: Serve) -> None:
    outcomes: list[Any] = []

    def program(stream: Any) -> Run:
        try:
            yield "all"
            raise Boom
        except Boom:
            stream.close()
            assert stream.closed
        with pytest.raises(streamkit.StreamClosed):
            yield "more"

    answer = pushed(program, options={"on_finish": lambda stream: outcomes.append(stream.outcome)}).finish()
    assert (answer.complete, answer.error, answer.body) == (True, None, b"all")
    assert until(lambda: outcomes == ["finished"]), outcomes


def test_an_empty_body_that_is_closed_amid_an_error_that_is_dealt_with_is_sent(pushed: Serve) -> None:
    def program(stream: Any) -> Run:
        yield from ()
        with contextlib.suppress(Boom), contextlib.closing(stream):
            raise Boom

    answer = pushed(program).finish()
    assert (answer.complete, answer.error, answer.status, answer.body) == (True, None, 200, b"")


def test_a_kept_stream_is_closed_when_its_producer_is_over(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        try:
            yield "all"
            raise Boom
        except Boom:
            stream.close()

    answer = functions(program, keep_open=True).finish()
    assert (answer.complete, answer.error, answer.body) == (True, None, b"all")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_who_closes_beside_the_producer_need_not_wait_for_it(interface: str) -> None:
    streams: list[Any] = []
    goes_on = threading.Event()

    def producer(stream: Any) -> None:
        stream.write("all")
        streams.append(stream)
        goes_on.wait(PATIENCE)

    app: Any = streamkit.stream(producer)
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        answer = server.request()
        assert until(lambda: streams)
        try:
            raise Boom
        except Boom:
            streams[0].close()
        assert answer.rest() == b"all"
        assert answer.complete
        assert not goes_on.is_set(), "the producer is still at work"
        goes_on.set()


def test_an_event_stream_that_is_closed_on_the_way_of_an_error_tells_its_readers() -> None:
    async def producer(stream: Any) -> None:
        try:
            await stream.send("tick")
            raise Boom
        finally:
            await stream.close()

    with AsgiServer(streamkit.event_stream(producer)) as server:
        answer = server.request().finish()
    assert b"event: error\n" in answer.body
    assert answer.complete


def test_a_hook_that_closes_has_the_last_word_though_an_error_is_being_told_of() -> None:
    async def producer(stream: Any) -> None:
        await stream.write("half")
        raise Boom

    async def close(stream: Any, error: BaseException) -> None:
        await stream.write(", and no more")
        await stream.close()

    with AsgiServer(streamkit.stream(producer, on_error=close)) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete) == (b"half, and no more", True)


async def awaited(stream: Any, way: str) -> None:
    """What the programs above do, for those who await."""
    try:
        if way != "before":
            await stream.write("half")
        try:
            raise Boom
        finally:
            await stream.close()
    except Boom:
        if way != "dealt with":
            raise
        with pytest.raises(streamkit.StreamClosed):
            await stream.write("more")


async def own(scope: Any, receive: Any, send: Any) -> None:
    await awaited(scope["streamkit.stream"], scope["path"][1:])


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("way", ["before", "after", "dealt with"])
@pytest.mark.parametrize("how", ["wsgi", "asgi", "own"])
def test_an_asynchronous_close_on_the_way_of_an_error_waits_for_what_becomes_of_it(
    how: str, way: str, version: str
) -> None:
    outcomes: list[Any] = []
    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    described = streamkit.stream(producer_of(way), options=options)
    app: Any = streamkit.wrap(own, options, kind="asgi") if how == "own" else described
    with (WsgiServer if how == "wsgi" else AsgiServer)(app) as server:
        answer = server.request(path="/" + way, version=version).finish()
    is_whole = way == "dealt with"
    assert (answer.complete, type(answer.error)) == (is_whole, type(None) if is_whole else Boom)
    assert answer.committed == (is_whole or (way == "after" and version == "1.1"))
    assert until(lambda: outcomes == ["finished" if is_whole else "failed"]), outcomes


def producer_of(way: str) -> Any:
    async def producer(stream: Any) -> None:
        await awaited(stream, way)

    return producer


def test_a_thread_that_closes_on_the_way_of_its_error_ends_no_half_body() -> None:
    def work(stream: Any) -> None:
        try:
            stream.write("half")
            raise Boom
        finally:
            stream.close()

    async def producer(stream: Any) -> None:
        await asyncio.to_thread(work, stream.sync)

    with AsgiServer(streamkit.stream(producer)) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half", False, Boom)
