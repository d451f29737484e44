"""Layers that hold streams, taken out of their way on real servers: each chunk before the next is made.

Rule: the next chunk is made when the server was told that the one before has been read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from .launch import COMPLAINT, KINDS, running
from .wire import Connection, Ending, Reply, fetch

pytestmark = pytest.mark.server

APPS = {
    "flask": ("gunicorn", "waitress"),
    "django": ("gunicorn", "waitress"),
    "starlette": ("uvicorn-h11", "uvicorn-httptools"),
}
CASES = [(made_of, server) for made_of, servers in APPS.items() for server in servers]
CHUNKS = 3


class Served(NamedTuple):
    made_of: str
    server: str
    port: int


def serve(made_of: str, server: str, factory: pytest.TempPathFactory, **environment: str) -> Iterator[int]:
    log = factory.mktemp("layered") / "log"
    preload = ["--preload"] if server == "gunicorn" else []

    def command(port: int) -> list[str]:
        parts = KINDS[server].command(port, 8)
        *options, app = [part.replace("tests.servers.apps:", "tests.servers.layered_app:") for part in parts]
        return [*options, *preload, app.rpartition(":")[0] + ":app"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMKIT_LAYERED", made_of)
        for name, value in environment.items():
            patch.setenv(name, value)
        with running(command, log) as (port, _):
            yield port
    said = log.read_text()
    assert not COMPLAINT.search(said), said


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An app with two or three layers, wrapped; it has complained of nothing at the end."""
    made_of, server = request.param
    for package in (made_of, server.partition("-")[0]):
        pytest.importorskip(package, reason=f"{package} is not installed")
    for port in serve(made_of, server, tmp_path_factory, STREAMKIT_STRIPPED="1"):
        yield Served(made_of, server, port)


@pytest.fixture(scope="module")
def unwrapped(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The same app as it is."""
    yield from serve(served.made_of, served.server, tmp_path_factory)


def go(port: int, key: str) -> None:
    assert fetch(port, f"/go?key={key}", fields={"Connection": "close"}).status == 200


def read(port: int, path: str, key: str, version: str = "1.1") -> Reply:
    """One stream, each of its chunks released when the one before has come."""
    with Connection(port) as connection:
        fields = {"Accept-Encoding": "gzip", "Connection": "close"}
        connection.ask("GET", f"{path}?key={key}", version, fields)
        head = connection.head()
        decode = zlib.decompressobj(31).decompress if head.get("Content-Encoding") == "gzip" else bytes
        body, seen = b"", 0
        for chunk in connection.chunks():
            body += decode(chunk.payload)
            while f"chunk {seen} ".encode() in body:
                seen += 1
                if seen < CHUNKS:  # the last has no next, and a server that closes may answer nobody else
                    go(port, key)
        assert connection.ending is not None
        return Reply(head, body, connection.framing, connection.ending)


@pytest.mark.parametrize("path", ["/stream", "/described"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_each_chunk_comes_before_the_next_is_made(
    served: Served, path: str, version: str, request: pytest.FixtureRequest
) -> None:
    reply = read(served.port, path, request.node.name, version)
    assert reply.body.count(b"in time") == CHUNKS
    assert reply.ending is not Ending.TRUNCATED
    assert reply.head.get("X-Layer") == "seen"
    assert [reply.head.get(name) for name in ("ETag", "Content-Encoding", "Content-Length")] == [None] * 3


def test_streams_at_once_are_each_their_own(served: Served, request: pytest.FixtureRequest) -> None:
    keys = [f"{request.node.name}{number}" for number in range(4)]
    with ThreadPoolExecutor(len(keys)) as readers:
        replies = list(readers.map(lambda key: read(served.port, "/stream", key), keys))
    assert [reply.body.count(b"in time") for reply in replies] == [CHUNKS] * len(keys)


def test_a_client_that_leaves_does_no_harm_to_the_next(
    served: Served, request: pytest.FixtureRequest
) -> None:
    key = request.node.name
    with Connection(served.port) as connection:
        connection.ask("GET", f"/stream?key={key}")
        assert connection.head().status == 200
        assert next(connection.chunks()).payload
    # A first chunk can still be sent to a client that left: nobody waits for the next when the server ends.
    for _ in range(1, CHUNKS):
        go(served.port, key)
    assert read(served.port, "/stream", f"{key}2").body.count(b"in time") == CHUNKS


REQUESTS: list[tuple[str, dict[str, str]]] = [
    ("GET", {}),
    ("GET", {"Accept-Encoding": "gzip"}),
    ("HEAD", {"Accept-Encoding": "gzip"}),
    ("GET", {"If-None-Match": "*"}),
    ("GET", {"Range": "bytes=0-9"}),
]


def test_a_page_is_the_same_to_the_byte_as_without_us(served: Served, unwrapped: int) -> None:
    for method, fields in REQUESTS:
        pages = []
        for port in (served.port, unwrapped):
            reply = fetch(port, "/page", method=method, fields={**fields, "Connection": "close"})
            varying = ("date", "expires", "age")
            kept = sorted(field for field in reply.head.fields if field[0].lower() not in varying)
            body = reply.body
            if reply.head.get("Content-Encoding") == "gzip" and body:
                body = body[:4] + body[8:]  # its time
            pages.append((reply.status, kept, body))
        assert pages[0] == pages[1], (method, fields)
