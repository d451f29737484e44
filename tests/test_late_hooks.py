"""A hook that comes after its moment hears of it all the same, whatever brought the end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until

import streamkit
from streamkit import ClientDisconnected
from streamkit.core.base import BaseStream
from streamkit.core.commit import State
from streamkit.engines.handed import HandedEnd


def push(stream: Any, held: list[Any], written: threading.Event) -> None:
    held.append(stream)
    stream.write(b"a")
    written.set()


@pytest.mark.parametrize("server", [WsgiServer, AsgiServer])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_hook_that_is_put_on_after_a_leave_is_told_of_it(server: Any, asynchronous: bool) -> None:
    held: list[Any] = []
    heard: list[Any] = []
    written = threading.Event()

    def function(stream: Any) -> None:
        push(stream, held, written)
        while stream.connected:
            stream.write(b"a")

    async def coroutine(stream: Any) -> None:
        held.append(stream)
        while True:
            await stream.write(b"a")
            written.set()

    with server(streamkit.stream(coroutine if asynchronous else function)) as served:
        answer = served.request(window=0)
        assert written.wait(PATIENCE)
        assert answer.read()
        answer.leave()
        answer.through()
        stream = held[0]
        assert until(lambda: stream.outcome)
        stream.on_finish(lambda stream: heard.append(stream.outcome))
        stream.on_error(lambda stream, error: heard.append(type(error)))
    assert heard == ["disconnected", ClientDisconnected]


def test_a_finish_hook_that_comes_while_the_description_fails_is_called() -> None:
    """The description gives it back to the stream of a request that is over by then."""
    heard: list[Any] = []
    app = streamkit.stream([b"a"])

    def asked(environ: Any, start_response: Any) -> Any:
        held.append(environ["streamkit.stream"])
        return app(environ, start_response)

    held: list[Any] = []
    with WsgiServer(streamkit.wrap(asked, kind="wsgi")) as served:
        assert served.request().finish().body == b"a"
    over = held[0]
    assert until(lambda: over.outcome or over.carried.outcome)
    failed = BaseStream()
    failed._state, failed._outcome = State.ABORTED, "failed"
    over._claim("finished")
    HandedEnd(lambda stream: heard.append(stream), over, failed)(failed)
    assert heard == [over]
