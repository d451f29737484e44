"""The examples of templates, started by the command that each of them names, and asked over a socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from servers.launch import ROOT, running
from servers.wire import Connection, Ending, fetch

pytest.importorskip("jinja2", reason="Jinja2 is not installed")

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=["flask_app.py", "starlette_app.py"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    def command(port: int) -> list[str]:
        return [sys.executable, str(ROOT / "examples" / "templates" / request.param), str(port)]

    with running(command, tmp_path_factory.mktemp("example") / "log") as (port, _):
        yield port


def test_the_layout_the_albums_and_the_sales_arrive_one_after_the_other(port: int) -> None:
    with Connection(port) as connection:
        connection.ask("GET", "/")
        head, pieces = connection.head(), list(connection.chunks())
    assert head.status == 200
    assert head.get("Content-Length") is None
    assert connection.ending is Ending.COMPLETE
    # Each is made at least 0.5 s after the one before; held back, all would arrive together.
    arrived = [
        next(piece.arrived for piece in pieces if words in piece.payload)
        for words in (b"/static/style.css", b"Giant Steps", b"1234 were sold")
    ]
    assert arrived[1] - arrived[0] > 0.3
    assert arrived[2] - arrived[1] > 0.3
    assert b"is being counted" in b"".join(piece.payload for piece in pieces)


def test_the_whole_page_has_its_length_and_everything_in_its_place(port: int) -> None:
    reply = fetch(port, "/whole")
    assert reply.status == 200
    assert reply.head.get("Content-Length") == str(len(reply.body))
    assert b"<template" not in reply.body
    assert b"is being counted" not in reply.body
    assert (
        reply.body.index(b"Giant Steps") < reply.body.index(b"1234 were sold") < reply.body.index(b"<footer>")
    )


def test_a_page_that_fails_is_cut_and_leads_to_the_error_page(port: int) -> None:
    reply = fetch(port, "/fails")
    assert (reply.status, reply.ending) == (200, Ending.TRUNCATED)
    assert b"The layout has left" in reply.body
    assert b'"/oops"' in reply.body.partition(b"<script>")[2]
    assert b"on purpose" not in reply.body
    assert fetch(port, "/oops").status == 200


def test_the_style_sheet_that_the_layout_names_is_there(port: int) -> None:
    assert fetch(port, "/static/style.css").status == 200
