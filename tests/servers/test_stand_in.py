"""Chunks that whoever writes them sends, while gunicorn's own thread waits; see also `test_stand_in_ends`."""

from __future__ import annotations

import gzip
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from types import FunctionType
from typing import Any

import pytest
from driving import PATIENCE, until
from gunicorn.workers.gthread import ThreadWorker

import streamkit
from streamkit.engines import reading, stand_in

from .standing_in import SERVER, Seen, ask, gunicorn, is_parked, seen_by_gunicorn  # noqa: F401
from .wire import Ending


def test_what_is_written_while_the_server_waits_is_sent_by_whoever_wrote_it(seen: Seen) -> None:
    def producer(stream: Any) -> None:
        threading.current_thread().name = "the producer"
        stream.write(b"first")
        for number in range(3):
            assert until(lambda: is_parked(stream))
            stream.write(b" %d" % number)
        counted.append(stream.bytes_sent)

    counted: list[int] = []
    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        reply = client.reply()
    assert (reply.body, reply.ending) == (b"first 0 1 2", Ending.COMPLETE)
    assert seen.by("the producer") == [b" 0", b" 1", b" 2"]
    assert seen.by(SERVER) == [b"first"]
    assert counted == [len(reply.body)]


def test_a_chunk_is_on_the_wire_when_its_write_returns(seen: Seen) -> None:
    returned, read = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        stream.write(b" second")
        returned.set()
        assert read.wait(PATIENCE)

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        client.head()
        assert returned.wait(PATIENCE)
        client.socket.setblocking(False)
        chunks = client.chunks()
        assert [next(chunks).payload, next(chunks).payload] == [b"first", b" second"]
        client.socket.settimeout(PATIENCE)
        read.set()
        assert list(chunks) == []


def test_what_comes_in_a_burst_is_left_to_the_server(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sends together what has come: a write that sends is a system call each."""
    now = 0.0
    monkeypatch.setattr(stand_in, "monotonic", lambda: now)
    monkeypatch.setattr(reading, "monotonic", lambda: now)
    monkeypatch.setattr(stand_in, "IDLE_SECONDS", 1)

    def producer(stream: Any) -> None:
        nonlocal now
        threading.current_thread().name = "the producer"
        stream.write(b"first")
        for chunk, seconds in 2 * [(b" soon", 0.5), (b" soon", 0.75), (b" late", 1)]:
            assert until(lambda: is_parked(stream))
            now += seconds
            stream.write(chunk)

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        assert client.reply().body == b"first" + 2 * b" soon soon late"
    assert seen.by("the producer") == [b" late", b" late"]
    assert seen.by(SERVER) == [b"first", *(4 * [b" soon"])]


def test_a_long_chunk_is_left_to_the_server(seen: Seen) -> None:
    """Whoever writes does not wait for a client."""
    long = b"x" * (stand_in.LONGEST + 1)

    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        stream.write(long)

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        assert client.reply().body == b"first" + long
    assert {name for name, _ in seen.writes} == {SERVER}


def test_many_threads_that_write_at_their_own_times_lose_and_mix_nothing(seen: Seen) -> None:
    count, threads = 200, 4
    names = [f"writer {number}" for number in range(threads)]

    def producer(stream: Any) -> None:
        def write(name: str) -> None:
            threading.current_thread().name = name
            times = random.Random(name)
            for number in range(count):
                stream.write(f"{name}: {number}\n")
                if times.random() < 0.3:
                    time.sleep(times.random() / 1000)  # any interleaving will do

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, names))

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        reply = client.reply()
    assert reply.ending is Ending.COMPLETE
    lines = reply.body.decode().splitlines()
    assert len(lines) == count * threads
    for name in names:
        assert [line for line in lines if line.startswith(name)] == [f"{name}: {n}" for n in range(count)]
    assert any(seen.by(name) for name in names)
    assert seen.by(SERVER)


def test_what_is_written_meanwhile_follows(seen: Seen) -> None:
    read = threading.Event()

    def producer(stream: Any) -> None:
        def meanwhile(chunk: bytes) -> None:
            seen.before = lambda chunk: None
            threads.submit(stream.write, b" third").result(PATIENCE)

        with ThreadPoolExecutor(1) as threads:
            stream.write(b"first")
            assert until(lambda: is_parked(stream))
            seen.before = meanwhile
            stream.write(b" second")
        assert read.wait(PATIENCE), "the third chunk waits for a fourth, or for the end"

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        client.head()
        assert client.read_until(b" third") == b"first second third"
        read.set()
        assert list(client.chunks()) == []
    assert [chunk for _, chunk in seen.writes] == [b"first", b" second", b" third"]


def shouted(app: Any) -> Callable[..., Any]:
    return lambda environ, start_response: map(bytes.upper, app(environ, start_response))


def generated(app: Any) -> Callable[..., Any]:
    def middleware(environ: Any, start_response: Any) -> Iterator[bytes]:
        for chunk in app(environ, start_response):
            yield chunk.upper()

    return middleware


def chained(app: Any) -> Callable[..., Any]:
    """A layer that asks for the body's iterator only when the server asks it."""
    return lambda environ, start_response: map(bytes.upper, chain(app(environ, start_response)))


def kept(app: Any) -> Callable[..., Any]:
    """A layer that holds on to the body, and returns another."""
    held: list[Any] = []

    def middleware(environ: Any, start_response: Any) -> Any:
        held.append(app(environ, start_response))
        return map(bytes.upper, held[-1])

    return middleware


@pytest.mark.parametrize("layer", [shouted, generated, chained, kept])
def test_a_layer_around_the_body_sees_every_chunk(seen: Seen, layer: Any) -> None:
    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: stream._wake is not None)
        stream.write(b" second")

    with gunicorn(layer(streamkit.stream(producer))) as (port, _), ask(port) as client:
        assert client.reply().body == b"FIRST SECOND"
    assert {name for name, _ in seen.writes} == {SERVER}


def test_a_loop_that_is_not_gunicorns_is_left_to_itself(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what another one does between two chunks."""
    own = ThreadWorker.handle_request
    elsewhere = FunctionType(own.__code__, {**own.__globals__, "__name__": "elsewhere"})
    monkeypatch.setattr(ThreadWorker, "handle_request", elsewhere)

    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: stream._wake is not None)
        stream.write(b" second")

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        assert client.reply().body == b"first second"
    assert {name for name, _ in seen.writes} == {SERVER}


class Special(socket.socket):
    """A connection that may do more than send, as one with TLS."""


def test_a_connection_that_is_no_plain_socket_is_left_to_the_server(seen: Seen) -> None:
    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: stream._wake is not None)
        stream.write(b" second")

    with gunicorn(streamkit.stream(producer), Special) as (port, _), ask(port) as client:
        assert client.reply().body == b"first second"
    assert {name for name, _ in seen.writes} == {SERVER}


@pytest.mark.parametrize("compress", [True, False])
def test_a_wrapped_app_is_served_the_same(seen: Seen, compress: bool) -> None:
    def producer(stream: Any) -> None:
        threading.current_thread().name = "the producer"
        stream.write(b"first")
        assert until(lambda: stream._wake is not None)
        stream.write(b" second")

    app = streamkit.wrap(streamkit.stream(producer), kind="wsgi", compress=compress)
    with gunicorn(app) as (port, _), ask(port) as client:
        reply = client.reply()
    body = gzip.decompress(reply.body) if compress else reply.body
    assert (body, reply.ending) == (b"first second", Ending.COMPLETE)
    assert bool(seen.by("the producer")) == (not compress), "a coded stream is coded by its reader"


def test_an_application_on_a_worker_is_served_the_same(seen: Seen) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        threading.current_thread().name = "the producer"
        stream = environ["streamkit.stream"]
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        stream.write(b" second")
        return []

    with gunicorn(streamkit.wrap(app, kind="wsgi", engine="thread")) as (port, _), ask(port) as client:
        assert client.reply().body == b"first second"
    assert seen.by("the producer") == [b" second"]


def test_chunks_arrive_one_by_one_and_when_they_are_written(seen: Seen) -> None:
    turns: list[threading.Event] = [threading.Event() for _ in range(5)]

    def producer(stream: Any) -> None:
        threading.current_thread().name = "the producer"
        for number, turn in enumerate(turns):
            assert turn.wait(PATIENCE)
            assert until(lambda: number == 0 or is_parked(stream))  # noqa: B023 - asked here only
            stream.write(b"%d" % number)

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        turns[0].set()
        client.head()
        chunks = client.chunks()
        for this, following in pairwise(turns):
            assert next(chunks).payload == str(turns.index(this)).encode()
            following.set()
        assert next(chunks).payload == b"4"
        assert list(chunks) == []
    assert seen.by("the producer") == [b"1", b"2", b"3", b"4"]
