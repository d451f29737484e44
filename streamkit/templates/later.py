"""Awaitables in the context of an asynchronous template, awaited where the template uses them.

    templates.chunked("page.html", weather=load_weather())    # `{{ weather }}` waits, and nothing above it

Rule: each is awaited once, however often and from however many deferred blocks it is used; one that
is never used is never begun.
"""

from __future__ import annotations

# The one room outside the engines that knows a loop: what several blocks wait for must be a task.
import asyncio
from collections.abc import Awaitable, Generator, Mapping
from inspect import isawaitable, iscoroutine
from types import GeneratorType
from typing import Any, NoReturn


class Later:
    """An awaitable that may be awaited again."""

    __slots__ = ("_awaitable", "_task")

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable
        self._task: asyncio.Future[Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        if self._task is None:
            self._task = asyncio.ensure_future(self._awaitable)
        # One block that is given up must not take the value away from the others.
        return asyncio.shield(self._task).__await__()

    def close(self) -> None:
        """The page is over: nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()  # nothing, where it is done
        elif iscoroutine(self._awaitable):
            self._awaitable.close()  # not used is no mistake: one that is collected unawaited would say so

    __del__ = close  # of a page that was never rendered

    def _not_awaited(self) -> NoReturn:
        raise RuntimeError(
            "this awaitable was not awaited: its template was compiled before its environment was given "
            "to streamkit.Templates"
        )

    def __str__(self) -> str:
        self._not_awaited()

    def __html__(self) -> str:
        self._not_awaited()


def awaited_later(context: Mapping[str, Any]) -> dict[str, Any]:
    """The context with its awaitables as they are to be used."""
    return {name: Later(value) if _is_awaitable(value) else value for name, value in context.items()}


def _is_awaitable(value: Any) -> bool:
    """As `isawaitable`, but by the type: of a lazy object that would ask for what it stands for."""
    kind = type(value)
    return hasattr(kind, "__await__") or (kind is GeneratorType and isawaitable(value))


def close_all(context: Mapping[str, Any]) -> None:
    """Let go of what is under way, or was not used."""
    for value in context.values():
        if type(value) is Later:
            value.close()
