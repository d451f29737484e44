"""What does a compressed stream cost, and what does it save?

    python benchmarks/compression.py [--rounds N] [--json] [--only gzip,br]

In process, without a server. `events`: a JSON event stream of 1,000 events, each compressed and
flushed by itself, beside a gzip member for each of them. `chunks`: HTML and JSON lines in chunks of
2 KiB and 64 KiB, as pages and downloads are written. `memory`: what an open context adds to the
process, in a child for each. `chunk`: what a chunk of 64 bytes takes on its way through an app.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
import streamkit
from benchmarks._measure import Report, Target, parser
from streamkit.core.compression import coder_for, is_installed

CODINGS = ("gzip", "zstd", "br")
EVENTS, OPEN = 1000, 400
CHUNKS = 50_000
PAGE = 4096  # bytes of memory that /proc counts by


def job(number: int) -> dict[str, Any]:
    """What a build server tells a page, over and over."""
    return {
        "type": "job.progress",
        "job": {"id": "b7d1c2f0-5a43-4f0e-9a55-0c9d0a6f3e21", "project": "toolkit", "branch": "main"},
        "progress": {"done": number, "total": EVENTS, "percent": round(number * 100 / EVENTS, 1)},
        "worker": {"host": f"worker-{number % 4}.internal.example.org", "pool": "linux-x86_64"},
        "message": f"compile: {number} of {EVENTS} units are done",
    }


def trades() -> Iterator[dict[str, Any]]:
    """Mostly digits that nobody can foretell: about the worst that JSON can be."""
    of = random.Random(5)
    for number in range(EVENTS):
        price = [round(of.uniform(90, 110), 2) for _ in range(3)]
        yield {
            "id": number, "type": "trade", "symbol": of.choice(["ACME", "GLOBEX", "INITECH"]),
            "price": price[0], "size": of.randrange(500), "at": 1700000000000 + number * 137,
            "bid": {"price": price[1], "size": of.randrange(500)},
            "ask": {"price": price[2], "size": of.randrange(500)},
        }  # fmt: skip


def encoded(data: Any) -> bytes:
    return streamkit.sse.encode(streamkit.sse.ServerSentEvent(json.dumps(data)))


STREAMS: dict[str, list[bytes]] = {
    "progress": [encoded(job(number)) for number in range(EVENTS)],
    "trades": [encoded(trade) for trade in trades()],
}


def page() -> bytes:
    rows = (
        f'<tr class="row"><td>{n}</td><td><a href="/items/{n}">Item {n}</a></td></tr>\n' for n in range(8000)
    )
    return "".join(rows).encode()


BODIES = {"HTML": page(), "JSON lines": b"".join(STREAMS["trades"]) * 3}


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def flushed(coding: str, chunks: list[bytes], *, endless: bool) -> int:
    coder = coder_for(coding, endless=endless)
    return sum(len(coder.chunk(chunk)) for chunk in chunks) + len(coder.last())


def events(report: Report, codings: list[str], rounds: int) -> None:
    for name, chunks in STREAMS.items():
        plain = sum(map(len, chunks))
        members = sum(len(gzip.compress(chunk)) for chunk in chunks)
        rows = [{"coding": "gzip, a member each", "bytes an event": members / EVENTS, "fewer": 1.0, "µs": ""}]
        rows.insert(
            0, {"coding": "none", "bytes an event": plain / EVENTS, "fewer": members / plain, "µs": ""}
        )
        for coding in codings:
            size = flushed(coding, chunks, endless=True)
            call = partial(flushed, coding, chunks, endless=True)
            took = median(seconds(call) for _ in range(rounds))
            row = {"coding": coding, "bytes an event": size / EVENTS, "fewer": members / size}
            rows.append({**row, "µs": took / EVENTS * 1e6})
            if name == "progress":
                report.check(Target(f"{coding}, fewer bytes than a member each", 5), members / size)
        report.tables[f"Events: {name}"] = rows


def chunks(report: Report, codings: list[str], rounds: int) -> None:
    for name, body in BODIES.items():
        rows = []
        for size in (2048, 65536):
            parts = [body[start : start + size] for start in range(0, len(body), size)]
            for coding in codings:
                sent = flushed(coding, parts, endless=False)
                call = partial(flushed, coding, parts, endless=False)
                took = median(seconds(call) for _ in range(rounds))
                row = {"coding": coding, "chunk": size, "smaller": len(body) / sent}
                rows.append({**row, "MB/s": len(body) / took / 1e6})
        report.tables[f"Chunks: {name}"] = rows


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def memory(report: Report, codings: list[str]) -> None:
    rows = []
    for coding in codings:
        sizes = [in_a_child(coding, endless) for endless in (True, False)]
        rows.append({"coding": coding, "KiB, endless": sizes[0], "KiB, finite": sizes[1]})
    report.tables["Memory of an open context that has had 200 events"] = rows


def in_a_child(coding: str, endless: bool) -> float:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before, held = resident(), []
        for _ in range(OPEN):
            coder = coder_for(coding, endless=endless)
            for chunk in STREAMS["trades"][:200]:
                coder.chunk(chunk)
            held.append(coder)
        os.write(write, b"%d" % (resident() - before))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read, "rb") as pipe:
        return int(pipe.read()) / OPEN / 1024


def through_an_app(compress: bool) -> float:
    """Microseconds of CPU for each chunk of 64 bytes that a task writes."""

    async def producer(stream: Any) -> None:
        for number in range(CHUNKS):
            await stream.write(b"%064d" % number)

    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http", "method": "GET", "http_version": "1.1", "path": "/", "query_string": b"",
        "asgi": {"version": "3.0", "spec_version": "2.3"}, "headers": [(b"accept-encoding", b"gzip")],
    }  # fmt: skip
    app = streamkit.stream(producer, compress=compress)
    return seconds(lambda: asyncio.run(app(scope, receive, send))) / CHUNKS * 1e6


def main() -> None:
    asked = parser(__doc__, rounds=5).parse_args()
    wanted = [name.strip() for name in asked.only.split(",") if name.strip()] or CODINGS
    codings = [coding for coding in CODINGS if coding in wanted and is_installed(coding)]
    report = Report("What does a compressed stream cost, and what does it save?", asked.rounds)
    if Path("/proc/self/statm").exists():  # first: later there is freed memory that a context could take
        memory(report, codings)
    events(report, codings, asked.rounds)
    chunks(report, codings, asked.rounds)
    rows = [
        {"compress": compress, "µs a chunk": median(through_an_app(compress) for _ in range(asked.rounds))}
        for compress in (False, True)
    ]
    report.tables["64 bytes, by a task, merged while the reader is behind"] = rows
    report.show(as_json=asked.json)


if __name__ == "__main__":
    main()
