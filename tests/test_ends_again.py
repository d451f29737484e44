"""Ends that come late, twice, or beside something else: half a body is never whole, and each end is told."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import time
import weakref
from typing import Any

import flask
import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, environ_of, scope_of, until
from twinned import server_for, ways

import streamkit
from streamkit.engines import late as late_closes

LOOKED_AT_OFTEN = {"heartbeat": 0.04}  # the clock looks each 10 ms
SLOW = 0.3  # seconds, for which an error takes its time: many looks, and less than a second


class Boom(Exception):
    pass


def served(app: Any, interface: str = "wsgi", **sent: Any) -> Any:
    with (WsgiServer if interface == "wsgi" else AsgiServer)(app) as server:
        return server.request(**sent).finish()


def is_cut(answer: Any, error: type[BaseException] = Boom) -> bool:
    return (answer.complete, type(answer.error)) == (False, error)


# -- how long a close is put off


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_an_error_that_takes_its_time_leaves_no_whole_body_however_often_the_clock_looks(
    interface: str,
) -> None:
    def producer(stream: Any) -> None:
        try:
            stream.write("half")
            raise Boom
        finally:
            stream.close()
            time.sleep(SLOW)

    assert is_cut(served(streamkit.stream(producer, options=LOOKED_AT_OFTEN), interface))


@ways
def test_nor_does_one_on_a_loop(way: str) -> None:
    async def producer(stream: Any) -> None:
        try:
            await stream.write("half")
            raise Boom
        finally:
            await stream.close()
            await asyncio.sleep(SLOW)

    with server_for(way, producer, {"options": LOOKED_AT_OFTEN}) as server:
        assert is_cut(server.request().finish())


def test_an_application_on_its_server_s_stack_has_failed_however_long_its_error_takes() -> None:
    outcomes: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ["streamkit.stream"]
        try:
            stream.write("half")
            raise Boom
        finally:
            stream.close()
            until(lambda: outcomes, 2.5)  # the clock has come by then

    options = {"heartbeat": 1, "on_finish": lambda stream: outcomes.append(stream.outcome)}
    assert is_cut(served(streamkit.wrap(app, options, kind="wsgi")))
    assert outcomes == ["failed"]


# -- who waits for it


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_a_thread_that_comes_to_wait_after_the_close_makes_no_half_body_whole(engine: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        stream = environ["streamkit.stream"]
        try:
            stream.write("half")
            raise Boom
        finally:
            stream.close()
            waiting = threading.Thread(target=stream.wait_finished, args=(0.01,))
            waiting.start()
            waiting.join()

    assert is_cut(served(streamkit.wrap(app, kind="wsgi", engine=engine)))


@ways
def test_nor_does_a_task_that_asks_again_and_again(way: str) -> None:
    async def asking(stream: Any) -> None:
        while not await stream.wait_finished(0.001):
            pass

    async def producer(stream: Any) -> None:
        task = asyncio.create_task(asking(stream))
        try:
            await stream.write("half")
            raise Boom
        finally:
            await stream.close()
            await asyncio.sleep(0.05)
            task.cancel()

    with server_for(way, producer, {}) as server:
        assert is_cut(server.request().finish())


@ways
@pytest.mark.parametrize("how", ["waits", "asks"])
def test_the_error_of_a_task_that_has_closed_leaves_no_whole_body_to_a_producer_that_awaits_the_end(
    way: str, how: str
) -> None:
    async def feed(stream: Any) -> None:
        try:
            await stream.write("half")
            raise Boom
        finally:
            await stream.close()

    async def producer(stream: Any) -> None:
        feeding = asyncio.create_task(feed(stream))
        while not await stream.wait_finished(None if how == "waits" else 0.01):
            pass
        await feeding

    with server_for(way, producer, {"options": {"heartbeat": 1}}) as server:
        assert is_cut(server.request().finish())


# -- what is written after it


def test_a_write_that_was_under_way_opens_no_stream_whose_close_was_put_off() -> None:
    told: list[str] = []
    is_closed = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        writing = asyncio.create_task(stream.write("first"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            raise Boom
        except Boom:
            await stream.close()
        is_closed.set()
        await writing
        try:
            await stream.write(b"more")
        except streamkit.StreamClosed:
            told.append("refused")

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request(window=0)
        assert is_closed.wait(PATIENCE)
        answer.finish()
    assert (answer.body, told) == (b"first", ["refused"])


def test_nor_a_stream_that_was_ended_at_a_limit() -> None:
    ended = asyncio.Event()
    written: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]

        async def other() -> None:
            await asyncio.sleep(0)  # the first write is under way
            await stream.write("b")
            for _ in range(3):
                await stream.write(b"more")

        await asyncio.gather(stream.write("a"), other())

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        written.append(body)
        if body == b"a":
            await asyncio.sleep(0.05)  # so that the other is a first one too
        if body == b"b":
            while streams[0]._ending is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    streams: list[Any] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        streams.append(scope["streamkit.stream"])
        await app(scope, receive, send)

    async def main() -> None:
        wrapped = streamkit.wrap(noting, kind="asgi", max_duration=0.3)
        await asyncio.wait_for(wrapped(scope_of(), ended.wait, send), PATIENCE)

    with pytest.raises(streamkit.StreamEnded):
        asyncio.run(main())
    assert b"more" not in written


def test_a_commit_opens_no_stream_whose_close_was_put_off() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        try:
            raise Boom
        except Boom:
            stream.close()
        stream.commit()
        with pytest.raises(streamkit.StreamClosed):
            stream.write(b"more")
        return []

    answer = served(streamkit.wrap(app, kind="wsgi"))
    assert (answer.body, answer.complete, answer.error) == (b"", True, None)


# -- what it sends


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_a_304_that_was_found_amid_an_error_is_sent(engine: str) -> None:
    app = flask.Flask(__name__)

    @app.get("/")
    def view() -> str:
        stream = flask.request.environ["streamkit.stream"]
        try:
            return {}["cached"]
        except KeyError:
            return "made" if stream.stale(etag="v1") else ""

    wrapped = streamkit.wrap(app, kind="wsgi", engine=engine)
    assert served(wrapped, sent=[("If-None-Match", '"v1"')]).status == 304


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hook_that_fails_at_a_late_close_fails_the_stream(interface: str, asynchronous: bool) -> None:
    outcomes: list[Any] = []

    def fail(stream: Any) -> None:
        raise ValueError("the hook")

    def producer(stream: Any) -> None:
        stream.on_commit(fail)
        try:
            raise Boom
        except Boom:
            stream.close()
        until(lambda: stream.outcome, 5)

    async def producer_async(stream: Any) -> None:
        stream.on_commit(fail)
        try:
            raise Boom
        except Boom:
            await stream.close()
        for _ in range(500):
            if stream.outcome is None:
                await asyncio.sleep(0.01)

    options = {"heartbeat": 1, "on_finish": lambda stream: outcomes.append(stream.outcome)}
    app = streamkit.stream(producer_async if asynchronous else producer, options=options)
    answer = served(app, interface)
    assert (answer.committed, type(answer.error)) == (False, ValueError)
    assert until(lambda: outcomes == ["failed"]), outcomes


WHOSE = contextvars.ContextVar("WHOSE", default="nobody's")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_hooks_of_a_late_close_have_the_context_of_their_request(
    interface: str, asynchronous: bool
) -> None:
    seen: list[str] = []

    def producer(stream: Any) -> None:
        WHOSE.set("mine")
        stream.on_commit(lambda stream: seen.append(WHOSE.get()))
        try:
            raise Boom
        except Boom:
            stream.close()
        assert until(lambda: seen)

    async def producer_async(stream: Any) -> None:
        WHOSE.set("mine")
        stream.on_commit(lambda stream: seen.append(WHOSE.get()))
        try:
            raise Boom
        except Boom:
            await stream.close()
        await stream.wait_committed()

    options = {"heartbeat": 1}
    assert served(streamkit.stream(producer_async if asynchronous else producer, options=options), interface)
    assert seen == ["mine"]


def test_a_late_close_that_comes_after_the_error_makes_no_half_body_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late: list[Any] = []

    class Slow:
        """A pool whose worker loses its turn, where it is to close."""

        def submit(self, job: Any) -> None:
            if getattr(job, "func", None) is late_closes.close_told:
                late.append(job)
            else:
                real.submit(job)

    real = late_closes.pool
    monkeypatch.setattr(late_closes, "pool", Slow())

    def tell(stream: Any, error: BaseException) -> None:
        worker = threading.Thread(target=late[0])
        worker.start()
        worker.join()

    def producer(stream: Any) -> None:
        try:
            stream.write("half")
            raise Boom
        finally:
            stream.close()
            assert until(lambda: late)

    assert is_cut(served(streamkit.stream(producer, on_error=tell, options={"heartbeat": 1})))


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_nobody_but_a_hook_ends_a_body_in_order_while_its_error_is_told_of(
    interface: str, asynchronous: bool
) -> None:
    streams: list[Any] = []
    in_hook, closed = threading.Event(), threading.Event()

    def tell(stream: Any, error: BaseException) -> None:
        in_hook.set()
        assert closed.wait(PATIENCE)

    async def tell_async(stream: Any, error: BaseException) -> None:
        await asyncio.to_thread(tell, stream, error)

    def producer(stream: Any) -> None:
        streams.append(stream)
        stream.write("half")
        raise Boom

    async def producer_async(stream: Any) -> None:
        streams.append(stream.sync)
        await stream.write("half")
        raise Boom

    hook = tell_async if asynchronous else tell
    described = streamkit.stream(producer_async if asynchronous else producer, on_error=hook)
    with (WsgiServer if interface == "wsgi" else AsgiServer)(described) as server:
        answer = server.request()
        assert in_hook.wait(PATIENCE)
        streams[0].close()
        closed.set()
        assert is_cut(answer.finish())


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hook_of_an_error_may_still_end_the_body_in_order(interface: str, asynchronous: bool) -> None:
    def tell(stream: Any, error: BaseException) -> None:
        stream.write(" and sorry")
        stream.close()

    async def tell_async(stream: Any, error: BaseException) -> None:
        await stream.write(" and sorry")
        await asyncio.create_task(close(stream))

    async def close(stream: Any) -> None:
        await stream.close()

    def producer(stream: Any) -> None:
        stream.write("half")
        raise Boom

    async def producer_async(stream: Any) -> None:
        await stream.write("half")
        raise Boom

    hook = tell_async if asynchronous else tell
    answer = served(
        streamkit.stream(producer_async if asynchronous else producer, on_error=hook), interface
    )
    assert (answer.body, answer.complete) == (b"half and sorry", True)


def test_so_may_a_hook_of_the_application_s_that_is_awaited_for_a_synchronous_producer() -> None:
    async def tell(stream: Any, error: BaseException) -> None:
        await stream.write(" and sorry")
        await stream.close()

    def producer(stream: Any) -> None:
        stream.write("half")
        raise Boom

    answer = served(streamkit.wrap(streamkit.stream(producer), kind="asgi", on_error=tell), "asgi")
    assert (answer.body, answer.complete) == (b"half and sorry", True)


# -- an answer beside the stream


@pytest.mark.parametrize("status", ["404", None])
def test_an_answer_whose_status_is_none_fails_and_the_end_is_told(status: Any) -> None:
    outcomes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["streamkit.stream"].write("half")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    answer = served(streamkit.wrap(app, on_finish=lambda stream: outcomes.append(stream.outcome)), "asgi")
    assert (answer.complete, outcomes) == (False, ["failed"])


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_an_answer_for_an_error_leaves_no_whole_body_whatever_its_status(engine: str) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["streamkit.stream"].write("half")
        try:
            raise Boom
        except Boom:
            start_response("200 OK", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"Sorry"]

    answer = served(streamkit.wrap(app, kind="wsgi", engine=engine))
    assert is_cut(answer, streamkit.errors.ApplicationFailed)


def test_an_application_that_answers_when_it_is_refused_a_stream_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    goes_on = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await scope["streamkit.stream"].write("x")
            await asyncio.to_thread(goes_on.wait, PATIENCE)
        except streamkit.errors.TooManyStreams:
            await send({"type": "http.response.start", "status": 429, "headers": []})
            await send({"type": "http.response.body"})

    with AsgiServer(streamkit.wrap(app, max_streams=1)) as server:
        holder = server.request()
        assert holder.read()
        assert server.request().finish().status == 503
        goes_on.set()
        holder.finish()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_close_amid_an_error_makes_no_half_body_of_messages_whole() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/css")]}
        )
        try:
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise Boom
        finally:
            await scope["streamkit.stream"].close()

    assert is_cut(served(streamkit.wrap(app), "asgi"))


def test_a_close_amid_an_error_that_is_dealt_with_ends_a_body_of_messages() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/css")]}
        )
        await send({"type": "http.response.body", "body": b"all", "more_body": True})
        try:
            raise Boom
        except Boom:
            await scope["streamkit.stream"].close()

    answer = served(streamkit.wrap(app), "asgi")
    assert (answer.body, answer.complete, answer.error) == (b"all", True, None)


# -- more than one at once


def test_last_words_do_not_come_amid_the_chunk_of_another_thread() -> None:
    in_write, goes_on = threading.Event(), threading.Event()
    under_way: list[bytes] = []
    amid: list[bytes] = []

    def write(chunk: bytes) -> None:
        if under_way:
            amid.append(chunk)
            goes_on.set()
        if chunk == b"slow":
            under_way.append(chunk)
            in_write.set()
            goes_on.wait(0.3)  # a shorter one only proves less
            under_way.clear()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.write("first")
        threading.Thread(target=stream.write, args=(b"slow",)).start()
        assert in_write.wait(PATIENCE)
        stream.end_early(streamkit.StreamEnded("timed_out", "a limit has passed"))
        return []

    wrapped = streamkit.wrap(app, kind="wsgi", completion={"text/plain": "bye"})
    with pytest.raises(streamkit.StreamEnded):
        list(wrapped(environ_of(), lambda *head: write))
    assert amid == []


def test_a_body_that_is_too_short_is_told_of_once_whoever_closes_it() -> None:
    told: list[BaseException] = []
    streams: list[Any] = []
    in_hook, goes_on = threading.Event(), threading.Event()

    def tell(stream: Any, error: BaseException) -> None:
        told.append(error)
        in_hook.set()
        goes_on.wait(PATIENCE)

    def producer(stream: Any) -> None:
        stream.write("half")
        streams.append(stream)

    def close() -> None:
        with contextlib.suppress(streamkit.errors.BodyTooShort):  # the second finds it told of
            streams[0].close()

    described = streamkit.stream(producer, content_length=10, on_error=tell, keep_open=True)
    with WsgiServer(described) as server:
        answer = server.request()
        assert answer.read()
        assert until(lambda: streams)
        closing = [threading.Thread(target=close) for _ in range(2)]
        closing[0].start()
        assert in_hook.wait(PATIENCE)
        closing[1].start()
        until(lambda: len(told) > 1 or not closing[1].is_alive(), 1)
        goes_on.set()
        for thread in closing:
            thread.join()
        answer.finish()
    assert [type(error) for error in told] == [streamkit.errors.BodyTooShort]


def test_an_end_that_was_waited_for_too_briefly_is_sent_and_told() -> None:
    sent: list[bool] = []
    outcomes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        await stream.write("all")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.close(), 0.01)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await asyncio.sleep(0.1)
            sent.append(True)

    async def main() -> None:
        wrapped = streamkit.wrap(app, on_finish=lambda stream: outcomes.append(stream.outcome))
        await wrapped(scope_of(), asyncio.Event().wait, send)

    asyncio.run(main())
    assert (sent, outcomes) == ([True], ["finished"])


@ways
@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_commit_that_was_waited_for_too_briefly_is_there_for_the_next_write(
    way: str, seconds: float
) -> None:
    def hook(stream: Any) -> Any:
        return asyncio.ensure_future(asyncio.sleep(0.1))

    async def producer(stream: Any) -> None:
        stream.on_commit(hook)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.commit(), seconds)
        await asyncio.wait_for(stream.write("all"), 5)

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, answer.error) == (b"all", True, None)


def test_a_commit_without_hooks_that_was_not_waited_for_at_all_sends_its_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stream.commit(), 0)
        await stream.write("all")

    answer = served(streamkit.wrap(app), "asgi")
    assert (answer.body, answer.complete, answer.error) == (b"all", True, None)


@pytest.mark.parametrize("amid", ["commit", "close"])
def test_a_server_that_cancels_its_task_is_held_up_by_no_head_and_no_end_on_its_way(amid: str) -> None:
    async def main() -> None:
        is_stuck = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            stream = scope["streamkit.stream"]
            if amid == "close":
                await stream.write("all")
            await getattr(stream, amid)()

        async def send(message: Any) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_last or amid == "commit":
                is_stuck.set()
                await asyncio.Event().wait()

        serving = asyncio.create_task(streamkit.wrap(app)(scope_of(), asyncio.Event().wait, send))
        await asyncio.wait_for(is_stuck.wait(), PATIENCE)
        serving.cancel()
        await asyncio.wait([serving], timeout=PATIENCE)
        assert serving.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_the_page_of_an_error_does_not_keep_its_stream(engine: str) -> None:
    streams: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        streams.append(weakref.ref(environ["streamkit.stream"]))
        try:
            raise Boom
        except Boom:
            start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"Sorry"]

    wrapped = streamkit.wrap(app, kind="wsgi", engine=engine)
    gc.collect()
    gc.disable()
    try:
        assert list(wrapped(environ_of(), lambda *head: None)) == [b"Sorry"]
        assert until(lambda: streams[0]() is None, 5)
    finally:
        gc.enable()


def test_an_error_that_leaves_after_a_late_close_cuts_what_its_server_has_not_ended() -> None:
    """Who waits beside gets an end; the client gets one when the application has returned."""

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ["streamkit.stream"]
        threading.Thread(target=stream.wait_finished, daemon=True).start()
        try:
            stream.write("half")
            assert until(lambda: stream._when_finished)
            raise Boom
        finally:
            stream.close()
            assert until(lambda: stream.outcome)

    assert is_cut(served(streamkit.wrap(app, kind="wsgi", heartbeat=1)))
