"""Hooks on the stream of a request whose first answer failed, and whose client gets another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from driving import WsgiServer
from test_hooks_elsewhere import (
    KEY,
    Boom,
    answer_of,
    asgi_messages,
    asgi_own,
    failing,
    function,
    hooking,
    wsgi_iterable,
    wsgi_own,
    wsgi_write,
)

import streamkit
from streamkit import ClientDisconnected, StreamError

ENGINES: list[tuple[str, dict[str, Any]]] = [("asgi", {}), ("wsgi", {}), ("wsgi", {"engine": "thread"})]
COMMIT, END = ("Hook", "commit", False), ("Hook", "finished")


def wsgi_page(environ: Any, start_response: Any) -> Any:
    start_response("500 Oh", [("Content-Type", "text/plain")])
    return [b"page"]


async def asgi_page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"page"})


def wsgi_failing(environ: Any, start_response: Any) -> Any:
    def body() -> Any:
        raise Boom
        yield b""

    start_response("200 OK", [("Content-Type", "text/plain")])
    return body()


async def asgi_failing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    raise Boom


def rescued(app: Any, kind: str, rescue: Any) -> Any:
    """The application in a layer that answers in its place when it fails."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Boom:
            await rescue(scope, receive, send)

    def wsgi(environ: Any, start_response: Any) -> Any:
        try:
            return app(environ, start_response)
        except Boom:
            return rescue(environ, start_response)

    return asgi if kind == "asgi" else wsgi


REPLACEMENTS: list[tuple[str, str, dict[str, Any], Callable[[], Any]]] = [
    ("asgi", "a description", {}, lambda: streamkit.stream(function)),
    ("asgi", "messages", {}, lambda: asgi_messages),
    ("asgi", "its own stream", {}, lambda: asgi_own),
    *(
        ("wsgi", name, options, make)
        for options in ({}, {"engine": "thread"})
        for name, make in {
            "a description": lambda: streamkit.stream(function),
            "an iterable": lambda: wsgi_iterable,
            "its own stream": lambda: wsgi_own,
            "write()": lambda: wsgi_write,
        }.items()
    ),
]


@pytest.mark.parametrize("producer", failing(early=True))
@pytest.mark.parametrize(("kind", "name", "options", "make"), REPLACEMENTS)
def test_the_hooks_of_the_end_hear_of_the_stream_that_the_client_got_in_place_of_a_failed_one(
    kind: str, name: str, options: dict[str, Any], make: Callable[[], Any], producer: str
) -> None:
    log: list[Any] = []
    failed = streamkit.stream(failing(early=True)[producer]())
    answer = answer_of(hooking(rescued(failed, kind, make()), "Hook", log, kind, **options), kind)
    assert (answer.body, answer.error) == (b"made ", None)
    assert log == [COMMIT, END]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("producer", failing(early=True))
@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_the_hooks_of_the_end_hear_of_an_error_page_that_replaces_a_failed_description(
    kind: str, options: dict[str, Any], producer: str, version: str
) -> None:
    log: list[Any] = []
    early = version == "1.1"  # with HTTP/1.0 the body is held until it is complete
    failed = streamkit.stream(failing(early=early)[producer]())
    page = asgi_page if kind == "asgi" else wsgi_page
    app = hooking(rescued(failed, kind, page), "Hook", log, kind, **options)
    answer = answer_of(app, kind, version=version)
    assert (answer.status, answer.body, answer.error) == (500, b"page", None)
    assert log == ([END] if early else [COMMIT, END])


@pytest.mark.parametrize("producer", failing(early=True))
@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_the_application_wide_hook_hears_of_a_failed_description_and_not_of_the_page_in_its_place(
    kind: str, options: dict[str, Any], producer: str
) -> None:
    wide: list[Any] = []
    failed = streamkit.stream(failing(early=True)[producer]())
    page = asgi_page if kind == "asgi" else wsgi_page
    app = rescued(failed, kind, page)
    answer = answer_of(streamkit.wrap(app, on_finish=lambda told: wide.append(told.outcome), **options), kind)
    assert (answer.status, answer.body, answer.error) == (500, b"page", None)
    assert wide == ["failed"]


@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_the_application_wide_hook_hears_of_an_application_that_answers_nothing(
    kind: str, options: dict[str, Any]
) -> None:
    wide: list[Any] = []

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        return None

    def wsgi(environ: Any, start_response: Any) -> Any:
        return None

    app = asgi if kind == "asgi" else wsgi
    answer = answer_of(streamkit.wrap(app, on_finish=lambda told: wide.append(told.outcome), **options), kind)
    assert type(answer.error) is streamkit.ProtocolViolation
    assert wide == ["failed"]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_the_application_wide_hook_hears_of_a_body_that_was_given_to_write(options: dict[str, Any]) -> None:
    wide: list[Any] = []
    app = streamkit.wrap(wsgi_write, kind="wsgi", on_finish=lambda told: wide.append(told.outcome), **options)
    assert answer_of(app, "wsgi").body == b"made "
    assert wide == ["finished"]


@pytest.mark.parametrize("producer", failing(early=True))
@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_the_hooks_of_the_end_hear_once_of_a_description_that_nothing_replaces(
    kind: str, options: dict[str, Any], producer: str
) -> None:
    log: list[Any] = []
    wide: list[Any] = []
    failed = streamkit.stream(failing(early=True)[producer]())
    app = hooking(failed, "Hook", log, kind, on_finish=lambda told: wide.append(told.outcome), **options)
    answer = answer_of(app, kind)
    assert (answer.committed, type(answer.error)) == (False, Boom)
    assert log == [("Hook", "failed")]
    assert wide == ["failed"]


@pytest.mark.parametrize("inside", ["a description", "another framework's stream"])
@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_a_page_between_two_wraps_is_the_answer_of_the_outer_one_alone(
    kind: str, options: dict[str, Any], inside: str
) -> None:
    log: list[Any] = []
    foreign, page = (asgi_failing, asgi_page) if kind == "asgi" else (wsgi_failing, wsgi_page)
    failed = streamkit.stream(failing(early=True)["function"]()) if inside == "a description" else foreign
    inner = hooking(failed, "Inner", log, kind, **options)
    answer = answer_of(hooking(rescued(inner, kind, page), "Outer", log, kind, **options), kind)
    assert (answer.body, answer.error) == (b"page", None)
    assert log == [("Inner", "failed"), ("Outer", "finished")]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_hooks_that_a_producer_adds_before_it_fails_are_those_of_what_replaces_it(
    options: dict[str, Any],
) -> None:
    log: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ[KEY]

        def producer(own: Any) -> None:
            stream.on_commit(lambda told: log.append(("Hook", "commit", told.committed)))
            stream.on_finish(lambda told: log.append(("Hook", told.outcome)))
            raise Boom

        return rescued(streamkit.stream(producer), "wsgi", wsgi_iterable)(environ, start_response)

    answer = answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi")
    assert (answer.body, answer.error) == (b"made ", None)
    assert log == [COMMIT, END]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_no_iterable_at_all_in_place_of_a_failed_description_is_a_failure(options: dict[str, Any]) -> None:
    log: list[Any] = []

    def nothing(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])

    failed = streamkit.stream(failing(early=True)["function"]())
    answer = answer_of(hooking(rescued(failed, "wsgi", nothing), "Hook", log, "wsgi", **options), "wsgi")
    assert (answer.committed, type(answer.error)) == (False, streamkit.ProtocolViolation)
    assert log == [("Hook", "failed")]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_the_error_hooks_of_the_environ_hear_of_what_fails_after_the_commit_of_the_second_answer(
    options: dict[str, Any],
) -> None:
    heard: list[Any] = []

    def second(environ: Any, start_response: Any) -> Any:
        environ[KEY].write("made ")
        raise Boom

    failed = streamkit.stream(failing(early=True)["function"]())

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_error(lambda told, error: heard.append(type(error)))
        return rescued(failed, "wsgi", second)(environ, start_response)

    answer = answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi").through()
    assert (answer.body, type(answer.error)) == (b"made ", Boom)
    assert heard == [Boom]


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_a_stream_of_the_environ_is_refused_where_the_application_has_used_write(
    options: dict[str, Any],
) -> None:
    refused: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        body = wsgi_write(environ, start_response)
        with pytest.raises(StreamError, match="already answered by another stream") as caught:
            environ[KEY].write("too late")
        refused.append(str(caught.value))
        return body

    answer = answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi")
    assert (answer.body, len(answer.starts), len(refused)) == (b"made ", 1, 1)


@pytest.mark.parametrize("options", [{}, {"engine": "thread"}])
def test_the_application_wide_hook_hears_once_of_a_stream_for_which_there_was_no_room(
    options: dict[str, Any],
) -> None:
    log: list[Any] = []
    wide: list[Any] = []
    taken, over = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/first":
            environ[KEY].write("first")
            taken.set()
            assert over.wait(20)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return []
        environ[KEY].on_finish(lambda told: log.append(told.outcome))
        return wsgi_own(environ, start_response)

    def note(told: Any) -> None:
        if not over.is_set():
            wide.append(told.outcome)

    wrapped = streamkit.wrap(app, kind="wsgi", max_streams=1, on_finish=note, **options)
    try:
        with WsgiServer(wrapped) as server:
            first = server.request(path="/first")
            assert taken.wait(20)
            second = server.request().finish()
            assert second.status == 503
            seen, told = list(wide), list(log)
            over.set()
            first.finish()
    finally:
        over.set()
    assert (seen, told) == (["failed"], ["failed"])


def test_a_client_that_leaves_a_held_body_is_no_reason_to_answer_again() -> None:
    log: list[Any] = []

    def producer(stream: Any) -> None:
        stream.write(b"x" * 300_000)

    app = hooking(streamkit.stream(producer), "Hook", log, "wsgi")
    with WsgiServer(app) as server:
        answer = server.request(version="1.0", window=0)
        assert answer.read()
        answer.leave()
        answer.through()
    assert log == [COMMIT, ("Hook", "disconnected")]
    assert answer.error is None or isinstance(answer.error, ClientDisconnected)


@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_a_body_that_is_too_long_to_be_held_has_failed_though_a_refusal_is_answered(
    kind: str, options: dict[str, Any]
) -> None:
    log: list[Any] = []

    def producer(stream: Any) -> None:
        for _ in range(100):
            stream.write(b"x" * 1000)

    app = hooking(streamkit.stream(producer), "Hook", log, kind, http10_limit=10_000, **options)
    answer = answer_of(app, kind, version="1.0")
    assert (answer.status, answer.error) == (505, None)
    assert log == [COMMIT, ("Hook", "failed")]
