"""Django on real servers: `runserver` and its reload, and a million rows under gunicorn and uvicorn.

Rule: a server is a process of its own, ended by its own id; a stream that waits is let go by a second
request, and every wait has a bound.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers.launch import COMPLAINT, ROOT, poll, running
from servers.wire import Connection, Ending, fetch

pytest.importorskip("django")
pytestmark = pytest.mark.server

# ---------------------------------------------------------------- runserver

MANAGE = """\
import sys, threading
from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="pages", SECRET_KEY="x", WSGI_APPLICATION=None,
    INSTALLED_APPS={apps!r}, ASGI_APPLICATION="pages.application",
    MIDDLEWARE=["streamkit.frameworks.django.StreamKitMiddleware", "django.middleware.gzip.GZipMiddleware",
                "django.middleware.http.ConditionalGetMiddleware"],
)
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""

PAGES = """\
import os, threading
import streamkit
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from streamkit.frameworks.django import live, respond

go_on = threading.Event()

def plain(request):
    return HttpResponse("version {version}")

def release(request):
    go_on.set()
    return HttpResponse("released")

@live
def ticks(request, stream):
    stream.headers["Content-Type"] = "text/event-stream"
    stream.write(f"data: {{os.getpid()}}\\n\\n")
    assert go_on.wait(30)
    stream.write("data: last\\n\\n")

def rows(request):
    def lines():
        yield "one\\n"
        assert go_on.wait(30)
        yield "two\\n"
    return respond(request, streamkit.stream(lines()))

application = get_asgi_application()
urlpatterns = [path("plain", plain), path("release", release), path("ticks", ticks), path("rows", rows)]
"""


class Project:
    """A Django project in a folder of its own, under `runserver`."""

    def __init__(self, folder: Path, apps: list[str]) -> None:
        self.folder = folder
        (folder / "manage.py").write_text(MANAGE.format(apps=apps))
        self.write("one")

    def write(self, version: str) -> None:
        """Change the pages; each time is later than the one before, as the reloader looks at that alone."""
        file = self.folder / "pages.py"
        file.write_text(PAGES.format(version=version))
        self._writes = getattr(self, "_writes", 0) + 1
        later = file.stat().st_mtime + self._writes
        os.utime(file, (later, later))

    def command(self, port: int) -> list[str]:
        return [sys.executable, str(self.folder / "manage.py"), "runserver", f"127.0.0.1:{port}"]


@pytest.fixture(params=["wsgi", "daphne"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, int]]:
    if request.param == "daphne":
        pytest.importorskip("daphne")
    project = Project(tmp_path, ["daphne"] if request.param == "daphne" else [])
    with running(project.command, tmp_path / "log") as (port, _):
        yield project, port


@pytest.mark.parametrize(("page", "first", "last"), [("ticks", b"data:", b"data: last\n\n"),
                                                     ("rows", b"one\n", b"two\n")])  # fmt: skip
def test_runserver_sends_a_chunk_before_the_next_is_made(
    project: tuple[Project, int], page: str, first: bytes, last: bytes
) -> None:
    _, port = project
    with Connection(port) as connection:
        connection.ask("GET", f"/{page}", fields={"Accept-Encoding": "gzip"})
        assert connection.head().status == 200
        chunks = connection.chunks()
        assert next(chunks).payload.startswith(first)
        assert fetch(port, "/release").status == 200
        assert b"".join(chunk.payload for chunk in chunks).endswith(last)
        assert connection.ending is not Ending.TRUNCATED


def test_runserver_reloads_while_a_stream_is_open(project: tuple[Project, int]) -> None:
    folder, port = project

    def version() -> bytes:
        try:
            return fetch(port, "/plain").body
        except (OSError, AssertionError):  # it is starting again
            return b""

    assert version() == b"version one"
    with Connection(port, patience=30.0) as connection:
        connection.ask("GET", "/ticks")
        assert connection.head().status == 200
        chunks = connection.chunks()
        before = next(chunks).payload
        looks = itertools.count()

        def is_reloaded() -> bool:
            said = version()
            # What changes before the reloader's first look is not seen: so it is changed now and then, but
            # not while it starts again, or it would have to once more.
            if said == b"version one" and next(looks) % 100 == 0:
                folder.write("two")
            return said == b"version two"

        poll(is_reloaded, bound=60.0, what="the reload")
        assert b"data: last" not in b"".join(_until_the_end(chunks)), "the old process still answers"
    assert fetch(port, "/release").status == 200
    assert fetch(port, "/ticks").body.split(b"\n\n")[0] != before.split(b"\n\n")[0]


def _until_the_end(chunks: Iterator[Any]) -> Iterator[bytes]:
    try:
        for chunk in chunks:
            yield chunk.payload
    except OSError:
        pass  # the process ended without a word, as it does with whatever is open


# ---------------------------------------------------------------- a million rows

ROWS = 1_000_000
MEMORY = 60 * 1024 * 1024  # bytes over the idle process


def _gunicorn(port: int) -> list[str]:
    return [
        sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--workers=1", "--threads=8",
        f"--bind=127.0.0.1:{port}", "--graceful-timeout=2", "--no-control-socket", "--worker-tmp-dir=/tmp",
        "tests.frameworks.django_site:wsgi_app",
    ]  # fmt: skip


def _uvicorn(port: int) -> list[str]:
    return [
        sys.executable, "-m", "uvicorn", "--host=127.0.0.1", f"--port={port}", "--log-level=warning",
        "--timeout-graceful-shutdown=2", "tests.frameworks.django_site:asgi_app",
    ]  # fmt: skip


SERVERS: dict[str, Callable[[int], list[str]]] = {"gunicorn": _gunicorn, "uvicorn": _uvicorn}
EXPORTS = [("gunicorn", "export"), ("uvicorn", "export"), ("uvicorn", "export-async")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the site's database, filled."""
    made = tmp_path_factory.mktemp("rows")
    code = f"from tests.frameworks.django_site import fill; fill({ROWS})"
    environment = {**os.environ, "STREAMKIT_SITE": str(made), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=120)
    return made


class Exporting:
    """A server of the site, and what it says of itself."""

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


@pytest.fixture
def exporting(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Exporting]:
    monkeypatch.setenv("STREAMKIT_SITE", str(folder))
    with running(SERVERS[request.param], tmp_path / "log") as (port, _):
        yield Exporting(port, tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize(("exporting", "page"), EXPORTS, indirect=["exporting"])
def test_a_million_rows_need_no_memory_and_return_their_connection(exporting: Exporting, page: str) -> None:
    with Connection(exporting.port) as connection:
        connection.ask("GET", f"/{page}")
        head = connection.head()
        assert (head.status, head.get("Content-Type")) == (200, "text/csv")
        size = lines = 0
        last = b""
        for chunk in connection.chunks():
            size += len(chunk.payload)
            lines += chunk.payload.count(b"\n")
            last = chunk.payload or last
        assert connection.ending is Ending.COMPLETE
    assert lines == ROWS
    assert size == sum(len(f"{n},name {n}\r\n") for n in range(ROWS))
    assert last.endswith(b"999999,name 999999\r\n")
    stats = exporting.returned()
    assert stats["opened"] == exporting.idle["opened"] + 1
    assert stats["peak"] - exporting.idle["resident"] < MEMORY
    assert stats["faults"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("exporting", "page"), EXPORTS, indirect=["exporting"])
def test_fifty_aborted_downloads_leave_no_open_connection(exporting: Exporting, page: str) -> None:
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
    assert stats["opened"] >= exporting.idle["opened"] + 50
    assert stats["peak"] - exporting.idle["resident"] < MEMORY
    assert stats["faults"] == []
    assert not COMPLAINT.search(exporting.log.read_text()), "a client that leaves is nobody's error"
    with Connection(exporting.port) as connection:
        connection.ask("GET", f"/{page}")
        assert connection.head().status == 200
        assert next(connection.chunks()).payload
