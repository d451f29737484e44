"""What an object is, as a layer: how it is called, what its name is, where its code stands.

Rule: told from signatures and names; nothing is called.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any, Literal

from .references import is_opaque

__all__ = [
    "Kind", "attributes_of", "called_by", "kind_of_layer", "module_of", "name_of", "source_of", "takes_one",
]  # fmt: skip

Kind = Literal["wsgi", "asgi", "request", "hook", "view", "entry", "unknown"]

_WSGI_NAMES = {"environ", "env", "start_response", "start"}
_ASGI_NAMES = {"scope", "receive", "send"}
_REQUEST_NAMES = ("request", "req")


def kind_of_layer(value: Any) -> Kind | None:
    """How this object is called, told from its signature; None for what is no app."""
    if is_opaque(value) or not callable(value):
        return None
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return "unknown"  # compiled
    except Exception:  # an object that pretends to be another, which is not there now
        return None
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [p.name for p in named]
    required = sum(p.default is p.empty for p in named)
    if set(names) >= _ASGI_NAMES or (required == 3 and _is_async(value)):
        return "asgi"
    if required == 2 and not _is_async(value) and (_WSGI_NAMES & set(names) or names[0] in ("e", "_environ")):
        return "wsgi"
    if required <= 1 and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return "unknown"  # WebOb's `wsgify` among them, which is called either way
    return "request" if required == 1 and names[0] in _REQUEST_NAMES else None


def takes_one(value: Any) -> bool:
    if is_opaque(value) or not callable(value):
        return False
    try:
        inspect.signature(value).bind(None)
    except Exception:  # it takes other arguments, or pretends to be what is not there
        return False
    return True


def _is_async(value: Any) -> bool:
    called = value if inspect.isroutine(value) else vars(type(value)).get("__call__") or type(value).__call__
    return inspect.iscoroutinefunction(called)


def module_of(value: Any) -> str:
    if type(value) is types.FunctionType:
        return str(value.__globals__.get("__name__", ""))
    return type(value).__module__


def name_of(value: Any) -> str:
    """The dotted name of this object's class, or of the function that it is."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value) is types.MethodType:
        return f"{name_of(value.__self__)}.{value.__name__}"
    if type(value) is functools.partial:
        return f"partial({name_of(value.func)})"
    if type(value) is types.FunctionType:
        qualified = value.__qualname__
        if "__wrapped__" in value.__dict__:  # `functools.wraps` gave it another's name
            qualified = getattr(value.__code__, "co_qualname", value.__code__.co_name)
        return f"{module_of(value)}.{qualified}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def called_by(value: Any) -> str | None:
    attributes = attributes_of(value)
    called = attributes.get("dispatch_func")
    if called is None and name_of(value) == "webob.dec.wsgify":
        called = attributes.get("func")
    return None if called is None else name_of(called)


def source_of(value: Any) -> tuple[str | None, int | None]:
    """The file and line of its function or class."""
    value = value.func if type(value) is functools.partial else value
    value = value.__func__ if type(value) is types.MethodType else value
    if type(value) is types.FunctionType:
        return value.__code__.co_filename, value.__code__.co_firstlineno
    made: Any = value if isinstance(value, type) else type(value)
    try:
        return inspect.getsourcefile(made), inspect.getsourcelines(made)[1]
    except (OSError, TypeError):  # compiled, or typed into a console
        return None, None


def attributes_of(value: Any) -> dict[str, Any]:
    try:
        stored = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return stored if isinstance(stored, dict) else {}
