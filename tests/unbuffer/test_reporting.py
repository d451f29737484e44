"""What `report` says of an app that holds its wrap somewhere, and of one that has none."""

from __future__ import annotations

from typing import Any

import pytest

import streamkit
from streamkit import unbuffer
from streamkit.unbuffer.reporting import NOTHING_KNOWN

from .layered import Drip, Page, plain_asgi, plain_wsgi
from .test_odd_layers import Unfriendly

HERE = __name__


class Layer:
    """A WSGI layer that holds nothing, and is taken for one that does by its name."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


class Further(Layer):
    """Another."""


class AsyncLayer:
    """The same for ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


LAYER, FURTHER, ASYNC = f"{HERE}.Layer", f"{HERE}.Further", f"{HERE}.AsyncLayer"


def names(app: Any) -> list[str]:
    report = unbuffer.report(app)
    assert not report.held
    return [taken.name for taken in report.taken]


def test_the_layers_of_a_wrap_that_flask_holds_are_found() -> None:
    flask = pytest.importorskip("flask")
    from werkzeug.middleware.profiler import ProfilerMiddleware

    app = flask.Flask(__name__)
    app.add_url_rule("/page", "page", view_func=lambda: "a page")
    app.wsgi_app = ProfilerMiddleware(app.wsgi_app, stream=None)
    app.wsgi_app = streamkit.wrap(app.wsgi_app)
    before = unbuffer.report(app)
    assert [taken.name for taken in before.taken] == ["werkzeug.middleware.profiler.ProfilerMiddleware"]
    assert before == unbuffer.report(app.wsgi_app)
    assert Page(app).status == 200
    assert unbuffer.report(app) == before
    assert str(before).startswith("bypassed: werkzeug.middleware.profiler.ProfilerMiddleware, ")


def test_the_layers_that_the_flask_extension_took_out_of_the_way_are_found() -> None:
    flask = pytest.importorskip("flask")
    from streamkit.frameworks.flask import StreamKit

    app = flask.Flask(__name__)
    app.wsgi_app = Layer(app.wsgi_app)
    StreamKit(app, {"strip": (LAYER,)})
    assert names(app) == [LAYER]


def test_the_layers_of_a_wrap_that_quart_holds_are_found() -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart(__name__)
    app.asgi_app = streamkit.wrap(AsyncLayer(app.asgi_app), strip=(ASYNC,))
    assert names(app) == [ASYNC]


@pytest.mark.parametrize("module", ["starlette.applications:Starlette", "fastapi:FastAPI"])
def test_the_layers_of_a_wrap_around_a_middleware_stack_are_found(module: str) -> None:
    name, _, attribute = module.partition(":")
    app = getattr(pytest.importorskip(name), attribute)()
    app.add_middleware(AsyncLayer)
    app.middleware_stack = streamkit.wrap(app.build_middleware_stack(), strip=(ASYNC,))
    assert names(app) == [ASYNC]


def test_a_middleware_that_starlette_has_not_made_yet_is_said_to_be_asked_later() -> None:
    applications = pytest.importorskip("starlette.applications")
    app = applications.Starlette()
    app.add_middleware(AsyncLayer)
    app.add_middleware(streamkit.asgi.StreamingMiddleware, strip=(ASYNC,))
    report = unbuffer.report(app)
    assert report.note == str(report)
    assert "app.user_middleware[0], is made at the first request" in report.note
    assert app.middleware_stack is None, "it was built, and nothing can be added to it any more"
    Page(app, kind="asgi")
    assert names(app) == [ASYNC]


def test_a_wrap_that_an_object_of_the_users_own_holds_is_found() -> None:
    class Server:
        def __init__(self, served: Any) -> None:
            self.served = served

    drip = Drip(0.01)
    assert names(Server(streamkit.wrap(Layer(plain_wsgi(drip)), strip=(LAYER,)))) == [LAYER]
    assert names(Server(streamkit.wrap(AsyncLayer(plain_asgi(drip)), strip=(ASYNC,)))) == [ASYNC]


def test_a_layer_that_two_wraps_see_is_named_once_and_one_that_only_the_inner_sees_is_named() -> None:
    inner = streamkit.wrap(Further(Layer(plain_wsgi(Drip(0.01)))), strip=(LAYER, FURTHER))
    assert sorted(names(streamkit.wrap(inner, strip=(LAYER,)))) == [FURTHER, LAYER]


def test_where_there_is_no_wrap_the_report_says_so() -> None:
    report = unbuffer.report(Layer(plain_wsgi(Drip(0.01))))
    assert (report.taken, report.passes, report.held) == ((), (), ())
    assert "no streamkit.wrap" in report.note
    assert str(report) == report.note


def test_a_wrap_that_takes_nothing_out_of_the_way_is_as_none() -> None:
    assert unbuffer.report(streamkit.wrap(Layer(plain_wsgi(Drip(0.01))), strip=())).note


def test_where_nothing_holds_streams_the_report_says_that() -> None:
    report = unbuffer.report(streamkit.wrap(Layer(plain_wsgi(Drip(0.01)))))
    assert (report, str(report)) == (unbuffer.Report(), NOTHING_KNOWN)


NO_APPS = [None, 5, "app", {}, [], object(), object]


@pytest.mark.parametrize("value", NO_APPS, ids=lambda value: type(value).__name__)
def test_what_is_no_app_is_told_that_nothing_was_found(value: Any) -> None:
    assert unbuffer.report(value).note


@pytest.mark.parametrize("around", [lambda app: app, lambda app: streamkit.wrap(app, kind="wsgi")])
def test_that_an_app_fails_when_it_is_looked_at_is_said(around: Any) -> None:
    app = around(Unfriendly(plain_wsgi(Drip(0.01))))
    report = unbuffer.report(app)
    assert report.note == str(report)
    assert "not all layers could be looked for: RuntimeError: not my class" in report.note


def test_a_method_of_the_users_own_that_bears_our_name_is_not_called() -> None:
    class Own(Layer):
        def _stripped(self) -> None:
            raise AssertionError("it was called")

    assert unbuffer.report(Own(plain_wsgi(Drip(0.01)))).note
