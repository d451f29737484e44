"""How many chunks a second does one stream carry?

    python benchmarks/throughput.py [--rounds N] [--json] [--only task,function] [--server uvicorn]

One client reads one long response to its end over loopback; every contender sends chunks of
64 bytes and of 4 KiB as fast as it can. The baseline of the ratios is the plain generator
(WSGI, gunicorn gthread) and a bare `await send(...)` a chunk (ASGI, uvicorn).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks._contenders import STACKS
from benchmarks._measure import (
    Report,
    Server,
    Target,
    body_of,
    chosen,
    drain,
    fetch,
    interleave,
    paired_ratio,
    parser,
    serving,
)

SIZES = {64: "64 B", 4096: "4 KiB"}
SECONDS = 0.5  # what one measurement should take
MOST_CHUNKS = 4_000_000
MOST_BYTES = 2 << 30

TARGETS: dict[tuple[str, str, int], Target] = {
    ("gthread", "thread", 64): Target("thread, gthread, 64 B, by generator", 10, 15),
    ("gthread", "thread", 4096): Target("thread, gthread, 4 KiB, by generator", 2.5),
    ("uvicorn", "task", 64): Target("task, uvicorn, 64 B, by bare send", 15, 20),
    ("uvicorn", "task", 4096): Target("task, uvicorn, 4 KiB, by bare send", 2.5),
    ("uvicorn", "function", 64): Target("sync function, uvicorn, 64 B, by bare send", 10),
}


@dataclass(frozen=True)
class Measured:
    rate: float  # chunks a second, as the client saw them
    cpu: float  # microseconds of the server's CPU a chunk


def check_body(server: Server, name: str, size: int) -> None:
    """A contender that sends something else is not compared."""
    body = body_of(fetch(server.port, f"/{name}/300/{size}"))
    if body != b"x" * (300 * size):
        raise SystemExit(f"{server.kind} {name}: the body is wrong ({len(body)} bytes)")


def chunks_for(server: Server, name: str, size: int) -> int:
    """How many chunks take `SECONDS`."""
    count, took = 500, 0.0
    while took < 0.15 and count < MOST_CHUNKS:
        took = drain(server.port, f"/{name}/{count}/{size}", count * size)
        count = int(count * min(8.0, SECONDS / max(took, 1e-4)))
    return max(100, min(count, MOST_CHUNKS, MOST_BYTES // size))


def run_server(kind: str, names: Sequence[str], rounds: int) -> dict[int, dict[str, list[Measured]]]:
    results = {}
    with serving(kind) as server:
        for size in SIZES:
            counts = {}
            for name in names:
                check_body(server, name, size)
                counts[name] = chunks_for(server, name, size)

            def measure(name: str, size: int = size, counts: dict[str, int] = counts) -> Measured:
                count = counts[name]
                before = server.cpu_seconds()
                took = drain(server.port, f"/{name}/{count}/{size}", count * size)
                return Measured(count / took, (server.cpu_seconds() - before) / count * 1e6)

            print(f"{kind}, {SIZES[size]}", file=sys.stderr)
            results[size] = interleave(names, rounds, measure, say=True)
    return results


def add_tables(report: Report, kind: str, peer: str, results: dict[int, dict[str, list[Measured]]]) -> None:
    for size, by_name in results.items():
        base = by_name[peer]
        rows = []
        for name, runs in by_name.items():
            ratio = paired_ratio([run.rate for run in runs], [run.rate for run in base])
            rows.append(
                {
                    "contender": name,
                    "chunks/s": median(run.rate for run in runs),
                    f"x {peer}": ratio,
                    "server CPU µs/chunk": median(run.cpu for run in runs),
                    "CPU ratio": paired_ratio([run.cpu for run in runs], [run.cpu for run in base]),
                }
            )
            if target := TARGETS.get((kind, name, size)):
                report.check(target, ratio)
        report.tables[f"{kind}, one stream, chunks of {SIZES[size]}"] = rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--server", choices=list(STACKS), help="only this one")
    options = arguments.parse_args()
    report = Report("chunks a second of one stream", options.rounds)
    for kind, (peer, names) in STACKS.items():
        if options.server in (None, kind):
            results = run_server(kind, chosen(names, options.only, peer), options.rounds)
            add_tables(report, kind, peer, results)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
