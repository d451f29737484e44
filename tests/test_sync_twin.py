"""`stream.sync` in a worker thread: what is written there, and what the loop does beside it and after."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from typing import Any

import pytest
from driving import PATIENCE, until
from twinned import CHUNK, PIECES, answer_to, request_by, server_for, server_of, ways, write_all

import streamkit
from streamkit import BodyTooLong, ClientDisconnected, StreamAborted, StreamClosed, UnsupportedData
from streamkit.core.commit import State
from streamkit.engines.task import LoopStream, TaskStream


@ways
def test_a_thread_goes_on_while_the_loop_is_busy(way: str) -> None:
    is_blocked, is_written = threading.Event(), threading.Event()
    was_written: list[bool] = []

    def block() -> None:
        is_blocked.set()
        was_written.append(is_written.wait(PATIENCE))

    def job(twin: Any) -> None:
        twin.write("first\n")
        twin.write("second\n")  # by now the charset is known
        twin._loop.call_soon_threadsafe(block)
        assert is_blocked.wait(PATIENCE)
        for _ in range(100):
            twin.write("text\n")
            twin.write(b"bytes\n")
            twin.flush()
        is_written.set()

    answer = answer_to(way, job)
    assert was_written == [True]
    assert (answer.body, answer.complete) == (b"first\nsecond\n" + b"text\nbytes\n" * 100, True)


@ways
@pytest.mark.parametrize("end", ["return", "write", "close", "raise"])
@pytest.mark.parametrize("reads", ["at once", "late"])
def test_what_a_thread_has_written_comes_before_what_the_loop_does_next(
    way: str, end: str, reads: str
) -> None:
    has_written = threading.Event()

    async def after(stream: Any) -> None:
        has_written.set()
        if end == "write":
            await stream.write("the end")
        elif end == "close":
            await stream.close()
        elif end == "raise":
            raise ValueError("after the thread")

    with server_of(way, write_all, after, content_type="text/html") as server:
        answer = server.request(window=100)
        if reads == "late":  # until then, what the thread writes waits for the client
            assert has_written.wait(PATIENCE)
        answer.finish()
    body = b"".join(PIECES)
    assert answer.body.startswith(body)
    assert answer.complete == (end != "raise")
    if end != "raise":
        assert answer.body[len(body) :] == (b"the end" if end == "write" else b"")


@ways
def test_what_a_thread_has_written_comes_before_the_last_words_of_a_shutdown(way: str) -> None:
    has_written = threading.Event()

    async def producer(stream: Any) -> None:
        await stream.write("")  # whoever commits is told of an end while it waits
        await asyncio.to_thread(write_all, stream.sync)
        has_written.set()
        await asyncio.Event().wait()

    with server_for(way, producer, {"content_type": "text/event-stream"}) as server:
        answer = server.request(window=100)
        assert has_written.wait(PATIENCE)
        assert answer.read(), "by now the server has the stream, which a shutdown has to find open"
        ending = threading.Thread(target=streamkit.shutdown, kwargs={"grace": PATIENCE})
        ending.start()
        answer.finish()
        ending.join(PATIENCE)
    body = b"".join(PIECES)
    assert answer.body.startswith(body)
    assert b"retry: " in answer.body[len(body) :]
    assert answer.complete


@ways
def test_threads_and_the_loop_may_take_turns(way: str) -> None:
    async def after(stream: Any) -> None:
        for number in range(100):
            await stream.write(b"loop %d\n" % number)
            await asyncio.to_thread(stream.sync.write, b"thread %d\n" % number)

    answer = answer_to(way, lambda twin: twin.write(b"first\n"), after)
    assert answer.body == b"first\n" + b"".join(b"loop %d\nthread %d\n" % (n, n) for n in range(100))


@pytest.mark.parametrize("way", ["task", "bridge"])
def test_a_thread_does_not_overtake_what_was_written_while_a_hook_kept_the_head_open(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_head, has_written = threading.Event(), threading.Event()
    put_early = LoopStream._put_early

    def late(stream: Any, early: Any) -> None:
        has_head.set()
        has_written.wait(0.3)  # as long as it takes where the thread need not wait for the loop
        put_early(stream, early)

    monkeypatch.setattr(LoopStream, "_put_early", late)

    async def hook(stream: Any) -> None:
        await asyncio.sleep(0)

    async def producer(stream: Any) -> None:
        stream.on_commit(hook)
        first = stream.write(b"first ")

        def job(twin: Any) -> None:
            assert has_head.wait(PATIENCE)
            twin.write(b"second")
            has_written.set()

        await asyncio.to_thread(job, stream.sync)
        await first

    with server_for(way, producer, {}) as server:
        assert server.request().finish().body == b"first second"


@ways
def test_each_of_many_threads_keeps_its_order(way: str) -> None:
    def job(twin: Any) -> None:
        def write(name: int) -> None:
            for number in range(500):
                twin.write(b"%d %d\n" % (name, number))

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    lines = answer_to(way, job).body.splitlines()
    for name in range(4):
        own = [line for line in lines if line.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, number) for number in range(500)]


@ways
def test_a_thread_waits_for_a_client_that_does_not_read(way: str) -> None:
    written: list[int] = []

    def job(twin: Any) -> None:
        written.extend(twin.write(CHUNK) for _ in range(1000))

    with server_of(way, job, options={"high_water": 10_000}) as server:
        answer = server.request()
        assert answer.read()
        history = [-1]

        def stands_still() -> bool:
            history.append(len(written))
            return len(history) > 20 and history[-20] == history[-1]

        assert until(stands_still)
        assert len(written) < 300, "it has waited for the client, whose window is 64 KiB"
        rest = answer.rest()
        answer.through()
    assert len(rest) > 500_000
    assert (answer.body, len(written)) == (CHUNK * 1000, 1000)


@ways
def test_a_thread_that_waits_hears_that_the_client_has_left(way: str) -> None:
    raised: list[BaseException] = []
    outcomes: list[str] = []

    def job(twin: Any) -> None:
        twin.on_finish(lambda stream: outcomes.append(stream.outcome))
        try:
            while True:
                twin.write(CHUNK)
        except ClientDisconnected as error:
            raised.append(error)
            raise

    with server_of(way, job, options={"high_water": 10_000}) as server:
        answer = server.request()
        assert answer.read()
        answer.leave()
        answer.through()
        assert until(lambda: raised and outcomes)
    assert outcomes == ["disconnected"]


@ways
def test_a_write_after_the_end_is_refused(way: str) -> None:
    refused: list[BaseException] = []

    def job(twin: Any) -> None:
        twin.write(b"a")
        twin.write(b"b")
        twin.close()
        with pytest.raises(StreamClosed) as caught:
            twin.write(b"late")
        refused.append(caught.value)

    with server_of(way, job) as server:
        answer = server.request().finish()
        assert until(lambda: refused)
    assert (answer.body, answer.complete) == (b"ab", True)


@ways
def test_a_thread_may_cut_its_stream_short(way: str) -> None:
    def job(twin: Any) -> None:
        twin.write(b"a")
        twin.write(b"b")
        twin.abort("enough")
        with pytest.raises(StreamClosed):
            twin.write(b"c")

    answer = answer_to(way, job)
    assert not answer.complete
    assert b"c" not in answer.body
    assert isinstance(answer.error, StreamAborted)


@ways
def test_what_is_no_chunk_is_refused_at_once(way: str) -> None:
    def job(twin: Any) -> None:
        for _ in range(3):
            with pytest.raises(UnsupportedData, match="5"):
                twin.write(5)
            twin.write(b"x")
            assert twin.write("") == 0
            assert twin.write(memoryview(b"yz")) == 2

    assert answer_to(way, job).body == b"xyz" * 3


@pytest.mark.parametrize("way", ["task", "bridge"])
def test_a_chunk_beyond_the_declared_length_is_refused_in_its_thread(way: str) -> None:
    def job(twin: Any) -> None:
        for _ in range(3):
            twin.write(b"xy")
        with pytest.raises(BodyTooLong):
            twin.write(b"z")

    answer = answer_to(way, job, content_length=6)
    assert (answer.body, answer.complete) == (b"xyxyxy", True)


@ways
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-8859-1"])
def test_a_text_is_encoded_as_the_head_says(way: str, charset: str) -> None:
    def job(twin: Any) -> None:
        for _ in range(20):
            twin.write("grün ")

    answer = answer_to(way, job, content_type=f"text/plain; charset={charset}")
    assert answer.body == ("grün " * 20).encode(charset)


@ways
def test_where_it_stands_is_known_at_every_write(way: str) -> None:
    def job(twin: Any) -> None:
        expected = b""
        for number in range(500):
            line = b"%d\n" % number if number % 3 else b"%d " % number
            twin.write(line)
            expected += line
            assert twin.tell() == len(expected)
            assert twin.tail == expected[-2:]
            assert twin.at_line_start is bool(number % 3)

    assert len(answer_to(way, job).body.split()) == 500


@ways
def test_an_archive_is_written_in_a_thread(way: str) -> None:
    def job(twin: Any) -> None:
        with zipfile.ZipFile(twin, "w") as file:
            for number in range(50):
                file.writestr(f"{number}.txt", PIECES[number + 2] * 50)

    with zipfile.ZipFile(io.BytesIO(answer_to(way, job, content_type="application/zip").body)) as file:
        assert file.testzip() is None
        assert [file.read(f"{number}.txt") for number in range(50)] == [PIECES[n + 2] * 50 for n in range(50)]


def test_a_thread_does_not_overtake_a_stream_of_the_applications_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def job(twin: Any) -> None:
            for number in range(20):
                twin.write(b"%d " % number)
                if number == 5:
                    twin.wait_committed(0)  # visits the loop: what follows is behind what is being sent

        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"A ", "more_body": True})
        await asyncio.to_thread(job, scope["streamkit.stream"].sync)
        await send({"type": "http.response.body", "body": b"B", "more_body": True})
        await send({"type": "http.response.body"})

    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.01)
        bodies.append(message.get("body", b""))

    request_by(streamkit.wrap(app, kind="asgi"), send)
    assert b"".join(bodies) == b"A " + b"".join(b"%d " % number for number in range(20)) + b"B"


def test_a_thread_sees_none_of_a_head_or_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    is_fixing, has_written = threading.Event(), threading.Event()
    fix = TaskStream._fix_head

    def slowly(stream: Any) -> None:
        stream._state = State.COMMITTED  # which is what it begins with
        is_fixing.set()
        has_written.wait(0.3)  # as long as it takes where the thread sees it
        stream._state = State.STARTED
        fix(stream)

    monkeypatch.setattr(TaskStream, "_fix_head", slowly)

    async def producer(stream: Any) -> None:
        def job(twin: Any) -> None:
            assert is_fixing.wait(PATIENCE)
            twin.write(b"x" * 50)
            has_written.set()

        thread = threading.Thread(target=job, args=(stream.sync,))
        thread.start()
        await stream.write(b"x" * 50)
        await asyncio.to_thread(thread.join, PATIENCE)

    with server_for("task", producer, {"content_length": 100}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, answer.error) == (b"x" * 100, True, None)


@pytest.mark.parametrize("way", ["task", "bridge"])
def test_a_thread_waits_for_a_client_that_does_not_read_also_where_the_length_is_declared(way: str) -> None:
    written: list[int] = []

    def job(twin: Any) -> None:
        written.extend(twin.write(CHUNK) for _ in range(1000))

    with server_of(way, job, content_length=1_000_000, options={"high_water": 10_000}) as server:
        answer = server.request()
        assert answer.read()
        history = [-1]

        def stands_still() -> bool:
            history.append(len(written))
            return len(history) > 20 and history[-20] == history[-1]

        assert until(stands_still)
        assert len(written) < 300, "it has waited for the client, whose window is 64 KiB"
        answer.finish()
    assert (answer.body, len(written)) == (CHUNK * 1000, 1000)


def test_the_loop_waits_for_what_a_thread_has_left_at_each_write_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        await stream.write(b"first ")
        twin = stream.sync
        for number in range(3):
            thread = threading.Thread(target=twin.write, args=(b"thread %d " % number,))
            thread.start()
            thread.join(PATIENCE)  # on the loop, which is to find it unsent
            assert not thread.is_alive()
            await stream.write(b"loop %d " % number)

    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))

    request_by(streamkit.wrap(app, kind="asgi"), send)
    assert b"".join(bodies) == b"first " + b"".join(b"thread %d loop %d " % (n, n) for n in range(3))
