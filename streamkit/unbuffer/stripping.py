"""Take the layers that hold streams out of their way.

    app = unbuffer.strip(app)                        # every layer that is known, for streams only
    app = unbuffer.strip(app, ("gzip", "shop.web.SlowLayer"))
    app = unbuffer.strip(app, ("etag",), remove=True)

A layer stays where it is, between two halves of ours: for streams it sees the head alone, for all
else it is as ever. The app's own objects are relinked for that, once, and nothing else is changed.

Rule: whoever cannot be relinked whole is left as found, and reported.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from ..errors import OptionsError
from .around_asgi import InsideASGI, OutsideASGI
from .around_hook import around_hook, around_view, inside_view
from .around_request import InsideRequest, OutsideRequest
from .around_wsgi import InsideWSGI, OutsideWSGI
from .known import Known, known_as, names_of, original
from .layers import Layer, relink, tree
from .references import Reference
from .reporting import Left, Report, Taken, failed, remember

__all__ = ["KINDS", "strip"]

KINDS = ("etag", "gzip", "cache")

Interface = Literal["wsgi", "asgi"]

_LOG = logging.getLogger("streamkit")

_HALVES: dict[str, tuple[Any, Any]] = {
    "wsgi": (InsideWSGI, OutsideWSGI),
    "asgi": (InsideASGI, OutsideASGI),
    "request": (InsideRequest, OutsideRequest),
}
_OUTSIDE = (OutsideWSGI, OutsideASGI, OutsideRequest)
_INSIDE = (InsideWSGI, InsideASGI, InsideRequest)


_turn = threading.Lock()


def strip(app: Any, kinds: Iterable[str] = KINDS, *, remove: bool = False) -> Any:
    """The app with the layers of these kinds out of the way of streams; call what is returned.

    `kinds` are `etag`, `gzip` and `cache`, and dotted names of layers' classes or functions. With
    `remove` they are taken out for every response. A second call does no more than a first.
    Raises `OptionsError`.
    """
    return stripped(app, checked(kinds), None, remove=remove)


def checked(kinds: Iterable[str]) -> tuple[str, ...]:
    """These kinds and dotted names; `OptionsError` for anything else."""
    names = () if isinstance(kinds, str) else tuple(kinds)
    faults = [
        f"strip: wanted kinds out of {', '.join(KINDS)} or dotted names of layers, got {name!r}"
        for name in (names if not isinstance(kinds, str) else (kinds,))
        if isinstance(kinds, str) or not isinstance(name, str) or (name not in KINDS and "." not in name)
    ]
    if faults:
        raise OptionsError(faults)
    return names


def stripped(
    app: Any, kinds: tuple[str, ...], interface: Interface | None, *, remove: bool = False, owner: Any = None
) -> Any:
    """As `strip`, for an app whose interface is known; `owner` is who `report` may be asked of, too."""
    if not kinds:
        return app
    with _turn:  # of two first requests at once
        found = _Strip(app, kinds, interface, remove)
        fault: Exception | None = None
        try:
            found.run()
        except Exception as error:  # an object of the app's own fails when it is looked at
            fault = error
        done = found.report if fault is None else replace(found.report, note=failed(fault))
        for known_by in (app, found.app, owner):
            if known_by is not None:
                remember(known_by, done)
    if fault is not None:  # no reason to fail a request
        _LOG.warning("could not look for all layers of %s", type(app).__name__, exc_info=fault)
    _say(found.new, done.held)
    return found.app


def _say(taken: list[Taken], held: tuple[Left, ...]) -> None:
    for one in taken:
        said = "streams go past %s (%s)" if one.how == "bypassed" else "removed %s (%s)"
        _LOG.info(said, one.name, one.where)
    for left in held:
        _LOG.warning("%s (%s) may hold streams and is left as it is: %s", left.name, left.where, left.why)


class _Strip:
    """One run over an app."""

    def __init__(self, app: Any, kinds: tuple[str, ...], interface: Interface | None, remove: bool) -> None:
        self.app, self._kinds, self._interface, self._remove = app, kinds, interface, remove
        self.new: list[Taken] = []
        self._taken: list[Taken] = []
        self._passes: list[Left] = []
        self._held: list[Left] = []

    @property
    def report(self) -> Report:
        return Report(tuple(self._taken), tuple(self._passes), tuple(self._held))

    def run(self) -> None:
        root = tree(self.app)
        missing = {name for name in self._kinds if "." in name}
        for layer in reversed(list(root.walk())):  # whoever stands inside first
            known = known_as(layer)
            named = next((name for name in names_of(layer) if name in self._kinds), None)
            if named is not None:
                missing -= {*names_of(layer)}
                known = Known("named" if known is None else known.kind)
            elif known is None or known.kind not in self._kinds:
                continue
            assert known is not None
            self._look_at(layer, known)
        for name in sorted(missing):
            self._held.append(Left(name, "named", "", "no layer of this name was found in the app"))
        if root.standing is not root.object:
            self.app = root.standing

    def _look_at(self, layer: Layer, known: Known) -> None:
        name, where = names_of(layer)[0], str(layer.where)
        if known.passes:
            self._passes.append(Left(name, known.kind, where, known.passes))
            return
        if _is_around(layer) or self._is_around_root(layer):
            self._taken.append(Taken(name, known.kind, where, "bypassed"))
            return
        why = self._removed(layer) if self._remove else self._bypassed(layer)
        if why is not None:
            self._held.append(Left(name, known.kind, where, why))
            return
        taken = Taken(name, known.kind, where, "removed" if self._remove else "bypassed")
        self._taken.append(taken)
        self.new.append(taken)

    def _is_around_root(self, layer: Layer) -> bool:
        """Whether this outermost layer has its inner half from before; its outer half is made anew."""
        child = self._inner_of(layer) if layer.parent is None and not self._remove else None
        if child is None or not isinstance(child.object, _INSIDE):
            return False
        layer.standing = _outside_with(child.object)(layer.standing, child.object)
        return True

    def _bypassed(self, layer: Layer) -> str | None:
        """Put the layer between two halves; why not, where that cannot be."""
        if layer.kind == "entry":
            return _put(layer, _entry_around(layer.object))
        if layer.kind == "hook":
            return _put(layer, around_hook(layer.standing))
        if layer.kind == "view":
            inner = _inner_view(layer)
            return inner or _put(layer, around_view(layer.standing))
        child = self._inner_of(layer)
        if child is None:
            return "the app that it wraps was not found in it"
        if isinstance(child.object, _INSIDE):  # an app inside was stripped before, as the root that it was
            layer.holders = [holder for holder in layer.holders if not _is_of_half(holder)]
            return _put(layer, _outside_with(child.object)(layer.standing, child.object))
        make_inside, make_outside = _HALVES[_interface_of(layer, child, self._interface)]
        inside = make_inside(child.standing)
        relinked = relink(child, inside)
        if not relinked.complete:
            relinked.undo()
            return f"the app that it wraps cannot be replaced in it ({', '.join(relinked.held)})"
        why = _put(layer, make_outside(layer.standing, inside))
        if why is not None:
            relinked.undo()
        return why

    def _removed(self, layer: Layer) -> str | None:
        if layer.kind == "entry":
            return _put(layer, _nothing_around)
        if layer.kind == "hook":
            return _put(layer, _as_it_is)
        if layer.kind == "view":
            return _put(layer, layer.object.uncached)
        child = self._inner_of(layer)
        if child is None:
            return "the app that it wraps was not found in it"
        return _put(layer, child.standing)

    def _inner_of(self, layer: Layer) -> Layer | None:
        wanted = layer.kind if layer.kind != "unknown" else _above(layer) or self._interface
        for child in layer.children:
            if child.kind == wanted or (wanted is None and child.kind in _HALVES):
                return child
        return next((child for child in layer.children if child.kind == "unknown"), None)


def _put(layer: Layer, replacement: Any) -> str | None:
    if layer.parent is None:
        layer.standing = replacement
        return None
    relinked = relink(layer, replacement)
    if relinked.complete:
        return None
    relinked.undo()
    return f"whoever calls it holds it where it cannot be replaced ({', '.join(relinked.held)})"


def _is_around(layer: Layer) -> bool:
    """Whether streams go past this layer already."""
    if layer.kind in ("hook", "view", "entry"):
        return original(layer) is not layer.object
    return layer.parent is not None and isinstance(layer.parent.object, _OUTSIDE)


def _outside_with(inside: Any) -> Any:
    """The class of the outer half that belongs to this inner one."""
    return next(outer for inner, outer in _HALVES.values() if isinstance(inside, inner))


def _is_of_half(holder: Reference) -> bool:
    """Whether this reference is that of an outer half to its layer."""
    return isinstance(holder.put, functools.partial) and isinstance(holder.put.args[0], _OUTSIDE)


def _above(layer: Layer) -> str | None:
    """The interface of the nearest layer outside of this one that has a certain one."""
    outer = layer.parent
    while outer is not None:
        if outer.kind in ("wsgi", "asgi"):
            return outer.kind
        outer = outer.parent
    return None


def _interface_of(layer: Layer, child: Layer, given: Interface | None) -> str:
    for kind in (layer.kind, child.kind, _above(layer), given):
        if kind in _HALVES:
            return kind
    return "wsgi"


def _inner_view(layer: Layer) -> str | None:
    """Let the decorated function have the view's inner half; the original stays as `uncached`."""
    decorated, view = layer.object, layer.object.uncached
    for cell in decorated.__closure__ or ():
        if cell.cell_contents is view:
            cell.cell_contents = inside_view(view)
            return None
    return "the view was not found in its decorator"


def _entry_around(made: Any) -> Any:
    """A factory for the entry's place in `user_middleware`: the layer, between two halves."""

    def around(app: Any, *args: Any, **options: Any) -> Any:
        inside = InsideASGI(app)
        return OutsideASGI(made(inside, *args, **options), inside)

    around.__name__ = getattr(made, "__name__", "around")
    around.around = made  # type: ignore[attr-defined]
    return around


def _nothing_around(app: Any, *args: Any, **options: Any) -> Any:
    return app


def _as_it_is(response: Any) -> Any:
    return response
