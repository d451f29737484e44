"""What a hook of the end learns of a page whose head is replaced, or whose end never comes."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, environ_of, scope_of
from test_hooks_elsewhere import Boom, asgi_own, wsgi_own
from test_hooks_on_pages import ENGINES, SIZED, WSGI_ENGINES, answer_of, asking, sized

START = {"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"5")]}


def body_of(chunk: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_the_head_that_an_error_has_put_in_place_of_the_first_is_the_one_of_the_page(
    options: dict[str, Any],
) -> None:
    heard: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "400")])

        def late() -> Iterator[bytes]:
            try:
                raise Boom
            except Boom:
                start_response("500 Oops", [("Content-Type", "text/plain"), SIZED], sys.exc_info())
            yield b"sorry"

        return late()

    def hook(told: Any) -> None:
        heard.append((told.outcome, told.status, told.headers["Content-Type"], told.bytes_sent))

    sent: list[str] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> None:
        sent.append(status)

    body = iter(asking(app, "wsgi", hook, **options)(environ_of(), start))
    assert next(body) == b"sorry"
    body.close()  # type: ignore[attr-defined]  # nothing is missing of the length that it has now
    assert sent == ["200 OK", "500 Oops"]
    assert heard == [("finished", 500, "text/plain", 5)]


def test_a_304_is_whole_though_its_server_asks_for_no_body() -> None:
    heard: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("304 Not Modified", [SIZED])
        return (chunk for chunk in ())

    body = asking(app, "wsgi", lambda told: heard.append(told.outcome))(environ_of(), lambda *head: None)
    body.close()
    assert heard == ["finished"]


@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_a_body_that_was_held_for_http_10_counts_when_it_was_sent(kind: str, options: dict[str, Any]) -> None:
    heard: list[Any] = []
    app = asgi_own if kind == "asgi" else wsgi_own
    asked = asking(app, kind, lambda told: heard.append((told.outcome, told.bytes_sent)), **options)
    assert answer_of(asked, kind, version="1.0").body == b"made "
    assert heard == [("finished", 5)]


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_an_application_that_fails_between_two_writes_has_sent_the_head_and_the_first(
    options: dict[str, Any],
) -> None:
    heard: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [("Content-Type", "text/plain")])(b"made")
        raise Boom

    def hook(told: Any) -> None:
        heard.append((told.outcome, told.status, told.headers["Content-Type"], told.bytes_sent))

    answer = answer_of(asking(app, "wsgi", hook, **options), "wsgi")
    assert isinstance(answer.error, Boom)
    assert (answer.status, answer.body) == (404, b"made")
    assert heard == [("failed", 404, "text/plain", 4)]


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_a_page_that_was_asked_after_in_two_wraps_is_let_go_when_it_is_over(options: dict[str, Any]) -> None:
    closed: list[bool] = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield b"ma"
                yield b"de "
            finally:
                closed.append(True)

        def close(self) -> None:
            """Nothing: who iterates closes what it has got, or lets go of it."""

    app: Any = sized(Pieces)
    for _ in range(2):
        app = asking(app, "wsgi", lambda told: None, **options)
    gc.collect()
    gc.disable()
    try:
        environ = environ_of()
        body = iter(app(environ, lambda *head: None))
        assert next(body) == b"ma"
        body.close()  # type: ignore[attr-defined]
        del body, environ
        assert closed == [True]
    finally:
        gc.enable()


def served(app: Any, send: Callable[[Any], Any], receive: Any = None) -> list[Any]:
    """The outcomes that a hook hears of, and what has reached the server."""
    heard: list[Any] = []

    async def silent() -> Any:
        await asyncio.Event().wait()

    async def request() -> None:
        asked = asking(app, "asgi", lambda told: heard.append((told.outcome, told.bytes_sent)))
        try:
            await asyncio.wait_for(asked(scope_of(), receive or silent, send), PATIENCE)
        except (Boom, OSError, asyncio.CancelledError) as error:
            heard.append(type(error))

    asyncio.run(request())
    return heard


async def taken(message: Any) -> None:
    """A server's `send` that takes everything."""


def test_a_page_without_its_end_has_failed_and_its_server_says_what_it_likes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body_of(b"ma", True))

    assert served(app, taken) == [("failed", 2)]


def test_a_page_whose_client_leaves_is_told_as_that_whoever_hears_of_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body_of(b"ma", True))
        if (await receive())["type"] == "http.disconnect":
            return
        await send(body_of(b"de ", False))

    async def send(message: Any) -> None:
        if message.get("body") == b"de ":
            raise ConnectionResetError

    async def left() -> Any:
        return {"type": "http.disconnect"}

    async def asked() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    assert served(app, taken, left) == [("disconnected", 2)]
    assert served(app, send, asked) == [("disconnected", 2), ConnectionResetError]


def test_a_page_is_whole_though_its_server_ends_its_task_amid_the_last_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body_of(b"made ", False))

    async def send(message: Any) -> None:
        if message.get("body"):
            raise asyncio.CancelledError

    assert served(app, send) == [("finished", 5), asyncio.CancelledError]


def test_a_page_whose_last_message_its_server_does_not_take_has_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body_of(b"made ", False))

    async def send(message: Any) -> None:
        if message.get("body"):
            raise Boom

    assert served(app, send) == [("failed", 0), Boom]


def test_what_an_application_raises_after_its_page_is_no_failure_of_the_page() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body_of(b"made ", False))
        raise Boom  # as a background task does

    assert served(app, taken) == [("finished", 5), Boom]


@pytest.mark.parametrize("fields", [(), ((b"content-length", b"5"),)])
def test_a_file_that_an_asgi_server_sends_in_its_own_way_is_the_end_of_its_page(fields: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": fields})
        await send({"type": "http.response.pathsend", "path": "/made"})

    assert served(app, taken) == [("finished", 0)]


@pytest.mark.parametrize("start", [{"status": 99}, {"headers": [(b"content-length", b"5"), ("x-own", "1")]}])
def test_a_head_that_is_none_goes_to_the_server_as_it_would_without_a_hook(start: dict[str, Any]) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, **start})
        await send(body_of(b"made ", False))

    async def send(message: Any) -> None:
        sent.append(message)

    assert served(app, send) == [("finished", 5)]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0] == {**START, **start}
