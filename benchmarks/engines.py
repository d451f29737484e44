"""What does each engine cost when no server is in the way?

    python benchmarks/engines.py [--rounds N] [--json] [--only thread] [--profile thread]

In process: a loop takes the body as a server would and drops it. CPU time of all threads, and the
lowest of the rounds, which stays the same to a few percent whatever else the machine does: made
for tuning. The figures that count are those of throughput.py, where a socket is written.
`--profile` runs one contender under cProfile (the thread that calls only) instead.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib.util
import pstats
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
import streamkit
from benchmarks._contenders import (
    ASGI,
    WSGI,
    Ask,
    Environ,
    StartResponse,
    WSGIApp,
    push,
)
from benchmarks._measure import Report, chosen, interleave, parser
from benchmarks._no_server import ENVIRON, SCOPE, receive, send, start_response

CHUNKS = {64: 200_000, 4096: 50_000}
SLOW_CHUNKS = 5_000
RESPONSES = 2_000
SLOW_RESPONSES = 300
SLOW = {"queue", "starlette-sync"}


def wsgi_greenlet(environ: Environ, start_response: StartResponse) -> Any:
    response: Any = streamkit.stream(push(environ["bench.ask"]), engine="greenlet")
    return response(environ, start_response)


def wsgi_contenders() -> dict[str, WSGIApp]:
    """Without the one that needs a server's `write()`."""
    apps = {name: app for name, app in WSGI.items() if name != "environ"}
    if importlib.util.find_spec("greenlet"):
        apps["greenlet"] = wsgi_greenlet
    return apps


def wsgi_seconds(app: WSGIApp, ask: Ask, responses: int) -> float:
    began = time.process_time()
    for _ in range(responses):
        body = app({**ENVIRON, "bench.ask": ask}, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return time.process_time() - began


async def asgi_seconds(app: Callable[..., Awaitable[None]], ask: Ask, responses: int) -> float:
    began = time.process_time()
    for _ in range(responses):
        await app({**SCOPE, "bench.ask": ask}, receive, send)
    return time.process_time() - began


def run_on_a_loop(coroutine: Any) -> float:
    """On uvloop where it is installed, as the server of the other benchmarks."""
    if importlib.util.find_spec("uvloop"):
        import uvloop

        took: float = uvloop.run(coroutine)
        return took
    return float(asyncio.run(coroutine))


def seconds(name: str, ask: Ask, responses: int) -> float:
    if name in ASGI:
        return run_on_a_loop(asgi_seconds(ASGI[name], ask, responses))
    return wsgi_seconds(wsgi_contenders()[name], ask, responses)


def nanoseconds_a_chunk(name: str, size: int) -> float:
    count = SLOW_CHUNKS if name in SLOW else CHUNKS[size]
    return seconds(name, Ask(count, size), 1) / count * 1e9


def microseconds_a_response(name: str) -> float:
    count = SLOW_RESPONSES if name in SLOW else RESPONSES
    return seconds(name, Ask(10, 64), count) / count * 1e6


def rows_for(names: list[str], peer: str, rounds: int) -> list[dict[str, Any]]:
    small = interleave(names, rounds, lambda name: nanoseconds_a_chunk(name, 64))
    large = interleave(names, rounds, lambda name: nanoseconds_a_chunk(name, 4096))
    short = interleave(names, rounds, microseconds_a_response)
    return [
        {
            "engine": name,
            "64 B, ns/chunk": min(small[name]),
            "4 KiB, ns/chunk": min(large[name]),
            "10 chunks, µs": min(short[name]),
            f"µs x {peer}": min(short[name]) / min(short[peer]),
        }
        for name in names
    ]


def profile(name: str) -> None:
    for ask, responses in ((Ask(CHUNKS[64], 64), 1), (Ask(10, 64), RESPONSES)):
        print(f"\n{name}: {responses} responses of {ask.count} chunks")
        profiler = cProfile.Profile()
        profiler.runcall(seconds, name, ask, responses)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--profile", metavar="NAME", help="one contender under cProfile")
    options = arguments.parse_args()
    if options.profile:
        profile(options.profile)
        return
    report = Report("nanoseconds a chunk and microseconds a response, in process", options.rounds)
    wsgi = chosen(list(wsgi_contenders()), options.only, "generator")
    report.tables["WSGI"] = rows_for(wsgi, "generator", options.rounds)
    asgi = chosen(list(ASGI), options.only, "send")
    report.tables["ASGI"] = rows_for(asgi, "send", options.rounds)
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
