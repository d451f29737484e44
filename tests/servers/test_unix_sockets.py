"""Every ending over unix-domain sockets: asked directly, and by nginx.

Rule: the checks are those of `test_every`. What nginx hides of the server behind it (HTTP/1.0, the
500 of its own) is not asked of it; that its client left is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest

from .doors import UNIX, Behind, all_asked, collected, opened, stalled_is_let_go
from .every import Check, Faults
from .launch import running
from .test_every import CHECKS, LISTED, MOST, PATIENCE, TEXT, at_the_end
from .test_nginx import nginx_command
from .wire import Connection, Ending

pytestmark = pytest.mark.server

ASKED: dict[str, Check] = {
    "stalled_is_let_go": stalled_is_let_go,
    **{name: ask for name, ask in CHECKS.items() if name not in ("context", "max_duration")},
}
CALLED = {"hypercorn": "hypercorn asgi"}  # in the table of `test_every`
# waitress keeps the connection of such a client, and the others let go of it in any case.
CUTS = ("uvicorn h11", "uvicorn httptools")
CELLS = [(door, ask) for door in UNIX for ask in ASKED if ask != "stalled_is_let_go" or door in CUTS]


@pytest.fixture(scope="module")
def over_unix(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Faults]]]:
    logs = tmp_path_factory.mktemp("unix")
    with all_asked(UNIX, collected(request, ASKED), None, logs) as running:
        yield running


@pytest.mark.parametrize("cell", CELLS, ids=[f"{ask}-{door}" for door, ask in CELLS])
def test_over_a_unix_socket_a_cell_holds_or_is_listed_with_its_cause(
    over_unix: dict[str, Future[Faults]], cell: tuple[str, str]
) -> None:
    door, ask = cell
    fault = over_unix[door].result()[ask]
    cause = LISTED.get((CALLED.get(door, door), ask))
    if cause is None and fault is not None:
        raise fault
    assert cause is None or fault is not None, f"it holds; take it off the list: {cause}"


# Behind nginx, which speaks HTTP/1.0 to them, or 1.1.

LOCATION = """
        location /{version}/{number}/ {{
            proxy_pass http://unix:{path}:/;
            proxy_http_version {version};
            {connection}
        }}
"""
VERSIONS = {"1.0": "", "1.1": 'proxy_set_header Connection "";'}

behind = pytest.mark.parametrize("door", list(UNIX))
by_version = pytest.mark.parametrize("version", list(VERSIONS))


class Gateway:
    """An nginx, and the servers behind it."""

    def __init__(self, port: int, servers: dict[str, Behind]) -> None:
        self.port, self.servers = port, servers

    def path(self, door: str, version: str, rest: str) -> str:
        return f"/{version}/{list(UNIX).index(door)}/{rest}"


@pytest.fixture(scope="module")
def unix_gateway(
    system_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    program = system_program("nginx")
    directory: Path = tmp_path_factory.mktemp("nginx-unix")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(opened(door, None, directory)) for name, door in UNIX.items()}
        locations = "".join(
            LOCATION.format(version=version, number=number, path=server.place.path, connection=connection)
            for number, server in enumerate(servers.values())
            for version, connection in VERSIONS.items()
        )

        command = nginx_command(program, directory, locations)
        port, _ = stack.enter_context(running(command, directory / "output.log"))
        yield Gateway(port, servers)


@pytest.mark.system
@behind
@by_version
def test_a_stream_is_whole_through_nginx_and_a_unix_socket(
    unix_gateway: Gateway, door: str, version: str
) -> None:
    with Connection(unix_gateway.port, patience=PATIENCE) as connection:
        connection.ask("GET", unix_gateway.path(door, version, f"ten?key=ten-{version}"))
        reply = connection.reply()
    assert (reply.status, reply.body, reply.ending) == (200, TEXT, Ending.COMPLETE)


@pytest.mark.system
@behind
@by_version
@pytest.mark.parametrize("what", ["endless", "idle"])
def test_a_leave_is_seen_through_nginx_and_a_unix_socket(
    unix_gateway: Gateway, door: str, version: str, what: str
) -> None:
    key = f"leave-{what}-{version}"
    with Connection(unix_gateway.port, patience=PATIENCE) as connection:
        connection.ask("GET", unix_gateway.path(door, version, f"{what}?key={key}"))
        connection.head()
        connection.read_until(b"0\n")
        connection.reset()
    assert at_the_end(unix_gateway.servers[door], key).outcomes == ["disconnected"]


@pytest.mark.system
@behind
@by_version
def test_write_timeout_gives_up_an_nginx_that_takes_nothing_from_a_unix_socket(
    unix_gateway: Gateway, door: str, version: str
) -> None:
    key = f"stalled-{version}"
    server = unix_gateway.servers[door]
    with Connection(unix_gateway.port, patience=PATIENCE, receive_buffer=64 * 1024) as connection:
        connection.ask("GET", unix_gateway.path(door, version, f"flood?key={key}&write_timeout=1"))
        record = at_the_end(server, key)
    assert record.outcomes == ["timed_out"]
    assert record.written < MOST
