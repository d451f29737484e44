"""Chunks that whoever writes them sends, while the server's thread waits: on gunicorn's own worker thread.

Rule: the loop and the response are gunicorn's; only who asks for them, and hears of a write, is ours.
"""

from __future__ import annotations

import gc
import gzip
import random
import select
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import pytest
from driving import PATIENCE, until
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn, ThreadWorker

import streamkit
from streamkit.engines import channel, reading, stand_in
from streamkit.errors import ClientDisconnected, StreamClosed

from .wire import Connection, Ending

SERVER = "gunicorn's thread"


@dataclass
class Seen:
    """What gunicorn was given, and by whom."""

    writes: list[tuple[str, bytes]] = field(default_factory=list)
    answers: list[weakref.ref[Response]] = field(default_factory=list)
    before: Callable[[bytes], object] = lambda chunk: None  # called by whoever writes, before gunicorn
    after: Callable[[bytes], object] = lambda chunk: None

    def by(self, thread: str) -> list[bytes]:
        return [chunk for name, chunk in self.writes if name == thread]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Every reader that waits is stood in for, however short it has waited."""
    seen, write = Seen(), Response.write

    def noted(self: Response, chunk: bytes) -> None:
        seen.writes.append((threading.current_thread().name, chunk))
        seen.answers.append(weakref.ref(self))
        if threading.current_thread().name != SERVER:
            seen.before(chunk)
        write(self, chunk)
        if threading.current_thread().name != SERVER:
            seen.after(chunk)

    monkeypatch.setattr(Response, "write", noted)
    monkeypatch.setattr(stand_in, "IDLE_SECONDS", 0)
    return seen


@contextmanager
def gunicorn(app: Any, kind: type[socket.socket] = socket.socket) -> Iterator[tuple[int, Future[object]]]:
    """One connection to gunicorn's worker with this application: its port, and when it has been served."""
    config = Config()
    worker = ThreadWorker.__new__(ThreadWorker)
    worker.cfg, worker.log, worker.wsgi, worker.alive = config, Logger(config), app, True
    worker.nr, worker.max_requests, worker.keepalived_conns, worker.max_keepalived = 0, 1 << 30, deque(), 10

    def serve() -> object:
        threading.current_thread().name = SERVER
        accepted, address = listener.accept()
        with kind(fileno=accepted.detach()) as peer:
            return worker.handle(TConn(config, peer, address, listener.getsockname()))

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        listener.settimeout(PATIENCE)
        served = threads.submit(serve)
        yield listener.getsockname()[1], served
        assert not wait_for([served], PATIENCE).not_done, "gunicorn's thread is still at it"


def ask(port: int, **more: Any) -> Connection:
    connection = Connection(port, **more)
    connection.ask("GET", "/", fields={"Accept-Encoding": "gzip"})
    return connection


def is_parked(stream: Any) -> bool:
    """Whether the server's thread waits for the next chunk."""
    with stream._mutex:
        return stream._wake is not None and stream._stand_in is not None


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


@pytest.mark.parametrize(
    ("how", "ending"), [("close", Ending.COMPLETE), ("abort", Ending.TRUNCATED)], ids=["close", "abort"]
)
def test_a_stream_that_is_ended_meanwhile_ends_after_that_chunk(seen: Seen, how: str, ending: Ending) -> None:
    def producer(stream: Any) -> None:
        def meanwhile(chunk: bytes) -> None:
            with ThreadPoolExecutor(1) as threads:
                threads.submit(getattr(stream, how)).result(PATIENCE)

        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        seen.before = meanwhile
        stream.write(b" second")

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        reply = client.reply()
    assert (reply.body, reply.ending) == (b"first second", ending)


def test_a_client_that_leaves_is_noticed_by_whoever_writes(seen: Seen) -> None:
    told: list[Any] = []
    left = threading.Event()

    def producer(stream: Any) -> None:
        stream.on_finish(told.append)
        stream.write(b"first")
        assert left.wait(PATIENCE)
        try:
            for _ in range(1000):  # the first that meet a reset may be taken
                assert until(lambda: is_parked(stream) or not stream.connected)
                stream.write(b"x")
        except ClientDisconnected:
            told.append("left")
            raise

    with gunicorn(streamkit.stream(producer, options={"heartbeat": None})) as (port, served):
        with ask(port) as client:
            client.head()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left.set()
        wait_for([served], PATIENCE)
    assert until(lambda: len(told) == 2)
    assert "left" in told
    assert next(one for one in told if one != "left").outcome == "disconnected"


def test_what_the_server_raises_is_raised_in_its_own_thread(seen: Seen) -> None:
    """And the stream is at its end by then, as after a leave that the server has found by itself."""
    raised: list[BaseException] = []
    ends: list[str] = []

    def producer(stream: Any) -> None:
        def fail(chunk: bytes) -> None:
            raise BrokenPipeError(32, "no more")

        stream.on_finish(lambda stream: ends.append(stream.outcome))
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        seen.before = fail
        assert stream.write(b"lost") == 4
        with pytest.raises(ClientDisconnected) as failure:
            stream.write(b"x")
        ends.append(type(failure.value).__name__)

    class Noting:
        """The server's loop again, with an ear for what comes out of it."""

        def __call__(self, environ: Any, start_response: Any) -> Any:
            self.body = streamkit.stream(producer)(environ, start_response)
            advance = type(self.body).__next__

            def noted(body: Any) -> bytes:
                try:
                    return advance(body)
                except OSError as error:
                    raised.append(error)
                    raise

            monkey.setattr(type(self.body), "__next__", noted)
            return self.body

    with pytest.MonkeyPatch.context() as monkey:
        with gunicorn(Noting()) as (port, _), ask(port) as client:
            reply = client.reply()
    assert (reply.body, reply.ending) == (b"first", Ending.TRUNCATED)
    assert [type(error) for error in raised] == [BrokenPipeError]
    assert until(lambda: len(ends) == 2)
    assert set(ends) == {"disconnected", "ClientDisconnected"}


@pytest.mark.parametrize("kind", [BaseException, Exception])
def test_a_body_is_cut_where_a_write_was_interrupted(seen: Seen, kind: type[BaseException]) -> None:
    """As some limits on time do it: what follows would be taken for the rest of a chunk that is half sent."""

    class OutOfTime(kind):  # type: ignore[valid-type, misc]
        pass

    ends: list[Any] = []

    def producer(stream: Any) -> None:
        def interrupt(chunk: bytes) -> None:
            with ThreadPoolExecutor(1) as threads:
                threads.submit(stream.write, b" third").result(PATIENCE)
            raise OutOfTime

        stream.on_finish(lambda stream: ends.append(stream.outcome))
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        seen.after = interrupt
        try:
            stream.write(b" second")
        except OutOfTime:
            ends.append("out of time")

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        reply = client.reply()
    assert (reply.body, reply.ending) == (b"first second", Ending.TRUNCATED)
    assert until(lambda: len(ends) == 2)
    assert set(ends) == {"out of time", "failed"}


def test_who_keeps_a_stream_does_not_keep_the_servers_response(seen: Seen) -> None:
    kept: list[Any] = []

    def producer(stream: Any) -> None:
        kept.append(stream)
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        stream.write(b" second")

    with gunicorn(streamkit.stream(producer)) as (port, _), ask(port) as client:
        assert client.reply().body == b"first second"
    gc.collect()
    assert [answer() for answer in seen.answers] == [None] * 2


def test_the_clock_takes_nobody_for_stuck_who_was_called_just_now(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at a long silence, and before it has the mutex somebody writes."""
    late, sending, looked = (threading.Event() for _ in range(3))
    of_stream, ends = channel.silence_of, []

    def silence_of(stream: Any, *looking: Any) -> float:
        silence = of_stream(stream, *looking)
        if silence >= stream.options.write_timeout and not late.is_set():
            late.set()
            assert sending.wait(PATIENCE)
            clock.submit(looked.set)
        return silence

    def producer(stream: Any) -> None:
        def hold(chunk: bytes) -> None:
            seen.before = lambda chunk: None
            sending.set()
            assert looked.wait(PATIENCE)

        stream.on_finish(lambda stream: ends.append(stream.outcome))
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        assert late.wait(PATIENCE)
        seen.before = hold
        stream.write(b" second")

    monkeypatch.setattr(channel, "silence_of", silence_of)
    app = streamkit.stream(producer, options={"heartbeat": None, "write_timeout": 0.2})
    with ThreadPoolExecutor(1) as clock, gunicorn(app) as (port, _), ask(port) as client:
        reply = client.reply()
    assert (reply.body, reply.ending) == (b"first second", Ending.COMPLETE)
    assert ends == ["finished"]


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


def test_a_stream_that_is_given_up_meanwhile_lets_the_server_go(seen: Seen) -> None:
    """As the clock gives up a client that takes nothing."""
    checked = threading.Event()

    def producer(stream: Any) -> None:
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        seen.before = lambda chunk: stream.leave()
        stream.write(b" second")
        assert checked.wait(2 * PATIENCE)

    with gunicorn(streamkit.stream(producer)) as (port, served), ask(port) as client:
        client.head()
        assert client.read_until(b"second") == b"first second"
        is_served = not wait_for([served], PATIENCE).not_done
        checked.set()
    assert is_served, "gunicorn's thread waits for a chunk that never comes"


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


def test_a_client_that_reads_nothing_holds_nobody_in_the_midst_of_a_write(seen: Seen) -> None:
    """Who waits for room waits in our hands, where an abort reaches it."""
    high_water = 16 * 1024
    streams: list[Any] = []
    ended: Future[BaseException | None] = Future()

    def is_full() -> bool:
        answer = seen.answers[0]() if seen.answers else None
        return answer is not None and not select.select([], [answer.sock], [], 0)[1]

    def producer(stream: Any) -> None:
        streams.append(stream)
        stream.write(b"x")
        try:
            while True:
                assert until(lambda: is_parked(stream) or is_full())
                stream.write(b"x" * 1000)
        except (StreamClosed, ClientDisconnected) as error:  # the server may have closed by then
            ended.set_result(error)
            raise

    app = streamkit.stream(producer, options={"high_water": high_water})
    with gunicorn(app) as (port, _), ask(port, receive_buffer=4096) as client:
        client.head()
        assert until(lambda: is_full() and streams[0].tell() - streams[0].bytes_sent > high_water)
        streams[0].abort("enough")
        assert ended.result(PATIENCE)
        assert set(b"".join(chunk.payload for chunk in client.chunks())) == {ord("x")}
        assert client.ending is Ending.TRUNCATED


def test_the_clock_finds_a_leave_between_two_chunks(seen: Seen) -> None:
    """Whoever has sent has left the server's thread as it was: waiting, with its connection."""
    ends: list[str] = []
    wrote, gone = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        stream.on_finish(lambda stream: (ends.append(stream.outcome), gone.set()))
        stream.write(b"first")
        assert until(lambda: is_parked(stream))
        stream.write(b" second")
        wrote.set()
        assert gone.wait(PATIENCE)

    with gunicorn(streamkit.stream(producer)) as (port, _):
        with ask(port):
            assert wrote.wait(PATIENCE)
    assert ends == ["disconnected"]


def test_chunks_arrive_one_by_one_and_when_they_are_written(seen: Seen) -> None:
    turns: list[threading.Event] = [threading.Event() for _ in range(5)]

    def producer(stream: Any) -> None:
        for number, turn in enumerate(turns):
            assert turn.wait(PATIENCE)
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
