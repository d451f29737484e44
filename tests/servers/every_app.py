"""What every server serves for the table of `docs/servers.md`: one endpoint a column.

    /after?key=a&type=events         two events, then an error
    /idle?key=b&heartbeat=0.5        one chunk, then nothing; any option of a response may stand here

Each is played by a function that takes the stream: on a thread under WSGI, as a task under ASGI.
What happens is written to the journal, a file: a server of one thread answers no question while
it streams.

Rule: only child processes import this file, and it imports only the standard library and
streamkit: mod_wsgi runs it as a script.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import streamkit

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

JOURNAL = os.open(os.environ["STREAMKIT_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
APP_WIDE = json.loads(os.environ.get("STREAMKIT_OPTIONS", "{}"))
OF_RESPONSE = {"heartbeat", "write_timeout", "max_duration", "high_water"}
TYPES = {
    "text": "text/plain; charset=utf-8",
    "events": "text/event-stream",
    "records": "application/x-ndjson",
}
LONGEST = 60.0  # seconds after which an endless producer gives up: nobody waits so long
MOST = 8192  # chunks of a flood, half a gigabyte: a server that holds them all must not take the machine

UNTIL_THE_END = None
Step = bytes | float | None  # write these bytes; pause for so many seconds; wait for the stream's end

set_by_the_app: ContextVar[str] = ContextVar("set_by_the_app", default="")
set_by_the_producer: ContextVar[str] = ContextVar("set_by_the_producer", default="")


class Boom(Exception):
    """What an endpoint raises."""


def note(key: str, what: str, detail: object = None) -> None:
    """One line of the journal, in one write."""
    line = {"key": key, "what": what, "detail": detail, "pid": os.getpid()}
    os.write(JOURNAL, json.dumps(line).encode() + b"\n")


# What each endpoint does.


def chunk(number: int, kind: str) -> bytes:
    form = {"events": "data: %d\n\n", "records": '{"n": %d}\n'}.get(kind, "%d\n")
    return (form % number).encode()


def before(kind: str) -> Iterator[Step]:
    yield from ()
    raise Boom("before the first chunk")


def after(kind: str) -> Iterator[Step]:
    yield chunk(0, kind)
    yield chunk(1, kind)
    raise Boom("after two chunks")


def ten(kind: str) -> Iterator[Step]:
    for number in range(10):
        yield chunk(number, kind)
        yield 0.05


def endless(kind: str) -> Iterator[Step]:
    for number in range(int(LONGEST / 0.05)):
        yield chunk(number, kind)
        yield 0.05


def idle(kind: str) -> Iterator[Step]:
    yield chunk(0, kind)
    yield UNTIL_THE_END


def flood(kind: str) -> Iterator[Step]:
    for _ in range(MOST):
        yield b"\0" * 65536


STEPS = {f.__name__: f for f in (before, after, ten, endless, idle, flood)}


def play(steps: Iterable[Step], key: str, stream: Any) -> None:
    stream.on_finish(lambda ended: note(key, "finish", ended.outcome))
    note(key, "started")
    try:
        for step in steps:
            if isinstance(step, bytes):
                stream.write(step)
                note(key, "wrote", len(step))
            elif isinstance(step, float):
                time.sleep(step)
            else:
                end = time.monotonic() + LONGEST
                while not stream.wait_finished(0.1) and stream.connected and time.monotonic() < end:
                    pass
    finally:
        note(key, "stopped")


async def play_async(steps: Iterable[Step], key: str, stream: Any) -> None:
    stream.on_finish(lambda ended: note(key, "finish", ended.outcome))
    note(key, "started")
    try:
        for step in steps:
            if isinstance(step, bytes):
                await stream.write(step)
                note(key, "wrote", len(step))
            elif isinstance(step, float):
                await asyncio.sleep(step)
            else:
                end = time.monotonic() + LONGEST
                while not await stream.wait_finished(0.1) and stream.connected and time.monotonic() < end:
                    pass
    finally:
        note(key, "stopped")


# Context variables: what the app and its producer find, and what they leave.


def context_in_app(key: str) -> dict[str, str]:
    seen = {"app saw of the producers": set_by_the_producer.get()}
    set_by_the_app.set(key)
    return seen


def context_in_producer(key: str, seen: dict[str, str]) -> bytes:
    seen["producer saw of the producers"] = set_by_the_producer.get()
    seen["producer saw of its app"] = set_by_the_app.get()
    set_by_the_producer.set(key)
    return json.dumps(seen).encode()


def context(key: str, seen: dict[str, str], stream: Any) -> None:
    stream.write(context_in_producer(key, seen))


async def context_async(key: str, seen: dict[str, str], stream: Any) -> None:
    await stream.write(context_in_producer(key, seen))


# The two apps.


def describe(path: str, query: str, *, is_async: bool) -> Any:
    asked = dict(parse_qsl(query))
    key, kind = asked.get("key", ""), asked.get("type", "text")
    name = path.lstrip("/")
    if name == "context":
        producer: Any = partial(context_async if is_async else context, key, context_in_app(key))
    else:
        producer = partial(play_async if is_async else play, STEPS[name](kind), key)
    if is_async:  # a partial of an async function is one from CPython 3.12 on only
        producer = _awaiting(producer)
    options = {name: value for name, value in asked.items() if name in OF_RESPONSE}
    return streamkit.stream(
        producer, content_type=TYPES[kind], options=options, callback=lambda: note(key, "callback")
    )


def _awaiting(producer: Any) -> Any:
    async def awaiting(stream: Any) -> None:
        await producer(stream)

    return awaiting


def _wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/plain":
        start_response("200 OK", [("Content-Type", TYPES["text"]), ("Content-Length", "6")])
        return [b"plain\n"]
    response = describe(environ["PATH_INFO"], environ.get("QUERY_STRING", ""), is_async=False)
    return response(environ, start_response)  # type: ignore[no-any-return]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
    elif scope["path"] == "/plain":
        head = [(b"content-type", TYPES["text"].encode()), (b"content-length", b"6")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"plain\n"})
    else:
        await describe(scope["path"], scope["query_string"].decode(), is_async=True)(scope, receive, send)


wsgi_app = streamkit.wrap(_wsgi, APP_WIDE, kind="wsgi")
asgi_app = streamkit.wrap(_asgi, APP_WIDE, kind="asgi")


def under_a2wsgi() -> Any:
    """The WSGI app as an ASGI app, made when asked for: a2wsgi starts threads."""
    from a2wsgi import WSGIMiddleware

    return WSGIMiddleware(wsgi_app, workers=8)
