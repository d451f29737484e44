"""What an object refers to, and how each reference can be set to something else.

Rule: nothing here is called that belongs to an app: attributes are read from where they are
stored, never through a property or `__getattr__`, and no value is looked into that is no object
of the app's own code.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Reference", "is_proxy", "references"]

# A container with more entries than this is a collection of something else than layers.
MOST_ENTRIES = 50

# Attributes under which layers keep the app that they wrap, the likeliest first.
INNER_NAMES = (
    "app", "application", "wsgi_app", "asgi_app", "_app", "_application", "_wsgi_app", "_asgi_app",
    "wsgi_application", "asgi_application", "wrapped_app", "wrapped", "_wrapped", "inner", "wsgi", "asgi",
    "get_response", "_middleware_chain", "middleware_stack", "handle_request", "asgi_handler", "handler",
    "next", "__wrapped__", "func", "middleware_wraps",
)  # fmt: skip

_OPAQUE = (
    str, bytes, bytearray, memoryview, int, float, complex, bool, type(None), type, types.ModuleType,
    types.CodeType, types.FrameType, types.BuiltinFunctionType, types.GenericAlias, Exception,
)  # fmt: skip

_CONTAINERS = (list, tuple, dict)


class Reference(NamedTuple):
    """One place that refers to an object."""

    path: str  # from the holder: `app`, `closure:app`, `apps[0]`
    value: Any
    put: Callable[[Any], None] | None  # sets it; None where it cannot be set


def is_opaque(value: Any) -> bool:
    """Whether this is a plain value, behind which no app can stand."""
    kind = type(value)  # not `isinstance`: it asks a proxy, and may ask for a request that is not there
    return issubclass(kind, _OPAQUE) or kind.__module__ == "werkzeug.local"


def is_proxy(value: Any) -> bool:
    """Whether this pretends to be of another type, as the proxies of wrapt do."""
    try:
        claimed = value.__class__
    except Exception:
        return False
    return claimed is not type(value) and not issubclass(type(value), claimed)


def references(holder: Any) -> Iterator[Reference]:
    """Every reference that this object holds, those in its lists, tuples and dicts among them."""
    for reference in _direct(holder):
        value = reference.value
        if type(value) in _CONTAINERS or _is_named_tuple(value):
            yield from _entries(reference, depth=2)
        elif not is_opaque(value):
            yield reference


def _direct(holder: Any) -> Iterator[Reference]:
    kind = type(holder)
    if is_proxy(holder):
        yield from _of_proxy(holder)
    elif kind is types.MethodType:
        yield Reference("__self__", holder.__self__, None)
    elif kind is functools.partial:
        yield Reference("partial.func", holder.func, None)
        for index, value in enumerate(holder.args):
            yield Reference(f"partial.args[{index}]", value, None)
        for name, value in holder.keywords.items():
            put = functools.partial(_put_item, holder.keywords, name)
            yield Reference(f"partial.keywords[{name!r}]", value, put)
    elif kind is types.FunctionType:
        yield from _of_function(holder)
    else:
        yield from _of_instance(holder)


def _of_proxy(holder: Any) -> Iterator[Reference]:
    try:
        wrapped = object.__getattribute__(holder, "__wrapped__")
    except AttributeError:
        return
    yield Reference("__wrapped__", wrapped, functools.partial(_put_attribute, holder, "__wrapped__"))


def _of_function(holder: types.FunctionType) -> Iterator[Reference]:
    for name, cell in zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield Reference(f"closure:{name}", value, functools.partial(_put_cell, cell))
    if "__wrapped__" in holder.__dict__:
        put = functools.partial(_put_item, holder.__dict__, "__wrapped__")
        yield Reference("__wrapped__", holder.__dict__["__wrapped__"], put)
    for index, value in enumerate(holder.__defaults__ or ()):
        yield Reference(f"default[{index}]", value, functools.partial(_put_default, holder, index))


def _of_instance(holder: Any) -> Iterator[Reference]:
    seen = set()
    stored = _own_dict(holder)
    # `functools.update_wrapper` copies the attributes of what is wrapped; nobody calls the copies.
    copied = _own_dict(stored["__wrapped__"]) if "__wrapped__" in stored else {}
    for name in list(stored):
        if isinstance(name, str) and (name not in copied or copied[name] is not stored[name]):
            seen.add(name)
            yield Reference(name, stored[name], functools.partial(_put_attribute, holder, name))
    for owner in type(holder).__mro__:
        for name, descriptor in list(vars(owner).items()):
            # Slots; and the attributes of compiled classes, of which only the likely ones are read.
            is_slot = isinstance(descriptor, types.MemberDescriptorType)
            is_compiled = isinstance(descriptor, types.GetSetDescriptorType) and name in INNER_NAMES
            if name in seen or name.startswith("__") or not (is_slot or is_compiled):
                continue
            try:
                value = descriptor.__get__(holder)
            except Exception:  # a slot that is not filled; compiled code may raise anything
                continue
            seen.add(name)
            yield Reference(name, value, functools.partial(_put_attribute, holder, name))


def _own_dict(holder: Any) -> dict[Any, Any]:
    try:
        stored = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def _entries(holder: Reference, depth: int) -> Iterator[Reference]:
    """What a list, a tuple or a dict holds; tuples are made anew when an entry is put."""
    container = holder.value
    if len(container) > MOST_ENTRIES:
        return
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(pairs):
        put: Callable[[Any], None] | None
        if isinstance(container, tuple):
            put = None if holder.put is None else functools.partial(_put_in_tuple, holder, key)
        else:
            put = functools.partial(_put_item, container, key)
        reference = Reference(f"{holder.path}[{key!r}]", value, put)
        if type(value) in _CONTAINERS or _is_named_tuple(value):
            if depth > 1:
                yield from _entries(reference, depth - 1)
        elif not is_opaque(value):
            yield reference


def _put_in_tuple(holder: Reference, index: int, value: Any) -> None:
    assert holder.put is not None
    made = [*holder.value[:index], value, *holder.value[index + 1 :]]
    kind = type(holder.value)
    holder.put(kind(*made) if _is_named_tuple(holder.value) else kind(made))


def _put_item(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def _put_cell(cell: types.CellType, value: Any) -> None:
    cell.cell_contents = value


def _put_default(holder: types.FunctionType, index: int, value: Any) -> None:
    defaults = list(holder.__defaults__ or ())
    defaults[index] = value
    holder.__defaults__ = tuple(defaults)


def _put_attribute(holder: Any, name: str, value: Any) -> None:
    try:
        setattr(holder, name, value)
    except AttributeError:
        object.__setattr__(holder, name, value)  # a frozen dataclass
