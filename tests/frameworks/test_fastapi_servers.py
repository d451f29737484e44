"""A FastAPI app under uvicorn: a million rows by a dependency with `yield`.

Rule: as for Django's in `test_django_servers`.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers.launch import poll, running
from servers.wire import Connection, Ending, fetch

pytest.importorskip("fastapi")
pytestmark = [pytest.mark.server, pytest.mark.slow]

ROWS = 1_000_000
MEMORY = 60 * 1024 * 1024  # bytes over the idle process
EXPORTS = ["export", "export-async", "export-live"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rows")
    database = sqlite3.connect(made / "site.sqlite3")
    with database:
        database.execute("CREATE TABLE row (number integer PRIMARY KEY, name text)")
        database.executemany("INSERT INTO row VALUES (?, ?)", ((n, f"name {n}") for n in range(ROWS)))
    database.close()
    return made


class Exporting:
    """The server, and what it says of itself."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log
        self.idle = self.stats()

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(fetch(self.port, "/stats").body)
        return stats

    def returned(self) -> dict[str, Any]:
        """The stats when no connection is open any more."""
        return poll(
            lambda: stats if (stats := self.stats())["connections"] == 0 else None,
            bound=20.0,
            what="the return of all connections",
        )


@pytest.fixture(scope="module")
def exporting(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporting]:
    def command(port: int) -> list[str]:
        return [
            "env", f"STREAMKIT_SITE={folder}", sys.executable, "-m", "uvicorn", "--host=127.0.0.1",
            f"--port={port}", "--log-level=warning", "--timeout-graceful-shutdown=2",
            "tests.frameworks.fastapi_site:app",
        ]  # fmt: skip

    log = tmp_path_factory.mktemp("log") / "log"
    with running(command, log) as (port, _):
        yield Exporting(port, log)


@pytest.mark.parametrize("page", EXPORTS)
def test_a_million_rows_need_no_memory_and_return_their_connection(exporting: Exporting, page: str) -> None:
    opened = exporting.stats()["opened"]
    with Connection(exporting.port) as connection:
        connection.ask("GET", f"/{page}")
        head = connection.head()
        assert (head.status, head.get("Content-Type")) == (200, "text/csv")
        chunks = connection.chunks()
        size, lines = 0, 0
        for number, chunk in enumerate(chunks):
            if number == 1:
                assert exporting.stats()["connections"] == 1
            size += len(chunk.payload)
            lines += chunk.payload.count(b"\n")
        assert connection.ending is Ending.COMPLETE
    assert lines == ROWS
    assert size == sum(len(f"{n},name {n}\r\n") for n in range(ROWS))
    stats = exporting.returned()
    assert stats["opened"] == opened + 1
    assert stats["peak"] - exporting.idle["resident"] < MEMORY


@pytest.mark.parametrize("page", EXPORTS)
def test_fifty_aborted_downloads_leave_no_open_connection(exporting: Exporting, page: str) -> None:
    opened = exporting.stats()["opened"]

    def leave_half_way(number: int) -> None:
        with Connection(exporting.port) as connection:
            connection.ask("GET", f"/{page}")
            assert connection.head().status == 200
            got = 0
            for chunk in connection.chunks():
                got += len(chunk.payload)
                if got > 1000 * number:
                    break
            connection.reset()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(leave_half_way, range(50)))
    stats = exporting.returned()
    assert stats["opened"] == opened + 50
    assert stats["peak"] - exporting.idle["resident"] < MEMORY
    assert exporting.log.read_text() == "", "a client that leaves is nobody's error"
