"""Stacks of mixed layers in random order, with exactly one that is guilty, or none.

Rule: a stack comes of its seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import streamkit

from .layers_asgi import (
    ASGI_GUILTY,
    ASGI_INNOCENT,
    STARLETTE_GUILTY,
    STARLETTE_INNOCENT,
    asgi_stack,
    starlette_stack,
)
from .layers_frameworks import (
    DJANGO_GUILTY,
    DJANGO_INNOCENT,
    FLASK_GUILTY,
    FLASK_INNOCENT,
    django_stack,
    flask_stack,
)
from .layers_wsgi import WSGI_GUILTY, WSGI_INNOCENT, wsgi_stack
from .parts import Part


@dataclass(frozen=True)
class Stack:
    """An app, and who in it is guilty; None where nobody is."""

    app: Any
    guilty: str | None
    parts: tuple[str, ...]
    settings: AbstractContextManager[Any]
    path: str | None


# ---------------------------------------------------------------- building

FAMILIES: list[tuple[Callable[..., Any], list[Part], list[Part], str | None]] = [
    (wsgi_stack, WSGI_GUILTY, WSGI_INNOCENT, None),
    (asgi_stack, ASGI_GUILTY, ASGI_INNOCENT, None),
    (starlette_stack, STARLETTE_GUILTY, STARLETTE_INNOCENT, "/page"),
    (flask_stack, FLASK_GUILTY, FLASK_INNOCENT, "/page"),
    (django_stack, DJANGO_GUILTY, DJANGO_INNOCENT, "/page"),
]


def build(seed: int, *, guilty: bool) -> Stack:
    """A stack of mixed layers in random order, with exactly one guilty one or none."""
    chance = random.Random(seed)
    make, bad, good, path = FAMILIES[seed % len(FAMILIES)]
    chosen = chance.sample(good, chance.randint(2, 5))
    named = None
    if guilty:
        # In turn, so that no two stacks of a family have the same one before all had their turn.
        culprit = bad[(seed // len(FAMILIES)) % len(bad)]
        chosen.append(culprit)
        named = culprit.name
    chance.shuffle(chosen)
    app, settings = make(chosen)
    if not guilty and path is None:
        # Only there: around a guilty layer it may lead the stream past it.
        app = streamkit.wrap(app, kind="asgi" if make is asgi_stack else "wsgi")
    return Stack(
        app,
        named,
        tuple(part.name.rpartition(".")[2] for part in chosen),
        settings,
        path if chance.random() < 0.5 else None,
    )
