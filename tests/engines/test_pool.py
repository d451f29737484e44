"""Worker threads that are kept for a moment."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import types

import pytest

from streamkit.engines import pool as pool_module
from streamkit.engines.pool import Pool

PATIENCE = 20.0


def test_a_job_never_waits_for_another() -> None:
    pool, all_here = Pool("test"), threading.Barrier(9)
    for _ in range(8):
        pool.submit(lambda: all_here.wait(PATIENCE))
    all_here.wait(PATIENCE)  # nine parties at once, or this breaks


def test_an_idle_worker_takes_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", PATIENCE)  # or it may have left on a busy machine
    pool, seen, ran = Pool("test"), [], threading.Semaphore(0)

    def job() -> None:
        seen.append(threading.current_thread())  # not its number, which the next may have
        ran.release()

    for _ in range(20):
        pool.submit(job)
        assert ran.acquire(timeout=PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not pool._idle and time.monotonic() < deadline:
            os.sched_yield()
    assert len(set(seen)) == 1


def test_a_worker_without_work_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.05)
    pool, threads, ran = Pool("test"), [], threading.Event()
    pool.submit(lambda: (threads.append(threading.current_thread()), ran.set()))
    assert ran.wait(PATIENCE)
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
    assert pool._idle == []


def test_what_a_job_held_is_let_go_before_the_worker_is_idle() -> None:
    class Held:
        pass

    import weakref

    pool, ran = Pool("test"), threading.Event()
    held = Held()
    seen = weakref.ref(held)
    pool.submit(lambda held=held: ran.set())
    del held
    assert ran.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while seen() is not None and time.monotonic() < deadline:
        os.sched_yield()
    assert seen() is None


def test_jobs_arriving_as_workers_leave_are_all_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.0005)
    pool, ran = Pool("test"), threading.Semaphore(0)
    for _ in range(2000):
        pool.submit(ran.release)
        assert ran.acquire(timeout=PATIENCE)


FORKING = """
import os, sys, threading, warnings
import streamkit
warnings.simplefilter("ignore")

def ask(producer):
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
    return b"".join(streamkit.stream(producer)(environ, lambda status, headers: None))

def sync(stream): stream.write("a")
async def task(stream): await stream.write("b")

assert ask(sync) + ask(task) == b"ab"
child = os.fork()
if child == 0:
    os._exit(0 if ask(sync) + ask(task) == b"ab" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_worker_streams_although_its_parents_threads_are_gone() -> None:
    import subprocess

    forked = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=False
    )
    assert forked.returncode == 0, forked.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_ends_its_thread_is_not_waited_for() -> None:
    pool, at_work = Pool("ours"), queue.SimpleQueue[threading.Thread]()

    def job() -> None:
        at_work.put(threading.current_thread())
        raise SystemExit

    pool.submit(job)
    at_work.get(timeout=PATIENCE).join(PATIENCE)
    assert not pool._busy


@pytest.mark.parametrize("worker", ["new", "idle"])
def test_the_interpreters_end_waits_for_whoever_is_at_work(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, go, over = Pool("ours"), threading.Event(), threading.Event()
    monkeypatch.setattr(pool_module, "LAST_SECONDS", PATIENCE)
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", PATIENCE)

    def sleep(seconds: float) -> None:  # only who waits lets the job come to its end
        go.set()
        time.sleep(seconds)

    waits = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(pool_module, "time", waits)
    if worker == "idle":
        pool.submit(list)
        deadline = time.monotonic() + PATIENCE
        while not pool._idle and time.monotonic() < deadline:
            os.sched_yield()

    def job() -> None:
        assert go.wait(PATIENCE)
        over.set()

    pool.submit(job)
    try:
        pool.finish()
        assert over.is_set()
    finally:
        go.set()
