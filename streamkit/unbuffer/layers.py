"""The layers of an app as a tree, found without calling it, and how one is put in another's place.

    root = tree(app)
    for layer in root.walk():
        print(layer.depth * "  ", layer.name, layer.path, layer.where)
    with relink(layer, replacement):
        ...                                # whoever held `layer.object` now holds `replacement`

A layer's `kind` says how its object is called, and so what may replace it:

    wsgi      (environ, start_response)
    asgi      (scope, receive, send)
    request   (request) -> response: Django's middleware and handlers, Pyramid's tweens
    hook      (response) -> response: Flask's after_request functions
    view      (**url_values) -> whatever a view returns: a Flask view behind a caching decorator
    entry     Starlette's `user_middleware` while its stack is not built: a class or factory, which is
              called with the app and the entry's arguments
    unknown   callable with any arguments: compiled code and `*args` wrappers under a known name

Rule: nothing of the app is called and no property is read. The tree is the app as it is now:
Starlette builds its stack at its first request, Flask's hooks may still be added.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .calls import Kind, attributes_of, called_by, kind_of_layer, module_of, name_of, source_of, takes_one
from .references import INNER_NAMES, Reference, is_opaque, references

__all__ = ["Kind", "Layer", "Relinked", "Where", "kind_of_layer", "name_of", "relink", "tree"]

MOST_LAYERS = 500  # of one tree; more are cut off
_DEPTH = 3  # objects of a layer's own package between it and the app that it wraps


@dataclass(frozen=True)
class Where:
    """Where a layer stands."""

    setting: str  # `settings.MIDDLEWARE[3]`, `app.after_request`, `app.user_middleware[1]`; else its path
    file: str | None  # of its class or function
    line: int | None

    def __str__(self) -> str:
        source = f" ({self.file}:{self.line})" if self.file and self.line else ""
        return f"{self.setting}{source}"


@dataclass(eq=False)
class Layer:
    """One layer: `object` is what is called, `holders` are all places that refer to it."""

    object: Any
    name: str  # dotted, of its class or function: `werkzeug.middleware.profiler.ProfilerMiddleware`
    path: str  # from its parent: `app`, `closure:app`, `apps[0]`; "app" for the root
    kind: Kind
    parent: Layer | None = field(default=None, repr=False)
    setting: str | None = None  # where it is configured, when that is known by another name than its path
    calls: str | None = None  # the function it was made of: BaseHTTPMiddleware's dispatch, wsgify's
    holders: list[Reference] = field(default_factory=list, repr=False)
    children: list[Layer] = field(default_factory=list, repr=False)
    standing: Any = field(default=None, repr=False)  # what stands in its place now: itself, or a replacement

    def __post_init__(self) -> None:
        self.standing = self.object
        self.calls = self.calls or called_by(self.object)

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def full_path(self) -> str:
        """The attributes from the root: `app.wsgi_app._app`."""
        return self.path if self.parent is None else f"{self.parent.full_path}.{self.path}"

    @property
    def where(self) -> Where:
        """Where it is configured, as far as that can be told."""
        return Where(self.setting or _setting_of_django(self) or self.full_path, *source_of(self.object))

    def is_inside(self, other: Layer) -> bool:
        """Whether the other stands further out."""
        outer = self.parent
        while outer is not None and outer is not other:
            outer = outer.parent
        return outer is other

    def walk(self) -> Iterator[Layer]:
        """This layer and all inside it, each before its children."""
        todo = [self]
        while todo:
            layer = todo.pop()
            yield layer
            todo.extend(reversed(layer.children))


def tree(app: Any) -> Layer:
    """The layers of this app, the app itself outermost."""
    root = Layer(app, name_of(app), "app", kind_of_layer(app) or "unknown")
    seen = {_identity(app): root}
    owners = set()
    todo = [root]
    while todo:
        layer = todo.pop(0)
        owner = layer.object.__self__ if type(layer.object) is types.MethodType else layer.object
        if id(owner) in owners:
            continue
        owners.add(id(owner))
        for found in _children(layer, owner):
            known = seen.get(_identity(found.object))
            if known is not None:
                if layer is not known and not layer.is_inside(known):
                    known.holders.extend(found.holders)
                continue
            if len(seen) >= MOST_LAYERS:
                return root
            seen[_identity(found.object)] = found
            layer.children.append(found)
            todo.append(found)
    return root


def _identity(value: Any) -> Any:
    """Bound methods are made anew each time they are read."""
    if type(value) is types.MethodType:
        return (id(value.__self__), id(value.__func__))
    return id(value)


# ---------------------------------------------------------------- replacing


class Relinked:
    """What `relink` has done; `undo()`, or the end of a `with` block, puts the layer back."""

    def __init__(self, layer: Layer) -> None:
        self._layer, self._before = layer, layer.standing
        self.put: list[Reference] = []  # the places that were set
        self.held: list[str] = []  # the paths of those that could not be set

    @property
    def complete(self) -> bool:
        """Whether some place was set, and none refused."""
        return bool(self.put) and not self.held

    def undo(self) -> None:
        """Put the layer back where it was; a second call does nothing."""
        while self.put:
            reference = self.put.pop()
            assert reference.put is not None
            reference.put(self._before)
            self._layer.standing = self._before

    def __enter__(self) -> Relinked:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def relink(layer: Layer, replacement: Any) -> Relinked:
    """Put `replacement` wherever `layer` is held; see `Relinked.held` for what refused.

    A layer may be replaced again: `layer.standing` is what stands in its place.

    The root has no holder in the tree: whoever calls the app has to call the replacement.
    For the kind `entry`, `replacement` is a class or factory that is called as the entry's was.
    """
    relinked = Relinked(layer)
    for reference in layer.holders:
        if reference.put is None:
            relinked.held.append(reference.path)
            continue
        try:
            reference.put(replacement)
        except (AttributeError, TypeError, ValueError):  # read-only, or of a declared type
            relinked.held.append(reference.path)
        else:
            relinked.put.append(reference)
            layer.standing = replacement
    return relinked


# ---------------------------------------------------------------- children


def _children(layer: Layer, owner: Any) -> Iterator[Layer]:
    """The layers that this one refers to itself, or through objects of its own package."""
    known = _of_framework(layer, owner)
    if known is not None:
        yield from known
        return
    found: dict[Any, Layer] = {}
    others = []
    for reference in _reached(owner):
        kind = _kind_under(layer, reference)
        if kind is None:
            others.append(reference)
            continue
        child = found.get(_identity(reference.value))
        if child is None:
            child = Layer(reference.value, name_of(reference.value), reference.path, kind, layer)
            found[_identity(reference.value)] = child
        child.holders.append(reference)
    for reference in others:  # what is a layer under one name is the same layer under another
        held = found.get(_identity(reference.value))
        if held is not None:
            held.holders.append(reference)
    yield from sorted(found.values(), key=lambda child: (child.kind != layer.kind, _rank(child.path)))


def _reached(owner: Any) -> Iterator[Reference]:
    seen = {id(owner)}
    todo = [("", owner, 0)]
    while todo:
        prefix, holder, depth = todo.pop(0)
        for reference in references(holder):
            value = reference.value
            yield reference._replace(path=prefix + reference.path)
            if depth < _DEPTH and id(value) not in seen and _is_part_of(value, owner):
                seen.add(id(value))
                todo.append((f"{prefix}{reference.path}.", value, depth + 1))


def _is_part_of(value: Any, owner: Any) -> bool:
    """Whether this is a helper object of the owner's package, and no layer itself."""
    package = module_of(owner).partition(".")[0]
    if package == "builtins" or type(value).__module__.partition(".")[0] != package or is_opaque(value):
        return False
    return kind_of_layer(value) is None or kind_of_layer(value) == "unknown"


def _kind_under(layer: Layer, reference: Reference) -> Kind | None:
    kind = kind_of_layer(reference.value)
    if kind == "request" and layer.kind != "request":
        return None  # a view, say
    is_likely = _rank(reference.path) < 99
    if layer.kind == "request" and is_likely and (kind == "unknown" or takes_one(reference.value)):
        return "request"
    return None if kind == "unknown" and not is_likely else kind


def _rank(path: str) -> int:
    name = path.rpartition(".")[2].rpartition(":")[2]
    return INNER_NAMES.index(name) if name in INNER_NAMES else 99


def _of_framework(layer: Layer, owner: Any) -> Iterator[Layer] | None:
    """The children of a framework's own app, whose registries are known; None for any other object."""
    attributes = attributes_of(owner)
    if "after_request_funcs" in attributes and "view_functions" in attributes:
        return _of_flask(layer, owner)
    if "user_middleware" in attributes and "middleware_stack" in attributes:
        return _of_starlette(layer, owner)
    if "default" in attributes and "redirect_slashes" in attributes:
        return _of_router(layer, owner)
    if hasattr(type(owner), "load_middleware") and hasattr(type(owner), "get_response"):
        return _stored_under(layer, owner, {"_middleware_chain": "request"})
    if "orig_handle_request" in attributes and "handle_request" in attributes:
        return _stored_under(layer, owner, {"handle_request": "request"})  # Pyramid's router
    return None


def _stored_under(layer: Layer, owner: Any, names: dict[str, Kind]) -> Iterator[Layer]:
    attributes = attributes_of(owner)
    for name, kind in names.items():
        value = attributes.get(name)
        if value is not None and not (type(value) is types.MethodType and value.__self__ is owner):
            holder = Reference(name, value, functools.partial(setattr, owner, name))
            yield Layer(value, name_of(value), name, kind, layer, holders=[holder])


def _of_flask(layer: Layer, owner: Any) -> Iterator[Layer]:
    if type(layer.object) is not types.MethodType:
        yield from _stored_under(layer, owner, {"wsgi_app": "wsgi", "asgi_app": "asgi"})
    hooks = attributes_of(owner)["after_request_funcs"]
    for scope, functions in list(hooks.items()):
        for index, function in enumerate(functions):
            put = functools.partial(_put_entry, functions, index)
            holder = Reference(f"after_request_funcs[{scope!r}][{index}]", function, put)
            owned = "app.after_request" if scope is None else f"after_request of blueprint {scope!r}"
            yield Layer(function, name_of(function), holder.path, "hook", layer, owned, holders=[holder])
    views = attributes_of(owner)["view_functions"]
    for endpoint, view in list(views.items()):
        if "uncached" in attributes_of(view):  # Flask-Caching's decorator
            put = functools.partial(_put_entry, views, endpoint)
            holder = Reference(f"view_functions[{endpoint!r}]", view, put)
            yield Layer(
                view, name_of(view), holder.path, "view", layer, f"app.{holder.path}", holders=[holder]
            )


def _put_entry(entries: Any, index: Any, value: Any) -> None:
    entries[index] = value


def _of_starlette(layer: Layer, owner: Any) -> Iterator[Layer]:
    attributes = attributes_of(owner)
    if attributes["middleware_stack"] is not None:
        yield from _stored_under(layer, owner, {"middleware_stack": "asgi"})
        return
    for index, entry in enumerate(attributes["user_middleware"]):
        path = f"user_middleware[{index}]"
        put = functools.partial(_put_middleware, attributes["user_middleware"], index)
        made = _class_of_entry(entry)
        calls = attributes_of(entry).get("kwargs", {}).get("dispatch")
        yield Layer(
            made,
            name_of(made),
            path,
            "entry",
            layer,
            f"app.{path}",
            None if calls is None else name_of(calls),
            [Reference(path, made, put)],
        )
    yield from _stored_under(layer, owner, {"router": "asgi"})


def _class_of_entry(entry: Any) -> Any:
    """Of a `Middleware(cls, *args, **kwargs)`; other versions keep it as a tuple."""
    return entry.cls if hasattr(entry, "cls") else next(iter(entry))


def _put_middleware(entries: list[Any], index: int, made: Any) -> None:
    entry = entries[index]
    _, *args = entry
    arguments = args[0] if args and isinstance(args[0], (list, tuple)) else ()
    options = args[-1] if args and isinstance(args[-1], dict) else {}
    entries[index] = type(entry)(made, *arguments, **options)


def _of_router(layer: Layer, owner: Any) -> Iterator[Layer]:
    yield from _stored_under(layer, owner, {"middleware_stack": "asgi"})
    for index, route in enumerate(attributes_of(owner).get("routes") or ()):
        app = attributes_of(route).get("app")
        # A plain function there is an endpoint's own; whatever else is a mount, or wraps the endpoint.
        if app is not None and not inspect.isfunction(app) and not inspect.isclass(app):
            holder = Reference(f"routes[{index}].app", app, functools.partial(setattr, route, "app"))
            yield Layer(app, name_of(app), holder.path, kind_of_layer(app) or "asgi", layer, holders=[holder])


def _setting_of_django(layer: Layer) -> str | None:
    """`settings.MIDDLEWARE[3]`, for a layer of that name."""
    configured = sys.modules.get("django.conf")
    if layer.kind != "request" or configured is None or not configured.settings.configured:
        return None
    name = layer.name.partition(".<locals>")[0]
    listed = list(getattr(configured.settings, "MIDDLEWARE", None) or ())
    return f"settings.MIDDLEWARE[{listed.index(name)}]" if name in listed else None
