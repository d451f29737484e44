"""Layers that keep, repeat or refuse what most let pass: the stream, and the mark, come through all the same.

Rule: the layers here are written for the tests, each to do the one thing that is asked about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from typing import Any
from wsgiref.validate import validator

import pytest

import streamkit
from streamkit import unbuffer
from streamkit.testing import AsyncClient, Client
from streamkit.unbuffer.around_hook import around_hook

from .layered import AT_ONCE, HTML, Drip, Seen, plain_asgi, plain_wsgi
from .test_bypass import LONG, NAMES, Holding, HoldingAsync, described_asgi, described_wsgi, same


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_second_value_of_a_header_leaves_the_first_one(interface: str) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        return status, [*headers, ("X-App", "and more")], body

    drip = Drip(LONG)
    app: Any = (
        Holding(plain_wsgi(drip), change) if interface == "wsgi" else HoldingAsync(plain_asgi(drip), change)
    )
    found = Seen(unbuffer.strip(app, NAMES), drip, kind=interface)
    assert drip.log == AT_ONCE
    assert found.headers.getlist("X-App") == ["kept", "and more"]


# ---------------------------------------------------------------- kept responses


class Keeping:
    """Keeps the first response with its head, and sends it ever after, as a list or by `write`."""

    def __init__(self, app: Any, writes: bool) -> None:
        self.app, self.writes = app, writes
        self.kept: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.kept is None:
            heads: list[Any] = []

            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                heads[:] = [status, headers]
                return lambda chunk: None

            body = self.app(environ, start)
            chunks = list(body)
            body.close()
            self.kept = (*heads, [chunk for chunk in chunks if chunk])
        status, headers, chunks = self.kept
        write = start_response(status, list(headers))
        if not self.writes:
            return list(chunks)
        for chunk in chunks:
            write(chunk)
        return []


class KeepingAsync:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.kept: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self.kept:
            kept: list[Any] = []

            async def keep(message: Any) -> None:
                kept.append(message)

            await self.app(scope, receive, keep)
            self.kept = kept
        for message in self.kept:
            await send(message)


@pytest.mark.parametrize("way", ["list", "write", "messages"])
def test_a_description_that_a_layer_has_kept_bears_no_mark_when_it_is_sent_again(way: str) -> None:
    drip = Drip(0.01)
    made: Any = KeepingAsync(described_asgi(drip)) if way == "messages" else None
    app = made or Keeping(described_wsgi(drip), way == "write")
    with Client(streamkit.wrap(app)) as client:
        for _ in range(2):
            with client.get("/stream") as connection:
                assert b"[[2]]" in connection.read()
                assert "Content-Encoding" not in connection.headers
                assert connection.headers["X-App"] == "kept"
    head = app.kept[0]["headers"] if way == "messages" else app.kept[1]
    assert "x-streamkit" in str(head)


@pytest.mark.parametrize(
    ("method", "headers", "status"), [("HEAD", [], 200), ("GET", [("If-None-Match", '"v1"')], 304)]
)
def test_what_keeps_djangos_middleware_away_never_reaches_the_client(
    method: str, headers: list[tuple[str, str]], status: int
) -> None:
    pytest.importorskip("django")
    from django.test import override_settings

    from streamkit.frameworks.django import respond

    from . import django_pages

    def view(request: Any) -> Any:
        return respond(request, streamkit.stream(["x"], content_type=HTML, headers={"ETag": '"v1"'}))

    with override_settings(**django_pages.SETTINGS), pytest.MonkeyPatch.context() as patch:
        patch.setattr(django_pages.urlpatterns[0], "callback", view)
        app = streamkit.wrap(django_pages.site(Drip(LONG), "wsgi", []))
        with Client(app) as client, client.open(method, "/stream", headers=headers) as connection:
            assert connection.status == status
            assert "Content-Encoding" not in connection.headers


# ---------------------------------------------------------------- hooks of Flask


def hooked(view: Callable[[Any], Any], hook: Callable[[Any], Any]) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    app.add_url_rule("/stream", view_func=lambda: view(flask))
    app.after_request(hook)
    return streamkit.wrap(app)


def test_a_hook_may_get_a_response_of_a_class_that_wants_more_arguments() -> None:
    drip = Drip(LONG)

    def view(flask: Any) -> Any:
        class Special(flask.Response):  # type: ignore[misc, name-defined]
            def __init__(self, body: Any, special: str) -> None:
                super().__init__(body, mimetype="text/html")

        return Special(drip.chunks(), "yes")

    def hook(response: Any) -> Any:
        response.add_etag()
        response.headers["X-Hook"] = "seen"
        return response

    found = Seen(hooked(view, hook), drip)
    assert drip.log == AT_ONCE
    assert (found.status, found.headers["X-Hook"]) == (200, "seen")


def test_what_a_hook_asks_for_at_the_responses_end_happens_at_the_streams() -> None:
    drip = Drip(LONG)

    def hook(response: Any) -> Any:
        response.add_etag()
        response.call_on_close(lambda: drip.log.append("closed"))
        return response

    Seen(hooked(lambda flask: flask.Response(drip.chunks(), mimetype="text/html"), hook), drip)
    assert drip.log == [*AT_ONCE, "closed"]


# ---------------------------------------------------------------- what fails


class Unfriendly:
    """An app that fails at whatever is done to it but a call."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not my class")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("equal to nothing")


def test_an_app_that_cannot_be_looked_at_is_served_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    drip = Drip(LONG)
    app = streamkit.wrap(Unfriendly(plain_wsgi(drip)), kind="wsgi")
    with caplog.at_level(logging.WARNING, logger="streamkit"):
        Seen(app, drip)
    assert drip.log == AT_ONCE
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "could not look for all layers of Unfriendly" in caplog.text


class Stopped(BaseException):
    """As of a server that stops its worker."""


def test_a_stream_is_closed_when_its_layer_is_stopped() -> None:
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"x"])

        def close(self) -> None:
            closed.append("closed")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", HTML)])
        return Body()

    def change(status: str, headers: Any, body: bytes) -> Any:
        raise Stopped

    stripped = unbuffer.strip(Holding(validator(app), change), NAMES)
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": ""}
    with pytest.raises(Stopped):
        stripped(_complete(environ), lambda status, headers, exc_info=None: lambda chunk: None)
    assert closed == ["closed"]


def _complete(environ: dict[str, Any]) -> dict[str, Any]:
    from wsgiref.util import setup_testing_defaults

    setup_testing_defaults(environ)
    return environ


def test_an_app_whose_layers_are_bypassed_is_as_before_without_the_wrap() -> None:
    drip = Drip(0.01)
    app = Holding(plain_wsgi(drip), same)
    Seen(streamkit.wrap(app, strip=NAMES), drip)
    drip.log.clear()
    Seen(app, drip)
    assert drip.log == ["made 0", "made 1", "made 2", "got 0", "got 1", "got 2"]


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_two_wraps_around_one_app_put_one_pair_of_halves_around_its_layer(first: str) -> None:
    drip = Drip(LONG)
    layer = Holding(plain_wsgi(drip), same)
    inner = streamkit.wrap(layer, strip=NAMES)
    outer = streamkit.wrap(inner, strip=NAMES)
    for app in (inner, outer) if first == "inner" else (outer, inner):
        drip.log.clear()
        for got in drip.got:
            got.clear()
        Seen(app, drip)
        assert drip.log == AT_ONCE
    assert isinstance(layer.app, unbuffer.stripping.InsideWSGI)
    assert not isinstance(layer.app.app, unbuffer.stripping.InsideWSGI)
    assert len(unbuffer.report(outer).taken) == 1


# ---------------------------------------------------------------- a stream that a layer refuses


class ClientDisconnect(Exception):
    """As Starlette names it."""


async def raised_after_refusal(what: Exception | None, *, chained: bool = False) -> None:
    """Send a stream that a layer refuses, to an app that makes this of the refusal."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError as refusal:
            if what is None:
                raise
            what.__cause__ = refusal if chained else None
            raise what  # noqa: B904  # its cause is set

    def refuse(status: str, headers: Any, body: bytes) -> Any:
        return "403 Forbidden", headers, b"no"

    async with AsyncClient(unbuffer.strip(HoldingAsync(app, refuse), NAMES), kind="asgi") as client:
        connection = client.get("/")
        assert await connection.read() == b"no"
        assert connection.status == 403


def test_an_error_of_the_apps_own_after_a_layers_refusal_is_raised() -> None:
    with pytest.raises(ValueError, match="could not be tidied up"):
        asyncio.run(raised_after_refusal(ValueError("could not be tidied up")))


def test_what_only_says_that_a_layer_has_refused_is_raised_to_nobody() -> None:
    asyncio.run(raised_after_refusal(None))
    asyncio.run(raised_after_refusal(ClientDisconnect()))
    asyncio.run(raised_after_refusal(RuntimeError("the client has left"), chained=True))


# ---------------------------------------------------------------- hooks that fail, and views that are kept


def test_a_hook_that_fails_on_the_empty_body_does_not_cost_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drip = Drip(LONG)

    def hook(response: Any) -> Any:
        response.add_etag()
        raise ValueError("nothing in it")

    found = Seen(hooked(lambda flask: flask.Response(drip.chunks(), mimetype="text/html"), hook), drip)
    assert found.status == 200
    assert drip.log == AT_ONCE
    assert "nothing in it" in caplog.text


def test_a_hook_that_aborts_fails_the_response_as_flask_has_it() -> None:
    flask = pytest.importorskip("flask")
    drip = Drip(LONG)

    def hook(response: Any) -> Any:
        response.add_etag()
        flask.abort(403)

    app = hooked(lambda flask: flask.Response(drip.chunks(), mimetype="text/html"), hook)
    with Client(app) as client:
        assert client.get("/stream").status == 500  # Flask has no handlers for what its hooks raise
    assert drip.log == []


@pytest.mark.parametrize("is_meant", [False, True])
def test_an_async_hook_that_fails_does_as_a_sync_one(
    is_meant: bool, caplog: pytest.LogCaptureFixture
) -> None:
    werkzeug = pytest.importorskip("werkzeug")
    response = werkzeug.Response(iter([b"a"]))
    error = werkzeug.exceptions.Forbidden() if is_meant else ValueError("nothing in it")

    async def hook(response: Any) -> Any:
        raise error

    if is_meant:
        with pytest.raises(werkzeug.exceptions.Forbidden):
            asyncio.run(around_hook(hook)(response))
    else:
        assert asyncio.run(around_hook(hook)(response)) is response
        assert "nothing in it" in caplog.text


def test_a_description_of_a_cached_view_is_made_anew_for_each_request() -> None:
    flask = pytest.importorskip("flask")
    flask_caching = pytest.importorskip("flask_caching")
    from streamkit.frameworks.flask import StreamKit

    app = flask.Flask(__name__)
    cache = flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    numbers = count()
    app.add_url_rule("/", view_func=cache.cached(60)(lambda: streamkit.stream([f"{next(numbers)}"])))
    StreamKit(app)
    with Client(app) as client:
        assert client.get("/").read() == b"0"
        assert client.get("/").read() == b"1"
