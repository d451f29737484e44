"""Flask's hooks and Django's middleware.

Rule: a layer is what somebody could have in production. Those that are ours follow idioms of the field.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flask
import frameworks.django_site  # noqa: F401  # it configures Django, once for all tests
from django.urls import path as url
from werkzeug.middleware.proxy_fix import ProxyFix

from streamkit.unbuffer.known import KNOWN

from .layers_wsgi import PROFILER, HoldsFourKilobytes
from .parts import CHUNK, CHUNKS, Part

HERE = __name__
DJANGO_GZIP = "django.middleware.gzip.GZipMiddleware"
DJANGO_GZIP_STREAMS = KNOWN[DJANGO_GZIP].passes is not None  # the installed one, or it is guilty

# ---------------------------------------------------------------- Flask


def flask_adds_etag(response: Any) -> Any:
    response.add_etag()
    return response.make_conditional(flask.request)


def flask_logs_the_body(response: Any) -> Any:
    flask.g.logged = response.get_data()
    return response


def flask_logs_the_length(response: Any) -> Any:
    flask.g.logged = response.calculate_content_length()
    return response


def flask_gzips(response: Any) -> Any:
    response.set_data(gzip.compress(response.get_data()))
    response.headers["Content-Encoding"] = "gzip"
    return response


def flask_holds_blocks(response: Any) -> Any:
    response.response = HoldsFourKilobytes(None)._blocks(response.response)
    return response


def flask_adds_a_header(response: Any) -> Any:
    response.headers["X-Frame-Options"] = "DENY"
    return response


def flask_tags_what_is_whole(response: Any) -> Any:
    if not response.is_streamed:
        response.add_etag()
    return response


def flask_shouts(response: Any) -> Any:
    response.response = (chunk.replace(b"<p>", b"<p class='wide'>") for chunk in response.response)
    return response


def flask_sets_a_cookie(response: Any) -> Any:
    response.set_cookie("seen", "1")
    return response


FLASK_GUILTY = [
    *(
        Part(one, f"{HERE}.{one.__name__}")
        for one in (
            flask_adds_etag,
            flask_logs_the_body,
            flask_logs_the_length,
            flask_gzips,
            flask_holds_blocks,
        )
    ),
    PROFILER,
]
FLASK_INNOCENT = [
    *(
        Part(one, one.__name__)
        for one in (flask_adds_a_header, flask_tags_what_is_whole, flask_shouts, flask_sets_a_cookie)
    ),
    Part(ProxyFix, "ProxyFix"),
]


def flask_stack(chosen: list[Part]) -> tuple[Any, AbstractContextManager[Any]]:
    app = flask.Flask("stacks")
    app.add_url_rule(
        "/page", "page", lambda: flask.Response(iter([CHUNK] * CHUNKS), content_type="text/html")
    )
    for part in chosen:
        if part.name.rpartition(".")[2].startswith("flask_"):
            app.after_request(part.put)
        else:
            app.wsgi_app = part.put(app.wsgi_app)  # type: ignore[method-assign]
    return app, nullcontext()


# ---------------------------------------------------------------- Django


def django_view(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(iter([CHUNK] * CHUNKS), content_type="text/html")


def django_joins(get_response: Callable[[Any], Any]) -> Any:
    def joining(request: Any) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = iter([b"".join(response.streaming_content)])
        return response

    return joining


class DjangoTagsContent:
    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        response["ETag"] = hashlib.md5(response.content).hexdigest()  # a stream has no content
        return response


class DjangoHoldsBlocks:
    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        response.streaming_content = HoldsFourKilobytes(None)._blocks(response.streaming_content)
        return response


def django_notes(get_response: Callable[[Any], Any]) -> Any:
    def noting(request: Any) -> Any:
        response = get_response(request)
        response["X-Noted"] = "1"
        return response

    return noting


DJANGO_GUILTY = [
    Part(f"{HERE}.django_joins", f"{HERE}.django_joins.<locals>.joining"),
    Part(f"{HERE}.DjangoTagsContent", f"{HERE}.DjangoTagsContent"),
    Part(f"{HERE}.DjangoHoldsBlocks", f"{HERE}.DjangoHoldsBlocks"),
]
DJANGO_INNOCENT = [
    Part(name, name)
    for name in (
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        f"{HERE}.django_notes",
    )
]
(DJANGO_INNOCENT if DJANGO_GZIP_STREAMS else DJANGO_GUILTY).append(Part(DJANGO_GZIP, DJANGO_GZIP))


def django_stack(chosen: list[Part]) -> tuple[Any, AbstractContextManager[Any]]:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    settings = override_settings(MIDDLEWARE=[part.put for part in chosen], ROOT_URLCONF=HERE)
    with settings:
        return WSGIHandler(), settings


urlpatterns = [url("page", django_view)]
