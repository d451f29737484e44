"""The connection behind a WSGI request, where the server hands it over.

PEP 3333 knows no leave: a server learns of one by writing. Several servers put their socket
into the environ all the same; with it a leave is seen without a write, and a client that
takes nothing can be cut off.

Rule: nothing is read from the connection and nothing written to it; only its state is asked
for, while the server's own thread waits for us.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from ..types import Environ

# Linux tells of a half-closed connection in so many words; elsewhere heartbeats have to do.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Line:
    """One client's connection."""

    __slots__ = ("_asked", "_descriptor")

    def __init__(self, descriptor: int | None, asked: Callable[[], bool] | None = None) -> None:
        self._descriptor = descriptor
        self._asked = asked

    def left(self) -> bool:
        """Whether the client has closed its side, as far as can be seen."""
        if self._asked is not None:
            return bool(self._asked())
        poll = system_poll()
        if self._descriptor is None or poll is None or not _HUNG_UP:
            return False
        looking = poll()
        looking.register(self._descriptor, _HUNG_UP)
        return any(event & (_HUNG_UP | select.POLLHUP | select.POLLERR) for _, event in looking.poll(0))

    def cut(self) -> bool:
        """Close the connection under the server, which finds it so at its next or current write."""
        if self._descriptor is None:
            return False
        with socket.socket(fileno=os.dup(self._descriptor)) as copy:
            try:
                copy.shutdown(socket.SHUT_RDWR)
            except OSError:
                return False  # it has ended by itself
        return True


def system_poll() -> Callable[[], Any] | None:
    """The system's own `poll`: gevent's tells nothing of half-closed connections, eventlet has none."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        original: Callable[[], Any] | None = monkey.get_original("select", "poll")
        return original
    return getattr(select, "poll", None)


def line_of(environ: Environ) -> Line | None:
    """The connection of a stream that is about to begin; None where the server keeps it to itself."""
    if "eventlet.input" in environ:  # no chunk is to wait in its server
        environ["eventlet.minimum_write_chunk_size"] = 1  # bytes; it gathers 4096 otherwise
    asked = environ.get("waitress.client_disconnected")
    if asked is not None:
        return Line(None, asked)
    if "uwsgi.version" in environ:
        return Line(importlib.import_module("uwsgi").connection_fd())
    found: Any = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if found is None:
        stream = environ.get("wsgi.input")
        # wsgiref hands over its own reader; cheroot and gevent one around it.
        raw = getattr(stream, "raw", None) or getattr(getattr(stream, "rfile", None), "raw", None)
        found = getattr(raw, "_sock", None)
    if found is None:
        return None
    try:
        descriptor = found.fileno()
    except (OSError, ValueError, AttributeError):
        return None
    return Line(descriptor) if descriptor >= 0 else None
