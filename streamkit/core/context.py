"""The context that a producer runs in, and what a request says for the page that follows in it.

Rule: changes that a producer makes to context variables stay in its copy, and what one request
has said is forgotten when the next begins, so nothing leaks into the next request of a pooled thread.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

Result = TypeVar("Result")


class Said:
    """Something said once, for the next page of this request: `say`, and `take` gives it back once.

    An ASGI request has a context of its own. Under WSGI the next request on the thread has the
    same one, so whoever begins it calls `forget`, at next to no cost while nobody has `ever` said it.
    """

    __slots__ = ("_variable", "ever")

    def __init__(self, name: str) -> None:
        self._variable: ContextVar[bool] = ContextVar(name, default=False)
        self.ever = False

    def say(self) -> None:
        self.ever = True
        self._variable.set(True)

    def take(self) -> bool:
        said = self._variable.get()
        if said:
            self._variable.set(False)
        return said

    def forget(self) -> None:
        self.take()


unchunked = Said("streamkit_unchunked")  # the next page is sent whole


def inherited(excluded: tuple[str, ...] = ()) -> Context:
    """A copy of the current context without the variables of these names."""
    context = copy_context()
    if not excluded:
        return context
    kept = Context()
    for variable, value in context.items():
        if variable.name not in excluded:
            kept.run(variable.set, value)
    return kept


def steps_of(awaitable: Any) -> Any:
    """What an `await` goes through: a coroutine's own, or those of a generator that is marked as one."""
    made = getattr(awaitable, "__await__", None)
    if made is not None:
        return made()
    if not inspect.isawaitable(awaitable):  # a list, say, would be gone through
        raise TypeError(f"object {type(awaitable).__name__} can't be used in 'await' expression")
    return awaitable


@types.coroutine
def awaited_in(context: Context, awaitable: Awaitable[Result]) -> Generator[Any, Any, Result]:
    """Await it in this context, each of its steps, on the task that awaits this."""
    steps = steps_of(awaitable)
    try:
        waits_for = context.run(next, steps)
    except StopIteration as end:
        result: Result = end.value
        return result
    result = yield from rest_in(context, steps, waits_for)
    return result


@types.coroutine
def rest_in(context: Context, steps: Any, waits_for: Any) -> Generator[Any, Any, Any]:
    """The rest of `awaited_in`, after a first step that has something to wait for."""
    thrown: BaseException | None = None
    try:
        while True:
            try:
                yield waits_for
            except BaseException as error:
                if not hasattr(steps, "throw"):  # an iterator that is no generator
                    raise
                thrown = error
            if thrown is None:
                waits_for = context.run(next, steps)
                continue
            try:  # not above: whatever the steps raise later would have this error for its context
                waits_for = context.run(steps.throw, thrown)
            finally:
                thrown = None  # its traceback refers to this frame
    except StopIteration as end:
        return end.value
