"""Probes for layers that take requests or responses: Django's middleware, Pyramid's tweens, Flask's hooks.

Such a layer hands on an object, and its body is read later, by whoever sends it. So the object's body is
put behind a `Watched` at each boundary: a layer that reads it inside its call, one that replaces it by a
list, and one that replaces it by an iterator that holds back, all show in the order in which it is read.

Rule: a body is only ever wrapped, never read here; one that is whole already is looked at where it lies.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..unbuffer import layers
from .probe_stream import chunks, response_for
from .record import CURRENT, Passage, Probed, entered
from .watched import AsyncWatched, Watched, watch_whole

__all__ = ["FlaskView", "HookProbe", "RequestProbe", "flask_apps"]


@dataclass(frozen=True)
class Body:
    """How a response object of some framework keeps its body."""

    status: int
    headers: list[tuple[str, str]]
    pieces: Iterable[Any] | None  # of a body that is there; None for one that is to be read
    read: Any = None  # what is to be read
    put: Callable[[Any], None] | None = None  # puts something else there to be read
    is_async: bool = False


def body_of(response: Any) -> Body | None:
    """The body of a response of Django's, Werkzeug's or WebOb's; None for any other object."""
    if hasattr(response, "streaming") and hasattr(response, "status_code"):
        return _body_of_django(response)
    if hasattr(response, "is_streamed") and hasattr(response, "response"):
        headers = list(response.headers.items())
        if isinstance(response.response, (list, tuple)):
            return Body(response.status_code, headers, response.response)
        if getattr(response, "direct_passthrough", False):  # a file, which a server may send itself
            return Body(response.status_code, headers, ())
        put = functools.partial(setattr, response, "response")
        return Body(response.status_code, headers, None, response.response, put)
    if hasattr(response, "app_iter") and hasattr(response, "headerlist"):
        if isinstance(response.app_iter, (list, tuple)):
            return Body(response.status_int, response.headerlist, response.app_iter)
        if response.content_length is not None:
            return Body(response.status_int, response.headerlist, ())
        put = functools.partial(setattr, response, "app_iter")
        return Body(response.status_int, response.headerlist, None, response.app_iter, put)
    return None


def _body_of_django(response: Any) -> Body:
    headers = list(response.headers.items())
    if not response.streaming:
        is_rendered = getattr(response, "is_rendered", True)
        return Body(response.status_code, headers, [response.content] if is_rendered else [])
    if getattr(response, "file_to_stream", None) is not None:
        return Body(response.status_code, headers, ())
    put = functools.partial(setattr, response, "streaming_content")
    is_async = bool(getattr(response, "is_async", False))
    return Body(response.status_code, headers, None, response.streaming_content, put, is_async)


def watch(response: Any, passage: Passage) -> Any:
    """The same response, whose body tells the passage what is read from it."""
    passage.returned = True
    body = body_of(response)
    if body is None:
        return response
    passage.head(body.status, body.headers)
    if body.put is None:
        watch_whole(body.pieces or (), passage)
    elif body.is_async:
        passage.mismatch = passage.trace.kind == "wsgi"
        body.put(AsyncWatched(body.read, passage))
    else:
        passage.mismatch = passage.trace.kind == "asgi" and hasattr(response, "is_async")
        body.put(Watched(body.read, passage))
    return response


class RequestProbe:
    """Stands where a layer stood that takes a request and gives a response, or awaits one."""

    def __init__(self, layer: Any, known: Probed) -> None:
        self.__dict__.update(_probed_layer=layer, _probed_as=known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probed_layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._probed_layer, name, value)

    def __call__(self, request: Any, *arguments: Any, **options: Any) -> Any:
        passage = entered(self._probed_as)
        if passage is None:
            return self._probed_layer(request, *arguments, **options)
        token = CURRENT.set(passage)
        try:
            given = self._given(passage, request, *arguments, **options)
        except BaseException as error:
            passage.fail(error)
            raise
        finally:
            CURRENT.reset(token)
        if inspect.isawaitable(given):
            return _awaited(given, passage, request)
        return _named(watch(given, passage), passage, request)

    def _given(self, passage: Passage, request: Any, *arguments: Any, **options: Any) -> Any:
        if passage.trace.probe is self._probed_as:
            trace = passage.trace
            # A sync layer may give an async body: that goes by the interface outside.
            response = response_for(request, trace.media_type, is_async=trace.kind == "asgi")
            if response is not None:
                is_awaited = inspect.iscoroutinefunction(self._probed_layer)
                return _given_later(response) if is_awaited else response
        return self._probed_layer(request, *arguments, **options)


async def _given_later(response: Any) -> Any:
    return response


async def _awaited(given: Any, passage: Passage, request: Any) -> Any:
    token = CURRENT.set(passage)
    try:
        response = await given
    except BaseException as error:
        passage.fail(error)
        raise
    finally:
        CURRENT.reset(token)
    return _named(watch(response, passage), passage, request)


def _named(response: Any, passage: Passage, request: Any) -> Any:
    """Name Django's view, where it was the innermost to be called."""
    if passage.layer.name.rpartition(".")[2] in ("_get_response", "_get_response_async"):
        match = getattr(request, "resolver_match", None)
        if passage.trace.probe is None and match is not None:
            passage.shown = _view(match.func)
    return response


def _view(function: Any) -> Probed:
    function = inspect.unwrap(function)
    known = layers.Layer(function, layers.name_of(function), "", "unknown")
    where = known.where
    return Probed(known.name, f"{where.file}:{where.line}" if where.file else None, is_view=True)


class HookProbe:
    """Stands where a function stood that takes a response and gives one: Flask's `after_request`."""

    def __init__(self, hook: Any, known: Probed) -> None:
        self._hook, self._known = hook, known

    def __call__(self, response: Any, *arguments: Any) -> Any:
        outer = CURRENT.get()
        if outer is None or outer.trace.over or body_of(response) is None:
            return self._hook(response, *arguments)
        trace = outer.trace
        if outer.front is None:
            outer.front = _flask_view(outer)
            watch(response, outer.front)
        passage = trace.enter(self._known, outer)
        outer.front.parent = passage
        outer.front = passage
        token = CURRENT.set(passage)
        try:
            if trace.probe is self._known:
                given = type(response)(chunks(), content_type=trace.media_type)
            else:
                given = self._hook(response, *arguments)
        except BaseException as error:
            passage.fail(error)
            raise
        finally:
            CURRENT.reset(token)
            passage.returned = True
        return watch(given, passage)


def _flask_view(outer: Passage) -> Passage:
    """The passage of the view, found when the first hook gets its response."""
    flask = sys.modules["flask"]
    view = flask.current_app.dispatch_request
    known = view.known if isinstance(view, FlaskView) else Probed("the view", is_view=True)
    passage = outer.trace.enter(known, outer)
    function = flask.current_app.view_functions.get(flask.request.endpoint)
    if function is not None and outer.trace.probe is None:
        passage.shown = _view(function)
    return passage


class FlaskView:
    """Stands where a Flask app calls its view."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.known = Probed("the view", is_view=True)

    def __call__(self, *arguments: Any) -> Any:
        current = CURRENT.get()
        if current is not None and current.trace.probe is self.known:
            return self._app.response_class(chunks(), content_type=current.trace.media_type)
        return type(self._app).dispatch_request(self._app, *arguments)

    def install(self) -> Callable[[], None] | None:
        """Put it in, and give what takes it out; None where the app has a `dispatch_request` of its own."""
        if "dispatch_request" in vars(self._app):
            return None
        self._app.dispatch_request = self
        return functools.partial(delattr, self._app, "dispatch_request")


def flask_apps(found: Iterable[layers.Layer]) -> list[Any]:
    """The Flask apps among these layers."""
    apps: dict[int, Any] = {}
    for layer in found:
        owner = getattr(layer.object, "__self__", layer.object)
        if hasattr(type(owner), "dispatch_request") and hasattr(type(owner), "wsgi_app"):
            apps[id(owner)] = owner
    return list(apps.values())
