"""Servers behind another door than a TCP port: TLS, and unix-domain sockets.

    with opened(TLS["uvicorn h11"], credentials, tmp_path) as server:
        server.fetch("/ten?key=a")
        server.journal("a").outcomes == ["finished"]

They serve `every_app` and are watched as in `every`; only the way in is another one.

Rule: the server itself ends TLS; nothing stands between it and the client. A client here never
takes a connection that was cut for one that was closed: TLS tells them apart.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .every import APP_WIDE, ASGI, MODULE, THREADS, WSGI, Check, Faults, Served, ask_all, processes_of
from .every import Kind as Program
from .h2client import H2Connection
from .launch import LOOK_EVERY, ROOT, START_BOUND, end, free_port, poll
from .wire import PATIENCE, BadFraming, Connection, Ending


class Credentials(NamedTuple):
    """A certificate for 127.0.0.1, signed by itself, and its key."""

    certificate: Path
    key: Path


def self_signed(openssl: str, directory: Path) -> Credentials:
    """Make them by the program `openssl`."""
    made = Credentials(directory / "certificate.pem", directory / "key.pem")
    command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(made.key), "-out", str(made.certificate), "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=START_BOUND)
    return made


# The clients.


class _Socket(ssl.SSLSocket):
    def shutdown(self, how: int) -> None:
        """Of the connection alone; `ssl` would drop TLS with it, and read on in ciphertext."""
        socket.socket.shutdown(self, how)


def _context(credentials: Credentials, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(credentials.certificate))
    context.sslsocket_class = _Socket
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def _secured(plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    except OSError:
        plain.close()
        raise


def _take_leave(secured: socket.socket) -> None:
    """Send close_notify and close, without waiting for the server's."""
    with suppress(OSError, ValueError):  # what still arrives is not waited for; or it is closed already
        secured.settimeout(0)
        secured.unwrap()  # type: ignore[attr-defined]
    secured.close()


class TLSConnection(Connection):
    """A `Connection` over TLS."""

    def __init__(self, port: int, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(port, **options)
        self.socket = _secured(self.socket, context)

    def close(self) -> None:
        """Leave in order: close_notify, then the end of the connection."""
        _take_leave(self.socket)

    def vanish(self) -> None:
        """Leave without close_notify, as many a client does."""
        self.socket.close()

    def _read(self) -> bool:
        try:
            return super()._read()
        except ssl.SSLEOFError:  # the connection ended without close_notify
            self._was_reset = True
            return False


class TLSH2Connection(H2Connection):
    """An `H2Connection` over TLS, agreed on by ALPN."""

    def __init__(self, port: int, context: ssl.SSLContext, **options: Any) -> None:
        self._context = context
        super().__init__(port, **options)

    def close(self) -> None:
        _take_leave(self.socket)

    def _send(self) -> None:
        if not isinstance(self.socket, ssl.SSLSocket):  # the first bytes are about to go
            self.socket = _secured(self.socket, self._context)
            assert self.socket.selected_alpn_protocol() == "h2"
        super()._send()

    def _read(self) -> None:
        with suppress(ssl.SSLEOFError):
            super()._read()
            return
        self.ending = self.ending or Ending.TRUNCATED


class UnixConnection(Connection):
    """A `Connection` over a unix-domain socket."""

    def __init__(self, path: Path, *, patience: float = PATIENCE, receive_buffer: int | None = None) -> None:
        self._open(socket.AF_UNIX, str(path), patience, receive_buffer)


# The servers.


class Place(NamedTuple):
    """Where a server is to listen: a port under TLS, or else the path of a socket."""

    port: int
    path: Path
    credentials: Credentials | None


@dataclass(frozen=True)
class Door:
    """A server, as it is set up here."""

    name: str
    interface: str
    command: Callable[[Place], list[str]]
    http2: bool = False


def _python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def _secrets(place: Place, certificate: str, key: str) -> list[str]:
    found = place.credentials
    return [f"{certificate}={found.certificate}", f"{key}={found.key}"] if found else []


def _bind(place: Place) -> str:
    return f"--bind=127.0.0.1:{place.port}" if place.credentials else f"--bind=unix:{place.path}"


def _gunicorn(worker: str) -> Callable[[Place], list[str]]:
    threads = [f"--threads={THREADS}"] if worker == "gthread" else []
    return lambda place: _python(
        "gunicorn", f"--worker-class={worker}", "--workers=1", *threads, _bind(place), "--no-control-socket",
        "--worker-tmp-dir=/tmp", *_secrets(place, "--certfile", "--keyfile"), WSGI,
    )  # fmt: skip


def _uvicorn(protocol: str, loop: str) -> Callable[[Place], list[str]]:
    return lambda place: _python(
        "uvicorn", *(["--host=127.0.0.1", f"--port={place.port}"] if place.credentials else []),
        *([] if place.credentials else [f"--uds={place.path}"]), f"--http={protocol}", f"--loop={loop}",
        *_secrets(place, "--ssl-certfile", "--ssl-keyfile"), ASGI,
    )  # fmt: skip


def _hypercorn(place: Place) -> list[str]:
    return _python(
        "hypercorn", "--workers=0", _bind(place), "--error-logfile=-",
        *_secrets(place, "--certfile", "--keyfile"), ASGI,
    )  # fmt: skip


def _waitress(place: Place) -> list[str]:
    return _python(
        "waitress", f"--unix-socket={place.path}", f"--threads={THREADS}", "--channel-request-lookahead=1",
        WSGI,
    )  # fmt: skip


def _cheroot(place: Place) -> list[str]:
    assert place.credentials is not None
    code = (
        "from cheroot.ssl.builtin import BuiltinSSLAdapter\n"
        "from cheroot.wsgi import Server\n"
        f"from {MODULE} import wsgi_app\n"
        f"server = Server(('127.0.0.1', {place.port}), wsgi_app, numthreads={THREADS})\n"
        f"server.ssl_adapter = BuiltinSSLAdapter(*{tuple(map(str, place.credentials))})\n"
        "server.safe_start()"
    )
    return [sys.executable, "-c", code]


def _named(*doors: Door) -> dict[str, Door]:
    return {door.name: door for door in doors}


TLS = _named(
    Door("gunicorn gthread", "wsgi", _gunicorn("gthread")),
    Door("gunicorn gevent", "wsgi", _gunicorn("gevent")),
    Door("cheroot", "wsgi", _cheroot),
    Door("hypercorn", "asgi", _hypercorn),
    Door("hypercorn, HTTP/2", "asgi", _hypercorn, http2=True),
    Door("uvicorn h11", "asgi", _uvicorn("h11", "asyncio")),
    Door("uvicorn httptools", "asgi", _uvicorn("httptools", "uvloop")),
)
UNIX = _named(
    Door("gunicorn gthread", "wsgi", _gunicorn("gthread")),
    Door("waitress", "wsgi", _waitress),
    Door("hypercorn", "asgi", _hypercorn),
    Door("uvicorn h11", "asgi", _uvicorn("h11", "asyncio")),
    Door("uvicorn httptools", "asgi", _uvicorn("httptools", "uvloop")),
)


@dataclass(frozen=True)
class Behind(Served):
    """A running server behind such a door."""

    place: Place

    def connect(self, **options: Any) -> Connection | H2Connection:
        if self.place.credentials is None:
            return UnixConnection(self.place.path, **options)
        if self.kind.http2:
            return TLSH2Connection(self.port, _context(self.place.credentials, "h2"), **options)
        return TLSConnection(self.port, _context(self.place.credentials, "http/1.1"), **options)


def sockets_of(server: Behind) -> int:
    """How many sockets the server's processes hold."""
    count = 0
    for pid in processes_of(server.child.pid):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed in between
                count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return count


@contextmanager
def opened(door: Door, credentials: Credentials | None, logs: Path) -> Iterator[Behind]:
    """A server of this kind, with all its processes ended afterwards."""
    # The path of a unix-domain socket has 107 bytes at most, and nginx's user must come to it.
    directory = Path(tempfile.mkdtemp(prefix="streamkit-door-"))
    directory.chmod(0o755)
    (directory / "journal").touch()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
        "STREAMKIT_JOURNAL": str(directory / "journal"), "STREAMKIT_OPTIONS": json.dumps(APP_WIDE),
    }  # fmt: skip
    place = Place(free_port(), directory / "socket", credentials)
    log = logs / f"{door.name.replace(' ', '-').replace('/', '')}-{time.monotonic_ns()}.log"
    try:
        with log.open("ab") as file:
            child = subprocess.Popen(
                door.command(place), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            program = Program(door.name, door.interface, lambda _: [], http2=door.http2)
            server = Behind(program, place.port, child, log, directory, place)
            _wait_for(server)
            yield server
        finally:
            left = processes_of(child.pid)
            end(child)
            for pid in left:
                if pid in processes_of(child.pid):
                    os.kill(pid, signal.SIGKILL)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(server: Behind) -> None:
    bound = time.monotonic() + START_BOUND
    while server.child.poll() is None and time.monotonic() < bound:
        try:
            server.fetch("/plain")
        except (OSError, BadFraming):  # it comes up, or dies
            time.sleep(LOOK_EVERY)
        else:
            return
    raise AssertionError(f"{server.kind.name} does not start:\n{server.log.read_text()[-4000:]}")


def stalled_is_let_go(server: Behind) -> None:
    """After `write_timeout` the server drops the connection, though its client never reads nor closes."""
    before = sockets_of(server)
    with server.connect(patience=PATIENCE, receive_buffer=64 * 1024) as connection:
        connection.ask("GET", "/flood?key=let-go&write_timeout=1")
        poll(lambda: server.journal("let-go").outcomes, bound=PATIENCE, what="the end of the flood")
        poll(lambda: sockets_of(server) <= before, bound=8, what="the connection's end at the server")


def _asked(door: Door, checks: Mapping[str, Check], credentials: Credentials | None, logs: Path) -> Faults:
    with opened(door, credentials, logs) as server:
        return ask_all(server, checks)


def collected(request: pytest.FixtureRequest, asked: Mapping[str, Check]) -> dict[str, dict[str, Check]]:
    """What this run wants to know of each server: the checks of the cells (`cell`) that it has collected."""
    specs = [
        item.callspec.params for item in request.session.items
        if item.fspath == request.node.fspath and hasattr(item, "callspec")
    ]  # fmt: skip
    cells = {params["cell"] for params in specs if "cell" in params}
    return {
        door: {name: check for name, check in asked.items() if (door, name) in cells}
        for door in {door for door, _ in cells}
    }


@contextmanager
def all_asked(
    doors: Mapping[str, Door],
    wanted: Mapping[str, Mapping[str, Check]],
    credentials: Credentials | None,
    logs: Path,
) -> Iterator[dict[str, Future[Faults]]]:
    """These servers, asked side by side for what is wanted of each; most of the time they wait."""
    with ThreadPoolExecutor(max(len(wanted), 1)) as clients:
        yield {
            name: clients.submit(_asked, doors[name], checks, credentials, logs)
            for name, checks in wanted.items()
        }
