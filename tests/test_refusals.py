"""What is refused says what was wanted, and what came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from twinned import SCOPE, nothing, request_by, scope_app, take

import streamkit
from streamkit import HeaderError, Options, OptionsError, ProducerError, StreamError
from streamkit.errors import AlreadyServed, EngineUnavailable, ProtocolViolation, StreamKitError


def described(**details: Any) -> Callable[[], object]:
    return lambda: streamkit.stream(nothing, **details)


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError("repr")


REFUSED: dict[str, tuple[Callable[[], object], type[StreamKitError], str]] = {
    "flags": (described(loop="no", keep_open="no"), OptionsError, "keep_open: wanted True.*loop: wanted"),
    "engine": (described(engine="warp"), OptionsError, "engine: wanted one of auto, thread.* got 'warp'"),
    "heartbeat_bytes": (described(heartbeat_bytes="x"), OptionsError, "wanted some bytes or None, got 'x'"),
    "no heartbeat_bytes": (described(heartbeat_bytes=b""), OptionsError, "some bytes or None, got b''"),
    "content_type": (described(content_type=5), HeaderError, "wanted content_type as text .* got 5"),
    "content_length": (described(content_length=-1), HeaderError, "number of bytes from 0 up, got -1"),
    "callback": (described(callback=5), OptionsError, "callback: wanted a function, got 5"),
    "loop": (lambda: streamkit.stream([b"x"], loop=True), ProducerError, "a function, not an iterable"),
    "names": (lambda: Options.from_mapping({5: 1}), OptionsError, "wanted names of options, got 5"),  # type: ignore[dict-item]
    "merge": (lambda: Options().merged({}), OptionsError, "wanted Options to merge, got {}"),  # type: ignore[arg-type]
    "described": (lambda: streamkit.stream(streamkit.stream(["x"])), ProducerError, "got the description"),
    "a mapping": (lambda: streamkit.event_stream({"a": 1}), ProducerError, "mapping: put .* into a list"),
    "no repr": (lambda: Options(heartbeat=Unprintable()), OptionsError, "heartbeat: .* got <Unprintable>"),
    "status": (described(status=True), HeaderError, "wanted a status code from 100 to 999, got True"),
}


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_what_was_wanted_and_what_came(
    call: Callable[[], object], error: type[StreamKitError], words: str
) -> None:
    with pytest.raises(error, match=words):
        call()


def test_a_long_value_is_cut_where_a_message_shows_it() -> None:
    with pytest.raises(OptionsError) as refused:
        Options(http10="x" * 1000)
    assert "got 'xxx" in str(refused.value)
    assert str(refused.value).endswith("x...")
    assert len(str(refused.value)) < 150


def test_a_description_is_called_as_one_of_two_kinds_of_application() -> None:
    response: Any = streamkit.stream(nothing)
    with pytest.raises(TypeError, match=r"\(environ, start_response\) or \(scope, .* not with 1 arguments"):
        response({})


def test_a_description_answers_http_requests_alone() -> None:
    response = streamkit.stream(nothing)
    with pytest.raises(ProtocolViolation, match="http requests, not 'websocket'"):
        asyncio.run(response({**SCOPE, "type": "websocket"}, asyncio.Event().wait, take))


def test_an_iterator_is_served_once() -> None:
    response = streamkit.stream(iter([b"x"]))
    request_by(response, take)
    with pytest.raises(AlreadyServed, match="was served before"):
        request_by(response, take)


@pytest.mark.parametrize("details", [{"engine": "greenlet"}, {"engine": "thread"}], ids=str)
def test_an_engine_that_cannot_run_a_producer_names_the_one_that_can(details: Any) -> None:
    with pytest.raises(EngineUnavailable, match="leave `engine` out, or use 'task'"):
        request_by(streamkit.stream(nothing, **details), take)


def test_a_status_may_be_pythons_own() -> None:
    status = streamkit.stream(nothing, status=HTTPStatus.CREATED).status
    assert (status, type(status)) == (201, int)


def test_the_twin_is_refused_on_the_loop_that_it_would_wait_for() -> None:
    async def producer(stream: Any) -> None:
        twin = stream.sync
        for call in (lambda: twin.write(b"x"), twin.commit, twin.close, twin.wait_finished):
            with pytest.raises(StreamError, match="for worker threads: on the event loop, await"):
                call()

    request_by(streamkit.stream(producer), take)
    request_by(scope_app(producer_and_write(producer), {}), take)


def producer_and_write(producer: Any) -> Any:
    async def both(stream: Any) -> None:
        await producer(stream)
        await stream.write(b"x")

    return both


@pytest.mark.parametrize(
    ("sends", "words"),
    [
        ([], "without a response: wanted http.response.start"),
        ([{"type": "http.response.start", "status": 200, "headers": []}], "wanted http.response.body"),
        ([{"type": "http.response.body"}], "wanted http.response.start next, got http.response.body"),
        ([5], "wanted an ASGI message, a dict with its type, got 5"),
    ],
)
def test_messages_that_break_the_specification_are_named(sends: list[Any], words: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sends:
            await send(message)

    with pytest.raises(ProtocolViolation, match=words):
        request_by(streamkit.wrap(app, kind="asgi"), take)
