"""What does a row of an export cost, and how much memory does a long one take?

    python benchmarks/downloads.py [ROWS]

Each way makes the same CSV (five fields a row) or JSON Lines, in a process of its own, without a server:
what is measured is ours. `plain` is what one writes by hand, a chunk a row. The best of three runs counts;
memory is the peak over that of the same process after a thousand rows.
"""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import streamkit

ROWS = 200_000
RUNS = 3
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
    "CSV, plain": lambda count: streamkit.stream(plain_csv(count), content_type="text/csv"),
    "CSV, csv_rows": lambda count: streamkit.csv_rows(rows(count), "x.csv"),
    "CSV, plain, async": lambda count: streamkit.stream(
        made_async(plain_csv(count)), content_type="text/csv"
    ),
    "CSV, csv_rows, async": lambda count: streamkit.csv_rows(rows_async(count), "x.csv"),
    "JSON, plain": lambda count: streamkit.stream(plain_json(count), content_type="application/x-ndjson"),
    "JSON, json_lines": lambda count: streamkit.json_lines(rows(count), "x.jsonl"),
    "JSON, json_lines, async": lambda count: streamkit.json_lines(rows_async(count), "x.jsonl"),
    "ZIP of the CSV": lambda count: streamkit.zip_files([("x.csv", plain_csv(count))], "x.zip", level=1),
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


def measure(interface: str, way: str, count: int) -> None:
    """Print rows a second, bytes, and bytes of memory over what a thousand rows take."""
    serve, describe = SERVED[interface], WAYS[way]
    serve(describe(1000))
    before, best, size = peak(), float("inf"), 0
    for _ in range(RUNS):
        start = time.perf_counter()
        size = serve(describe(count))
        best = min(best, time.perf_counter() - start)
    print(round(count / best), size, peak() - before)


def main() -> None:
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(f"{count:,} rows\n\n| way | interface | rows/s | body | memory |\n| --- | --- | --- | --- | --- |")
    for way in WAYS:
        for interface in SERVED:
            done = subprocess.run(
                [sys.executable, __file__, interface, way, str(count)],
                capture_output=True,
                text=True,
                check=True,
                timeout=600,
            )
            rate, size, memory = (int(word) for word in done.stdout.split())
            megabytes = f"{size / 1e6:.1f} MB | {memory / 2**20:.1f} MiB"
            print(f"| {way} | {interface} | {rate:,} | {megabytes} |", flush=True)


if __name__ == "__main__":
    main()
