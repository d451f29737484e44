"""How streams end whose chunks are sent by whoever writes them: leaves, errors, aborts, and the clock."""

from __future__ import annotations

import gc
import select
import socket
import struct
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.engines import channel
from streamkit.errors import ClientDisconnected, StreamClosed

from .standing_in import Seen, ask, gunicorn, is_parked, seen_by_gunicorn  # noqa: F401
from .wire import Ending


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
        assert not wait_for([served], PATIENCE).not_done
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
    of_stream, look, ends = channel.silence_of, channel.Channel._look, []

    def silence_of(stream: Any, *looking: Any) -> float:
        silence = of_stream(stream, *looking)
        if silence >= stream.options.write_timeout and not late.is_set():
            late.set()
            assert sending.wait(PATIENCE)
        return silence

    def noted_look(stream: Any, now: float) -> None:
        look(stream, now)
        if late.is_set():
            looked.set()

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
    monkeypatch.setattr(channel.Channel, "_look", noted_look)
    app = streamkit.stream(producer, options={"heartbeat": None, "write_timeout": 0.2})
    with gunicorn(app) as (port, _), ask(port) as client:
        reply = client.reply()
    assert (reply.body, reply.ending) == (b"first second", Ending.COMPLETE)
    assert ends == ["finished"]


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
