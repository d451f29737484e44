"""Crowds of clients that leave, and what is left of them.

Rails wedges here for good: a full queue, `close` and a disconnect wait for each other, and five
clients that ask for 12 chunks of 3 MB and reset take all five threads of a Puma with them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from .launch import Server, Stats, poll
from .wire import Ending

pytestmark = pytest.mark.server

BACK_BOUND = 40.0  # seconds until the levels are back; idle pooled workers leave after about two
PROMPT = 20.0  # seconds; a wedged server takes for ever
RESETS = 200
SHORT_STREAMS = int(os.environ.get("STREAMKIT_SHORT_STREAMS", "10000"))
SHORT_BODY = b"a" * 512 + b"b" * 512 + b"c" * 512


def warmed_up(server: Server, ways: list[str], key: str, threads: int) -> Stats:
    """The levels of a server that has started all its own threads, and rests."""
    # gunicorn starts its threads when they are needed; asyncio's own pool has six here.
    together = threads - 1 if server.kind.interface == "wsgi" else 12
    for way in ways:
        own = f"{key}-warm-{way}"
        connections = [server.connect() for _ in range(together)]
        for connection in connections:
            connection.ask("GET", f"/{way}/gated?key={own}")
        for connection in connections:
            connection.head()
            connection.read_until(b"first\n")
        server.release(own)  # under WSGI, on the last thread
        for connection in connections:
            connection.read_until(b"second\n")
            connection.close()
    return server.settled()


def assert_back(server: Server, before: Stats) -> None:
    def back() -> bool:
        return all(now <= then for now, then in zip(server.stats().levels, before.levels, strict=True))

    try:
        poll(back, bound=BACK_BOUND, what="the levels from before")
    except AssertionError:
        pytest.fail(f"threads, tasks, descriptors were {before.levels}, are {server.stats().levels}")


def assert_all_stopped(server: Server, key: str) -> Stats:
    def stopped() -> Stats | None:
        stats = server.stats(key)
        return stats if stats.count("started") == stats.count("stopped") else None

    return poll(stopped, bound=BACK_BOUND, what="the end of every producer")


def outcomes(server: Server, key: str) -> Counter[str]:
    counts = server.stats(key).counts
    return Counter({name: count for name, count in counts.items() if name.startswith("outcome ")})


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync-function", "async-function", "imperative"])
@pytest.mark.parametrize("name", ["gunicorn", "waitress", "uvicorn-h11"])
def test_200_resets_in_twelve_chunks_of_3_mb_wedge_nothing(
    started: Callable[..., Server], name: str, way: str, key: str
) -> None:
    server = started(name, threads=5)
    before = warmed_up(server, [way], key, threads=5)
    mark = server.mark()

    def ask_and_reset(number: int) -> None:
        with server.connect() as connection:
            connection.ask("GET", f"/{way}/twelve-times-3-mb?key={key}")
            assert connection.head().status == 200
            connection.read_until(b"x")
            connection.reset()

    with ThreadPoolExecutor(5) as clients:
        list(clients.map(ask_and_reset, range(RESETS)))

    asked = time.monotonic()
    for _ in range(10):
        assert server.fetch("/plain").body == b"plain\n"
        assert server.fetch(f"/{way}/short").body == SHORT_BODY
    assert time.monotonic() - asked < PROMPT
    assert assert_all_stopped(server, key).count("started") == RESETS
    assert_back(server, before)
    assert server.complaints(mark) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("gunicorn", "sync-function"),
        ("gunicorn", "async-function"),
        ("uvicorn-h11", "sync-function"),
        ("uvicorn-httptools", "async-function"),
    ],
)
def test_ten_thousand_short_streams_half_of_them_aborted_leave_nothing_behind(
    started: Callable[..., Server], name: str, way: str, key: str
) -> None:
    server = started(name)
    before = warmed_up(server, [way], key, threads=8)
    mark = server.mark()
    path = f"/{way}/short?key={key}"

    def ask(number: int) -> None:
        if number % 2:
            reply = server.fetch(path)
            assert (reply.body, reply.ending) == (SHORT_BODY, Ending.COMPLETE)
            return
        with server.connect() as connection:
            connection.ask("GET", path)
            if number % 4:
                connection.head()
                connection.read_until(b"a")
            connection.reset()

    number = SHORT_STREAMS // 4  # an engine's share
    with ThreadPoolExecutor(20) as clients:
        list(clients.map(ask, range(number)))

    started_in_all = assert_all_stopped(server, key).count("started")
    assert started_in_all >= number // 2
    # A producer stops before its stream is over, which is when the outcome is told.
    poll(lambda: outcomes(server, key).total() >= started_in_all, bound=BACK_BOUND, what="every outcome")
    told = outcomes(server, key)
    assert told.total() == started_in_all, told
    assert set(told) <= {"outcome finished", "outcome disconnected"}
    assert_back(server, before)
    assert server.complaints(mark) == ""
