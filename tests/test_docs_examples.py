"""What the examples show beside the streams that all of them have: a replay, and a described download."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from driving import PATIENCE
from servers.launch import ROOT, running
from servers.wire import Connection, Ending, fetch

pytestmark = pytest.mark.server


@pytest.mark.parametrize("way", [[], ["--wsgi"]])
def test_the_download_of_the_django_example_has_all_its_rows(way: list[str], tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, str(ROOT / "examples" / "django_app.py"), str(port), *way]

    with running(command, tmp_path / "log") as (port, _):
        reply = fetch(port, "/squares")
    assert reply.ending is Ending.COMPLETE
    assert "squares.csv" in (reply.head.get("Content-Disposition") or "")
    assert reply.head.get("X-Served-By") == "streamkit"
    header, *rows, rest = reply.body.split(b"\r\n")
    assert (header, rest) == (b"number,square", b"")
    assert rows == [b"%d,%d" % (n, n**2) for n in range(10_000)]


def test_what_was_said_is_replayed_by_the_flask_example(tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, str(ROOT / "examples" / "flask_app.py"), str(port)]

    def say(port: int, word: str) -> None:
        body = urlencode({"text": word}).encode()
        with urlopen(f"http://127.0.0.1:{port}/say", body, timeout=PATIENCE) as answer:
            assert answer.status == 204

    with running(command, tmp_path / "log") as (port, _):
        for word in ("one", "two"):
            say(port, word)
        with Connection(port) as connection:
            connection.ask("GET", "/events", fields={"Last-Event-ID": "1"})
            assert connection.head().status == 200
            chunks = connection.chunks()
            assert next(chunks).payload == b"retry: 2000\nid: 2\ndata: two\n\n"
            say(port, "three")
            assert next(chunks).payload == b"retry: 2000\nid: 3\ndata: three\n\n"
