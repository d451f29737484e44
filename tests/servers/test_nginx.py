"""What arrives through nginx, buffering and compressing as it comes.

nginx before 1.29.7 speaks HTTP/1.0 to the server behind it, with `Connection: close`; since
then 1.1. It holds a close-delimited body back unless the response says `X-Accel-Buffering: no`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .launch import Server, poll, running
from .wire import Connection, Ending, Head, Reply, fetch

pytestmark = [pytest.mark.server, pytest.mark.system]

BEHIND = ["gunicorn", "uvicorn-h11", "uvicorn-httptools"]
VERSIONS = ["1.0", "1.1"]
WAYS = ["sync-function", "async-function", "wrapped", "imperative", "foreign"]

CONFIG = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_http_version 1.0;
    gzip_min_length 1;
    gzip_types text/plain text/event-stream application/x-ndjson;
    proxy_buffering on;
    server {{
        listen 127.0.0.1:{port};
        location = /plain {{ return 200 "nginx\\n"; }}
        {locations}
    }}
}}
"""
LOCATION = """
        location /{name}/{version}/ {{
            proxy_pass http://127.0.0.1:{port}/;
            proxy_http_version {version};
            {connection}
        }}
"""


def nginx_command(program: str, directory: Path, locations: str) -> Callable[[int], list[str]]:
    """How an nginx with these locations is started on a port; it buffers and compresses all that it may."""

    def command(port: int) -> list[str]:
        # Started by root, the workers would be another user, who may not enter the directory.
        user = "user root;" if os.geteuid() == 0 else ""
        config = CONFIG.format(user=user, directory=directory, port=port, locations=locations)
        (directory / "nginx.conf").write_text(config)
        return [
            program, "-p", str(directory), "-e", str(directory / "error.log"),
            "-c", str(directory / "nginx.conf"), "-g", "daemon off;",
        ]  # fmt: skip

    return command


@dataclass(frozen=True)
class Gateway:
    """An nginx, and the servers behind it."""

    port: int
    servers: dict[str, Server]


@pytest.fixture(scope="session")
def gateway(
    system_program: Callable[..., str],
    started: Callable[..., Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """One nginx: `/{server}/{HTTP version}/…` leads to that server, asked in that version."""
    program = system_program("nginx")
    directory = tmp_path_factory.mktemp("nginx")
    servers = {name: started(name) for name in BEHIND}
    locations = "".join(
        LOCATION.format(
            name=name,
            version=version,
            port=server.port,
            # As nginx's manual says for keep-alive; the default header is "close" in both versions.
            connection='proxy_set_header Connection "";' if version == "1.1" else "",
        )
        for name, server in servers.items()
        for version in VERSIONS
    )

    command = nginx_command(program, directory, locations)
    with running(command, directory / "output.log") as (port, _):
        yield Gateway(port, servers)


behind = pytest.mark.parametrize("name", BEHIND)
by_version = pytest.mark.parametrize("version", VERSIONS)
by_way = pytest.mark.parametrize("way", WAYS)


def decoded(connection: Connection, head: Head) -> Iterator[bytes]:
    """The body as the application wrote it, as far as it can be known at each moment."""
    if head.get("Content-Encoding") != "gzip":
        yield from (chunk.payload for chunk in connection.chunks())
        return
    inflate = zlib.decompressobj(wbits=31)
    for chunk in connection.chunks():
        yield inflate.decompress(chunk.payload)


def read_until(pieces: Iterator[bytes], mark: bytes) -> bytes:
    got = b""
    for piece in pieces:
        got += piece
        if mark in got:
            return got
    raise AssertionError(f"the body ended without {mark!r}: {got[-200:]!r}")


def test_this_nginx_compresses_what_it_may(gateway: Gateway) -> None:
    reply = fetch(gateway.port, "/gunicorn/1.1/plain", fields={"Accept-Encoding": "gzip"})
    assert reply.head.get("Content-Encoding") == "gzip"


@behind
@by_version
@by_way
def test_a_chunk_arrives_through_nginx_before_the_next_is_made(
    gateway: Gateway, name: str, version: str, way: str, key: str
) -> None:
    with Connection(gateway.port) as connection:
        connection.ask("GET", f"/{name}/{version}/{way}/gated?key={key}")
        assert connection.head().status == 200
        assert connection.read_until(b"first\n") == b"first\n"
        gateway.servers[name].release(key)
        connection.read_until(b"second\n")
        assert list(connection.chunks()) == []
        assert connection.ending is Ending.COMPLETE


@behind
@by_version
@by_way
@pytest.mark.parametrize("script", ["gated", "gated-html", "gated-events"])
def test_a_chunk_arrives_through_nginx_and_its_gzip_before_the_next_is_made(
    gateway: Gateway, name: str, version: str, way: str, script: str, key: str
) -> None:
    with Connection(gateway.port) as connection:
        path = f"/{name}/{version}/{way}/{script}?key={key}"
        connection.ask("GET", path, fields={"Accept-Encoding": "gzip"})
        head = connection.head()
        assert head.status == 200
        pieces = decoded(connection, head)
        assert b"second" not in read_until(pieces, b"first")
        gateway.servers[name].release(key)
        read_until(pieces, b"second")


@behind
@by_version
@by_way
def test_a_failure_before_the_first_chunk_is_a_500_through_nginx(
    gateway: Gateway, name: str, version: str, way: str, key: str
) -> None:
    reply = asked(gateway, f"/{name}/{version}/{way}/early-error?key={key}")
    assert (reply.status, reply.ending) == (500, Ending.COMPLETE)


@behind
@by_way
def test_half_a_body_is_cut_through_nginx_too(gateway: Gateway, name: str, way: str, key: str) -> None:
    # To HTTP/1.0 a body that is delimited by close has no end that could be missing.
    reply = asked(gateway, f"/{name}/1.1/{way}/late-error?key={key}")
    assert (reply.status, reply.body, reply.ending) == (200, b"first\nsecond\n", Ending.TRUNCATED)


@behind
@by_version
def test_a_broken_event_stream_says_so_through_nginx(
    gateway: Gateway, name: str, version: str, key: str
) -> None:
    reply = asked(gateway, f"/{name}/{version}/sync-function/late-error-events?key={key}")
    assert b"event: error\n" in reply.body
    assert reply.ending is Ending.COMPLETE


@behind
@by_version
@by_way
def test_a_finite_stream_is_whole_through_nginx(
    gateway: Gateway, name: str, version: str, way: str, key: str
) -> None:
    reply = asked(gateway, f"/{name}/{version}/{way}/finite?key={key}")
    assert reply.body == b"".join(b"%d " % n for n in range(1000))
    assert reply.ending is Ending.COMPLETE


@behind
@by_version
def test_a_client_that_leaves_nginx_stops_the_producer_behind_it(
    gateway: Gateway, name: str, version: str, key: str
) -> None:
    server = gateway.servers[name]
    mark = server.mark()
    with Connection(gateway.port) as connection:
        connection.ask("GET", f"/{name}/{version}/sync-function/endless?key={key}")
        connection.head()
        connection.read_until(b"tick\n")
        connection.reset()
    poll(lambda: server.stats(key).count("stopped"), bound=20, what="the producer's end")
    assert server.complaints(mark) == ""


def asked(gateway: Gateway, path: str) -> Reply:
    return fetch(gateway.port, path)
