"""How many short streamed responses a second does a server give?

    python benchmarks/requests.py [--rounds N] [--json] [--only task] [--server uvicorn] [--seconds S]

Ten chunks of 64 bytes a response, eight connections that are kept alive. `wrk` asks where it
is installed; otherwise a small client in this file does, which is slower and says so.
"""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks._contenders import STACKS
from benchmarks._measure import (
    BUFFER,
    HOST,
    BenchmarkFailed,
    Report,
    Target,
    chosen,
    connect,
    interleave,
    paired_ratio,
    parser,
    request_bytes,
    serving,
)

CONNECTIONS = 8
ASKED = "10/64"  # chunks, bytes of a chunk
LAST_CHUNK = b"\r\n0\r\n\r\n"

TARGETS: dict[tuple[str, str], Target] = {
    ("gthread", "thread"): Target("thread, gthread, 10-chunk responses, by generator", 1.0),
    ("uvicorn", "task"): Target("task, uvicorn, 10-chunk responses, by bare send", 1.5, 2.0),
}


@dataclass(frozen=True)
class Measured:
    rate: float  # responses a second
    cpu: float  # microseconds of the server's CPU a response


def wrk_count(wrk: str, port: int, path: str, seconds: int) -> tuple[int, float]:
    """Responses, and the seconds they took."""
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", f"http://{HOST}:{port}{path}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    count = re.search(r"(\d+) requests in", told)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    faults = re.search(r"Non-2xx.*|Socket errors:.*", told)
    if count is None or rate is None or faults is not None or not float(rate[1]):
        raise BenchmarkFailed(f"{path}: {faults[0] if faults else told}")
    return int(count[1]), int(count[1]) / float(rate[1])


def own_count(port: int, path: str, seconds: int) -> tuple[int, float]:
    """As `wrk_count`, with one thread and a selector."""
    asking = request_bytes(path, close=False)
    finished = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = connect(port)
            connection.sendall(asking)
            selector.register(connection, selectors.EVENT_READ, b"")
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            for key, _ in selector.select(1.0):
                reader = key.fileobj
                assert isinstance(reader, socket.socket)
                part = reader.recv(BUFFER)
                if not part:
                    raise BenchmarkFailed(f"{path}: the server closed a connection")
                tail = (key.data + part)[-len(LAST_CHUNK) :]
                if tail == LAST_CHUNK:
                    finished += 1
                    tail = b""
                    reader.sendall(asking)
                selector.modify(reader, selectors.EVENT_READ, tail)
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return finished, now - began


def run_server(kind: str, names: Sequence[str], rounds: int, seconds: int) -> dict[str, list[Measured]]:
    wrk = shutil.which("wrk")
    with serving(kind) as server:

        def measure(name: str) -> Measured:
            path = f"/{name}/{ASKED}"
            before = server.cpu_seconds()
            if wrk:
                count, took = wrk_count(wrk, server.port, path, seconds)
            else:
                count, took = own_count(server.port, path, seconds)
            return Measured(count / took, (server.cpu_seconds() - before) / max(count, 1) * 1e6)

        print(f"{kind}, asked by {'wrk' if wrk else 'the bundled client'}", file=sys.stderr)
        return interleave(names, rounds, measure, say=True)


def rows_of(
    report: Report, kind: str, peer: str, results: dict[str, list[Measured]]
) -> list[dict[str, str | float]]:
    base = results[peer]
    rows: list[dict[str, str | float]] = []
    for name, runs in results.items():
        ratio = paired_ratio([run.rate for run in runs], [run.rate for run in base])
        rows.append(
            {
                "contender": name,
                "responses/s": median(run.rate for run in runs),
                f"x {peer}": ratio,
                "server CPU µs/response": median(run.cpu for run in runs),
                "CPU ratio": paired_ratio([run.cpu for run in runs], [run.cpu for run in base]),
            }
        )
        if target := TARGETS.get((kind, name)):
            report.check(target, ratio)
    return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--server", choices=list(STACKS), help="only this one")
    arguments.add_argument("--seconds", type=int, default=3, help="how long one measurement takes")
    options = arguments.parse_args()
    report = Report("ten-chunk responses a second, eight connections", options.rounds)
    for kind, (peer, names) in STACKS.items():
        if options.server in (None, kind):
            wanted = chosen(names, options.only, peer)
            results = run_server(kind, wanted, options.rounds, options.seconds)
            report.tables[f"{kind}, 10 chunks of 64 B"] = rows_of(report, kind, peer, results)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
