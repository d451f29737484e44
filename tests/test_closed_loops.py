"""A stream whose event loop was closed under its request, without an end: nobody is left to read it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, scope_of
from twinned import take

import streamkit
from streamkit import ClientDisconnected


@pytest.fixture
def left() -> Iterator[Any]:
    """A stream that is open, and whose reader waits for more, on a loop that was closed."""
    kept: list[Any] = []

    async def producer(stream: Any) -> None:
        kept.append(stream)
        await stream.write(b"first")

    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    loop = asyncio.new_event_loop()
    described = streamkit.stream(producer, keep_open=True)
    request = loop.create_task(described(scope_of(), asyncio.Event().wait, send))
    while b"first" not in sent:
        loop.run_until_complete(asyncio.sleep(0))
    for _ in range(5):  # until it waits for more
        loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # they are left on purpose
    loop.close()
    yield kept.pop()
    del request, described
    gc.collect()  # what it says of itself when it is reclaimed belongs to this test


@pytest.mark.parametrize("how", ["abort", "close"])
def test_it_can_still_be_ended(left: Any, how: str) -> None:
    if how == "abort":
        left.abort("enough")
    else:
        left.close()
    assert left.closed


def test_the_second_write_at_the_latest_finds_the_client_gone(left: Any) -> None:
    async def write_twice() -> None:
        await left.write(b"second")
        await left.write(b"third")

    with pytest.raises(ClientDisconnected):
        asyncio.run(write_twice())
    assert not left.connected


def test_a_thread_that_writes_finds_the_client_gone(left: Any) -> None:
    told: list[BaseException] = []

    def job() -> None:
        try:
            for _ in range(3):
                twin.write(b"more")
        except Exception as error:
            told.append(error)

    twin = left.sync
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert [type(error) for error in told] == [ClientDisconnected]


def test_a_thread_that_writes_to_its_requests_own_stream_finds_the_client_gone() -> None:
    twins: list[Any] = []
    told: list[BaseException] = []
    has_begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        await stream.write(b"first")
        twins.append(stream.sync)
        has_begun.set()
        await asyncio.Event().wait()

    def job() -> None:
        for _ in range(2):
            try:
                twins[0].write(b"more")
            except Exception as error:
                told.append(error)

    loop = asyncio.new_event_loop()
    request = loop.create_task(streamkit.wrap(app, kind="asgi")(scope_of(), asyncio.Event().wait, take))
    loop.run_until_complete(asyncio.wait_for(has_begun.wait(), PATIENCE))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # they are left on purpose
    loop.close()
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert [type(error) for error in told] == [ClientDisconnected, ClientDisconnected]
    del request
    gc.collect()
