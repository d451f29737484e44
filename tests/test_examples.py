"""The examples, started by the one command that each of them names, and asked over a socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.launch import ROOT, running
from servers.wire import Connection, Ending, Reply, fetch

pytestmark = pytest.mark.server

COMMANDS = {
    "flask": ["flask_app.py"],
    "django": ["django_app.py"],
    "django --wsgi": ["django_app.py", "--wsgi"],
    "starlette": ["starlette_app.py"],
}
PATHS = ["/ticks", "/steps", "/rows.csv", "/fails"]


@dataclass(frozen=True)
class Example:
    port: int
    log: Path

    def fetch(self, path: str, **options: Any) -> Reply:
        return fetch(self.port, path, **options)

    def failures(self) -> int:
        return self.log.read_text().count("RuntimeError: the example fails here on purpose")


@pytest.fixture(scope="module", params=COMMANDS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    file, *more = COMMANDS[request.param]
    log = tmp_path_factory.mktemp("example") / "log"

    def command(port: int) -> list[str]:
        return [sys.executable, str(ROOT / "examples" / file), str(port), *more]

    with running(command, log) as (port, _):
        yield Example(port, log)


@pytest.mark.parametrize(
    ("path", "first", "count"), [("/ticks", b"tick 1\n", 5), ("/steps", b"step 1 is done\n", 3)]
)
def test_a_line_arrives_before_the_next_is_made(
    example: Example, path: str, first: bytes, count: int
) -> None:
    with Connection(example.port) as connection:
        connection.ask("GET", path)
        head, lines = connection.head(), list(connection.chunks())
    assert head.status == 200
    assert connection.ending is Ending.COMPLETE
    assert [line.payload for line in lines] == [first.replace(b"1", b"%d" % n) for n in range(1, count + 1)]
    # One is made each 0.5 s; held back, all would arrive together.
    assert lines[-1].arrived - lines[0].arrived > 0.3 * (count - 1)


@pytest.mark.parametrize("path", PATHS)
def test_the_options_of_wrap_reach_every_stream(example: Example, path: str) -> None:
    with Connection(example.port) as connection:
        connection.ask("GET", path)
        head = connection.head()
    assert head.status == 200
    assert head.get("X-Served-By") == "streamkit"
    assert head.get("X-Accel-Buffering") == "no"
    assert head.get("Cache-Control") == "no-store, no-transform"
    assert head.get("Content-Length") is None


def test_the_csv_has_all_its_rows(example: Example) -> None:
    reply = example.fetch("/rows.csv")
    assert reply.ending is Ending.COMPLETE
    assert reply.head.get("Content-Disposition") == "attachment; filename=rows.csv"
    assert reply.body.split(b"\r\n") == [b"%d,%d" % (n, n**2) for n in range(10_000)] + [b""]


def test_a_stream_that_fails_half_way_says_so_and_is_cut(example: Example) -> None:
    reply = example.fetch("/fails")
    assert (reply.status, reply.ending) == (200, Ending.TRUNCATED)
    assert reply.head.get("Content-Type") == "application/x-ndjson"
    first, second, last = reply.body.splitlines()
    assert (first, second) == (b'{"record": 1}', b'{"record": 2}')
    assert last.startswith(b'{"error":')
    assert b"on purpose" not in last


def test_the_failure_is_in_the_log(example: Example) -> None:
    before = example.failures()
    example.fetch("/fails")
    example.fetch("/nothing")
    assert example.failures() > before


@pytest.mark.parametrize("path", PATHS)
def test_head_is_answered_without_a_body(example: Example, path: str) -> None:
    reply = example.fetch(path, method="HEAD")
    assert reply.status == 200
    assert reply.head.get("X-Accel-Buffering") == "no"


def test_the_port_may_come_from_the_environment(tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return ["env", f"PORT={port}", sys.executable, str(ROOT / "examples" / "flask_app.py")]

    with running(command, tmp_path / "log") as (port, _):
        assert fetch(port, "/nothing").status == 404
