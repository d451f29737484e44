"""Responses that are no streams: wrapping changes nothing about them.

Rule: what reaches the server is compared by identity, not by its looks.
"""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from driving import PATIENCE, AsgiServer, WsgiAnswer, WsgiServer, environ_of, scope_of, until

import streamkit

PLAIN = ("Content-Type", "text/plain")
SIZED = ("Content-Length", "3")


class Sized:
    """An iterable of an application's own, that is all there."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"abc"])


def three_bytes() -> Iterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize(
    ("make", "headers"),
    [
        (lambda: [b"abc"], [PLAIN]),
        (lambda: [b"abc"], [PLAIN, SIZED]),
        (lambda: (b"a", b"bc"), [PLAIN]),
        (three_bytes, [PLAIN, SIZED]),
        (three_bytes, [SIZED, PLAIN]),
        (Sized, [PLAIN, SIZED]),
        (lambda: FileWrapper(io.BytesIO(b"abc")), [PLAIN]),
        (lambda: FileWrapper(io.BytesIO(b"abc")), [PLAIN, SIZED]),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "thread"])
def test_a_wsgi_server_gets_the_very_body_and_head_of_the_application(
    make: Callable[[], Any], headers: list[tuple[str, str]], engine: str
) -> None:
    """By its class a server knows a file that it may send in a way of its own (PEP 3333)."""
    body = make()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("203 Said So", headers)
        return body

    wrapped = streamkit.wrap(app, engine=engine)
    for _ in range(2):  # the second is told by the first
        body = make()
        answer = WsgiAnswer()
        started: list[Any] = []

        def start_response(*args: Any, answer: WsgiAnswer = answer, started: Any = started) -> Any:
            started.append(args)
            return answer.start_response(*args)

        returned = wrapped({**environ_of(), "wsgi.file_wrapper": FileWrapper}, start_response)
        assert returned is body
        assert [(args[0], args[1]) for args in started] == [("203 Said So", headers)]
        assert started[0][1] is headers


START = {"type": "http.response.start", "status": 203, "headers": [(b"content-type", b"text/plain")]}
SIZED_START = {**START, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"3")]}
BARE_START = {"type": "http.response.start", "status": 204, "headers": []}
WHOLE = {"type": "http.response.body", "body": b"abc"}
PARTS = [
    {"type": "http.response.body", "body": b"a", "more_body": True},
    {"type": "http.response.body", "body": b"bc", "more_body": False},
]
EMPTY = {"type": "http.response.body"}


@pytest.mark.parametrize(
    "messages",
    [[START, WHOLE], [SIZED_START, WHOLE], [SIZED_START, *PARTS], [BARE_START, EMPTY], [START, EMPTY]],
)
def test_an_asgi_server_gets_the_very_messages_of_the_application(messages: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with AsgiServer(streamkit.wrap(app)) as server:
        for _ in range(2):  # the second is told by the first
            answer = server.request().finish()
            assert answer.complete
            assert all(sent is given for (_, sent), given in zip(answer.messages, messages, strict=True))


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_commit_alone_sends_an_empty_chunk_with_the_head(
    interface: Any, asynchronous: bool, is_wrapped: bool
) -> None:
    """Some ASGI servers keep a start until a body comes, and most WSGI servers until a chunk does."""
    streams: list[Any] = []
    sent: list[bytes] = []
    arrived = threading.Event()

    def producer(stream: Any) -> None:
        stream.commit()
        streams.append(stream)

    async def async_producer(stream: Any) -> None:
        await stream.commit()
        streams.append(stream.sync)

    described = streamkit.stream(async_producer if asynchronous else producer, keep_open=True)
    app: Any = streamkit.wrap(described, kind=interface) if is_wrapped else described

    def noting(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        for chunk in app(environ, start_response):
            sent.append(chunk)
            arrived.set()
            yield chunk

    async def noting_too(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                assert message.get("more_body") or arrived.is_set()
                sent.append(message["body"])
                arrived.set()

        await app(scope, receive, note)

    with WsgiServer(noting) if interface == "wsgi" else AsgiServer(noting_too) as server:
        answer = server.request()
        assert arrived.wait(PATIENCE), "the head came without a chunk"
        assert (answer.status, sent) == (200, [b""])
        assert until(lambda: streams)
        streams[0].close()
        assert answer.finish().complete


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_an_ordinary_request_leaves_nothing_for_the_garbage_collector(interface: str, length: bool) -> None:
    streams: list[weakref.ref[Any]] = []

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        streams.append(weakref.ref(environ["streamkit.stream"]))
        sized = [("Content-Length", "2")] if length else []
        start_response("200 OK", [("Content-Type", "text/plain"), *sized])
        return [b"ok"]

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        streams.append(weakref.ref(scope["streamkit.stream"]))
        sized = [(b"content-length", b"2")] if length else []
        headers = [(b"content-type", b"text/plain"), *sized]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def silent(message: Any = None) -> Any:
        return None

    wsgi, asgi = streamkit.wrap(wsgi_app, kind="wsgi"), streamkit.wrap(asgi_app, kind="asgi")

    async def twice() -> None:
        for _ in range(2):  # a head that is not known yet, and one that is
            await asgi(scope_of(), silent, silent)

    gc.disable()
    try:
        if interface == "asgi":
            asyncio.run(twice())
        else:
            for _ in range(2):
                list(wsgi(environ_of(), lambda *answer: None))
        assert [stream() for stream in streams] == [None, None]
    finally:
        gc.enable()
