"""The page on compression: its code runs, and compresses what it says."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from streamkit.testing import Client

PAGE = (Path(__file__).parents[1] / "docs" / "compression.md").read_text()
GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/compression.md", "exec"), names)
    return names


def plain(answer: Any) -> bytes:
    assert answer.headers["Content-Encoding"] == "gzip"
    return zlib.decompressobj(31).decompress(answer.read())


def test_what_is_described_so_is_compressed(page: dict[str, Any]) -> None:
    with Client(page["events"](), kind="wsgi") as client:
        assert plain(client.get("/", headers=GZIP)).count(b"data: ") == 3
        assert "Content-Encoding" not in client.get("/").headers
    with Client(page["export"](), kind="wsgi") as client:
        assert plain(client.get("/", headers=GZIP)) == b"1,2\r\n3,4\r\n"


def test_every_stream_of_the_app_is_compressed(page: dict[str, Any]) -> None:
    with Client(page["app"]) as client:
        assert plain(client.get("/", headers=GZIP)) == b"ab"
        assert plain(client.get("/events", headers=GZIP)).count(b"data: ") == 3
