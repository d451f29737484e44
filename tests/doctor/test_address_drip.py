"""The probe app: chunks that carry their times, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from wsgiref.validate import validator

import pytest

import streamkit
from streamkit.doctor import async_probe_app, probe_app
from streamkit.doctor.drip import TYPES, Drip, DripBroken
from streamkit.doctor.observations import MARK
from streamkit.testing import AsyncClient, Client


def validated(environ, start_response):
    return validator(probe_app)(environ, start_response)


BOTH = pytest.mark.parametrize("app", [validated, async_probe_app], ids=["WSGI", "ASGI"])
QUICK = "/?chunks=3&pause=0.01"


@BOTH
def test_each_chunk_says_when_it_was_sent(app: object):
    before = time.time()
    with Client(app) as client, client.get(QUICK) as connection:
        chunks = list(connection)
    after = time.time()
    marks = [MARK.search(chunk) for chunk in chunks]
    assert [mark and int(mark[1]) for mark in marks] == [0, 1, 2]
    times = [float(mark[2]) for mark in marks if mark]
    assert before - 0.001 <= times[0] < times[1] < times[2] <= after + 0.001


@BOTH
def test_a_chunk_is_there_before_the_next_is_made(app: object):
    with Client(app) as client, client.get("/?chunks=2&pause=60") as connection:
        assert MARK.search(connection.next_chunk() or b"")
        connection.disconnect()


@BOTH
def test_a_head_has_no_body_and_says_that_it_is_a_drip(app: object):
    with Client(app) as client, client.open("HEAD", QUICK) as connection:
        assert connection.read() == b""
        assert connection.headers["X-Streamkit-Drip"] == "1"
        assert connection.headers["Content-Type"] == "text/plain; charset=utf-8"


@BOTH
def test_a_drip_that_is_asked_to_break_off_does(app: object):
    with Client(app) as client, client.get(QUICK + "&fail=2") as connection:
        assert connection.next_chunk()
        assert connection.next_chunk()
        with pytest.raises(DripBroken, match="behind 2 chunks"):
            connection.next_chunk()


@pytest.mark.parametrize("kind", TYPES)
def test_a_chunk_is_one_record_of_its_media_type(kind: str):
    chunk = Drip.asked(f"type={kind}&size=100").chunk(3, 1732.1234)
    assert MARK.findall(chunk) == [(b"3", b"1732.123")]
    assert len(chunk) >= 100
    if kind == "application/x-ndjson":
        assert json.loads(chunk)["drip"].startswith("[[chunk-3 1732.123]] ...")
    if kind == "text/event-stream":
        (event,) = streamkit.sse.Decoder().feed(chunk)
        assert event.data.startswith("[[chunk-3 1732.123]] ...")


def test_what_is_asked_for_is_bounded_and_what_makes_no_sense_is_as_usual():
    most = Drip.asked("chunks=1000000&pause=1e9&size=1e9")
    assert (most.chunks, most.pause, most.size) == (1000, 60.0, 65536)
    assert Drip.asked("chunks=many&pause=-1&size=nan&type=text/evil&fail=") == Drip()
    assert Drip.asked("") == Drip()


def test_a_client_that_leaves_ends_the_drip():
    async def leave() -> None:
        async with AsyncClient(async_probe_app) as client, client.get("/?pause=60") as connection:
            assert await connection.next_chunk()
            connection.disconnect()
            await connection.wait_closed(timeout=30.0)

    asyncio.run(leave())


def test_a_drip_may_stand_alone_under_an_asgi_server_and_speaks_http_only():
    async def run() -> None:
        async with AsyncClient(async_probe_app) as client, client.get(QUICK) as connection:
            assert await connection.read()
        with pytest.raises(DripBroken, match="websocket"):
            await async_probe_app({"type": "websocket"}, asyncio.Queue().get, asyncio.Queue().put)

    asyncio.run(run())
