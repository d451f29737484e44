"""The reader's side of a channel, and the fields that both sides share.

Rule: a reader parks with one waker, under the mutex, and is woken once; it never learns who
writes. What ends a stream is raised to it once.
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..core.base import BaseStream
from ..core.commit import State
from ..core.framing import Body, Request
from ..core.response import StreamingResponse
from ..options import Options
from .compiled import STREAMS
from .logs import log_error

if TYPE_CHECKING:
    from .stand_in import StandIn

Wake: TypeAlias = Callable[[], object]

MOST_APART = 64  # chunks of a reader that is further behind travel together, whatever they are


class Waited(Protocol):
    """What threads wait for that write to it."""

    _writers: tuple[Wake, ...]  # wake the writers that wait for room


def wait_outside(mutex: threading.Lock, waited: Waited) -> None:
    """Wait in a thread until the writers are woken; the mutex is held before and after."""
    turn = threading.Lock()
    turn.acquire()
    waited._writers += (turn.release,)
    mutex.release()
    try:
        turn.acquire()
    finally:
        mutex.acquire()


class Carrier(Protocol):
    """Who sends what is read, where that can be interrupted."""

    def ended_early(self) -> None: ...

    def give_up(self) -> None: ...


class Reading(BaseStream):
    """What waits for the server, and whoever hands it over."""

    # What each chunk touches is in slots: on CPython 3.11 a default on the class makes an
    # attribute several times as slow. So is what each stream sets: else it has a dict.
    __slots__ = (
        "_abort", "_apart", "_at_work", "_body", "_bom", "_carrier", "_charset", "_chunks", "_coding",
        "_committer", "_connected", "_direct", "_done", "_ending", "_error", "_failed", "_failure", "_head",
        "_high_water", "_home", "_limit", "_log", "_mutex", "_outcome", "_pairs", "_pulling", "_room",
        "_stand_in", "_state", "_status", "_tail", "_taken_bytes", "_wake", "_watch", "_writers", "options",
        "request", "response",
    )  # fmt: skip

    def __init__(
        self,
        options: Options,
        request: Request,
        log: logging.Logger,
        response: StreamingResponse | None = None,
        high_water: int | None = None,
    ) -> None:
        self._begin()
        self.options = options
        self.request = request
        self._log = log
        self.response = response
        self._status = 200 if response is None else response.status
        self._pairs = [] if response is None else response.headers
        self._mutex = self._new_mutex()
        self._chunks: list[bytes] = []
        self._high_water = self._room = options.high_water if high_water is None else high_water

    def _begin(self) -> None:
        """Set what each stream begins with; `_streams.c` has it compiled."""
        self._state = State.STARTED
        self._body = Body.STREAM
        self._head = None
        self._outcome = None
        self._home = None
        self._watch = None
        self._carrier: Carrier | None = None  # who sends what is read, under ASGI
        self._writers: tuple[Wake, ...] = ()  # wake the writers that wait for room
        self._wake: Wake | None = None  # wakes the reader that is parked
        self._stand_in: StandIn | None = None  # sends in the place of a reader that waits
        self._direct = False  # a plain write of bytes needs no further check
        self._apart = False  # its chunks are long enough each to travel alone
        self._done = False  # no chunk will follow
        self._error: BaseException | None = None  # what the reader has to raise at the end
        self._taken_bytes = 0
        self._tail = b"\n\n"
        self._connected = True
        self._abort = self._ending = self._failure = None
        self._failed = False
        self._limit = self._charset = self._coding = None
        self._bom = b""
        self._pulling = False  # its reader is in the producer
        self._committer: int | None = None  # the thread or task whose hooks run before the commit
        self._at_work: object = None  # the thread, or the mark of the tasks, in which the producer runs

    @staticmethod
    def _new_mutex() -> threading.Lock:
        return threading.Lock()

    def _wake_reader(self) -> None:
        wake = self._wake
        if wake is not None:
            self._wake = None
            wake()

    def _wake_writers(self) -> None:
        writers = self._writers
        if writers:
            self._writers = ()
            for wake in writers:
                wake()

    def _log_unheard(self, error: BaseException | None) -> None:
        """Log an error that was for a reader who is gone."""
        if error is not None and error is not self._abort and error is not self._ending:
            log_error(self, "the producer failed while its client was leaving", error)

    def _take(self) -> bytes:
        """All that waits, in one piece, or the first of what is sent apart; the mutex is held."""
        chunks = self._chunks
        if self._apart and 1 < len(chunks) <= MOST_APART:
            chunk = chunks[0]
            self._chunks = chunks[1:]
            self._room = min(self._high_water, self._room + len(chunk))
        else:
            chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
            self._room = self._high_water
        if self._writers:
            self._wake_writers()
        self._hand_over(chunk)
        return chunk

    def _hand_over(self, chunk: bytes) -> None:
        """Note what the server gets."""
        self._taken_bytes += len(chunk)
        self._tail = chunk[-2:]

    def wait_head(self, timeout: float | None = None) -> bool:
        """Wait in a thread until the head is fixed or the producer has ended; False after `timeout`."""
        with self._mutex:
            if self._head_is_settled():
                return True
            signal = threading.Lock()
            signal.acquire()
            self._wake = signal.release
        if not signal.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            with self._mutex:
                self._wake = None
        return self._head_is_settled()

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
                stand_in = self._stand_in
                if stand_in is not None:
                    stand_in.since = monotonic()
            signal.acquire()
        stand_in = self._stand_in
        if stand_in is not None:
            stand_in.raise_error()
        self.raise_error()
        if self._given_up and self._ending is not None:
            raise self._ending  # the client may come to life again, and take half a body for whole
        return None

    async def wait_head_async(self, timeout: float | None = None) -> bool:
        """`wait_head` on a loop."""
        with self._mutex:
            if self._head_is_settled():
                return True
            future = self._park_on_loop()
        if timeout is None:
            await future
        else:
            timer = asyncio.get_running_loop().call_later(timeout, resolve, future)
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
        while (turn := self.until_next()) is not None:
            await turn
        return self.next_now()

    def until_next(self) -> asyncio.Future[None] | None:
        """What a reader on a loop has to await, and then ask again; None if `next_now` knows what comes."""
        with self._mutex:
            if self._chunks or self._done or not self._connected:
                return None
            return self._park_on_loop()

    def next_now(self) -> bytes | None:
        """What comes next, after `until_next`; None at the end. Raises the producer's error."""
        with self._mutex:
            if self._chunks:
                return self._take()
        self.raise_error()
        return None

    def _park_on_loop(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(resolve, future)
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
            self._leave_now()
            error, self._error = self._error, None
        self._log_unheard(error)

    def _leave_now(self) -> None:
        """Take nothing more, and tell whoever waits; the mutex is held."""
        self._connected = self._direct = False
        self._chunks = []
        self._wake_reader()
        self._wake_writers()

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

    def _has_begun(self) -> bool:
        return bool(self._chunks) or self._taken_bytes > 0

    @property
    def tail(self) -> bytes:
        with self._mutex:
            return self._chunks[-1][-2:] if self._chunks else self._tail


if not TYPE_CHECKING and STREAMS is not None:
    _first = Reading.__new__(Reading)
    _first._begin()
    Reading._begin = STREAMS.Begin(Reading, Reading._begin, Reading.__slots__, _first)


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
