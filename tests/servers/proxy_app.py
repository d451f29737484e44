"""What is served behind the proxies: all of `apps`, and scripts that wait for the client at each chunk.

    /sync-function/steps?key=a      "chunk 0"; and for each /release?key=a the next

Rule: scripts only; who plays them, and how, stands in `apps`. Only child processes import this file.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

from . import apps
from .apps import EVENTS, TEXT, Boom, Release, Script, Step, asgi_app, wsgi_app
from .proxies import CHUNKS

__all__ = ["asgi_app", "wsgi_app"]

LONG = b"x" * 2000  # Caddy compresses nothing that begins with fewer than 512 bytes


class Turnstile(threading.Event):
    """Lets one step through for each release, where an event lets through all that come."""

    def __init__(self) -> None:
        super().__init__()
        self._releases = threading.Semaphore(0)

    def set(self) -> None:
        self._releases.release()

    def is_set(self) -> bool:
        return self._releases.acquire(blocking=False)


def stepwise(pattern: bytes) -> Iterator[Step]:
    for number in range(CHUNKS):
        if number:
            yield Release()
        yield pattern % number


def stepwise_script(pattern: bytes, content_type: str = TEXT) -> Script:
    return Script(lambda: stepwise(pattern), content_type)


def failing() -> Iterator[Step]:
    yield b"first\n"
    yield Release()
    raise Boom("the script says so")


apps.released = defaultdict(Turnstile)
apps.SCRIPTS.update(
    {
        "steps": stepwise_script(b"chunk %d\n"),
        "steps-long": stepwise_script(b"chunk %d\n" + LONG),
        "steps-events": stepwise_script(b"data: chunk %d\n\n", EVENTS),
        "steps-events-long": stepwise_script(b"data: chunk %d\n:" + LONG + b"\n\n", EVENTS),
        "failing": Script(failing),
        "beats": Script(
            lambda: [b"data: first\n\n", Release(), b"data: second\n\n"], EVENTS, options={"heartbeat": 1}
        ),
    }
)
