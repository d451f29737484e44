"""What was taken out of streams' way in an app, and what could not be.

    print(unbuffer.report(app))

Whoever strips remembers here what he has done, under each object that may be asked for it. An app is
asked with all that stands in it: the wrap may be held in an attribute, as Flask's `app.wsgi_app`.

Rule: nothing is stripped here but what a wrap of ours would strip itself, at its first request.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from .layers import Layer, tree

__all__ = ["Left", "Report", "Taken", "failed", "remember", "report"]

NOTHING_KNOWN = "no layer that is known to hold streams was found"
NOT_LOOKED = (
    "no layer was looked for: no streamkit.wrap that has kinds in its option strip was found in the app, "
    "and unbuffer.strip was not called for it"
)


@dataclass(frozen=True)
class Taken:
    """A layer that is out of the way of streams."""

    name: str
    kind: str
    where: str
    how: Literal["bypassed", "removed"]

    def __str__(self) -> str:
        return f"{self.name}, {self.where}"


@dataclass(frozen=True)
class Left:
    """A layer that was not touched, and why."""

    name: str
    kind: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}, {self.where}: {self.why}"


@dataclass(frozen=True)
class Report:
    """What was done: `held` are the layers that could not be taken out of the way."""

    taken: tuple[Taken, ...] = ()
    passes: tuple[Left, ...] = ()  # these stream by themselves
    held: tuple[Left, ...] = ()
    note: str = ""  # why not all layers, or none, were looked for

    def __str__(self) -> str:
        lines = [f"{taken.how}: {taken}" for taken in self.taken]
        lines += [f"streams: {left}" for left in self.passes]
        lines += [f"holds: {left}" for left in self.held]
        lines += [self.note] if self.note else []
        return "\n".join(lines) or NOTHING_KNOWN

    @property
    def names(self) -> set[str]:
        """The layers that stand in it."""
        return {taken.name for taken in self.taken} | {left.name for left in (*self.passes, *self.held)}

    def without(self, names: Iterable[str]) -> Report:
        """The same without the layers of these names."""
        return replace(
            self,
            taken=tuple(taken for taken in self.taken if taken.name not in names),
            passes=tuple(left for left in self.passes if left.name not in names),
            held=tuple(left for left in self.held if left.name not in names),
        )

    def merged(self, other: Report) -> Report:
        """Both, what is in both once."""
        return Report(
            tuple(dict.fromkeys((*self.taken, *other.taken))),
            tuple(dict.fromkeys((*self.passes, *other.passes))),
            tuple(dict.fromkeys((*self.held, *other.held))),
            self.note or other.note,
        )


_reports: weakref.WeakKeyDictionary[Any, Report] = weakref.WeakKeyDictionary()


def remember(app: Any, done: Report) -> None:
    """This was done for an app; what was removed from it before stays removed."""
    # Without weak references, or with a hash that fails: `report` will say nothing of it.
    with contextlib.suppress(Exception):
        before = _reports.get(app, Report())
        kept = [taken for taken in before.taken if taken.how == "removed" and taken not in done.taken]
        _reports[app] = replace(done, taken=(*kept, *done.taken))


def failed(error: Exception) -> str:
    """What is noted where an object of the app's own has failed when it was looked at."""
    return f"not all layers could be looked for: {type(error).__name__}: {error}"


def report(app: Any) -> Report:
    """What was taken out of streams' way in this app, and what could not be, and why.

    The app may be what `streamkit.wrap` or `unbuffer.strip` has returned, or hold that in it, as Flask,
    Quart, Starlette and FastAPI do. A wrap that has had no request is stripped now. Where nothing was
    looked for, the report's `note` says so.
    """
    try:
        layers = list(tree(app).walk())
    except Exception as error:  # an object of the app's own fails when it is looked at
        return _of_one(app) or Report(note=failed(error))
    asked: list[tuple[Layer, Report]] = []
    pending = None
    for layer in layers:
        if layer.kind == "entry" and _strips(layer.object) is not None:
            pending = f"{layer.name}, {layer.where.setting}, is made at the first request: ask again then"
        one = _of_one(layer.object)
        if one is not None:
            # A wrap has looked at all that stands inside it; a wrap in there may have had other kinds.
            above = {name for outer, its in asked if layer.is_inside(outer) for name in its.names}
            asked.append((layer, one.without(above)))
    if not asked:
        return Report(note=pending or NOT_LOOKED)
    found = Report()
    for _, one in asked:
        found = found.merged(one)
    return found


def _of_one(app: Any) -> Report | None:
    """What was done for this object itself."""
    strips = _strips(type(app))
    if strips is not None:
        strips(app)
    try:
        return _reports.get(app)
    except Exception:  # of a class without weak references, or with a hash or equality that fails
        return None


def _strips(cls: Any) -> Callable[[Any], Any] | None:
    """What strips the apps of this class before their first request, if it is a wrap of ours."""
    found = getattr(cls, "_stripped", None) if isinstance(cls, type) else None
    own = getattr(found, "__module__", None)
    return found if isinstance(own, str) and own.startswith("streamkit.") else None
