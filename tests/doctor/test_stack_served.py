"""An app that is asked on a real server."""

from __future__ import annotations

import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from streamkit.doctor import CannotAsk, Severity
from streamkit.doctor.serve import serving
from streamkit.doctor.stack import examine_app

pytestmark = pytest.mark.server
HERE = "tests.doctor.test_stack_served"  # as a server finds it from the root of the project


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


def wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    return ticks()


def ticks() -> Any:
    for number in range(6):
        yield b"data: %d\n\n" % number
        time.sleep(0.1)


def held_app(environ: Any, start_response: Any) -> Any:
    return [b"".join(wsgi_app(environ, start_response))]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    from . import layers_asgi as asgi

    await asgi.async_drip(scope, receive, send)


def faults(target: str, server: str, path: str = "/") -> list[tuple[str, str | None]]:
    diagnosis = examine_app(f"{HERE}:{target}", path, server, seconds=8)
    assert diagnosis.refusal is None, diagnosis.refusal
    return [(f.code, f.guilty) for f in diagnosis.findings if f.severity is Severity.FAULT]


@pytest.mark.parametrize(
    ("server", "target"),
    [("waitress", "wsgi_app"), ("gunicorn", "wsgi_app"), ("uvicorn", "asgi_app"), ("hypercorn", "asgi_app")],
)
def test_an_app_that_streams_streams_on_a_server_that_does(server: str, target: str) -> None:
    pytest.importorskip(server)
    assert faults(target, server) == []


# It is not imported: what it does to a process that forks is a warning.
@pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
def test_a_server_that_holds_what_it_is_given_is_named_itself() -> None:
    found = faults("wsgi_app", "eventlet")
    assert ("buffered", "eventlet") in found


@pytest.mark.parametrize(
    ("server", "said"),
    [("apache", "a server is one of"), ("daphne", "does not serve WSGI apps; gunicorn")],
)
def test_a_server_that_cannot_serve_the_app_is_refused_with_those_that_can(server: str, said: str) -> None:
    diagnosis = examine_app(f"{HERE}:wsgi_app", "/", server)
    assert diagnosis.status == 2
    assert said in (diagnosis.refusal or "")


@pytest.mark.parametrize("server", ["waitress", "gunicorn"])
def test_what_a_server_said_is_told_when_it_cannot_load_the_app(server: str) -> None:
    with pytest.raises(CannotAsk, match="there is no module 'nowhere_at_all'"):
        with serving(server, "nowhere_at_all:app", "wsgi"):
            pass


def test_a_server_is_gone_when_the_block_is_left() -> None:
    with serving("waitress", f"{HERE}:wsgi_app", "wsgi") as address:
        port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
