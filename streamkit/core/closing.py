"""A `close()` while an error is on its way: what becomes of the error tells whether the end is good.

`try: ... finally: stream.close()` must not make half a body whole. So this close is put off until
the producer is over: it failed, or had dealt with its error. A producer that goes on, and may wait
for that very end, has dealt with it when it waits by `wait_finished`, or the clock has looked twice.

Rule: only a close of the producer's own is put off, and nothing is written after it.
"""

from __future__ import annotations

import sys

LOOKS = 2  # of the clock, until an error would have left; the first may come at once


class Closing:
    """What a stream knows of a close that was put off; `BaseStream` is the one there is."""

    _closing: bool = False  # it was asked to close, and has not done so
    _looks: int = 0  # of the clock since then

    # Set by the stream, which has a default for each.
    _connected: bool
    _direct: bool
    _status: int

    def _puts_off_close(self, *, for_thread: bool = False) -> bool:
        """Note a close, if an error is on its way; `for_thread`: in one that the producer waits for."""
        if sys.exc_info()[1] is None or not self._connected:
            return False
        if not (self._awaits_threads() if for_thread else self._is_at_work()):
            return False
        self._closing, self._direct = True, False
        return True

    def _is_close_due(self) -> bool:
        """Asked at each look of the clock: whether there is a close, and no error any more."""
        if not self._closing:
            return False
        self._looks += 1
        return self._looks >= LOOKS

    def _is_failure(self, code: int) -> bool:
        """Whether an answer of this status, given beside the stream, says that its body is no whole one.

        The page of an error that was dealt with may have the status that the body has.
        """
        return (code >= 400 and code != self._status) or (code >= 500 and not self._closing)

    def _is_at_work(self) -> bool:
        """Whether the producer is, in this very thread or task."""
        raise NotImplementedError

    def _awaits_threads(self) -> bool:
        """Whether the producer is at work, and may have a thread write for it."""
        return False
