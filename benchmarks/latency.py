"""How long does a chunk take from `write` to the client?

    python benchmarks/latency.py [--rounds N] [--json] [--only thread] [--server gthread]

One chunk every 2 ms, 1,500 of them a round. Each carries the monotonic clock's time at its
write; the client compares with the same clock, which is one for the whole machine.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks._measure import (
    BUFFER,
    BenchmarkFailed,
    Report,
    Target,
    chosen,
    connect,
    interleave,
    paired_difference,
    parser,
    request_bytes,
    serving,
)

CHUNKS = 1500
SIZE = 64
EVERY = 0.002  # seconds between two chunks
STAMP = re.compile(rb"@([0-9a-f]{16})")

STACKS: dict[str, tuple[str, list[str]]] = {
    "gthread": ("generator", ["generator", "thread", "lock", "queue"]),  # the last two: any second thread
    # The last: any thread that calls the loop; and before it, a framework's way to stream from a thread.
    "uvicorn": ("send", ["send", "task", "function", "starlette-sync", "call"]),
}
TARGETS: dict[str, Target] = {
    "thread": Target("thread - generator, gthread, p50", 30, at_least=False, unit="µs"),
    "task": Target("task - bare send, uvicorn, p50", 30, at_least=False, unit="µs"),
    "function": Target("sync function - bare send, uvicorn, p50", 30, at_least=False, unit="µs"),
}


@dataclass(frozen=True)
class Measured:
    p50: float  # microseconds
    p99: float
    cpu: float  # microseconds of the server's CPU a chunk


def delays(port: int, path: str) -> list[float]:
    """Microseconds each chunk was on its way."""
    found: list[float] = []
    rest = b""
    with connect(port) as connection:
        connection.sendall(request_bytes(path))
        while part := connection.recv(BUFFER):
            now = time.monotonic_ns()
            rest += part
            end = 0
            for match in STAMP.finditer(rest):
                found.append((now - int(match[1], 16)) / 1000)
                end = match.end()
            rest = rest[max(end, len(rest) - 16) :]
    if len(found) != CHUNKS:
        raise BenchmarkFailed(f"{path}: {len(found)} chunks came, wanted {CHUNKS}")
    return found


def run_server(kind: str, names: Sequence[str], rounds: int) -> dict[str, list[Measured]]:
    with serving(kind) as server:

        def measure(name: str) -> Measured:
            before = server.cpu_seconds()
            # The first hundred find a cold pool, a cold cache and a small window.
            taken = delays(server.port, f"/{name}/{CHUNKS}/{SIZE}/{EVERY}")[100:]
            cpu = (server.cpu_seconds() - before) / CHUNKS * 1e6
            return Measured(median(taken), quantiles(taken, n=100)[98], cpu)

        print(kind, file=sys.stderr)
        return interleave(names, rounds, measure, say=True)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--server", choices=list(STACKS), help="only this one")
    options = arguments.parse_args()
    report = Report("microseconds from write to client", options.rounds)
    for kind, (peer, names) in STACKS.items():
        if options.server not in (None, kind):
            continue
        results = run_server(kind, chosen(names, options.only, peer), options.rounds)
        base = [run.p50 for run in results[peer]]
        rows = []
        for name, runs in results.items():
            more = paired_difference([run.p50 for run in runs], base)
            rows.append(
                {
                    "contender": name,
                    "p50 µs": median(run.p50 for run in runs),
                    "p99 µs": median(run.p99 for run in runs),
                    f"p50 - {peer}, µs": more,
                    "server CPU µs/chunk": median(run.cpu for run in runs),
                }
            )
            if target := TARGETS.get(name):
                report.check(target, more)
        report.tables[f"{kind}, a chunk every {EVERY * 1000:g} ms"] = rows
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
