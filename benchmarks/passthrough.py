"""What does wrapping cost a response that does not stream?

    python benchmarks/passthrough.py [--rounds N] [--json] [--only streamkit]

In process, no server: nanoseconds a request and a streamed chunk over the bare app, beside
what others take for the same, and the objects that stand while a request is open. Each request
gets its own copy of a full environ or scope, as from a server, in a process that has streamed
before. CPU time, and the lowest of the
rounds: all runs on one thread, so whatever is above that is other work on the machine.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware
from werkzeug.wsgi import ClosingIterator

# This directory stands first; nobody else must find its `requests` and its `engines`.
sys.path.pop(0)
sys.path.append(str(Path(__file__).resolve().parent.parent))
import streamkit
from benchmarks._contenders import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp
from benchmarks._measure import Report, Target, chosen, interleave, parser
from benchmarks._no_server import ENVIRON, SCOPE, receive, send, start_response

REQUESTS = 20_000
SLOW_REQUESTS = 1_000  # for peers that take some ten microseconds a request
CHUNKS = 100_000
SLOW_CHUNKS = 5_000

TARGETS = {
    "wsgi": Target("WSGI, wrapping a response with a length", 400, at_least=False, unit="ns"),
    "wsgi, no length": Target("WSGI, wrapping one without", 400, at_least=False, unit="ns"),
    "asgi": Target("ASGI, wrapping a response with a length", 500, at_least=False, unit="ns"),
    "asgi, no length": Target("ASGI, wrapping one without", 500, at_least=False, unit="ns"),
}

Objects = Counter[str]


class Census:
    """What exists while a request is open: asked for from inside the innermost app."""

    def __init__(self) -> None:
        self.wanted = False
        self.before: set[int] = set()
        self.blocks = 0
        self.found: Objects = Counter()

    def begin(self) -> None:
        gc.collect()
        self.wanted, self.found = True, Counter()
        self.before = {id(one) for one in gc.get_objects()}
        self.blocks = sys.getallocatedblocks()

    def take(self) -> None:
        self.wanted = False
        self.blocks = sys.getallocatedblocks() - self.blocks
        self.found.update(type(one).__qualname__ for one in gc.get_objects() if id(one) not in self.before)


CENSUS = Census()

# ---------------------------------------------------------------- the bare apps


def wsgi_answer(headers: list[tuple[str, str]]) -> WSGIApp:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if CENSUS.wanted:
            CENSUS.take()
        start_response("200 OK", list(headers))
        return [b"ok"]

    return app


def wsgi_stream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        for _ in range(environ["bench.chunks"]):
            yield b"x"

    start_response("200 OK", [("Content-Type", "text/plain")])
    return body()


def asgi_answer(headers: list[tuple[bytes, bytes]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if CENSUS.wanted:
            CENSUS.take()
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def asgi_stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(scope["bench.chunks"]):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


WSGI_KINDS: dict[str, WSGIApp] = {
    "wsgi": wsgi_answer([("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "2")]),
    "wsgi, no length": wsgi_answer([("Content-Type", "text/html; charset=utf-8")]),
}
ASGI_KINDS: dict[str, ASGIApp] = {
    "asgi": asgi_answer([(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"2")]),
    "asgi, no length": asgi_answer([(b"content-type", b"text/html; charset=utf-8")]),
}

# ---------------------------------------------------------------- the wrappers


def closing_iterator(app: WSGIApp) -> WSGIApp:
    def wrapped(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return ClosingIterator(app(environ, start_response), lambda: None)

    return wrapped


PLAIN = {"text/html; charset=utf-8", b"text/html; charset=utf-8"}


def start_response_closure(app: WSGIApp) -> WSGIApp:
    """The least that looks at each head: one closure, nothing in the environ."""

    def wrapped(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        streams = False

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal streams
            for name, value in headers:
                if name == "Content-Type":
                    streams = value not in PLAIN
            return start_response(status, headers)

        return app(environ, start)

    return wrapped


def send_closure(app: ASGIApp) -> ASGIApp:
    """The same for ASGI."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        streams = started = False

        def watched(message: Any) -> Any:
            nonlocal streams, started
            if not started:
                started = True
                for name, value in message["headers"]:
                    if name == b"content-type":
                        streams = value not in PLAIN
            return send(message)

        await app(scope, receive, watched)

    return wrapped


def no_op(app: ASGIApp) -> ASGIApp:
    """The least an ASGI middleware can be: one more coroutine."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return wrapped


class StarletteBase(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


BARE, OURS = "bare", "streamkit"
WSGI_WRAPPERS: dict[str, Callable[[WSGIApp], WSGIApp]] = {
    BARE: lambda app: app,
    "a closure as start_response": start_response_closure,
    "werkzeug ClosingIterator": closing_iterator,
    OURS: lambda app: streamkit.wrap(app, kind="wsgi"),
}
ASGI_WRAPPERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    BARE: lambda app: app,
    "pure no-op": no_op,
    "a closure as send": send_closure,
    "starlette BaseHTTPMiddleware": StarletteBase,
    OURS: lambda app: streamkit.wrap(app, kind="asgi"),
}

# ---------------------------------------------------------------- the measurements


def wsgi_nanoseconds(app: WSGIApp, count: int, extra: Environ) -> float:
    original = {**ENVIRON, **extra}
    began = time.process_time_ns()
    for _ in range(count):
        # Copied here, not before: what a request has left in it must go with it, as on a server.
        body = app(original.copy(), start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return (time.process_time_ns() - began) / count


async def asgi_nanoseconds(app: ASGIApp, count: int, extra: dict[str, Any]) -> float:
    original = {**SCOPE, **extra}
    began = time.process_time_ns()
    for _ in range(count):
        await app(original.copy(), receive, send)
    return (time.process_time_ns() - began) / count


def measure_wsgi(apps: dict[str, WSGIApp], rounds: int, chunks: int = 0) -> dict[str, list[float]]:
    def measure(name: str) -> float:
        if chunks:
            return wsgi_nanoseconds(apps[name], 1, {"bench.chunks": chunks}) / chunks
        return wsgi_nanoseconds(apps[name], REQUESTS, {})

    return interleave(list(apps), rounds, measure)


def measure_asgi(apps: dict[str, ASGIApp], rounds: int, chunks: int = 0) -> dict[str, list[float]]:
    def measure(name: str) -> float:
        slow = name.startswith("starlette")
        if chunks:
            count = SLOW_CHUNKS if slow else chunks
            return asyncio.run(asgi_nanoseconds(apps[name], 1, {"bench.chunks": count})) / count
        return asyncio.run(asgi_nanoseconds(apps[name], SLOW_REQUESTS if slow else REQUESTS, {}))

    return interleave(list(apps), rounds, measure)


# ---------------------------------------------------------------- the answers


def census(call: Callable[[], object]) -> tuple[int, Objects]:
    call()  # what is made once only is no part of a request
    CENSUS.begin()
    call()
    return CENSUS.blocks, CENSUS.found


def call_of(app: Any, kind: str) -> Callable[[], object]:
    if kind.startswith("wsgi"):
        return lambda: wsgi_nanoseconds(app, 1, {})
    return lambda: asyncio.run(asgi_nanoseconds(app, 1, {}))


def add_requests(report: Report, kind: str, apps: dict[str, Any], results: dict[str, list[float]]) -> None:
    base = results[BARE]
    bare_blocks, bare_objects = census(call_of(apps[BARE], kind))
    rows = []
    for name, values in results.items():
        blocks, objects = census(call_of(apps[name], kind))
        more = min(values) - min(base)
        made = objects - bare_objects
        rows.append(
            {
                "wrapped in": name,
                "ns/request": min(values),
                "over bare": more,
                "blocks": blocks - bare_blocks,
                "objects while open": ", ".join(f"{count} {what}" for what, count in made.most_common(6)),
            }
        )
        if name == OURS:
            report.check(TARGETS[kind], more)
    report.tables[f"{kind}: a response that does not stream"] = rows


def add_chunks(report: Report, kind: str, results: dict[str, list[float]]) -> None:
    report.tables[f"{kind}: a response that streams"] = [
        {
            "wrapped in": name,
            "ns/chunk": min(values),
            "over bare": min(values) - min(results[BARE]),
        }
        for name, values in results.items()
    ]


def stream_once() -> None:
    """From its first stream on, a wrapped app looks for marks of ours in ordinary heads."""
    described = streamkit.stream([b"x"])
    for _ in streamkit.wrap(described, kind="wsgi")(dict(ENVIRON), start_response):
        pass
    asyncio.run(streamkit.wrap(described, kind="asgi")(dict(SCOPE), receive, send))


def main() -> None:
    stream_once()
    options = parser(__doc__, rounds=15).parse_args()
    report = Report("nanoseconds of wrapping an app", options.rounds)
    wsgi_wrappers = {name: WSGI_WRAPPERS[name] for name in chosen(list(WSGI_WRAPPERS), options.only, BARE)}
    asgi_wrappers = {name: ASGI_WRAPPERS[name] for name in chosen(list(ASGI_WRAPPERS), options.only, BARE)}
    for kind, wsgi in WSGI_KINDS.items():
        wsgi_apps = {name: wrapper(wsgi) for name, wrapper in wsgi_wrappers.items()}
        add_requests(report, kind, wsgi_apps, measure_wsgi(wsgi_apps, options.rounds))
    for kind, asgi in ASGI_KINDS.items():
        asgi_apps = {name: wrapper(asgi) for name, wrapper in asgi_wrappers.items()}
        add_requests(report, kind, asgi_apps, measure_asgi(asgi_apps, options.rounds))
    wsgi_apps = {name: wrapper(wsgi_stream) for name, wrapper in wsgi_wrappers.items()}
    add_chunks(report, "wsgi", measure_wsgi(wsgi_apps, options.rounds, CHUNKS))
    asgi_apps = {name: wrapper(asgi_stream) for name, wrapper in asgi_wrappers.items()}
    add_chunks(report, "asgi", measure_asgi(asgi_apps, options.rounds, CHUNKS))
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
