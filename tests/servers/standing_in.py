"""gunicorn's own worker thread, with an ear for who gives it what, for the tests of stand-ins.

Rule: the loop and the response are gunicorn's; only who asks for them, and hears of a write, is ours.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from driving import PATIENCE
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn, ThreadWorker

from streamkit.engines import stand_in

from .wire import Connection

SERVER = "gunicorn's thread"


@dataclass
class Seen:
    """What gunicorn was given, and by whom."""

    writes: list[tuple[str, bytes]] = field(default_factory=list)
    answers: list[weakref.ref[Response]] = field(default_factory=list)
    before: Callable[[bytes], object] = lambda chunk: None  # called by whoever writes, before gunicorn
    after: Callable[[bytes], object] = lambda chunk: None

    def by(self, thread: str) -> list[bytes]:
        return [chunk for name, chunk in self.writes if name == thread]


@pytest.fixture(name="seen")
def seen_by_gunicorn(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Every reader that waits is stood in for, however short it has waited."""
    seen, write = Seen(), Response.write

    def noted(self: Response, chunk: bytes) -> None:
        seen.writes.append((threading.current_thread().name, chunk))
        seen.answers.append(weakref.ref(self))
        if threading.current_thread().name != SERVER:
            seen.before(chunk)
        write(self, chunk)
        if threading.current_thread().name != SERVER:
            seen.after(chunk)

    monkeypatch.setattr(Response, "write", noted)
    monkeypatch.setattr(stand_in, "IDLE_SECONDS", 0)
    return seen


@contextmanager
def gunicorn(app: Any, kind: type[socket.socket] = socket.socket) -> Iterator[tuple[int, Future[object]]]:
    """One connection to gunicorn's worker with this application: its port, and when it has been served."""
    config = Config()
    worker = ThreadWorker.__new__(ThreadWorker)
    worker.cfg, worker.log, worker.wsgi, worker.alive = config, Logger(config), app, True
    worker.nr, worker.max_requests, worker.keepalived_conns, worker.max_keepalived = 0, 1 << 30, deque(), 10

    def serve() -> object:
        threading.current_thread().name = SERVER
        accepted, address = listener.accept()
        with kind(fileno=accepted.detach()) as peer:
            return worker.handle(TConn(config, peer, address, listener.getsockname()))

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        listener.settimeout(PATIENCE)
        served = threads.submit(serve)
        yield listener.getsockname()[1], served
        assert not wait_for([served], PATIENCE).not_done, "gunicorn's thread is still at it"


def ask(port: int, **more: Any) -> Connection:
    connection = Connection(port, **more)
    connection.ask("GET", "/", fields={"Accept-Encoding": "gzip"})
    return connection


def is_parked(stream: Any) -> bool:
    """Whether the server's thread waits for the next chunk."""
    with stream._mutex:
        return stream._wake is not None and stream._stand_in is not None
