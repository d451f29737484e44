"""What Rails' own tests of ActionController::Live check, R1-R25 of the scenarios, in every shape.

Rule: a test says nothing about one interface or engine; `served` runs it over all that fit.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from typing import Any

import pytest
from driving import PATIENCE, AsgiAnswer, WsgiAnswer, WsgiServer, environ_of, scope_of, until
from shapes import BUFFERED, DESCRIBED, SHAPES, WITH_STREAM, Asked, Run, Serve, Shape, serving

import streamkit
from streamkit.errors import ClientDisconnected

LOCALE: contextvars.ContextVar[str] = contextvars.ContextVar("locale", default="none")
EVENT_STREAM = "text/event-stream"


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BUFFERED, ids=str)
def buffered(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged as a warning or worse, with its traceback."""
    return lambda: [
        f"{record.name}: {record.getMessage()} {record.exc_info and record.exc_info[1]!r}"
        for record in caplog.records
        if record.levelname in ("WARNING", "ERROR", "CRITICAL")
    ]


def test_a_cookie_set_before_the_first_write_is_in_the_response_once(pushed: Serve) -> None:
    """R1"""

    def program(stream: Any) -> Run:
        stream.set_cookie("flavour", "oat")
        yield "hello "
        yield "world"

    answer = pushed(program).finish()
    assert answer.body == b"hello world"
    assert [cookie.partition(";")[0] for cookie in answer.values("Set-Cookie")] == ["flavour=oat"]


def test_a_content_type_set_before_the_writes_is_sent_as_it_is(pushed: Serve) -> None:
    """R2"""

    def program(stream: Any) -> Run:
        stream.headers["Content-Type"] = EVENT_STREAM
        yield "hello"
        yield "world"

    answer = pushed(program).finish()
    assert answer.body == b"helloworld"
    assert answer.header("Content-Type") == EVENT_STREAM


def test_writeln_ends_a_line_once(pushed: Serve) -> None:
    """R3"""

    def program(stream: Any) -> Run:
        yield lambda: stream.writeln("hello\n")
        yield lambda: stream.writeln("world")

    assert pushed(program).finish().body == b"hello\nworld\n"


def test_a_stream_without_a_content_type_gets_one(served: Serve) -> None:
    """R4"""

    def program() -> Run:
        yield "plain"

    assert served(program).finish().header("Content-Type")


def test_one_full_text_is_sent_whole_and_ends_the_stream(pushed: Serve) -> None:
    """R5"""
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        streams.append(stream)
        yield "zomg"

    answer = pushed(program).finish()
    assert (answer.body, answer.complete) == (b"zomg", True)
    assert (streams[0].committed, streams[0].closed, streams[0].outcome) == (True, True, "finished")


def test_a_chunk_arrives_before_the_next_is_made(served: Serve) -> None:
    """R10, X12"""
    arrived = [threading.Event() for _ in range(5)]

    def program() -> Run:
        for number, event in enumerate(arrived):
            yield str(number)
            assert event.wait(PATIENCE), f"chunk {number} was held back"

    answer = served(program)
    for number, event in enumerate(arrived):
        assert answer.read() == str(number).encode()
        event.set()
    assert answer.finish().complete


def test_twenty_six_writes_need_no_reader(served: Serve) -> None:
    """R11"""
    done = threading.Event()

    def program() -> Run:
        for number in range(26):
            yield ascii_lowercase[number]
        done.set()

    answer = served(program)
    assert done.wait(PATIENCE)
    assert answer.finish().body == ascii_lowercase.encode()


def test_a_producer_waiting_on_a_full_channel_is_told_when_its_client_leaves(
    pushed: Serve, loud: Callable[[], list[str]]
) -> None:
    """R12"""
    behind, told, finished, errors = threading.Event(), [], [], []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: finished.append(stream.outcome))
        stream.on_error(lambda stream, error: errors.append(type(error)))
        for number in range(1_000_000):
            if number == 3:
                behind.set()
            try:
                yield b"x" * 1024
            except BaseException as error:
                told.append(type(error))
                raise

    answer = pushed(program, window=0, options={"high_water": 1024})
    assert answer.read()
    if pushed.shape.name != "wsgi-environ-write":  # there a write waits for the server's own
        assert answer.read()
        assert answer.read()
        assert behind.wait(PATIENCE)
    answer.leave()
    answer.through()
    assert until(lambda: finished)
    assert until(lambda: told)
    assert told[0] is ClientDisconnected or (pushed.shape.awaits and told[0] is asyncio.CancelledError)
    assert finished == ["disconnected"]
    assert errors == [ClientDisconnected]
    assert loud() == []


def test_with_ignore_disconnect_the_producer_writes_on_in_peace(pushed: Serve) -> None:
    """R13"""
    left, done, outcomes = threading.Event(), threading.Event(), []

    def program(stream: Any) -> Run:
        stream.ignore_disconnect = True
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        yield "first"
        assert left.wait(PATIENCE)
        for _ in range(15):
            yield "more"
        done.set()

    answer = pushed(program, window=0)
    assert answer.read() == b"first"
    answer.leave()
    left.set()
    assert done.wait(PATIENCE)
    answer.through()
    assert until(lambda: len(outcomes) == 1)


def test_with_ignore_disconnect_a_write_that_waits_is_released_in_peace(buffered: Serve) -> None:
    """R13: the reader is gone, for whom there was no room."""
    full, done = threading.Event(), threading.Event()

    def program(stream: Any) -> Run:
        stream.ignore_disconnect = True
        for number in range(15):
            if number == 3:
                full.set()
            yield b"x" * 1000
        done.set()

    answer = buffered(program, window=0, options={"high_water": 1000})
    assert answer.read()
    assert answer.read()
    assert full.wait(PATIENCE)
    answer.leave()
    assert done.wait(PATIENCE)
    answer.through()


def test_a_producer_sees_the_context_of_its_own_request_and_of_no_other(served: Serve) -> None:
    """R14, R15"""

    def program() -> Run:
        yield LOCALE.get()
        LOCALE.set("set by a producer")
        yield " "

    first = served(program, before=lambda: LOCALE.set("de")).finish()
    second = served(program).finish()
    third = served(program, before=lambda: LOCALE.set("fr")).finish()
    assert [answer.body for answer in (first, second, third)] == [b"de ", b"none ", b"fr "]


@pytest.mark.parametrize(("excluded", "seen"), [((), b"de"), (("locale",), b"none"), (("other",), b"de")])
def test_an_excluded_context_variable_is_hidden_from_the_producer(
    described: Serve, excluded: tuple[str, ...], seen: bytes
) -> None:
    """R17"""

    def program() -> Run:
        yield LOCALE.get()

    asked = {"excluded_context": excluded}
    assert described(program, before=lambda: LOCALE.set("de"), options=asked).finish().body == seen


def test_no_context_variable_is_excluded_unless_asked_for() -> None:
    """R18"""
    assert streamkit.Options().excluded_context == ()


def test_context_is_excluded_for_a_whole_app_or_for_one_response() -> None:
    """R18"""

    def program(stream: streamkit.ResponseStream) -> None:
        stream.write(LOCALE.get())

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        LOCALE.set("de")
        own = {"excluded_context": []} if environ["PATH_INFO"] == "/own" else None
        return streamkit.stream(program, options=own)(environ, start_response)

    with WsgiServer(streamkit.wrap(app, excluded_context=["locale"])) as server:
        assert server.request().finish().body == b"none"
        assert server.request(path="/own").finish().body == b"de"


def test_the_caller_keeps_its_own_context(shape: Shape) -> None:
    """R19: the server's thread or task is the same before and after a stream."""

    def program() -> Run:
        LOCALE.set("the producer's")
        yield LOCALE.get()

    app = shape.build(program, Asked(lambda: None, {}))
    LOCALE.set("the caller's")
    if shape.interface == "wsgi":
        wsgi = WsgiAnswer()
        wsgi.serve(app, environ_of())
        assert (wsgi.body, wsgi.error) == (b"the producer's", None)
    else:
        asyncio.run(_serve_and_look(app))
    assert LOCALE.get() == "the caller's"


async def _serve_and_look(app: Any) -> None:
    answer = AsgiAnswer(asyncio.get_running_loop(), b"", 65536, None)
    await answer.serve(app, scope_of())
    assert (answer.body, answer.error) == (b"the producer's", None)
    assert LOCALE.get() == "the caller's"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/plain"])
def test_an_error_before_the_commit_goes_to_who_would_have_seen_it(
    served: Serve, content_type: str, loud: Callable[[], list[str]]
) -> None:
    """R20, R22"""
    boom = RuntimeError("before the commit")

    def program() -> Run:
        raise boom
        yield

    answer = served(program, content_type=content_type).finish()
    assert answer.error is boom
    assert not answer.committed
    assert loud() == []


def test_an_error_after_the_commit_completes_the_html_and_cuts_the_stream(
    served: Serve, loud: Callable[[], list[str]]
) -> None:
    """R21, X4: what the server gets, it logs; we do not log it a second time."""
    boom, errors = RuntimeError("a secret"), []

    def program() -> Run:
        yield "<html><body><p>"
        raise boom

    asked = {"on_error": lambda stream, error: errors.append(error)}
    answer = served(program, content_type="text/html", options=asked).finish()
    assert answer.body.startswith(b"<html><body><p>")
    assert answer.body.endswith(b"</html>")
    assert b"/500.html" in answer.body
    assert b"secret" not in answer.body
    assert answer.error is boom
    assert not answer.complete
    assert errors == [boom]
    assert loud() == []


def test_an_error_after_the_commit_that_ends_cleanly_is_in_the_log_once(
    served: Serve, loud: Callable[[], list[str]]
) -> None:
    """R21, X4"""

    def program() -> Run:
        yield "<p>"
        raise RuntimeError("for the log")

    answer = served(program, content_type="text/html", options={"on_failure": "finish"}).finish()
    assert (answer.complete, answer.error) == (True, None)
    assert b"/500.html" in answer.body
    assert until(loud)
    logged = [line for line in loud() if "for the log" in line]
    assert len(logged) == len(loud()) == 1
    assert logged[0].startswith(f"streamkit.{served.shape.interface}: ")


def test_json_that_fails_after_its_commit_is_cut_and_nothing_is_added(served: Serve) -> None:
    """R22"""
    boom = RuntimeError("boom")

    def program() -> Run:
        yield '{"a": '
        raise boom

    answer = served(program, content_type="application/json").finish()
    assert (answer.body, answer.complete) == (b'{"a": ', False)
    assert answer.error is boom


def test_an_on_error_that_writes_and_closes_has_the_last_word(
    pushed: Serve, loud: Callable[[], list[str]]
) -> None:
    """R23: the error is logged, since no server sees it."""

    def sorry(stream: Any, error: BaseException) -> Run:
        yield f"sorry: {error}"
        yield stream.close

    hook = pushed.hook(sorry)

    def program(stream: Any) -> Run:
        stream.on_error(hook)
        yield "so far; "
        raise RuntimeError("boom")

    answer = pushed(program, content_type="text/html").finish()
    assert (answer.body, answer.complete, answer.error) == (b"so far; sorry: boom", True, None)
    assert until(loud)
    assert len([line for line in loud() if "boom" in line]) == len(loud()) == 1


def test_an_on_error_that_raises_is_logged_and_the_stream_still_ends(
    pushed: Serve, loud: Callable[[], list[str]]
) -> None:
    """R25"""
    boom, streams = RuntimeError("boom"), []

    def broken(stream: Any, error: BaseException) -> None:
        raise LookupError("the hook is broken")

    def program(stream: Any) -> Run:
        streams.append(stream)
        stream.on_error(broken)
        yield "so far"
        raise boom

    answer = pushed(program).finish()
    assert (answer.body, answer.complete) == (b"so far", False)
    assert answer.error is boom
    assert until(loud)
    assert len([line for line in loud() if "the hook is broken" in line]) == len(loud()) == 1
    assert (streams[0].closed, streams[0].outcome) == (True, "failed")
