"""Hooks on the stream in the environ or scope, for descriptions and for streams of other frameworks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import AsgiServer, WsgiServer

import streamkit
from streamkit import StreamError

KEY = "streamkit.stream"


class Boom(Exception):
    pass


def function(fails: bool = False) -> Any:
    def producer(stream: Any) -> None:
        stream.write("made ")
        if fails:
            raise Boom

    return producer


def async_function(fails: bool = False) -> Any:
    async def producer(stream: Any) -> None:
        await stream.write("made ")
        if fails:
            raise Boom

    return producer


def iterable(fails: bool = False) -> Iterator[str]:
    yield "made "
    if fails:
        raise Boom


async def async_iterable(fails: bool = False) -> AsyncIterator[str]:
    yield "made "
    if fails:
        raise Boom


MAKERS = [function, async_function, iterable, async_iterable]
KINDS = ["sync hook", "async hook"]


def served_after(hooked: Callable[[Any], None], description: Any) -> Any:
    """An ASGI application with a layer that hooks into the stream, and then answers with a description."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        hooked(scope[KEY])
        await description(scope, receive, send)

    return streamkit.wrap(app, kind="asgi")


def answer_of(app: Any, **request: Any) -> Any:
    with AsgiServer(app) as server:
        return server.request(**request).finish()


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_hook_of_the_scope_changes_the_head_of_a_description(maker: Any, kind: str) -> None:
    calls: list[Any] = []

    def sync_hook(stream: Any) -> None:
        calls.append((stream.committed, asyncio.get_running_loop() is not None))
        stream.headers["X-Hook"] = "ran"
        stream.status = 203
        stream.set_cookie("seen", "1")

    async def async_hook(stream: Any) -> None:
        await asyncio.sleep(0)
        sync_hook(stream)

    hook = sync_hook if kind == "sync hook" else async_hook
    answer = answer_of(served_after(lambda stream: stream.on_commit(hook), streamkit.stream(maker())))
    assert (answer.status, answer.header("X-Hook"), answer.body) == (203, "ran", b"made ")
    assert answer.values("Set-Cookie")[0].startswith("seen=1")
    assert calls == [(False, True)]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_hook_of_the_scope_hears_once_and_may_write(maker: Any, kind: str) -> None:
    heard: list[Any] = []

    def note(stream: Any, error: BaseException) -> Any:
        heard.append((type(error), stream.status, stream.at_line_start))
        return stream.write("sorry")

    async def sync_like(stream: Any, error: BaseException) -> None:
        assert await note(stream, error) == 5

    hook = note if kind == "sync hook" else sync_like
    description = streamkit.stream(maker(fails=True))
    answer = answer_of(served_after(lambda stream: stream.on_error(hook), description))
    assert heard == [(Boom, 200, False)]
    assert answer.body == b"made sorry"
    assert (answer.complete, type(answer.error)) == (False, Boom)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_finish_hook_of_the_scope_is_told_the_outcome_of_a_description_once(maker: Any) -> None:
    for fails, outcome in ((False, "finished"), (True, "failed")):
        heard: list[Any] = []
        app = served_after(
            lambda stream, heard=heard: stream.on_finish(lambda ended: heard.append(ended.outcome)),  # type: ignore[misc]
            streamkit.stream(maker(fails=fails)),
        )
        answer_of(app).through()
        assert heard == [outcome]


@pytest.mark.parametrize("maker", [function, async_function, async_iterable])
@pytest.mark.parametrize("call", ["write", "commit", "close"])
def test_a_commit_hook_of_the_scope_that_writes_is_refused_at_once(maker: Any, call: str) -> None:
    refused: list[Any] = []

    async def hook(stream: Any) -> None:
        try:
            await (stream.write("x") if call == "write" else getattr(stream, call)())
        except StreamError as error:
            refused.append(str(error))

    answer = answer_of(served_after(lambda stream: stream.on_commit(hook), streamkit.stream(maker())))
    assert answer.body == b"made "
    assert len(refused) == 1
    assert "may change the head, but not write the body" in refused[0]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_commit_hook_of_the_scope_that_raises_is_an_error_before_the_commit(maker: Any) -> None:
    async def hook(stream: Any) -> None:
        raise Boom

    answer = answer_of(served_after(lambda stream: stream.on_commit(hook), streamkit.stream(maker())))
    assert (answer.committed, type(answer.error)) == (False, Boom)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_hooks_of_the_scope_run_on_the_loop_also_for_a_producer_on_a_thread(maker: Any) -> None:
    where: list[Any] = []

    def hooked(stream: Any) -> None:
        where.append(threading.get_ident())
        stream.on_commit(lambda _: where.append(threading.get_ident()))
        stream.on_error(lambda *_: where.append(threading.get_ident()))

    answer_of(served_after(hooked, streamkit.stream(maker(fails=True))))
    assert len(where) == 3
    assert len(set(where)) == 1


def test_the_hooks_of_the_scope_hear_of_a_head_request_too() -> None:
    heard: list[str] = []

    def hooked(stream: Any) -> None:
        stream.on_commit(lambda inner: inner.headers.add("X-Hook", "ran"))
        stream.on_finish(lambda inner: heard.append(inner.outcome))

    answer = answer_of(served_after(hooked, streamkit.stream(function())), method="HEAD")
    assert (answer.header("X-Hook"), answer.body) == ("ran", b"")
    answer.through()
    assert heard == ["finished"]


@pytest.mark.parametrize("maker", [function, iterable])
def test_the_hooks_of_the_environ_are_handed_on_likewise(maker: Any) -> None:
    heard: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ[KEY]
        stream.on_commit(lambda inner: inner.headers.add("X-Hook", "ran"))
        stream.on_error(lambda inner, error: heard.append(type(error)))
        stream.on_finish(lambda inner: heard.append(inner.outcome))
        return streamkit.stream(maker(fails=True))(environ, start_response)

    with WsgiServer(streamkit.wrap(app, kind="wsgi")) as server:
        answer = server.request().finish().through()
    assert answer.header("X-Hook") == "ran"
    assert heard == [Boom, "failed"]


# ---------------------------------------------------------------- streams of other code


def foreign_asgi(
    hooked: Callable[[Any], None], fails: bool = False, media_type: bytes = b"text/plain"
) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        hooked(scope[KEY])
        headers = [(b"content-type", media_type), (b"x-own", b"kept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"made ", "more_body": True})
        if fails:
            raise Boom
        await send({"type": "http.response.body", "body": b"here"})

    return streamkit.wrap(app, kind="asgi", options={"commit_after": 0.05})


def foreign_wsgi(hooked: Callable[[Any], None], fails: bool = False, *, late: bool = False) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        hooked(environ[KEY])

        def body() -> Iterator[bytes]:
            if late:
                start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "kept")])
            yield b"made "
            if fails:
                raise Boom
            yield b"here"

        if not late:
            start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "kept")])
        return body()

    return streamkit.wrap(app, kind="wsgi")


def change(stream: Any) -> None:
    assert (stream.headers["X-Own"], stream.status) == ("kept", 200)
    stream.headers["X-Hook"] = "ran"
    stream.status = 203


def assert_changed(answer: Any) -> None:
    assert (answer.status, answer.header("X-Hook"), answer.header("X-Own")) == (203, "ran", "kept")
    assert (answer.header("Content-Type"), answer.body) == ("text/plain", b"made here")


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_hook_of_the_scope_changes_the_head_of_another_frameworks_stream(kind: str) -> None:
    async def async_change(stream: Any) -> None:
        await asyncio.sleep(0)
        change(stream)

    hook = change if kind == "sync hook" else async_change
    assert_changed(answer_of(foreign_asgi(lambda stream: stream.on_commit(hook))))


@pytest.mark.parametrize("late", [False, True], ids=["at once", "with the first chunk"])
def test_a_commit_hook_of_the_environ_changes_the_head_of_another_frameworks_stream(late: bool) -> None:
    with WsgiServer(foreign_wsgi(lambda stream: stream.on_commit(change), late=late)) as server:
        assert_changed(server.request().finish())


def test_a_head_that_another_framework_takes_back_for_an_error_is_not_the_one_that_hooks_see() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(lambda stream: stream.headers.add("X-Seen", stream.headers["X-Own"]))

        def body() -> Iterator[bytes]:
            try:
                raise Boom
            except Boom:
                start_response(
                    "500 Oh", [("Content-Type", "text/plain"), ("X-Own", "second")], sys.exc_info()
                )
            yield b"sorry"

        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "first")])
        return body()

    with WsgiServer(streamkit.wrap(app, kind="wsgi")) as server:
        answer = server.request().finish()
    assert (answer.status, answer.header("X-Seen"), answer.body) == (500, "second", b"sorry")


def test_a_hook_may_wait_longer_than_the_clock_that_commits_a_silent_stream() -> None:
    calls: list[Any] = []

    async def hook(stream: Any) -> None:
        calls.append(stream.committed)
        await asyncio.sleep(0.3)  # several times `commit_after`
        change(stream)

    answer = answer_of(foreign_asgi(lambda stream: stream.on_commit(hook), media_type=b"text/event-stream"))
    assert (answer.status, answer.header("X-Hook"), answer.body) == (203, "ran", b"made here")
    assert calls == [False]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_commit_hook_that_raises_fails_another_frameworks_stream_before_its_head(kind: str) -> None:
    def hook(stream: Any) -> None:
        raise Boom

    def hooked(stream: Any) -> None:
        stream.on_commit(hook)

    if kind == "asgi":
        answer = answer_of(foreign_asgi(hooked))
    else:
        with WsgiServer(foreign_wsgi(hooked)) as server:
            answer = server.request().finish()
    assert (answer.committed, type(answer.error)) == (False, Boom)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_error_and_finish_hooks_hear_of_another_frameworks_stream_once(kind: str) -> None:
    heard: list[Any] = []

    def hooked(stream: Any) -> None:
        stream.on_error(lambda inner, error: heard.append(type(error)))
        stream.on_finish(lambda inner: heard.append(inner.outcome))

    if kind == "asgi":
        answer_of(foreign_asgi(hooked, fails=True)).through()
    else:
        with WsgiServer(foreign_wsgi(hooked, fails=True)) as server:
            server.request().finish().through()
    assert heard == [Boom, "failed"]
