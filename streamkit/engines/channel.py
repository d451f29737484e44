"""The way of the bytes from a producer to a reader in another thread.

A list of chunks and the room that is left, behind one mutex. Chunks are handed over one
by one while the reader keeps up; those that wait for it travel together. The end is a
flag, not an item: nothing that says "over" can ever wait for room.

Rule: the mutex guards these few fields for a few instructions; no hook, no producer and no
server is called under it. The stream does not know its reader, only how to wake it once,
so a reader that was dropped is reclaimed and the producer told.
"""

from __future__ import annotations

from functools import partial

from ..core.commit import State, after
from ..core.framing import Body
from ..errors import (
    BodyTooShort,
    ClientDisconnected,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamError,
)
from ..types import Outcome
from .care import heartbeat_of, is_past, out_of_time, silence_of, taken_for_gone, wants_heartbeat
from .ending import log_before_close
from .hints import Hints
from .last_words import last_words, said_after
from .line import Line
from .logs import log_of
from .pool import pool
from .reading import Reading, wait_outside
from .waits import reached


class Channel(Reading):
    """The writer's side, and the clock's."""

    __slots__ = ()

    _refusal: StreamError | None = None  # what every further write raises
    _line: Line | None = None  # the connection, where a WSGI server hands it over
    _hints: Hints | None = None  # sends 103 Early Hints, where the server can
    _short: BodyTooShort | None = None  # the error of a close that came too early

    # -- the writer's side

    def _commit_now(self) -> None:
        """Fix the head and let the reader send it; the mutex is held."""
        self._fix_head_here()
        if self._wake is not None:
            self._wake_reader()
        if self._when_committed is not None:
            reached(self, "_when_committed")

    def _fix_head_here(self) -> None:
        self._fix_head()
        held_or_sent = self._body is Body.STREAM or self._body is Body.WHOLE
        is_open = self._connected and self._put_off is None
        self._direct = held_or_sent and self._limit is None and is_open

    def _append(self, chunk: bytes) -> None:
        """Take the chunk, and tell the reader; the mutex is held."""
        self._hold(chunk)
        if self._wake is not None:
            self._wake_reader()

    def _hold(self, chunk: bytes) -> None:
        """Take the chunk; the mutex is held."""
        size = len(chunk)
        self._chunks.append(chunk)
        self._room -= size
        if self._limit is not None:
            self._accepted += size

    def _must_wait(self) -> bool:
        """Whether the writer waits for the reader; raises if it never will read. The mutex is held."""
        if not self._connected and not self.ignore_disconnect:
            raise ClientDisconnected
        if self._abort is not None:
            raise StreamClosed(f"the stream was ended during the write: {self._abort}")
        if self._ending is not None and self._connected:
            raise self._ending
        return self._room < 0 and self._connected and not self._done  # a closed stream needs no more room

    def _wait_on_thread(self) -> None:
        """Wait until the reader has taken some; the mutex is held before and after."""
        while self._must_wait():
            wait_outside(self._mutex, self)

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
        words = self._last_words()
        if self._unlogged is not None:
            log_before_close(self)
        with self._mutex:
            if self._state is not State.COMMITTED or (self._ending is not None and self._connected):
                return None  # `end_early` is at it, and knows whether this is a good end
            error = None if self._limit is None else self._shortfall()
            if error is not None:
                error = self._short = self._short or error  # one, whoever closes
            if error is None:
                if words and self._connected:
                    self._chunks.append(words)  # however much is held: a close never waits
                self._end_now(None)
        return error

    def _last_words(self) -> bytes:
        """What the body says of a good end. An error hook that closes has said what it wanted to."""
        if self.response is None or self._failure is not None or self._limit is not None:
            return b""
        if self._body is not Body.STREAM and self._body is not Body.WHOLE:
            return b""
        said = self.response.last_words("finished")
        return said_after(self.tail, said) if said else b""

    def abort(self, reason: object = None) -> None:
        """Cut the response short, so that no client takes it for whole. Idempotent, never waits."""
        with self._mutex:
            if self._is_over:
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
            if error is None and self._ending is not None and self._connected:
                return  # `end_early` is at it, and knows whether this is a good end
            unheard = error is not None and not self._connected
            if not self._is_over:
                self._end_now(None if unheard else error)
        if unheard:
            self._log_unheard(error)

    def _end_now(self, error: BaseException | None) -> None:
        self._error = error
        self._state = State.ABORTED if error is not None or self._state is State.STARTED else State.FINISHED
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._direct = False
        if self._wake is not None:
            self._wake_reader()
        if self._writers:
            self._wake_writers()
        if self._when_committed is not None:
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
        """See to silence and limits; while there is nothing to send, the reader is parked."""
        if is_past(self, now):
            self.end_soon(out_of_time(self))
        if self._is_close_due(now):
            self._close_late()
        silence = silence_of(self, self._taken_bytes, now)
        watch = self._watch
        if not silence or watch is None:
            return
        left = stuck = False
        with self._mutex:
            if self._wake is not None:
                watch.parked = now
                # Under the mutex: the server's thread is with us, so the connection is this one still.
                left = self._line is not None and self._line.left()
                if left and self._line is not None:
                    self._line.cut()  # a client that only stopped sending must not take half a body for whole
                if not left and wants_heartbeat(self, silence):
                    self.beat_now()
            else:
                # A reader that was parked a look ago may have been called just now.
                held = min(silence, now - watch.parked)
                stuck = held >= self.options.write_timeout and not self._pulling
        if left:
            self.leave()
        if stuck:
            self.give_up(taken_for_gone(self))

    def _close_late(self) -> None:
        """Close what was put off, from the clock."""
        raise NotImplementedError

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

    def end_soon(self, ending: StreamEnded) -> None:
        """`end_early` for a clock, which must not wait for what completions do."""
        try:
            pool.submit(partial(self.end_early, ending))
        except RuntimeError:
            pass  # the machine has no thread for it now; the clock comes again

    def end_early(self, ending: StreamEnded) -> None:
        """End the stream whatever its producer does; what waits is sent, and then its last words."""
        with self._mutex:
            if self._is_over or self._ending is not None:
                return
            self._ending = ending
            self._direct = False
        # No write is admitted any more, so the tail stands; completions are application code.
        words, clean = last_words(self, ending)
        with self._mutex:
            if not self._is_over:
                if words and self._connected:
                    self._chunks.append(words)
                self._lingers = bool(words) and not clean
                self._end_now(None if clean else ending)
        if self._carrier is not None:
            self._carrier.ended_early()

    def give_up(self, ending: StreamEnded) -> None:
        """The client takes nothing: it is as good as gone."""
        if not self._gives_up(ending):
            return
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
        """Tell whom the end concerns, though the server's thread may be stuck for good.

        Not where a task carries the stream: without its carrier that is at its end, and tells them.
        """
