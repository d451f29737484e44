"""Applications that break their interface, or the process: each is told which rule, and nobody else waits.

Rule: half a body never looks whole, and what was said before a breach is not lost.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer, until
from shapes import WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.errors import HeaderError, OptionsError, ProtocolViolation, StreamAborted, StreamKitError


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def served(app: Callable[..., Any], **asked: Any) -> Answer:
    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        return server.request(**asked).finish()


# -- an ASGI stream without its end


def half_of(content_type: bytes, turns: int = 1) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(turns):
            await send({"type": "http.response.body", "body": b"half\n", "more_body": True})

    return app


@pytest.mark.parametrize("content_type", [b"text/plain", b"text/csv", b"text/html"])
def test_an_asgi_app_that_returns_in_mid_stream_does_not_make_half_a_body_whole(content_type: bytes) -> None:
    answer = served(half_of(content_type))
    assert isinstance(answer.error, ProtocolViolation)
    assert "http.response.body" in str(answer.error)
    assert answer.body.startswith(b"half\n")
    assert not answer.complete


def test_an_asgi_app_that_returns_in_mid_stream_is_an_error_for_an_http10_client() -> None:
    """The body is held, so that nothing was sent yet."""
    answer = served(half_of(b"text/plain"), version="1.0")
    assert isinstance(answer.error, ProtocolViolation)
    assert not answer.committed


def test_an_event_stream_that_returns_in_mid_stream_says_so() -> None:
    answer = served(half_of(b"text/event-stream"))
    assert answer.body.startswith(b"half\n")
    assert b"event: error" in answer.body
    assert answer.complete


def test_an_asgi_app_may_return_in_mid_stream_when_its_client_has_left() -> None:
    returned = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        returned.set()

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request()
        assert answer.read() == b"x"
        answer.leave()
        assert returned.wait(PATIENCE)
        assert answer.through().error is None


# -- messages that are none

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
PART = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body"}


def sending(*messages: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize("end", [[PART, END], [{"type": "http.response.body", "body": b"x"}]])
def test_headers_that_can_be_gone_through_only_once_are_all_sent(end: list[Any]) -> None:
    """ASGI wants an iterable of them, and a generator is one."""
    headers = (pair for pair in [(b"content-type", b"text/plain"), (b"x-own", b"1")])
    answer = served(sending({**START, "headers": headers}, *end))
    assert (answer.header("Content-Type"), answer.header("X-Own")) == ("text/plain", "1")
    assert (answer.body, answer.complete) == (b"x", True)


@pytest.mark.parametrize("message", [None, 5, "http.response.start", {}, {"status": 200}])
def test_a_message_is_a_dict_with_its_type(message: Any) -> None:
    answer = served(sending(message))
    assert isinstance(answer.error, ProtocolViolation)
    assert repr(message) in str(answer.error)


BAD_HEADERS: list[Any] = [
    None, 5, [("content-type", "text/plain")], [(b"content-type", 5)], {b"content-type": b"text/plain"},
    [(b"a", b"b", b"c")], [("content-type", "text/event-stream")],
]  # fmt: skip


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
def test_the_headers_of_a_stream_are_pairs_of_byte_strings(headers: Any) -> None:
    answer = served(sending({**START, "headers": headers}, PART, END))
    assert isinstance(answer.error, ProtocolViolation)
    assert "byte strings" in str(answer.error)
    assert not answer.committed


@pytest.mark.parametrize("status", [None, "200", 99, 1000, True])
def test_the_status_of_a_stream_is_a_number(status: Any) -> None:
    answer = served(sending({**START, "status": status}, PART, END))
    assert isinstance(answer.error, HeaderError)
    assert repr(status) in str(answer.error)
    assert not answer.committed


@pytest.mark.parametrize("body", ["text", None, 5, ["x"]])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_body_of_a_stream_is_made_of_byte_strings(body: Any, version: str) -> None:
    answer = served(sending(START, {**PART, "body": body}, END), version=version)
    assert isinstance(answer.error, ProtocolViolation)
    assert repr(body) in str(answer.error)
    assert not answer.complete


# -- applications that cannot be awaited


def returns_none(scope: Any, receive: Any, send: Any) -> None: ...


def returns_a_list(scope: Any, receive: Any, send: Any) -> list[bytes]:
    return [b"x"]


async def yields(scope: Any, receive: Any, send: Any) -> Any:
    yield b"x"


@pytest.mark.parametrize("app", [returns_none, returns_a_list, yields])
def test_an_asgi_app_that_cannot_be_awaited_is_named(app: Any) -> None:
    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        for _ in range(2):  # the first request takes a way of its own
            answer = server.request().finish()
            assert isinstance(answer.error, ProtocolViolation)
            assert app.__name__ in str(answer.error)
            assert not answer.committed


def test_a_type_error_of_the_app_itself_stays_what_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TypeError("its own")

    with AsgiServer(streamkit.wrap(app)) as server:
        for _ in range(2):
            answer = server.request().finish()
            assert type(answer.error) is TypeError
            assert str(answer.error) == "its own"


# -- WSGI heads


@pytest.mark.parametrize("status", ["abc", "", "20", 200, b"200 OK", "2000 OK"])
@pytest.mark.parametrize("late", [False, True])
def test_the_status_of_a_wsgi_stream_is_a_code_and_a_reason(status: Any, late: bool) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [("Content-Type", "text/plain")])
        return iter([b"x"])

    def late_app(environ: dict[str, Any], start_response: Any) -> Any:
        yield from app(environ, start_response)

    with WsgiServer(streamkit.wrap(late_app if late else app), validated=False) as server:
        answer = server.request().finish()
    assert isinstance(answer.error, ProtocolViolation)
    assert repr(status) in str(answer.error)
    assert not answer.committed


# -- hooks


def test_an_abort_in_a_hook_of_the_commit_is_what_the_server_hears_of(pushed: Serve) -> None:
    def program(stream: Any) -> Run:
        stream.on_commit(lambda stream: stream.abort("changed my mind"))
        yield "x"

    answer = pushed(program).finish()
    assert isinstance(answer.error, StreamAborted)
    assert "changed my mind" in str(answer.error)
    assert not answer.committed


@pytest.mark.parametrize("hook", [5, None, "hook"])
def test_the_twin_of_a_stream_refuses_a_hook_that_cannot_be_called(hook: Any) -> None:
    refused: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        twin = scope["streamkit.stream"].sync
        for name in ("on_commit", "on_error", "on_finish"):
            with pytest.raises(OptionsError, match=f"{name}: wanted a function"):
                getattr(twin, name)(hook)
            refused.append(name)
        await asyncio.to_thread(twin.write, "x")

    answer = served(app)
    assert (answer.body, answer.complete, answer.error) == (b"x", True, None)
    assert len(refused) == 3


COOKIES: list[tuple[Any, Any, dict[str, Any]]] = [
    (None, "1", {}), (5, "1", {}), ("", "1", {}), ("a b", "1", {}), ("a;b", "1", {}), ("a\r\nb", "1", {}),
    ("a", None, {}), ("a", 5, {}), ("a", b"1", {}), ("a", "1", {"max_age": "soon"}),
    ("a", "1", {"samesite": "sometimes"}), ("a", "1", {"expires": object()}), ("a", "1", {"path": 5}),
    ("a", "1", {"domain": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "attributes"), COOKIES)
def test_a_cookie_that_may_not_be_sent_is_refused_and_leaves_the_stream_as_it_was(
    key: Any, value: Any, attributes: dict[str, Any]
) -> None:
    def producer(stream: Any) -> None:
        with pytest.raises(HeaderError):
            stream.set_cookie(key, value, **attributes)
        stream.write("x")

    with WsgiServer(streamkit.stream(producer)) as server:
        answer = server.request().finish()
    assert (answer.body, answer.error, answer.values("Set-Cookie")) == (b"x", None, [])


# -- the shared loop


@pytest.mark.parametrize("moment", ["on_error", "on_finish", "on_commit"])
@pytest.mark.parametrize("wish", [SystemExit, KeyboardInterrupt])
def test_a_hook_that_wants_the_process_to_exit_takes_no_other_stream_along(moment: str, wish: Any) -> None:
    """Asynchronous producers under WSGI share one loop, and asyncio lets such an error end it."""
    left = threading.Event()

    async def steady(stream: Any) -> None:
        await stream.write("a")
        await asyncio.to_thread(left.wait, PATIENCE)
        await stream.write("b")

    async def failing(stream: Any) -> None:
        def hook(stream: Any, *error: BaseException) -> None:
            raise wish

        getattr(stream, moment)(hook)
        await stream.write("a")
        raise ValueError("boom")

    with WsgiServer(streamkit.stream(steady)) as server, WsgiServer(streamkit.stream(failing)) as other:
        answer = server.request()
        assert answer.read() == b"a"
        failed = other.request().finish()
        left.set()
        answer.finish()
    assert not failed.complete
    assert (answer.body, answer.complete, answer.error) == (b"ab", True, None)
    assert isinstance(failed.error, (StreamKitError, ValueError, wish))


@pytest.mark.parametrize("wish", [SystemExit, KeyboardInterrupt])
def test_a_wish_to_exit_is_logged_once_and_when_it_is_raised(
    wish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by asyncio too, whenever the task is collected, which may be amid another request."""

    async def failing(stream: Any) -> None:
        def hook(stream: Any, error: BaseException) -> None:
            raise wish

        stream.on_error(hook)
        await stream.write("a")
        raise ValueError("boom")

    def logged() -> list[Any]:
        return [(record.name, type(record.exc_info[1])) for record in caplog.records if record.exc_info]

    with WsgiServer(streamkit.stream(failing)) as server:
        for times in 1, 2, 3:  # each lets the shared loop go of the one before
            server.request().finish()
            assert until(lambda times=times: len(logged()) == times)
            gc.collect()
    assert logged() == [("streamkit", wish)] * 3
