"""The page on conditional requests: its code runs, and answers as the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from streamkit.testing import Client

PAGE = (Path(__file__).parents[1] / "docs" / "conditional.md").read_text()
BODY = b"row 0\nrow 1\nrow 2\n"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/conditional.md", "exec"), names)
    return names


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("view", ["view", "view_with_headers"])
def test_a_client_that_has_it_gets_a_304_and_others_the_body(
    page: dict[str, Any], view: str, kind: Any
) -> None:
    with Client(page[view](), kind=kind) as client:
        first = client.get("/")
        assert (first.read(), first.headers["ETag"]) == (BODY, '"v7"')
        assert first.headers["Cache-Control"] == "private, no-cache, no-transform"
        again = client.get("/", headers={"If-None-Match": '"v7"'})
        assert (again.status, again.read()) == (304, b"")
        assert client.get("/", headers={"If-None-Match": '"v6"'}).read() == BODY
