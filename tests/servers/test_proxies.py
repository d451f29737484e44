"""What arrives through the proxies, set up as docs/proxies.md says, with their compression switched on.

nginx's buffers, gzip and HTTP versions have a file of their own, test_nginx.py.
"""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from .launch import Server, end, poll
from .proxies import CHUNKS, KINDS, RESTARTING, documented, front, upstream, version_of
from .wire import Connection, Ending, Framing, Head, Reply, fetch

pytestmark = [pytest.mark.server, pytest.mark.system]

BEHIND = ["gunicorn", "uvicorn-httptools"]
NGINX_SPEAKING_1_0 = "location / { proxy_pass http://127.0.0.1:8000; proxy_http_version 1.0; }"
FINITE = b"".join(b"%d " % n for n in range(1000))
TELL_OF_AN_IDLE_LEAVE = ["nginx", "haproxy", "varnish", "caddy"]  # apache notices when it writes
BOUND = 10.0  # seconds until a leave is noticed; less than the first heartbeat takes
NGINX_PATIENCE = 6  # seconds; six heartbeats, as one may be late on a busy machine
IDLE = 5.0 * NGINX_PATIENCE


@dataclass(frozen=True)
class Front:
    """A proxy, and the server behind it."""

    name: str
    program: str
    port: int
    server: Server

    def asked(self, path: str, key: str, **options: str | dict[str, str]) -> Reply:
        return fetch(self.port, f"{path}?key={key}", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def fronted(
    system_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Front]]:
    """`fronted("caddy", "gunicorn")`: that proxy before that server, running until the session ends."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        fronts: dict[tuple[str, str, str | None], Front] = {}

        def start(name: str, behind: str, lines: str | None = None) -> Front:
            program = system_program(KINDS[name].program)
            if behind not in servers:
                servers[behind] = stack.enter_context(upstream(behind, tmp_path_factory.mktemp(behind)))
            known = name, behind, lines
            if known not in fronts:
                directory = tmp_path_factory.mktemp(f"{name}-{behind}")
                port = stack.enter_context(front(name, program, servers[behind], directory, lines=lines))
                fronts[known] = Front(name, program, port, servers[behind])
            return fronts[known]

        yield start


behind = pytest.mark.parametrize("behind", BEHIND)
through = pytest.mark.parametrize("name", KINDS)


def fields_for(script: str, *, compressed: bool) -> dict[str, str]:
    """What a browser would ask with."""
    fields = {"Accept-Encoding": "gzip"} if compressed else {}
    return {**fields, "Accept": "text/event-stream"} if "events" in script else fields


def decoded(connection: Connection, head: Head) -> Iterator[bytes]:
    """The body as the application wrote it, as far as it can be known at each moment."""
    if head.get("Content-Encoding") != "gzip":
        yield from (chunk.payload for chunk in connection.chunks())
        return
    inflate = zlib.decompressobj(wbits=31)
    for chunk in connection.chunks():
        yield inflate.decompress(chunk.payload)


def read_until(pieces: Iterator[bytes], mark: bytes) -> None:
    got = b""
    for piece in pieces:
        got += piece
        if mark in got:
            return
    raise AssertionError(f"the body ended without {mark!r}: {got[-200:]!r}")


def hear_heartbeats(connection: Connection, seconds: float) -> None:
    """Read for so long, and nothing but comments."""
    began = time.monotonic()
    for chunk in connection.chunks():
        assert set(chunk.payload.split(b"\n")) <= {b":", b""}
        if chunk.arrived - began >= seconds:
            return
    raise AssertionError(f"{connection.ending} after {time.monotonic() - began:.1f} s")


def over(front: Front, key: str) -> bool:
    """Whether a response was made, and no producer of it runs any more."""
    stats = front.server.stats(key)
    return stats.count("callback") > 0 and stats.count("stopped") == stats.count("started")


@behind
@through
def test_each_proxy_compresses_what_is_no_stream(
    fronted: Callable[..., Front], name: str, behind: str, key: str
) -> None:
    reply = fronted(name, behind).asked("/file", key, fields={"Accept-Encoding": "gzip"})
    assert reply.head.get("Content-Encoding") == "gzip"


@behind
@through
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("script", ["steps", "steps-long", "steps-events", "steps-events-long"])
def test_each_chunk_arrives_through_the_proxy_before_the_next_is_made(
    fronted: Callable[..., Front], name: str, behind: str, script: str, compressed: bool, key: str
) -> None:
    front = fronted(name, behind)
    with Connection(front.port) as connection:
        fields = fields_for(script, compressed=compressed)
        connection.ask("GET", f"/sync-function/{script}?key={key}", fields=fields)
        head = connection.head()
        assert head.status == 200
        pieces = decoded(connection, head)
        for number in range(CHUNKS):
            if number:
                front.server.release(key)
            read_until(pieces, b"chunk %d\n" % number)
        assert b"chunk" not in b"".join(pieces)
        assert connection.ending is Ending.COMPLETE


def seconds_through(front: Front, key: str) -> float:
    """How long the steps take of which each waits until the one before has arrived."""
    began = time.monotonic()
    with Connection(front.port) as connection:
        connection.ask("GET", f"/sync-function/steps?key={key}")
        connection.head()
        for number in range(CHUNKS):
            if number:
                front.server.release(key)
            connection.read_until(b"chunk %d\n" % number)
    return time.monotonic() - began


@behind
def test_haproxy_lets_chunks_wait_for_more_unless_http_no_delay_is_set(
    fronted: Callable[..., Front], behind: str, key: str
) -> None:
    documented_lines = documented("haproxy")
    without = documented_lines.replace("    option http-no-delay\n", "")
    assert without != documented_lines
    # 200 ms a chunk by the kernel's clock, which no fast machine can shorten; a busy one may be slow once.
    slow = seconds_through(fronted("haproxy", behind, without), key)
    assert min(seconds_through(fronted("haproxy", behind), f"{key}-{n}") for n in range(3)) < slow


def ending_of_a_body_that_fails(front: Front, key: str) -> Ending | None:
    """How the client of `front` sees a body end that fails once its first chunk has arrived."""
    with Connection(front.port) as connection:
        connection.ask("GET", f"/sync-function/failing?key={key}")
        assert connection.head().status == 200
        assert connection.read_until(b"first\n") == b"first\n"
        front.server.release(key)
        assert list(connection.chunks()) == []
        return connection.ending


@behind
@through
def test_half_a_body_is_cut_through_every_proxy_but_an_old_caddy(
    fronted: Callable[..., Front], name: str, behind: str, key: str
) -> None:
    front = fronted(name, behind)
    # Caddy ended what the server had cut as if it were whole, until caddyserver/caddy#5952 (after 2.7.5).
    ends_it_cleanly = name == "caddy" and version_of(front.program) < (2, 8)
    expected = Ending.COMPLETE if ends_it_cleanly else Ending.TRUNCATED
    assert ending_of_a_body_that_fails(front, key) is expected


def test_half_a_body_seems_whole_through_an_nginx_that_speaks_http_1_0(
    fronted: Callable[..., Front], key: str
) -> None:
    # Delimited by close, it has no end that could be missing; nginx puts one to it.
    assert (
        ending_of_a_body_that_fails(fronted("nginx", "gunicorn", NGINX_SPEAKING_1_0), key) is Ending.COMPLETE
    )


@behind
@through
def test_a_broken_event_stream_says_so_through_the_proxy(
    fronted: Callable[..., Front], name: str, behind: str, key: str
) -> None:
    fields = fields_for("events", compressed=False)
    reply = fronted(name, behind).asked("/sync-function/late-error-events", key, fields=fields)
    assert b"event: error\n" in reply.body
    assert reply.ending is Ending.COMPLETE


@behind
@through
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_head_of_an_endless_stream_is_answered_without_a_body_and_leaves_no_producer(
    fronted: Callable[..., Front], name: str, behind: str, version: str, key: str
) -> None:
    front = fronted(name, behind)
    with Connection(front.port) as connection:
        connection.ask("HEAD", f"/sync-function/endless?key={key}", version)
        head = connection.head()
        assert (head.status, head.get("Content-Type")) == (200, "text/plain; charset=utf-8")
        assert head.get("Content-Length") is None
        if head.stays_open:
            connection.ask("GET", "/plain")
            assert connection.reply().body == b"plain\n"
        else:
            assert connection.rest_of_connection() == b""
    # Varnish asks with GET, and gives up when it has the head.
    poll(lambda: over(front, key), bound=BOUND, what="the end of the response")


@behind
@through
@pytest.mark.parametrize("wish", ["close", "keep-alive"])
def test_a_body_is_whole_and_not_chunked_for_a_client_that_speaks_http_1_0(
    fronted: Callable[..., Front], name: str, behind: str, wish: str, key: str
) -> None:
    reply = fronted(name, behind).asked(
        "/sync-function/finite", key, version="1.0", fields={"Connection": wish}
    )
    assert (reply.status, reply.body) == (200, FINITE)
    assert (reply.framing, reply.ending) in [
        (Framing.LENGTH, Ending.COMPLETE),
        (Framing.CLOSE, Ending.CLOSE_DELIMITED),
    ]


@behind
@through
@pytest.mark.parametrize("leave", [Connection.reset, Connection.close], ids=["reset", "close"])
def test_a_client_that_leaves_an_active_stream_stops_its_producer(
    fronted: Callable[..., Front], name: str, behind: str, leave: Callable[[Connection], None], key: str
) -> None:
    front = fronted(name, behind)
    mark = front.server.mark()
    with Connection(front.port) as connection:
        connection.ask("GET", f"/sync-function/endless?key={key}")
        connection.head()
        connection.read_until(b"tick\n")
        leave(connection)
    poll(lambda: over(front, key), bound=20, what="the producer's end")
    poll(lambda: front.server.stats(key).count("outcome disconnected"), bound=BOUND, what="its outcome")
    assert front.server.complaints(mark) == ""


@behind
@pytest.mark.parametrize("name", TELL_OF_AN_IDLE_LEAVE)
def test_a_client_that_leaves_an_idle_event_stream_is_told_of_by_the_proxy(
    fronted: Callable[..., Front], name: str, behind: str, key: str
) -> None:
    front = fronted(name, behind)
    with Connection(front.port) as connection:
        fields = fields_for("steps-events", compressed=False)
        connection.ask("GET", f"/sync-function/steps-events?key={key}", fields=fields)
        connection.head()
        connection.read_until(b"chunk 0\n")
    poll(lambda: over(front, key), bound=BOUND, what="the producer's end, before any heartbeat")


@behind
@through
def test_a_client_that_leaves_an_idle_event_stream_is_found_out_by_the_heartbeat(
    fronted: Callable[..., Front], name: str, behind: str, key: str
) -> None:
    front = fronted(name, behind)
    with Connection(front.port) as connection:
        # Without "Accept", so that Varnish does not pipe it.
        connection.ask("GET", f"/sync-function/beats?key={key}")
        connection.head()
        connection.read_until(b"data: first\n")
    poll(lambda: over(front, key), bound=20, what="the producer's end")


@behind
def test_two_clients_of_one_url_do_not_share_one_stream_behind_varnish(
    fronted: Callable[..., Front], behind: str, key: str
) -> None:
    front = fronted("varnish", behind)
    with Connection(front.port) as one, Connection(front.port) as another:
        for connection in (one, another):
            connection.ask("GET", f"/sync-function/steps?key={key}")
            assert connection.head().get("Cache-Control") == "no-store, no-transform"
            connection.read_until(b"chunk 0\n")
        assert front.server.stats(key).count("started") == 2
        for _ in range(2 * (CHUNKS - 1)):
            front.server.release(key)
        for connection in (one, another):
            connection.read_until(b"chunk %d\n" % (CHUNKS - 1))


@pytest.mark.slow
@behind
def test_a_heartbeat_keeps_an_idle_event_stream_alive_in_spite_of_nginx_s_read_timeout(
    fronted: Callable[..., Front], behind: str, key: str
) -> None:
    front = fronted("nginx", behind, f"proxy_read_timeout {NGINX_PATIENCE}s;\n" + documented("nginx"))
    with Connection(front.port) as beating, Connection(front.port) as silent:
        silent.ask("GET", f"/sync-function/steps?key={key}-silent")
        beating.ask("GET", f"/sync-function/beats?key={key}")
        beating.head()
        beating.read_until(b"data: first\n\n")
        hear_heartbeats(beating, IDLE)
        front.server.release(key)
        beating.read_until(b"data: second\n\n")
        assert list(beating.chunks()) == []
        assert beating.ending is Ending.COMPLETE
        assert silent.reply().ending is Ending.TRUNCATED, "nginx has no such read timeout"


@pytest.mark.parametrize(("lines", "status"), [("nginx", b"HTTP/1.1 502"), (RESTARTING, b"")])
def test_nginx_answers_nothing_while_the_app_restarts_only_with_the_lines_for_it(
    system_program: Callable[..., str], tmp_path: Path, lines: str, status: bytes, key: str
) -> None:
    program = system_program("nginx")
    with ExitStack() as stack:
        server = stack.enter_context(upstream("gunicorn", tmp_path))
        port = stack.enter_context(front("nginx", program, server, tmp_path, lines=documented(lines)))
        with Connection(port) as connection:
            connection.ask("GET", f"/sync-function/steps?key={key}")
            assert connection.head().status == 200
        end(server.child)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as asked:
            asked.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert asked.recv(12) == status
