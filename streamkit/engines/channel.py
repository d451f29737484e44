"""The way of the bytes from a producer to a reader in another thread.

A list of chunks and the room that is left, behind one mutex. Chunks are handed over one
by one while the reader keeps up; those that wait for it travel together. The end is a
flag, not an item: nothing that says "over" can ever wait for room.

Rule: the mutex guards these few fields for a few instructions; no hook, no producer and no
server is called under it. The stream does not know its reader, only how to wake it once,
so a reader that was dropped is reclaimed and the producer told.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from ..core.base import BaseStream
from ..core.commit import State, after
from ..core.framing import Body, Request
from ..core.response import StreamingResponse
from ..errors import (
    BodyTooShort,
    ClientDisconnected,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamError,
)
from ..options import Options
from ..types import Outcome
from .care import heartbeat_of, look_at_channel
from .ending import last_words, log_error, log_of
from .line import Line
from .waits import reached

Wake: TypeAlias = Callable[[], object]


class Carrier(Protocol):
    """Who sends what is read, where that can be interrupted."""

    def ended_early(self) -> None: ...

    def give_up(self) -> None: ...


class Channel(BaseStream):
    """The fields that both sides share, and what may be done with them."""

    # What each chunk touches is in slots: on CPython 3.11 a default on the class makes an
    # attribute several times as slow.
    __slots__ = (
        "_chunks",
        "_direct",
        "_done",
        "_error",
        "_high_water",
        "_mutex",
        "_room",
        "_tail",
        "_taken_bytes",
        "_wake",
        "_writers",
    )

    _refusal: StreamError | None = None  # what every further write raises
    _line: Line | None = None  # the connection, where a WSGI server hands it over
    _carrier: Carrier | None = None  # who sends what is read, under ASGI
    _pulling: bool = False  # its reader is in the producer
    _committer: int | None = None  # the thread or task whose hooks run before the commit

    def __init__(
        self,
        options: Options,
        request: Request,
        log: logging.Logger,
        response: StreamingResponse | None = None,
        high_water: int | None = None,
    ) -> None:
        self.options = options
        self.request = request
        self._log = log
        if response is not None:
            self.response = response
            self._status = response.status
            self._pairs = response.headers
        self._mutex = self._new_mutex()
        self._chunks: list[bytes] = []
        self._high_water = self._room = options.high_water if high_water is None else high_water
        self._writers: list[Wake] = []  # wake the writers that wait for room
        self._wake: Wake | None = None  # wakes the reader that is parked
        self._direct = False  # a plain write of bytes needs no further check
        self._done = False  # no chunk will follow
        self._error: BaseException | None = None  # what the reader has to raise at the end
        self._taken_bytes = 0
        self._tail = b"\n\n"

    @staticmethod
    def _new_mutex() -> threading.Lock:
        return threading.Lock()

    # -- the writer's side

    def _commit_now(self) -> None:
        """Fix the head and let the reader send it; the mutex is held."""
        self._fix_head_here()
        self._wake_reader()
        reached(self, "_when_committed")

    def _fix_head_here(self) -> None:
        self._fix_head()
        held_or_sent = self._body is Body.STREAM or self._body is Body.WHOLE
        self._direct = held_or_sent and self._limit is None and self._connected

    def _append(self, chunk: bytes) -> None:
        """Take the chunk; the mutex is held."""
        size = len(chunk)
        self._chunks.append(chunk)
        self._room -= size
        if self._limit is not None:
            self._accepted += size
        self._wake_reader()

    def _wake_reader(self) -> None:
        wake = self._wake
        if wake is not None:
            self._wake = None
            wake()

    def _wake_writers(self) -> None:
        writers = self._writers
        if writers:
            self._writers = []
            for wake in writers:
                wake()

    def _must_wait(self) -> bool:
        """Whether the writer waits for the reader; raises if it never will read. The mutex is held."""
        if not self._connected and not self.ignore_disconnect:
            raise ClientDisconnected
        if self._abort is not None:
            raise StreamClosed(f"the stream was ended during the write: {self._abort}")
        if self._ending is not None and self._connected:
            raise self._ending
        return self._room < 0 and self._connected

    def _claim(self, outcome: Outcome) -> bool:
        with self._mutex:
            if self._outcome is not None:
                return False
            self._outcome = outcome
        self._go_home()
        return True

    def _admits(self, size: int) -> bool:
        if self._refusal is not None:
            raise self._refusal
        return super()._admits(size)

    def _complete(self) -> BodyTooShort | None:
        """End a committed body; the error of one that is too short, which has not ended then."""
        with self._mutex:
            if self._state is not State.COMMITTED:
                return None
            error = self._shortfall()
            if error is None:
                self._end_now(None)
        return error

    def abort(self, reason: object = None) -> None:
        """Cut the response short, so that no client takes it for whole. Idempotent, never waits."""
        with self._mutex:
            if self.closed:
                return
            self._abort = StreamAborted(reason)
            self._chunks = []
            self._state = after(self._state, "abort")
            self._error = self._abort
            self._finish()
            self._wake_writers()

    def _end(self, error: BaseException | None) -> None:
        """No chunk will follow; with an error, the reader raises it after the last one."""
        with self._mutex:
            unheard = error is not None and not self._connected
            if not self.closed:
                self._end_now(None if unheard else error)
        if unheard:
            self._log_unheard(error)

    def _log_unheard(self, error: BaseException | None) -> None:
        """Log an error that was for a reader who is gone."""
        if error is not None and error is not self._abort and error is not self._ending:
            log_error(self, "the producer failed while its client was leaving", error)

    def _end_now(self, error: BaseException | None) -> None:
        self._error = error
        self._state = State.ABORTED if error is not None or self._state is State.STARTED else State.FINISHED
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._direct = False
        self._wake_reader()
        reached(self, "_when_committed")  # or it never will be

    def refuse(self, error: StreamError) -> None:
        """The reader takes no more: every write raises `error` from now on."""
        with self._mutex:
            self._refusal = error
            self._chunks = []
            self._room = self._high_water
            self._direct = False
            self._wake_writers()

    # -- the clock's side

    def _look(self, now: float) -> None:
        look_at_channel(self, now)

    def beat_now(self) -> None:
        """Send a heartbeat, where the body has one and has paused; the mutex is held."""
        if self._chunks or self._done or not self._connected:
            return
        beat = heartbeat_of(self)
        if beat is not None:
            self._chunks.append(beat)
            self._room -= len(beat)
            self._wake_reader()

    def beat(self) -> None:
        """`beat_now`, from elsewhere."""
        with self._mutex:
            self.beat_now()

    def end_early(self, ending: StreamEnded) -> None:
        """End the stream whatever its producer does; what waits is sent, and then its last words."""
        with self._mutex:
            if self.closed or self._ending is not None:
                return
            self._ending = ending
            self._direct = False
        # No write is admitted any more, so the tail stands; completions are application code.
        words, clean = last_words(self, ending)
        with self._mutex:
            if not self.closed:
                if words and self._connected:
                    self._chunks.append(words)
                self._lingers = bool(words) and not clean
                self._end_now(None if clean else ending)
            self._wake_writers()
        if self._carrier is not None:
            self._carrier.ended_early()

    def give_up(self, ending: StreamEnded) -> None:
        """The client takes nothing: it is as good as gone."""
        if self._ending is None:
            self._ending = ending
        self._given_up = True
        log_of(self).debug("%s", ending)
        self.leave()
        if self._carrier is not None:
            self._carrier.give_up()
        else:
            with self._mutex:
                # Before its outcome is set the server has not closed the connection, nor opened another.
                if self._line is not None and self._outcome is None:
                    self._line.cut()
            self._settle_elsewhere()

    def _settle_elsewhere(self) -> None:
        """Tell whom the end concerns, though the server's thread may be stuck for good."""
        raise NotImplementedError

    # -- the reader's side

    def _take(self) -> bytes:
        """All that waits, in one piece; the mutex is held."""
        chunks = self._chunks
        self._chunks = []
        self._room = self._high_water
        if self._writers:
            self._wake_writers()
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._hand_over(chunk)
        return chunk

    def _hand_over(self, chunk: bytes) -> None:
        """Note what the server gets."""
        self._taken_bytes += len(chunk)
        self._tail = chunk[-2:]

    def wait_head(self, timeout: float | None = None) -> bool:
        """Wait in a thread until the head is fixed or the producer has ended; False after `timeout`."""
        return self._park(self._head_is_settled, timeout)

    def next_chunk(self) -> bytes | None:
        """Wait in a thread for what comes next; None at the end. Raises the producer's error."""
        while True:
            with self._mutex:
                if self._chunks:
                    return self._take()
                if self._done or not self._connected:
                    break
                signal = threading.Lock()
                signal.acquire()
                self._wake = signal.release
            signal.acquire()
        self.raise_error()
        if self._given_up and self._ending is not None:
            raise self._ending  # the client may come to life again, and take half a body for whole
        return None

    def _park(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        with self._mutex:
            if ready():
                return True
            signal = threading.Lock()
            signal.acquire()
            self._wake = signal.release
        signal.acquire(timeout=-1 if timeout is None else timeout)
        with self._mutex:
            self._wake = None
            return ready()

    async def wait_head_async(self, timeout: float | None = None) -> bool:
        """`wait_head` on a loop."""
        with self._mutex:
            if self._head_is_settled():
                return True
            future = self._park_on_loop()
        if timeout is None:
            await future
        else:
            timer = asyncio.get_running_loop().call_later(timeout, _resolve, future)
            try:
                await future
            finally:
                timer.cancel()
        with self._mutex:
            self._wake = None
            return self._head_is_settled()

    def _head_is_settled(self) -> bool:
        return self._head is not None or self._done or not self._connected

    async def next_chunk_async(self) -> bytes | None:
        """`next_chunk` on a loop."""
        while True:
            with self._mutex:
                if self._chunks:
                    return self._take()
                if self._done or not self._connected:
                    break
                future = self._park_on_loop()
            await future
        self.raise_error()
        return None

    def _park_on_loop(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:  # the loop was closed under its request: nobody reads any more
                self._connected = self._direct = False
                self._wake_writers()

        self._wake = wake
        return future

    def raise_error(self) -> None:
        """Raise what ended the stream, once."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    @property
    def ended(self) -> bool:
        """Whether the reader has had everything, and the end is a clean one."""
        return self._done and not self._chunks and self._error is None

    def leave(self) -> None:
        """The reader is gone: nothing more is taken, and whoever waits is told."""
        with self._mutex:
            self._connected = self._direct = False
            self._chunks = []
            self._wake_reader()
            self._wake_writers()
            error, self._error = self._error, None
        self._log_unheard(error)

    def abandon(self) -> None:
        """`leave` for a destructor, which may run in the midst of anything."""
        # The collector may have interrupted this very thread under this very mutex.
        if self._mutex.acquire(blocking=False):
            self._mutex.release()
            self.leave()
        else:
            _thread.start_new_thread(self.leave, ())

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body that were handed to the server."""
        return self._taken_bytes

    def tell(self) -> int:
        """Bytes written so far."""
        with self._mutex:
            return self._taken_bytes + sum(map(len, self._chunks))

    @property
    def tail(self) -> bytes:
        with self._mutex:
            return self._chunks[-1][-2:] if self._chunks else self._tail


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
