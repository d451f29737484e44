"""Bad input is refused with a typed error that says what was wanted and what came; it never hangs.

Rule: every error here is a `StreamKitError`, and the builtin kind that fits it too.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import Answer, AsgiServer, WsgiServer
from shapes import DESCRIBED, SYNC_FUNCTIONS, WITH_STREAM, Run, Serve, refusal, serving

import streamkit
from streamkit.errors import (
    EngineUnavailable,
    HeaderError,
    NotAnApplication,
    OptionsError,
    ProducerError,
    ProtocolViolation,
    StreamKitError,
    UnsupportedData,
)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC_FUNCTIONS, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def some_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x"]


# -- what is wrapped


@pytest.mark.parametrize("app", [None, 5, "module:app", object(), [some_app], lambda: None, lambda one: None])
def test_what_is_no_app_is_not_wrapped(app: Any) -> None:
    error = refusal(lambda: streamkit.wrap(app), NotAnApplication, "WSGI", "ASGI")
    assert isinstance(error, TypeError)
    assert type(app).__name__ in str(error) or repr(app) in str(error)


def test_an_unknown_kind_of_app_is_refused() -> None:
    refusal(lambda: streamkit.wrap(some_app, kind="cgi"), StreamKitError, "wsgi", "asgi", "cgi")  # type: ignore[arg-type]


# -- options


def test_an_unknown_option_is_told_the_nearest_right_name() -> None:
    error = refusal(lambda: streamkit.wrap(some_app, {"hartbeat": 15}), OptionsError, "hartbeat", "heartbeat")
    assert isinstance(error, ValueError)
    refusal(lambda: streamkit.wrap(some_app, high_watre=1), OptionsError, "high_watre", "high_water")


def test_all_faults_are_told_at_once() -> None:
    faulty = {"hartbeat": 15, "high_water": -1, "http10": "sometimes", "excluded_context": "locale"}
    error = refusal(lambda: streamkit.Options(**faulty), OptionsError, *faulty, "-1", "sometimes")
    assert len(error.faults) == 4  # type: ignore[attr-defined]


DURATIONS = ["commit_after", "heartbeat", "write_timeout", "max_duration", "grace"]
SIZES = ["http10_limit", "high_water", "max_streams"]


@pytest.mark.parametrize("name", DURATIONS + SIZES)
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, "soon", True, [1]])
def test_durations_and_sizes_are_positive_numbers(name: str, value: object) -> None:
    refusal(lambda: streamkit.Options(**{name: value}), OptionsError, name, repr(value))
    refusal(lambda: streamkit.wrap(some_app, {name: value}), OptionsError, name, repr(value))
    refusal(lambda: streamkit.stream(["x"], options={name: value}), OptionsError, name, repr(value))


@pytest.mark.parametrize("name", ["http10_limit", "high_water", "write_timeout", "grace"])
def test_none_is_refused_where_the_table_names_no_none(name: str) -> None:
    refusal(lambda: streamkit.Options(**{name: None}), OptionsError, name, "None")


@pytest.mark.parametrize("options", [5, "heartbeat=15", ["heartbeat"]])
def test_options_are_a_mapping_or_options(options: Any) -> None:
    refusal(lambda: streamkit.wrap(some_app, options), OptionsError, "mapping", repr(options))


# -- producers


@pytest.mark.parametrize("producer", [None, 5, object(), "text", b"bytes", int])
def test_what_makes_no_chunks_is_no_producer(producer: Any) -> None:
    error = refusal(lambda: streamkit.stream(producer), ProducerError, "function", "iterable")
    assert isinstance(error, TypeError)
    assert type(producer).__name__ in str(error)


def generator_function(stream: Any) -> Iterator[str]:
    yield "never written"


async def async_generator_function(stream: Any) -> AsyncIterator[str]:
    yield "never written"


@pytest.mark.parametrize("producer", [generator_function, async_generator_function])
def test_a_generator_function_is_told_from_a_generator(producer: Any) -> None:
    refusal(lambda: streamkit.stream(producer), ProducerError, "generator function", producer.__name__)


def test_a_coroutine_is_told_from_its_function() -> None:
    async def producer(stream: Any) -> None: ...

    refusal(lambda: streamkit.stream(producer(None)), ProducerError, "coroutine")


@pytest.mark.parametrize("returned", [generator_function(None), async_generator_function(None)])
def test_a_function_that_returns_a_generator_loses_no_chunk_in_silence(returned: Any) -> None:
    with WsgiServer(streamkit.stream(lambda stream: returned)) as server:
        answer = server.request().finish()
    assert isinstance(answer.error, ProducerError)
    assert not answer.committed


def test_an_iterable_cannot_be_looped() -> None:
    refusal(lambda: streamkit.stream(["x"], loop=True), ProducerError, "loop")


@pytest.mark.parametrize("chunk", [5, None, ["a"], object()])
def test_a_chunk_that_is_neither_text_nor_bytes_is_refused(described: Serve, chunk: Any) -> None:
    def program() -> Run:
        yield chunk

    if described.shape.has_stream and callable(chunk):
        pytest.fail("a program would call it")
    answer = described(program).finish()
    assert isinstance(answer.error, UnsupportedData)
    assert isinstance(answer.error, TypeError)
    assert type(chunk).__name__ in str(answer.error)
    assert not answer.committed


@pytest.mark.parametrize("written", [5, None, ["a"], object(), 2.5])
def test_writing_what_is_neither_text_nor_bytes_commits_nothing(pushed: Serve, written: Any) -> None:
    def program(stream: Any) -> Run:
        with pytest.raises(UnsupportedData, match=type(written).__name__):
            yield written
        assert not stream.committed
        stream.status = 203
        yield "all the same"

    answer = pushed(program).finish()
    assert (answer.status, answer.body, answer.error) == (203, b"all the same", None)


def test_an_engine_that_cannot_run_the_producer_is_unavailable(described: Serve) -> None:
    def program() -> Run:
        yield "x"

    wrong = "thread" if described.shape.awaits or described.shape.synced else "task"
    answer = described(program, engine=wrong).finish()
    if described.shape.has_stream:
        assert isinstance(answer.error, EngineUnavailable)
        assert wrong in str(answer.error)
        assert not answer.committed
    else:  # an iterable may be pulled or run: what is asked for and given must agree
        assert answer.error is None or isinstance(answer.error, EngineUnavailable)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, "soon"])
def test_a_wait_of_less_than_nothing_is_refused(synced: Serve, timeout: Any) -> None:
    def program(stream: Any) -> Run:
        for wait in (stream.wait_committed, stream.wait_finished):
            error = refusal(lambda wait=wait: wait(timeout), StreamKitError, repr(timeout))
            assert isinstance(error, ValueError)
        yield "x"

    assert synced(program).finish().complete


# -- heads

BAD_FIELDS = [
    ("X-Bad\r\nX-Injected", "1"),
    ("X Bad", "1"),
    ("X-Bad\0", "1"),
    ("", "1"),
    ("X-Bad:", "1"),
    ("X-Bad", "1\r\nX-Injected: 1"),
    ("X-Bad", "1\n2"),
    ("X-Bad", "1\r2"),
    ("X-Bad", "1\0"),
    ("Transfer-Encoding", "chunked"),
    ("connection", "close"),
    ("Keep-Alive", "timeout=5"),
    ("Upgrade", "websocket"),
    ("TE", "trailers"),
    ("Trailer", "X"),
    ("Proxy-Authenticate", "Basic"),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
def test_a_header_that_may_not_be_sent_is_refused_wherever_it_comes_from(name: str, value: str) -> None:
    for call in (
        lambda: streamkit.stream(["x"], headers={name: value}),
        lambda: streamkit.stream(["x"], headers=[(name, value)]),
    ):
        error = refusal(call, HeaderError)
        assert isinstance(error, ValueError)
    refusal(lambda: streamkit.Options(headers={name: value}), OptionsError, "headers")


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
def test_a_header_that_may_not_be_sent_leaves_the_stream_as_it_was(
    synced: Serve, name: str, value: str
) -> None:
    def program(stream: Any) -> Run:
        before = list(stream.headers)
        for change in (stream.headers.__setitem__, stream.headers.add, stream.headers.setdefault):
            refusal(lambda change=change: change(name, value), HeaderError)
        assert list(stream.headers) == before
        yield "x"

    answer = synced(program).finish()
    assert (answer.body, answer.error) == (b"x", None)
    assert "X-Injected" not in str(answer.headers)


@pytest.mark.parametrize("status", [0, 99, 1000, -200, "200 OK", None, 200.5, True])
def test_a_status_is_a_number_of_three_digits(synced: Serve, status: Any) -> None:
    refusal(lambda: streamkit.stream(["x"], status=status), StreamKitError, repr(status))

    def program(stream: Any) -> Run:
        refusal(lambda: setattr(stream, "status", status), StreamKitError, repr(status))
        yield "x"

    assert synced(program).finish().status == 200


@pytest.mark.parametrize("length", [-1, 2.5, "12", True])
def test_a_content_length_is_a_whole_number_from_nought_up(length: Any) -> None:
    refusal(lambda: streamkit.stream(["x"], content_length=length), StreamKitError, repr(length))


# -- apps that break their interface


def served_wsgi(app: Callable[..., Any]) -> Answer:
    with WsgiServer(streamkit.wrap(app), validated=False) as server:
        return server.request().finish()


def starts_twice(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    start_response("500 Oops", [("Content-Type", "text/plain")])
    return [b"x"]


def returns_none(environ: dict[str, Any], start_response: Any) -> None:
    start_response("200 OK", [("Content-Type", "text/plain")])


def never_starts(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    return [b"x"]


def never_starts_its_generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (starts_twice, "start_response"),
        (returns_none, "None"),
        (never_starts, "start_response"),
        (never_starts_its_generator, "start_response"),
    ],
)
def test_a_wsgi_app_that_breaks_its_interface_is_told_which_rule(app: Callable[..., Any], said: str) -> None:
    answer = served_wsgi(app)
    assert isinstance(answer.error, ProtocolViolation)
    assert said in str(answer.error)
    assert answer.body == b""


def test_a_wsgi_app_may_start_again_with_exc_info() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        error = RuntimeError("boom")
        start_response("500 Oops", [("Content-Type", "text/plain")], (RuntimeError, error, None))
        return [b"sorry"]

    answer = served_wsgi(app)
    assert (answer.starts[-1][0], answer.body, answer.error) == (500, b"sorry", None)


START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body", "body": b"", "more_body": False}
DISORDERS = {
    "body before start": [BODY],
    "end before start": [END],
    "start twice": [START, START],
    "start after a body": [START, BODY, START],
    "body after the end": [START, BODY, END, BODY],
    "start after the end": [START, END, START],
}


@pytest.mark.parametrize("disorder", DISORDERS.values(), ids=DISORDERS)
def test_asgi_messages_out_of_order_are_told_which_rule(disorder: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in disorder:
            await send(dict(message))

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request().finish()
    assert isinstance(answer.error, ProtocolViolation)
    assert disorder[-1]["type"].rpartition(".")[2] in str(answer.error)
    assert len(answer.starts) <= 1
    assert answer.body in (b"", b"x")
