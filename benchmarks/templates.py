"""What does a template sent piece by piece cost, beside Flask's and Starlette's ways, and Roda's?

    python benchmarks/templates.py [--rounds N] [--json] [--only streamkit-asgi,roda]

One page, a layout and a table of 100 or 10,000 rows, each contender in a server process of its own:
gunicorn (gthread) for WSGI, uvicorn (httptools) for ASGI, unicorn for Roda. Time to the first byte of the
body, also of a page whose rows come 0.2 s late; pieces and bytes on the wire; pages a second.

Roda runs where unicorn and rack 2 are installed and RODA names the directory that holds `roda.rb`. Not on
puma 5, which corks the socket (TCP_CORK), so that no piece leaves alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    # This directory stands first; nobody else must find its `requests` and its `engines`.
    sys.path.pop(0)
    sys.path.append(str(Path(__file__).resolve().parent.parent))
from benchmarks._measure import (
    BUFFER,
    COMMANDS,
    HOST,
    BenchmarkFailed,
    Report,
    Server,
    Target,
    chosen,
    connect,
    interleave,
    paired_ratio,
    parser,
    request_bytes,
    serving,
)
from benchmarks._template_contenders import ASGI, LATE, MOST_ROWS, PEERS, WSGI

COMMANDS.update(
    {
        name: (
            *("-m", "gunicorn", f"benchmarks._template_contenders:wsgi('{name}')"),
            *("--bind", f"{HOST}:{{port}}"),
            *("--worker-class", "gthread", "--threads", "8", "-w", "1", "--log-level", "warning"),
        )
        for name in WSGI
    }
    | {
        name: (
            *("-m", "uvicorn", f"benchmarks._template_contenders:measured.{name.replace('-', '_')}"),
            *("--factory", "--interface", "asgi3", "--host", HOST, "--port", "{port}", "--lifespan", "off"),
            *("--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
        )
        for name in ASGI
    }
    # A server child is started by this interpreter, which here becomes another program.
    | {
        "roda": (
            *("-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"),
            *("unicorn", "-E", "none", "-l", f"{HOST}:{{port}}"),
            *("-I", os.environ.get("RODA", ""), str(Path(__file__).with_name("templates.ru"))),
        )
    }
)


def contenders() -> list[str]:
    names = [*WSGI, *ASGI]
    if os.environ.get("RODA") and shutil.which("unicorn"):
        names.append("roda")
    else:
        print("roda is left out: no unicorn, or RODA names no directory", file=sys.stderr)
    return names


# ---------------------------------------------------------------- the client

SIZES = (100, MOST_ROWS)  # rows


@dataclass(frozen=True)
class Exchange:
    first: float  # seconds from the request to the first byte of the body
    took: float  # seconds to the last
    answer: bytes  # as it came, head and framing included


def exchange(port: int, path: str) -> Exchange:
    """Ask for a page and read it as fast as it comes. Nothing is parsed while the clock runs."""
    parts: list[bytes] = []
    first, seen = 0.0, b""
    with connect(port) as connection:
        began = time.perf_counter()
        connection.sendall(request_bytes(path))
        while part := connection.recv(BUFFER):
            parts.append(part)
            if not first:
                seen += part
                if seen.partition(b"\r\n\r\n")[2]:
                    first = time.perf_counter() - began
        took = time.perf_counter() - began
    return Exchange(first, took, b"".join(parts))


def pieces_of(answer: bytes) -> list[bytes]:
    """The chunks of an answer, or its one body. Linear: `body_of` copies what is left for each chunk,
    which at 70,000 chunks takes ten times as long as the exchange."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise BenchmarkFailed(f"wanted a 200, got {answer[:400]!r}")
    if b"transfer-encoding: chunked" not in head.lower():
        return [body]
    pieces, at = [], 0
    while True:
        end = body.find(b"\r\n", at)
        if end < 0:
            raise BenchmarkFailed("the chunked body has no end")
        length = int(body[at:end], 16)
        if not length:
            return pieces
        pieces.append(body[end + 2 : end + 2 + length])
        at = end + 2 + length + 2


def check_page(server: Server, wanted: dict[int, list[bytes]]) -> None:
    """A contender that sends something else is not compared; Roda's page differs in white space."""
    for size in SIZES:
        body = b"".join(pieces_of(exchange(server.port, f"/page/{size}").answer))
        words = body.replace(b"&quot;", b"&#34;").split()
        if words != wanted.setdefault(size, words):
            raise BenchmarkFailed(f"{server.kind}: another page of {size} rows: {body[:400]!r}")


# ---------------------------------------------------------------- the figures

SECONDS = 1.0  # what one measurement of pages a second should take

SPEED_TARGETS = {
    "streamkit-flask": Target("10,000 rows: pages a second under WSGI, by stream_template", 5),
    "streamkit-asgi": Target("10,000 rows: pages a second under ASGI, by generate()", 5),
    "streamkit-async": Target("10,000 rows: pages a second, by generate_async()", 5),
}
# Jinja gives the layout's top at once, however late the rows are.
FIRST_TARGETS = {
    name: Target(f"late rows: first byte of {name}, by that of {PEERS[name]}", 2, 1, at_least=False)
    for name in SPEED_TARGETS
}


@dataclass(frozen=True)
class Rate:
    rate: float  # pages a second, by the time of the exchanges alone
    cpu: float  # milliseconds of the server's CPU a page


def rate_of(server: Server, path: str, count: int) -> Rate:
    before = server.cpu_seconds()
    took = sum(exchange(server.port, path).took for _ in range(count))
    return Rate(count / took, (server.cpu_seconds() - before) / count * 1000)


def measure_pages(report: Report, servers: dict[str, Server], rounds: int) -> None:
    for size in SIZES:
        path = f"/page/{size}"
        counts, pages = {}, {}
        for name, server in servers.items():
            warm = exchange(server.port, path)
            pages[name] = pieces_of(warm.answer)
            counts[name] = max(2, min(200, int(SECONDS / warm.took)))

        def measure(name: str, path: str = path, counts: dict[str, int] = counts) -> Rate:
            return rate_of(servers[name], path, counts[name])

        print(f"{size} rows", file=sys.stderr)
        add_pages(report, size, interleave(list(servers), rounds, measure, say=True), pages)


def add_pages(
    report: Report, size: int, results: dict[str, list[Rate]], pages: dict[str, list[bytes]]
) -> None:
    rows = []
    for name, runs in results.items():
        peer = results.get(PEERS.get(name, ""))
        ratio = None if peer is None else paired_ratio([run.rate for run in runs], [run.rate for run in peer])
        cpu = None if peer is None else paired_ratio([run.cpu for run in peer], [run.cpu for run in runs])
        rows.append(
            {
                "contender": name,
                "pages/s": median(run.rate for run in runs),
                "x its peer": "" if ratio is None else ratio,
                "server CPU ms/page": median(run.cpu for run in runs),
                "x less CPU": "" if cpu is None else cpu,
                "peer": PEERS.get(name, ""),
                "pieces": len(pages[name]),
                "bytes": sum(map(len, pages[name])),
            }
        )
        if size == MOST_ROWS and name in SPEED_TARGETS:
            report.check(SPEED_TARGETS[name], ratio)
    report.tables[f"pages of {size:,} rows"] = rows


def measure_first(report: Report, servers: dict[str, Server], rounds: int) -> None:
    """Milliseconds to the first byte, of rows that are there and of late ones."""
    paths = {"100 rows": "/page/100", "10,000 rows": f"/page/{MOST_ROWS}", "late rows": "/late/100"}
    found: dict[str, dict[str, list[float]]] = {}
    for words, path in paths.items():

        def measure(name: str, path: str = path) -> float:
            return median(exchange(servers[name].port, path).first for _ in range(3)) * 1000

        print(f"first byte, {words}", file=sys.stderr)
        found[words] = interleave(list(servers), rounds, measure, say=True)
    rows = []
    for name in servers:
        row: dict[str, Any] = {"contender": name}
        row |= {words: median(values[name]) for words, values in found.items()}
        late = found["late rows"]
        peer = late.get(PEERS.get(name, ""))
        ratio = None if peer is None else paired_ratio(late[name], peer)
        row["late, by its peer"] = "" if ratio is None else ratio
        rows.append(row)
        if name in FIRST_TARGETS:
            report.check(FIRST_TARGETS[name], ratio)
    report.tables[f"milliseconds to the first byte; late rows are there after {LATE * 1000:.0f}"] = rows


def asked_for(names: Sequence[str], only: str) -> list[str]:
    """The contenders of `--only`, each with its peer."""
    wanted = chosen(names, only, "")
    peers = {PEERS.get(name) for name in wanted}
    return [name for name in names if name in wanted or name in peers]


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("templates sent piece by piece", options.rounds)
    wanted: dict[int, list[bytes]] = {}
    with ExitStack() as running:
        servers = {
            name: running.enter_context(serving(name)) for name in asked_for(contenders(), options.only)
        }
        for server in servers.values():
            check_page(server, wanted)
        measure_first(report, servers, options.rounds)
        measure_pages(report, servers, options.rounds)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
