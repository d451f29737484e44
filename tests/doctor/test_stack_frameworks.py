"""The layers of frameworks: which is named, and where it is said to stand."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import frameworks.django_site  # it configures Django, once for all tests
import pytest
from django.urls import path as url

from streamkit.doctor import Diagnosis, Severity
from streamkit.doctor.stack import examine
from streamkit.unbuffer.layers import name_of

from . import layers_asgi as asgi
from . import layers_frameworks as frameworks
from . import layers_wsgi as wsgi
from . import parts
from .layers_frameworks import FLASK_GUILTY, FLASK_INNOCENT, flask_stack


def fault(diagnosis: Diagnosis) -> Any:
    """The one fault that there is."""
    [found] = [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT]
    return found


# ---------------------------------------------------------------- Django


def iterated(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(iter([parts.CHUNK] * 4), content_type="text/html")


async def awaited(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield parts.CHUNK

    return StreamingHttpResponse(chunks(), content_type="text/html")


class AsyncJoins:
    """A middleware for async views alone."""

    sync_capable, async_capable = False, True

    def __init__(self, get_response: Any) -> None:
        from asgiref.sync import markcoroutinefunction

        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        response = await self.get_response(request)
        body = b"".join([chunk async for chunk in response.streaming_content])

        async def again() -> AsyncIterator[bytes]:
            yield body

        response.streaming_content = again()
        return response


urlpatterns = [url("iterated", iterated), url("awaited", awaited)]

INNOCENT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]


def examine_django(kind: str, path: str, *middleware: str) -> Diagnosis:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    with override_settings(MIDDLEWARE=[*INNOCENT, *middleware], ROOT_URLCONF=__name__):
        return examine((WSGIHandler if kind == "wsgi" else ASGIHandler)(), path)


@pytest.mark.skipif(frameworks.DJANGO_GZIP_STREAMS, reason="Django's GZipMiddleware streams from 6.1 on")
def test_a_django_middleware_is_named_with_its_place_in_the_setting() -> None:
    found = fault(examine_django("wsgi", "/iterated", "django.middleware.gzip.GZipMiddleware"))
    assert found.code == "layer-header-only"
    assert found.guilty == "django.middleware.gzip.GZipMiddleware"
    assert found.configured.startswith("settings.MIDDLEWARE[3] (")
    assert any('"Content-Encoding"' in line for advice in found.advice for line in advice.lines)


def test_an_async_django_middleware_is_named() -> None:
    found = fault(examine_django("asgi", "/awaited", f"{__name__}.AsyncJoins"))
    assert (found.code, found.guilty) == ("layer-buffers", f"{__name__}.AsyncJoins")


def test_a_sync_django_middleware_under_asgi_is_named() -> None:
    found = fault(examine_django("asgi", "/awaited", name_of(frameworks.DjangoTagsContent)))
    assert (found.code, found.guilty) == ("layer-raises", name_of(frameworks.DjangoTagsContent))


def test_an_innocent_django_site_streams_under_asgi() -> None:
    diagnosis = examine_django("asgi", "/awaited", "django.middleware.http.ConditionalGetMiddleware")
    assert not diagnosis.findings
    assert diagnosis.layers[-1] == f"{__name__}.awaited"


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize(
    ("kind", "view", "what"),
    [("asgi", "iterated", "a sync iterator under ASGI"), ("wsgi", "awaited", "an async iterator under WSGI")],
)
def test_a_django_view_whose_body_is_of_the_other_kind_is_named_and_its_handler_is_not(
    kind: str, view: str, what: str
) -> None:
    found = fault(examine_django(kind, f"/{view}"))
    assert (found.code, found.guilty) == ("sync-async", f"{__name__}.{view}")
    assert what in found.sentence


# ---------------------------------------------------------------- Flask


def test_a_flask_hook_is_named_with_the_file_and_line_of_its_function() -> None:
    app, _ = flask_stack([FLASK_INNOCENT[0], FLASK_GUILTY[0], FLASK_INNOCENT[2]])
    diagnosis = examine(app, "/page")
    found = fault(diagnosis)
    line = frameworks.flask_adds_etag.__code__.co_firstlineno
    assert found.configured == f"app.after_request ({frameworks.__file__}:{line})"
    assert f"{frameworks.HERE}.flask_stack.<locals>.<lambda>" in diagnosis.layers


def test_a_hook_of_a_blueprint_is_asked_for_the_paths_of_the_blueprint_alone() -> None:
    import flask

    app = flask.Flask("blueprints")
    shop = flask.Blueprint("shop", "shop")
    shop.after_request(frameworks.flask_logs_the_body)
    view = functools.partial(flask.Response, content_type="text/html")
    shop.add_url_rule("/shop", "page", lambda: view(iter([parts.CHUNK] * 4)))
    app.add_url_rule("/page", "page", lambda: view(iter([parts.CHUNK] * 4)))
    app.register_blueprint(shop)
    assert fault(examine(app, "/shop")).guilty == name_of(frameworks.flask_logs_the_body)
    assert examine(app, "/page").status == 0


def test_a_flask_page_that_is_not_there_accuses_nobody() -> None:
    app, _ = flask_stack([FLASK_INNOCENT[0], FLASK_GUILTY[0]])
    # The probe stream stands in the place of the view that is missing.
    assert fault(examine(app)).guilty == name_of(frameworks.flask_adds_etag)


def test_a_hook_behind_another_that_holds_is_named_too() -> None:
    app, _ = flask_stack([FLASK_GUILTY[1], FLASK_INNOCENT[1], FLASK_GUILTY[4]])
    # Flask calls the last one first.
    names = [finding.guilty for finding in examine(app, "/page").findings]
    assert names == [name_of(frameworks.flask_logs_the_body), name_of(frameworks.flask_holds_blocks)]


# ---------------------------------------------------------------- Starlette and FastAPI


def test_a_starlette_middleware_is_named_with_its_place_in_the_list() -> None:
    app, _ = asgi.starlette_stack(
        [asgi.STARLETTE_INNOCENT[1], asgi.STARLETTE_INNOCENT[0], asgi.STARLETTE_GUILTY[0]]
    )
    found = fault(examine(app, "/page"))
    line = asgi.etag_of_the_body.__code__.co_firstlineno
    assert found.configured == f"app.user_middleware[2] ({asgi.__file__}:{line})"


def test_a_fastapi_middleware_is_named_before_and_after_the_first_request() -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.add_route("/page", asgi.starlette_view)
    app.middleware("http")(asgi.etag_of_the_body)
    app.add_middleware(asgi.TimesRequests)
    for _ in range(2):
        found = fault(examine(app, "/page"))
        assert found.guilty == f"{asgi.HERE}.etag_of_the_body (starlette.middleware.base.BaseHTTPMiddleware)"
        app.middleware_stack = app.build_middleware_stack()


# ---------------------------------------------------------------- others


def joining_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.body  # noqa: B018 -- reading it is what holds the stream
        return response

    return tween


def innocent_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.headers["X-Seen"] = "1"
        return response

    return tween


@pytest.mark.filterwarnings("ignore:pkg_resources:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning")
def test_a_tween_of_pyramid_is_named() -> None:
    pytest.importorskip("pyramid")
    from pyramid.config import Configurator
    from pyramid.response import Response

    def page(request: Any) -> Any:
        return Response(app_iter=iter([parts.CHUNK] * 4), content_type="text/html")

    def site(*tweens: str) -> Any:
        config = Configurator()
        config.add_route("page", "/page")
        config.add_view(page, route_name="page")
        for tween in tweens:
            config.add_tween(f"{__name__}.{tween}")
        return config.make_wsgi_app()

    found = fault(examine(site("innocent_tween", "joining_tween"), "/page"))
    assert found.guilty == f"{__name__}.joining_tween.<locals>.tween"
    assert examine(site("innocent_tween"), "/page").status == 0


def test_webob_is_accused_with_the_reason_that_the_app_inside_it_starts_late() -> None:
    def starts_late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        yield from [parts.CHUNK] * 4

    found = fault(examine(wsgi.adds_a_header(wsgi.webob_header(starts_late))))
    assert found.guilty == f"{wsgi.HERE}.webob_header (webob.dec.wsgify)"
    assert any("start_response only as its body is read" in said for said in found.evidence)


def test_an_app_of_quart_is_asked_and_not_disturbed() -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart("quiet")

    @app.get("/page")
    async def page() -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield parts.CHUNK

        return chunks(), {"Content-Type": "text/html"}

    @app.after_request
    async def adds(response: Any) -> Any:
        response.headers["X-Seen"] = "1"
        return response

    assert examine(app, "/page").status == 0


def test_layers_that_streamkit_leads_streams_past_are_not_accused() -> None:
    import streamkit

    app, _ = flask_stack([FLASK_INNOCENT[0], FLASK_GUILTY[0], FLASK_GUILTY[5]])
    assert examine(app, "/page").status == 1
    assert examine(streamkit.wrap(app), "/page").status == 0
