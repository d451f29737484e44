"""What the soak serves, on what, what must come of it, and what of its log is meant.

    /sync-function/events            the script `events`, written by a function that takes the stream
    /imperative/ten                  the script `ten`, through `environ["streamkit.stream"]`
    /stats                           pid, threads, tasks, streams, descriptors, memory of this process
    /hold                            occupies the pooled threads that the server itself has
    /plain                           says that the server is there

Rule: importing this file does nothing; `wsgi()` and `asgi()` make the apps, in child processes only.
What fails on purpose raises `Boom`, so that it can be told from a real fault in the log. Stats,
hold and plain are served outside streamkit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flask
from starlette.responses import StreamingResponse as StarletteStream

import streamkit
from streamkit.engines.registry import open_streams

from .wire import Ending

TEXT, EVENTS, BINARY = "text/plain; charset=utf-8", "text/event-stream", "application/octet-stream"
GRACE, MAX_STREAMS = 3.0, 24
APP_WIDE: dict[str, Any] = {"heartbeat": 0.5, "grace": GRACE, "max_streams": MAX_STREAMS}
BLOCK = bytes(range(256)) * 256  # 64 KiB
HOLD_SECONDS = 0.5
OUTSIDE = ("/stats", "/hold", "/plain")
POOLED = 32  # threads that asyncio's own pool has at most
WAYS = ["sync-function", "async-function", "sync-iterable", "async-iterable", "imperative", "foreign"]


class Kind(NamedTuple):
    """A server: how it is started and started anew, and in which ways it streams."""

    arguments: str
    restart: signal.Signals
    holds: int  # requests at a time for /hold that start all the threads that it will ever have
    ways: list[str]
    beats: list[str]  # the ways in which a heartbeat can be sent beside the application


GUNICORN = (  # with more threads than a crowd and the clients can occupy
    "gunicorn --worker-class=gthread --workers=1 --threads=40 --bind=127.0.0.1:{port} "
    "--no-control-socket --worker-tmp-dir=/tmp tests.servers.soak_app:wsgi()"
)
UVICORN = "uvicorn --host=127.0.0.1 --port={port} --no-access-log --factory tests.servers.soak_app:asgi"
KINDS = {
    "gunicorn": Kind(GUNICORN, signal.SIGHUP, 40, WAYS, WAYS[:4]),
    "uvicorn": Kind(UVICORN, signal.SIGTERM, 1, [*WAYS, "foreign-sync"], [*WAYS, "foreign-sync"]),
}


class Boom(Exception):
    """What an endpoint raises on purpose."""


Step = bytes | float  # write these bytes; pause for so many seconds


# The scripts.


def events() -> Iterator[Step]:
    number = 0
    while True:
        yield b"data: %d\n\n" % number
        yield 1.2  # longer than the heartbeat
        number += 1


def ten() -> Iterator[Step]:
    for number in range(10):
        yield b"%d\n" % number
        yield 0.02


def download() -> Iterator[Step]:
    for _ in range(16):
        yield BLOCK
        yield 0.005


def fail_before() -> Iterator[Step]:
    yield from ()
    raise Boom("this endpoint fails on purpose")


def fail_after() -> Iterator[Step]:
    yield b"first\n"
    yield b"second\n"
    raise Boom("this endpoint fails on purpose")


def fail_after_events() -> Iterator[Step]:
    yield b"data: 0\n\n"
    raise Boom("this endpoint fails on purpose")


def ticks() -> Iterator[Step]:
    while True:
        yield b"tick\n"
        yield 0.1


def tick_events() -> Iterator[Step]:
    while True:
        yield b"data: tick\n\n"
        yield 0.1


def flood() -> Iterator[Step]:
    while True:
        yield BLOCK


@dataclass(frozen=True)
class Script:
    """What a producer does, how it is described, and what a client must get: body, ending, status."""

    steps: Callable[[], Iterator[Step]]
    gives: bytes | re.Pattern[bytes]
    ending: Ending | None = Ending.COMPLETE
    status: int = 200
    content_type: str = TEXT
    options: dict[str, Any] = field(default_factory=dict)


COMPLETE, TRUNCATED, ENDLESS = Ending.COMPLETE, Ending.TRUNCATED, None
# On a busy machine there may be a heartbeat after any event.
ERROR_EVENT = re.compile(rb"data: 0\n\n(:\n)*event: error\ndata: .*\n\n")
TICK_EVENTS = re.compile(rb"(data: tick\n\n(:\n)*)+(retry: \d+\n\n?)?")  # it may be cut at shutdown, too
LIMIT = {"max_duration": 1.0}

SCRIPTS: dict[str, Script] = {
    "events": Script(events, b"", ENDLESS, content_type=EVENTS),
    "ten": Script(ten, b"".join(b"%d\n" % number for number in range(10))),
    "download": Script(download, BLOCK * 16, content_type=BINARY),
    "fail-before": Script(fail_before, re.compile(rb"(?s).*"), status=500),
    "fail-after": Script(fail_after, b"first\nsecond\n", TRUNCATED),
    "fail-after-events": Script(fail_after_events, ERROR_EVENT, content_type=EVENTS),
    "limited-text": Script(ticks, re.compile(rb"(tick\n)+"), TRUNCATED, options=LIMIT),
    "limited-events": Script(tick_events, TICK_EVENTS, content_type=EVENTS, options=LIMIT),
    "flood": Script(flood, b"", ENDLESS, content_type=BINARY, options={"write_timeout": 1.0}),
}


# The ways to play them.


def write_all(script: Script, stream: Any) -> None:
    for step in script.steps():
        if isinstance(step, bytes):
            stream.write(step)
        else:
            time.sleep(step)


async def write_all_async(script: Script, stream: Any) -> None:
    for step in script.steps():
        if isinstance(step, bytes):
            await stream.write(step)
        else:
            await asyncio.sleep(step)


def each(script: Script) -> Iterator[bytes]:
    for step in script.steps():
        if isinstance(step, bytes):
            yield step
        else:
            time.sleep(step)


async def each_async(script: Script) -> AsyncIterator[bytes]:
    for step in script.steps():
        if isinstance(step, bytes):
            yield step
        else:
            await asyncio.sleep(step)


def sync_function(script: Script) -> Callable[[Any], None]:
    return lambda stream: write_all(script, stream)


def async_function(script: Script) -> Callable[[Any], Any]:
    async def producer(stream: Any) -> None:
        await write_all_async(script, stream)

    return producer


PRODUCERS: dict[str, Callable[[Script], Any]] = {
    "sync-function": sync_function,
    "async-function": async_function,
    "sync-iterable": each,
    "async-iterable": each_async,
}


def described(way: str, script: Script) -> Any:
    return streamkit.stream(PRODUCERS[way](script), content_type=script.content_type)


def taken_apart(path: str) -> tuple[str, Script]:
    _, way, name = path.split("/")
    return way, SCRIPTS[name]


def stats(tasks: int) -> bytes:
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Starlette's own pool has as many as there were at a time lately, which is no level to compare.
    of_anyio = sum(thread.name == "AnyIO worker thread" for thread in threading.enumerate())
    numbers = {
        "pid": os.getpid(),
        "threads": len(os.listdir("/proc/self/task")) - of_anyio,
        "anyio": of_anyio,
        "tasks": tasks,
        "streams": len(open_streams()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "resident": resident,
    }
    return json.dumps(numbers).encode()


def begin() -> None:
    # Every logger reaches the server's log, in the form that `complaints` takes apart.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


# WSGI.

flask_app = flask.Flask(__name__)


@flask_app.get("/foreign/<name>")
def flask_stream(name: str) -> flask.Response:
    script = SCRIPTS[name]
    return flask.Response(each(script), content_type=script.content_type)


def _inner_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    way, script = taken_apart(environ["PATH_INFO"])
    if way == "foreign":
        return flask_app(environ, start_response)
    if way == "imperative":
        stream = environ["streamkit.stream"]
        stream.headers["Content-Type"] = script.content_type
        write_all(script, stream)
        stream.close()
        return []
    return described(way, script)(environ, start_response)  # type: ignore[no-any-return]


def wsgi() -> Any:
    """The WSGI app. A script's options are those of its own wrap, so that foreign streams have them too."""
    begin()
    wrapped = {
        name: streamkit.wrap(_inner_wsgi, {**APP_WIDE, **script.options}, kind="wsgi")
        for name, script in SCRIPTS.items()
    }

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path not in OUTSIDE:
            return wrapped[path.rpartition("/")[2]](environ, start_response)
        if path == "/hold":
            time.sleep(HOLD_SECONDS)
        body = stats(0) if path == "/stats" else b"plain\n"
        start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", str(len(body)))])
        return [body]

    return app


# ASGI.


async def answer(send: Any, body: bytes) -> None:
    fields = [(b"content-type", TEXT.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def hold() -> None:
    await asyncio.gather(*[asyncio.to_thread(time.sleep, HOLD_SECONDS) for _ in range(POOLED)])


async def lifespan(receive: Any, send: Any) -> None:
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


async def _inner_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    way, script = taken_apart(scope["path"])
    if way.startswith("foreign"):
        body = each(script) if way == "foreign-sync" else each_async(script)
        response = StarletteStream(body, headers={"Content-Type": script.content_type})
        return await response(scope, receive, send)
    if way == "imperative":
        stream = scope["streamkit.stream"]
        stream.headers["Content-Type"] = script.content_type
        await write_all_async(script, stream)
        return await stream.close()  # type: ignore[no-any-return]
    await described(way, script)(scope, receive, send)


def asgi() -> Any:
    """`wsgi`, for ASGI."""
    begin()
    wrapped = {
        name: streamkit.wrap(_inner_asgi, {**APP_WIDE, **script.options}, kind="asgi")
        for name, script in SCRIPTS.items()
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "/ten")  # the lifespan goes through one of the wraps
        if path not in OUTSIDE:
            return await wrapped[path.rpartition("/")[2]](scope, receive, send)
        if path == "/hold":
            await hold()
        await answer(send, stats(len(asyncio.all_tasks())) if path == "/stats" else b"plain\n")

    return app


# What the server says of all this.

BEGIN = re.compile(r"\[\d{4}-\d\d-\d\d |(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|Exception (in|ignored)")
COMPLAINT = re.compile(
    r"\b(WARNING|ERROR|CRITICAL)\b|Traceback|Exception (in|ignored)|never (retrieved|awaited)"
)
ON_PURPOSE = {  # by the last line of the block
    "failed on purpose": re.compile(r"tests\.servers\.soak_app\.Boom: this endpoint fails on purpose$"),
    "cut by max_duration": re.compile(r".*StreamEnded: .*its max_duration of 1 s has passed$"),
    "cut by write_timeout": re.compile(r".*StreamEnded: .*its client took nothing for 1 s$"),
    "cut at shutdown": re.compile(r".*StreamEnded: .*the server is shutting down$"),
    "answered 503": re.compile(rf".*answered 503: {MAX_STREAMS} streams are open already"),
}


def blocks(log: str) -> Iterator[str]:
    """Each message with all its lines; a traceback without a message of its own is one."""
    block: list[str] = []
    for line in log.splitlines():
        bare = line.startswith("Traceback") and block and block[-1].strip() and not BEGIN.match(block[-1])
        if block and (bare or BEGIN.match(line)):
            yield "\n".join(block)
            block = []
        block.append(line)
    yield "\n".join(block)


def complaints(log: str) -> tuple[Counter[str], list[str]]:
    """How often the log complains of what was meant, and what else it complains of."""
    meant, unexpected = Counter[str](), []
    for block in blocks(log):
        if not COMPLAINT.search(block):
            continue
        last = block.rstrip().rpartition("\n")[2]
        reason = next((name for name, pattern in ON_PURPOSE.items() if pattern.match(last)), None)
        if reason is None:
            unexpected.append(block)
        else:
            meant[reason] += 1
    return meant, unexpected
