"""Hooks on the stream of a request whose response another stream carries: nested wraps, a second
answer in place of one that failed, hooks that come late, and streams on the other side of a loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, scope_of, until

import streamkit
from streamkit import ClientDisconnected, OptionsError, StreamError
from streamkit.core.head import HTTP11
from streamkit.engines.async_twin import on_loop
from streamkit.engines.logs import WSGI_LOG
from streamkit.engines.thread import ThreadStream

KEY = "streamkit.stream"


class Boom(Exception):
    pass


def function(stream: Any) -> None:
    stream.write("made ")


async def async_function(stream: Any) -> None:
    await stream.write("made ")


def iterable() -> Iterator[str]:
    yield "made "


async def async_iterable() -> AsyncIterator[str]:
    yield "made "


def failing(early: bool) -> dict[str, Callable[[], Any]]:
    """Producers of each kind that fail before, or after, their first chunk."""

    def function(stream: Any) -> None:
        if not early:
            stream.write("made ")
        raise Boom

    async def async_function(stream: Any) -> None:
        if not early:
            await stream.write("made ")
        raise Boom

    def iterable() -> Iterator[str]:
        if not early:
            yield "made "
        raise Boom

    async def async_iterable() -> AsyncIterator[str]:
        if not early:
            yield "made "
        raise Boom

    return {
        "function": lambda: function,
        "async function": lambda: async_function,
        "iterable": iterable,
        "async iterable": async_iterable,
    }


DESCRIBED: dict[str, Callable[[], Any]] = {
    "function": lambda: streamkit.stream(function),
    "async function": lambda: streamkit.stream(async_function),
    "iterable": lambda: streamkit.stream(iterable()),
    "async iterable": lambda: streamkit.stream(async_iterable()),
}


async def asgi_messages(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"made ", "more_body": True})
    await send({"type": "http.response.body"})


async def asgi_own(scope: Any, receive: Any, send: Any) -> None:
    await scope[KEY].write("made ")


def wsgi_iterable(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (chunk for chunk in [b"made "])


def wsgi_own(environ: Any, start_response: Any) -> Any:
    environ[KEY].write("made ")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


def wsgi_write(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])(b"made ")
    return []


ASGI = {**DESCRIBED,
        "messages": lambda: asgi_messages, "own": lambda: asgi_own}  # fmt: skip
WSGI = {**DESCRIBED,
        "other iterable": lambda: wsgi_iterable, "own": lambda: wsgi_own}  # fmt: skip


def hook_in(stream: Any, name: str, log: list[Any]) -> None:
    def committing(told: Any) -> None:
        log.append((name, "commit", told.committed))
        told.headers["X-" + name] = "1"

    stream.on_commit(committing)
    stream.on_finish(lambda told: log.append((name, told.outcome)))


def hooking(app: Any, name: str, log: list[Any], kind: Any, **options: Any) -> Any:
    """The application in a layer that hooks into its stream, in a wrap."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        hook_in(scope[KEY], name, log)
        await app(scope, receive, send)

    def wsgi(environ: Any, start_response: Any) -> Any:
        hook_in(environ[KEY], name, log)
        return app(environ, start_response)

    return streamkit.wrap(asgi if kind == "asgi" else wsgi, kind=kind, **options)


def answer_of(app: Any, kind: str, **request: Any) -> Any:
    with AsgiServer(app) if kind == "asgi" else WsgiServer(app) as server:
        return server.request(**request).finish()


CASES = [
    *(("asgi", name, {}) for name in ASGI),
    *(("wsgi", name, {}) for name in [*WSGI, "write"]),
    *(("wsgi", name, {"engine": "thread"}) for name in [*WSGI, "write"]),
]


def made(kind: str, name: str) -> Any:
    return {**(ASGI if kind == "asgi" else WSGI), "write": lambda: wsgi_write}[name]()


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_the_hooks_of_both_of_two_wraps_are_called_once_the_inner_ones_first(
    kind: str, name: str, options: dict[str, Any]
) -> None:
    log: list[Any] = []
    inner = hooking(made(kind, name), "Inner", log, kind, **options)
    answer = answer_of(hooking(inner, "Outer", log, kind, **options), kind)
    assert (answer.body, answer.error) == (b"made ", None)
    assert (answer.header("X-Inner"), answer.header("X-Outer")) == ("1", "1")
    assert log[:2] == [("Inner", "commit", False), ("Outer", "commit", False)]
    assert sorted(log[2:]) == [("Inner", "finished"), ("Outer", "finished")]


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_the_hooks_of_the_commit_see_whatever_is_answered_after_a_failed_description(
    kind: str, name: str, options: dict[str, Any]
) -> None:
    for maker in failing(early=True).values():
        log: list[Any] = []
        failed = streamkit.stream(maker())
        second = made(kind, name)

        async def asgi(
            scope: Any, receive: Any, send: Any, failed: Any = failed, second: Any = second
        ) -> None:
            try:
                await failed(scope, receive, send)
            except Boom:
                await second(scope, receive, send)

        def wsgi(environ: Any, start_response: Any, failed: Any = failed, second: Any = second) -> Any:
            try:
                return failed(environ, start_response)
            except Boom:
                return second(environ, start_response)

        app = hooking(asgi if kind == "asgi" else wsgi, "Hook", log, kind, **options)
        answer = answer_of(app, kind)
        assert (answer.body, answer.error, answer.header("X-Hook")) == (b"made ", None, "1")
        assert log == [("Hook", "commit", False), ("Hook", "finished")]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
@pytest.mark.parametrize("name", failing(early=False))
def test_hooks_on_the_environ_that_come_when_a_description_is_under_way_are_its_own(
    name: str, options: dict[str, Any]
) -> None:
    heard: list[Any] = []
    description = streamkit.stream(failing(early=False)[name]())

    def app(environ: Any, start_response: Any) -> Any:
        body = description(environ, start_response)
        stream = environ[KEY]
        stream.on_commit(lambda told: heard.append(told.committed))
        stream.on_error(lambda told, error: heard.append(type(error)))
        stream.on_finish(lambda told: heard.append(told.outcome))
        return body

    answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi").through()
    assert heard == [True, Boom, "failed"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_hooks_on_the_scope_that_come_with_the_head_of_a_description_are_called(name: str) -> None:
    heard: list[Any] = []
    called = threading.Event()
    description = DESCRIBED[name]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":

                async def hook(told: Any) -> None:
                    heard.append(told.committed)
                    called.set()

                scope[KEY].on_commit(hook)
            await send(message)

        await description(scope, receive, noting)

    assert answer_of(streamkit.wrap(app, kind="asgi"), "asgi").body == b"made "
    assert called.wait(PATIENCE)
    assert heard == [True]


def test_a_late_hook_of_a_producer_on_the_loop_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def hook(told: Any) -> None:
        raise Boom

    async def producer(stream: Any) -> None:
        await stream.write("made ")
        stream.on_commit(hook)

    with caplog.at_level(logging.ERROR, "streamkit"):
        assert answer_of(streamkit.stream(producer), "asgi").body == b"made "
        assert until(lambda: any(record.exc_info for record in caplog.records))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Boom]


@pytest.mark.parametrize("maker", [function, async_function])
def test_a_late_hook_that_fails_is_logged(maker: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.stream(maker)(scope, receive, send)

        async def hook(told: Any) -> None:
            raise Boom

        if maker is function:
            scope[KEY].on_commit(hook)
        else:
            scope[KEY].on_finish(lambda told: told.on_finish(hook))

    with caplog.at_level(logging.ERROR, "streamkit"):
        answer_of(streamkit.wrap(app, kind="asgi"), "asgi")
        assert until(lambda: any(record.exc_info for record in caplog.records))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Boom]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
@pytest.mark.parametrize("name", failing(early=False))
def test_the_hooks_of_the_environ_need_not_await_whatever_the_producer_is(
    name: str, options: dict[str, Any]
) -> None:
    said: list[Any] = []
    description = streamkit.stream(failing(early=False)[name]())

    def refused(told: Any) -> None:
        with pytest.raises(StreamError, match="may change the head, but not write"):
            told.write("no")
        said.append("refused")

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(refused)
        environ[KEY].on_error(lambda told, error: said.append(told.write("sorry")))
        environ[KEY].on_finish(lambda told: said.append(told.wait_finished(PATIENCE)))
        return description(environ, start_response)

    answer = answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi").through()
    assert answer.body == b"made sorry"
    assert said == ["refused", 5, True]


@pytest.mark.parametrize("has_write", [True, False])
@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_a_hook_of_the_commit_changes_the_head_of_an_application_that_uses_write(
    options: dict[str, Any], has_write: bool
) -> None:
    calls: list[bool] = []

    def hook(told: Any) -> None:
        with pytest.raises(StreamError, match="may change the head, but not write"):
            told.write("no")
        told.status = 203
        told.headers["X-Hook"] = told.headers["Content-Type"]
        calls.append(told.committed)

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(hook)
        return wsgi_write(environ, start_response)

    wrapped = streamkit.wrap(app, kind="wsgi", **options)

    def server(environ: Any, start_response: Any) -> Any:
        def start(*head: Any) -> None:
            start_response(*head)

        return wrapped(environ, start_response if has_write else start)

    with WsgiServer(server) as served:
        answer = served.request().finish()
    assert (answer.status, answer.header("X-Hook"), answer.body) == (203, "text/plain", b"made ")
    assert (calls, len(answer.starts)) == ([False], 1)


@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_the_app_wide_hook_of_the_end_hears_once_of_each_stream_and_never_of_the_rest(engine: str) -> None:
    outcomes: list[str] = []

    def plain(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"all"]

    failed = streamkit.stream(failing(early=True)["function"]())
    for app, expected in ((plain, []), (wsgi_iterable, ["finished"]), (failed, ["failed"])):
        outcomes.clear()
        options = {"engine": engine, "on_finish": lambda told: outcomes.append(told.outcome)}
        answer_of(streamkit.wrap(app, kind="wsgi", options=options), "wsgi").through()
        assert outcomes == expected


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_headers_that_were_asked_for_before_there_were_any_are_not_the_head(kind: str) -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        assert "Content-Type" not in scope[KEY].headers
        await asgi_messages(scope, receive, send)

    def wsgi(environ: Any, start_response: Any) -> Any:
        assert "Content-Type" not in environ[KEY].headers
        return wsgi_iterable(environ, start_response)

    answer = answer_of(streamkit.wrap(asgi if kind == "asgi" else wsgi, kind=kind), kind)
    assert answer.header("Content-Type") == "text/plain"


# ---------------------------------------------------------------- the twin that stands on the loop


def told_by(name: str, hook: Any, maker: Any = function, **request: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        getattr(scope[KEY], name)(hook)
        await streamkit.stream(maker)(scope, receive, send)

    return answer_of(streamkit.wrap(app, kind="asgi"), "asgi", **request)


def test_a_hook_on_the_loop_sees_the_last_bytes_of_a_stream_that_a_thread_makes() -> None:
    tails: list[bytes] = []

    def failing(stream: Any) -> None:
        stream.write("made up")
        raise Boom

    told_by("on_error", lambda told, error: tails.append(told.tail), failing)
    assert tails == [b"up"]


def test_a_hook_on_the_loop_asks_the_very_request_whether_it_is_stale() -> None:
    stale: list[Any] = []

    def hook(told: Any) -> None:
        stale.append(told.stale(etag="one"))
        with pytest.raises(StreamError, match="may change the head, but not write"):
            told.stale(etag="two")
        stale.append(told.status)

    told_by("on_commit", hook, sent=[("If-None-Match", '"two"')])
    assert stale == [True, 304]


def test_a_hook_on_the_loop_that_is_no_function_is_refused_when_it_is_given() -> None:
    refused: list[str] = []

    def hook(told: Any) -> None:
        for name in ("on_commit", "on_error", "on_finish"):
            with pytest.raises(OptionsError, match=f"{name}: wanted a function"):
                getattr(told, name)("no function")
            refused.append(name)

    told_by("on_commit", hook)
    assert refused == ["on_commit", "on_error", "on_finish"]


def test_a_thread_does_not_wait_for_a_hook_that_ends_with_its_loop() -> None:
    over: list[type] = []
    ended, begun = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        try:
            stream.write("never sent")
        except BaseException as error:
            over.append(type(error))
            raise
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def hook(told: Any) -> None:
            begun.set()
            await asyncio.sleep(3600)

        scope[KEY].on_commit(hook)
        await streamkit.stream(producer)(scope, receive, send)

    async def nobody(*_: Any) -> Any:
        await asyncio.sleep(3600)

    async def main() -> None:
        wrapped = streamkit.wrap(app, kind="asgi")
        requests.append(asyncio.ensure_future(wrapped(scope_of(), nobody, nobody)))
        assert await asyncio.to_thread(begun.wait, PATIENCE)

    requests: list[Any] = []
    asyncio.run(main())
    assert ended.wait(PATIENCE)
    assert over == [ClientDisconnected]


@pytest.mark.parametrize("begins", [False, True])
def test_a_thread_does_not_wait_for_a_hook_whose_loop_was_closed(begins: bool) -> None:
    loop = asyncio.new_event_loop()
    started = asyncio.Event()
    begun: list[Any] = []
    over: list[BaseException] = []

    async def hook(told: Any) -> None:
        begun.append(asyncio.current_task())
        started.set()
        await asyncio.sleep(3600)

    def call() -> None:
        try:
            on_loop(hook, loop)(ThreadStream(streamkit.Options(), HTTP11, WSGI_LOG))
        except Exception as error:
            over.append(error)

    thread = threading.Thread(target=call)
    if begins:
        thread.start()
        loop.run_until_complete(asyncio.wait_for(started.wait(), PATIENCE))
        for task in begun:
            task._log_destroy_pending = False  # it is left on purpose
    loop.close()
    if not begins:
        thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [type(error) for error in over] == [StreamError]


# ---------------------------------------------------------------- a server that says the client is gone


@pytest.mark.parametrize("own", [False, True])
def test_who_does_not_mind_a_leave_goes_on_where_the_server_raises(own: bool) -> None:
    left, written = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope[KEY]
        stream.ignore_disconnect = True

        async def body(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        write = stream.write if own else body
        if not own:
            start = {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain")],
            }
            await send(start)
        await write(b"first ")
        await write(b"second")
        assert await asyncio.to_thread(left.wait, PATIENCE)
        for _ in range(3):
            await write(b"dropped")
        written.set()
        if not own:
            await send({"type": "http.response.body"})

    with AsgiServer(streamkit.wrap(app, kind="asgi"), gone=OSError) as server:
        answer = server.request()
        assert answer.read() + answer.read() == b"first second"
        answer.leave()
        left.set()
        answer.through()
    assert written.is_set()
    assert answer.error is None


def half_made(stream: Any) -> None:
    stream.write("half")
    raise Boom


def test_awaited_hooks_of_the_application_run_on_its_loop_also_for_what_a_thread_makes() -> None:
    seen: list[Any] = []

    async def on_error(stream: Any, error: Exception) -> None:
        await stream.write(", no more")
        seen.append((type(error), asyncio.get_running_loop()))

    async def on_finish(stream: Any) -> None:
        seen.append((stream.outcome, stream.bytes_sent, asyncio.get_running_loop()))

    app = streamkit.wrap(
        streamkit.stream(half_made), {"on_error": on_error}, on_finish=on_finish, kind="asgi"
    )
    with AsgiServer(app) as server:
        answer = server.request().finish()
        assert (answer.body, answer.complete) == (b"half, no more", False)
        assert seen == [(Boom, server.loop), ("failed", 13, server.loop)]
