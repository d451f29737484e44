"""What a client costs that does not read, and one that leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from .launch import KINDS, Server, Stats, poll
from .test_wire import WAYS
from .wire import Connection

pytestmark = pytest.mark.server

MIB = 1024 * 1024
BOUND = 10.0  # seconds until a leave is noticed; a busy machine takes longer than the promised moment
WSGI = [name for name, kind in KINDS.items() if kind.interface == "wsgi"]
ASGI = [name for name, kind in KINDS.items() if kind.interface == "asgi"]
LEAVES: dict[str, Callable[[Connection], None]] = {"reset": Connection.reset, "close": Connection.close}

leaves = pytest.mark.parametrize("leave", LEAVES)


def counts_when_stopped(server: Server, key: str, bound: float = BOUND) -> Stats:
    def stopped() -> Stats | None:
        stats = server.stats(key)
        return stats if stats.count("stopped") == stats.count("started") > 0 else None

    return poll(stopped, bound=bound, what="the producer's end after the client left")


def callbacks(server: Server, key: str) -> int:
    return server.stats(key).count("callback")


def bytes_once_growth_stopped(server: Server, key: str, most: int) -> int:
    """What the producer could write, once it has written nothing for 20 looks, or more than `most`."""
    history: list[int] = []

    def stands_still() -> bool:
        history.append(server.stats(key).count("bytes"))
        return history[-1] > most or (len(history) > 20 and history[-20] == history[-1] > 0)

    poll(stands_still, bound=60, what="an end of the growth")
    return history[-1]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "wrapped"])
def test_an_unread_flood_is_bounded_and_stops_when_the_client_leaves(
    server: Server, way: str, key: str
) -> None:
    before = server.stats()
    mark = server.mark()
    keys = {name: f"{key}-{name}" for name in LEAVES}
    with ExitStack() as stack:
        floods = {name: stack.enter_context(server.connect(receive_buffer=64 * 1024)) for name in LEAVES}
        for name, connection in floods.items():
            connection.ask("GET", f"/{way}/flood?key={keys[name]}")
        accepted = {name: bytes_once_growth_stopped(server, keys[name], most=40 * MIB) for name in LEAVES}
        assert max(accepted.values()) < 40 * MIB
        assert server.stats().resident - before.resident < 2 * 64 * MIB
        for name, connection in floods.items():
            LEAVES[name](connection)
        after = {name: counts_when_stopped(server, keys[name]) for name in LEAVES}
    for name in LEAVES:
        assert after[name].count("bytes") - accepted[name] < 40 * MIB, "it did not run on"
    if way != "imperative":
        for own in keys.values():
            poll(partial(callbacks, server, own), bound=BOUND, what="the callback")
    assert server.complaints(mark) == ""


@leaves
@pytest.mark.parametrize("way", ["sync-function", "async-function"])
def test_a_stream_whose_client_left_in_a_flood_is_disconnected(
    server: Server, way: str, leave: str, key: str
) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/flood?key={key}")
        connection.head()
        LEAVES[leave](connection)
        counts_when_stopped(server, key)
    poll(lambda: server.stats(key).count("outcome disconnected"), bound=BOUND, what="the outcome")


@leaves
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves_between_chunks_stops_the_producer(
    server: Server, way: str, leave: str, key: str
) -> None:
    mark = server.mark()
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/endless?key={key}")
        connection.head()
        connection.read_until(b"tick\n")
        LEAVES[leave](connection)
        counts_when_stopped(server, key)
    assert server.complaints(mark) == ""


# sync-iterable: nobody can call a thread back that stands inside `next()`.
@leaves
@pytest.mark.parametrize("version", ["1.1", "1.0"])  # of HTTP: a body with an end is held for 1.0
@pytest.mark.parametrize(
    "way", ["sync-function", "async-function", "async-iterable", "wrapped", "imperative", "foreign"]
)
@pytest.mark.parametrize("name", ASGI)
def test_asgi_notices_at_once_that_an_idle_client_left(
    started: Callable[..., Server], name: str, way: str, version: str, leave: str, key: str
) -> None:
    server = started(name)
    mark = server.mark()
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/idle?key={key}", version=version)
        if version == "1.1":
            connection.head()
            connection.read_until(b"first\n")
        else:
            poll(lambda: server.stats(key).count("bytes"), bound=BOUND, what="the first chunk")
        LEAVES[leave](connection)
        stopped = counts_when_stopped(server, key)
    assert stopped.count("bytes") == len(b"first\n"), "it was told, and did not find out by writing"
    assert server.complaints(mark) == ""


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves_before_the_head_is_nobodys_error(server: Server, way: str, key: str) -> None:
    mark = server.mark()
    for _ in range(5):
        with server.connect() as connection:
            connection.ask("GET", f"/{way}/endless?key={key}")
            connection.reset()

    def none_runs() -> bool:
        stats = server.stats(key)
        return stats.count("stopped") == stats.count("started")

    poll(none_runs, bound=BOUND, what="the end of what was started")
    assert server.complaints(mark) == ""
