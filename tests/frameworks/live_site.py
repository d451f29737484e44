"""The pages of `live_pages` in each framework, for real servers.

    gunicorn frameworks.live_site:flask_app
    uvicorn frameworks.live_site:starlette_app

Rule: an app is set up as users do it, with middleware of the usual kinds around it.
"""

from __future__ import annotations

import logging
from typing import Any

import streamkit

from .live_pages import PAGES, TEMPLATES, Ways, export, page_wishes, release, what_was_seen
from .programs import view_of

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")

KINDS = ("sync", "async")


# ---------------------------------------------------------------- Flask


def _flask_app() -> Any:
    import flask
    from jinja2 import DictLoader

    from streamkit.frameworks.flask import StreamKit, live

    class FlaskWays(Ways):
        def query(self, name: str) -> str:
            return flask.request.args.get(name, "")

        def session(self) -> Any:
            return flask.session

        def missing(self) -> BaseException:
            from werkzeug.exceptions import NotFound

            return NotFound()

        def whole(self, text: str, status: int = 200) -> Any:
            return flask.Response(text, status)

        def if_none_match(self) -> str | None:
            return flask.request.headers.get("If-None-Match")

    app = flask.Flask("live_site")
    app.secret_key = "only for tests"
    app.jinja_loader = DictLoader(TEMPLATES)
    kit = StreamKit(app)

    def add(kind: str, page: Any) -> None:
        inner = view_of(kind, lambda request, stream, name: page(FlaskWays(request), stream, name))

        def view(stream: Any, name: str) -> Any:
            return inner(None, stream, name)

        async def view_async(stream: Any, name: str) -> Any:
            return await inner(None, stream, name)

        path = f"/{kind}/{page.__name__}/<name>"
        app.add_url_rule(path, path, live(view if kind == "sync" else view_async))

    for kind in KINDS:
        for page in PAGES:
            add(kind, page)
    app.add_url_rule("/export", "export", lambda: export(FlaskWays(None)))
    app.add_url_rule(
        "/page", "page", lambda: kit.templates.chunked("page.html", **page_wishes(FlaskWays(None)))
    )
    app.add_url_rule("/release", "release", lambda: release(FlaskWays(None).key))
    app.add_url_rule("/seen", "seen", lambda: what_was_seen(FlaskWays(None).key))
    app.add_url_rule("/plain", "plain", lambda: "plain")

    @app.after_request  # type: ignore[untyped-decorator]
    def note(response: Any) -> Any:
        response.headers["X-Middleware"] = "1"
        return response

    return app


# ---------------------------------------------------------------- Django


def _set_up_django() -> None:
    from django.conf import settings
    from django.urls import path
    from jinja2 import DictLoader

    from streamkit.frameworks.django import Templates, live, respond

    from . import django_site  # noqa: F401  # sets Django up

    class DjangoWays(Ways):
        def query(self, name: str) -> str:
            return str(self.request.GET.get(name, ""))

        def session(self) -> Any:
            return self.request.session

        def missing(self) -> BaseException:
            from django.http import Http404

            return Http404()

        def whole(self, text: str, status: int = 200) -> Any:
            from django.http import HttpResponse

            return HttpResponse(text, status=status)

        def if_none_match(self) -> str | None:
            value: str | None = self.request.headers.get("If-None-Match")
            return value

    def view(kind: str, page: Any) -> Any:
        return live(view_of(kind, lambda request, stream, name: page(DjangoWays(request), stream, name)))

    def answered(answer: Any) -> Any:
        from django.http import HttpResponse

        return lambda request: HttpResponse(answer(DjangoWays(request).key))

    patterns = [path(f"{kind}/{page.__name__}/<name>", view(kind, page)) for kind in KINDS for page in PAGES]
    patterns.append(path("export", lambda request: respond(request, export(DjangoWays(request)))))
    pages = Templates()
    patterns.append(
        path("page", lambda request: pages.chunked(request, "page.html", **page_wishes(DjangoWays(request))))
    )
    patterns += [path("release", answered(release)), path("seen", answered(what_was_seen))]
    patterns.append(path("plain", answered(lambda key: "plain")))
    settings.ROOT_URLCONF = tuple(patterns)
    jinja2 = "django.template.backends.jinja2.Jinja2"
    settings.TEMPLATES = [{"BACKEND": jinja2, "OPTIONS": {"loader": DictLoader(TEMPLATES)}}]
    settings.MIDDLEWARE = [
        "streamkit.frameworks.django.StreamKitMiddleware",
        "frameworks.live_site.note_in_django",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ]


def note_in_django(get_response: Any) -> Any:
    """A middleware of one kind only, as most are."""

    def note(request: Any) -> Any:
        response = get_response(request)
        response.headers["X-Middleware"] = "1"
        return response

    return note


def _django_wsgi_app() -> Any:
    _set_up_django()
    from django.core.handlers.wsgi import WSGIHandler

    return WSGIHandler()


def _django_asgi_app() -> Any:
    _set_up_django()
    from django.core.handlers.asgi import ASGIHandler

    return ASGIHandler()


# ---------------------------------------------------------------- Starlette and FastAPI


class StarletteWays(Ways):
    def query(self, name: str) -> str:
        return str(self.request.query_params.get(name, ""))

    def session(self) -> Any:
        return self.request.session

    def missing(self) -> BaseException:
        from starlette.exceptions import HTTPException

        return HTTPException(404)

    def whole(self, text: str, status: int = 200) -> Any:
        from starlette.responses import PlainTextResponse, Response

        return PlainTextResponse(text) if text else Response(status_code=status)

    def if_none_match(self) -> str | None:
        value: str | None = self.request.headers.get("If-None-Match")
        return value


def _starlette_middleware() -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.sessions import SessionMiddleware

    async def note(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Middleware"] = "1"
        return response

    return [
        Middleware(streamkit.asgi.StreamingMiddleware),
        Middleware(BaseHTTPMiddleware, dispatch=note),
        Middleware(SessionMiddleware, secret_key="only for tests"),
    ]


def _add_starlette_pages(add: Any) -> None:
    from jinja2 import DictLoader, Environment
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.templating import Jinja2Templates

    from streamkit.frameworks.starlette import Templates, live

    pages = Templates(Jinja2Templates(env=Environment(loader=DictLoader(TEMPLATES), autoescape=True)))

    async def page(request: Any) -> Any:
        return pages.chunked(request, "page.html", **page_wishes(StarletteWays(request)))

    page.__annotations__["request"] = Request
    add("/page", page, ["GET"])

    def endpoint(kind: str, page: Any) -> Any:
        def program(request: Any, stream: Any) -> Any:
            return page(StarletteWays(request), stream, request.path_params["name"])

        inner = view_of(kind, program)

        def view(request: Any, stream: Any) -> Any:
            return inner(request, stream)

        async def view_async(request: Any, stream: Any) -> Any:
            return await inner(request, stream)

        return live(view if kind == "sync" else view_async)

    def answered(answer: Any) -> Any:
        async def endpoint(request: Any) -> Any:
            return PlainTextResponse(answer(StarletteWays(request).key))

        endpoint.__annotations__["request"] = Request  # FastAPI cannot look it up by its name here
        return endpoint

    for kind in KINDS:
        for page in PAGES:
            add(f"/{kind}/{page.__name__}/{{name}}", endpoint(kind, page), ["GET", "HEAD"])
    for path, answer in (("/release", release), ("/seen", what_was_seen), ("/plain", lambda key: "plain")):
        add(path, answered(answer), ["GET"])


def _starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    async def exported(request: Request) -> Any:
        return export(StarletteWays(request))

    routes: list[Any] = [Route("/export", exported)]
    _add_starlette_pages(
        lambda path, endpoint, methods: routes.append(Route(path, endpoint, methods=methods))
    )
    return Starlette(routes=routes, middleware=_starlette_middleware())


def _fastapi_app() -> Any:
    from fastapi import FastAPI
    from starlette.requests import Request

    from streamkit.frameworks.fastapi import StreamKitRoute

    app = FastAPI(middleware=_starlette_middleware())
    app.router.route_class = StreamKitRoute

    def exported(request: Any) -> Any:
        return export(StarletteWays(request))

    exported.__annotations__["request"] = Request  # it cannot be looked up by its name here
    app.add_api_route("/export", exported, methods=["GET", "HEAD"])
    _add_starlette_pages(lambda path, endpoint, methods: app.add_api_route(path, endpoint, methods=methods))
    return app


_APPS = {
    "flask_app": _flask_app,
    "django_wsgi_app": _django_wsgi_app,
    "django_asgi_app": _django_asgi_app,
    "starlette_app": _starlette_app,
    "fastapi_app": _fastapi_app,
}


def __getattr__(name: str) -> Any:
    """The apps, each made when a server asks for it: none needs the frameworks of the others."""
    if name not in _APPS:
        raise AttributeError(name)
    app = globals()[name] = _APPS[name]()
    return app
