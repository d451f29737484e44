"""What the demo streams, and the two plain apps that serve it: one WSGI, one ASGI.

    /               the page                        /ticks         a line every half second
    /rows.csv       100,000 rows from SQLite        /fails         half an HTML page, then an error
    /500.html       where a failed page goes        /fails.ndjson  three records, then an error
    /live           the live chart; see `live`

Rule: no web framework and no server here. Both apps find the same responses in `_stream_at`;
only what goes on by the clock has twins, because an async producer must not block the loop.
"""

from __future__ import annotations

import asyncio
import csv
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import streamkit
from streamkit.demo import live

if TYPE_CHECKING:
    from streamkit.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse, WSGIApp

TICKS = 120
PAUSE = 0.5  # seconds between two ticks
# At Ctrl+C nobody waits for the last tick. Event streams are ended at once, because they have no end of
# their own; of plain text streamkit cannot know that it is better ended than waited for.
TICKING = streamkit.Options(grace=0.5, on_failure="finish", completion={"text/plain": "the demo was ended\n"})
PIECE_PAUSE = 0.4  # seconds between the pieces of a stream that will fail
ROWS = 100_000

CREATE = """
CREATE TABLE orders
(id INTEGER PRIMARY KEY, placed TEXT, customer TEXT, item TEXT, pieces INTEGER, price REAL)
"""
FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
INSERT INTO orders
SELECT n, datetime('2026-01-01', '+' || n || ' minutes'), 'Customer ' || (n * 7919 % 997),
       'Item ' || (n % 83), 1 + n % 9, round(4.5 + n % 211 * 0.35, 2)
FROM numbers
"""


class DemoFailure(RuntimeError):
    """The error that the failing streams raise on purpose."""


# -- what is streamed ------------------------------------------------------------------------


def _tick(number: int) -> str:
    made = datetime.now(timezone.utc).time().isoformat(timespec="milliseconds")
    return f"tick {number}, made {made} UTC"


def ticks(stream: streamkit.ResponseStream) -> None:
    """One line every half second; `ticks_async` is its twin."""
    for number in range(1, TICKS + 1):
        stream.writeln(_tick(number))
        time.sleep(PAUSE)


async def ticks_async(stream: streamkit.AsyncResponseStream) -> None:
    """One line every half second; `ticks` is its twin."""
    for number in range(1, TICKS + 1):
        await stream.writeln(_tick(number))
        await asyncio.sleep(PAUSE)


def rows(database: Path, stream: streamkit.ResponseStream) -> None:
    """Every row of the database as CSV, read while it is sent."""
    # SQLite connections belong to the thread that opened them: this one runs the producer.
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT * FROM orders ORDER BY id")
        writer = csv.writer(stream)
        writer.writerow(column[0] for column in found.description)
        writer.writerows(found)


# The last piece stops inside an attribute: what completes the page must close that first.
HALF_A_PAGE = (
    "<!doctype html><title>A report</title>\n",
    "<style>:root{color-scheme:light dark;font:16px sans-serif}</style><h1>The report</h1>\n",
    "<p>This page is sent in pieces, and its source fails before it is done.</p>\n",
    "<table><tr><td>January<td>1,204\n",
    "<tr><td>February<td>1,377\n",
    '<tr><td>March<td title="not yet',
)


def half_a_page(stream: streamkit.ResponseStream) -> None:
    """HTML in pieces, then an error: the browser goes on to the error page."""
    for piece in HALF_A_PAGE:
        stream.write(piece)
        time.sleep(PIECE_PAUSE)
    raise DemoFailure("the demo fails here on purpose, with half a page sent")


def half_the_records(stream: streamkit.ResponseStream) -> None:
    """Three records, then an error: the last line says so."""
    for number in range(1, 4):
        stream.writeln(f'{{"record": {number}}}')
        time.sleep(PIECE_PAUSE)
    raise DemoFailure("the demo fails here on purpose, with three records sent")


def _stream_at(
    path: str, query: str, database: Path, *, is_async: bool
) -> streamkit.StreamingResponse | None:
    if path == "/ticks":
        return streamkit.stream(ticks_async if is_async else ticks, options=TICKING)
    if path == "/live/events":
        return live.events(query, is_async=is_async)
    if path == "/rows.csv":
        return streamkit.stream(
            partial(rows, database),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": "attachment; filename=rows.csv", "X-Total-Rows": str(ROWS)},
        )
    if path == "/fails":
        return streamkit.stream(half_a_page, content_type="text/html; charset=utf-8")
    if path == "/fails.ndjson":
        return streamkit.stream(half_the_records, content_type="application/x-ndjson")
    return None


@contextmanager
def filled_database() -> Iterator[Path]:
    """A temporary SQLite file with the rows; removed at the end."""
    # A download that is still open at Ctrl+C holds the file, and Windows removes no open file.
    with TemporaryDirectory(prefix="streamkit-demo-", ignore_cleanup_errors=True) as folder:
        database = Path(folder, "orders.sqlite3")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(CREATE)
            connection.execute(FILL, (ROWS,))
        yield database


# -- what is not streamed --------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    status: HTTPStatus
    content_type: str
    body: bytes

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))]


ERROR_PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Something went wrong</title>
<style>:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{margin:1rem}</style>
<h1>Something went wrong</h1>
<p>The page could not be completed. This is the error page that the half page led to.</p>
</html>
"""


TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
PAGES = {"/": "page.html", "/live": "live.html"}


def _page_at(path: str, query: str, method: str, kind: str) -> _Page:
    if path == "/live/cut" and method == "POST":
        if live.cut(query):
            return _Page(HTTPStatus.OK, TEXT, b"the stream was cut\n")
        return _Page(HTTPStatus.NOT_FOUND, TEXT, b"no such stream is open\n")
    if method not in ("GET", "HEAD"):
        return _Page(HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET and HEAD here\n")
    if path in PAGES:
        page = files("streamkit.demo").joinpath(PAGES[path]).read_text(encoding="utf-8")
        return _Page(HTTPStatus.OK, HTML, page.replace("{{kind}}", kind).encode())
    if path == "/500.html":
        # 200: the browser is sent here after the failed response, and this page itself is whole.
        return _Page(HTTPStatus.OK, HTML, ERROR_PAGE)
    return _Page(HTTPStatus.NOT_FOUND, TEXT, b"no such page\n")


# -- the apps --------------------------------------------------------------------------------


def wsgi_app(database: Path, grace: float) -> WSGIApp:
    """The demo as a WSGI app, wrapped; `grace` is the option of this name, in seconds."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO") or "/", environ["REQUEST_METHOD"]
        query = environ.get("QUERY_STRING", "")
        if method in ("GET", "HEAD"):
            response = _stream_at(path, query, database, is_async=False)
            if response is not None:
                return response(environ, start_response)
        page = _page_at(path, query, method, "WSGI")
        start_response(f"{page.status.value} {page.status.phrase}", page.headers)
        # Most servers send what they are given, also after HEAD.
        return [] if method == "HEAD" else [page.body]

    return streamkit.wrap(app, grace=grace)


def asgi_app(database: Path, grace: float) -> ASGIApp:
    """The demo as an ASGI app, wrapped; `grace` is the option of this name, in seconds."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        path, method, query = scope["path"], scope["method"], scope["query_string"].decode("latin-1")
        if method in ("GET", "HEAD"):
            response = _stream_at(path, query, database, is_async=True)
            if response is not None:
                return await response(scope, receive, send)
        page = _page_at(path, query, method, "ASGI")
        headers = [(name.lower().encode(), value.encode()) for name, value in page.headers]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        body = b"" if method == "HEAD" else page.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return streamkit.wrap(app, grace=grace)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
