"""Context variables of a request in each framework: the producer's too, but for those that are excluded.

Rule: what middleware sets is what a producer sees; the next request sees nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

import streamkit
from streamkit.testing import Client

from .programs import view_of

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
locale: ContextVar[str] = ContextVar("locale", default="none")
left_behind: ContextVar[str] = ContextVar("left_behind", default="nothing")

KINDS = ("sync", "async")
BODY = b"ann none nothing"
OPTIONS = {"excluded_context": ("locale",)}


def program(request: Any, stream: Any) -> Iterator[Any]:
    yield f"{tenant.get()} {locale.get()} "
    yield left_behind.get()
    left_behind.set("something")


def produce(stream: Any) -> None:
    for chunk in program(None, stream):
        stream.write(chunk)


@contextmanager
def flask_client(kind: str) -> Iterator[Client]:
    flask = pytest.importorskip("flask")
    from streamkit.frameworks.flask import StreamKit, live

    app, inner = flask.Flask("tenants"), view_of(kind, program)
    app.config["STREAMKIT"] = OPTIONS
    StreamKit(app)

    @app.before_request  # type: ignore[untyped-decorator]
    def note() -> None:
        tenant.set("ann")
        locale.set("de")

    def view(stream: Any) -> Any:
        return inner(None, stream)

    async def view_async(stream: Any) -> Any:
        return await inner(None, stream)

    app.add_url_rule("/live", "live", live(view if kind == "sync" else view_async))
    app.add_url_rule("/described", "described", lambda: streamkit.stream(produce))
    with Client(app) as client:
        yield client


def set_by_middleware(get_response: Any) -> Any:
    def note(request: Any) -> Any:
        tokens = tenant.set("ann"), locale.set("de")
        try:
            return get_response(request)
        finally:  # under WSGI the context is the server thread's
            tenant.reset(tokens[0])
            locale.reset(tokens[1])

    return note


@contextmanager
def django_client(interface: str, kind: str) -> Iterator[Client]:
    pytest.importorskip("django")
    from django.urls import path

    from streamkit.frameworks.django import live, respond

    from .django_ways import Site

    pages = [
        path("live", live(view_of(kind, program))),
        path("described", lambda request: respond(request, streamkit.stream(produce))),
    ]
    layer = f"{__name__}.set_by_middleware"
    with Site(interface) as site:
        yield site.client(pages, middleware=[layer], STREAMKIT=OPTIONS)


@contextmanager
def starlette_client(kind: str) -> Iterator[Client]:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.routing import Route

    from streamkit.frameworks.starlette import live, respond

    async def described(request: Any) -> Any:
        return respond(streamkit.stream(produce))

    inner = view_of(kind, program)

    def view(request: Any, stream: Any) -> Any:
        return inner(request, stream)

    async def view_async(request: Any, stream: Any) -> Any:
        return await inner(request, stream)

    routed = Starlette(
        routes=[
            Route("/live", live(view if kind == "sync" else view_async)),
            Route("/described", described),
        ]
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tenant.set("ann")
        locale.set("de")
        await routed(scope, receive, send)

    with Client(streamkit.wrap(app, OPTIONS)) as client:
        yield client


CLIENTS: dict[str, Callable[[str], Any]] = {
    "flask": flask_client,
    "django-wsgi": lambda kind: django_client("wsgi", kind),
    "django-asgi": lambda kind: django_client("asgi", kind),
    "starlette": starlette_client,
}


@pytest.mark.parametrize("framework", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", ["live", "described"])
def test_a_producer_has_the_variables_of_its_request_but_for_the_excluded(
    framework: str, kind: str, page: str
) -> None:
    with CLIENTS[framework](kind) as client:
        assert [client.get(f"/{page}").read() for _ in range(3)] == [BODY] * 3
    assert tenant.get() == "nobody"
