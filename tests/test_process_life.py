"""Signals, forks and the interpreter's end, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from driving import PATIENCE

PRELUDE = """
import asyncio, os, signal, sys, threading, time
sys.path.insert(0, "tests")
import streamkit
from driving import PATIENCE, AsgiServer, WsgiServer, environ_of, until
from streamkit.engines import registry

def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]

heard = []

def set_own(name):
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(name))
"""


def said_by(program: str) -> str:
    """What this program says on both its outputs, up to its end."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    return done.stdout + ("" if done.returncode == 0 else f"exit status {done.returncode}")


# ---------------------------------------------------------------- signals


def test_a_handler_that_calls_the_one_before_it_may_stand_between_two_wraps() -> None:
    assert said_by(
        """
        set_own("server")
        streamkit.wrap(plain, kind="wsgi")
        before = signal.getsignal(signal.SIGTERM)

        def ours(number, frame):
            heard.append("application")
            before(number, frame)

        signal.signal(signal.SIGTERM, ours)
        streamkit.wrap(plain, kind="wsgi")
        signal.raise_signal(signal.SIGTERM)
        print(heard)
        """
    ) == "['application', 'server']\n"


def test_a_handler_that_a_server_puts_back_at_its_end_is_called_again() -> None:
    assert said_by(
        """
        set_own("script")
        streamkit.wrap(plain, kind="wsgi")
        before = signal.getsignal(signal.SIGTERM)
        set_own("server")  # as uvicorn does, for as long as it runs
        streamkit.wrap(plain, kind="wsgi")
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        print(heard)
        """
    ) == "['script']\n"


def test_the_server_hears_of_a_signal_where_no_thread_can_be_started() -> None:
    assert said_by(
        """
        import _thread

        def refuse(*call):
            raise RuntimeError("can't start new thread")

        set_own("server")
        streamkit.wrap(plain, kind="wsgi")
        _thread.start_new_thread = refuse
        signal.raise_signal(signal.SIGTERM)
        print(heard)
        """
    ) == "['server']\n"


def test_streams_end_by_a_signal_where_no_further_thread_can_be_started() -> None:
    assert said_by(
        """
        def producer(stream):
            stream.write("data: 1\\n\\n")
            closing.wait(PATIENCE)

        closing, outcomes = threading.Event(), []
        set_own("server")
        hooks = {"on_finish": lambda stream: outcomes.append(stream.outcome)}
        app = streamkit.wrap(streamkit.stream(producer, content_type="text/event-stream"), hooks, kind="wsgi")
        with WsgiServer(app) as server:
            answers = [server.request() for _ in range(3)]
            for answer in answers:
                answer.read()
            start = threading.Thread.start

            def refuse(self):
                raise RuntimeError("can't start new thread")

            threading.Thread.start = refuse
            signal.raise_signal(signal.SIGTERM)
            print(all(answer.finish().complete for answer in answers), outcomes)
            threading.Thread.start = start
            closing.set()
        """
    ) == "True ['shut_down', 'shut_down', 'shut_down']\n"


def test_a_grace_that_is_longer_than_the_watch_for_late_streams_is_kept() -> None:
    assert said_by(
        """
        registry.WATCH = 0.1

        def producer(stream):
            while True:
                stream.write("x")
                time.sleep(0.01)

        outcomes = []
        set_own("server")
        options = {"grace": 1.0, "on_finish": lambda stream: outcomes.append(stream.outcome)}
        with WsgiServer(streamkit.wrap(streamkit.stream(producer), options, kind="wsgi")) as server:
            answer = server.request()
            answer.read()
            signal.raise_signal(signal.SIGTERM)
            answer.finish()
        print(outcomes, answer.complete)
        """
    ) == "['shut_down'] False\n"


def test_a_stream_that_opens_after_the_watch_goes_on() -> None:
    assert said_by(
        """
        registry.WATCH = 0.1

        def ticking(stream):
            while not closing.wait(0.01):
                stream.write("data: 1\\n\\n")

        closing, over = threading.Event(), threading.Event()
        watch = registry._end_all_to_come

        def watched():
            watch()
            over.set()

        registry._end_all_to_come = watched
        set_own("server")
        app = streamkit.wrap(streamkit.stream(ticking, content_type="text/event-stream"), kind="wsgi")
        with WsgiServer(app) as server:
            early = server.request()
            early.read()
            signal.raise_signal(signal.SIGTERM)
            print(b"retry: " in early.finish().body)
            assert over.wait(PATIENCE)
            late = server.request()
            late.read()
            closing.set()
            print(b"retry: " in late.finish().body)
        """
    ) == "True\nFalse\n"


@pytest.mark.parametrize("more", ["content_type='text/event-stream'", "keep_open=True"])
def test_a_stream_that_opens_late_may_send_its_head_before_it_is_ended(more: str) -> None:
    assert said_by(
        f"""
        registry.TO_HEAD = PATIENCE
        found, looks, go = registry.open_streams, threading.Semaphore(0), threading.Event()

        def noted():
            looks.release()
            return found()

        def producer(stream):
            assert go.wait(PATIENCE)
            stream.write("data: 1\\n\\n")

        registry.open_streams = noted
        set_own("server")
        app = streamkit.wrap(streamkit.stream(producer, {more}), {{"grace": 0.1}}, kind="wsgi")
        signal.raise_signal(signal.SIGTERM)
        for _ in range(20):  # its grace is over
            assert looks.acquire(timeout=PATIENCE)
        with WsgiServer(app) as server:
            late = server.request()
            assert until(found)
            while looks.acquire(blocking=False):
                pass
            for _ in range(3):
                assert looks.acquire(timeout=PATIENCE)
            go.set()
            late.finish()
            print(late.status, late.complete, late.body.startswith(b"data: 1"))
        """
    ) == "200 True True\n"


# ---------------------------------------------------------------- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="wanted os.fork")
def test_a_fork_amid_a_count_of_the_streams_leaves_the_child_room() -> None:
    assert said_by(
        """
        import warnings
        warnings.simplefilter("ignore")  # a fork with threads at work is what is asked for here
        amid, forked = threading.Event(), threading.Event()
        counted = registry.open_streams

        def slowly():
            amid.set()
            forked.wait(PATIENCE)
            return counted()

        described = streamkit.stream(["a"], options={"max_streams": 2})
        respond = lambda: b"".join(described(environ_of(), lambda *answer: None))
        registry.open_streams = slowly
        counting = threading.Thread(target=respond)
        counting.start()
        assert amid.wait(PATIENCE)
        child = os.fork()
        if not child:
            signal.alarm(int(PATIENCE))
            registry.open_streams = counted
            os._exit(0 if respond() == b"a" else 1)
        forked.set()
        counting.join()
        print(os.waitpid(child, 0)[1])
        """
    ) == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="wanted os.fork")
def test_a_fork_amid_a_commit_leaves_the_child_streams_of_its_own() -> None:
    assert said_by(
        """
        from streamkit.engines.answering import claiming

        def app(environ, start_response):
            environ["streamkit.stream"].write("a")
            return []

        wrapped, sent = streamkit.wrap(app, kind="wsgi"), []
        respond = lambda: list(wrapped(environ_of(), lambda *answer: sent.append))
        with claiming():  # as another thread does for a few instructions
            child = os.fork()
            if not child:
                signal.alarm(int(PATIENCE))
                respond()
                os._exit(0 if sent == [b"a"] else 1)
        print(os.waitpid(child, 0)[1])
        """
    ) == "0\n"


# ---------------------------------------------------------------- the interpreter's end


@pytest.mark.parametrize("producing", ["time.sleep(60)", "await asyncio.sleep(60)", "await swallow()"])
def test_the_interpreter_ends_in_silence_with_an_open_stream_on_the_shared_loop(producing: str) -> None:
    assert said_by(
        f"""
        async def swallow():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def producer(stream):
            await stream.write("a")
            {producing}

        body = streamkit.stream(producer)(environ_of(), lambda *answer: None)
        print(next(iter(body)))
        """
    ) == "b'a'\n"


def test_the_interpreter_ends_in_silence_with_an_open_stream_on_a_thread() -> None:
    assert said_by(
        """
        def producer(stream):
            stream.write("a")
            time.sleep(60)

        body = streamkit.stream(producer)(environ_of(), lambda *answer: None)
        print(next(iter(body)))
        """
    ) == "b'a'\n"
