"""What a page is given beside its template: delayed functions, and contents that are no template.

Rule: what is wrong with it is found before anything is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeAlias

from ..errors import ProducerError

Content: TypeAlias = "str | Callable[[], Any] | Iterable[Any] | AsyncIterable[Any]"
Delay: TypeAlias = "Iterable[Callable[[], Any]]"


def delay_of(delay: Any, *, is_async: bool) -> tuple[Callable[[], Any], ...]:
    """The delayed functions, checked."""
    if callable(delay) or isinstance(delay, (str, bytes, Mapping)) or not isinstance(delay, Iterable):
        raise ProducerError(f"delay: wanted a sequence of functions without arguments, got {delay!r}")
    functions = tuple(delay)
    for function in functions:
        if not callable(function):
            raise ProducerError(f"delay: wanted functions without arguments, got {function!r} among them")
        if iscoroutinefunction(function) and not is_async:
            raise ProducerError(
                f"delay: {function!r} is asynchronous, which needs Environment(enable_async=True)"
            )
    return functions


def pieces_of(content: Any, *, is_async: bool) -> Callable[[], Any]:
    """What gives the texts of a content that is no template."""
    if callable(content) and not isinstance(content, str):
        if iscoroutinefunction(content) and not is_async:
            raise ProducerError(
                f"content: {content!r} is asynchronous, which needs Environment(enable_async=True)"
            )
        return lambda: _texts(content())
    if isinstance(content, AsyncIterable) and not is_async:
        raise ProducerError(
            f"content: {content!r} is an async iterable, which needs Environment(enable_async=True)"
        )
    if isinstance(content, (bytes, bytearray, Mapping)) or not isinstance(content, (Iterable, AsyncIterable)):
        raise ProducerError(
            "content: wanted text, an iterable of texts or a function that returns either, "
            f"got {type(content).__name__}: {content!r}"
        )
    return lambda: _texts(content)


def _texts(given: Any) -> Any:
    if given is None:
        return ()
    if isawaitable(given):
        return _awaited_texts(given)
    return (given,) if isinstance(given, str) else given


async def _awaited_texts(given: Any) -> Any:
    return _texts(await given)  # awaited where the template calls it, before it is iterated
