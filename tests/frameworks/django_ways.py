"""A Django site that is made anew for each test, under WSGI or ASGI, and its views.

    with Site("asgi") as site:
        client = site.client(view, middleware=[SESSIONS])      # the view stands at /
        client.get("/")

Rule: a test overrides what it is about; when the site is left, all is as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import path

import streamkit
from streamkit.frameworks.django import live, respond
from streamkit.testing import Client

from .django_site import OURS
from .programs import Program, producer_of, view_of

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
INTERFACES = ["wsgi", "asgi"]


class Urls:
    """What `ROOT_URLCONF` may be besides a module."""

    def __init__(self, patterns: Iterable[Any], **more: Any) -> None:
        self.urlpatterns = list(patterns)
        self.__dict__.update(more)


class Site:
    """Sites for one interface; what they override is as before when it is left."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._opened = ExitStack()

    def handler(
        self, view: Any, *, middleware: Iterable[str] = (), first: str | None = OURS, **given: Any
    ) -> Callable[..., Any]:
        """Django's own handler for a site with this view, or these patterns."""
        urls = Urls([path("", view, name="view")] if callable(view) else view)
        chain = [*([first] if first else ()), *middleware]
        self._opened.enter_context(override_settings(MIDDLEWARE=chain, ROOT_URLCONF=urls, **given))
        return ASGIHandler() if self.interface == "asgi" else WSGIHandler()

    def client(self, view: Any, *, wrapped: Any = None, **given: Any) -> Client:
        """An open client of such a site, which `wrapped` has `streamkit.wrap`ped with these options."""
        app = self.handler(view, **given)
        if wrapped is not None:
            app = streamkit.wrap(app, wrapped)
        return self._opened.enter_context(Client(app, timeout=20.0))

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._opened.__exit__(*exc_info)


class LiveWay:
    """One interface and one kind of view."""

    def __init__(self, site: Site, kind: str) -> None:
        self.site, self.kind, self.interface = site, kind, site.interface

    def view(self, program: Program) -> Any:
        return live(view_of(self.kind, program))

    def client(self, program: Program, **given: Any) -> Any:
        """A client of a site whose one view is this program, live."""
        return self.site.client(self.view(program), **given)


def responding(kind: str, describe: Callable[[], Any], **more: Any) -> Any:
    """A view that responds with what is described."""

    def view(request: Any, **values: Any) -> Any:
        return respond(request, describe(), **more)

    async def view_async(request: Any, **values: Any) -> Any:
        return respond(request, describe(), **more)

    return view if kind == "sync" else view_async


class Way:
    """One interface, one kind of view, one kind of producer."""

    def __init__(self, site: Site, view: str, producer: str) -> None:
        self.site, self.interface = site, site.interface
        self.kind, self.producer = view, producer

    def view(self, program: Program, **described: Any) -> Any:
        producer = lambda: producer_of(self.producer, program)  # noqa: E731
        return responding(self.kind, lambda: streamkit.stream(producer(), **described))

    def client(self, program: Program, described: Any = None, **given: Any) -> Any:
        return self.site.client(self.view(program, **(described or {})), **given)
