"""gevent and eventlet: engines become cooperative, and nothing blocks the hub.

A thread is a greenlet there, and a process has one thread for all of them: whoever waits for anything
but by the hub's leave stops every request.

Rule: a server is started once and shared; what a test has done, it finds under keys of its own. What
cannot hold stands in `HELD` and `UNENDED` with its cause, and is asked for too.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from .launch import poll
from .test_sigterm import FAREWELL, GUNICORN, MODULE, TEN, WSGI, Kind, Running, started
from .wire import Connection, Ending, Framing

pytestmark = pytest.mark.server

PATIENCE = 20.0  # seconds until something is noticed; a busy machine takes its time
PROMPT = 10.0  # seconds for 50 requests, which take 0.1 s; each would take as long as a hub is blocked
STREAMS = 100
FEW = 20  # threads: gevent has some for name look-ups
NEVER = 2.0  # seconds after which what does not come is taken for never coming
WAYS = ("sync", "async", "twin", "imperative")
LEAVES = (Connection.reset, Connection.close)
OPTIONS = {"grace": 2.0, "heartbeat": 0.5}


@dataclass(frozen=True)
class Script(Kind):
    """A server that a few lines of Python start."""

    def on(self, port: int) -> list[str]:
        return [sys.executable, "-c", self.command.format(port=port)]


PYWSGI = f"""
from gevent.monkey import patch_all; patch_all()
from gevent.pywsgi import WSGIServer
from {MODULE} import wsgi_app
WSGIServer(("127.0.0.1", {{port}}), wsgi_app).serve_forever()
"""
EVENTLET = f"""
import eventlet; eventlet.monkey_patch()
import eventlet.wsgi
from {MODULE} import wsgi_app
listener = eventlet.listen(("127.0.0.1", {{port}}), backlog=500)
eventlet.wsgi.server(listener, wsgi_app)
"""
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("gunicorn gevent", f"{GUNICORN} --worker-class=gevent {WSGI}"),
        Script("gevent pywsgi", PYWSGI),
        Script("eventlet", EVENTLET),
    )
}

# eventlet 0.41 runs on CPython 3.10 to 3.14 and is mended, but its authors plan its retirement and
# discourage new uses. gunicorn has no worker for it any more, so it is asked by its own server.
HELD = "eventlet.wsgi calls every request HTTP/1.0, so a body with an end is held whole"
UNENDED = (
    "eventlet.wsgi sends no last chunk after a body that came by PEP 3333's write(), which carries "
    'imperative writes. Set engine="thread", or return a description.'
)
_numbers = itertools.count()
# It is not imported: what it does to a process that forks is a warning.
installed = pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
every = pytest.mark.parametrize(
    "server",
    [pytest.param(name, marks=installed) if name == "eventlet" else name for name in KINDS],
    indirect=True,
)
waiting = pytest.mark.parametrize("way", ["sync", "async"])
writing = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """The servers that were asked for, running until this module is over."""
    directory = tmp_path_factory.mktemp("cooperative")
    with ExitStack() as stack:
        running: dict[str, Running] = {}

        def start(name: str) -> Running:
            if name not in running:
                own = {"http10": "stream"} if name == "eventlet" else {}
                running[name] = stack.enter_context(started(KINDS[name], directory, **OPTIONS, **own))
            return running[name]

        yield start


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Callable[[str], Running]) -> Running:
    name: str = request.param
    return servers(name)


@pytest.fixture
def key() -> str:
    return f"k{next(_numbers)}"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def told(server: Running, key: str, what: str) -> list[object]:
    """What the journal says of all streams whose keys begin so."""
    lines = [line for line in server.lines() if line["what"] == what]
    return [line["detail"] for line in lines if line["key"].startswith(f"{key}-")]


def begun(server: Running, stack: ExitStack, key: str, path: str, number: int = 1) -> dict[Connection, bytes]:
    """So many streams, each with its first chunk, and what came with it."""
    sign = "&" if "?" in path else "?"
    connections = [
        stack.enter_context(server.ask(f"/{path}{sign}key={key}-{index}")) for index in range(number)
    ]
    for connection in connections:
        connection.head()
    return {connection: connection.read_until(b"0\n") for connection in connections}


def whole(server: Running, path: str) -> bytes:
    with server.ask(f"/{path}") as connection:
        return connection.reply().body


def never_comes(connection: Connection, read: Callable[[], object], cause: str) -> None:
    connection.socket.settimeout(NEVER)
    try:
        read()
    except TimeoutError:
        return
    pytest.fail(f"it holds; take it off the list: {cause}")


def answers_promptly(server: Running) -> None:
    began = time.monotonic()
    for _ in range(50):
        assert whole(server, "plain") == b"plain\n"
    assert time.monotonic() - began < PROMPT


def all_have_left(server: Running, key: str, number: int) -> None:
    def ended() -> bool:
        return min(len(told(server, key, what)) for what in ("stopped", "finish")) >= number

    poll(ended, bound=PATIENCE, what=f"the end of {number} streams")
    assert len(told(server, key, "stopped")) == number
    assert Counter(told(server, key, "finish")) == {"disconnected": number}


@every
@waiting
def test_a_hundred_idle_streams_leave_the_hub_to_ordinary_requests(
    server: Running, way: str, key: str, stack: ExitStack
) -> None:
    connections = begun(server, stack, key, f"events?way={way}", STREAMS)
    answers_promptly(server)
    assert int(whole(server, "threads")) < FEW
    for connection in connections:  # each has its heartbeats all the same
        connection.read_until(b":\n:\n")
        connection.close()
    all_have_left(server, key, STREAMS)


@every
@writing
def test_a_producer_that_waits_for_room_does_not_block_the_hub(
    server: Running, way: str, key: str, stack: ExitStack
) -> None:
    flood = stack.enter_context(server.ask(f"/flood?way={way}&key={key}-0", receive_buffer=64 * 1024))
    poll(lambda: told(server, key, "started"), bound=PATIENCE, what="the flood")
    answers_promptly(server)
    assert told(server, key, "stopped") == [], "it waits"
    flood.reset()
    all_have_left(server, key, 1)


@every
def test_a_body_arrives_whole_beside_ordinary_requests(server: Running, key: str, stack: ExitStack) -> None:
    streams = {way: begun(server, stack, f"{key}-{way}", f"ten?way={way}") for way in WAYS}
    answers_promptly(server)
    for way, stream in streams.items():
        ((connection, body),) = stream.items()
        if b"9\n" not in body:
            body += connection.read_until(b"9\n")
        assert body == TEN, way
        if (server.kind.name, way) == ("eventlet", "imperative"):
            never_comes(connection, partial(list, connection.chunks()), UNENDED)
        else:
            assert list(connection.chunks()) == [], way
            assert connection.ending is Ending.COMPLETE, way
    poll(lambda: told(server, key, "finish") == ["finished"] * 4, bound=PATIENCE, what="the outcomes")


@pytest.mark.parametrize("server", ["gunicorn gevent", "gevent pywsgi"], indirect=True)
def test_a_request_may_run_a_loop_of_its_own_while_asynchronous_producers_wait(
    server: Running, key: str, stack: ExitStack
) -> None:
    """All greenlets of a thread would take the loop of those producers for theirs."""
    begun(server, stack, key, "events?way=async", 3)
    assert [whole(server, "loop") for _ in range(5)] == [b"ran\n"] * 5
    begun(server, stack, f"{key}-twin", "events?way=twin", 3)
    assert [whole(server, "loop") for _ in range(5)] == [b"ran\n"] * 5


@every
@writing
def test_chunks_arrive_while_more_are_made_and_a_leave_between_them_is_noticed(
    server: Running, way: str, key: str, stack: ExitStack
) -> None:
    for connection, leave in zip(begun(server, stack, key, f"text?way={way}", 6), LEAVES * 3, strict=True):
        leave(connection)
    all_have_left(server, key, 6)


@every
@waiting
def test_a_leave_of_an_idle_client_is_noticed_within_the_heartbeat(
    server: Running, way: str, key: str, stack: ExitStack
) -> None:
    for connection, leave in zip(begun(server, stack, key, f"events?way={way}", 6), LEAVES * 3, strict=True):
        leave(connection)
    all_have_left(server, key, 6)


@every
@waiting
def test_shutdown_waits_for_the_streams_and_the_hub_goes_on(
    server: Running, way: str, key: str, stack: ExitStack
) -> None:
    events = begun(server, stack, key, f"events?way={way}", 5)
    (text,) = begun(server, stack, key, f"text?way={way}")
    asking = stack.enter_context(server.ask("/shutdown?grace=1"))
    answers_promptly(server)
    assert asking.reply().body == b"true", "all had ended when it returned"
    for connection, first in events.items():
        body = first + b"".join(chunk.payload for chunk in connection.chunks())
        assert FAREWELL.fullmatch(body), "a farewell, perhaps after some heartbeats"
        assert connection.ending is Ending.COMPLETE
    list(text.chunks())
    assert text.ending is Ending.TRUNCATED


@installed
def test_eventlet_needs_http10_to_be_streamed(tmp_path: Path, stack: ExitStack) -> None:
    with started(KINDS["eventlet"], tmp_path, **OPTIONS) as server:
        (connection,) = begun(server, stack, "k", "ten")
        is_late = told(server, "k", "stopped") == [None]  # its first chunk comes after the last was made
        assert is_late, f"it is streamed without; say so, in place of: {HELD}"
        assert connection.framing is Framing.LENGTH


@waiting
def test_an_app_that_is_imported_before_gevent_patches_blocks_nothing(
    way: str, tmp_path: Path, stack: ExitStack
) -> None:
    """gunicorn's worker patches its process late; what `--preload` has imported has real locks by then."""
    kind = Kind("preloaded", f"{GUNICORN} --worker-class=gevent --preload {WSGI}")
    with started(kind, tmp_path, **OPTIONS, max_streams=STREAMS) as server:
        for connection in begun(server, stack, "idle", f"events?way={way}", STREAMS):
            connection.read_until(b":\n")
            connection.close()
        answers_promptly(server)
        all_have_left(server, "idle", STREAMS)
