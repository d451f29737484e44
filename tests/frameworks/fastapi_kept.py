"""A dependency with `yield` that says when it was entered and left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import Depends


class Kept:
    """A dependency with `yield`, and what it saw."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self) -> AsyncIterator[Kept]:
        self.events.append("enter")
        try:
            yield self
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            self.events.append("exit")

    def sync(self) -> Iterator[Kept]:
        self.events.append("enter")
        try:
            yield self
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        finally:
            self.events.append("exit")


def dependency(kept: Kept, kind: str) -> Any:
    return Depends(kept.sync if kind == "sync" else kept)
