"""A `close()` while an error is on its way: what becomes of the error tells whether the end is good.

`try: ... finally: stream.close()` must not make half a body whole. So this close is put off until
the producer is over: it failed, or had dealt with its error. A producer that goes on, and may wait
for that very end, has dealt with it when it waits by `wait_finished`, or after `LEAVES_WITHIN`.

Rule: nothing is written after it, and it is brought about once.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar, copy_context

# Where a hook of an error is at work, or what it has begun: the `_fails` of its stream.
TELLING: ContextVar[object] = ContextVar("streamkit.telling", default=None)
LEAVES_WITHIN = 0.9  # seconds from the clock's first look to the one that takes an error for dealt with


class PutOff:
    """A close that waits for what becomes of an error."""

    __slots__ = ("closer", "context", "is_late", "since")

    def __init__(self, closer: object) -> None:
        self.closer = closer  # the thread or the task that has asked for it
        self.context = copy_context()  # for the hooks of an end that the clock brings
        self.is_late = False  # the clock has brought it, while the producer went on
        self.since: float | None = None  # the clock's first look

    def is_due(self, now: float) -> bool:
        """Asked at each look of the clock: whether its error would have left by now."""
        if self.since is None:
            self.since = now
        return now - self.since >= LEAVES_WITHIN


class Closing:
    """What a stream knows of a close that was put off; `BaseStream` is the one there is."""

    _put_off: PutOff | None = None
    _fails: object = None  # its producer has failed, and that is to end it

    # Set by the stream, which has a default for each.
    _connected: bool
    _direct: bool
    _status: int

    def _puts_off_close(self, *, for_thread: bool = False) -> bool:
        """Note a close, if an error is on its way; `for_thread`: in one that the producer waits for."""
        if self._fails is not None:  # nobody but a hook may say that this is a good end, and that at once
            return TELLING.get() is not self._fails
        if sys.exc_info()[1] is None or not self._connected:
            return False
        if not (self._awaits_threads() if for_thread else self._is_at_work()):
            return False
        self._put_off, self._direct = PutOff(self._here()), False
        return True

    def _is_close_due(self, now: float) -> bool:
        """Asked at each look of the clock."""
        return self._put_off is not None and self._put_off.is_due(now)

    def _is_closed_late(self) -> bool:
        """Whether the clock has brought about the end that was put off."""
        return self._put_off is not None and self._put_off.is_late

    def _awaits_own_close(self) -> bool:
        """Whether who has put a close off waits for that very end now."""
        closer = None if self._put_off is None else self._put_off.closer
        return closer is not None and closer == self._here() and self._is_at_work()

    def _here(self) -> object:
        """This thread or this task; None where there is none to compare with."""
        raise NotImplementedError

    def _is_failure(self, code: int) -> bool:
        """Whether an answer of this status, given beside the stream, says that its body is no whole one.

        The page of an error that was dealt with may have the status that the body has.
        """
        return (code >= 400 and code != self._status) or (code >= 500 and self._put_off is None)

    def _is_at_work(self) -> bool:
        """Whether the producer is, and its error may be the one that is on its way here."""
        raise NotImplementedError

    def _awaits_threads(self) -> bool:
        """Whether the producer is at work, and may have a thread write for it."""
        return False
