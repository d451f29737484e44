"""What arrives at the client, byte by byte, from each server and each kind of producer."""

from __future__ import annotations

import json

import pytest

from .launch import KINDS, Server, poll
from .wire import Connection, Ending, Framing, Head

pytestmark = pytest.mark.server

DESCRIBED = ["sync-function", "async-function", "sync-iterable", "async-iterable", "wrapped"]
WAYS = [*DESCRIBED, "imperative", "foreign"]
FINITE = b"".join(b"%d " % n for n in range(1000))
TWO_CHUNKS = b"first\nsecond\n"

every_way = pytest.mark.parametrize("way", WAYS)
every_description = pytest.mark.parametrize("way", DESCRIBED)


def is_usable_again(server: Server, connection: Connection, head: Head) -> bool:
    """Whether another request is answered on this connection, or the server said that none will be."""
    if not head.stays_open and (head.status == 500 or not server.kind.keeps_alive):
        # waitress ends even a HEAD's reply with a last chunk of its own.
        return connection.rest_of_connection() in (b"", b"0\r\n\r\n")
    connection.ask("GET", "/plain")
    return connection.reply().body == b"plain\n"


# Chunks and errors.


@every_way
def test_a_chunk_arrives_before_the_next_is_made(server: Server, way: str, key: str) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/gated?key={key}")
        assert connection.head().status == 200
        assert connection.read_until(b"first\n") == b"first\n"
        server.release(key)
        assert connection.read_until(b"second\n") == b"second\n"
        assert list(connection.chunks()) == []
        assert connection.ending is Ending.COMPLETE


@pytest.mark.parametrize("script", ["gated-html", "gated-events"])
@every_way
def test_a_page_and_an_event_arrive_before_the_next(server: Server, way: str, script: str, key: str) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/{script}?key={key}", fields={"Accept-Encoding": "gzip, br"})
        assert connection.head().status == 200
        assert b"second" not in connection.read_until(b"first")
        server.release(key)
        connection.read_until(b"second")


@every_way
def test_a_producer_that_raises_before_its_first_chunk_is_a_500(server: Server, way: str, key: str) -> None:
    mark = server.mark()
    reply = server.fetch(f"/{way}/early-error?key={key}")
    assert (reply.status, reply.ending) == (500, Ending.COMPLETE)
    poll(lambda: "Boom" in server.said(mark), bound=10, what="the error in the server's log")
    assert server.stats(key).count("stopped") == 1


@every_way
def test_half_a_body_never_ends_as_a_whole_one(server: Server, way: str, key: str) -> None:
    mark = server.mark()
    reply = server.fetch(f"/{way}/late-error?key={key}")
    assert (reply.status, reply.framing) == (200, Framing.CHUNKED)
    assert reply.body == TWO_CHUNKS, "what was written before the error, and no error page, arrives"
    assert reply.ending is Ending.TRUNCATED
    poll(lambda: "Boom" in server.said(mark), bound=10, what="the error in the server's log")


@every_way
def test_a_broken_page_is_completed_and_then_cut(server: Server, way: str, key: str) -> None:
    reply = server.fetch(f"/{way}/late-error-html?key={key}")
    assert reply.status == 200
    page, _, completion = reply.body.partition(b"<p>second")
    assert page == b"<html><body><p>first"
    assert b"<noscript" in completion.lower()
    assert reply.ending is Ending.TRUNCATED


@every_way
def test_a_broken_event_stream_says_so_and_ends_cleanly(server: Server, way: str, key: str) -> None:
    reply = server.fetch(f"/{way}/late-error-events?key={key}")
    assert reply.status == 200
    assert reply.body.startswith(b"data: first\n\ndata: second\n\n")
    assert b"event: error\n" in reply.body
    assert reply.body.endswith(b"\n\n")
    assert b"script says so" not in reply.body, "the client learns nothing of the inside"
    assert reply.ending is Ending.COMPLETE


@every_way
def test_a_broken_record_stream_ends_with_an_error_record(server: Server, way: str, key: str) -> None:
    reply = server.fetch(f"/{way}/late-error-records?key={key}")
    assert reply.status == 200
    *records, last = [json.loads(line) for line in reply.body.splitlines()]
    assert records == [{"n": 1}, {"n": 2}]
    assert "error" in last
    assert "script says so" not in json.dumps(last)
    assert reply.ending is Ending.TRUNCATED


# HTTP/1.0.


@pytest.mark.parametrize("connection_field", ["", "keep-alive"])
@every_way
def test_a_finite_stream_for_http_1_0_has_a_length_and_every_byte(
    server: Server, way: str, connection_field: str, key: str
) -> None:
    with server.connect() as connection:
        fields = {"Connection": connection_field} if connection_field else {}
        connection.ask("GET", f"/{way}/finite?key={key}", "1.0", fields)
        reply = connection.reply()
        assert reply.status == 200
        assert reply.head.get("Content-Length") == str(len(FINITE))
        assert reply.head.get("Transfer-Encoding") is None
        assert reply.body == FINITE
        if connection_field and reply.head.stays_open:
            connection.ask("GET", "/plain", "1.0")
            assert connection.reply().body == b"plain\n"


@every_way
def test_a_stream_for_http_1_0_with_connection_close_has_every_byte(
    server: Server, way: str, key: str
) -> None:
    reply = server.fetch(f"/{way}/finite?key={key}", version="1.0", fields={"Connection": "close"})
    assert reply.status == 200
    assert reply.body == FINITE
    if not server.kind.chunks_to_1_0:
        assert (reply.framing, reply.ending) == (Framing.CLOSE, Ending.CLOSE_DELIMITED)


@every_way
def test_a_stream_for_http_1_0_with_connection_close_arrives_chunk_by_chunk(
    server: Server, way: str, key: str
) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/gated?key={key}", "1.0", {"Connection": "close"})
        assert connection.head().status == 200
        assert connection.read_until(b"first\n") == b"first\n"
        server.release(key)
        connection.read_until(b"second\n")


@every_description
def test_the_option_buffer_gives_a_length_to_http_1_0_with_connection_close(
    server: Server, way: str, key: str
) -> None:
    path = f"/{way}/finite-1.0-buffer?key={key}"
    reply = server.fetch(path, version="1.0", fields={"Connection": "close"})
    assert (reply.status, reply.framing, reply.ending) == (200, Framing.LENGTH, Ending.COMPLETE)
    assert reply.body == FINITE


@every_way
def test_an_error_half_way_is_a_real_500_where_http_1_0_is_buffered(
    server: Server, way: str, key: str
) -> None:
    reply = server.fetch(f"/{way}/late-error?key={key}", version="1.0")
    assert reply.status == 500
    assert b"first" not in reply.body


@pytest.mark.parametrize("script", ["finite-1.0-reject", "finite-1.0-limit"])
@every_description
def test_http_1_0_gets_505_where_it_is_rejected_or_the_body_passes_the_limit(
    server: Server, way: str, script: str, key: str
) -> None:
    assert server.fetch(f"/{way}/{script}?key={key}", version="1.0").status == 505
    assert server.fetch(f"/{way}/{script}?key={key}").body == FINITE, "HTTP/1.1 is not concerned"


@every_description
def test_an_endless_stream_for_http_1_0_is_not_buffered(server: Server, way: str, key: str) -> None:
    if way.endswith("iterable"):
        pytest.skip("an iterable cannot be called again")
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/gated-loop?key={key}", "1.0")
        assert connection.head().status == 200
        if not server.kind.chunks_to_1_0:
            assert connection.framing is Framing.CLOSE
        assert connection.read_until(b"first\n") == b"first\n"
        server.release(key)
        connection.read_until(b"second\n")


# HEAD, 204, 304.


@every_way
def test_head_of_an_endless_stream_is_answered_at_once_and_without_a_body(
    server: Server, way: str, key: str
) -> None:
    with server.connect(patience=15) as connection:
        connection.ask("HEAD", f"/{way}/endless?key={key}")
        head = connection.head()
        assert head.status == 200
        assert head.get("Content-Type") == "text/plain; charset=utf-8"
        assert is_usable_again(server, connection, head)
    if way in DESCRIBED:
        assert server.stats(key).count("started") == 0

    def all_stopped() -> bool:
        stats = server.stats(key)
        return stats.count("started") == stats.count("stopped")

    poll(all_stopped, bound=10, what="the producer's end")


@every_way
def test_head_has_the_fields_of_get(server: Server, way: str, key: str) -> None:
    head = server.fetch(f"/{way}/short?key={key}", method="HEAD").head
    get = server.fetch(f"/{way}/short?key={key}").head
    for name in ("Content-Type", "Cache-Control", "X-Accel-Buffering", "ETag", "Content-Length"):
        assert head.get(name) == get.get(name), name


@pytest.mark.parametrize("status", [204, 304])
@every_way
def test_204_and_304_have_no_body_and_leave_the_connection_usable(
    server: Server, way: str, status: int, key: str
) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/status-{status}?key={key}")
        head = connection.head()
        assert head.status == status
        assert head.get("Content-Length") is None
        assert head.get("Transfer-Encoding") is None
        assert is_usable_again(server, connection, head)


@pytest.mark.parametrize("status", [204, 304])
@every_way
def test_a_body_written_to_a_204_or_304_never_reaches_the_client(
    server: Server, way: str, status: int, key: str
) -> None:
    with server.connect() as connection:
        connection.ask("GET", f"/{way}/status-{status}-with-body?key={key}")
        reply = connection.reply()
        # The refusal is the producer's error: it may end as a 500, but not as a body.
        assert reply.status in (status, 500)
        assert b"arrive" not in reply.body
        assert is_usable_again(server, connection, reply.head)


# Headers.


@every_way
def test_streams_ask_proxies_not_to_hold_change_or_store_them(server: Server, way: str, key: str) -> None:
    head = server.fetch(f"/{way}/short?key={key}").head
    assert head.get("X-Accel-Buffering") == "no"
    assert head.get("Cache-Control") == "no-store, no-transform"


def test_an_ordinary_response_goes_through_wrap_untouched(server: Server) -> None:
    reply = server.fetch("/plain")
    assert (reply.status, reply.body, reply.framing) == (200, b"plain\n", Framing.LENGTH)
    assert reply.head.get("ETag") == '"p"'
    assert reply.head.get("X-Accel-Buffering") is None
    assert reply.head.get("Cache-Control") is None


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_file_with_a_length_goes_through_wrap_untouched(server: Server, version: str) -> None:
    reply = server.fetch("/file", version=version)
    assert (reply.status, reply.framing, reply.ending) == (200, Framing.LENGTH, Ending.COMPLETE)
    assert reply.body == b"x" * (1024 * 1024)
    assert reply.head.get("X-Accel-Buffering") is None


@every_way
def test_the_callback_runs_once_for_each_stream(server: Server, way: str, key: str) -> None:
    if way == "imperative":
        pytest.skip("an imperative stream has no description that a callback could stand in")
    assert server.fetch(f"/{way}/short?key={key}").ending is Ending.COMPLETE
    poll(lambda: server.stats(key).count("callback"), bound=10, what="the callback")
    counted = server.stats(key)
    assert (counted.count("started"), counted.count("stopped"), counted.count("callback")) == (1, 1, 1)


def test_every_server_of_the_design_is_asked() -> None:
    assert set(KINDS) == {"gunicorn", "waitress", "uvicorn-h11", "uvicorn-httptools", "hypercorn"}
