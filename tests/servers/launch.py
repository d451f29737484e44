"""Start real servers, ask them how they are, end them.

    with serve("uvicorn-h11", tmp_path) as server:
        server.fetch("/plain")
        server.stats().threads

Rule: a server is a child process that this file started, listens on 127.0.0.1 only, writes what
it has to say to a file, and is ended by its own process id. Nothing waits without a bound, and
nothing sleeps in place of asking.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .wire import BadFraming, Connection, Reply, fetch

ROOT = Path(__file__).resolve().parents[2]
START_BOUND = 60.0  # seconds; a busy machine imports slowly
STOP_BOUND = 15.0  # seconds after SIGTERM; then the process is killed
LOOK_EVERY = 0.05  # seconds between two looks
COMPLAINT = re.compile(r"\b(ERROR|CRITICAL)\b|Traceback|never retrieved|never awaited")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Kind:
    """A server program: what it serves, and how it is started."""

    name: str
    interface: str
    command: Callable[[int, int], list[str]]
    # Whether a connection is offered again after a response that was streamed over HTTP/1.1.
    keeps_alive: bool = True
    # Whether HTTP/1.0 streams are chunked all the same (FACTS: a fault of the server).
    chunks_to_1_0: bool = False


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _gunicorn(port: int, threads: int) -> list[str]:
    return _python(
        "gunicorn", "--worker-class=gthread", "--workers=1", f"--threads={threads}",
        f"--bind=127.0.0.1:{port}", "--keep-alive=30", "--graceful-timeout=2", "--no-control-socket",
        "--worker-tmp-dir=/tmp", "tests.servers.apps:wsgi_app",
    )  # fmt: skip


def _waitress(port: int, threads: int) -> list[str]:
    # Without lookahead it does not see that a client has left before it writes to it.
    return _python(
        "waitress", f"--listen=127.0.0.1:{port}", f"--threads={threads}", "--channel-request-lookahead=1",
        "tests.servers.apps:wsgi_app",
    )  # fmt: skip


def _uvicorn(protocol: str, loop: str) -> Callable[[int, int], list[str]]:
    def command(port: int, threads: int) -> list[str]:
        return _python(
            "uvicorn", "--host=127.0.0.1", f"--port={port}", f"--http={protocol}", f"--loop={loop}",
            "--log-level=info", "--timeout-graceful-shutdown=2", "tests.servers.apps:asgi_app",
        )  # fmt: skip

    return command


def _hypercorn(port: int, threads: int) -> list[str]:
    # No worker: the process that is started is the one that serves.
    return _python(
        "hypercorn", "--workers=0", f"--bind=127.0.0.1:{port}", "--graceful-timeout=2", "--error-logfile=-",
        "tests.servers.apps:asgi_app",
    )  # fmt: skip


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("gunicorn", "wsgi", _gunicorn),
        Kind("waitress", "wsgi", _waitress, keeps_alive=False),
        Kind("uvicorn-h11", "asgi", _uvicorn("h11", "asyncio")),
        Kind("uvicorn-httptools", "asgi", _uvicorn("httptools", "uvloop"), chunks_to_1_0=True),
        Kind("hypercorn", "asgi", _hypercorn),
    )
}


@dataclass(frozen=True)
class Stats:
    """What the serving process tells about itself at /stats."""

    threads: int
    tasks: int
    descriptors: int
    resident: int  # bytes
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[int, int, int]:
        """What must be back where it was when all is over."""
        return self.threads, self.tasks, self.descriptors

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)


@dataclass(frozen=True, repr=False)
class Server:
    """A running server."""

    kind: Kind
    port: int
    child: subprocess.Popen[bytes]
    log: Path

    def __repr__(self) -> str:
        return f"<{self.kind.name} on port {self.port}, log in {self.log}>"

    def connect(self, **options: Any) -> Connection:
        return Connection(self.port, **options)

    def fetch(self, path: str, **options: Any) -> Reply:
        return fetch(self.port, path, **options)

    def stats(self, key: str = "") -> Stats:
        """How the server is, with the counts of the producers that were asked for with this key."""
        reply = self.fetch(f"/stats?key={key}")
        assert reply.status == 200, reply
        return Stats(**json.loads(reply.body))

    def release(self, key: str) -> None:
        """Let the producers that wait under this key go on."""
        assert self.fetch(f"/release?key={key}").status == 200

    def settled(self, *, looks: int = 10, pause: float = 0.25, bound: float = 60.0) -> Stats:
        """The levels once they stand still for `looks` looks: pooled workers leave after some seconds."""
        end = time.monotonic() + bound
        last, same = self.stats(), 0
        while same < looks:
            assert time.monotonic() < end, f"never settled: {last}"
            time.sleep(pause)
            now = self.stats()
            same = same + 1 if now.levels == last.levels else 0
            last = now
        return last

    def mark(self) -> int:
        """A place in what the server said, for `complaints`."""
        return self.log.stat().st_size

    def said(self, since: int = 0) -> str:
        return self.log.read_bytes()[since:].decode("utf-8", "replace")

    def complaints(self, since: int) -> str:
        """What the server said since then, if any of it is an error; else nothing."""
        said = self.said(since)
        return said if COMPLAINT.search(said) else ""


def poll(look: Callable[[], Value | None], *, bound: float, what: str) -> Value:
    """Look until there is something true, or fail with what was waited for."""
    end = time.monotonic() + bound
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {bound:g} s: {what}"
        time.sleep(LOOK_EVERY)


_given: list[socket.socket] = []  # they stand for the ports that this process was given


def free_port() -> int:
    """A port of this process's own: another run of these tests, beside this one, is not given it too.

    It would take that server's answers for those of its own, which is still starting.
    """
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if sys.platform != "linux":
            return port
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0streamkit-test-port-{port}")  # an abstract name, which goes with its process
        except OSError:
            mark.close()
        else:
            _given.append(mark)
            return port
    raise AssertionError("100 free ports in a row were given to others")


@atexit.register
def _give_back() -> None:
    while _given:
        _given.pop().close()


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process that this file started, and wait for it."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_BOUND)
    except subprocess.TimeoutExpired:
        # Its own session: this reaches its workers, and nobody else.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(STOP_BOUND)


@contextmanager
def running(command: Callable[[int], list[str]], log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a program that listens on the port it is given; it answers when the block is entered."""
    port, child = _started(command, log)
    try:
        yield port, child
    finally:
        end(child)


PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Runs in the child: a pytest that is killed leaves no server behind."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _started(command: Callable[[int], list[str]], log: Path) -> tuple[int, subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    # Another program can take a free port before ours does; three in a row cannot.
    for _ in range(3):
        port = free_port()
        with log.open("ab") as file:
            child = subprocess.Popen(
                command(port), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        if _answers(child, port):
            return port, child
        end(child)
    raise AssertionError(f"{command(0)[:3]} does not start:\n{log.read_text()[-4000:]}")


def _answers(child: subprocess.Popen[bytes], port: int) -> bool:
    bound = time.monotonic() + START_BOUND
    while child.poll() is None and time.monotonic() < bound:
        try:
            fetch(port, "/plain")
        except (OSError, BadFraming):  # a server that comes up, or dies
            time.sleep(LOOK_EVERY)
        else:
            return True
    return False


@contextmanager
def serve(name: str, directory: Path, *, threads: int = 8) -> Iterator[Server]:
    """One of `KINDS`, serving `tests.servers.apps`."""
    kind = KINDS[name]
    log = directory / f"{name}-{time.monotonic_ns()}.log"
    with running(lambda port: kind.command(port, threads), log) as (port, child):
        yield Server(kind, port, child, log)
