"""Where each interface's errors are logged that nobody else will see.

Rule: what the server will raise and log itself is not logged here.
"""

from __future__ import annotations

import logging

from ..core.base import BaseStream
from ..errors import ClientDisconnected

WSGI_LOG = logging.getLogger("streamkit.wsgi")
ASGI_LOG = logging.getLogger("streamkit.asgi")


def log_of(stream: BaseStream) -> logging.Logger:
    """The log of the interface that carries this stream."""
    log: logging.Logger = getattr(stream, "_log", WSGI_LOG)
    return log


def log_error(stream: BaseStream, what: str, error: BaseException) -> None:
    """Log an error that nobody else will see."""
    if isinstance(error, ClientDisconnected):
        log_of(stream).debug("%s: the client has left", what)
    else:
        log_of(stream).error("%s", what, exc_info=error)
