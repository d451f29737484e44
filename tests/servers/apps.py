"""What the servers serve: every way to stream, times every script that a test plays.

    /sync-function/finite?key=a     the script `finite`, written by a function that takes the stream
    /wrapped/idle?key=b             the script `idle`, as a description served inside `streamkit.wrap`
    /release?key=b                  lets what waits under this key go on
    /stats?key=b                    threads, tasks, descriptors, memory, and the counts under this key
    /plain, /file                   responses that are no streams, through `streamkit.wrap`

Rule: what is played stands in `SCRIPTS`, how it is played in `WAYS`; neither knows the other. Only
child processes import this file. Stats and release are served outside streamkit, so that they
answer whatever streamkit does.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import flask
from starlette.requests import Request
from starlette.responses import StreamingResponse as StarletteStream

import streamkit

# Every logger reaches the server's log, with the level that `Server.complaints` looks for.
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
EVENTS, RECORDS = "text/event-stream", "application/x-ndjson"
LONGEST_WAIT = 60.0  # seconds that a script waits for its release; longer than any test looks
BIG, MEGABYTE = b"\0" * (64 * 1024), b"x" * (1024 * 1024)


class Boom(Exception):
    """What a script raises."""


class Release:
    """A step that waits until /release is asked for with the key of the play."""


Step = bytes | float | Release  # write these bytes; pause for so many seconds; wait


@dataclass(frozen=True)
class Script:
    """What a producer does, and how its response is described."""

    steps: Callable[[], Iterable[Step]]
    content_type: str = TEXT
    status: int = 200
    options: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)  # further arguments of `streamkit.stream`


def _raising(*before: bytes) -> Callable[[], Iterator[Step]]:
    def steps() -> Iterator[Step]:
        yield from before
        raise Boom("the script says so")

    return steps


def _for_ever(*steps: Step) -> Callable[[], Iterator[Step]]:
    def again() -> Iterator[Step]:
        while True:
            yield from steps

    return again


MUCH = b"second\n" * 1024
FINITE: list[Step] = [b"%d " % n for n in range(1000)]
GATED: list[Step] = [b"first\n", Release(), b"second\n"]
SHORT: list[Step] = [b"a" * 512, 0.002, b"b" * 512, 0.002, b"c" * 512]

SCRIPTS: dict[str, Script] = {
    "finite": Script(lambda: FINITE),
    "finite-1.0-buffer": Script(lambda: FINITE, options={"http10": "buffer"}),
    "finite-1.0-reject": Script(lambda: FINITE, options={"http10": "reject"}),
    "finite-1.0-limit": Script(lambda: FINITE, options={"http10_limit": 1024}),
    "short": Script(lambda: SHORT),
    "gated": Script(lambda: GATED),
    "gated-html": Script(lambda: [b"<p>first\n", Release(), b"<p>second\n"], HTML),
    "gated-events": Script(lambda: [b"data: first\n\n", Release(), b"data: second\n\n"], EVENTS),
    "gated-loop": Script(lambda: GATED, more={"loop": True}),
    "idle": Script(lambda: [b"first\n", Release(), MUCH], options={"heartbeat": 0.5}),
    "idle-events": Script(lambda: [b": first\n\n", Release(), MUCH], EVENTS, options={"heartbeat": 0.5}),
    "endless": Script(_for_ever(b"tick\n", 0.02)),
    "flood": Script(_for_ever(BIG)),
    "twelve-times-3-mb": Script(lambda: [MEGABYTE * 3] * 12),
    "early-error": Script(_raising()),
    "late-error": Script(_raising(b"first\n", b"second\n")),
    "late-error-html": Script(_raising(b"<html><body><p>first", b"<p>second"), HTML),
    "late-error-events": Script(_raising(b"data: first\n\n", b"data: second\n\n"), EVENTS),
    "late-error-records": Script(_raising(b'{"n": 1}\n', b'{"n": 2}\n'), RECORDS),
    "status-204": Script(list, status=204),
    "status-304": Script(list, status=304),
    "status-204-with-body": Script(lambda: [b"must not\n", b"arrive\n"], status=204),
    "status-304-with-body": Script(lambda: [b"must not\n", b"arrive\n"], status=304),
}

counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
released: defaultdict[str, threading.Event] = defaultdict(threading.Event)
book = threading.Lock()


@dataclass(frozen=True)
class Play:
    """One performance of a script, counted under its key."""

    script: Script
    key: str

    def count(self, name: str, by: int = 1) -> None:
        with book:
            counts[self.key][name] += by

    @contextmanager
    def on_stage(self) -> Iterator[None]:
        self.count("started")
        try:
            yield
        finally:
            self.count("stopped")

    def finished(self, stream: Any) -> None:
        self.count(f"outcome {stream.outcome}")

    def waits(self, step: Step) -> Iterator[float]:
        """How long to sleep, again and again, until this step is over."""
        if isinstance(step, float):
            yield step
            return
        end = time.monotonic() + LONGEST_WAIT
        while not released[self.key].is_set():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.key} was never released")
            yield 0.01

    def rest(self, step: Step, stream: Any = None) -> None:
        for seconds in self.waits(step):
            if stream is not None and not stream.connected:
                return
            time.sleep(seconds)

    async def rest_async(self, step: Step) -> None:
        for seconds in self.waits(step):
            await asyncio.sleep(seconds)


# The ways to make chunks: each plays any script.


def write_all(play: Play, stream: Any) -> None:
    stream.on_finish(play.finished)
    with play.on_stage():
        for step in play.script.steps():
            if isinstance(step, bytes):
                stream.write(step)
                play.count("bytes", len(step))
            else:
                play.rest(step, stream)


async def write_all_async(play: Play, stream: Any) -> None:
    stream.on_finish(play.finished)
    with play.on_stage():
        for step in play.script.steps():
            if isinstance(step, bytes):
                await stream.write(step)
                play.count("bytes", len(step))
            else:
                await play.rest_async(step)


def each(play: Play) -> Iterator[bytes]:
    with play.on_stage():
        for step in play.script.steps():
            if isinstance(step, bytes):
                yield step
                play.count("bytes", len(step))
            else:
                play.rest(step)


async def each_async(play: Play) -> AsyncIterator[bytes]:
    with play.on_stage():
        for step in play.script.steps():
            if isinstance(step, bytes):
                yield step
                play.count("bytes", len(step))
            else:
                await play.rest_async(step)


def sync_function(play: Play) -> Callable[[Any], None]:
    return lambda stream: write_all(play, stream)


def async_function(play: Play) -> Callable[[Any], Any]:
    async def producer(stream: Any) -> None:
        await write_all_async(play, stream)

    return producer


PRODUCERS: dict[str, Callable[[Play], Any]] = {
    "sync-function": sync_function,
    "async-function": async_function,
    "sync-iterable": each,
    "async-iterable": each_async,
    "wrapped": sync_function,
}


def describe(way: str, play: Play) -> Any:
    script = play.script
    return streamkit.stream(
        PRODUCERS[way](play),
        status=script.status,
        content_type=script.content_type,
        callback=lambda: play.count("callback"),
        options=script.options,
        **script.more,
    )


def play_of(path: str, query: str) -> tuple[str, Play]:
    """`/way/script?key=k`, taken apart."""
    _, way, script = path.split("/")
    return way, Play(SCRIPTS[script], key_of(query))


def key_of(query: str) -> str:
    return parse_qs(query).get("key", [""])[0]


def stats(query: str, tasks: int) -> bytes:
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with book:
        own = dict(counts[key_of(query)])
    numbers = {
        "threads": len(os.listdir("/proc/self/task")),
        "tasks": tasks,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "resident": resident,
        "counts": own,
    }
    return json.dumps(numbers).encode()


def inspected(path: str, query: str, tasks: int) -> bytes | None:
    """The body of a route that streamkit has no part in."""
    if path == "/stats":
        return stats(query, tasks)
    if path == "/release":
        released[key_of(query)].set()
        return b"released\n"
    return None


# WSGI.

flask_app = flask.Flask(__name__)


@flask_app.get("/foreign/<script>")
def flask_stream(script: str) -> flask.Response:
    play = Play(SCRIPTS[script], flask.request.args.get("key", ""))
    response = flask.Response(each(play), play.script.status, content_type=play.script.content_type)
    response.call_on_close(lambda: play.count("callback"))
    return response


def _inner_wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    if path == "/plain":
        start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", "6"), ("ETag", '"p"')])
        return [b"plain\n"]
    if path == "/file":
        start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", str(len(MEGABYTE)))])
        wrapper: Any = environ.get("wsgi.file_wrapper", lambda file: iter(lambda: file.read(65536), b""))
        return wrapper(io.BytesIO(MEGABYTE))  # type: ignore[no-any-return]
    if path.startswith("/foreign/"):
        return flask_app(environ, start_response)
    way, play = play_of(path, query)
    if way == "imperative":
        stream = environ["streamkit.stream"]
        stream.status, stream.headers["Content-Type"] = play.script.status, play.script.content_type
        write_all(play, stream)
        stream.close()  # commits what nothing was written to
        return []
    return describe(way, play)(environ, start_response)  # type: ignore[no-any-return]


_wrapped_wsgi_app = streamkit.wrap(_inner_wsgi_app, kind="wsgi")


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    body = inspected(path, query, 0)
    if body is not None:
        start_response("200 OK", [("Content-Type", TEXT), ("Content-Length", str(len(body)))])
        return [body]
    way = path.split("/")[1]
    if way in PRODUCERS and way != "wrapped":
        return describe(*play_of(path, query))(environ, start_response)  # type: ignore[no-any-return]
    return _wrapped_wsgi_app(environ, start_response)


# ASGI.


async def starlette_stream(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    _, play = play_of(scope["path"], scope["query_string"].decode())
    body = each(play) if "sync" in request.query_params else each_async(play)
    headers = {"Content-Type": play.script.content_type}
    try:
        await StarletteStream(body, play.script.status, headers)(scope, receive, send)
    finally:
        play.count("callback")


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """One whole body, in pieces of 64 KiB."""
    head = [(b"content-type", TEXT.encode()), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for start in range(0, len(body), 65536):
        more = start + 65536 < len(body)
        await send({"type": "http.response.body", "body": body[start : start + 65536], "more_body": more})


async def lifespan(receive: Any, send: Any) -> None:
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


async def _inner_asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/plain":
        return await answer(send, b"plain\n", (b"etag", b'"p"'))
    if path == "/file":
        return await answer(send, MEGABYTE)
    if path.startswith("/foreign/"):
        return await starlette_stream(scope, receive, send)
    way, play = play_of(path, query)
    if way == "imperative":
        stream = scope["streamkit.stream"]
        stream.status, stream.headers["Content-Type"] = play.script.status, play.script.content_type
        await write_all_async(play, stream)
        return await stream.close()  # type: ignore[no-any-return]
    await describe(way, play)(scope, receive, send)


_wrapped_asgi_app = streamkit.wrap(_inner_asgi_app, kind="asgi")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "")
    query = scope.get("query_string", b"").decode()
    body = inspected(path, query, len(asyncio.all_tasks()))
    if body is not None:
        return await answer(send, body)
    way = path.split("/")[1] if path else ""
    if way in PRODUCERS and way != "wrapped":
        return await describe(*play_of(path, query))(scope, receive, send)  # type: ignore[no-any-return]
    await _wrapped_asgi_app(scope, receive, send)
