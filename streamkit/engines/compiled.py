"""The compiled parts, where a compiler was when streamkit was installed.

Rule: nothing but speed depends on whether they are there; each stands beside the Python that it is a
short cut for.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

_EDITION = 1  # of what they and the Python have agreed upon; the same number stands in each C file


def _compiled(name: str) -> Any:
    """This module; None where it was not built, or STREAMKIT_PURE_PYTHON says that it is not wanted.

    `ImportError` where it was compiled from sources of another edition.
    """
    if os.environ.get("STREAMKIT_PURE_PYTHON"):
        return None
    try:
        part = import_module(f".{name}", __package__)
    except ModuleNotFoundError:  # it was installed where no compiler was
        return None
    if part.EDITION != _EDITION:
        raise ImportError(f"{part.__file__} was compiled from other sources: install streamkit again")
    return part


REQUESTS = _compiled("_passing")
STREAMS = _compiled("_streams")
