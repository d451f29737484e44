"""Every ending over TLS that the server itself ends: what holds on a TCP port has to hold here.

Rule: the checks are those of `test_every`, asked through another door; what only TLS has is asked
here besides. A cell holds, or is listed with its cause.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from .doors import (
    TLS,
    Behind,
    TLSConnection,
    all_asked,
    collected,
    self_signed,
    stalled_is_let_go,
)
from .every import Check, Faults
from .launch import poll
from .test_every import CHECKS, LISTED, PATIENCE, at_the_end
from .wire import Ending

pytestmark = [pytest.mark.server, pytest.mark.system]


def leave_without_notice(server: Behind) -> None:
    """A client that closes without close_notify, of a stream that says nothing."""
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=vanish&type=text")
        connection.head()
        connection.read_until(b"0\n")
        assert isinstance(connection, TLSConnection)
        connection.vanish()
        assert at_the_end(server, "vanish").outcomes == ["disconnected"]


def unread_records_are_no_leave(server: Behind) -> None:
    """A client that is there is not taken for gone, whatever lies unread on its connection."""
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=there&type=text&max_duration=2")
        connection.head()
        connection.read_until(b"0\n")
        connection.ask("GET", "/plain")
        assert at_the_end(server, "there").outcomes == ["timed_out"]


def half_without_framing(server: Behind) -> None:
    """Where a body's end is the connection's, close_notify is what half a body must lack."""
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/after?key=half", "1.0", {"Connection": "close"})
        assert connection.head().status == 200
        for _ in connection.chunks():
            pass
        assert connection.ending is Ending.TRUNCATED


def sigterm_read_on(server: Behind) -> None:
    """As `sigterm`, with a client that reads to the end, and closes then."""
    with server.connect(patience=PATIENCE) as connection:
        connection.ask("GET", "/idle?key=sigterm&type=events&heartbeat=none")
        connection.head()
        connection.read_until(b"0\n")
        server.child.send_signal(signal.SIGTERM)
        for _ in connection.chunks():
            pass
    poll(lambda: server.child.poll() is not None, bound=15, what="the server's end")


OWN: dict[str, Check] = {
    ask.__name__: ask
    for ask in (stalled_is_let_go, leave_without_notice, unread_records_are_no_leave, half_without_framing)
}
ASKED: dict[str, Check] = {
    **OWN,
    **{
        name: sigterm_read_on if name == "sigterm" else ask
        for name, ask in CHECKS.items()
        if name not in ("context", "max_duration")  # the same behind any door
    },
}

# By what each server is called in the table of `test_every`.
CALLED = {"hypercorn": "hypercorn asgi", "hypercorn, HTTP/2": "hypercorn asgi, HTTP/2"}
NO_NOTICE = "The server closes without close_notify: a client cannot tell a whole body without framing."
NOTICE = "The server sends close_notify whatever has happened: a body without framing looks whole."
LISTED_HERE = {
    **{(door, "http_1_0_closing"): NO_NOTICE for door in ("gunicorn gthread", "gunicorn gevent", "cheroot")},
    **{
        (door, "half_without_framing"): NOTICE
        for door in ("hypercorn", "uvicorn h11")  # with httptools it is chunked, to HTTP/1.0 too
    },
}
# The first closes its TLS in order, and waits for its client as long as it has patience; the other
# lets go of it in any case.
NOT_ASKED = {("hypercorn", "stalled_is_let_go"), ("gunicorn gevent", "stalled_is_let_go")}
CELLS = [
    (door, ask)
    for door, kind in TLS.items()
    for ask in ASKED
    if not kind.http2 or not (ask in OWN or ask.startswith("http_1_0"))  # HTTP/2 frames every body
    if (door, ask) not in NOT_ASKED
]


@pytest.fixture(scope="module")
def over_tls(
    request: pytest.FixtureRequest,
    system_program: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[Faults]]]:
    directory = tmp_path_factory.mktemp("tls")
    credentials = self_signed(system_program("openssl"), directory)
    with all_asked(TLS, collected(request, ASKED), credentials, directory) as running:
        yield running


@pytest.mark.parametrize("cell", CELLS, ids=[f"{ask}-{door}" for door, ask in CELLS])
def test_over_tls_a_cell_holds_or_is_listed_with_its_cause(
    over_tls: dict[str, Future[Faults]], cell: tuple[str, str]
) -> None:
    door, ask = cell
    fault = over_tls[door].result()[ask]
    cause = LISTED_HERE.get(cell) or LISTED.get((CALLED.get(door, door), ask))
    if cause is None and fault is not None:
        raise fault
    assert cause is None or fault is not None, f"it holds; take it off the list: {cause}"
