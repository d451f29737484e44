"""Who waits for jobs that never end: nobody, once their stream has ended."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until

import streamkit

SERVERS = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])
OPTIONS = {"heartbeat": 0.05, "max_duration": None}
PIECE = "<p>\n"  # a heartbeat may follow it


class Hanging:
    """A job that hangs until its test is over, and the producer that waits for it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.over = threading.Event()  # nobody waits any more
        self.error: BaseException | None = None
        self.stream: Any = None
        self.called: Callable[[Any], Any] = lambda stream: None  # with the stream, once it waits

    def job(self) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE)

    def produce(self, stream: Any) -> None:
        gather = stream.gather()
        gather.begin(1, self.job)
        gather.parts.append(PIECE)
        gather.flush()
        assert self.begun.wait(PATIENCE)
        timer = threading.Timer(0.05, self.called, [stream])
        timer.start()
        try:
            gather.next()
        except BaseException as error:
            self.error = error.with_traceback(None)
            raise
        finally:
            timer.join()
            gather.close()
            self.over.set()

    async def produce_async(self, stream: Any) -> None:
        gather = stream.gather()
        gather.begin(1, asyncio.Event().wait())
        gather.parts.append(PIECE)
        await gather.flush()
        asyncio.get_running_loop().call_later(0.05, self.called, stream)
        try:
            await gather.next()
        except BaseException as error:
            self.error = error.with_traceback(None)
            raise
        finally:
            gather.close()
            self.over.set()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.go.set()


def described(hanging: Hanging, way: str, **options: Any) -> Any:
    return streamkit.stream(getattr(hanging, way), content_type="text/html", options={**OPTIONS, **options})


WAYS = pytest.mark.parametrize("way", ["produce", "produce_async"])


@SERVERS
@WAYS
def test_a_client_that_leaves_releases_whoever_waits_for_a_job(
    server: Any, way: str, hanging: Hanging
) -> None:
    """Under WSGI a heartbeat shows that it has left."""
    with server(described(hanging, way)) as serving:
        answer = serving.request()
        assert answer.read() == PIECE.encode()
        answer.leave()
        assert hanging.over.wait(PATIENCE)
        answer.through()


@SERVERS
@WAYS
@pytest.mark.parametrize("word", ["abort", "close"])
def test_an_end_that_comes_from_elsewhere_releases_whoever_waits_for_a_job(
    server: Any, way: str, word: str, hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    hanging.called = lambda stream: getattr(stream, word)() and None
    with server(described(hanging, way)) as serving:
        answer = serving.request().finish()
        assert hanging.over.wait(PATIENCE)
    assert isinstance(hanging.error, streamkit.StreamClosed | asyncio.CancelledError)
    assert answer.complete == (word == "close")


@SERVERS
@WAYS
def test_max_duration_releases_whoever_waits_for_a_job(server: Any, way: str, hanging: Hanging) -> None:
    with server(described(hanging, way, max_duration=0.2)) as serving:
        serving.request().finish()
        assert hanging.over.wait(PATIENCE)


@SERVERS
def test_a_job_that_hangs_does_not_keep_its_stream(server: Any, hanging: Hanging) -> None:
    kept: list[weakref.ref[Any]] = []

    def on_finish(stream: Any) -> None:
        kept.append(weakref.ref(stream))

    response = described(hanging, "produce", on_finish=on_finish)

    def is_free() -> bool:
        gc.collect()
        return kept[0]() is None

    with server(response) as serving:
        answer = serving.request()
        answer.read()
        answer.leave()
        assert hanging.over.wait(PATIENCE)
        answer.through()
        answer.returned = answer.error = hanging.error = None  # they refer to it
        assert until(is_free)
    assert not hanging.go.is_set()
