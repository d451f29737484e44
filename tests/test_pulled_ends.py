"""An iterable under WSGI whose stream is ended from elsewhere: it is closed, and no half body looks whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.validate import validator

import pytest
from driving import PATIENCE, WsgiServer, environ_of

import streamkit
from streamkit.errors import StreamAborted, StreamClosed, StreamEnded

KEY = "streamkit.stream"


def described(chunks: Any, **given: Any) -> Any:
    return lambda environ, start_response: streamkit.stream(chunks, **given)(environ, start_response)


def foreign(chunks: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return chunks

    return app


@pytest.mark.parametrize("way", [described, foreign])
def test_a_server_that_was_stuck_for_too_long_gets_no_end_that_looks_clean(way: Any) -> None:
    over = threading.Event()
    log: list[Any] = []

    def chunks() -> Iterator[bytes]:
        try:
            for _ in range(50):
                yield b"x"
        finally:
            log.append(("closed", threading.current_thread().name))

    def app(environ: Any, start_response: Any) -> Any:
        @environ[KEY].on_finish
        def note(stream: Any) -> None:
            log.append(stream.outcome)
            over.set()

        return way(chunks())(environ, start_response)

    def serve() -> None:
        body = validator(streamkit.wrap(app, kind="wsgi", signals=False, write_timeout=0.2))(
            environ_of(), lambda *head: lambda chunk: None
        )
        taken = iter(body)
        try:
            next(taken)
            next(taken)
            assert over.wait(PATIENCE)  # the server does not come back for so long
            try:
                log.extend(taken)
            except StreamEnded as error:
                log.append(error.outcome)
        finally:
            body.close()

    server = threading.Thread(target=serve, name="server", daemon=True)
    server.start()
    server.join(PATIENCE)
    assert not server.is_alive(), "the body goes on for ever"
    assert log.count("timed_out") == 2, "once to the hook, once to the server"
    assert ("closed", "server") in log
    assert b"x" not in log


@pytest.mark.parametrize(("act", "why"), [("close", StreamClosed), ("abort", StreamAborted)])
def test_an_iterable_whose_stream_was_ended_between_two_chunks_is_closed_in_its_thread(
    act: str, why: type[Exception]
) -> None:
    log: list[Any] = []
    held: list[Any] = []
    told: list[Any] = []

    @contextmanager
    def resource() -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            told.append(type(error))
            raise
        finally:
            log.append(("left", threading.current_thread()))

    def chunks() -> Iterator[bytes]:
        try:
            for _ in range(50):
                yield b"x"
        finally:
            log.append(("closed", threading.current_thread()))

    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(held.append)
        log.append(("served", threading.current_thread()))
        return streamkit.stream(chunks(), resources=[resource()])(environ, start_response)

    with WsgiServer(streamkit.wrap(app, kind="wsgi")) as server:
        answer = server.request(window=0)
        assert answer.read() == b"x"
        getattr(held[0], act)()
        answer.finish()
        assert answer.complete is (act == "close")
    assert [what for what, _ in log] == ["served", "closed", "left"]
    assert len({thread for _, thread in log}) == 1
    assert told == [why]


@pytest.mark.parametrize("engine", ["auto", "thread"])
@pytest.mark.parametrize(("way", "outcome"), [("abort", "aborted"), ("too late", "timed_out")])
def test_a_finish_hook_of_the_request_hears_how_a_description_ended_that_nothing_replaced(
    engine: Any, way: str, outcome: str
) -> None:
    heard: list[Any] = []
    ended = threading.Event()

    def producer(stream: Any) -> None:
        if way == "abort":
            stream.abort("on purpose")
        else:
            stream.wait_finished(PATIENCE)

    def app(environ: Any, start_response: Any) -> Any:
        @environ[KEY].on_finish
        def note(stream: Any) -> None:
            heard.append(stream.outcome)
            ended.set()

        return streamkit.stream(producer)(environ, start_response)

    with WsgiServer(streamkit.wrap(app, kind="wsgi", engine=engine, max_duration=0.3)) as server:
        answer = server.request().finish()
        assert not answer.committed
        assert ended.wait(PATIENCE)
    assert heard == [outcome]
