"""Corners where something once hung, was lost, or looked whole when it was not."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import AsgiServer, WsgiServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

import streamkit
from streamkit import StreamClosed, StreamError

PATIENCE = 20.0
SERVERS = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])


def fails_after_a_chunk(stream: Any) -> None:
    stream.write("a\n")
    raise ValueError("boom")


async def fails_after_a_chunk_async(stream: Any) -> None:
    await stream.write("a\n")
    raise ValueError("boom")


@SERVERS
@pytest.mark.parametrize("producer", [fails_after_a_chunk, fails_after_a_chunk_async])
@pytest.mark.parametrize("completion", ["\N{EURO SIGN} missing", lambda stream, error: 5])
def test_a_completion_that_cannot_be_written_does_not_hide_the_error(
    server: Any, producer: Any, completion: Any
) -> None:
    described = streamkit.stream(
        producer,
        content_type="text/csv; charset=latin-1",
        options={"completion": {"text/csv": completion}},
    )
    with server(described) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"a\n", False)
    assert isinstance(answer.error, ValueError)


@SERVERS
def test_a_failing_hook_of_the_commit_ends_a_silent_producer_that_keeps_open(server: Any) -> None:
    def producer(stream: Any) -> None:
        @stream.on_commit
        def refuse(stream: Any) -> None:
            raise ValueError("refused")

    with server(streamkit.stream(producer, keep_open=True)) as serving:
        answer = serving.request().finish()
    assert isinstance(answer.error, ValueError)


def test_a_commit_hook_that_needs_the_loop_does_not_block_it() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def producer(stream: Any) -> None:
        @stream.on_commit
        def slow(stream: Any) -> None:
            # By the loop's own timers, so that `commit_after` is over there when this is.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), loops[0]).result(PATIENCE)

        stream.write("x")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await streamkit.stream(producer, options={"commit_after": 0.02})(scope, receive, send)

    with AsgiServer(app) as serving:
        assert serving.request().finish().body == b"x"


@SERVERS
def test_nobody_waits_for_the_commit_of_a_stream_that_ended_without_one(server: Any) -> None:
    streams: list[Any] = []

    def producer(stream: Any) -> None:
        streams.append(stream)
        stream.abort("never mind")

    with server(streamkit.stream(producer)) as serving:
        serving.request().finish()
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(streams[0].wait_committed()))
    waiter.start()
    waiter.join(PATIENCE)
    assert waited == [False]


async def passed_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def test_a_layer_that_ends_every_body_cleanly_cannot_make_half_a_body_whole() -> None:
    async def endpoint(request: Any) -> Any:
        return streamkit.stream(fails_after_a_chunk_async)

    app = Starlette(
        routes=[Route("/", endpoint)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=passed_on)]
    )
    with AsgiServer(streamkit.wrap(app)) as serving:
        answer = serving.request().finish()
    assert answer.body == b"a\n"
    assert not answer.complete


def starts_again_late(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])

    def chunks() -> Iterator[bytes]:
        yield b"half"
        try:
            raise ValueError("boom")
        except ValueError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"an error page"

    return chunks()


def test_a_start_response_with_exc_info_amid_a_body_raises_as_pep_3333_says() -> None:
    with WsgiServer(streamkit.wrap(starts_again_late)) as serving:
        answer = serving.request().finish()
    assert answer.body == b"half"
    assert isinstance(answer.error, ValueError)


def test_a_start_response_with_exc_info_amid_a_held_body_is_a_real_500() -> None:
    with WsgiServer(streamkit.wrap(starts_again_late)) as serving:
        answer = serving.request(version="1.0").finish()
    assert not answer.committed
    assert isinstance(answer.error, ValueError)


def test_an_application_that_swallows_the_limit_does_not_get_a_wrong_length() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        for _ in range(5):
            try:
                environ["streamkit.stream"].write(b"x" * 10)
            except streamkit.BufferLimitExceeded:
                break
        return []

    wrapped = streamkit.wrap(app, http10_limit=25)
    heads: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0"}
    b"".join(wrapped(environ, lambda status, headers, exc_info=None: heads.append(status)))  # type: ignore[arg-type, return-value]
    assert heads == ["505 HTTP Version Not Supported"]


def test_a_write_after_a_plain_answer_is_refused() -> None:
    held: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        held.append(environ["streamkit.stream"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    with WsgiServer(streamkit.wrap(app)) as serving:
        assert serving.request().finish().body == b"ok"
    with pytest.raises(StreamClosed, match="already answered"):
        held[0].write(b"late")


def test_what_the_stream_returns_works_with_asyncios_own_tools() -> None:
    counts: list[Any] = []

    async def producer(stream: Any) -> None:
        counts.append(await asyncio.wait_for(stream.write(b"abc"), PATIENCE))
        counts.extend(await asyncio.gather(stream.write(b"d"), stream.write(b"ef")))
        await asyncio.wait_for(stream.close(), PATIENCE)

    with AsgiServer(streamkit.stream(producer)) as serving:
        assert serving.request().finish().body == b"abcdef"
    assert counts == [3, 1, 2]


def test_a_wrapped_application_may_send_in_a_task_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(send({"type": "http.response.start", "status": 200, "headers": []}))
        await asyncio.wait_for(send({"type": "http.response.body", "body": b"ok"}), PATIENCE)

    with AsgiServer(streamkit.wrap(app)) as serving:
        assert serving.request().finish().body == b"ok"


def test_an_async_hook_of_the_commit_that_writes_is_refused_and_does_not_wait_for_itself() -> None:
    async def producer(stream: Any) -> None:
        @stream.on_commit
        async def writes(stream: Any) -> None:
            await stream.write("no")

        await stream.write("x")

    with AsgiServer(streamkit.stream(producer)) as serving:
        answer = serving.request().finish()
    assert isinstance(answer.error, StreamError)


def test_hooks_of_the_requests_handle_reach_the_stream_that_carries_its_response() -> None:
    calls: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        handle = environ["streamkit.stream"]
        handle.on_commit(lambda stream: calls.append("commit"))
        handle.on_finish(lambda stream: calls.append(stream.outcome))
        return streamkit.stream(["a", "b"])(environ, start_response)

    with WsgiServer(streamkit.wrap(app)) as serving:
        assert serving.request().finish().body == b"ab"
    assert calls == ["commit", "finished"]


def test_an_async_hook_of_a_short_body_may_still_write() -> None:
    async def producer(stream: Any) -> None:
        await stream.write(b"12345")

    async def on_error(stream: Any, error: BaseException) -> None:
        await asyncio.sleep(0)
        await stream.write(b"6789")

    with AsgiServer(streamkit.stream(producer, content_length=9, on_error=on_error)) as serving:
        assert serving.request().finish().body == b"123456789"


def test_whoever_waits_for_the_end_without_a_bound_is_released_by_it() -> None:
    released = threading.Event()
    waiters: list[asyncio.Task[None]] = []

    async def wait(stream: Any) -> None:
        assert await stream.wait_finished()
        released.set()

    async def producer(stream: Any) -> None:
        waiters.append(asyncio.create_task(wait(stream)))
        await asyncio.sleep(0)  # it waits from now on
        await stream.write("x")

    with AsgiServer(streamkit.stream(producer)) as serving:
        assert serving.request().finish().complete
        assert released.wait(PATIENCE)
    assert len(waiters) == 1


def test_a_producer_may_wait_for_the_end_that_it_made() -> None:
    seen: list[bool] = []

    async def producer(stream: Any) -> None:
        await stream.write("x")
        await stream.close()
        seen.append(await stream.wait_finished(PATIENCE))

    with AsgiServer(streamkit.stream(producer)) as serving:
        assert serving.request().finish().complete
    assert seen == [True]


@SERVERS
def test_a_hook_of_the_commit_may_change_the_charset_of_the_first_chunk(server: Any) -> None:
    def producer(stream: Any) -> None:
        @stream.on_commit
        def latin(stream: Any) -> None:
            stream.headers["Content-Type"] = "text/plain; charset=latin-1"

        stream.write("\u00e9")

    with server(streamkit.stream(producer)) as serving:
        assert serving.request().finish().body == b"\xe9"


@SERVERS
def test_resources_are_left_although_closing_the_iterable_fails(server: Any) -> None:
    left: list[str] = []

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a"])

        def close(self) -> None:
            raise ValueError("cannot close")

    @contextmanager
    def resource() -> Iterator[None]:
        try:
            yield
        finally:
            left.append("left")

    with server(streamkit.stream(Chunks(), resources=[resource()])) as serving:
        serving.request().finish()
    assert left == ["left"]


@SERVERS
def test_an_iterable_is_closed_although_a_resource_before_it_cannot_be_entered(server: Any) -> None:
    closed = threading.Event()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a"])

        def close(self) -> None:
            closed.set()

    @contextmanager
    def resource() -> Iterator[None]:
        raise ValueError("cannot enter")
        yield

    with server(streamkit.stream(Chunks(), resources=[resource()], engine="thread")) as serving:
        answer = serving.request().finish()
    assert isinstance(answer.error, ValueError)
    assert closed.wait(PATIENCE)


@SERVERS
def test_a_hook_that_wants_the_process_to_exit_does_not_leave_the_reader_waiting(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # the worker's own end

    def on_error(stream: Any, error: BaseException) -> None:
        raise SystemExit(1)

    with server(streamkit.stream(fails_after_a_chunk, on_error=on_error)) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"a\n", False)


def test_a_hook_that_wants_the_process_to_exit_does_not_leave_the_reader_of_a_whole_app_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # the worker's own end

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        @environ["streamkit.stream"].on_error
        def on_error(stream: Any, error: BaseException) -> None:
            raise SystemExit(1)

        fails_after_a_chunk(environ["streamkit.stream"])
        return []

    with WsgiServer(streamkit.wrap(app, engine="thread")) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"a\n", False)


def shouted_wsgi(app: Any) -> Any:
    """A layer as PEP 3333 has them: it changes chunks, and passes `close` on."""

    def layer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        chunks = app(environ, start_response)
        try:
            for chunk in chunks:
                yield chunk.upper()
        finally:
            chunks.close()

    return layer


def shouted_asgi(app: Any) -> Any:
    async def layer(scope: Any, receive: Any, send: Any) -> None:
        async def shout(message: Any) -> None:
            await send({**message, "body": message["body"].upper()} if "body" in message else message)

        await app(scope, receive, shout)

    return layer


@SERVERS
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_layer_may_change_each_chunk_by_itself_while_more_are_made(
    server: Any, times: int, is_wrapped: bool
) -> None:
    arrived = threading.Event()

    def producer(stream: Any) -> None:
        stream.write("a")
        assert arrived.wait(PATIENCE), "the first chunk was held back"
        stream.write("b")

    app: Any = streamkit.stream(producer)
    for _ in range(times):
        app = shouted_wsgi(app) if server is WsgiServer else shouted_asgi(app)
    if is_wrapped:
        app = streamkit.wrap(app, kind="wsgi" if server is WsgiServer else "asgi")
    with server(app) as serving:
        answer = serving.request()
        assert answer.read() == b"A"
        arrived.set()
        answer.finish()
    assert (answer.body, answer.complete, answer.error) == (b"AB", True, None)


@pytest.mark.parametrize("order", [1, -1])
def test_a_streaming_media_type_makes_a_stream_in_any_order_of_the_headers(order: int) -> None:
    headers = [(b"content-length", b"9"), (b"content-type", b"text/event-stream")][::order]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    with AsgiServer(streamkit.wrap(app)) as serving:
        answer = serving.request().finish()
    assert answer.body == b"data: 1\n\n"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("content-length") is None
