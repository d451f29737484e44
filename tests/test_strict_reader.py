"""What a reader of the design expects, said once more where it did not hold."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from asgiref.compatibility import is_double_callable
from driving import PATIENCE, environ_of, scope_of, until

import streamkit
from streamkit import AlreadyCommitted, HeaderError, NotAnApplication, Options, OptionsError

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def test_what_options_hold_cannot_be_changed_nor_what_others_start_from() -> None:
    for options in (Options(), Options(headers={"X-Made-By": "us"}, completion={"text/csv": "# cut"})):
        for held in (options.headers, options.completion):
            with pytest.raises(TypeError):
                held["X-Other"] = "theirs"  # type: ignore[index]
        assert copy.deepcopy(options) == pickle.loads(pickle.dumps(options)) == options
        assert "mappingproxy" not in repr(options)
    assert dict(Options().headers) == {"X-Accel-Buffering": "no"}


def test_faults_of_the_mapping_and_of_the_keywords_are_told_in_one_message() -> None:
    with pytest.raises(OptionsError) as caught:
        streamkit.wrap(lambda environ, start_response: [], {"hartbeat": 3, "grace": -1}, high_watr=3)
    assert all(name in str(caught.value) for name in ("heartbeat", "grace", "high_water"))


def served(producer: Callable[[Any], Any]) -> list[tuple[str, str]]:
    """The headers with which it is answered; what it raises is raised here."""
    heads: list[Any] = []
    body = streamkit.stream(producer)(environ_of(), lambda *head: heads.append(head))
    assert b"".join(body) == b"x"
    body.close()  # type: ignore[union-attr]
    return heads[0][1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("status", [201, 3, "404", None])
def test_after_the_commit_every_status_is_refused_as_too_late(status: Any) -> None:
    def producer(stream: Any) -> None:
        stream.write("x")
        with pytest.raises(AlreadyCommitted):
            stream.status = status

    served(producer)


def test_headers_may_be_merged_in_place_or_set_as_a_whole_until_the_commit() -> None:
    def producer(stream: Any) -> None:
        stream.headers = {"X-A": "1", "Content-Type": "text/csv"}
        stream.headers |= {"X-B": "2"}
        stream.write("x")
        with pytest.raises(AlreadyCommitted):
            stream.headers = {"X-C": "3"}

    head = served(producer)
    assert head[:3] == [("X-A", "1"), ("Content-Type", "text/csv"), ("X-B", "2")]


def test_a_header_that_may_not_be_sent_leaves_those_that_stand() -> None:
    def producer(stream: Any) -> None:
        stream.headers["X-A"] = "1"
        with pytest.raises(HeaderError):
            stream.headers = {"X-B": "2\n3"}
        stream.write("x")

    assert ("X-A", "1") in served(producer)


async def answered(app: Any, receive: Any, on_body: Callable[[int], object] = id) -> list[Any]:
    """The messages of an app that is asked by a scope; `on_body` hears the number of each of the body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        on_body(len(sent) - 1)
        await asyncio.sleep(0)

    await asyncio.wait_for(app(scope_of(), receive, send), PATIENCE)
    return sent


def test_an_app_that_waits_for_a_leave_may_return_without_an_answer() -> None:
    outcomes: list[Any] = []

    async def polled(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    app = streamkit.wrap(polled, on_finish=lambda stream: outcomes.append(stream.outcome))
    assert asyncio.run(answered(app, receive)) == []
    assert outcomes == ["disconnected"]


async def described(scope: Any, receive: Any, send: Any) -> None:
    async def chunks() -> Any:
        for _ in range(COUNT):
            yield "x"

    await streamkit.stream(chunks())(scope, receive, send)


async def own(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(COUNT):
        await scope["streamkit.stream"].write("x")


async def foreign(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    for _ in range(COUNT):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body"})


COUNT = 200


@pytest.mark.parametrize("app", [described, own, foreign])
def test_a_leave_amid_a_burst_is_noticed_before_its_end(app: Any) -> None:
    outcomes: list[Any] = []
    app = streamkit.wrap(app, on_finish=lambda stream: outcomes.append(stream.outcome))

    async def meet() -> list[Any]:
        has_left = asyncio.Event()

        async def receive() -> Any:
            await has_left.wait()
            return {"type": "http.disconnect"}

        return await answered(app, receive, lambda number: number == 2 and has_left.set())

    assert len(asyncio.run(meet())) < COUNT
    assert outcomes == ["disconnected"]


@pytest.mark.parametrize("app", [described, own, foreign])
def test_a_receive_that_says_the_same_for_ever_does_not_hold_up_the_loop(app: Any) -> None:
    asked = 0

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        assert asked < 100
        return {"type": "http.request", "body": b"", "more_body": False}

    async def meet() -> list[Any]:
        is_watched = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, is_watched.set)  # by then also a short one is

        async def paused(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                await send(message)
                await is_watched.wait()

            await app(scope, receive, sending)

        return await answered(streamkit.wrap(paused if app is not own else waiting), receive)

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await scope["streamkit.stream"].write("")
        await asyncio.sleep(0.1)
        await own(scope, receive, send)

    sent = asyncio.run(meet())
    assert b"".join(message.get("body", b"") for message in sent) == b"x" * COUNT
    assert not sent[-1].get("more_body")
    assert asked == 2


def test_a_write_that_waits_for_room_returns_when_another_thread_closes_the_stream() -> None:
    streams: list[Any] = []
    is_read, has_returned = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        streams.append(stream)
        stream.write(b"x")
        is_read.wait(PATIENCE)
        stream.write(b"y" * 2000)  # more than there is room for
        has_returned.set()

    body = streamkit.stream(producer, options={"high_water": 1500})(environ_of(), lambda *head: None)
    read = iter(body)
    assert next(read) == b"x"
    is_read.set()
    assert until(lambda: streams[0].tell() == 2001)
    assert not has_returned.is_set()
    streams[0].close()
    assert has_returned.wait(PATIENCE)
    assert b"".join(read) == b"y" * 2000
    body.close()  # type: ignore[union-attr]


def test_servers_that_ask_are_told_that_a_description_is_asgi_and_wrap_still_wants_a_word() -> None:
    described = streamkit.stream(["x"])
    config = uvicorn.Config(described, log_config=None)
    config.load()
    assert config.interface == "asgi3"
    assert not is_double_callable(described)
    with pytest.raises(NotAnApplication):
        streamkit.wrap(described)
    assert isinstance(streamkit.wrap(described, kind="wsgi"), streamkit.wsgi.StreamingMiddleware)
