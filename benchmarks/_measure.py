"""What every benchmark here shares: a server child, rounds, medians, a table.

Rule: nothing here knows a contender or a target; the file of the question names both.

A machine that does other work as well makes every absolute figure noise. So each round
runs every contender once, in a rotated order, and a ratio is the median over the rounds
of "this contender by its peer, in the same round".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_LIMIT = 20.0  # seconds a server may take until it answers
STOP_LIMIT = 10.0  # seconds a server may take to end by itself
SOCKET_LIMIT = 60.0  # seconds without a byte after which a measurement has failed
BUFFER = 1 << 20  # bytes a client takes at once: it must not be the one that is slow

T = TypeVar("T")

COMMANDS: dict[str, tuple[str, ...]] = {
    "gthread": (
        *("-m", "gunicorn", "benchmarks._contenders:wsgi_app", "--bind", f"{HOST}:{{port}}"),
        *("--worker-class", "gthread", "--threads", "8", "-w", "1", "--log-level", "warning"),
    ),
    "uvicorn": (
        *("-m", "uvicorn", "benchmarks._contenders:asgi_app", "--host", HOST, "--port", "{port}"),
        *("--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
        *("--lifespan", "off"),
    ),
}


class BenchmarkFailed(RuntimeError):
    """A server or a response was not what the measurement needs; no figure can be given."""


# ---------------------------------------------------------------- the server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A real server in a child of this one, serving `_contenders`."""

    kind: str
    port: int

    def cpu_seconds(self) -> float:
        """Seconds of CPU the worker has used; it says so itself, whoever its parent is."""
        return float(body_of(fetch(self.port, "/cpu")))


@contextmanager
def serving(kind: str) -> Iterator[Server]:
    server = Server(kind, free_port())
    command = [sys.executable, *(part.format(port=server.port) for part in COMMANDS[kind])]
    # What stands first in PYTHONPATH wins, so that a copy of the package can be measured.
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), str(ROOT))))
    # An empty directory: servers look for the app in the current one before PYTHONPATH.
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as empty:
        child = subprocess.Popen(
            command,
            cwd=empty,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_it_answers(server, child)
            yield server
        except BenchmarkFailed as failure:
            raise BenchmarkFailed(f"{kind}: {failure}\n{tail_of(log)}") from None
        finally:
            stop(child)


def wait_until_it_answers(server: Server, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until and child.poll() is None:
        try:
            server.cpu_seconds()
            return
        except OSError:
            time.sleep(0.05)
    raise BenchmarkFailed("the server does not answer")


def tail_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "replace")[-4000:]


def stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(STOP_LIMIT)


# ---------------------------------------------------------------- the client


def request_bytes(path: str, *, close: bool = True) -> bytes:
    ending = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{ending}\r\n".encode("ascii")


def connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), SOCKET_LIMIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def fetch(port: int, path: str) -> bytes:
    """A whole answer, head and framing included."""
    with connect(port) as connection:
        connection.sendall(request_bytes(path))
        parts = []
        while part := connection.recv(BUFFER):
            parts.append(part)
    return b"".join(parts)


def body_of(answer: bytes) -> bytes:
    """The body of a whole answer, out of its chunked framing."""
    head, separator, rest = answer.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise BenchmarkFailed(f"wanted a 200, got {answer[:400]!r}")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    parts: list[bytes] = []
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        length = int(line, 16)
        if length == 0:
            return b"".join(parts)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    raise BenchmarkFailed("the chunked body has no end")


def drain(port: int, path: str, least: int) -> float:
    """Seconds from the request to the last byte; refuses an answer shorter than `least` bytes."""
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    received, tail = 0, b""
    with connect(port) as connection:
        began = time.perf_counter()
        connection.sendall(request_bytes(path))
        receive = connection.recv_into
        while count := receive(view):
            received += count
            tail = (tail + bytes(view[max(0, count - 8) : count]))[-8:]
        took = time.perf_counter() - began
    if received < least or not tail.endswith(b"0\r\n\r\n"):
        raise BenchmarkFailed(f"{path}: {received} bytes ending in {tail!r}, wanted at least {least}")
    return took


# ---------------------------------------------------------------- rounds and ratios


def interleave(
    names: Sequence[str], rounds: int, measure: Callable[[str], T], *, say: bool = False
) -> dict[str, list[T]]:
    """Every contender once a round; who begins moves on by one each round."""
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        if say:
            print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for name in (*names[turn:], *names[:turn]):
            results[name].append(measure(name))
    return results


def paired_ratio(values: Sequence[float], peer: Sequence[float]) -> float:
    return median(one / other for one, other in zip(values, peer, strict=True))


def paired_difference(values: Sequence[float], peer: Sequence[float]) -> float:
    return median(one - other for one, other in zip(values, peer, strict=True))


@dataclass(frozen=True)
class Target:
    """What a figure must reach. `aim` is what we hope for beyond the bound."""

    what: str
    bound: float
    aim: float | None = None
    at_least: bool = True
    unit: str = "x"

    def met(self, value: float, bound: float | None = None) -> bool:
        bound = self.bound if bound is None else bound
        return value >= bound if self.at_least else value <= bound

    def verdict(self, value: float) -> str:
        if not self.met(value):
            return "MISS"
        return "ok" if self.aim is None or self.met(value, self.aim) else "ok, below the aim"


@dataclass
class Report:
    """Tables for a reader, or one JSON object with the same figures."""

    question: str
    rounds: int
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def check(self, target: Target, value: float | None) -> None:
        if value is None:  # left out by --only
            return
        row = {**asdict(target), "value": value, "verdict": target.verdict(value)}
        self.targets.append(row)

    def show(self, *, as_json: bool) -> None:
        if as_json:
            facts = {"python": platform.python_version(), "cores": os.cpu_count()}
            print(json.dumps({**asdict(self), **facts}, indent=1))
            return
        for title, rows in self.tables.items():
            print(f"\n{title}")
            print_table(rows)
        if self.targets:
            print("\nTargets")
            print_table([target_row(row) for row in self.targets])


def target_row(row: Mapping[str, Any]) -> dict[str, Any]:
    sign = "≥" if row["at_least"] else "≤"
    aim = "" if row["aim"] is None else f"{row['aim']:g}"
    return {
        "target": row["what"],
        "measured": f"{row['value']:.3g} {row['unit']}",
        "bound": f"{sign} {row['bound']:g}",
        "aim": aim,
        "verdict": row["verdict"],
    }


def written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    table = [{key: written(value) for key, value in row.items()} for row in rows]
    if not table:
        return
    columns = list(table[0])
    widths = [max(len(name), *(len(row[name]) for row in table)) for name in columns]
    print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip())
    for row in table:
        cells = (row[name] for name in columns)
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        print("  ".join((first, *rest)))


# ---------------------------------------------------------------- the command line


def parser(text: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    made.add_argument("--rounds", type=int, default=rounds, help="rounds a figure is the median of")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    made.add_argument("--only", default="", help="contenders by name, separated by commas; peers stay")
    return made


def chosen(names: Sequence[str], only: str, peer: str) -> list[str]:
    """The contenders asked for; the peer of the ratios always runs."""
    if not only:
        return list(names)
    wanted = {name.strip() for name in only.split(",")}
    return [name for name in names if name in wanted or name == peer]
