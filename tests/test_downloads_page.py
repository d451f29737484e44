"""The page on downloads: its code runs, and does what the page says."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from streamkit.testing import Client

PAGE = Path(__file__).parents[1] / "docs" / "downloads.md"


BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(block: str) -> dict[str, Any]:
    """What one block of the page defines, by itself."""
    names: dict[str, Any] = {"__name__": "page", "__file__": str(PAGE)}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What all of them define; each function knows its own block alone."""
    return {name: value for block in BLOCKS for name, value in run(block).items()}


def test_each_block_of_code_is_run() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("```") / 2 == 5


def test_each_function_sends_its_file(page: dict[str, Any]) -> None:
    with Client(page["app"]) as client:
        csv = client.get("/orders.csv")
        assert (csv.headers["Content-Type"], csv.headers["Accept-Ranges"]) == ("text/csv", "none")
        assert csv.read().decode() == "id,customer,total\r\n1,Ann,12.5\r\n2,Béa,7\r\n"
        lines = client.get("/orders.jsonl")
        assert lines.headers["Content-Type"] == "application/x-ndjson"
        assert [json.loads(line)["customer"] for line in lines.read().splitlines()] == ["Ann", "Béa"]
        with zipfile.ZipFile(io.BytesIO(client.get("/all.zip").read())) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == {
                "note.txt": b"two files",
                "ids.txt": b"1\n2\n",
            }
        assert client.get("/report.txt").read() == b"done\n"
        part = client.get("/page.md", headers={"Range": "bytes=0-10"})
        assert (part.status, part.read()) == (206, b"# Downloads")
        assert part.headers["Content-Disposition"].startswith("inline; ")


def test_the_name_is_sent_as_the_page_shows(page: dict[str, Any]) -> None:
    shown = re.findall(r"^# Content-Disposition: (.*)$", PAGE.read_text(), re.MULTILINE)
    assert [dict(page["named"].headers)["Content-Disposition"]] == shown


def test_a_download_that_fails_is_cut(page: dict[str, Any]) -> None:
    with Client(page["app_that_fails"]) as client:
        answer = client.get("/")
        assert answer.next_chunk() == b"id,total\r\n"
        with pytest.raises(ConnectionError):
            answer.next_chunk()
        assert not answer.complete
        old = client.get("/", http_version="1.0")
        with pytest.raises(ConnectionError):
            old.wait_head()  # nothing was sent: the server answers 500


def test_progress_and_encoding_are_as_described(page: dict[str, Any]) -> None:
    with Client(page["app_with_progress"]) as client:
        body = client.get("/").read()
    assert body.decode("utf-8-sig") == "number\tsquare\r\n0\t0\r\n1\t1\r\n2\t4\r\n"
    assert page["seen"][-1] == (3, len(body))


def test_an_archive_has_its_members(page: dict[str, Any]) -> None:
    with Client(page["app_with_archive"]) as client:
        body = client.get("/").read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        names = ["downloads.md", "notes/today.txt", "notes/numbers.txt", "notes/late.txt"]
        assert archive.namelist() == names
        assert archive.read("notes/late.txt") == b"made when its turn comes"
        assert archive.testzip() is None
