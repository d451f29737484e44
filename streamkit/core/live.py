"""A view that becomes a stream with its first write (Rails' ActionController::Live).

Rule: until its first write a view is an ordinary one: what it raises is raised to its framework,
and what it returns instead of writing is its response.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ProducerError
from .producers import kind_of
from .response import StreamingResponse
from .steps import StepAside

_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
CONTENT_TYPE = "text/html; charset=utf-8"  # what frameworks give a view that says nothing


def is_async_view(view: Callable[..., Any], *takes: str) -> bool:
    """Whether the view is to be awaited; `ProducerError` if it cannot be called with what it `takes`."""
    if inspect.isgeneratorfunction(view) or inspect.isasyncgenfunction(view):
        raise ProducerError(
            f"wanted a live view that writes to its stream, got the generator function {view!r}: "
            "write instead of yielding, or return streamkit.stream(generator) from an ordinary view"
        )
    kind = kind_of(view)
    if kind.is_iterable:
        raise ProducerError(f"wanted a live view as a function that takes the stream, got {view!r}")
    if takes:
        signature = inspect.signature(view)
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if _VAR_POSITIONAL not in kinds and sum(kind in _POSITIONAL for kind in kinds) < len(takes):
            wanted = ", ".join(takes)
            raise ProducerError(f"a live view takes ({wanted}, ...), but {view!r} takes {signature}")
    return kind.is_async


def described(
    view: Callable[..., Any], before: tuple[Any, ...], values: Mapping[str, Any], options: Any = None
) -> StreamingResponse:
    """The view as a producer: called with what stands `before` the stream, the stream, and the values.

    A view that returns something without having written raises `StepAside` with it, to whoever
    serves the description.
    """
    if is_async_view(view):

        async def run_async(stream: Any) -> None:
            _step_aside(stream, await view(*before, stream, **values))

        return StreamingResponse(run_async, content_type=CONTENT_TYPE, options=options)

    def run(stream: Any) -> None:
        _step_aside(stream, view(*before, stream, **values))

    return StreamingResponse(run, content_type=CONTENT_TYPE, options=options)


def _step_aside(stream: Any, returned: object) -> None:
    if returned is not None and not stream.committed:
        raise StepAside(returned)
