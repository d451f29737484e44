"""What `test_event_source` has its browser listen to.

    /page?key=a                     a page that listens, and says what it has seen
    /events?script=steps&key=a      an event stream; `heartbeat=` in seconds, or "none"; `compress=gzip`
    /seen?key=a&what=1              the page has seen event 1: whoever waits for that goes on
    /notes?key=a                    what has happened under this key, as JSON, in its order

A function that takes the stream plays a script, on a thread under WSGI, as a task under ASGI. The
script `ledger` is an iterable, or an async one: the lines of a file that outlives the server.

Rule: only child processes import this file. What is no event stream is served outside streamkit.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import streamkit
from streamkit import ServerSentEvent

LEDGERS = Path(os.environ["STREAMKIT_LEDGERS"])
LONGEST = 60.0  # seconds that a producer waits; longer than any test looks
LOOK_EVERY = 0.02  # seconds between two looks at what is waited for
RETRY = 300  # milliseconds; browsers without a word take some 3000

notes: defaultdict[str, list[str]] = defaultdict(list)


class Seen(str):
    """A step: wait until the page says that it has seen this."""


class Done:
    """A step: end the stream for good."""


Step = ServerSentEvent | Seen | Done

FOR_LONG = Seen("what no page ever says")


def steps() -> Iterator[Step]:
    """Each event is made when the one before has been seen."""
    for number in range(1, 6):
        yield ServerSentEvent({"number": number}, id=number)
        yield Seen(number)
    yield FOR_LONG


def kinds() -> Iterator[Step]:
    """One of each kind that a browser tells apart; what it makes of them stands in the test."""
    yield ServerSentEvent("plain")
    yield ServerSentEvent("named", event="weather")
    yield ServerSentEvent("three\nlines\n of text", id="first")
    yield ServerSentEvent("carriage\rreturns\r\ntoo")
    yield ServerSentEvent("", event="weather", id=7)
    yield ServerSentEvent({"text": "Grüße, 世界 🌍", "none": None})
    yield ServerSentEvent(" a space before", id="")
    yield ServerSentEvent(id="unseen")
    yield ServerSentEvent("last", event="weather")
    yield FOR_LONG


def slow() -> Iterator[Step]:
    """Nothing, until the page has its `open`."""
    yield Seen("open")
    yield ServerSentEvent("at last")
    yield FOR_LONG


def silent() -> Iterator[Step]:
    yield ServerSentEvent("here")
    yield FOR_LONG


def done() -> Iterator[Step]:
    yield ServerSentEvent("the last one", id=1)
    yield Done()


SCRIPTS: dict[str, Callable[[], Iterator[Step]]] = {f.__name__: f for f in (steps, kinds, slow, silent, done)}


def moves(script: str, key: str) -> Iterator[float | ServerSentEvent | Done]:
    """The script's steps; waiting is a pause in seconds, again and again."""
    for step in SCRIPTS[script]():
        if not isinstance(step, Seen):
            notes[key].append(f"sends {step.id}" if isinstance(step, ServerSentEvent) else "is done")
            yield step
            continue
        end = time.monotonic() + LONGEST
        while f"seen {step}" not in notes[key] and time.monotonic() < end:
            yield LOOK_EVERY


def fields(event: ServerSentEvent) -> dict[str, Any]:
    return {name: value for name, value in event._asdict().items() if value is not None}


def player(script: str, key: str) -> Callable[[Any], None]:
    def play(stream: Any) -> None:
        stream.on_finish(lambda ended: notes[key].append(ended.outcome))
        for move in moves(script, key):
            if isinstance(move, float):
                if stream.wait_finished(move):
                    return
            elif isinstance(move, Done):
                stream.done()
            else:
                stream.send(**fields(move))

    return play


def async_player(script: str, key: str) -> Callable[[Any], Any]:
    async def play(stream: Any) -> None:
        stream.on_finish(lambda ended: notes[key].append(ended.outcome))
        for move in moves(script, key):
            if isinstance(move, float):
                if await stream.wait_finished(move):
                    return
            elif isinstance(move, Done):
                await stream.done()
            else:
                await stream.send(**fields(move))

    return play


class Lines:
    """A file that the test writes, with a line an event; the number of a line is the event's id."""

    def __init__(self, key: str) -> None:
        self._file = LEDGERS / key

    def length(self) -> int:
        return self._file.read_bytes().count(b"\n")

    def event(self, number: int) -> ServerSentEvent:
        return ServerSentEvent(f"line {number}", id=number)

    def since(self, last_event_id: str) -> Iterator[ServerSentEvent]:
        """What a client has missed, told from its id alone: this process may have just been born."""
        return map(self.event, range(int(last_event_id) + 1, self.length() + 1))


class Ledger(Lines):
    """The lines that are written from now on."""

    def __iter__(self) -> Iterator[ServerSentEvent]:
        # Not in the generator: where it begins must be known before the replay looks at the file.
        return self._from(self.length())

    def _from(self, number: int) -> Iterator[ServerSentEvent]:
        yield ServerSentEvent(number, event="joined")
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            while number < self.length():
                number += 1
                yield self.event(number)
            time.sleep(LOOK_EVERY)


class AsyncLedger(Lines):
    """The same for a loop."""

    def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        return self._from(self.length())

    async def _from(self, number: int) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(number, event="joined")
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            while number < self.length():
                number += 1
                yield self.event(number)
            await asyncio.sleep(LOOK_EVERY)


def described(query: str, last_event_id: str | None, *, is_async: bool) -> Any:
    asked = dict(parse_qsl(query))
    key, script, beat = asked["key"], asked["script"], asked.get("heartbeat", "1")
    notes[key].append(f"asked for, after {last_event_id}")
    options: dict[str, Any] = {"retry": RETRY, "heartbeat": None if beat == "none" else float(beat)}
    if "compress" in asked:
        options["compress"] = [asked["compress"]]
    if script == "ledger":
        ledger = AsyncLedger(key) if is_async else Ledger(key)
        return streamkit.event_stream(ledger, replay=ledger, **options)
    return streamkit.event_stream((async_player if is_async else player)(script, key), **options)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Listening</title><link rel="icon" href="data:,">
<script>
"use strict";
const key = new URLSearchParams(location.search).get("key"), heard = [];
const tell = what => fetch(`seen?key=${key}&what=${what}`, { cache: "no-store" });

function listen(query) {
  const source = new EventSource(`events?key=${key}&${query}`), log = [];
  const note = ({ type, data, lastEventId }) =>
    log.push({ type, data, lastEventId, at: performance.now(), state: source.readyState });
  source.onopen = event => { note(event); tell("open"); };
  source.onerror = note;
  for (const type of ["message", "weather", "joined", "stream-reset"]) {
    source.addEventListener(type, event => { note(event); tell(event.lastEventId); });
  }
  heard.push({ source, log });
}
</script>
</html>
"""


def answered(path: str, query: str) -> tuple[str, bytes]:
    """What does not stream: its media type and its body."""
    if path == "/page":
        return "text/html; charset=utf-8", PAGE.encode()
    asked = dict(parse_qsl(query))
    if path == "/seen":
        notes[asked["key"]].append(f"seen {asked.get('what')}")
    body = notes[asked["key"]] if path == "/notes" else []
    return "application/json", json.dumps(body).encode()


streams = streamkit.wrap(
    lambda environ, start_response: described(
        environ["QUERY_STRING"], environ.get("HTTP_LAST_EVENT_ID"), is_async=False
    )(environ, start_response),
    kind="wsgi",
)


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/events":
        return streams(environ, start_response)  # type: ignore[no-any-return]
    media_type, body = answered(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
        return
    last = dict(scope["headers"]).get(b"last-event-id")
    response = described(scope["query_string"].decode(), last and last.decode(), is_async=True)
    await response(scope, receive, send)


async_streams = streamkit.wrap(_asgi, kind="asgi")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan" or scope["path"] == "/events":
        await async_streams(scope, receive, send)
        return
    media_type, body = answered(scope["path"], scope["query_string"].decode())
    head = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
