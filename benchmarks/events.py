"""What does an event stream cost, beside those of sse-starlette, FastAPI and Litestar?

    python benchmarks/events.py [--rounds N] [--json] [--only streamkit,fastapi] [--part speed,memory]

On uvicorn, each contender in a server process of its own. `speed`: events a second over one
connection, read over a socket as fast as it gives. `memory`: what 1,000 idle streams add to the
server's RSS, heartbeats at their defaults (15 s), settled for longer than that. `heartbeats`: the
CPU of the server while it keeps 1,000 idle streams alive every second.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    # This directory stands first; nobody else must find its `requests` and its `engines`.
    sys.path.pop(0)
    sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks._event_contenders import CONTENDERS, DATA, HAVE_HEARTBEATS, PEER, WAYS, WAYS_IN_WORDS
from benchmarks._measure import (
    COMMANDS,
    HOST,
    BenchmarkFailed,
    Report,
    Server,
    Target,
    body_of,
    chosen,
    connect,
    drain,
    fetch,
    interleave,
    paired_ratio,
    parser,
    request_bytes,
    serving,
)

COMMANDS.update(
    {
        name: (
            *("-m", "uvicorn", f"benchmarks._event_contenders:measured.{name.replace('-', '_')}"),
            *("--factory", "--interface", "asgi3", "--host", HOST, "--port", "{port}", "--backlog", "4096"),
            *("--http", "httptools", "--loop", "asyncio", "--no-access-log", "--log-level", "warning"),
            *("--lifespan", "off"),
        )
        for name in CONTENDERS
    }
)

# ---------------------------------------------------------------- events a second

SECONDS = 0.5  # what one measurement should take
MOST_EVENTS = 1_000_000
LEAST = 40  # bytes of the shortest event; an answer with fewer for each is refused

SPEED_TARGETS: dict[tuple[str, str], Target] = {
    (way, "streamkit"): Target(f"streamkit, {words}, by sse-starlette", bound, aim)
    for way, words, bound, aim in (
        ("burst", WAYS_IN_WORDS["burst"], 10, 20),
        ("turn", "a turn awaited before each", 2, None),
        ("queue", "each from a queue", 2, None),
    )
}


@dataclass(frozen=True)
class Rate:
    rate: float  # events a second, as the client saw them
    cpu: float  # microseconds of the server's CPU an event


def check_events(server: Server, way: str, shape: str) -> None:
    """A contender that sends something else is not compared."""
    body = body_of(fetch(server.port, f"/events/{way}/{shape}/50"))
    events = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in body.decode().split("\n\n")
    ]
    wanted = [{"id": str(number), "data": DATA[shape](number)} for number in range(50)]
    for event in events:
        if event and shape == "dict":
            event["data"] = json.loads(event["data"])
    if events != [*wanted, {}]:
        raise BenchmarkFailed(f"{server.kind}, {way}, {shape}: wrong events: {body[:200]!r}")


def events_for(server: Server, path: str) -> int:
    """How many events take `SECONDS`."""
    count, took = 500, 0.0
    while took < 0.15 and count < MOST_EVENTS:
        took = drain(server.port, f"{path}/{count}", count * LEAST)
        count = int(count * min(8.0, SECONDS / max(took, 1e-4)))
    return max(100, min(count, MOST_EVENTS))


def measure_speed(report: Report, names: Sequence[str], rounds: int) -> None:
    with ExitStack() as running:
        servers = {name: running.enter_context(serving(name)) for name in names}
        for shape in DATA:
            for way in WAYS:
                path = f"/events/{way}/{shape}"
                counts = {}
                for name, server in servers.items():
                    check_events(server, way, shape)
                    counts[name] = events_for(server, path)

                def measure(name: str, path: str = path, counts: dict[str, int] = counts) -> Rate:
                    server, count = servers[name], counts[name]
                    before = server.cpu_seconds()
                    took = drain(server.port, f"{path}/{count}", count * LEAST)
                    return Rate(count / took, (server.cpu_seconds() - before) / count * 1e6)

                print(f"{shape}, {way}", file=sys.stderr)
                add_speed(report, way, shape, interleave(names, rounds, measure, say=True))


def add_speed(report: Report, way: str, shape: str, results: dict[str, list[Rate]]) -> None:
    rows, base = [], results[PEER]
    for name, runs in results.items():
        ratio = paired_ratio([run.rate for run in runs], [run.rate for run in base])
        rows.append(
            {
                "contender": name,
                "events/s": median(run.rate for run in runs),
                f"x {PEER}": ratio,
                "server CPU µs/event": median(run.cpu for run in runs),
            }
        )
        if target := SPEED_TARGETS.get((way, name)):
            report.check(Target(f"{shape}: {target.what}", target.bound, target.aim), ratio)
    report.tables[f"events a second of one stream, {shape}, {WAYS_IN_WORDS[way]}"] = rows


# ---------------------------------------------------------------- idle streams

STREAMS = 1000
SETTLE = 20.0  # seconds; more than the 15 s after which all of them send their first heartbeat
WATCHED = 10.0  # seconds in which the CPU of heartbeats is counted
FILES = 16_384  # what the client's sockets, one for each stream of each server, need

MEMORY_TARGET = Target("streamkit, KiB an idle stream", 14, 12, at_least=False, unit="KiB")
# One timer for all must be cheaper than a task for each.
HEARTBEAT_TARGET = Target("streamkit, CPU with a heartbeat a second, by sse-starlette", 1, at_least=False)


def rss(server: Server) -> float:
    return float(body_of(fetch(server.port, "/rss")))


def open_stream(server: Server, every: float) -> socket.socket:
    """An idle stream whose first event has arrived."""
    connection = connect(server.port)
    connection.sendall(request_bytes(f"/idle/{every:g}" + (".0" if every == int(every) else ""), close=False))
    got = b""
    while b"data: open" not in got:
        part = connection.recv(65536)
        if not part:
            raise BenchmarkFailed(f"{server.kind}: no event on an idle stream, but {got!r}")
        got += part
    return connection


@contextmanager
def idle_streams(server: Server, count: int, every: float) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        yield [opened.enter_context(open_stream(server, every)) for _ in range(count)]


def measure_memory(report: Report, names: Sequence[str], rounds: int) -> None:
    """All servers at once, so that they settle together; a fresh process each round."""
    found: dict[str, list[float]] = {name: [] for name in names}
    base: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        print(f"memory, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        with ExitStack() as running:
            servers = {name: running.enter_context(serving(name)) for name in names}
            before = {}
            for name, server in servers.items():
                with idle_streams(server, 20, 0.0):
                    pass  # what is imported and made once is not a stream's
                time.sleep(0.2)
                before[name] = rss(server)
                running.enter_context(idle_streams(server, STREAMS, 0.0))
            time.sleep(SETTLE)
            for name, server in servers.items():
                found[name].append((rss(server) - before[name]) / STREAMS / 1024)
                base[name].append(before[name] / 1024 / 1024)
    report.tables[f"memory of {STREAMS:,} idle streams"] = [
        {
            "contender": name,
            "KiB a stream": median(found[name]),
            "lowest": min(found[name]),
            "highest": max(found[name]),
            f"x {PEER}": paired_ratio(found[name], found[PEER]),
            "MiB before": median(base[name]),
        }
        for name in names
    ]
    if "streamkit" in found:
        report.check(MEMORY_TARGET, median(found["streamkit"]))


@dataclass(frozen=True)
class Beats:
    cpu: float  # percent of one core
    rate: float  # heartbeats a second a stream
    cost: float  # microseconds of CPU a heartbeat


def beats_in(connection: socket.socket) -> int:
    """Heartbeats that wait in this socket: each is one chunk, a comment."""
    connection.setblocking(False)
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except BlockingIOError:
        pass  # all that has come was read
    return sum(line.startswith(b":") for line in got.splitlines())


def measure_heartbeats(report: Report, names: Sequence[str], rounds: int) -> None:
    def measure(name: str) -> Beats:
        with serving(name) as server, idle_streams(server, STREAMS, 1.0) as connections:
            time.sleep(2.0)
            for connection in connections:
                beats_in(connection)
            before, began = server.cpu_seconds(), time.monotonic()
            time.sleep(WATCHED)
            used, took = server.cpu_seconds() - before, time.monotonic() - began
            beats = sum(beats_in(connection) for connection in connections)
        if not beats:
            raise BenchmarkFailed(f"{name}: no heartbeats")
        return Beats(used / took * 100, beats / took / STREAMS, used / beats * 1e6)

    print("heartbeats", file=sys.stderr)
    results = interleave([name for name in names if name in HAVE_HEARTBEATS], rounds, measure, say=True)
    base = results[PEER]
    report.tables[f"{STREAMS:,} idle streams with a heartbeat a second"] = [
        {
            "contender": name,
            "CPU %": median(run.cpu for run in runs),
            f"x {PEER}": paired_ratio([run.cpu for run in runs], [run.cpu for run in base]),
            "heartbeats/s a stream": median(run.rate for run in runs),
            "µs a heartbeat": median(run.cost for run in runs),
            "µs by peer's": paired_ratio([run.cost for run in runs], [run.cost for run in base]),
        }
        for name, runs in results.items()
    ]
    if "streamkit" in results:
        ratio = paired_ratio([run.cpu for run in results["streamkit"]], [run.cpu for run in base])
        report.check(HEARTBEAT_TARGET, ratio)


PARTS: dict[str, Callable[[Report, Sequence[str], int], None]] = {
    "speed": measure_speed,
    "memory": measure_memory,
    "heartbeats": measure_heartbeats,
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--part", default="", help=f"of {', '.join(PARTS)}; separated by commas")
    options = arguments.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    names = chosen(list(CONTENDERS), options.only, PEER)
    report = Report("events a second, memory and heartbeats of event streams", options.rounds)
    for part in options.part.split(",") if options.part else PARTS:
        PARTS[part](report, names, options.rounds)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
