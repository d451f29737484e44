"""Ends that nobody may wait for in vain, and what an iterable that is pulled sees of its errors."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, scope_of, until
from twinned import server_for, ways

import streamkit
from streamkit.errors import BodyTooShort, StreamAborted, StreamClosed


class Boom(Exception):
    pass


async def cut_off() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if sys.version_info >= (3, 11):
            task.uncancel()


async def failing() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, Boom())
    try:
        await future
    except Boom:
        pass


@pytest.mark.parametrize("dealt_with", [cut_off, failing])
def test_an_error_that_an_asynchronous_iterable_has_dealt_with_is_not_behind_what_follows(
    dealt_with: Callable[[], Any],
) -> None:
    amid: list[object] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await dealt_with()
        amid.append(sys.exc_info()[1])
        raise KeyError("its own")

    with AsgiServer(streamkit.stream(chunks())) as server:
        error = server.request().finish().error
    assert amid == [None]
    assert (type(error), error and error.__context__) == (KeyError, None)


@pytest.mark.parametrize("way", ["task", "bridge"])
def test_a_body_that_is_too_short_ends_though_its_error_hook_closes_it_and_its_commit_hook_takes_time(
    way: str,
) -> None:
    told: list[str] = []

    async def producer(stream: Any) -> None:
        stream.on_commit(lambda stream: asyncio.sleep(0.01))
        stream.on_error(lambda stream, error: stream.close())
        stream.on_finish(lambda stream: told.append(stream.outcome))
        await stream.close()

    with server_for(way, producer, {"content_length": 5}) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete, type(answer.error)) == (b"", False, BodyTooShort)
    assert told == ["failed"]


@ways
@pytest.mark.parametrize("call", ["commit", "close", "write"])
def test_a_commit_whose_hook_never_returns_holds_up_no_error(
    way: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[bool] = []

    async def hook(stream: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def producer(stream: Any) -> None:
        stream.on_commit(hook)
        await asyncio.wait_for(stream.write("x") if call == "write" else getattr(stream, call)(), 0.05)

    with server_for(way, producer, {}) as server:
        answer = server.request().finish()
        assert until(lambda: ended), "the hook goes on for ever"
    assert (answer.starts, type(answer.error)) == ([], asyncio.TimeoutError)
    assert "after the end of its stream" not in caplog.text
    assert "while its client was leaving" not in caplog.text


@pytest.mark.parametrize("item", [[], "text", (n for n in ())], ids=["list", "text", "generator"])
def test_an_iterable_that_gives_what_cannot_be_awaited_has_failed(item: Any) -> None:
    class Items:
        given = 0

        def __aiter__(self) -> Items:
            return self

        def __anext__(self) -> Any:
            self.given += 1
            if self.given > 9:
                raise StopAsyncIteration
            return item if self.given > 1 else asyncio.sleep(0, "first")

    errors: list[BaseException] = []
    options = {"commit_after": None}
    described = streamkit.event_stream(
        Items(), on_error=lambda stream, error: errors.append(error), options=options
    )
    with AsgiServer(described) as server:
        answer = server.request().finish()
    assert answer.body.startswith(b"data: first\n\nevent: error\n"), answer.body
    assert [type(error) for error in errors] == [TypeError]
    assert "can't be used in 'await'" in str(errors[0])


@pytest.mark.parametrize("engine", ["write", "thread", "task", "scope"])
def test_a_late_close_makes_no_body_whole_that_was_aborted_meanwhile(engine: str) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.write("half")
        try:
            raise Boom
        except Boom:
            stream.close()
        stream.abort("after all")
        stream.wait_finished(2.5)  # the clock has come by then
        return []

    async def producer(stream: Any) -> None:
        await stream.write("half")
        try:
            raise Boom
        except Boom:
            await stream.close()
        stream.abort("after all")
        await asyncio.sleep(2.5)

    options = {"heartbeat": 1}
    if engine in ("task", "scope"):
        server = server_for(engine, producer, {"options": options})
    else:
        wrapped = {**options, "engine": "auto" if engine == "write" else "thread"}
        server = WsgiServer(streamkit.wrap(application, wrapped, kind="wsgi"))
    with server:
        answer = server.request().finish()
    assert (answer.complete, type(answer.error)) == (False, StreamAborted)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("more", [True, False])
def test_no_message_of_a_body_follows_its_close_amid_an_error(version: str, more: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"all", "more_body": True})
        try:
            raise Boom
        except Boom:
            await scope["streamkit.stream"].close()
        await send({"type": "http.response.body", "body": b"too much", "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"too late", "more_body": True})
            await send({"type": "http.response.body"})

    with AsgiServer(streamkit.wrap(application, kind="asgi")) as server:
        answer = server.request(version=version).finish()
    assert (answer.body, answer.complete, answer.error) == (b"all", True, None)


def test_an_end_that_a_thread_brings_while_its_application_returns_is_sent_and_told() -> None:
    outcomes: list[Any] = []
    sent: list[Any] = []

    async def main() -> None:
        loop, goes_on, is_closing = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        threads: list[threading.Thread] = []

        def write_and_close(twin: Any) -> None:
            twin.write(b"last")
            loop.call_soon_threadsafe(is_closing.set)
            twin.close()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            stream = scope["streamkit.stream"]
            await stream.write("first")
            threads.append(threading.Thread(target=write_and_close, args=(stream.sync,)))
            threads[0].start()

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body") == b"last":
                await asyncio.wait_for(is_closing.wait(), PATIENCE)
                await asyncio.wait_for(goes_on.wait(), PATIENCE)

        wrapped = streamkit.wrap(app, kind="asgi", on_finish=lambda stream: outcomes.append(stream.outcome))
        serving = asyncio.create_task(wrapped(scope_of(), asyncio.Event().wait, send))
        await asyncio.wait_for(is_closing.wait(), PATIENCE)
        await asyncio.sleep(0.05)  # the close comes to the loop; a shorter one only proves less
        goes_on.set()
        await asyncio.wait_for(serving, PATIENCE)
        await asyncio.to_thread(threads[0].join, PATIENCE)

    asyncio.run(main())
    assert outcomes == ["finished"]
    assert [message.get("body") for message in sent[1:]] == [b"first", b"last", b""]


@pytest.mark.parametrize("writer", ["thread", "task"])
def test_a_write_while_the_last_message_is_sent_is_refused(writer: str) -> None:
    sent: list[Any] = []

    async def main() -> BaseException:
        is_ending, goes_on = asyncio.Event(), asyncio.Event()
        streams: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            streams.append(scope["streamkit.stream"])
            await streams[0].write("first")
            streams.append(streams[0].sync)

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                is_ending.set()
                await asyncio.wait_for(goes_on.wait(), PATIENCE)

        wrapped = streamkit.wrap(app, kind="asgi")
        serving = asyncio.create_task(wrapped(scope_of(), asyncio.Event().wait, send))
        await asyncio.wait_for(is_ending.wait(), PATIENCE)
        stream, twin = streams
        late = asyncio.to_thread(twin.write, "late") if writer == "thread" else stream.write("late")
        with pytest.raises(StreamClosed) as refused:
            await asyncio.wait_for(late, PATIENCE)
        goes_on.set()
        await asyncio.wait_for(serving, PATIENCE)
        return refused.value

    assert str(asyncio.run(main())) == "cannot write to a closed stream"
    assert [message.get("body") for message in sent[1:]] == [b"first", b""]
