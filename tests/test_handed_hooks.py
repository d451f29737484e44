"""Hooks on the stream in the environ or scope, where the wrapped app answers with a description."""

from __future__ import annotations

import asyncio
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
