"""What the demo sends, byte for byte, on both of its servers.

Rule: the demo is asked as any client would, over a socket; nothing of it is imported here.
"""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from servers.launch import STOP_BOUND, poll, running
from servers.wire import Chunk, Connection, Ending, Head, Reply, fetch

pytestmark = pytest.mark.server

STREAMS = ["/ticks", "/rows.csv", "/fails", "/fails.ndjson", "/live/events"]
PAGES = ["/", "/live"]
VARYING = {"date", "connection", "keep-alive", "transfer-encoding"}  # fields that are the server's own


@dataclass(frozen=True)
class Demo:
    kind: str
    port: int
    log: Path

    def fetch(self, path: str, **options: Any) -> Reply:
        return fetch(self.port, path, **options)

    def tracebacks(self) -> int:
        return self.log.read_text().count("Traceback (most recent call last)")


@pytest.fixture(scope="module", params=["ASGI", "WSGI"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    more = ["--wsgi"] if request.param == "WSGI" else []
    log = tmp_path_factory.mktemp("demo") / "log"

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "streamkit", "demo", f"--port={port}", *more]

    with running(command, log) as (port, _):
        yield Demo(request.param, port, log)


def opened(connection: Connection, path: str) -> tuple[Head, list[Chunk]]:
    connection.ask("GET", path)
    head = connection.head()
    return head, list(connection.chunks())


def events(connection: Connection) -> Iterator[dict[str, str]]:
    """The server-sent events of an open stream, as their fields."""
    rest = b""
    for chunk in connection.chunks():
        *blocks, rest = (rest + chunk.payload).split(b"\n\n")
        for block in blocks:
            yield dict(line.split(": ", 1) for line in block.decode().splitlines() if line[0] != ":")


def live_events(demo: Demo, number: int, query: str = "", last: str | None = None) -> list[dict[str, str]]:
    """The first events of the live chart, as a client gets them that has had this one."""
    with Connection(demo.port) as connection:
        connection.ask("GET", f"/live/events?{query}", fields={} if last is None else {"Last-Event-ID": last})
        assert connection.head().get("Content-Type") == "text/event-stream"
        return list(islice(events(connection), number))


def ids(found: list[dict[str, str]]) -> list[int]:
    return [int(event["id"]) for event in found]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_and_says_which_interface_serves_it(demo: Demo, path: str) -> None:
    reply = demo.fetch(path)
    assert (reply.status, reply.ending) == (200, Ending.COMPLETE)
    assert reply.head.get("Content-Type") == "text/html; charset=utf-8"
    assert reply.head.get("Content-Length") == str(len(reply.body))
    assert f'<small id="kind">{demo.kind}</small>'.encode() in reply.body
    assert b"{{" not in reply.body


@pytest.mark.parametrize("path", PAGES)
def test_a_page_asks_for_nothing_from_elsewhere(demo: Demo, path: str) -> None:
    assert b"://" not in demo.fetch(path).body


def test_a_tick_arrives_before_the_next_is_made(demo: Demo) -> None:
    with Connection(demo.port) as connection:
        connection.ask("GET", "/ticks")
        head, chunks = connection.head(), connection.chunks()
        ticks = [next(chunks) for _ in range(4)]
    assert [tick.payload.split(b",")[0] for tick in ticks] == [b"tick 1", b"tick 2", b"tick 3", b"tick 4"]
    # One is made each 0.5 s; held back, all would arrive together.
    assert ticks[-1].arrived - ticks[0].arrived > 0.3 * 3
    assert head.get("Content-Type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_says_that_nobody_may_hold_it_back(demo: Demo, path: str) -> None:
    with Connection(demo.port) as connection:
        connection.ask("GET", path)
        head = connection.head()
    assert head.status == 200
    assert head.get("X-Accel-Buffering") == "no"
    assert head.get("Cache-Control") == "no-store, no-transform"
    assert head.get("Transfer-Encoding") == "chunked"
    assert head.get("Content-Length") is None


def test_the_csv_has_all_its_rows_and_said_so_in_its_head(demo: Demo) -> None:
    with Connection(demo.port) as connection:
        head, chunks = opened(connection, "/rows.csv")
    assert connection.ending is Ending.COMPLETE
    body = b"".join([chunk.payload for chunk in chunks]).decode()
    names, *rows = csv.reader(io.StringIO(body, newline=""))
    assert names[0] == "id"
    assert [int(row[0]) for row in rows] == list(range(1, 100_001))
    assert head.get("X-Total-Rows") == "100000"
    assert head.get("Content-Type") == "text/csv; charset=utf-8"
    assert head.get("Content-Disposition") == "attachment; filename=rows.csv"


def test_the_csv_is_sent_while_it_is_read(demo: Demo) -> None:
    with Connection(demo.port) as connection:
        _, chunks = opened(connection, "/rows.csv")
    assert len(chunks) > 10
    assert len(chunks[0].payload) < 100_000


def test_an_http_1_0_client_is_told_how_long_the_csv_is(demo: Demo) -> None:
    reply = demo.fetch("/rows.csv", version="1.0")
    assert reply.head.get("Transfer-Encoding") is None
    assert reply.head.get("Content-Length") == str(len(reply.body))
    assert reply.ending is Ending.COMPLETE


def test_five_downloads_at_once_are_all_whole(demo: Demo) -> None:
    connections = [Connection(demo.port) for _ in range(5)]
    for connection in connections:
        connection.ask("GET", "/rows.csv")
    bodies = [connection.reply().body for connection in connections]
    for connection in connections:
        connection.close()
    assert bodies[0].count(b"\n") == 100_001
    assert bodies == bodies[:1] * 5


def test_the_failing_page_arrives_in_pieces_and_is_cut_after_the_way_to_the_error_page(demo: Demo) -> None:
    with Connection(demo.port) as connection:
        head, chunks = opened(connection, "/fails")
    body = b"".join([chunk.payload for chunk in chunks])
    assert (head.status, connection.ending) == (200, Ending.TRUNCATED)
    assert chunks[-1].arrived - chunks[0].arrived > 1.0
    assert body.startswith(b"<!doctype html>")
    half, completion = body.split(b'title="not yet')
    assert b"March" in half
    assert b"/500.html" in completion
    assert b"on purpose" not in body


def test_the_failing_records_end_with_an_error_record_and_the_cut(demo: Demo) -> None:
    reply = demo.fetch("/fails.ndjson")
    assert (reply.status, reply.ending) == (200, Ending.TRUNCATED)
    records = [json.loads(line) for line in reply.body.splitlines()]
    assert records[:-1] == [{"record": 1}, {"record": 2}, {"record": 3}]
    assert list(records[-1]) == ["error"]
    assert b"on purpose" not in reply.body


def test_a_failure_is_logged_with_one_traceback(demo: Demo) -> None:
    before = demo.tracebacks()
    demo.fetch("/fails.ndjson")
    # The next answer comes from the same process, after the failure was logged.
    demo.fetch("/500.html")
    assert demo.tracebacks() == before + 1


def test_the_error_page_is_whole(demo: Demo) -> None:
    reply = demo.fetch("/500.html")
    assert (reply.status, reply.ending) == (200, Ending.COMPLETE)
    assert b"Something went wrong" in reply.body


@pytest.mark.parametrize("path", [*PAGES, "/500.html", *STREAMS])
def test_head_gives_the_head_of_get_without_running_a_producer(demo: Demo, path: str) -> None:
    before = demo.tracebacks()
    with Connection(demo.port) as connection:
        connection.ask("GET", path)
        wanted = {field for field in connection.head().fields if field[0].lower() not in VARYING}
    with Connection(demo.port) as connection:
        connection.ask("HEAD", path, fields={"Connection": "close"})
        head = connection.head()
        rest = connection.rest_of_connection()
    # waitress ends its chunked framing after HEAD, too, and closes; nothing of a body comes before.
    assert rest == b"" or (demo.kind == "WSGI" and rest == b"0\r\n\r\n")
    assert {field for field in head.fields if field[0].lower() not in VARYING} == wanted
    assert demo.tracebacks() == before


def test_clients_that_leave_are_not_logged_as_errors(demo: Demo) -> None:
    before = demo.log.read_text()
    for path in ("/ticks", "/rows.csv", "/live/events"):
        for leave in (Connection.close, Connection.reset):
            connection = Connection(demo.port)
            connection.ask("GET", path)
            assert next(connection.chunks() if connection.head() else iter(())).payload
            leave(connection)
    # Three ticks last longer than a producer needs to notice, at its next one.
    with Connection(demo.port) as connection:
        connection.ask("GET", "/ticks")
        connection.head()
        chunks = connection.chunks()
        assert len([next(chunks) for _ in range(4)]) == 4
    assert demo.log.read_text() == before


def test_a_value_arrives_before_the_next_is_made(demo: Demo) -> None:
    with Connection(demo.port) as connection:
        asked = time.time()
        connection.ask("GET", "/live/events")
        connection.head()
        found = events(connection)
        numbers, arrived = [int(next(found)["id"])], time.time()
        numbers += [int(next(found)["id"]) for _ in range(3)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    # The number is the time, in quarters of a second: none was made before, none kept for the next.
    assert asked - 0.25 <= numbers[0] * 0.25 <= arrived
    assert time.time() >= numbers[-1] * 0.25


@pytest.mark.parametrize("way", ["header", "query"])
def test_who_comes_back_gets_the_values_that_it_missed_and_none_twice(demo: Demo, way: str) -> None:
    had = live_events(demo, 4)
    first = had[0]["id"]
    in_query, in_header = (f"last={first}", None) if way == "query" else ("", first)
    now = live_events(demo, 6, in_query, in_header)
    assert ids(now) == list(range(int(first) + 1, int(first) + 7))
    assert [event["data"] for event in now[:3]] == [event["data"] for event in had[1:]]
    names = [event.get("event") for event in now]
    assert names[:3] == ["replayed"] * 3
    assert names == sorted(names, key=lambda name: name is None), "a live value came before a replayed one"


@pytest.mark.parametrize("last", ["1", "99999999999999", "-1", "nonsense", "9" * 5000])
def test_an_id_from_which_nothing_can_be_replayed_gets_a_reset_and_then_live_values(
    demo: Demo, last: str
) -> None:
    reset, *live = live_events(demo, 3, last=last)
    assert reset["event"] == "stream-reset"
    assert "id" not in reset
    assert ids(live) == [ids(live)[0], ids(live)[0] + 1]
    assert not any("event" in event for event in live)


def test_the_button_cuts_the_stream_of_its_own_page_only(demo: Demo) -> None:
    before = demo.tracebacks()
    with Connection(demo.port) as cut, Connection(demo.port) as other:
        for connection, key in ((cut, "mine"), (other, "yours")):
            connection.ask("GET", f"/live/events?key={key}")
            connection.head()
        found, others = events(cut), events(other)
        assert ids([next(found)])
        assert ids([next(others)])
        assert demo.fetch("/live/cut?key=mine", method="POST").status == 200
        assert "error" not in [event.get("event") for event in found]
        assert cut.ending is Ending.TRUNCATED
        assert len([next(others) for _ in range(3)]) == 3
        assert demo.fetch("/live/cut?key=mine", method="POST").status == 404
    assert demo.tracebacks() == before + 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("more", [[], ["--wsgi"]], ids=["ASGI", "WSGI"])
def test_a_live_stream_gets_its_farewell_when_the_demo_ends(
    more: list[str], ending: signal.Signals, tmp_path: Path
) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "streamkit", "demo", f"--port={port}", *more]

    with running(command, tmp_path / "log") as (port, child):
        with Connection(port) as connection:
            connection.ask("GET", "/live/events")
            connection.head()
            found = events(connection)
            next(found)
            child.send_signal(ending)
            last = list(found)[-1]
            assert list(last) == ["retry"]
            assert connection.ending is Ending.COMPLETE
        assert child.wait(STOP_BOUND) == 0


@pytest.mark.parametrize("more", [[], ["--wsgi"]], ids=["ASGI", "WSGI"])
def test_ctrl_c_ends_the_ticks_at_once_and_says_so_in_them(more: list[str], tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "streamkit", "demo", f"--port={port}", *more]

    log = tmp_path / "log"
    with running(command, log) as (port, child):
        with Connection(port) as connection:
            connection.ask("GET", "/ticks")
            connection.head()
            chunks = connection.chunks()
            next(chunks)
            child.send_signal(signal.SIGINT)
            last = b"".join([chunk.payload for chunk in chunks]).splitlines()
            # One is made each half second: nobody waits for those that are left of a minute.
            assert len(last) < 5
            assert last[-1] == b"the demo was ended"
            assert connection.ending is Ending.COMPLETE
        assert child.wait(STOP_BOUND) == 0
    assert "Traceback" not in log.read_text()


def test_ctrl_c_says_what_it_waits_for_and_a_second_one_ends_the_wait(tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "streamkit", "demo", f"--port={port}"]

    log = tmp_path / "log"
    with running(command, log) as (port, child):
        with Connection(port) as connection:
            connection.ask("GET", "/rows.csv")
            connection.head()  # and not read any further: it stays open
            child.send_signal(signal.SIGINT)
            said = "streamkit demo: ending 1 open stream, within 3 s. Ctrl+C again ends it at once.\n"
            poll(lambda: said in log.read_text(), bound=STOP_BOUND, what="a word on the open stream")
            child.send_signal(signal.SIGINT)
            assert child.wait(STOP_BOUND) == 0
            # Of streams that are ended after their grace, nothing is cancelled.
            assert "CancelledError" in log.read_text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/ticks", 405),
        ("POST", "/live/events", 405),
        ("GET", "/live/cut", 404),
        ("POST", "/live/cut", 404),
    ],
)
def test_other_requests_are_refused(demo: Demo, method: str, path: str, status: int) -> None:
    reply = demo.fetch(path, method=method)
    assert (reply.status, reply.ending) == (status, Ending.COMPLETE)
