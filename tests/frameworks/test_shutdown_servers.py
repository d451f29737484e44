"""SIGTERM while an event stream is open, in frameworks that are set up without `streamkit.wrap`."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from servers.launch import running
from servers.wire import Connection, Ending

pytestmark = pytest.mark.server

SITE = "tests.frameworks.shutdown_site"
GUNICORN = (
    "gunicorn --worker-class=gthread --threads=4 --bind=127.0.0.1:{} "
    "--no-control-socket --worker-tmp-dir=/tmp"
)
UVICORN = "uvicorn --host=127.0.0.1 --port={}"
PATIENCE = 30.0  # seconds; without a word these streams end after sixty
SERVED = {
    "django_wsgi": ("django", GUNICORN),
    "django_asgi": ("django", UVICORN),
    "starlette_app": ("starlette", UVICORN),
}


@pytest.mark.parametrize("app", SERVED)
def test_an_event_stream_that_no_wrap_carries_gets_its_farewell_too(app: str, tmp_path: Path) -> None:
    framework, server = SERVED[app]
    for package in (framework, server.split()[0]):
        pytest.importorskip(package)

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", *server.format(port).split(), f"{SITE}:{app}"]

    with running(command, tmp_path / "log") as (port, child), Connection(port) as connection:
        connection.ask("GET", "/events")
        assert connection.head().status == 200
        connection.read_until(b"data: 0\n\n")
        child.send_signal(signal.SIGTERM)
        last = b"".join(chunk.payload for chunk in connection.chunks())
        assert re.search(rb"retry: \d+\n\n\Z", last)
        assert connection.ending is Ending.COMPLETE
        connection.close()
        child.wait(PATIENCE)
