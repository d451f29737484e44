"""What does a row of an export cost, and how much memory does a long one take?

    python benchmarks/downloads.py [--rounds N] [--rows N] [--json] [--only csv_rows]

Each way makes the same CSV (five fields a row) or JSON Lines, in a process of its own, without a server:
what is measured is ours. The plain way, which the ratios compare with, is what one writes by hand, a chunk a
row. Memory is the peak over that of the same process after a thousand rows.
"""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
import streamkit
from benchmarks._measure import Report, chosen, interleave, paired_ratio, parser

ROWS = 100_000
A_WAY = "--way"  # asks for one measurement, in a process of its own
FIELDS = ("some name", 3.25, "2024-01-01", "x@example.org")


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    return ((number, *FIELDS) for number in range(count))


async def rows_async(count: int) -> AsyncIterator[tuple[Any, ...]]:
    for row in rows(count):
        yield row


class _Echo:
    """Gives each row's line back, as the documentation of Django has it."""

    def write(self, line: str) -> str:
        return line


def plain_csv(count: int) -> Iterator[str]:
    writer = csv.writer(_Echo())
    return (writer.writerow(row) for row in rows(count))


def plain_json(count: int) -> Iterator[str]:
    return (json.dumps(row) + "\n" for row in rows(count))


async def made_async(lines: Iterator[str]) -> AsyncIterator[str]:
    for line in lines:
        yield line


WAYS: dict[str, Callable[[int], streamkit.StreamingResponse]] = {
    "plain CSV": lambda count: streamkit.stream(plain_csv(count), content_type="text/csv"),
    "csv_rows": lambda count: streamkit.csv_rows(rows(count), "x.csv"),
    "plain CSV awaited": lambda count: streamkit.stream(
        made_async(plain_csv(count)), content_type="text/csv"
    ),
    "csv_rows awaited": lambda count: streamkit.csv_rows(rows_async(count), "x.csv"),
    "plain JSON": lambda count: streamkit.stream(plain_json(count), content_type="application/x-ndjson"),
    "json_lines": lambda count: streamkit.json_lines(rows(count), "x.jsonl"),
    "json_lines awaited": lambda count: streamkit.json_lines(rows_async(count), "x.jsonl"),
    "zip of plain CSV": lambda count: streamkit.zip_files([("x.csv", plain_csv(count))], "x.zip", level=1),
}


def served_wsgi(description: streamkit.StreamingResponse) -> int:
    """The bytes of the body."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/",
        "wsgi.errors": sys.stderr,
    }
    body: Any = description(environ, lambda status, headers, exc_info=None: lambda data: None)
    try:
        return sum(len(chunk) for chunk in body)
    finally:
        getattr(body, "close", lambda: None)()


def served_asgi(description: streamkit.StreamingResponse) -> int:
    """The bytes of the body."""
    sizes: list[int] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))

    async def main() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1", "headers": []}
        await description(scope, receive, send)

    asyncio.run(main())
    return sum(sizes)


SERVED = {"wsgi": served_wsgi, "asgi": served_asgi}


def peak() -> int:
    """The most memory that this process has had, in bytes (Linux)."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


@dataclass(frozen=True)
class Measured:
    rate: float  # rows a second
    size: int  # bytes of the body
    memory: int  # bytes at the most, over what a thousand rows take


def measure_here(interface: str, way: str, count: int) -> None:
    """Print what was measured, for the process that asks."""
    serve, describe = SERVED[interface], WAYS[way]
    serve(describe(1000))
    before, start = peak(), time.perf_counter()
    size = serve(describe(count))
    print(count / (time.perf_counter() - start), size, peak() - before)


def measure(interface: str, way: str, count: int) -> Measured:
    done = subprocess.run(
        [sys.executable, __file__, A_WAY, interface, way, str(count)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    rate, size, memory = done.stdout.split()
    return Measured(float(rate), int(size), int(memory))


def report_on(report: Report, interface: str, names: list[str], rounds: int, count: int) -> None:
    results = interleave(names, rounds, lambda way: measure(interface, way, count))
    rates = {way: [one.rate for one in found] for way, found in results.items()}
    report.tables[f"{interface}, {count:,} rows"] = [
        {
            "way": way,
            "rows/s": median(rates[way]),
            "x plain": paired_ratio(rates[way], rates[plain_of(way)]),
            "body, MB": found[0].size / 1e6,
            "memory, MiB": median(one.memory for one in found) / 2**20,
        }
        for way, found in results.items()
    ]


def plain_of(way: str) -> str:
    """The way by hand that this one is compared with."""
    if "JSON" in way or "json" in way:
        return "plain JSON"
    return "plain CSV awaited" if way.endswith("awaited") else "plain CSV"


def main() -> None:
    if sys.argv[1:2] == [A_WAY]:
        measure_here(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parsing = parser(__doc__, rounds=5)
    parsing.add_argument("--rows", type=int, default=ROWS, help="rows of each export")
    asked = parsing.parse_args()
    wanted = chosen(list(WAYS), asked.only, "")
    names = [way for way in WAYS if way in wanted or way in {plain_of(one) for one in wanted}]
    report = Report("What does a row of an export cost, and how much memory a long one?", asked.rounds)
    for interface in SERVED:
        report_on(report, interface, names, asked.rounds, asked.rows)
    report.show(as_json=asked.json)


if __name__ == "__main__":
    main()
