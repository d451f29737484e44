"""Templates in each way that they can be served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("jinja2")

from .pages import WAYS, Pages, serving


@pytest.fixture(params=WAYS, ids=str)
def pages(request: Any) -> Iterator[Pages]:
    yield from serving(request.param)
