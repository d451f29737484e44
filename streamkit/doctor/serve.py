"""Serve an app by a real server, as a process of its own, and ask it there.

    with serving("gunicorn", "shop.wsgi:application", "wsgi", seconds=20) as address:
        examine_address(address, path="/events")

A server can hold what every layer lets pass. So it is asked twice: with the drip alone, whose chunks
carry their times, which shows the server; and with the app, which shows both together.

Rule: it listens on 127.0.0.1 only, on a port that was free; the process that was started here is ended
here, by its own id and with its children, on every path.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

from .examine import examine_address
from .findings import CODES, CannotAsk, Diagnosis, Finding, Severity
from .layer_advice import advice_for_server

__all__ = ["SERVERS", "examine_served", "serving"]

START_BOUND = 30.0  # seconds; a large app imports slowly
STOP_BOUND = 5.0  # seconds after SIGTERM; then it is killed
ANSWER_BOUND = 2.0  # seconds for a first answer
LOOK_EVERY = 0.05  # seconds between two looks whether it answers
TAIL = 1500  # bytes of what a server said before it died

# What a body that is held looks like from outside; once a layer is known to hold it, it is no news.
HELD = frozenset(
    {"buffered", "held-until-full", "late", "compressed-and-held", "http10-held", "slow-head", "cannot-tell"}
)


@dataclass(frozen=True)
class Server:
    """A server program: its package, and how it is started for each interface that it speaks."""

    package: str
    wsgi: Callable[[int], list[str]] | None = None
    asgi: Callable[[int], list[str]] | None = None


def _module(name: str, *arguments: str) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        given = (argument.replace("{port}", str(port)) for argument in arguments)
        return [sys.executable, "-m", name, *given, "streamkit.doctor.served:app"]

    return command


def _code(*lines: str) -> Callable[[int], list[str]]:
    code = "\n".join((*lines[:-1], "from streamkit.doctor.served import app", lines[-1]))
    return lambda port: [sys.executable, "-c", code.replace("{port}", str(port))]


SERVERS: dict[str, Server] = {
    "gunicorn": Server(
        "gunicorn",
        wsgi=_module("gunicorn", "--bind=127.0.0.1:{port}", "--worker-class=gthread", "--threads=8"),
        asgi=_module("gunicorn", "--bind=127.0.0.1:{port}", "--worker-class=asgi"),
    ),
    "uvicorn": Server(
        "uvicorn",
        wsgi=_module("uvicorn", "--host=127.0.0.1", "--port={port}", "--interface=wsgi"),
        asgi=_module("uvicorn", "--host=127.0.0.1", "--port={port}"),
    ),
    "waitress": Server("waitress", wsgi=_module("waitress", "--listen=127.0.0.1:{port}")),
    "hypercorn": Server(
        "hypercorn",
        wsgi=_code(
            "import asyncio, hypercorn.asyncio, hypercorn.config",
            "config = hypercorn.config.Config()",
            "config.bind = ['127.0.0.1:{port}']",
            "asyncio.run(hypercorn.asyncio.serve(app, config, mode='wsgi'))",
        ),
        asgi=_module("hypercorn", "--workers=0", "--bind=127.0.0.1:{port}"),
    ),
    "granian": Server(
        "granian",
        wsgi=_module("granian", "--interface=wsgi", "--host=127.0.0.1", "--port={port}"),
        asgi=_module("granian", "--interface=asgi", "--host=127.0.0.1", "--port={port}"),
    ),
    "daphne": Server("daphne", asgi=_module("daphne", "--bind=127.0.0.1", "--port={port}")),
    "cheroot": Server("cheroot", wsgi=_module("cheroot", "--bind=127.0.0.1:{port}")),
    "werkzeug": Server(
        "werkzeug",
        wsgi=_code(
            "from werkzeug.serving import run_simple", "run_simple('127.0.0.1', {port}, app, threaded=True)"
        ),
    ),
    "wsgiref": Server(
        "wsgiref",
        wsgi=_code(
            "from wsgiref.simple_server import make_server",
            "make_server('127.0.0.1', {port}, app).serve_forever()",
        ),
    ),
    "gevent": Server(
        "gevent",
        wsgi=_code(
            "from gevent.monkey import patch_all; patch_all()",
            "from gevent.pywsgi import WSGIServer",
            "WSGIServer(('127.0.0.1', {port}), app).serve_forever()",
        ),
    ),
    "eventlet": Server(
        "eventlet",
        wsgi=_code(
            "import eventlet, eventlet.wsgi; eventlet.monkey_patch()",
            "eventlet.wsgi.server(eventlet.listen(('127.0.0.1', {port})), app)",
        ),
    ),
}


def examine_served(
    diagnosis: Diagnosis,
    target: str,
    kind: str,
    path: str | None,
    server: str,
    seconds: float,
    fields: Sequence[tuple[str, str]] = (),
) -> Diagnosis:
    """What was found in the app's layers, and what its server adds; raises `CannotAsk`."""
    drip = "streamkit.doctor.drip:" + ("probe_app" if kind == "wsgi" else "async_probe_app")
    with serving(server, drip, kind) as address:
        alone = examine_address(address, seconds=seconds)
    if alone.refusal is not None:
        raise CannotAsk(f"{server} does not serve the drip: {alone.refusal}")
    with serving(server, target, kind) as address:
        together = examine_address(address, path=path or "/", seconds=seconds, fields=fields)
    if together.refusal is not None and path is not None:
        raise CannotAsk(f"on {server}: {together.refusal}")
    of_server = [
        replace(
            found,
            sentence=f"{server} itself, without a layer of yours in it: {CODES[found.code]}",
            advice=advice_for_server(server),
            guilty=server,
        )
        for found in alone.findings
        if found.severity is Severity.FAULT
    ]
    inside = (*diagnosis.findings, *of_server)
    known = any(found.severity is Severity.FAULT and found.code != "broken-end" for found in inside)
    of_both = [
        replace(found, sentence=f"on {server}: {found.sentence}")
        for found in together.findings
        if _is_news(found, known, inside)
    ]
    return replace(
        diagnosis,
        findings=(*diagnosis.findings, *of_server, *of_both),
        tracks=(*diagnosis.tracks, *together.tracks),
        facts={**diagnosis.facts, **together.facts, **_remark(server, together)},
    )


def _is_news(found: Finding, known: bool, inside: Sequence[Finding]) -> bool:
    """Whether the app on its server shows something that its layers or its server alone did not."""
    if any(found.code == other.code for other in inside) or found.code == "no-stream":
        return False
    # Layers and server let each chunk pass: what came late was made late.
    return found.code not in HELD if known else found.code != "cannot-tell"


def _remark(server: str, together: Diagnosis) -> dict[str, str]:
    if together.refusal is not None:
        return {f"on {server}": f"/ could not be asked: {together.refusal}"}
    return {"served by": server}


# ---------------------------------------------------------------- processes


@contextmanager
def serving(name: str, target: str, kind: str) -> Iterator[str]:
    """The address of this app on this server, until the block is left; raises `CannotAsk`."""
    command = _command(name, kind)
    with tempfile.TemporaryFile() as log:
        # Another program can take a free port before the server does; three in a row cannot.
        for _ in range(3):
            port = _free_port()
            environment = {**os.environ, "STREAMKIT_DOCTOR_TARGET": target, "PYTHONUNBUFFERED": "1"}
            child = subprocess.Popen(
                command(port), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                if _answers(child, port):
                    yield f"http://127.0.0.1:{port}/"
                    return
            finally:
                _end(child)
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - TAIL))
        said = log.read().decode("utf-8", "replace").strip()
    raise CannotAsk(f"{name} does not start with {target}; it said:\n{said}")


def _command(name: str, kind: str) -> Callable[[int], list[str]]:
    server = SERVERS.get(name)
    if server is None:
        raise CannotAsk(f"a server is one of {', '.join(SERVERS)}, not {name!r}")
    if find_spec(server.package) is None:
        raise CannotAsk(f"{name} is not installed here (pip install {server.package})")
    command = server.wsgi if kind == "wsgi" else server.asgi
    if command is None:
        others = [other for other, known in SERVERS.items() if (known.wsgi if kind == "wsgi" else known.asgi)]
        raise CannotAsk(f"{name} does not serve {kind.upper()} apps; {', '.join(others)} do")
    return command


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(child: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it answers; gunicorn, say, listens before its worker has loaded the app, or failed to."""
    bound = time.monotonic() + START_BOUND
    while child.poll() is None and time.monotonic() < bound:
        try:
            with socket.create_connection(("127.0.0.1", port), ANSWER_BOUND) as connection:
                connection.sendall(f"HEAD / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii"))
                if connection.recv(1):
                    return True
        except TimeoutError:
            return True  # it took the request, and only the app is slow
        except OSError:
            pass  # it does not listen yet
        time.sleep(LOOK_EVERY)
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_BOUND)
    except subprocess.TimeoutExpired:
        pass  # it is killed now
    try:
        # It has a session of its own: this reaches its workers, and nobody else.
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # none of them is left
    child.wait(STOP_BOUND)
