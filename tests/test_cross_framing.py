"""How streams are framed for HTTP/1.0, for HEAD and with a declared length: X6, X7, X9 and X16.

Rule: framing on the wire belongs to servers; here stands what a server is handed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer
from shapes import DESCRIBED, FUNCTIONS, SHAPES, Run, Serve, serving

import streamkit
from streamkit.errors import BodyTooLong, BodyTooShort, BufferLimitExceeded

LOUD = ("WARNING", "ERROR", "CRITICAL")


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def test_an_http10_client_gets_every_byte_and_their_number(served: Serve) -> None:
    """X6"""

    def program() -> Run:
        yield "Hello "
        yield "World!"

    answer = served(program, version="1.0").finish()
    assert (answer.body, answer.complete) == (b"Hello World!", True)
    assert answer.header("Content-Length") == "12"


def test_an_http10_client_that_closes_gets_a_stream(served: Serve) -> None:
    """X6: nginx before 1.29.7 speaks so to every upstream."""
    arrived = threading.Event()

    def program() -> Run:
        yield "first"
        assert arrived.wait(PATIENCE)
        yield "second"

    answer = served(program, version="1.0", sent=[("Connection", "close")])
    assert answer.read() == b"first"
    assert answer.header("Content-Length") is None
    arrived.set()
    assert answer.finish().body == b"firstsecond"


def test_a_late_error_before_an_http10_client_is_still_an_error_page(served: Serve) -> None:
    """X6: the whole body is held, so nothing was sent yet."""
    boom = RuntimeError("boom")

    def program() -> Run:
        yield "so far"
        raise boom

    answer = served(program, version="1.0").finish()
    assert answer.error is boom
    assert not answer.committed


def test_a_whole_body_over_the_limit_is_an_error_before_anything_is_sent(
    described: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """X6: it is the request's fault, and no producer's."""

    def program() -> Run:
        for _ in range(100):
            yield bytes(1000)

    answer = described(program, version="1.0", options={"http10_limit": 5000}).finish()
    if answer.committed:
        assert answer.status == 505
        assert bytes(1000) not in answer.body
    else:
        assert isinstance(answer.error, BufferLimitExceeded)
        assert answer.error.limit == 5000
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("asked", [{"keep_open": True}, {"loop": True}])
def test_an_endless_http10_stream_is_not_held_whole(functions: Serve, asked: dict[str, Any]) -> None:
    """X6"""
    arrived = threading.Event()

    def program(stream: Any) -> Run:
        yield "first"
        assert arrived.wait(PATIENCE)
        yield stream.close

    answer = functions(program, version="1.0", **asked)
    assert answer.read() == b"first"
    assert answer.header("Content-Length") is None
    arrived.set()
    assert answer.finish().complete


def test_http10_can_be_rejected(described: Serve) -> None:
    """X6: 505, and no producer runs."""
    begun: list[int] = []

    def program() -> Run:
        begun.append(1)
        yield "a"

    answer = described(program, version="1.0", options={"http10": "reject"}).finish()
    assert (answer.status, begun) == (505, [])


def test_head_is_answered_as_get_without_a_body(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """X7: nothing is logged as an error."""

    def program() -> Run:
        yield "Hello"

    asked = {"status": 201, "headers": {"X-Own": "1"}, "content_type": "text/html"}
    head = served(program, method="HEAD", **asked).finish()
    get = served(program, **asked).finish()
    assert (head.status, head.body, head.error) == (201, b"", None)
    assert dict(head.headers) == dict(get.headers)
    assert [record for record in caplog.records if record.levelname in LOUD] == []


@pytest.mark.parametrize("server", [WsgiServer, AsgiServer])
@pytest.mark.parametrize("request_of", [{"method": "HEAD"}, {"version": "1.0"}], ids=["HEAD", "refused"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_producer_that_is_called_is_not_closed_by_a_request_for_which_it_does_not_run(
    server: Any, request_of: dict[str, str], is_async: bool
) -> None:
    """Its description is served again."""

    class Report:
        is_open = True

        def __call__(self, stream: Any) -> None:
            stream.write(str(self.is_open))

        def close(self) -> None:
            self.is_open = False

    class AsyncReport(Report):
        async def __call__(self, stream: Any) -> None:  # type: ignore[override]
            await stream.write(str(self.is_open))

        async def aclose(self) -> None:
            self.is_open = False

    described = streamkit.stream(AsyncReport() if is_async else Report(), options={"http10": "reject"})
    with server(described) as serving_it:
        assert serving_it.request(**request_of).finish().status in (200, 505)
        assert serving_it.request().finish().body == b"True"


def test_a_body_shorter_than_declared_is_an_error_and_cut(described: Serve) -> None:
    """X9"""

    def program() -> Run:
        yield "abc"

    answer = described(program, content_length=5).finish()
    assert isinstance(answer.error, BodyTooShort)
    assert (answer.error.declared, answer.error.sent) == (5, 3)
    assert (answer.body, answer.complete) == (b"abc", False)


def test_a_body_longer_than_declared_is_refused_before_it_is_sent(described: Serve) -> None:
    """X9"""

    def program() -> Run:
        yield "abc"
        yield "def"

    answer = described(program, content_length=5).finish()
    assert isinstance(answer.error, BodyTooLong)
    assert (answer.error.declared, answer.error.sent) == (5, 6)
    assert (answer.body, answer.complete) == (b"abc", False)


def foreign_stream(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    head = [("Content-Type", "text/event-stream"), ("ETag", '"1"'), ("Content-Length", "9"), ("X-Own", "1")]
    start_response("200 OK", head)
    return iter([b"data: 1\n\n", b"data: 2\n\n"])


async def foreign_asgi_stream(scope: Any, receive: Any, send: Any) -> None:
    head = [(b"content-type", b"text/event-stream"), (b"etag", b'"1"'), (b"content-length", b"9")]
    await send({"type": "http.response.start", "status": 200, "headers": [*head, (b"x-own", b"1")]})
    for chunk in (b"data: 1\n\n", b"data: 2\n\n"):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_only_whole_bodies_have_is_taken_off_a_foreign_stream(interface: str) -> None:
    """X16"""
    wsgi = interface == "wsgi"
    app = streamkit.wrap(foreign_stream if wsgi else foreign_asgi_stream)
    with WsgiServer(app) if wsgi else AsgiServer(app) as server:
        answer = server.request().finish()
    assert (answer.body, answer.complete) == (b"data: 1\n\ndata: 2\n\n", True)
    names = ("ETag", "Content-Length", "X-Own", "X-Accel-Buffering", "Cache-Control")
    assert [answer.header(name) for name in names] == [None, None, "1", "no", "no-store, no-transform"]
