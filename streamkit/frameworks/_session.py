"""Sessions that refuse a change which nobody would save any more.

    watched(description, request.session)

Rule: only the producer is refused, and only after its commit. Middleware may change the session
until it is saved, whatever the producer has come to meanwhile.

The session object, which is this one request's, gets a subclass of its own class. That looks like
patching, and is meant: no class and no module of the framework is touched, and the object does all that
it did. A proxy in its place would be plainer, but there is no place: Flask saves the object of its own
context, middleware and the view have taken theirs from the request before, and checks for the
session's class would fail. To compare the session at the end with what was saved would tell of a change
only when nobody can undo it, and not whose it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..core.producers import Kind
from ..core.response import StreamingResponse
from ..errors import AlreadyCommitted

_stream: ContextVar[Any] = ContextVar("streamkit.stream_of_this_producer", default=None)

# What changes a session, in the words of Django and of Starlette; `modified = True` they have in common.
_CHANGES = (
    *("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update", "flush"),
    *("cycle_key", "set_expiry", "set_test_cookie", "delete_test_cookie", "aset", "apop", "asetdefault"),
    *("aupdate", "aflush", "acycle_key", "aset_expiry", "aset_test_cookie", "adelete_test_cookie"),
)


def watched(description: StreamingResponse, session: Any) -> Any:
    """Let the producer change this session until it commits; the session to use in its place.

    `description` is the caller's own.
    """
    base: type = type(session)
    made = _class_for(base)
    try:
        session.__class__ = made
    except TypeError:
        if base is not dict:
            return session  # an object of a kind that cannot be watched
        session = made(session)  # as older Starlettes have it
    producer = description.producer
    if description.kind is Kind.FUNCTION:
        description.producer = functools.partial(_run, producer)
    elif description.kind is Kind.COROUTINE_FUNCTION:
        description.producer = functools.partial(_run_async, producer)
    return session


def _run(producer: Callable[[Any], Any], stream: Any) -> Any:
    _stream.set(stream)  # in the producer's own copy of the context
    return producer(stream)


async def _run_async(producer: Callable[[Any], Any], stream: Any) -> Any:
    token = _stream.set(stream)
    try:
        return await producer(stream)
    finally:
        _stream.reset(token)  # else stream, task and context would hold one another


def _check() -> None:
    stream = _stream.get()
    if stream is not None and stream.committed:
        raise AlreadyCommitted("change the session")


@functools.lru_cache(maxsize=16)
def _class_for(base: type) -> type:
    """The class of sessions, with a look at the stream before each change."""
    if getattr(base, "_streamkit_watches", False):
        return base

    def change(name: str) -> Callable[..., Any]:
        original = getattr(base, name)

        @functools.wraps(original)
        def checked(self: Any, *args: Any, **values: Any) -> Any:
            _check()
            return original(self, *args, **values)

        return checked

    set_unchecked: Any = base.__setattr__

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name == "modified" and value:
            _check()
        set_unchecked(self, name, value)

    names: dict[str, Any] = {name: change(name) for name in _CHANGES if hasattr(base, name)}
    names["__setattr__"] = set_attribute
    names.update(_streamkit_watches=True, __module__=base.__module__)
    return type(base.__name__, (base,), names)
