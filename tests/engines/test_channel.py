"""The way of the bytes between threads: bounds, merging, ends, and collectors at bad moments."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import pytest
from driving import until

import streamkit
from streamkit import ClientDisconnected, Options, StreamClosed
from streamkit.core.framing import Request
from streamkit.engines.channel import Channel
from streamkit.engines.thread import ThreadStream
from streamkit.errors import StreamEnded

PATIENCE = 20.0
ENVIRON = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}


def stream(high_water: int = 1000) -> ThreadStream:
    options = Options(high_water=high_water)
    return ThreadStream(options, Request("GET", (1, 1), False), logging.getLogger("streamkit.wsgi"))


def test_chunks_travel_one_by_one_while_the_reader_keeps_up_and_together_when_it_does_not() -> None:
    channel = stream()
    channel.write(b"a")
    assert channel.next_chunk() == b"a"
    channel.write(b"b")
    channel.write(b"c")
    assert channel.next_chunk() == b"bc"


def test_the_end_needs_no_room() -> None:
    channel = stream(high_water=1)
    channel.write(b"a")
    channel.close()
    assert channel.next_chunk() == b"a"
    assert channel.next_chunk() is None
    assert channel.next_chunk() is None


@pytest.mark.parametrize("way", ["leave", "abort", "close", "take"])
def test_every_waiting_writer_is_released_however_the_wait_ends(way: str) -> None:
    channel, ends = stream(high_water=1), []
    started = threading.Barrier(5)

    def write() -> None:
        started.wait(PATIENCE)
        try:
            ends.append(channel.write(b"xx"))
        except (ClientDisconnected, StreamClosed) as error:
            ends.append(type(error))

    channel.commit()
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(PATIENCE)
    if way == "close":
        channel.close()
        while (chunk := channel.next_chunk()) is not None:
            assert chunk
    elif way == "take":
        taken = b""
        while len(taken) < 8:
            taken += channel.next_chunk() or b""
    else:
        getattr(channel, way)()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a writer was left waiting"
    assert len(ends) == 4
    if way == "take":
        assert ends == [2, 2, 2, 2]


def test_closing_and_aborting_a_full_channel_never_wait() -> None:
    channel = stream(high_water=1)
    channel.commit()
    ends: list[type] = []

    def write() -> None:
        try:
            channel.write(b"xx")
        except StreamClosed as error:
            ends.append(type(error))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        channel.abort()
        channel.close()
    writer.join(PATIENCE)
    assert ends == [StreamClosed]
    assert channel.closed


def test_a_body_dropped_unread_tells_its_producer_and_is_reclaimed() -> None:
    told, outcomes = threading.Event(), []

    def producer(out: Any) -> None:
        out.on_finish(lambda out: outcomes.append(out.outcome))
        try:
            while True:
                out.write(b"x" * 1000)
        except ClientDisconnected:
            told.set()
            raise

    body = streamkit.stream(producer)(ENVIRON, lambda status, headers: None)
    seen = weakref.ref(body)
    del body
    gc.collect()
    assert seen() is None
    assert told.wait(PATIENCE)
    assert outcomes == ["disconnected"]


def test_a_collector_that_strikes_under_the_mutex_does_not_wait_for_itself() -> None:
    channel, left = stream(), threading.Event()
    channel.commit()
    leave = Channel.leave

    def noted(self: Channel) -> None:
        leave(self)
        left.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadStream, "leave", noted)
        with channel._mutex:
            channel.abandon()  # as a destructor would, in the thread that holds the mutex
        assert left.wait(PATIENCE)
    assert not channel.connected


def test_a_stop_iteration_of_the_producer_does_not_look_like_a_clean_end() -> None:
    def producer(out: Any) -> None:
        out.write("half")
        next(iter(()))

    body = iter(streamkit.stream(producer)(ENVIRON, lambda status, headers: None))
    assert next(body) == b"half"
    with pytest.raises(RuntimeError, match="StopIteration") as raised:
        next(body)
    assert isinstance(raised.value.__cause__, StopIteration)


def test_a_change_of_the_head_is_never_lost_between_two_threads() -> None:
    """Either it is in the head that leaves, or it raises: 200 races between a header and a commit."""
    for turn in range(200):
        channel = stream()
        both = threading.Barrier(2)
        refused: list[BaseException] = []

        def change(channel: ThreadStream = channel, both: Any = both, refused: Any = refused) -> None:
            both.wait(PATIENCE)
            try:
                channel.headers["X-Late"] = "1"
            except streamkit.AlreadyCommitted as error:
                refused.append(error)

        changer = threading.Thread(target=change)
        channel.headers["X-Turn"] = str(turn)
        changer.start()
        both.wait(PATIENCE)
        channel.commit()
        changer.join(PATIENCE)
        assert channel._head is not None
        assert ("X-Late", "1") in channel._head[1] or refused


def test_a_client_that_is_given_up_twice_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    channel, outcomes = stream(), []
    channel.on_finish(lambda channel: outcomes.append(channel.outcome))
    ending = StreamEnded("timed_out", "its client has taken nothing")
    with caplog.at_level(logging.DEBUG, "streamkit.wsgi"):
        channel.give_up(ending)
        channel.give_up(ending)
    assert [record.getMessage() for record in caplog.records].count(str(ending)) == 1
    assert until(lambda: outcomes)
    assert outcomes == ["timed_out"]
