"""Worker threads that are kept for a moment after their work.

Rule: a job never waits for a free worker (a waiting producer is a hanging client), so
there is no upper bound here; a worker that finds no work for `IDLE_SECONDS` leaves.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

Job: TypeAlias = Callable[[], object]

LAST_SECONDS = 0.5  # how long the interpreter's end waits for those who are at work
IDLE_SECONDS = 2.0  # long enough for the next request of a busy server, too short to be a leak


class Pool:
    """Pooled daemon threads; `submit(job)` never waits. A job must not raise."""

    def __init__(self, name: str = "streamkit-producer") -> None:
        self._name = name
        self._idle: list[_Worker] = []  # last in, first out: the rest may grow old and leave
        self._busy: set[_Worker] = set()

    def submit(self, job: Job) -> None:
        """Run `job` on an idle worker, or on a new one. Raises RuntimeError where no thread can start."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle, self._busy)
            worker.job = job
            self._busy.add(worker)
            try:
                threading.Thread(target=worker.run, name=self._name, daemon=True).start()
            except Exception:  # the machine has no thread for it
                self._busy.discard(worker)
                raise
            return
        worker.job = job
        self._busy.add(worker)
        worker.wake()

    def forget(self) -> None:
        """After a fork: the threads exist in the parent only."""
        self._idle.clear()
        self._busy.clear()

    def finish(self) -> None:
        """At the interpreter's end: let producers that were told, and hooks, come to theirs."""
        end = time.monotonic() + LAST_SECONDS
        while self._busy and time.monotonic() < end:
            time.sleep(0.005)


class _Worker:
    __slots__ = ("_busy", "_idle", "_parked", "job", "wake")

    def __init__(self, idle: list[_Worker], busy: set[_Worker]) -> None:
        self._idle = idle
        self._busy = busy
        self._parked = threading.Lock()
        self._parked.acquire()
        self.wake = self._parked.release
        self.job: Job | None = None

    def run(self) -> None:
        idle, busy, parked = self._idle, self._busy, self._parked
        while True:
            job, self.job = self.job, None
            assert job is not None
            try:
                job()
            finally:
                busy.discard(self)
            del job  # what the job held must not live on while this thread is idle
            idle.append(self)
            if not parked.acquire(timeout=IDLE_SECONDS):
                try:
                    idle.remove(self)
                except ValueError:
                    parked.acquire()  # taken at the last moment: the job is on its way
                else:
                    return


pool = Pool()
atexit.register(pool.finish)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)
