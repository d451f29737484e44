"""`stream.sync` and its loop: which one it belongs to, and what it says when that is no more."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, scope_of
from twinned import SCOPE, request_by, scope_app, take

import streamkit
from streamkit import ClientDisconnected, StreamClosed, StreamError
from streamkit.engines.async_twin import on_loop
from streamkit.errors import InvalidTimeout
from streamkit.testing import Client


def job(scope: Any) -> None:
    scope["streamkit.stream"].sync.write("from a thread")


@pytest.mark.parametrize("way", ["asyncio", "anyio", "asgiref"])
@pytest.mark.parametrize("plain_first", [False, True])
def test_the_sync_twin_is_found_from_a_worker_thread_on_each_new_loop(way: str, plain_first: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        elif way == "asyncio":
            await asyncio.to_thread(job, scope)
        elif way == "anyio":
            await pytest.importorskip("anyio.to_thread").run_sync(job, scope)
        else:
            await pytest.importorskip("asgiref.sync").sync_to_async(job)(scope)

    wrapped = streamkit.wrap(app, kind="asgi")
    for _ in range(3):
        with Client(wrapped, lifespan="off") as client:
            if plain_first:
                assert client.get("/plain").status == 204
            assert client.get("/").read() == b"from a thread"
    with AsgiServer(wrapped) as server:
        assert server.request().finish().body == b"from a thread"


def test_a_loop_that_was_closed_without_a_shutdown_is_forgotten_with_the_first_who_asks() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(job, scope)

    async def ask() -> bytes:
        sent: list[bytes] = []

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

        await wrapped(scope_of(), asyncio.Event().wait, send)
        return b"".join(sent)

    wrapped = streamkit.wrap(app, kind="asgi")
    for is_first in (True, False, False):
        loop = asyncio.new_event_loop()
        try:
            if not is_first:
                with pytest.raises(StreamError, match="on the event loop"):
                    loop.run_until_complete(ask())
            assert loop.run_until_complete(ask()) == b"from a thread"
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def app_of(way: str, producer: Any) -> Any:
    return scope_app(producer, {}) if way == "scope" else streamkit.stream(producer)


@pytest.mark.parametrize("way", ["scope", "task"])
@pytest.mark.parametrize("end", ["finished", "aborted"])
def test_the_twin_of_a_stream_that_has_ended_needs_its_loop_no_more(way: str, end: str) -> None:
    twins: list[Any] = []

    async def producer(stream: Any) -> None:
        twins.append(stream.sync)
        await stream.write(b"all")
        if end == "aborted":
            stream.abort("enough")

    try:
        request_by(app_of(way, producer), take)
    except streamkit.StreamError:
        assert end == "aborted"
    twin = twins[0]
    assert twin.outcome == end
    twin.commit()
    twin.close()
    twin.abort()
    assert (twin.wait_committed(), twin.wait_finished()) == (True, True)
    with pytest.raises(StreamClosed):
        twin.write(b"more")
    with pytest.raises(StreamClosed):
        twin.stale(etag="a")
    assert twin.outcome == end


def cancelled_on(loop: asyncio.AbstractEventLoop, way: str) -> Any:
    """The twin of a stream whose request was cancelled on this loop, before its commit."""
    twins: list[Any] = []
    begun = asyncio.Event()

    async def producer(stream: Any) -> None:
        twins.append(stream.sync)
        begun.set()
        await asyncio.Event().wait()

    request = loop.create_task(app_of(way, producer)({**SCOPE}, asyncio.Event().wait, take))
    loop.run_until_complete(asyncio.wait_for(begun.wait(), PATIENCE))
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(request)
    return twins[0]


@pytest.mark.parametrize("way", ["scope", "task"])
def test_a_thread_whose_request_ended_with_its_loop_finds_the_client_gone(way: str) -> None:
    loop = asyncio.new_event_loop()
    twin = cancelled_on(loop, way)
    loop.close()
    for call in (lambda: twin.write(b"x"), twin.commit, lambda: twin.stale(etag="a")):
        with pytest.raises(ClientDisconnected):
            call()
    twin.close()
    twin.abort()
    assert (twin.wait_committed(), twin.wait_finished(), twin.outcome) == (False, True, "disconnected")


def test_a_thread_that_waits_for_a_loop_is_released_when_that_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[BaseException] = []
    is_left = threading.Event()

    def job() -> None:
        try:
            twin.commit()
        except Exception as error:
            heard.append(error)

    loop = asyncio.new_event_loop()
    twin = cancelled_on(loop, "task")
    leave_to_loop = loop.call_soon_threadsafe

    def noted(*call: Any, **how: Any) -> Any:
        left = leave_to_loop(*call, **how)
        is_left.set()
        return left

    monkeypatch.setattr(loop, "call_soon_threadsafe", noted)
    thread = threading.Thread(target=job, daemon=True)
    thread.start()  # the loop does not run, so what it is left with stays there
    assert is_left.wait(PATIENCE)
    loop.close()
    thread.join(PATIENCE)
    assert [type(error) for error in heard] == [ClientDisconnected]


def test_a_thread_that_waits_when_its_server_cancels_all_finds_the_client_gone() -> None:
    heard: list[BaseException] = []
    thread: list[threading.Thread] = []

    async def main() -> None:
        has_begun = asyncio.Event()

        async def producer(stream: Any) -> None:
            twin = stream.sync
            stream.on_commit(hook)

            def job() -> None:
                try:
                    twin.commit()
                except Exception as error:
                    heard.append(error)

            thread.append(threading.Thread(target=job, daemon=True))
            thread[0].start()
            await asyncio.Event().wait()

        async def hook(stream: Any) -> None:
            has_begun.set()
            await asyncio.Event().wait()

        app = streamkit.stream(producer)
        asyncio.get_running_loop().create_task(app({**SCOPE}, asyncio.Event().wait, take))
        await asyncio.wait_for(has_begun.wait(), PATIENCE)

    asyncio.run(main())  # which cancels what is still at work
    thread[0].join(PATIENCE)
    assert [type(error) for error in heard] == [ClientDisconnected]


@pytest.mark.parametrize("wait", ["wait_committed", "wait_finished"])
def test_a_timeout_that_is_none_is_refused_also_after_the_end(wait: str) -> None:
    twins: list[Any] = []

    async def producer(stream: Any) -> None:
        twins.append(stream.sync)
        await stream.write(b"all")

    request_by(streamkit.stream(producer), take)
    with pytest.raises(InvalidTimeout):
        getattr(twins[0], wait)(-1)


def test_a_hook_that_tidies_up_on_a_closed_loop_does_not_hide_that_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamkit.engines.async_twin.AsyncTwin", lambda *stands_for, **how: None)
    loop, has_begun = asyncio.new_event_loop(), asyncio.Event()
    heard: list[BaseException] = []

    async def hook(stream: Any) -> None:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    def job() -> None:
        try:
            on_loop(hook, loop)(None)  # type: ignore[arg-type]
        except Exception as error:
            heard.append(error)

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    loop.run_until_complete(asyncio.wait_for(has_begun.wait(), PATIENCE))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # not in another test's log
    loop.close()
    thread.join(PATIENCE)
    assert [type(error) for error in heard] == [StreamError]
