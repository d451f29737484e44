"""Streams that other code made get the same care on their way through `wrap`: X4-X7, X16-X18.

Rule: the apps here know nothing of streamkit; a framework's own streams look like one of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer, scope_of, until

import streamkit
from streamkit.errors import ClientDisconnected, StreamEnded

LOUD = ("WARNING", "ERROR", "CRITICAL")
Parts = Callable[[], Iterator[bytes]]


class Body:
    """What a WSGI framework returns: an iterable with a `close()` of its own."""

    def __init__(self, parts: Iterator[bytes], closed: list[str]) -> None:
        self.parts, self.closed = parts, closed

    def __iter__(self) -> Iterator[bytes]:
        return self.parts

    def close(self) -> None:
        self.closed.append("closed")


class Foreign:
    """Serves an app of another framework, wrapped once or twice, under one interface."""

    def __init__(self, interface: str, wraps: int, servers: ExitStack) -> None:
        self.interface, self.wraps, self.servers = interface, wraps, servers
        self.closed: list[str] = []

    def __call__(self, parts: Parts, status: int = 200, content_type: str = "text/plain",
                 options: Any = None, **request: Any) -> Answer:  # fmt: skip
        make = self.wsgi if self.interface == "wsgi" else self.asgi
        app = streamkit.wrap(make(parts, status, content_type), options)
        for _ in range(self.wraps - 1):
            app = streamkit.wrap(app)
        server: Any = WsgiServer(app) if self.interface == "wsgi" else AsgiServer(app)
        return self.servers.enter_context(server).request(**request)  # type: ignore[no-any-return]

    def wsgi(self, parts: Parts, status: int, content_type: str) -> Any:
        def app(environ: dict[str, Any], start_response: Any) -> Body:
            head = [("ETag", '"1"')]
            if status not in (204, 304):
                head.append(("Content-Type", content_type))
            start_response(f"{status} Whatever", head)
            return Body(parts(), self.closed)

        return app

    def asgi(self, parts: Parts, status: int, content_type: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            head = [(b"etag", b'"1"')]
            if status not in (204, 304):
                head.append((b"content-type", content_type.encode()))
            await send({"type": "http.response.start", "status": status, "headers": head})
            try:
                made = parts()
                while (part := await asyncio.to_thread(next, made, None)) is not None:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body"})
            finally:
                self.closed.append("closed")

        return app


@pytest.fixture(
    params=[("wsgi", 1), ("wsgi", 2), ("asgi", 1), ("asgi", 2)], ids=lambda way: f"{way[0]}-{way[1]}"
)
def foreign(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    with ExitStack() as servers:
        yield Foreign(*request.param, servers)


def two_parts() -> Iterator[bytes]:
    yield b"one "
    yield b"two"


def test_a_foreign_stream_gets_the_headers_of_a_stream_and_loses_those_of_a_whole_body(
    foreign: Foreign,
) -> None:
    """X16"""
    answer = foreign(two_parts, status=201).finish()
    assert (answer.status, answer.chunks, answer.complete) == (201, [b"one ", b"two"], True)
    assert (answer.header("ETag"), answer.header("Content-Length")) == (None, None)
    assert answer.header("X-Accel-Buffering") == "no"
    assert answer.header("Cache-Control") == "no-store, no-transform"
    assert foreign.closed == ["closed"]


def test_a_foreign_chunk_arrives_before_the_next_is_made(foreign: Foreign) -> None:
    """X12"""
    arrived = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"one"
        assert arrived.wait(PATIENCE)
        yield b"two"

    answer = foreign(parts)
    assert answer.read() == b"one"
    arrived.set()
    assert answer.finish().complete


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/x-ndjson"])
def test_a_foreign_stream_that_fails_is_completed_and_cut(foreign: Foreign, content_type: str) -> None:
    """X4, X5, X17"""
    boom, heard = RuntimeError("a secret"), []

    def parts() -> Iterator[bytes]:
        yield b"so far\n"
        raise boom

    def note(stream: Any, error: BaseException) -> None:
        heard.append(error)

    answer = foreign(parts, content_type=content_type, options={"on_error": note}).finish()
    assert answer.error is boom
    assert (answer.complete, len(answer.starts)) == (False, 1)
    assert answer.body.startswith(b"so far\n")
    assert b"secret" not in answer.body
    ending = answer.body.removeprefix(b"so far\n")
    wanted = {"text/html": b"/500.html", "application/x-ndjson": b'"error"', "text/plain": b""}[content_type]
    assert wanted in ending
    assert bool(ending) == bool(wanted)
    assert ending.count(b'"error"') == (content_type == "application/x-ndjson"), "by one wrap only"
    assert ending.count(b"<noscript") == (content_type == "text/html"), "by one wrap only"
    assert heard == [boom]
    assert foreign.closed == ["closed"]


def test_a_foreign_stream_that_fails_may_be_ended_cleanly(
    foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    """X4: then the log has the error, once."""
    boom = RuntimeError("boom")

    def parts() -> Iterator[bytes]:
        yield b"so far"
        raise boom

    options = {"on_failure": "finish", "completion": {"text/plain": " (cut short)"}}
    answer = foreign(parts, options=options).finish()
    assert (answer.body, answer.complete, answer.error) == (b"so far (cut short)", True, None)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [boom]


def test_a_foreign_stream_that_fails_before_its_first_chunk_sends_nothing(foreign: Foreign) -> None:
    """X5: the server makes a real 500 of it."""
    boom = RuntimeError("boom")

    def parts() -> Iterator[bytes]:
        raise boom
        yield b"never"

    answer = foreign(parts).finish()
    assert answer.error is boom
    assert not answer.committed


def test_a_foreign_stream_is_whole_for_an_http10_client(foreign: Foreign) -> None:
    """X6"""
    answer = foreign(two_parts, version="1.0").finish()
    assert (answer.body, answer.complete, answer.header("Content-Length")) == (b"one two", True, "7")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 205)])
def test_a_foreign_stream_has_no_body_where_there_is_none(
    foreign: Foreign, method: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """X7, X8: and its own `close()` is called."""
    answer = foreign(two_parts, status=status, method=method).finish()
    assert (answer.status, answer.body, answer.error) == (status, b"", None)
    assert until(lambda: foreign.closed)
    assert foreign.closed == ["closed"]
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def test_a_leave_closes_a_foreign_stream_and_is_no_error(
    foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    """X11, X17"""
    heard: list[type] = []
    outcomes: list[object] = []

    def parts() -> Iterator[bytes]:
        for _ in range(100_000):
            yield b"x" * 1000

    options = {
        "on_error": lambda stream, error: heard.append(type(error)),
        "on_finish": lambda stream: outcomes.append(stream.outcome),
    }
    answer = foreign(parts, options=options, window=0)
    assert answer.read()
    answer.leave()
    answer.through()
    assert until(lambda: outcomes)
    assert (heard, outcomes, foreign.closed) == ([ClientDisconnected], ["disconnected"], ["closed"])
    assert len(answer.chunks) < 100
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def test_an_empty_foreign_chunk_is_no_end(foreign: Foreign) -> None:
    """X18"""

    def parts() -> Iterator[bytes]:
        yield b""
        yield b"a"
        yield b""
        yield b"b"

    answer = foreign(parts).finish()
    assert (answer.body, answer.complete) == (b"ab", True)


@pytest.mark.parametrize("wraps", [1, 2])
def test_an_asgi_app_that_names_its_headers_in_capitals_is_passed_on_as_it_is(wraps: int) -> None:
    """Django does so, and sends a file in several messages."""
    headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"6"), (b"ETag", b'"1"')]
    messages = [
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two"},
    ]
    assert relayed(messages, wraps) == messages


@pytest.mark.parametrize("wraps", [1, 2])
def test_a_file_that_the_server_is_to_send_is_passed_on_after_its_head(wraps: int) -> None:
    messages = [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
        {"type": "http.response.pathsend", "path": "/etc/hostname"},
    ]
    assert relayed(messages, wraps) == messages


def relayed(messages: list[Any], wraps: int) -> list[Any]:
    """What a server gets of an app's messages."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def serve() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        wrapped: Any = app
        for _ in range(wraps):
            wrapped = streamkit.wrap(wrapped, kind="asgi", compress=True)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": "1.1"}
        await wrapped(scope, asyncio.Future, send)

    asyncio.run(serve())
    return sent


def test_an_asgi_event_stream_is_one_whatever_the_letters_of_its_headers_names() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Content-Type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (await receive())["type"] != "http.disconnect":
            pass

    with AsgiServer(streamkit.wrap(app, kind="asgi", commit_after=0.05)) as server:
        answer = server.request()
        assert until(lambda: answer.starts)  # though the app has sent no chunk
        assert answer.header("X-Accel-Buffering") == "no"
        answer.leave()


def test_a_foreign_stream_that_was_ended_while_a_chunk_was_on_its_way_takes_no_further_one() -> None:
    sent: list[Any] = []
    refused: list[BaseException] = []

    async def run() -> None:
        told = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                told.set()

            listening = asyncio.create_task(listen())
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            try:
                await send({"type": "http.response.body", "body": b"b", "more_body": True})
            except StreamEnded as error:
                refused.append(error)
            await listening

        async def receive() -> Any:
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message.get("body"))
            if message.get("body") == b"a":
                await asyncio.wait_for(told.wait(), PATIENCE)

        wrapped = streamkit.wrap(app, kind="asgi", max_duration=0.05)
        with pytest.raises(StreamEnded):
            await asyncio.wait_for(wrapped(scope_of(), receive, send), PATIENCE)

    asyncio.run(run())
    assert len(refused) == 1
    assert b"b" not in sent


def test_text_in_another_frameworks_stream_is_refused_also_after_text_of_ours() -> None:
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[Any]:
        environ["streamkit.stream"].on_commit(kept.append)
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])

        def chunks() -> Iterator[Any]:
            yield b"a"
            kept[0].write("text of ours")
            yield b"b"
            yield "text of theirs"

        return chunks()

    with WsgiServer(streamkit.wrap(app), validated=False) as serving:
        answer = serving.request().finish()
    assert isinstance(answer.error, streamkit.ProtocolViolation)
    assert (answer.body, answer.complete) == (b"atext of oursb", False)


def test_an_application_that_has_read_its_request_is_told_of_the_end_by_its_next_message_alone() -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
                await asyncio.sleep(0.01)
        except BaseException as error:
            raised.append(error)
            raise

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answer = server.request()
        assert answer.read()
        assert streamkit.shutdown(grace=PATIENCE)
        assert answer.finish().complete
    assert [type(error) for error in raised] == [StreamEnded]
