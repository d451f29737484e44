"""The stream that a producer gets has the face that its description wants.

Rule: a face adds methods over the stream's own, and nothing that an engine has to know.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from ..core.response import StreamingResponse

Stream = TypeVar("Stream")


def faced(engine: type[Stream], response: StreamingResponse | None, *, asynchronous: bool) -> type[Stream]:
    """The engine's class of stream, with the face for this description over it."""
    if response is None or response.faces is None:
        return engine
    below: Any = engine
    combined: type[Stream] = _combined(below, response.faces[1 if asynchronous else 0])
    return combined


@cache
def _combined(engine: Any, face: Any) -> Any:
    return type(face.__name__, (face, engine), {"__slots__": (), "__module__": face.__module__})
