"""The live chart: a value each quarter of a second, and a way to cut the stream that brings it.

    /live                   the page
    /live/events?key=a      the values, as server-sent events; `last=` says what this page has had
    /live/cut?key=a         (POST) cuts the connection of that stream, as a failing network would

Rule: a value is computed from its number, and its number is the time; nothing is kept. So what a
client has missed can be made again, also by a server that was started after the cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import streamkit
from streamkit import ServerSentEvent

PAUSE = 0.25  # seconds between two values
RETRY = 2000  # milliseconds; long enough to see the gap that the replay fills
REPLAYED = 480  # values, two minutes: more than the chart shows

_open: dict[str, streamkit.EventStream | streamkit.AsyncEventStream] = {}


def number_at(moment: float) -> int:
    """The number of the value that is the latest at this time."""
    return math.floor(moment / PAUSE)


def value_of(number: int) -> float:
    """Some waves and some noise, between 0 and 100."""
    waves = 26 * math.sin(number / 19) + 11 * math.sin(number / 5.3) + 5 * math.sin(number / 1.9)
    noise = number * 2654435761 % 2**32 / 2**32  # Knuth's multiplicative hash
    return round(50 + waves + 8 * (noise - 0.5), 1)


class Live:
    """What one client gets: first what it has missed, then each value at its time.

    The producer begins with the value that was the latest when the client came. Those of them that
    the replay has sent are not sent again; streamkit sees to that, by their ids.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._first = number_at(time.time())

    def since(self, last_event_id: str) -> Iterator[ServerSentEvent] | None:
        """The values after this one; None if it is none of ours, or too long ago."""
        latest = number_at(time.time())
        try:
            last = int(last_event_id)
        except ValueError:
            return None
        if not latest - REPLAYED <= last <= latest:
            return None
        return (ServerSentEvent(value_of(n), "replayed", n) for n in range(last + 1, latest + 1))

    def values(self, stream: streamkit.EventStream) -> None:
        """The producer, on a thread; `values_async` is its twin."""
        self._enter(stream)
        for number in count(self._first):
            if stream.wait_finished(max(0.0, number * PAUSE - time.time())):
                return
            stream.send(value_of(number), id=number)

    async def values_async(self, stream: streamkit.AsyncEventStream) -> None:
        """The producer, as a task; `values` is its twin."""
        self._enter(stream)
        for number in count(self._first):
            if await stream.wait_finished(max(0.0, number * PAUSE - time.time())):
                return
            await stream.send(value_of(number), id=number)

    def _enter(self, stream: streamkit.EventStream | streamkit.AsyncEventStream) -> None:
        if self._key:  # else nobody means to cut it
            _open[self._key] = stream
            stream.on_finish(self._leave)

    def _leave(self, stream: object) -> None:
        # A browser may be back before the end of its last stream is known.
        if _open.get(self._key) is stream:
            _open.pop(self._key, None)


def events(query: str, *, is_async: bool) -> streamkit.StreamingResponse:
    """The event stream that this query asks for."""
    live = Live(_key_in(query))
    producer: Any = live.values_async if is_async else live.values
    return streamkit.event_stream(producer, retry=RETRY, replay=live, last_event_id_param="last")


def cut(query: str) -> bool:
    """Cut the stream with the key that this query has; whether it was open."""
    stream = _open.get(_key_in(query))
    if stream is None or stream.closed:
        return False
    stream.abort("the page's button asked for it")
    return True


def _key_in(query: str) -> str:
    return parse_qs(query).get("key", [""])[0]
