"""What stacks of layers are made of.

Rule: a layer is what somebody could have in production. Those that are ours follow idioms of the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHUNK = b"<p>one line of a page that is still being made</p>\n"
CHUNKS = 6


@dataclass(frozen=True)
class Part:
    """A layer: how it is put around an app, or named in a setting, and what the doctor calls it."""

    put: Any
    name: str
