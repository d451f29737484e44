"""The servers that the tests in this room ask.

Rule: a server is started by the first test that names it and shared by all that do; what a test
counts, it counts under a key of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .launch import KINDS, Server, serve

_numbers = itertools.count()


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """`started("waitress", threads=5)`: that server, running until the session ends."""
    directory = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        running: dict[tuple[str, int], Server] = {}

        def start(name: str, threads: int = 8) -> Server:
            if (name, threads) not in running:
                running[name, threads] = stack.enter_context(serve(name, directory, threads=threads))
            server = running[name, threads]
            assert server.child.poll() is None, f"{name} has died:\n{server.said()[-4000:]}"
            return server

        yield start


@pytest.fixture(params=list(KINDS))
def server(request: pytest.FixtureRequest, started: Callable[..., Server]) -> Server:
    """Each of the servers in turn."""
    return started(request.param)


@pytest.fixture
def key() -> str:
    """A name under which this test alone counts, and waits."""
    return f"k{next(_numbers)}"
