"""What a WSGI application may do by PEP 3333 and seldom does, and servers that refuse a head."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from driving import environ_of

import streamkit
from streamkit.engines.clock import thread_clock

KEY = "streamkit.stream"
SIZED = [("Content-Type", "text/plain"), ("Content-Length", "4")]


class Server:
    """A server as PEP 3333 sketches one."""

    def __init__(self, app: Any, method: str = "GET", **options: Any) -> None:
        self.outcomes: list[Any] = []
        self.starts: list[Any] = []
        self.sent: list[bytes] = []
        self.raised: BaseException | None = None
        on_finish = lambda stream: self.outcomes.append(stream.outcome)  # noqa: E731
        wrapped = streamkit.wrap(app, options, on_finish=on_finish, kind="wsgi")
        try:
            body = wrapped(environ_of(method), self.start_response)
            try:
                for chunk in body:
                    self.sent.append(chunk)
            finally:
                getattr(body, "close", lambda: None)()
        except Exception as error:
            self.raised = error

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info is not None and any(self.sent):
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not self.starts, "called twice"
        assert ("X-Refused", "1") not in headers, "refused"
        self.starts.append(status)
        return self.sent.append


@pytest.mark.parametrize("sent", [False, True])
def test_an_error_of_an_iterable_that_went_on_as_it_was_reaches_the_server(sent: bool) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", SIZED)
        return body(start_response)

    def body(start_response: Any) -> Iterator[bytes]:
        if sent:
            yield b"da"
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oh", SIZED, sys.exc_info())
        yield b"oops"

    server = Server(app)
    if sent:
        assert (str(server.raised), server.starts, server.sent) == ("late", ["200 OK"], [b"da"])
    else:
        assert (server.raised, server.starts, server.sent) == (None, ["200 OK", "500 Oh"], [b"oops"])


class Indexed:
    """The wrapper that PEP 3333 gives as its example has indexes, and no `__iter__`."""

    def __init__(self) -> None:
        self.parts, self.closed = [b"da", b"ta"], 0

    def __getitem__(self, key: int) -> bytes:
        return self.parts[key]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("head", [SIZED, SIZED[:1]], ids=["sized", "stream"])
def test_a_body_that_is_gone_through_by_indexes_is_sent(head: Any) -> None:
    body = Indexed()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", head)
        return body

    server = Server(app)
    assert (server.raised, server.sent, body.closed) == (None, [b"da", b"ta"], 1)


class Body:
    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"data"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("fault", ["hook", "abort", "server"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content")])
def test_a_stream_without_a_body_ends_as_any_other_where_its_head_cannot_be_sent(
    method: str, status: str, fault: str
) -> None:
    body, told = Body(), []

    def failing(stream: Any) -> None:
        if fault == "abort":
            stream.abort("no")
        elif fault == "hook":
            raise ValueError

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(failing)
        environ[KEY].on_finish(lambda stream: told.append(stream.outcome))
        start_response(status, [("X-Refused", "1")] if fault == "server" else [("X-Own", "1")])
        return body

    server = Server(app, method)
    expected = {"hook": ValueError, "abort": streamkit.StreamAborted, "server": AssertionError}[fault]
    assert (type(server.raised), str(server.raised) != "") == (expected, fault != "hook")
    assert (body.closed, told) == (1, ["aborted" if fault == "abort" else "failed"])


def test_the_reason_phrase_of_a_stream_is_the_same_for_head() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 Fine", [("Content-Type", "text/plain")])
        return iter([b"data"])

    assert [Server(app, method).starts for method in ("GET", "HEAD")] == [["200 Fine"], ["200 Fine"]]


def test_an_iterable_that_writes_to_the_stream_of_the_environ_is_refused_and_takes_no_room() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        environ[KEY].write("mine")
        yield b"theirs"

    for _ in range(3):
        server = Server(app, max_streams=1)
        assert isinstance(server.raised, streamkit.StreamClosed)
        assert (server.starts, server.outcomes) == ([], ["failed"])
    assert not thread_clock.streams


def test_a_foreign_stream_that_is_aborted_by_the_environ_is_not_taken_for_whole() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        environ[KEY].abort("no")
        yield b"two"

    server = Server(app)
    assert isinstance(server.raised, streamkit.StreamAborted)
    assert server.outcomes == ["aborted"]


def test_the_application_wide_hook_hears_once_of_a_description_whose_application_fails_after_it() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = streamkit.stream(iter(["data"]))(environ, start_response)
        raise ValueError(body)

    server = Server(app)
    assert isinstance(server.raised, ValueError)
    server.raised = None  # it holds the body
    gc.collect()
    assert server.outcomes == ["disconnected"]


def test_a_head_of_a_body_that_is_compressed_cannot_be_replaced_by_one_that_does_not_say_so() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["HTTP_ACCEPT_ENCODING"] = "gzip"
        write = start_response("200 OK", SIZED[:1])
        write(b"")  # nothing is on its way yet: this server would take another head
        return rest(start_response)

    def rest(start_response: Any) -> Iterator[bytes]:
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oh", SIZED[:1], sys.exc_info())
        yield b"a page about the error"

    server = Server(app, compress=True)
    assert (str(server.raised), server.starts) == ("late", ["200 OK"])
