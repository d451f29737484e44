"""One table: every server, every ending. See `docs/servers.md`, which is made of it.

Rule: a check asks one running server and raises where its column does not hold. The servers are
asked side by side, each by one thread, check after check; what came of it, the tests look at.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .every import KINDS, Faults, Kind, Record, Served, ask_all, started
from .launch import ROOT, poll
from .table import COLUMNS, LISTED, NOT_ASKED, RACES, page
from .wire import BadFraming, Ending, Framing

pytestmark = pytest.mark.server

PATIENCE = 20.0  # seconds without a byte, or until a leave is noticed; a busy machine takes its time
MIB = 1024 * 1024
MOST = 40 * MIB  # bytes that may lie between a producer and a client that does not read
AT_ONCE = 8  # servers asked side by side; most of the time each of them waits
TEXT = b"".join(b"%d\n" % number for number in range(10))
LEAVES = ("reset", "close")

CHECKS: dict[str, Callable[[Served], None]] = {}


def check(function: Callable[[Served], None]) -> Callable[[Served], None]:
    """A column of the table, under the function's name; they are made in the order of this file."""
    CHECKS[function.__name__] = function
    return function


def at_the_end(server: Served, key: str) -> Record:
    """The journal of a stream that has ended, told once of each thing."""

    def ended() -> Record | None:
        record = server.journal(key)
        return record if record.count("stopped") and record.count("finish") else None

    poll(ended, bound=PATIENCE, what=f"the end of {key}")
    record = poll(
        lambda: found if (found := server.journal(key)).count("callback") else None,
        bound=PATIENCE, what=f"the callback of {key}",
    )  # fmt: skip
    counts = [record.count(what) for what in ("started", "stopped", "finish", "callback")]
    assert counts == [1, 1, 1, 1], record.lines
    return record


# Errors.


@check
def error_before(server: Served) -> None:
    reply = server.fetch("/before?key=before")
    assert reply.status == 500
    assert reply.ending is not Ending.TRUNCATED
    assert at_the_end(server, "before").outcomes == ["failed"]


@check
def error_declared(server: Served) -> None:
    events = server.fetch("/after?key=declared-events&type=events")
    assert events.body.startswith(b"data: 0\n\ndata: 1\n\nevent: error\n")
    assert events.ending is not Ending.TRUNCATED, "an event stream ends in order"
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/after?key=declared-records&type=records")
        connection.head()
        records = [json.loads(line) for line in connection.read_until(b'"error"').splitlines()]
    assert records[:2] == [{"n": 0}, {"n": 1}]
    assert list(records[2]) == ["error"]


@check
def context(server: Served) -> None:
    for number in range(20):  # more often than any server here has threads
        seen = json.loads(server.fetch(f"/context?key=context-{number}").body)
        assert seen == {
            "app saw of the producers": "",
            "producer saw of the producers": "",
            "producer saw of its app": f"context-{number}",
        }


# Framing.


@check
def http_1_0(server: Served) -> None:
    reply = server.fetch("/ten?key=http10", "1.0")
    assert (reply.status, reply.framing, reply.ending) == (200, Framing.LENGTH, Ending.COMPLETE)
    assert reply.body == TEXT


@check
def http_1_0_closing(server: Served) -> None:
    reply = server.fetch("/ten?key=http10-closing", "1.0", {"Connection": "close"})
    assert (reply.status, reply.framing, reply.ending) == (200, Framing.CLOSE, Ending.CLOSE_DELIMITED)
    assert reply.body == TEXT


@check
def head(server: Served) -> None:
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("HEAD", "/endless?key=head")
        head = connection.head()
        assert head.status == 200
        if head.stays_open:
            connection.ask("GET", "/plain")
            try:
                assert connection.reply().body == b"plain\n"
            except BadFraming as fault:
                # uWSGI closes without saying so before; what matters is that no body came.
                if "ended inside the head: b''" not in str(fault):
                    raise
        else:  # waitress ends even the reply to a HEAD with a last chunk
            assert connection.rest_of_connection() in (b"", b"0\r\n\r\n")
    assert server.journal("head").count("started") == 0


# Leaves.


@check
def leave_active(server: Served) -> None:
    for how in LEAVES:
        with server.connect(patience=PATIENCE) as connection:
            connection.ask("GET", f"/endless?key=active-{how}")
            connection.head()
            connection.read_until(b"1\n")
            getattr(connection, how)()
            assert at_the_end(server, f"active-{how}").outcomes == ["disconnected"]


@check
def leave_idle(server: Served) -> None:
    # ASGI tells of it; under WSGI it is the heartbeat that fails.
    heartbeat = "none" if server.kind.interface == "asgi" else "0.5"
    _leave_idle(server, f"type=events&heartbeat={heartbeat}", "idle")


@check
def leave_idle_by_line(server: Served) -> None:
    _leave_idle(server, "type=text", "idle-text")
    if server.kind.http2:
        return  # every HTTP/2 client has closed its side of the stream
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=half&type=text")
        connection.head()
        connection.read_until(b"0\n")
        connection.socket.shutdown(socket.SHUT_WR)
        assert list(connection.chunks()) == []
        assert connection.ending is not Ending.COMPLETE, "who reads on must not take half for all"
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=half-held&type=text", "1.0")
        poll(lambda: server.journal("half-held").count("started"), bound=PATIENCE, what="the producer")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.rest_of_connection() == b"", "nor a held half, which would have its length"


def _leave_idle(server: Served, query: str, key: str) -> None:
    for how in LEAVES:
        with server.connect(patience=PATIENCE) as connection:
            connection.ask("GET", f"/idle?key={key}-{how}&{query}")
            connection.head()
            connection.read_until(b"0\n")
            getattr(connection, how)()
            assert at_the_end(server, f"{key}-{how}").outcomes == ["disconnected"]


@check
def heartbeat(server: Served) -> None:
    for kind, mark in (("events", b"data: 0\n\n:"), ("records", b'{"n": 0}\n\n\n')):
        with server.connect(patience=PATIENCE) as connection:
            connection.ask("GET", f"/idle?key=heartbeat-{kind}&type={kind}&heartbeat=0.3&max_duration=30")
            connection.head()
            connection.read_until(mark)


# Limits.


@check
def flood(server: Served) -> None:
    before = server.resident()
    with server.connect(patience=PATIENCE, receive_buffer=64 * 1024) as connection:
        connection.ask("GET", "/flood?key=flood")
        written = written_once_it_stands_still(server, "flood")
        assert written < MOST
        assert server.resident() - before < 2 * MOST
    record = at_the_end(server, "flood")
    assert record.outcomes == ["disconnected"]
    assert record.written - written < MOST, "it did not run on"


def written_once_it_stands_still(server: Served, key: str) -> int:
    """What a producer could write, once it has written nothing for two seconds, or far too much."""
    history: list[int] = []

    def stands_still() -> bool:
        history.append(server.journal(key).written)
        return history[-1] >= 2 * MOST or (len(history) > 40 and history[-40] == history[-1] > 0)

    poll(stands_still, bound=60, what="an end of the growth")
    return history[-1]


@check
def write_timeout(server: Served) -> None:
    with server.connect(patience=PATIENCE, receive_buffer=64 * 1024) as connection:
        connection.ask("GET", "/flood?key=stalled&write_timeout=1")
        record = at_the_end(server, "stalled")
        assert record.outcomes == ["timed_out"]
        assert record.written < MOST
        connection.head()
        for _ in connection.chunks():
            pass
        assert connection.ending is not Ending.COMPLETE


@check
def max_duration(server: Served) -> None:
    reply = server.fetch("/idle?key=limited&type=events&max_duration=1")
    assert reply.body.startswith(b"data: 0\n\n")
    assert at_the_end(server, "limited").outcomes == ["timed_out"]


# These come last: daphne answers no exception after its first one in mid-stream, and nothing
# follows SIGTERM.


@check
def error_after(server: Served) -> None:
    reply = server.fetch("/after?key=after")
    assert reply.status == 200
    assert reply.body == b"0\n1\n", "what was written before the error, and no error page, arrives"
    assert reply.ending is Ending.TRUNCATED
    assert at_the_end(server, "after").outcomes == ["failed"]


@check
def sigterm(server: Served) -> None:
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=sigterm&type=events&heartbeat=none")
        connection.head()
        connection.read_until(b"0\n")
        server.child.send_signal(signal.SIGTERM)
        # The grace is 1 s; those that wait for their streams take 10 s at least.
        poll(lambda: server.child.poll() is not None, bound=8, what="the server's end")


@check
def sigterm_told(server: Served) -> None:
    if not server.journal("sigterm").count("started"):
        sigterm(server)
    assert server.journal("sigterm").outcomes == ["shut_down"]


# The tests: each looks at one cell.

CELLS = [
    pytest.param(
        kind.name, column, id=f"{column}-{kind.name}", marks=[pytest.mark.system] if kind.program else []
    )
    for column in COLUMNS
    for kind in KINDS.values()
    if (kind.name, column) not in NOT_ASKED
]
def asked(kind: Kind, columns: set[str], directory: Path, program: str) -> Faults:
    """One server, asked for these columns."""
    with started(kind, directory, program) as server:
        return ask_all(server, {column: ask for column, ask in CHECKS.items() if column in columns})


@pytest.fixture(scope="session")
def all_asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, system_program: Any
) -> Iterator[dict[str, Future[Faults]]]:
    """Every server that a test of this session wants, being asked for what is wanted."""
    wanted: dict[str, set[str]] = {}
    for item in request.session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if {"name", "column"} <= parameters.keys() and parameters["name"] in KINDS:
            wanted.setdefault(parameters["name"], set()).add(parameters["column"])
    directory = tmp_path_factory.mktemp("every")
    with ThreadPoolExecutor(AT_ONCE) as clients:
        running: dict[str, Future[Faults]] = {}
        for name, columns in wanted.items():
            try:
                program = system_program(KINDS[name].program) if KINDS[name].program else ""
            except (pytest.skip.Exception, pytest.fail.Exception):
                continue  # its own tests say so
            running[name] = clients.submit(asked, KINDS[name], columns, directory, program)
        yield running


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_a_cell_holds_or_is_listed_with_its_cause(
    all_asked: dict[str, Future[Faults]], system_program: Callable[..., str], name: str, column: str
) -> None:
    if KINDS[name].program:
        system_program(KINDS[name].program)
    fault = all_asked[name].result()[column]
    cause = LISTED.get((name, column))
    if cause is None and fault is not None:
        raise fault
    is_listed_rightly = cause is None or fault is not None or (name, column) in RACES
    assert is_listed_rightly, f"it holds; take it off the list: {cause}"


def test_every_column_has_a_check_and_a_heading() -> None:
    assert set(COLUMNS) == set(CHECKS)


def test_only_cells_of_the_table_are_listed() -> None:
    cells = {(name, column) for name in KINDS for column in COLUMNS}
    assert set(LISTED) | NOT_ASKED <= cells
    assert not set(LISTED) & NOT_ASKED


def test_the_page_of_the_servers_is_the_table() -> None:
    made = "run `python -m tests.servers.table > docs/servers.md`"
    assert (ROOT / "docs" / "servers.md").read_text() == page(), made
