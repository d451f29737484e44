"""What a `close()` that was put off leaves to others: their waits, their writes, and the hooks of the end."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, environ_of, scope_of, until
from shapes import SYNC, Run, Serve, serving
from twinned import server_for, ways

import streamkit
from streamkit.errors import StreamClosed


class Boom(Exception):
    pass


def amid_an_error(stream: Any) -> None:
    try:
        raise Boom
    except Boom:
        stream.close()


async def amid_an_error_async(stream: Any) -> None:
    try:
        raise Boom
    except Boom:
        await stream.close()


def own(producer: Any, options: Any = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await producer(scope["streamkit.stream"])

    return streamkit.wrap(app, options, kind="asgi")


def own_sync(producer: Any, options: Any = None) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        producer(environ["streamkit.stream"])
        return []

    return streamkit.wrap(app, options, kind="wsgi")


@pytest.fixture(params=SYNC, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def test_who_waits_for_an_end_that_it_has_put_off_gets_it(pushed: Serve) -> None:
    told: list[bool] = []

    def program(stream: Any) -> Run:
        yield "all"
        try:
            raise Boom
        except Boom:
            stream.close()
            told.append(stream.wait_finished())

    answer = pushed(program).finish()
    assert (answer.complete, answer.error, answer.body) == (True, None, b"all")
    assert until(lambda: told == [True]), told


@ways
def test_an_asynchronous_producer_that_waits_for_such_an_end_gets_it_too(way: str) -> None:
    told: list[bool] = []

    async def producer(stream: Any) -> None:
        await stream.write("all")
        await amid_an_error_async(stream)
        told.append(await stream.wait_finished())

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.complete, answer.body) == (True, b"all")
    assert until(lambda: told == [True]), told


@ways
def test_a_thread_closes_at_once_for_a_producer_that_waits_for_the_end(way: str) -> None:
    ended: list[bool] = []

    def feed(stream: Any) -> None:
        stream.write("all")
        until(lambda: stream._origin._when_finished is not None)
        try:
            queue.Queue[None]().get_nowait()
        except queue.Empty:
            stream.close()

    async def producer(stream: Any) -> None:
        thread = threading.Thread(target=feed, args=(stream.sync,))
        thread.start()
        ended.append(await stream.wait_finished())
        await asyncio.to_thread(thread.join)

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.complete, answer.body) == (True, b"all")
    assert until(lambda: ended == [True])


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("fault", ["hook", "room"])
def test_a_put_off_close_that_fails_is_told_of_as_any_other_end(interface: str, fault: str) -> None:
    outcomes: list[Any] = []
    goes_on = threading.Event()

    def fail(stream: Any) -> None:
        raise ValueError("the hook")

    def holder(stream: Any) -> None:
        stream.write("x")
        goes_on.wait()

    def program(stream: Any) -> None:
        if fault == "hook":
            stream.on_commit(fail)
        amid_an_error(stream)

    async def program_async(stream: Any) -> None:
        if fault == "hook":
            stream.on_commit(fail)
        await amid_an_error_async(stream)

    options = {
        "on_finish": lambda stream: outcomes.append(stream.outcome),
        "max_streams": 1 if fault == "room" else None,
    }
    app = own_sync(program, options) if interface == "wsgi" else own(program_async, options)
    with WsgiServer(streamkit.stream(holder)) as other:
        if fault == "room":
            other.request().read()
        with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
            answer = server.request().finish()
        goes_on.set()
    if fault == "room":
        assert answer.status == 503
    else:
        assert (answer.committed, type(answer.error)) == (False, ValueError)
    assert outcomes == ["failed"]


def test_the_server_s_own_task_is_not_cancelled_by_a_late_close_for_a_client_that_left() -> None:
    outcomes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await amid_an_error_async(scope["streamkit.stream"])

    wrapped = streamkit.wrap(app, on_finish=lambda stream: outcomes.append(stream.outcome))

    async def main() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        await wrapped(scope_of(), receive, send)

    asyncio.run(main())
    assert outcomes == ["disconnected"]


def test_a_late_close_ends_with_the_server_s_task() -> None:
    sent: list[Any] = []
    reported: list[Any] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        in_hook, goes_on = asyncio.Event(), asyncio.Event()

        async def slow(stream: Any) -> None:
            in_hook.set()
            await goes_on.wait()

        async def producer(stream: Any) -> None:
            stream.on_commit(slow)
            await amid_an_error_async(stream)

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        serving_it = asyncio.create_task(own(producer)(scope_of(), receive, send))
        await asyncio.wait_for(in_hook.wait(), PATIENCE)
        serving_it.cancel()
        await asyncio.wait([serving_it], timeout=PATIENCE)
        assert serving_it.cancelled()
        goes_on.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[operator]
        if others:
            await asyncio.wait(others, timeout=PATIENCE)
        del others
        gc.collect()

    asyncio.run(run())
    assert (sent, reported) == ([], [])


@ways
@pytest.mark.parametrize("first", ["thread", "loop"])
def test_a_thread_s_write_is_refused_after_a_close_that_was_put_off(way: str, first: str) -> None:
    refused: list[type] = []

    def more(twin: Any) -> None:
        try:
            twin.write(b"more")
        except streamkit.StreamClosed as error:
            refused.append(type(error))

    async def producer(stream: Any) -> None:
        twin = stream.sync
        if first == "loop":
            await stream.write("a")
        for _ in range(2):
            await asyncio.to_thread(twin.write, b"b")
        await amid_an_error_async(stream)
        await asyncio.to_thread(more, twin)

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.complete, refused) == (True, [streamkit.StreamClosed])
    assert b"more" not in answer.body


@ways
@pytest.mark.parametrize("chunk", [b"late", "late"], ids=["bytes", "text"])
def test_a_first_write_after_a_close_that_was_put_off_is_refused_and_commits_nothing(
    way: str, chunk: bytes | str
) -> None:
    """So that the error is still a real 500."""
    committed: list[bool] = []

    async def producer(stream: Any) -> None:
        try:
            raise Boom
        except Boom:
            await stream.close()
            with pytest.raises(StreamClosed):
                await stream.write(chunk)
            committed.append(stream.committed)
            raise

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert committed == [False]
    assert (answer.committed, type(answer.error)) == (False, Boom)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_late_commit_opens_no_stream_whose_close_was_put_off(interface: str, asynchronous: bool) -> None:
    def producer(stream: Any) -> None:
        amid_an_error(stream)
        assert until(lambda: stream.committed)
        with pytest.raises(streamkit.StreamClosed):
            stream.write(b"more")

    async def producer_async(stream: Any) -> None:
        await amid_an_error_async(stream)
        while not stream.committed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        with pytest.raises(streamkit.StreamClosed):
            await stream.write(b"more")

    app = streamkit.stream(producer_async if asynchronous else producer, options={"commit_after": 0.05})
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        answer = server.request().finish()
    assert (answer.complete, answer.body, answer.error) == (True, b"", None)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_producer_that_returns_at_a_limit_makes_no_half_body_whole_while_the_last_words_are_made(
    interface: str, asynchronous: bool
) -> None:
    has_returned = threading.Event()

    def words(stream: Any, error: BaseException) -> str:
        if not asynchronous or interface == "wsgi":  # else it is on the producer's own loop
            assert has_returned.wait(PATIENCE)
            time.sleep(0.01)  # in which its stream is closed; a shorter one only proves less
        return "!"

    def producer(stream: Any) -> None:
        stream.write("half")
        try:
            while True:
                stream.write("")
        except streamkit.StreamEnded:
            has_returned.set()

    async def producer_async(stream: Any) -> None:
        await stream.write("half")
        try:
            while True:
                await stream.write("")
                await asyncio.sleep(0)
        except streamkit.StreamEnded:
            has_returned.set()

    app = streamkit.stream(
        producer_async if asynchronous else producer,
        options={"max_duration": 1, "completion": {"text/plain": words}},
    )
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half!", False, streamkit.StreamEnded)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_an_application_whose_thread_fails_ends_no_half_body_by_its_close(version: str) -> None:
    def work(stream: Any) -> None:
        stream.write("half")
        raise Boom

    async def producer(stream: Any) -> None:
        try:
            await asyncio.to_thread(work, stream.sync)
        finally:
            await stream.close()

    with AsgiServer(own(producer)) as server:
        answer = server.request(version=version).finish()
    assert (answer.complete, type(answer.error)) == (False, Boom)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("how", ["gather", "wait_for"])
def test_a_task_of_the_producer_s_that_closes_on_the_way_of_its_error_ends_no_half_body(
    interface: str, how: str
) -> None:
    async def work(stream: Any) -> None:
        try:
            await stream.write("half")
            raise Boom
        finally:
            await stream.close()

    async def producer(stream: Any) -> None:
        await (asyncio.gather(work(stream)) if how == "gather" else asyncio.wait_for(work(stream), 20))

    with (WsgiServer if interface == "wsgi" else AsgiServer)(streamkit.stream(producer)) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"half", False, Boom)


def test_a_server_that_takes_an_empty_chunk_for_the_last_is_given_none() -> None:
    given: list[bytes] = []

    def program(stream: Any) -> None:
        stream.flush()
        stream.write("now")

    environ = environ_of() | {"eventlet.input": object()}
    list(own_sync(program)(environ, lambda *head: given.append))
    assert given == [b"now"]


def test_a_description_is_served_by_daphne_which_names_what_it_hands_over() -> None:
    sent: list[Any] = []

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await streamkit.stream(["x"])(scope=scope_of(), receive=asyncio.Event().wait, send=send)

    asyncio.run(main())
    assert b"".join(message.get("body", b"") for message in sent) == b"x"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("how", ["itself", "a task"])
def test_a_stream_that_was_left_amid_a_write_is_held_by_nothing(interface: str, how: str) -> None:
    streams: list[Any] = []

    async def flood(stream: Any) -> None:
        while True:
            await stream.write(b"x" * 100_000)

    async def producer(stream: Any) -> None:
        streams.append(weakref.ref(stream))
        await (flood(stream) if how == "itself" else asyncio.gather(flood(stream)))

    gc.collect()
    gc.disable()
    try:
        with (WsgiServer if interface == "wsgi" else AsgiServer)(streamkit.stream(producer)) as server:
            answer = server.request()
            assert answer.read()
            answer.leave()
            answer.through()
        del answer, server
        assert until(lambda: streams[0]() is None, 5)
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_the_page_of_an_error_that_was_dealt_with_is_whole(engine: str) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        try:
            raise Boom
        except Boom:
            stream.status = 500
            stream.write("sorry")
            stream.close()
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return []

    with WsgiServer(streamkit.wrap(app, engine=engine)) as server:
        answer = server.request().finish()
    assert (answer.status, answer.body, answer.complete, answer.error) == (500, b"sorry", True, None)


def test_the_same_holds_for_messages() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        try:
            raise Boom
        except Boom:
            stream.status = 500
            await stream.write("sorry")
            await stream.close()
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body"})

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request().finish()
    assert (answer.status, answer.body, answer.complete, answer.error) == (500, b"sorry", True, None)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_an_error_is_logged_before_the_end_that_a_hook_gives_the_request_s_own_stream(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    logged: list[int] = []

    def program(stream: Any) -> None:
        stream.on_error(lambda stream, error: stream.close())
        stream.write("half")
        raise Boom

    async def program_async(stream: Any) -> None:
        @stream.on_error
        async def close(stream: Any, error: BaseException) -> None:
            await stream.close()

        await stream.write("half")
        raise Boom

    options = {"on_finish": lambda stream: logged.append(len(caplog.records))}
    app = own_sync(program, options) if interface == "wsgi" else own(program_async, options)
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        server.request().finish()
    assert logged == [1]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_kept_stream_is_closed_by_a_thread_though_its_producer_returns_meanwhile(interface: str) -> None:
    def feed(twin: Any, is_asked: threading.Event) -> None:
        origin, ask = twin._origin, twin._origin._awaits_threads

        def at_leisure() -> bool:  # the thread loses its turn between the question and the note
            is_at_work: bool = ask()
            if not is_asked.is_set():
                is_asked.set()
                until(lambda: not ask())
            return is_at_work

        origin._awaits_threads = at_leisure
        try:
            raise Boom
        except Boom:
            twin.close()

    async def producer(stream: Any) -> None:
        await stream.write("all")
        is_asked = threading.Event()
        threading.Thread(target=feed, args=(stream.sync, is_asked)).start()
        await asyncio.to_thread(is_asked.wait, PATIENCE)

    app = streamkit.stream(producer, keep_open=True)
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete) == (b"all", True)
