"""Who hears of an end, and when; and a head that is flushed."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

import streamkit
from streamkit.testing import Client

SECONDS = 10


def logged_errors(caplog):
    return [str(record.exc_info[1]) for record in caplog.records if record.levelno == logging.ERROR]


def failing(stream):
    stream.write("half ")
    raise RuntimeError("the database has gone")


async def failing_async(stream):
    await stream.write("half ")
    raise RuntimeError("the database has gone")


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_stream_that_an_error_hook_closes_has_failed_and_is_logged_before_its_end_is_seen(
    kind, asynchronous, caplog
):
    seen, outcomes = threading.Event(), []

    def close(stream, error):
        stream.write("sorry")
        stream.close()
        seen.wait(SECONDS)

    async def close_async(stream, error):
        await stream.write("sorry")
        await stream.close()
        await asyncio.to_thread(seen.wait, SECONDS)

    app = streamkit.stream(
        failing_async if asynchronous else failing,
        on_error=close_async if asynchronous else close,
        options={"on_finish": lambda stream: outcomes.append(stream.outcome)},
    )
    with Client(app, kind=kind, timeout=SECONDS) as client, client.get("/") as answer:
        try:
            assert answer.read() == b"half sorry"
            assert logged_errors(caplog) == ["the database has gone"]
        finally:
            seen.set()
        answer.wait_closed()
    assert outcomes == ["failed"]
    assert logged_errors(caplog) == ["the database has gone"]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_stream_in_the_request_that_an_error_hook_closes_has_failed(kind):
    outcomes = []

    def app(environ, start_response):
        stream = environ["streamkit.stream"]
        stream.on_error(lambda stream, error: stream.close())
        failing(stream)

    async def app_async(scope, receive, send):
        @scope["streamkit.stream"].on_error
        async def close(stream, error):
            await stream.close()

        await failing_async(scope["streamkit.stream"])

    options = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
    wrapped = streamkit.wrap(app if kind == "wsgi" else app_async, options)
    with Client(wrapped, timeout=SECONDS, lifespan="off") as client, client.get("/") as answer:
        assert answer.read() == b"half "
        answer.wait_closed()
    assert outcomes == ["failed"]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("hooked", [False, True], ids=["no hook", "a hook that waits"])
def test_an_asynchronous_write_that_waits_hears_of_the_leave_and_what_follows_is_not_cancelled(kind, hooked):
    heard, tidied = [], threading.Event()

    async def flood(stream):
        if hooked:

            @stream.on_finish
            async def wait(stream):
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        try:
            while True:
                await stream.write(b"x" * 100_000)
        except BaseException as error:
            heard.append(type(error))
            raise
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            tidied.set()

    with Client(streamkit.stream(flood), kind=kind, timeout=SECONDS) as client, client.get("/") as answer:
        assert answer.next_chunk()
        answer.disconnect()
        assert tidied.wait(SECONDS), "the producer was cancelled while it tidied up"
        answer.wait_closed()
    assert heard == [streamkit.ClientDisconnected]


def test_a_flush_without_a_chunk_gives_the_server_an_empty_one_which_makes_most_send_the_head():
    def app(environ, start_response):
        stream = environ["streamkit.stream"]
        stream.flush()
        given.append("flushed")
        stream.write("now")
        return []

    given = []

    def start_response(status, headers, exc_info=None):
        given.append(status)
        return given.append

    list(streamkit.wrap(app)({"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}, start_response))
    assert given == ["200 OK", b"", "flushed", b"now"]


def test_a_first_chunk_is_not_preceded_by_an_empty_one():
    def app(environ, start_response):
        environ["streamkit.stream"].write("now")
        return []

    given = []
    wrapped = streamkit.wrap(app)
    list(wrapped({"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}, lambda *head: given.append))
    assert given == [b"now"]
