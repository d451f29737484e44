"""Flask on real servers: gunicorn with threads, and `flask run --debug` with its reloader and debugger."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.launch import poll, running
from servers.wire import BadFraming, Connection, Ending, Framing, fetch

pytestmark = pytest.mark.server

flask = pytest.importorskip("flask")
from streamkit.frameworks.flask import StreamKit, live  # noqa: E402

BOUND = 20.0  # seconds until a wait is given up
ROUNDS = 10
THREADS = 3


def served_app() -> Any:
    """What gunicorn serves."""
    app, told, torn = flask.Flask("served"), threading.Event(), list[tuple[str, str]]()
    app.secret_key = "secret"
    StreamKit(app)
    app.before_request(lambda: setattr(flask.g, "path", flask.request.path))

    def tear_down(error: object) -> None:
        if not flask.request.path.startswith("/torn"):
            torn.append((flask.request.full_path.rstrip("?"), type(error).__name__))

    app.teardown_request(tear_down)

    @app.get("/held")  # type: ignore[untyped-decorator]
    @live
    def held(stream: Any) -> None:
        told.clear()
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        stream.set_cookie("tasted", "1")
        stream.headers["Content-Type"] = "text/event-stream"
        stream.write("data: 1\n\n")
        assert told.wait(BOUND)
        stream.write(f"data: {flask.g.path}\n\n")

    @app.get("/go")  # type: ignore[untyped-decorator]
    def go() -> str:
        told.set()
        return "gone"

    @app.get("/fails")  # type: ignore[untyped-decorator]
    @live
    async def fails(stream: Any) -> None:
        if "early" in flask.request.args:
            flask.abort(404, "not here")
        stream.headers["Content-Type"] = "text/csv"
        await stream.write("1,2\n")
        raise ValueError("fails on purpose")

    @app.get("/endless")  # type: ignore[untyped-decorator]
    @live
    def endless(stream: Any) -> None:
        while True:
            stream.write("a" * 1000)

    @app.get("/torn")  # type: ignore[untyped-decorator]
    def seen() -> Any:
        return {"torn": torn, "g": sorted(flask.g)}

    return app


Port = int


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--worker-class=gthread", f"--threads={THREADS}"),
            *(f"--bind=127.0.0.1:{port}", "--graceful-timeout=2", "--no-control-socket"),
            *("--worker-tmp-dir=/tmp", "--pythonpath=tests", "frameworks.test_flask_servers:served_app()"),
        ]

    with running(command, tmp_path_factory.mktemp("gunicorn") / "log") as (port, _):
        yield port


def torn_now(port: Port, path: str) -> list[str]:
    """The errors that teardown functions have got for this path."""
    seen = json.loads(fetch(port, "/torn").body)
    assert seen["g"] == ["path"], "something of another request is left on this thread"
    return [error for known, error in seen["torn"] if known == path]


def torn(port: Port, path: str, count: int = 1) -> list[str]:
    """The same, once there are so many."""
    poll(lambda: len(torn_now(port, path)) >= count, bound=BOUND, what=f"the teardown of {path}")
    return torn_now(port, path)


def test_on_gunicorn_a_live_view_streams_and_its_head_has_each_cookie_once(port: Port) -> None:
    with Connection(port) as connection:
        connection.ask("GET", "/held")
        head = connection.head()
        assert connection.read_until(b"data: 1\n\n")
        assert sorted(cookie.partition("=")[0] for cookie in head.all("Set-Cookie")) == ["session", "tasted"]
        assert (connection.framing, head.get("Vary")) == (Framing.CHUNKED, "Cookie")
        assert fetch(port, "/go").body == b"gone"
        assert connection.read_until(b"data: /held\n\n")
        assert list(connection.chunks()) == []
        assert connection.ending is Ending.COMPLETE
    assert torn(port, "/held") == ["NoneType"]


def test_on_gunicorn_an_error_is_a_page_until_the_commit_and_a_cut_after_it(port: Port) -> None:
    early = fetch(port, "/fails?early=1")
    assert (early.status, early.framing, b"not here" in early.body) == (404, Framing.LENGTH, True)
    late = fetch(port, "/fails")
    assert (late.status, late.body, late.ending) == (200, b"1,2\n", Ending.TRUNCATED)
    assert torn(port, "/fails") == ["ValueError"]
    assert torn(port, "/fails?early=1") == ["NoneType"]


def test_on_gunicorn_clients_that_leave_are_torn_down_once_and_leave_nothing_behind(port: Port) -> None:
    for number in range(ROUNDS):
        with Connection(port, receive_buffer=4096) as connection:
            connection.ask("GET", f"/endless?n={number}")
            assert connection.head().status == 200
            assert connection.read_until(b"a")
            if number % 2:
                connection.reset()
    for number in range(ROUNDS):
        assert torn(port, f"/endless?n={number}") == ["ClientDisconnected"]


@pytest.mark.slow
def test_on_gunicorn_a_view_that_waits_keeps_its_contexts_and_no_thread_of_the_servers(port: Port) -> None:
    for _ in range(THREADS + 1):
        with Connection(port) as connection:
            connection.ask("GET", "/held?left=1")
            assert connection.head().status == 200
            assert connection.read_until(b"data: 1\n\n")
    assert torn_now(port, "/held?left=1") == []
    assert fetch(port, "/go").body == b"gone"
    assert len(torn(port, "/held?left=1", THREADS + 1)) == THREADS + 1


def test_on_gunicorn_head_gets_the_views_head(port: Port) -> None:
    reply = fetch(port, "/endless?head=1", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.head.get("Content-Type") == "text/html; charset=utf-8"
    assert len(torn(port, "/endless?head=1")) == 1


# ---------------------------------------------------------------- flask run --debug


SOURCE = '''
import threading
import flask
from streamkit.frameworks.flask import StreamKit, live

app = flask.Flask("reloaded")
StreamKit(app)


@app.get("/version")
def version():
    return "VERSION"


@app.get("/ticks")
@live
def ticks(stream):
    pause = threading.Event()
    while True:
        stream.write("tick VERSION\\n")
        pause.wait(0.02)


@app.get("/fails")
@live
def fails(stream):
    if "late" in flask.request.args:
        stream.headers["Content-Type"] = "text/csv"
        stream.write("1,2\\n")
    raise ValueError("fails on purpose")
'''


def test_flask_run_streams_and_reloads_while_a_stream_is_open(tmp_path: Path) -> None:
    source = tmp_path / "reloaded.py"
    source.write_text(SOURCE.replace("VERSION", "1"))

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "flask", f"--app={source}", "run", "--debug", f"--port={port}"]

    with running(command, tmp_path / "log") as (port, _), Connection(port) as open_one:
        open_one.ask("GET", "/ticks")
        assert open_one.head().status == 200
        for _ in range(3):
            assert open_one.read_until(b"tick 1\n")
        failed = fetch(port, "/fails")
        assert failed.status == 500
        assert b"fails on purpose" in failed.body
        assert b"<code class=\"function\">fails</code>" in failed.body, "the debugger does not show the view"
        late = fetch(port, "/fails?late=1")
        assert (late.body, late.ending) == (b"1,2\n", Ending.TRUNCATED), "half a body that looks whole"

        source.write_text(SOURCE.replace("VERSION", "2"))

        def new_version() -> bool:
            try:
                return fetch(port, "/version").body == b"2"
            except (OSError, BadFraming):  # the server is on its way down, or up
                return False

        assert poll(new_version, bound=60.0, what="the new version")
        list(open_one.chunks())
        assert open_one.ending is not None  # it ended with its process
        with Connection(port) as connection:
            connection.ask("GET", "/ticks")
            assert connection.head().status == 200
            assert connection.read_until(b"tick 2\n")
