"""The page on `streamkit.testing`: its tests run, and its tables are whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from streamkit.errors import NotAnApplication
from streamkit.testing import AsyncClient, AsyncConnection, Client, Connection

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()
NAMES: dict[str, Any] = {"__name__": "page"}
for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
    exec(compile(block, "docs/testing.md", "exec"), NAMES)
TESTS = [name for name in NAMES if name.startswith("test_")]


@pytest.mark.parametrize("name", TESTS)
def test_an_example_of_the_page_passes(name: str) -> None:
    NAMES[name]()


@pytest.mark.parametrize("kind", [Client, AsyncClient, Connection, AsyncConnection])
def test_every_public_name_is_on_the_page(kind: type) -> None:
    told = set(re.findall(r"`(?:client\.|answer\.)?(\w+)[`(]", PAGE))
    assert {name for name in dir(kind) if not name.startswith("_")} <= told


@pytest.mark.parametrize("method", [Client.__init__, Client.open])
def test_every_argument_is_on_the_page(method: Any) -> None:
    told = set(re.findall(r"`(\w+)`", PAGE)) | {"method", "path", "self"}
    code = method.__code__
    assert set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) <= told


def test_a_description_by_itself_needs_its_kind() -> None:
    with pytest.raises(NotAnApplication, match="kind="):
        Client(NAMES["described"])
