"""A writer that sends in the place of its server's thread, which would only be woken for it.

To wake a thread takes longer than to send a chunk, and a stream that has something to say now
and then would pay for it each time. While the server's thread waits in `next()` for our body,
whoever writes does with the chunk what the server would, and the server's thread waits on.

Rule: only where that is known to the last step, since the loop over the body is the server's
own and the body in it is ours; only for a chunk that the connection takes at once. Whoever
sends has taken the reader's waker, so to everybody else the reader is at work.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from .channel import Channel
from .line import system_poll

IDLE_SECONDS = 0.0005  # in a burst no reader waits for so long; it merges what has come, and sends less often
LONGEST = 4096  # bytes; `poll` tells of room when a third of a connection's is free, at least 5 KiB on Linux


class StandIn:
    """Sends what is written to a stream whose reader waits."""

    __slots__ = ("_error", "_looking", "_send", "_takes", "since")

    def __init__(self, send: Callable[[bytes], object], descriptor: int, poll: Callable[[], Any]) -> None:
        self._send = send
        self._looking = poll()
        self._looking.register(descriptor, select.POLLOUT)
        self._takes = [(descriptor, select.POLLOUT)]  # what is said of a connection that takes some
        self.since = monotonic()  # when the reader began to wait
        self._error: OSError | None = None  # what the server has raised, for its own thread

    def sends(self, stream: Channel, chunk: bytes) -> bool:
        """Whether it has sent the chunk; if not, the reader is to. The mutex is held before and after."""
        is_fast = monotonic() - self.since < IDLE_SECONDS
        if is_fast or len(chunk) > LONGEST or self._looking.poll(0) != self._takes:
            return False
        stream._hand_over(chunk)
        wake, stream._wake = stream._wake, None
        is_whole = False
        try:
            stream._mutex.release()
            self._send(chunk)
            is_whole = True
        except OSError as error:
            self._error = error
        finally:
            try:
                stream._mutex.acquire()
            finally:
                stream._wake = wake  # also where the thread is interrupted: nothing else wakes the reader
            self._look_after(stream, is_whole)
        return True

    def _look_after(self, stream: Channel, is_whole: bool) -> None:
        """Let the reader wait on, if there is nothing for it to do."""
        if self._error is not None:
            stream._leave_now()
        elif not is_whole:  # what follows would be taken for the rest of this chunk
            stream._chunks = []
            stream._end_now(stream._error or ConnectionAbortedError("a write was interrupted in its midst"))
        elif stream._chunks or stream._done or not stream._connected:
            stream._wake_reader()
        else:
            self.since = monotonic()

    def raise_error(self) -> None:
        """Raise what the server has raised in its thread's absence, once."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame


def stand_in_for(body: object, loop: FrameType | None) -> StandIn | None:
    """Who may send what is written to this body; `loop` is where the server goes through it.

    Servers that are written in C, as uWSGI and mod_wsgi, do so with nothing of Python below.
    """
    if loop is None or loop.f_globals.get("__name__") != "gunicorn.workers.gthread":
        return None
    kind, poll = sys.modules["gunicorn.http.wsgi"].Response, system_poll()
    within = list(loop.f_locals.values())
    answer = next((one for one in within if type(one) is kind), None)
    if answer is None or poll is None or type(answer.sock).__module__ != "socket":
        return None  # what is encrypted may wait for its client, and gevent's sockets for their hub
    if not any(one is body for one in within):
        return None  # something stands between that the server goes through, and that would not hear of it
    return StandIn(answer.write, answer.sock.fileno(), poll)
