"""Live views and descriptions of each framework on real servers: what Rails promises of its live actions.

Scenarios R1, R2, R4 to R8, R10, R12 to R15, R20 to R24, R26, R28, R42, S10, S11, D18, X7, X8, X10, X15.
Rule: the pages are those of `live_pages`; what a server cannot show is told by `/seen`.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.launch import COMPLAINT, ROOT, poll, running
from servers.wire import Connection, Ending, Framing, Reply, fetch

pytestmark = pytest.mark.server

BOUND = 20.0  # seconds until a wait is given up


def _gunicorn(app: str) -> Callable[[int], list[str]]:
    return lambda port: [
        "-m", "gunicorn", "--worker-class=gthread", "--workers=1", "--threads=8", f"--bind=127.0.0.1:{port}",
        "--graceful-timeout=2", "--no-control-socket", "--worker-tmp-dir=/tmp", "--log-level=warning",
        f"frameworks.live_site:{app}",
    ]  # fmt: skip


def _uvicorn(app: str) -> Callable[[int], list[str]]:
    return lambda port: [
        "-m", "uvicorn", "--host=127.0.0.1", f"--port={port}", "--log-level=warning",
        "--timeout-graceful-shutdown=2", f"frameworks.live_site:{app}",
    ]  # fmt: skip


def _daphne(app: str) -> Callable[[int], list[str]]:
    return lambda port: [
        "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", f"frameworks.live_site:{app}",
    ]  # fmt: skip


# Of each: the packages it needs, and how it is started.
SITES: dict[str, tuple[tuple[str, ...], Callable[[int], list[str]]]] = {
    "flask-gunicorn": (("flask", "gunicorn"), _gunicorn("flask_app")),
    "django-gunicorn": (("django", "gunicorn"), _gunicorn("django_wsgi_app")),
    "django-uvicorn": (("django", "uvicorn"), _uvicorn("django_asgi_app")),
    "django-daphne": (("django", "daphne"), _daphne("django_asgi_app")),
    "starlette-uvicorn": (("starlette", "itsdangerous", "uvicorn"), _uvicorn("starlette_app")),
    "fastapi-uvicorn": (("fastapi", "itsdangerous", "uvicorn"), _uvicorn("fastapi_app")),
}


class Site:
    """One framework's pages on one server, as one kind of view."""

    keys = itertools.count(1)

    def __init__(self, name: str, port: int, log: Path, kind: str = "sync") -> None:
        self.name, self.port, self.log, self.kind = name, port, log, kind
        self.key = f"{kind}-{next(self.keys)}"
        self._logged = len(log.read_text())

    def path(self, page: str, **query: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return f"/{self.kind}/{page}/ann?key={self.key}{more}"

    def fetch(self, page: str, fields: Any = None, method: str = "GET", **query: str) -> Reply:
        return fetch(self.port, self.path(page, **query), method=method, fields=fields or {})

    def opened(self, page: str, connection: Connection, **query: str) -> Any:
        connection.ask("GET", self.path(page, **query))
        return connection.head()

    def release(self) -> None:
        assert fetch(self.port, f"/release?key={self.key}").body == b"released"

    def seen(self, count: int) -> list[str]:
        """What the pages have told, once there is so much."""

        def look() -> list[str] | None:
            seen: list[str] = json.loads(fetch(self.port, f"/seen?key={self.key}").body)
            return seen if len(seen) >= count else None

        return poll(look, bound=BOUND, what=f"{count} of what {self.key} tells")

    def said(self) -> str:
        """What the server has logged since."""
        return self.log.read_text()[self._logged :]


@pytest.fixture(scope="module", params=SITES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    needs, arguments = SITES[request.param]
    for package in needs:
        pytest.importorskip(package)

    def command(port: int) -> list[str]:
        return ["env", f"PYTHONPATH={ROOT / 'tests'}", sys.executable, *arguments(port)]

    log = tmp_path_factory.mktemp("log") / "log"
    with running(command, log) as (port, _):
        yield request.param, port, log


@pytest.fixture(params=["sync", "async"])
def site(request: pytest.FixtureRequest, served: Any) -> Site:
    return Site(*served, kind=request.param)


@pytest.fixture
def described(served: Any) -> Site:
    """For pages that describe, and are no live views."""
    return Site(*served)


def cookies(head: Any) -> list[str]:
    return sorted(cookie.strip().partition("=")[0] for cookie in head.all("Set-Cookie"))


# ---------------------------------------------------------------- live views


def test_a_chunk_arrives_before_the_next_is_made_and_each_cookie_once(site: Site) -> None:
    with Connection(site.port) as connection:
        head = site.opened("hello", connection)
        assert (head.status, connection.framing) == (200, Framing.CHUNKED)
        assert (head.all("X-Middleware"), head.all("X-Accel-Buffering")) == (["1"], ["no"])
        assert head.all("Content-Type") == ["text/html; charset=utf-8"]
        session = "sessionid" if site.name.startswith("django") else "session"
        assert cookies(head) == [session, "tasted"]
        assert connection.read_until(b"hello ann")
        site.release()
        assert b"".join(chunk.payload for chunk in connection.chunks()) == b", world"
        assert connection.ending is Ending.COMPLETE
    assert site.seen(3) == ["refused"] * 3
    assert not COMPLAINT.search(site.said())


def test_a_content_type_of_the_view_is_the_only_one(site: Site) -> None:
    reply = site.fetch("events", {"Accept-Encoding": "gzip"})
    assert reply.head.all("Content-Type") == ["text/event-stream"]
    assert reply.body == b"data: ann\n\ndata: world\n\n"
    assert (reply.framing, reply.head.get("ETag"), reply.head.get("Content-Encoding")) == (
        Framing.CHUNKED,
        None,
        None,
    )


def test_a_view_that_returns_a_response_instead_gives_that(site: Site) -> None:
    reply = site.fetch("whole")
    assert (reply.status, reply.ending, reply.body) == (200, Ending.COMPLETE, b"all of ann")


def test_an_error_before_the_first_write_is_the_frameworks_page(site: Site) -> None:
    reply = site.fetch("missing")
    assert (reply.status, reply.head.get("X-Never-Seen"), reply.ending) == (404, None, Ending.COMPLETE)
    assert reply.body
    failed = site.fetch("fails", when="early")
    assert (failed.status, failed.ending) == (500, Ending.COMPLETE)
    assert poll(lambda: "on purpose" in site.said(), bound=BOUND, what="the error in the log")
    assert fetch(site.port, f"/seen?key={site.key}").body == b"[]", "a hook heard of what was no stream yet"


def test_a_view_whose_client_has_it_already_answers_304(site: Site) -> None:
    first = site.fetch("same")
    assert (first.status, first.body) == (200, b"changed")
    assert first.head.get("ETag") in ('"same"', None)
    again = site.fetch("same", {"If-None-Match": '"same"'})
    assert (again.status, again.body, again.head.get("Content-Length")) == (304, b"", None)


def test_a_204_has_neither_body_nor_length_nor_type(site: Site) -> None:
    reply = site.fetch("empty")
    assert (reply.status, reply.body) == (204, b"")
    assert (reply.head.get("Content-Length"), reply.head.get("Content-Type")) == (None, None)


def test_head_gets_the_head_of_get_and_no_body(site: Site) -> None:
    reply = site.fetch("hello", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert (reply.head.get("Content-Type"), reply.head.get("X-Middleware")) == (
        "text/html; charset=utf-8",
        "1",
    )
    site.release()
    assert not COMPLAINT.search(site.said())


def no_late_error(site: Site) -> None:
    if site.name.endswith("daphne"):
        pytest.skip("daphne leaves its client waiting when an app raises, and answers no later exception")


@pytest.mark.parametrize("media_type", ["application/json", "text/html; charset=utf-8"])
def test_an_error_after_the_first_write_is_told_once_and_cuts_the_body(site: Site, media_type: str) -> None:
    no_late_error(site)
    reply = site.fetch("fails", when="late", type=media_type.replace(" ", "%20"))
    assert (reply.status, reply.ending) == (200, Ending.TRUNCATED)
    assert reply.body.startswith(b"[1, ")
    completed = media_type.startswith("text/html")
    assert (b"<noscript>" in reply.body) == completed
    assert completed or reply.body == b"[1, "
    assert site.seen(1) == ["ZeroDivisionError"]
    assert poll(lambda: "ZeroDivisionError: on purpose" in site.said(), bound=BOUND, what="a line in the log")
    assert b"Internal Server Error" not in reply.body


def test_an_error_hook_may_end_an_event_stream_by_itself(site: Site) -> None:
    reply = site.fetch("mended")
    assert reply.body == b"data: 1\n\nevent: sorry\ndata: mended\n\n"
    assert poll(lambda: "on purpose" in site.said(), bound=BOUND, what="the error in the log")


def test_a_waiting_write_hears_of_a_leave_and_it_is_nobodys_error(site: Site) -> None:
    with Connection(site.port, receive_buffer=4096) as connection:
        assert site.opened("endless", connection).status == 200
        assert connection.read_until(b"x")
        connection.reset()
    error, outcome = sorted(site.seen(2))
    assert (error in ("ClientDisconnected", "CancelledError"), outcome) == (True, "disconnected")
    assert fetch(site.port, "/plain").body == b"plain"
    assert not COMPLAINT.search(site.said())


def test_a_view_that_ignores_leaves_runs_to_its_end(site: Site) -> None:
    with Connection(site.port) as connection:
        assert site.opened("deaf", connection).status == 200
        assert connection.read_until(b"x")
        connection.reset()
    assert sorted(site.seen(2)) == ["disconnected", "done"]
    assert not COMPLAINT.search(site.said())


# ---------------------------------------------------------------- descriptions


def test_a_download_has_its_head_and_all_around_its_producer_ends_in_order(described: Site) -> None:
    reply = fetch(described.port, f"/export?key={described.key}&name=ann")
    assert (reply.status, reply.body, reply.ending) == (200, b"ann,\r\n", Ending.COMPLETE)
    assert reply.head.all("Content-Type") == ["text/csv"]
    assert reply.head.all("Content-Disposition") == [
        "attachment; filename=\"naive.csv\"; filename*=UTF-8''na%C3%AFve.csv"
    ]
    assert (reply.head.get("Accept-Ranges"), reply.head.get("Content-Length")) == ("none", None)
    assert described.seen(4) == ["opened", "row", "closed", "called back"]


def test_a_page_arrives_in_pieces_and_its_deferred_block_last(described: Site) -> None:
    pytest.importorskip("jinja2")
    with Connection(described.port) as connection:
        connection.ask("GET", f"/page?key={described.key}", fields={"Accept-Encoding": "gzip"})
        head = connection.head()
        assert (head.status, head.get("Content-Type")) == (200, "text/html; charset=utf-8")
        assert (head.get("Content-Encoding"), connection.framing) == (None, Framing.CHUNKED)
        assert connection.read_until(b"<title>Live</title>")
        assert connection.read_until(b"<h1>/page</h1>")
        assert connection.read_until(b"<p>Live</p>")
        described.release()
        rest = b"".join(chunk.payload for chunk in connection.chunks())
        assert b"<b>slow</b>" in rest
        assert rest.endswith(b"</body></html>")
        assert connection.ending is Ending.COMPLETE
    assert not COMPLAINT.search(described.said())


def test_nothing_of_a_request_is_left_for_the_next(described: Site) -> None:
    for name in ("ann", "bea", "", "cid"):
        reply = fetch(described.port, f"/export?key={described.key}&name={name}")
        assert reply.body == f"{name},\r\n".encode()


def test_an_error_before_the_first_byte_of_a_download_is_a_page(described: Site) -> None:
    reply = fetch(described.port, f"/export?key={described.key}&when=early")
    assert (reply.status, reply.head.get("Content-Disposition")) == (404, None)
    assert described.seen(3) == ["opened", "closed", "called back"]


def test_an_error_after_the_first_byte_of_a_download_is_a_cut(described: Site) -> None:
    no_late_error(described)
    reply = fetch(described.port, f"/export?key={described.key}&when=late&name=ann")
    assert (reply.status, reply.body, reply.ending) == (200, b"ann,\r\n", Ending.TRUNCATED)
    assert described.seen(4) == ["opened", "row", "closed", "called back"]
