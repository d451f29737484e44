"""The tree of an app's layers, and putting one in another's place.

Rule: no app here is ever called, but for those that are called through a relinked layer.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import Any

import pytest

from streamkit.unbuffer.layers import Layer, kind_of_layer, relink, tree

HERE = __name__


def inner(environ: Any, start_response: Any) -> Any:
    raise AssertionError("no app is called to find its layers")


async def inner_async(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no app is called to find its layers")


def other(environ: Any, start_response: Any) -> Any:
    return [b"other"]


class ByAttribute:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


class BySlot(ByAttribute):
    __slots__ = ("_wrapped",)

    def __init__(self, app: Any) -> None:
        self._wrapped = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._wrapped(environ, start_response)


class ByHelper(ByAttribute):
    class Part:
        def __init__(self, app: Any) -> None:
            self.app = app

    def __init__(self, app: Any) -> None:
        self.parts = {"one": self.Part(app), "two": self.Part(app)}
        self._part = self.Part(app)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._part.app(environ, start_response)


class ByList(ByAttribute):
    def __init__(self, app: Any) -> None:
        self.apps = [app]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.apps[0](environ, start_response)


class ByNamedTuple(ByAttribute):
    Pair = namedtuple("Pair", "app name")

    def __init__(self, app: Any) -> None:
        self.pair = self.Pair(app, "x")

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.pair.app(environ, start_response)


def by_closure(app: Any) -> Any:
    def layer(environ: Any, start_response: Any) -> Any:
        return app(environ, start_response)

    return layer


def by_keyword(app: Any) -> Any:
    return functools.partial(_called, application=app)


def _called(environ: Any, start_response: Any, *, application: Any) -> Any:
    return application(environ, start_response)


HOLDING = [ByAttribute, BySlot, ByHelper, ByList, ByNamedTuple, by_closure, by_keyword]


def names(root: Layer) -> list[str]:
    return [layer.name.removeprefix(f"{HERE}.") for layer in root.walk()]


@pytest.mark.parametrize("hold", HOLDING)
def test_an_inner_app_is_found_however_it_is_held(hold: Any) -> None:
    root = tree(hold(inner))
    (child,) = root.children
    assert child.object is inner
    assert (child.kind, child.parent) == ("wsgi", root)


@pytest.mark.parametrize("hold", HOLDING)
def test_every_holder_of_an_inner_app_is_relinked_and_put_back(hold: Any) -> None:
    app = hold(inner)
    (child,) = tree(app).children
    with relink(child, other) as relinked:
        assert relinked.complete
        assert child.standing is other
        assert app({}, None) == [b"other"]
        assert [found.object for found in tree(app).children] == [other]
    assert child.standing is inner
    assert [found.object for found in tree(app).children] == [inner]
    relinked.undo()  # a second time it does nothing


def test_an_app_of_any_arguments_is_relinked_also_where_its_name_tells_nothing() -> None:
    class CallsAnother(ByAttribute):
        """It calls its app by another name than the one under which an app is looked for."""

        def __init__(self, app: Any) -> None:
            self.current = self.app = app

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.current(environ, start_response)

    def either(*arguments: Any) -> Any:
        raise AssertionError("it was called")

    app = CallsAnother(either)
    (child,) = tree(app).children
    assert (child.kind, sorted(holder.path for holder in child.holders)) == ("unknown", ["app", "current"])
    with relink(child, other):
        assert app({}, None) == [b"other"]
    assert app.current is app.app is either


def test_what_cannot_be_relinked_is_named_and_the_rest_put_back() -> None:
    app = functools.partial(_positional, inner)
    (child,) = tree(app).children
    relinked = relink(child, other)
    assert not relinked.complete
    assert relinked.held == ["partial.args[0]"]


def _positional(app: Any, environ: Any, start_response: Any) -> Any:
    return app(environ, start_response)


def test_a_layer_with_several_apps_has_several_children() -> None:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    root = tree(DispatcherMiddleware(inner, {"/other": other}))
    assert {child.path: child.object for child in root.children} == {"app": inner, "mounts['/other']": other}


def test_layers_stand_in_the_tree_as_they_stand_in_the_stack() -> None:
    root = tree(ByAttribute(by_closure(BySlot(inner))))
    assert names(root) == ["ByAttribute", "by_closure.<locals>.layer", "BySlot", "inner"]
    assert [layer.depth for layer in root.walk()] == [0, 1, 2, 3]
    assert list(root.walk())[-1].full_path == "app.app.closure:app._wrapped"


def test_a_layer_may_be_replaced_again() -> None:
    app = ByAttribute(inner)
    (child,) = tree(app).children
    first, second = relink(child, other), relink(child, inner_async)
    assert app.app is inner_async
    second.undo()
    assert app.app is other
    first.undo()
    assert app.app is inner


def test_an_app_that_refers_to_its_own_stack_ends_the_tree() -> None:
    low = ByAttribute(inner)
    high = ByAttribute(low)
    low.top = high  # type: ignore[attr-defined]
    assert names(tree(high)) == ["ByAttribute", "ByAttribute", "inner"]


def test_no_property_is_read() -> None:
    class Nosy(ByAttribute):
        @property
        def application(self) -> Any:
            raise AssertionError("a property was read")

    assert len(list(tree(Nosy(inner)).walk())) == 2


def test_a_proxy_is_looked_through_by_what_it_is_not_by_what_it_says() -> None:
    wrapt = pytest.importorskip("wrapt")
    proxy = wrapt.FunctionWrapper(inner, lambda wrapped, instance, args, kwargs: wrapped(*args))
    app = ByAttribute(proxy)
    assert [layer.object for layer in tree(app).walk()] == [app, proxy, inner]


def test_a_local_of_werkzeugs_is_left_alone() -> None:
    flask = pytest.importorskip("flask")
    app = ByAttribute(inner)
    app.request = flask.request  # type: ignore[attr-defined]
    app.wsgi_app = flask.current_app  # type: ignore[attr-defined]
    assert len(list(tree(app).walk())) == 2


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (inner, "wsgi"),
        (inner_async, "asgi"),
        (lambda request: None, "request"),
        (lambda *args: None, "unknown"),
        (lambda a, b, c, d: None, None),
        ("text", None),
        (ByAttribute, None),
    ],
)
def test_a_layers_kind_is_told_from_how_it_is_called(app: Any, kind: str | None) -> None:
    assert kind_of_layer(app) == kind


def test_where_a_layer_stands_names_its_file_and_line() -> None:
    (child,) = tree(ByAttribute(inner)).children
    assert child.where.setting == "app.app"
    assert child.where.file == __file__
    assert child.where.line == inner.__code__.co_firstlineno


# ---------------------------------------------------------------- frameworks


def test_flasks_chain_and_its_after_request_functions_are_found() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("layers")
    app.wsgi_app = ByAttribute(app.wsgi_app)
    seen: list[Any] = []

    @app.after_request
    def hook(response: Any) -> Any:
        return response

    @app.get("/")
    def index() -> str:
        return "hello"

    layers = {layer.name: layer for layer in tree(app).walk()}
    assert layers["flask.app.Flask.wsgi_app"].path == "app"
    found = next(layer for layer in layers.values() if layer.kind == "hook")
    assert found.where.setting == "app.after_request"
    with relink(found, lambda response: (seen.append(response), response)[1]):
        app.test_client().get("/")
    assert len(seen) == 1
    app.test_client().get("/")
    assert len(seen) == 1


def test_starlettes_middleware_is_found_before_and_after_its_stack_is_built() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Mount

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    mounted = Starlette(middleware=[Middleware(GZipMiddleware)])
    app = Starlette(routes=[Mount("/in", app=mounted)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    before = [layer for layer in tree(app).walk() if layer.kind == "entry"]
    assert [layer.name.rpartition(".")[2] for layer in before] == ["BaseHTTPMiddleware", "GZipMiddleware"]
    assert before[0].where.setting == "app.user_middleware[0]"
    assert before[0].calls == f"{HERE}.{dispatch.__qualname__}"
    app.middleware_stack = app.build_middleware_stack()
    after = [
        layer for layer in tree(app).walk() if layer.name.endswith((".BaseHTTPMiddleware", ".GZipMiddleware"))
    ]
    assert [(layer.kind, layer.name.rpartition(".")[2]) for layer in after] == [
        ("asgi", "BaseHTTPMiddleware"),
        ("entry", "GZipMiddleware"),
    ]
    assert after[0].calls == f"{HERE}.{dispatch.__qualname__}"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_djangos_middleware_is_found_with_its_place_in_the_settings(interface: str) -> None:
    pytest.importorskip("django")
    from django.test import override_settings

    from .django_pages import SETTINGS, site
    from .layered import Drip

    chosen = [
        "django.middleware.common.CommonMiddleware",
        f"{HERE.rpartition('.')[0]}.django_pages.with_digest",
    ]
    with override_settings(**SETTINGS, MIDDLEWARE=chosen):
        layers = list(tree(site(Drip(0.1), interface, chosen)).walk())
        places = [str(layer.where).partition(" ")[0] for layer in layers]
    assert [place for place in places if place.startswith("settings.")] == [
        "settings.MIDDLEWARE[0]",
        "settings.MIDDLEWARE[1]",
    ]


def test_the_outermost_layer_is_held_nowhere_and_cannot_be_relinked() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        return []

    root = tree(app)
    relinked = relink(root, lambda environ, start_response: [b"other"])
    assert (relinked.complete, relinked.put, relinked.held) == (False, [], [])
    assert root.standing is app
