"""A million rows from Flask-SQLAlchemy as CSV: memory stays flat, and each connection comes back.

Rule: the server is gunicorn with threads, and says itself how much memory and which connections it has.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.launch import poll, running
from servers.wire import Connection, Ending, fetch

import streamkit

pytestmark = [pytest.mark.server, pytest.mark.slow]

flask = pytest.importorskip("flask")
flask_sqlalchemy = pytest.importorskip("flask_sqlalchemy")
from sqlalchemy import select, text  # noqa: E402

from streamkit.frameworks.flask import StreamKit, live  # noqa: E402

ROWS = 1_000_000
ROOM = 60 * 1024 * 1024  # bytes over the idle process
ABORTED = 50
BOUND = 30.0  # seconds until a wait is given up
DATABASE = "STREAMKIT_TEST_DATABASE"
WAYS = ["/rows.csv", "/live.csv"]  # on the server's own thread, and on one of the producer's


def served_app() -> Any:
    """What gunicorn serves."""
    app = flask.Flask("exports")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{os.environ[DATABASE]}"
    StreamKit(app)
    db = flask_sqlalchemy.SQLAlchemy(app)

    class Order(db.Model):  # type: ignore[misc,name-defined]
        id = db.Column(db.Integer, primary_key=True)
        customer = db.Column(db.String)
        total = db.Column(db.Integer)

    def orders() -> Any:
        query = select(Order.id, Order.customer, Order.total).order_by(Order.id)
        return db.session.execute(query.execution_options(yield_per=1000))

    @app.get("/rows.csv")  # type: ignore[untyped-decorator]
    def rows() -> Any:
        return streamkit.csv_rows(orders(), "orders.csv", header=["id", "customer", "total"])

    @app.get("/live.csv")  # type: ignore[untyped-decorator]
    @live
    def rows_live(stream: Any) -> None:
        stream.headers["Content-Type"] = "text/csv"
        writer = csv.writer(stream)
        writer.writerow(["id", "customer", "total"])
        for page in orders().partitions(1000):
            writer.writerows(page)

    @app.get("/fails.csv")  # type: ignore[untyped-decorator]
    def fails() -> Any:
        def rows() -> Iterator[Any]:
            yield from db.session.execute(text("select id from 'order' limit 10"))
            db.session.execute(text("select * from nothing"))

        return streamkit.csv_rows(rows(), "orders.csv")

    @app.get("/stats")  # type: ignore[untyped-decorator]
    def stats() -> Any:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        sizes = {name: int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
        return {"checked_out": db.engine.pool.checkedout(), **sizes}

    return app


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("exports")
    database = directory / "orders.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute('create table "order" (id integer primary key, customer text, total integer)')
        connection.execute(
            'insert into "order" with recursive n(i) as (select 1 union all select i + 1 from n limit ?) '
            "select i, 'customer ' || i, i * 3 from n",
            (ROWS,),
        )
    connection.close()

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--threads=4", "--timeout=120"),
            *(f"--bind=127.0.0.1:{port}", "--graceful-timeout=2", "--no-control-socket"),
            *("--worker-tmp-dir=/tmp", "--pythonpath=tests", f"--env={DATABASE}={database}"),
            "frameworks.test_flask_sqlalchemy:served_app()",
        ]

    with running(command, directory / "log") as (port, _):
        yield port


def stats(port: int) -> dict[str, int]:
    found: dict[str, int] = json.loads(fetch(port, "/stats").body)
    return found


def all_are_back(port: int) -> None:
    poll(lambda: stats(port)["checked_out"] == 0, bound=BOUND, what="the return of each connection")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("path", WAYS)
def test_a_million_rows_take_no_more_memory_than_a_few_and_give_their_connection_back(
    port: int, path: str
) -> None:
    idle = stats(port)
    assert idle["checked_out"] == 0
    size = lines = 0
    last = b""
    with Connection(port) as connection:
        connection.ask("GET", path)
        assert (connection.head().status, stats(port)["checked_out"]) == (200, 1)
        for chunk in connection.chunks():
            size += len(chunk.payload)
            lines += chunk.payload.count(b"\n")
            last = chunk.payload
        assert connection.ending is Ending.COMPLETE
    assert lines == ROWS + 1
    assert last.endswith(b"1000000,customer 1000000,3000000\r\n")
    assert size > 25_000_000
    after = stats(port)  # at once: whoever has had the end finds the request torn down
    assert after["checked_out"] == 0
    assert after["VmHWM"] - idle["VmRSS"] < ROOM


@pytest.mark.parametrize("path", WAYS)
def test_a_client_that_leaves_half_way_gives_the_connection_back(port: int, path: str) -> None:
    with Connection(port) as connection:
        connection.ask("GET", path)
        assert connection.head().status == 200
        assert connection.read_until(b"\n200000,customer 200000,")
    all_are_back(port)


@pytest.mark.parametrize("path", WAYS)
def test_fifty_aborted_downloads_leave_no_open_connection(port: int, path: str) -> None:
    for number in range(ABORTED):
        with Connection(port, receive_buffer=4096) as connection:
            connection.ask("GET", path)
            if number % 3:
                assert connection.head().status == 200
                assert connection.read_until(b"\n1,customer 1,3\r\n")
            if number % 2:
                connection.reset()
    all_are_back(port)


def test_a_query_that_fails_half_way_cuts_the_file_and_gives_the_connection_back(port: int) -> None:
    reply = fetch(port, "/fails.csv")
    assert (reply.status, reply.body[:3], reply.ending) == (200, b"1\r\n", Ending.TRUNCATED)
    all_are_back(port)
