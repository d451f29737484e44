"""Heads of other code's streams that say a thing twice, or say what is the server's to say."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer, environ_of

import streamkit
from streamkit.core.framing import Body
from streamkit.core.headers import finished
from streamkit.core.marking import MARK
from streamkit.options import Options
from streamkit.syntax import HOP_BY_HOP

KEY = "streamkit.stream"
Pairs = list[tuple[str, str]]
PLAIN, EVENTS = ("Content-Type", "text/plain"), ("Content-Type", "text/event-stream")
LENGTH = ("Content-Length", "4")
VALUES = {"transfer-encoding": "chunked", "connection": "close", "te": "trailers"}


def parts() -> Iterator[bytes]:
    yield b"da"
    yield b"ta"


class Heads:
    """Serves one head after the other through one wrap, each with the same body."""

    def __init__(self, kind: str, shape: str, hook: Any = None) -> None:
        self.kind, self.shape, self.hook = kind, shape, hook
        app = self.asgi if kind == "asgi" else self.wsgi
        self.wrapped = streamkit.wrap(app, kind=kind)

    def __call__(self, head: Pairs, status: str = "200 OK", **request: Any) -> Answer:
        self.head, self.status = head, status
        server: Any = AsgiServer(self.wrapped) if self.kind == "asgi" else WsgiServer(self.wrapped)
        with server:
            return server.request(**request).finish()  # type: ignore[no-any-return]

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        if self.hook is not None:
            environ[KEY].on_commit(self.hook)
        if self.shape == "late":
            return self.late(start_response)
        write = start_response(self.status, list(self.head))
        if self.shape == "write":
            write(b"data")
            return []
        return [b"data"] if self.shape == "list" else parts()

    def late(self, start_response: Any) -> Iterator[bytes]:
        start_response(self.status, list(self.head))
        yield from parts()

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if self.hook is not None:
            scope[KEY].on_commit(self.hook)
        headers = [(name.lower().encode(), value.encode()) for name, value in self.head]
        await send({"type": "http.response.start", "status": int(self.status[:3]), "headers": headers})
        if self.shape == "list":
            await send({"type": "http.response.body", "body": b"data"})
            return
        for part in parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


def is_cared_for(answer: Answer) -> bool:
    return bool(answer.values("X-Accel-Buffering"))


SHAPES = [("wsgi", "list"), ("wsgi", "iterable"), ("wsgi", "late"), ("wsgi", "write"),
          ("asgi", "list"), ("asgi", "messages")]  # fmt: skip
STREAMS = [case for case in SHAPES if case[1] != "list"]

BEFORE: list[list[Pairs]] = [
    [],
    [[PLAIN, LENGTH]],
    [[("X-A", "1"), PLAIN, LENGTH]],
    [[LENGTH, PLAIN]],
    [[LENGTH, ("X-A", "1"), PLAIN]],
    [[EVENTS]],
]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@pytest.mark.parametrize("length", ["first", "last"])
def test_of_two_content_types_the_first_says_what_the_response_is_whatever_came_before(
    kind: str, shape: str, before: list[Pairs], length: str
) -> None:
    for types in ([PLAIN, EVENTS], [EVENTS, PLAIN]):
        serve = Heads(kind, shape)
        for head in before:
            serve(head)
        answer = serve([*types, LENGTH] if length == "last" else [LENGTH, *types])
        assert is_cared_for(answer) == (types[0] is EVENTS)
        assert (answer.values("Content-Type"), answer.body) == ([value for _, value in types], b"data")


@pytest.mark.parametrize("names", [("Content-Type", "content-type"), ("content-type", "Content-Type")])
@pytest.mark.parametrize("types", [("text/plain", "text/event-stream"), ("text/event-stream", "text/plain")])
def test_of_two_content_types_the_first_counts_however_their_names_are_written(
    names: tuple[str, str], types: tuple[str, str]
) -> None:
    pairs = [*zip(names, types, strict=True), LENGTH]

    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", pairs)
        return parts()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.encode(), value.encode()) for name, value in pairs]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data"})

    sent: list[Any] = []

    async def note(message: Any) -> None:
        sent.append(message)

    async def lower(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.wrap(asgi, kind="asgi")(scope, receive, note)
        for message in sent:
            if "headers" in message:
                message = {**message, "headers": [(n.lower(), v) for n, v in message["headers"]]}
            await send(message)

    with WsgiServer(streamkit.wrap(wsgi, kind="wsgi")) as one, AsgiServer(lower) as other:
        cared_for = [is_cared_for(one.request().finish()), is_cared_for(other.request().finish())]
    assert cared_for == [types[0] == "text/event-stream"] * 2


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("plain", [[PLAIN, LENGTH], [LENGTH, PLAIN]])
@pytest.mark.parametrize("extra", [("Content-Encoding", MARK), EVENTS])
def test_a_third_field_of_a_head_that_is_else_like_the_last_is_seen_wherever_it_stands(
    plain: Pairs, at: int, extra: tuple[str, str]
) -> None:
    serve = Heads("asgi", "list")

    async def described(scope: Any, receive: Any, send: Any) -> None:
        await streamkit.stream(["a"])(scope, receive, send)

    with AsgiServer(streamkit.wrap(described, kind="asgi")) as server:
        server.request().finish()  # from now on there are marks in this process
    serve(plain)
    head = [*plain[:at], extra, *plain[at:]]
    answer = serve(head)
    types = [pair for pair in head if pair in (PLAIN, EVENTS)]
    assert is_cared_for(answer) == (types[0] == EVENTS)
    assert (answer.values("Content-Encoding"), answer.body) == ([], b"data")


# ---------------------------------------------------------------- hop-by-hop fields


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize(("kind", "shape"), STREAMS)
def test_a_hop_by_hop_field_of_a_stream_does_not_reach_the_server(
    kind: str, shape: str, name: str, method: str
) -> None:
    answer = Heads(kind, shape)(
        [PLAIN, (name.title(), VALUES.get(name, "x")), ("X-Own", "kept")], method=method
    )
    assert answer.values(name) == []
    assert (answer.header("X-Own"), is_cared_for(answer)) == ("kept", True)
    if shape != "write":  # whose body goes to the server as it is
        assert answer.body == (b"data" if method == "GET" else b"")


@pytest.mark.parametrize("hook", [False, True])
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_a_hop_by_hop_field_of_an_ordinary_response_is_left_to_the_server(
    kind: str, shape: str, name: str, hook: bool
) -> None:
    head = [PLAIN, (name.title(), VALUES.get(name, "x")), LENGTH]
    answer = Heads(kind, shape, (lambda told: None) if hook else None)(head)
    written = head if kind == "wsgi" else [(n.lower(), value) for n, value in head]
    assert (answer.headers, answer.body) == (written, b"data")


@pytest.mark.parametrize(("kind", "shape"), STREAMS)
def test_a_hook_of_the_commit_may_ask_for_the_headers_of_a_stream_with_hop_by_hop_fields(
    kind: str, shape: str
) -> None:
    seen: list[Any] = []

    def hook(told: Any) -> None:
        told.headers["X-Hook"] = "ran"
        seen.append(told.headers.get("Connection"))

    answer = Heads(kind, shape, hook)([PLAIN, ("Connection", "keep-alive")])
    assert (answer.error, answer.status, answer.header("X-Hook")) == (None, 200, "ran")
    assert (answer.values("Connection"), seen) == ([], [None])


def test_an_answer_that_switches_protocols_says_to_which() -> None:
    head = [("Connection", "upgrade"), ("Upgrade", "websocket")]
    assert finished(head, Options(), 101, Body.NONE, foreign=True, default_type=None) == head


@pytest.mark.parametrize("status", ["204 None", "304 Same"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_an_answer_without_a_body_loses_its_hop_by_hop_fields_likewise(kind: str, status: str) -> None:
    answer = Heads(kind, "iterable" if kind == "wsgi" else "messages")([("Connection", "close")], status)
    assert (answer.status, answer.values("Connection")) == (int(status[:3]), [])


@pytest.mark.parametrize("status", ["204 Nothing To Say", "304 Not Changed"])
def test_an_answer_without_a_body_is_else_left_as_it_is(status: str) -> None:
    given = [("Content-Type", "text/html"), ("ETag", '"1"'), ("Cache-Control", "max-age=5")]
    said: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, given)
        return iter(())

    body = streamkit.wrap(app, kind="wsgi")(environ_of(), lambda *head: said.append(head))
    assert (b"".join(body), said[0][:2]) == (b"", (status, given))
    getattr(body, "close", lambda: None)()


@pytest.mark.parametrize(("kind", "shape"), STREAMS)
def test_a_stream_with_a_date_of_its_last_change_may_be_kept_and_asked_for_again(
    kind: str, shape: str
) -> None:
    """As a file that a layer compresses on its way."""
    dated = ("Last-Modified", "Sat, 29 Oct 1994 19:43:31 GMT")
    answer = Heads(kind, shape)([PLAIN, dated])
    assert answer.header("Cache-Control") == "private, no-cache, no-transform"
    assert answer.header("Last-Modified") == dated[1]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Not to the test's output."""


def test_a_stream_with_a_transfer_encoding_is_served_by_a_server_that_forbids_it() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN, ("Transfer-Encoding", "chunked")])
        return parts()

    with make_server("127.0.0.1", 0, streamkit.wrap(app, kind="wsgi"), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{server.server_port}/", timeout=PATIENCE
            ) as response:
                assert (response.status, response.read()) == (200, b"data")
        finally:
            thread.join(PATIENCE)
