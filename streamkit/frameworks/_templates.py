"""Pages in pieces, with the context that a framework gives to its templates.

A framework's room says what the context is, and what of the request has to be taken before the head
leaves: messages to be shown once, a token whose cookie is set with the first use.

Rule: what is wanted of `streamkit.Templates` is handed on as it came; nothing here renders.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..templates import TemplateResponse, Templates

if TYPE_CHECKING:
    from jinja2 import Template

_METHOD = inspect.signature(Templates.chunked).parameters.values()
_WISHES = frozenset(parameter.name for parameter in _METHOD if parameter.kind is parameter.KEYWORD_ONLY)


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is for `Templates`, and the context, of the keywords of one call."""
    wishes = {name: value for name, value in given.items() if name in _WISHES and name != "context"}
    context = dict(given.get("context") or {})
    context.update((name, value) for name, value in given.items() if name not in _WISHES)
    return wishes, context


# ---------------------------------------------------------------- what a page may ask for


_asked: WeakKeyDictionary[Template, tuple[frozenset[str], bool]] = WeakKeyDictionary()


def may_ask_for(page: TemplateResponse, names: Collection[str]) -> bool:
    """Whether the page's templates name one of these variables, or may take in one that does."""
    return any(_asks(template, names) for template in (page.template, page.content) if template is not None)


def _asks(template: Template, names: Collection[str]) -> bool:
    found = _asked.get(template)
    if found is None:
        found = _look_through(template)
        if not template.environment.auto_reload:
            _asked[template] = found
    known, has_unknown = found
    return has_unknown or not known.isdisjoint(names)


def _look_through(template: Template) -> tuple[frozenset[str], bool]:
    """The names in a template and in all that it takes in; and whether some of that cannot be known."""
    from jinja2 import TemplateNotFound, nodes

    environment, names, seen = template.environment, set[str](), set[str]()
    waiting = [template.name]
    while waiting:
        name = waiting.pop()
        if name is None or environment.loader is None:
            return frozenset(names), True
        if name in seen:
            continue
        seen.add(name)
        try:
            source, filename, _ = environment.loader.get_source(environment, name)
        except TemplateNotFound:
            continue  # it may be `ignore missing`; if it may not, the rendering says so
        parsed = environment.parse(source, name, filename)
        names.update(node.name for node in parsed.find_all(nodes.Name))  # `meta` leaves globals out
        waiting.extend(_taken_in(parsed))
    return frozenset(names), False


def _taken_in(parsed: Any) -> Iterator[str | None]:
    """The names of the templates that one extends, includes and imports; None for one that is computed."""
    from jinja2 import nodes

    kinds = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
    for node in parsed.find_all(kinds):
        asked = node.template
        if isinstance(asked, nodes.Call) and isinstance(asked.node, nodes.ExtensionAttribute):
            continue  # our own `{% content %}`, which is looked through by itself
        try:
            value = asked.as_const()
        except nodes.Impossible:
            yield None
            continue
        names: Iterable[Any] = [value] if isinstance(value, str) else value
        yield from names
