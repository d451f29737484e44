"""A probe around each layer of an app, for WSGI and ASGI, and all of them out again.

    with probed(app) as probes:
        trace = Trace("wsgi")
        ask_wsgi(probes.app, trace, request)

Each layer of the tree is put behind a probe wherever it is held. Where a place cannot be set, the
instance is given a subclass of its own class, whose `__call__` is probed; compiled classes are left as
they are, because their calls do not look there. A probe that is called outside of a trace does nothing.

Rule: a probe passes everything on as it is, in the same order and on the same thread, and says what it
saw to the `Trace`. Whatever was put somewhere is taken out when the block is left, however it is left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..core.response import StreamingResponse
from ..types import Environ, Message, Receive, Scope, Send
from ..unbuffer import layers, report
from ..unbuffer.calls import source_of
from .probe_stream import serve_asgi, serve_wsgi
from .record import CURRENT, Passage, Probed, entered
from .responses import FlaskView, HookProbe, RequestProbe, flask_apps
from .watched import Watched, watch_whole

__all__ = ["CutShort", "Probes", "probed"]

# Classes that only run a function of the user's, by the attribute that holds it.
RUNS = {"starlette.middleware.base.BaseHTTPMiddleware": "dispatch_func", "webob.dec.wsgify": "func"}


class CutShort(OSError):
    """Raised into an ASGI app whose stream was long enough: as if its client had left."""


# ---------------------------------------------------------------- WSGI


class WSGIProbe:
    """Stands where a WSGI layer stood."""

    def __init__(self, app: Any, layer: Probed) -> None:
        self.__dict__.update(_probed_app=app, _probed_layer=layer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probed_app, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._probed_app, name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if len(arguments) != 2 or not isinstance(arguments[0], dict) or "REQUEST_METHOD" not in arguments[0]:
            return self._probed_app(*arguments, **options)
        return call_wsgi(self._probed_app, self._probed_layer, *arguments)


def call_wsgi(app: Any, layer: Probed, environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Call a WSGI layer and watch what comes out of it."""
    passage = entered(layer)
    if passage is None:
        result: Iterable[bytes] = app(environ, start_response)
        return result
    trace = passage.trace
    if trace.probe is layer:
        app = partial(serve_wsgi, trace.media_type)

    def start(status: str, headers: Any, *more: Any, **named: Any) -> Any:
        # Before it is handed on: some layers change the list that they are given.
        passage.head(_code(status), headers, again=any((*more, *named.values())))
        write = start_response(status, headers, *more, **named)

        def watched(data: bytes) -> Any:
            given = write(data)
            passage.chunk(bytes(data))
            trace.step(passage)
            if passage.is_cut:
                raise CutShort("the stream was long enough")
            return given

        return watched

    token = CURRENT.set(passage)
    try:
        body = app(environ, start)
    except CutShort:
        passage.end()
        return []
    except BaseException as error:
        passage.fail(error)
        raise
    finally:
        CURRENT.reset(token)
        passage.returned = True
    if isinstance(body, (list, tuple)):
        # Whole already: some layers look whether it is, so it goes on as it is.
        watch_whole(body, passage)
        return body
    passage.is_lazy = not passage.heads
    return Watched(body, passage)


def _code(status: str) -> int:
    try:
        return int(status.split(" ", 1)[0])
    except ValueError:
        return 0


# ---------------------------------------------------------------- ASGI


class ASGIProbe(WSGIProbe):
    """Stands where an ASGI layer stood."""

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        if len(arguments) == 3 and not options:
            return await call_asgi(self._probed_app, self._probed_layer, *arguments)
        return await self._probed_app(*arguments, **options)


async def call_asgi(app: Any, layer: Probed, scope: Scope, receive: Receive, send: Send) -> Any:
    """Call an ASGI layer and watch what comes out of it."""
    passage = entered(layer) if scope["type"] == "http" else None
    if passage is None:
        return await app(scope, receive, send)
    trace = passage.trace
    if trace.probe is layer:
        app = partial(serve_asgi, trace.media_type)

    async def watched(message: Message) -> None:
        await _send(passage, message, send)

    token = CURRENT.set(passage)
    try:
        return await app(scope, receive, watched)
    except BaseException as error:
        if passage.is_cut:
            return None  # what it makes of a client that leaves is not our matter here
        passage.fail(error)
        raise
    finally:
        passage.returned = True
        CURRENT.reset(token)


async def _send(passage: Passage, message: Message, send: Send) -> None:
    trace = passage.trace
    if passage.is_cut and passage.ended:
        raise CutShort("the stream was long enough")
    kind = message["type"]
    if kind == "http.response.start":
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]
        passage.head(message["status"], headers)
        await send(message)
        await trace.astep(passage, "head")
        return
    if kind != "http.response.body":
        await send(message)
        return
    more = bool(message.get("more_body"))
    body = bytes(message.get("body", b""))
    passage.chunk(body)
    if not more:
        passage.whole = passage.whole or len(passage.crossings) <= bool(body)
        passage.end()
    await send(message)
    if more and message.get("body"):
        await trace.astep(passage)
        if passage.is_cut:
            passage.end()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            raise CutShort("the stream was long enough")


# ---------------------------------------------------------------- putting them in


@dataclass
class Probes:
    """An app with its probes in."""

    app: Callable[..., Any]
    kind: str  # "wsgi" or "asgi"
    layers: list[Probed] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # layers that could not be probed


@contextmanager
def probed(app: Any, kind: str) -> Iterator[Probes]:
    """The app with a probe around each of its layers, until the block is left."""
    with ExitStack() as undo:
        _build_stacks(app, undo)
        # An app that was wrapped takes its layers out of the way at its first request: not among our probes.
        report(app)
        root = layers.tree(app)
        found = list(root.walk())
        top = _named(root)
        probe = WSGIProbe(app, top) if kind == "wsgi" else ASGIProbe(app, top)
        probes = Probes(probe, kind, [top])
        for flask in flask_apps(found):
            taken_out = FlaskView(flask).install()
            if taken_out is not None:
                undo.callback(taken_out)
        # From the inside out: a layer that is held by one which is replaced is replaced where it is held.
        for layer in reversed(found[1:]):
            _put(layer, probes, undo)
        yield probes


def _build_stacks(app: Any, undo: ExitStack) -> None:
    """Starlette builds its stack at its first request: build it now, and let it build it anew afterwards."""
    for layer in list(layers.tree(app).walk()):
        owner = layer.object
        if hasattr(type(owner), "build_middleware_stack") and vars(owner).get("middleware_stack", "") is None:
            owner.middleware_stack = owner.build_middleware_stack()
            undo.callback(setattr, owner, "middleware_stack", None)


def _put(layer: layers.Layer, probes: Probes, undo: ExitStack) -> None:
    known = _named(layer)
    made = _probe_for(layer, known)
    if made is None:
        return
    relinked = layers.relink(layer, made)
    if relinked.complete:
        undo.callback(relinked.undo)
        probes.layers.append(known)
        return
    relinked.undo()
    swapped = _swap(layer, known)
    if swapped is not None:
        undo.callback(swapped)
        probes.layers.append(known)
    else:
        probes.left_out.append(layer.name)


def _named(layer: layers.Layer) -> Probed:
    """How this layer is called for its owner; one that only runs a function, by that."""
    where = layer.where
    owner = layer.object
    is_description = isinstance(owner, StreamingResponse)
    attribute = "producer" if is_description else RUNS.get(layer.name)
    function = getattr(owner, attribute, None) if attribute is not None else None
    if function is not None:
        name, source = _source_of(function)
        setting = _entry(layer) or where.setting
        shown = f"{name} ({layer.name})"
        return Probed(shown, f"{setting} ({source})", is_view=is_description, is_stream=is_description)
    return Probed(layer.name, f"{_entry(layer) or where.setting}{str(where)[len(where.setting) :]}")


def _source_of(function: Any) -> tuple[str, str]:
    """The name and the place of a function, or of the one that made this generator."""
    code = getattr(function, "gi_code", None) or getattr(function, "ag_code", None)
    if code is not None:
        return function.__qualname__, f"{code.co_filename}:{code.co_firstlineno}"
    file, line = source_of(function)
    return layers.name_of(function), f"{file}:{line}" if file else "no file"


def _entry(layer: layers.Layer) -> str | None:
    """`app.user_middleware[1]`, for a layer that Starlette made of such an entry."""
    inner: layers.Layer | None = layer
    above = 0  # layers of the same class between it and the app that made it
    while inner is not None and inner.parent is not None:
        inner = inner.parent
        above += type(inner.object) is type(layer.object)
        entries = getattr(inner.object, "user_middleware", None)
        if isinstance(entries, list):
            made = [index for index, entry in enumerate(entries) if next(iter(entry)) is type(layer.object)]
            return f"app.user_middleware[{made[above]}]" if above < len(made) else None
    return None


def _probe_for(layer: layers.Layer, known: Probed) -> Any:
    kind, outer = layer.kind, layer.parent
    while kind == "unknown" and outer is not None:
        kind, outer = outer.kind, outer.parent
    if kind == "wsgi":
        return WSGIProbe(layer.object, known)
    if kind == "asgi":
        return ASGIProbe(layer.object, known)
    if kind == "request":
        return RequestProbe(layer.object, known)
    if kind == "hook" and not inspect.iscoroutinefunction(layer.object):
        return HookProbe(layer.object, known)
    return None


def _swap(layer: layers.Layer, known: Probed) -> Callable[[], None] | None:
    """Probe an instance where it stands: the same object, of a subclass with a `__call__` of ours."""
    target = layer.object
    cls = type(target)
    original = cls.__call__ if callable(target) else None
    if not inspect.isfunction(original) or inspect.isroutine(target) or "__init_subclass__" in _taught(cls):
        return None  # compiled classes do not look for their call in a subclass
    call = call_wsgi if layer.kind == "wsgi" else call_asgi if layer.kind == "asgi" else None
    if call is None:
        return None

    def probed_call(self: Any, *arguments: Any, **options: Any) -> Any:
        if options or len(arguments) != (2 if call is call_wsgi else 3):
            return original(self, *arguments, **options)
        return call(original.__get__(self), known, *arguments)

    names: dict[str, Any] = {"__call__": probed_call, "__slots__": ()}
    names.update(__module__=cls.__module__, __qualname__=cls.__qualname__)
    make: Any = type(cls)
    try:
        target.__class__ = make(cls.__name__, (cls,), names)
    except TypeError:  # another layout, or a class that may have no subclass
        return None

    def undo() -> None:
        target.__class__ = cls

    return undo


def _taught(cls: type) -> set[str]:
    return {name for owner in cls.__mro__[:-1] for name in vars(owner)}
