"""What `test_sigterm` has open when the signal comes, and `test_cooperative` beside ordinary requests.

    /events?key=a               one event, then nothing for ever
    /ten?key=b                  ten chunks in a second, and an end of its own
    /text?key=c&way=async       text without an end, a chunk every tenth of a second
    /flood?key=d&heartbeat=1    more than any client takes that does not read
    /events?key=e&after=FILE    the same events, once this file is there
    /signals, /threads, /pid    who handles SIGTERM and SIGINT here, how many threads, in which process
    /shutdown?grace=1           what `streamkit.shutdown` says
    /loop                       whether an event loop of the request's own can run

Each is a function that takes the stream: on a thread under WSGI, as a task under ASGI; with `way`
under WSGI also an async function, one that has a worker write to its synchronous twin ("twin"), and
the app itself on the server's stack ("imperative"). What happens is written to the journal, a file,
with the moment by the clock that all processes share.

Rule: only child processes import this file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import streamkit

JOURNAL = os.open(os.environ["STREAMKIT_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
TEXT, EVENTS = "text/plain; charset=utf-8", "text/event-stream"
LONGEST = 60.0  # seconds after which a producer gives up: nobody waits so long
MOST = 4096  # chunks of a flood, a quarter of a gigabyte

Step = bytes | float  # write these bytes; go on so many seconds after the beginning


def note(key: str, what: str, detail: object = None) -> None:
    """One line of the journal, in one write."""
    line = {"key": key, "what": what, "detail": detail, "pid": os.getpid(), "at": time.monotonic()}
    os.write(JOURNAL, json.dumps(line).encode() + b"\n")


def events() -> Iterator[Step]:
    yield b"data: 0\n\n"
    yield LONGEST


def ten() -> Iterator[Step]:
    for number in range(10):
        yield number * 0.1
        yield b"%d\n" % number


def text() -> Iterator[Step]:
    for number in range(int(LONGEST * 10)):
        yield number * 0.1
        yield b"%d\n" % number


def flood() -> Iterator[Step]:
    for _ in range(MOST):
        yield b"\0" * 65536
        note("flood", "wrote")


STEPS = {f.__name__: f for f in (events, ten, text, flood)}


def play(steps: Iterable[Step], key: str, stream: Any) -> None:
    note(key, "started")
    began = time.monotonic()
    try:
        for step in steps:
            if isinstance(step, bytes):
                stream.write(step)
            elif stream.wait_finished(max(0.0, began + step - time.monotonic())):
                return
    finally:
        note(key, "stopped")


async def play_async(steps: Iterable[Step], key: str, stream: Any) -> None:
    note(key, "started")
    began = time.monotonic()
    try:
        for step in steps:
            if isinstance(step, bytes):
                await stream.write(step)
            else:
                await asyncio.sleep(max(0.0, began + step - time.monotonic()))
    finally:
        note(key, "stopped")


def has_to_wait(asked: dict[str, str]) -> Iterator[float]:
    """Seconds, again and again, that a request which is to be late waits before it makes its stream."""
    if "after" in asked:
        note(asked["key"], "waits")
        while not os.path.exists(asked["after"]):
            yield 0.02


def describe(name: str, asked: dict[str, str], *, is_async: bool) -> Any:
    key = asked["key"]

    async def playing(stream: Any) -> None:
        stream.on_finish(lambda ended: note(key, "finish", ended.outcome))
        if asked.get("way") == "twin":
            await asyncio.get_running_loop().run_in_executor(None, play, STEPS[name](), key, stream.sync)
        else:
            await play_async(STEPS[name](), key, stream)

    def playing_on_thread(stream: Any) -> None:
        stream.on_finish(lambda ended: note(key, "finish", ended.outcome))
        play(STEPS[name](), key, stream)

    return streamkit.stream(
        playing if is_async else playing_on_thread,
        content_type=EVENTS if name == "events" else TEXT,
        callback=lambda: note(key, "callback"),
        on_error=lambda stream, error: note(key, "error", type(error).__name__),
        options={"heartbeat": asked["heartbeat"]} if "heartbeat" in asked else None,
    )


def write(name: str, key: str, stream: Any) -> Iterable[bytes]:
    """The imperative way, on the server's own stack."""
    stream.on_finish(lambda ended: note(key, "finish", ended.outcome))
    stream.headers["Content-Type"] = EVENTS if name == "events" else TEXT
    play(STEPS[name](), key, stream)
    return []


def answer(name: str, asked: dict[str, str]) -> bytes:
    """What does not stream."""
    if name == "signals":
        return standing()
    if name == "pid":
        return b"%d" % os.getpid()
    if name == "threads":
        return b"%d" % len(os.listdir("/proc/self/task"))
    if name == "loop":
        asyncio.run(asyncio.sleep(0.05))  # others run meanwhile
        return b"ran\n"
    if name == "shutdown":
        return json.dumps(streamkit.shutdown(float(asked["grace"]))).encode()
    return b"plain\n"


def standing() -> bytes:
    """The module of each handler that stands."""
    found = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        found[number.name] = getattr(handler, "__module__", None) or type(handler).__module__
    return json.dumps(found).encode()


def _wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    name, asked = environ["PATH_INFO"].lstrip("/"), dict(parse_qsl(environ.get("QUERY_STRING", "")))
    if name in STEPS and asked.get("way") == "imperative":
        return write(name, asked["key"], environ["streamkit.stream"])
    if name in STEPS:
        for seconds in has_to_wait(asked):
            time.sleep(seconds)
        response = describe(name, asked, is_async=asked.get("way") in ("async", "twin"))
        return response(environ, start_response)  # type: ignore[no-any-return]
    body = answer(name, asked)
    start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            note("", "running" if moment == "startup" else "shut down")
            await send({"type": f"lifespan.{moment}.complete"})
        return
    name, asked = scope["path"].lstrip("/"), dict(parse_qsl(scope["query_string"].decode()))
    if name in STEPS:
        for seconds in has_to_wait(asked):
            await asyncio.sleep(seconds)
        await describe(name, asked, is_async=True)(scope, receive, send)
    else:
        body = answer(name, asked)
        head = [(b"content-type", TEXT.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


OPTIONS = json.loads(os.environ["STREAMKIT_OPTIONS"])
wsgi_app = streamkit.wrap(_wsgi, OPTIONS, kind="wsgi")
asgi_app = streamkit.wrap(_asgi, OPTIONS, kind="asgi")
note("", "imported")
