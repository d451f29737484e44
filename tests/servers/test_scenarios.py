"""Declared lengths, kept streams, leaves that are ignored and bad input, on real servers, byte by byte.

Rule: what is asked for stands in `scenarios_app`; the servers are those of `launch`, and a test
says nothing about one of them unless its parameters do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from .launch import KINDS, Server, poll, running
from .test_leaving import LEAVES
from .test_wedge import RESETS, SHORT_BODY, assert_all_stopped, assert_back, warmed_up
from .test_wire import DESCRIBED, WAYS, is_usable_again
from .wire import Connection, Ending, Framing

pytestmark = pytest.mark.server

WHOLE = b"Hello World!"
BOUND = 20.0  # seconds; a busy machine takes its time
PRODUCERS = [way for way in DESCRIBED if way != "wrapped"]
FUNCTIONS = ["sync-function", "async-function"]
ASGI = [name for name, kind in KINDS.items() if kind.interface == "asgi"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Each server by its name, serving `scenarios_app`; running until this file is through."""
    directory = tmp_path_factory.mktemp("scenarios")
    with ExitStack() as stack:
        started: dict[str, Server] = {}

        def serve(name: str) -> Server:
            if name not in started:
                kind, log = KINDS[name], directory / f"{name}.log"

                def command(port: int) -> list[str]:
                    *arguments, app = kind.command(port, 8)
                    return [*arguments, app.replace(".apps:", ".scenarios_app:")]

                port, child = stack.enter_context(running(command, log))
                started[name] = Server(kind, port, child, log)
            return started[name]

        yield serve


@pytest.fixture(params=list(KINDS))
def asked(request: pytest.FixtureRequest, serving: Callable[[str], Server]) -> Server:
    return serving(request.param)


# Declared lengths: X9.


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("way", PRODUCERS)
def test_a_body_of_its_declared_length_is_framed_by_it_and_leaves_the_connection_usable(
    asked: Server, way: str, version: str
) -> None:
    with asked.connect() as connection:
        fields = {"Connection": "keep-alive"} if version == "1.0" else {}
        connection.ask("GET", f"/length/{way}/exact", version, fields)
        reply = connection.reply()
        assert (reply.status, reply.framing, reply.ending) == (200, Framing.LENGTH, Ending.COMPLETE)
        assert reply.body == WHOLE
        if version == "1.1":
            assert is_usable_again(asked, connection, reply.head)


@pytest.mark.parametrize("way", PRODUCERS)
def test_head_of_a_declared_length_tells_it_and_leaves_the_connection_usable(asked: Server, way: str) -> None:
    with asked.connect() as connection:
        connection.ask("HEAD", f"/length/{way}/exact")
        head = connection.head()
        assert (head.status, head.get("Content-Length")) == (200, str(len(WHOLE)))
        assert is_usable_again(asked, connection, head)


@pytest.mark.parametrize(
    ("version", "connection"), [("1.1", ""), ("1.0", "close"), ("1.0", "keep-alive")], ids=str
)
@pytest.mark.parametrize("what", ["short", "fails"])
@pytest.mark.parametrize("way", PRODUCERS)
def test_a_body_that_is_shorter_than_declared_is_never_taken_for_whole(
    asked: Server, way: str, what: str, version: str, connection: str
) -> None:
    fields = {"Connection": connection} if connection else {}
    reply = asked.fetch(f"/length/{way}/{what}", version=version, fields=fields)
    if reply.status == 200:
        assert (reply.head.get("Content-Length"), reply.ending) == ("12", Ending.TRUNCATED)
        assert WHOLE.startswith(reply.body)
    else:  # what is held for HTTP/1.0 can still be an error page
        assert (version, reply.status) == ("1.0", 500)
        assert b"Hello" not in reply.body
    assert asked.fetch("/plain").body == b"plain\n"


@pytest.mark.parametrize("way", PRODUCERS)
def test_nothing_is_sent_beyond_the_declared_length(asked: Server, way: str) -> None:
    with asked.connect() as connection:
        connection.ask("GET", f"/length/{way}/long")
        head = connection.head()
        assert (head.status, head.get("Content-Length")) == (200, str(len(WHOLE)))
        body = b"".join(chunk.payload for chunk in connection.chunks())
        assert body == WHOLE
        assert connection.rest_of_connection() == b"", "neither the rest nor an error page follows"


# Kept streams: S13, S15, S16, X13.


@pytest.mark.parametrize("way", FUNCTIONS)
def test_other_requests_write_into_a_kept_stream_and_each_push_arrives_by_itself(
    asked: Server, way: str, key: str
) -> None:
    with asked.connect() as listening:
        listening.ask("GET", f"/kept/{way}/open?key={key}")
        assert listening.head().status == 200
        assert listening.read_until(b"hi!") == b"hi!"
        for _ in range(3):
            assert asked.fetch(f"/kept/{way}/push?key={key}").body == b"ok"
            assert listening.read_until(b"hello") == b"hello"
        assert asked.stats(key).count("callback") == 0
        assert asked.fetch(f"/kept/{way}/close?key={key}").body == b"ok"
        assert list(listening.chunks()) == []
        assert listening.ending is Ending.COMPLETE
    poll(lambda: asked.stats(key).count("callback"), bound=BOUND, what="the callback")
    assert asked.stats(key).count("callback") == 1


@pytest.mark.parametrize("way", FUNCTIONS)
@pytest.mark.parametrize("name", ASGI)
def test_a_hundred_kept_streams_occupy_no_threads_under_asgi(
    serving: Callable[[str], Server], name: str, way: str, key: str
) -> None:
    server = serving(name)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        before = server.stats().threads
        for number, connection in enumerate(connections):
            connection.ask("GET", f"/kept/{way}/open?key={key}-{number}")
        for connection in connections:
            assert connection.head().status == 200
            connection.read_until(b"hi!")
        # asyncio's own pool, in which the app looks its response up, has at most 32; ours leave soon.
        poll(lambda: server.stats().threads <= before + 34, bound=BOUND, what="threads that have left")
        for number, connection in enumerate(connections):
            server.fetch(f"/kept/{way}/push?key={key}-{number}")
            server.fetch(f"/kept/{way}/close?key={key}-{number}")
            assert b"".join(chunk.payload for chunk in connection.chunks()) == b"hello"
            assert connection.ending is Ending.COMPLETE


# Leaves that are ignored, and ends that the producer makes: R13, R31, X4, X15.


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("way", [*FUNCTIONS, "imperative"])
def test_a_producer_that_ignores_a_leave_writes_on_to_its_end_and_nothing_is_an_error(
    asked: Server, way: str, leave: str, key: str
) -> None:
    mark = asked.mark()
    with asked.connect() as connection:
        connection.ask("GET", f"/leave/{way}?key={key}")
        assert connection.head().status == 200
        connection.read_until(b"first\n")
        LEAVES[leave](connection)
    asked.release(key)

    def is_told() -> bool:
        counts = asked.stats(key).counts
        return bool(counts.get("completed")) and any(name.startswith("outcome ") for name in counts)

    poll(is_told, bound=BOUND, what="the end of the producer")
    counts = asked.stats(key).counts
    assert counts["completed"] == 1
    assert sum(count for name, count in counts.items() if name.startswith("outcome ")) == 1
    assert not [name for name in counts if name.startswith("error ")]
    assert asked.complaints(mark) == ""


@pytest.mark.parametrize("way", FUNCTIONS)
def test_a_stream_that_its_producer_aborts_is_a_500_before_the_first_chunk_and_a_cut_after_it(
    asked: Server, way: str, key: str
) -> None:
    before = asked.fetch(f"/abort/{way}/before")
    assert (before.status, before.ending) == (500, Ending.COMPLETE)
    with asked.connect() as connection:
        connection.ask("GET", f"/abort/{way}/after?key={key}")
        assert connection.head().status == 200
        assert connection.read_until(b"first\n") == b"first\n"
        asked.release(key)
        assert list(connection.chunks()) == []
        assert connection.ending is Ending.TRUNCATED


# Bad input.

FAULTS = [
    "returns-none", "starts-twice", "never-starts", "header-newline-foreign", "writes-5", "yields-5",
    "header-newline", "negative-timeout", "no-producer", "unknown-option",
]  # fmt: skip
SAID = {
    "starts-twice": ("ProtocolViolation",),
    "returns-none": ("ProtocolViolation",),
    "never-starts": ("ProtocolViolation",),
    "header-newline-foreign": ("HeaderError", "CR, LF or NUL"),
    "writes-5": ("UnsupportedData", "int"),
    "yields-5": ("UnsupportedData", "int"),
    "header-newline": ("HeaderError",),
    "negative-timeout": ("-1",),
    "no-producer": ("ProducerError", "NoneType"),
    "unknown-option": ("OptionsError", "heartbeat"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_a_500_whose_cause_stands_in_the_log_and_the_next_request_is_answered(
    asked: Server, fault: str, version: str
) -> None:
    mark = asked.mark()
    reply = asked.fetch(f"/fault/{fault}", version=version)
    assert reply.status == 500
    assert reply.ending is not Ending.TRUNCATED
    assert b"never" not in reply.body
    assert reply.head.get("X-Injected") is None
    for words in SAID[fault]:
        poll(lambda words=words: words in asked.said(mark), bound=BOUND, what=f"{words!r} in the log")
    assert asked.fetch("/plain").body == b"plain\n"


# One connection, many responses.


@pytest.mark.parametrize("way", WAYS)
def test_responses_of_all_kinds_follow_each_other_on_one_connection(
    server: Server, way: str, key: str
) -> None:
    asks = [
        ("GET", f"/{way}/short?key={key}", 200), ("HEAD", f"/{way}/short?key={key}", 200),
        ("GET", f"/{way}/status-204?key={key}", 204), ("GET", "/plain", 200),
        ("GET", f"/{way}/status-304?key={key}", 304), ("HEAD", f"/{way}/endless?key={key}", 200),
        ("GET", f"/{way}/finite?key={key}", 200),
    ] * 3  # fmt: skip
    connection: Connection | None = None
    for method, path, status in asks:
        if connection is None:
            connection = server.connect()
        connection.ask(method, path)
        reply = connection.reply()
        assert (reply.status, reply.ending) == (status, Ending.COMPLETE), (method, path)
        if path == "/plain" and method == "GET":
            assert reply.body == b"plain\n"
        elif "short" in path and method == "GET":
            assert reply.body == SHORT_BODY
        if not reply.head.stays_open or (not server.kind.keeps_alive and "plain" not in path):
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


@pytest.mark.parametrize("way", ["sync-function", "async-function", "sync-iterable", "async-iterable"])
def test_what_a_producer_sets_is_unknown_to_the_next_requests_of_its_connection(
    asked: Server, way: str
) -> None:
    """R15: uvicorn begins a request that waits already from within the `send` that ends the one before."""
    number = 3 if asked.kind.keeps_alive else 1
    with asked.connect() as connection:
        for _ in range(number):
            connection.ask("GET", f"/context/{way}")
        for _ in range(number):
            reply = connection.reply()
            assert (reply.status, reply.body) == (200, b"nobody\nsomebody\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("gunicorn", "foreign"),
        ("gunicorn", "sync-iterable"),
        ("waitress", "foreign"),
        ("uvicorn-httptools", "sync-iterable"),
        ("uvicorn-httptools", "async-iterable"),
        ("uvicorn-h11", "foreign"),
    ],
)
def test_200_resets_wedge_no_other_kind_of_stream_either(
    started: Callable[..., Server], name: str, way: str, key: str
) -> None:
    server = started(name, threads=5)
    before = warmed_up(server, [way], key, threads=5)
    mark = server.mark()

    def ask_and_reset(number: int) -> None:
        with server.connect() as connection:
            connection.ask("GET", f"/{way}/twelve-times-3-mb?key={key}")
            assert connection.head().status == 200
            connection.read_until(b"x")
            connection.reset()

    with ThreadPoolExecutor(5) as clients:
        list(clients.map(ask_and_reset, range(RESETS)))
    for _ in range(10):
        assert server.fetch("/plain").body == b"plain\n"
        assert server.fetch(f"/{way}/short").body == SHORT_BODY
    assert assert_all_stopped(server, key).count("started") == RESETS
    assert_back(server, before)
    assert server.complaints(mark) == ""
