"""Telling WSGI from ASGI, and what stays as it was."""

from __future__ import annotations

import functools
from typing import Any

import flask
import pytest
import starlette.applications

import streamkit
from streamkit import EngineUnavailable, NotAnApplication, Options, OptionsError


def wsgi_app(environ: Any, start_response: Any) -> Any: ...


def wsgi_with_more(environ: Any, start_response: Any, more: Any = None) -> Any: ...


def wsgi_generator(environ: Any, start_response: Any) -> Any:
    yield b""


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...

    def method(self, environ: Any, start_response: Any) -> Any: ...


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_that_returns_an_awaitable(scope: Any, receive: Any, send: Any) -> Any: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


def anything(*arguments: Any) -> Any: ...


async def anything_async(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    "app",
    [
        wsgi_app,
        wsgi_with_more,
        wsgi_generator,
        WsgiClass,
        WsgiObject(),
        WsgiObject().method,
        functools.partial(wsgi_app),
        lambda environ, start_response: [],
        flask.Flask(__name__),
        flask.Flask(__name__).wsgi_app,
        streamkit.wrap(wsgi_app),
    ],
)
def test_what_takes_two_arguments_is_wsgi(app: Any) -> None:
    wrapped = streamkit.wrap(app)
    assert type(wrapped) is streamkit.wsgi.StreamingMiddleware
    assert wrapped.app is app or wrapped.app == app


@pytest.mark.parametrize(
    "app",
    [
        asgi_app,
        asgi_that_returns_an_awaitable,
        AsgiObject(),
        AsgiObject().method,
        functools.partial(asgi_app),
        anything_async,
        starlette.applications.Starlette(),
        streamkit.wrap(asgi_app),
    ],
)
def test_what_takes_three_arguments_is_asgi(app: Any) -> None:
    wrapped = streamkit.wrap(app)
    assert type(wrapped) is streamkit.asgi.StreamingMiddleware
    assert wrapped.app is app or wrapped.app == app


def test_what_cannot_be_told_is_settled_by_kind() -> None:
    for app in (anything, streamkit.stream(["a"])):
        with pytest.raises(NotAnApplication, match="kind='wsgi' or kind='asgi'"):
            streamkit.wrap(app)
        assert type(streamkit.wrap(app, kind="wsgi")) is streamkit.wsgi.StreamingMiddleware
        assert type(streamkit.wrap(app, kind="asgi")) is streamkit.asgi.StreamingMiddleware
    with pytest.raises(OptionsError, match="'wsgi', 'asgi' or None"):
        streamkit.wrap(wsgi_app, kind="cgi")  # type: ignore[call-overload]


@pytest.mark.parametrize("app", [lambda: None, lambda environ: None, lambda a, b, c, d: None])
def test_other_arguments_are_refused(app: Any) -> None:
    with pytest.raises(NotAnApplication, match="takes other arguments"):
        streamkit.wrap(app)


@pytest.mark.parametrize("options", [{"high_water": 5}, Options(high_water=5)])
def test_options_come_in_either_form_with_keywords_over_them(options: Any) -> None:
    assert streamkit.wrap(wsgi_app, options).options.high_water == 5
    assert streamkit.wrap(asgi_app, options, high_water=6).options.high_water == 6
    assert streamkit.wrap(asgi_app, high_water=7).options.high_water == 7


@pytest.mark.parametrize(
    "middleware", [streamkit.wsgi.StreamingMiddleware, streamkit.asgi.StreamingMiddleware]
)
def test_a_middleware_refuses_what_cannot_be_called(middleware: Any) -> None:
    with pytest.raises(NotAnApplication, match="got None"):
        middleware(None)


def test_without_an_asyncio_loop_the_first_request_says_what_is_wanted() -> None:
    """As on hypercorn's trio worker: nothing of asyncio runs there."""
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    request = streamkit.wrap(app)({"type": "http"}, None, None)  # type: ignore[call-overload]
    with pytest.raises(EngineUnavailable, match="wanted an asyncio event loop"):
        request.send(None)
    assert not reached
