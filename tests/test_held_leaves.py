"""HTTP/1.0: who leaves while a body is held or sent whole, and whom that concerns."""

from __future__ import annotations

import asyncio
import errno
import pickle
import threading
import time
from typing import Any
from wsgiref.validate import validator

import pytest
from driving import PATIENCE, environ_of, scope_of

import streamkit

WAYS = ["described", "own", "committed", "foreign", "listening"]
LONG = b"x" * 70_000  # two messages


class Request:
    """A request over HTTP/1.0, answered in one of several ways; its client leaves when it is told to."""

    def __init__(self, way: str, body: bytes = LONG) -> None:
        self.way = way
        self._body = body
        self.outcomes: list[Any] = []
        self.sent: list[tuple[int, bool]] = []
        self.was_cut_off = False
        self.leaves, self.is_at_work, self.goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.leaves_at_last = False

    async def receive(self) -> Any:
        if self.leaves_at_last:
            self.goes_on.set()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.sent.append((len(message["body"]), bool(message.get("more_body"))))
            if self.leaves_at_last and not message.get("more_body"):
                self.leaves.set()
                for _ in range(10):  # it is heard before this message is through
                    await asyncio.sleep(0)

    async def _work(self, write: Any) -> None:
        await write(self._body)
        self.is_at_work.set()
        try:
            await asyncio.wait_for(self.goes_on.wait(), PATIENCE)
        except asyncio.CancelledError:
            self.was_cut_off = True
            raise

    async def _described(self, scope: Any, receive: Any, send: Any) -> None:
        async def producer(stream: Any) -> None:
            await self._work(stream.write)

        await streamkit.stream(producer)(scope, receive, send)

    async def _own(self, scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        if self.way == "committed":
            await stream.commit()
        await self._work(stream.write)

    async def _foreign(self, scope: Any, receive: Any, send: Any) -> None:
        async def write(chunk: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        self.stream = scope["streamkit.stream"]
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._work(write)
        await write(b"", False)

    async def _listening(self, scope: Any, receive: Any, send: Any) -> None:
        sender = asyncio.ensure_future(self._foreign(scope, receive, send))
        listener = asyncio.ensure_future(receive())
        await asyncio.wait([sender, listener], return_when=asyncio.FIRST_COMPLETED)
        for task in (sender, listener):
            task.cancel()
        await asyncio.wait([sender, listener])

    async def answer(self) -> None:
        options = {"on_finish": lambda stream: self.outcomes.append(stream.outcome)}
        ways = {"described": self._described, "foreign": self._foreign, "listening": self._listening}
        app = streamkit.wrap(ways.get(self.way, self._own), options, kind="asgi")
        await asyncio.wait_for(app(scope_of(version="1.0"), self.receive, self.send), PATIENCE)


async def left(stream: Any) -> None:
    while stream.connected:  # noqa: ASYNC110  # of this application nobody else is told
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("way", ["described", "own", "committed", "listening"])
def test_whoever_waits_is_cut_off_when_the_client_of_a_held_body_leaves(way: str) -> None:
    async def main() -> Request:
        request = Request(way)
        answering = asyncio.ensure_future(request.answer())
        await asyncio.wait_for(request.is_at_work.wait(), PATIENCE)
        request.leaves.set()
        await answering
        return request

    request = asyncio.run(main())
    assert (request.was_cut_off, request.outcomes, request.sent) == (True, ["disconnected"], [])


def test_an_application_that_does_not_listen_hears_of_the_leave_by_its_next_message() -> None:
    async def main() -> Request:
        request = Request("foreign")
        answering = asyncio.ensure_future(request.answer())
        await asyncio.wait_for(request.is_at_work.wait(), PATIENCE)
        request.leaves.set()
        await asyncio.wait_for(left(request.stream), PATIENCE)
        request.goes_on.set()
        await answering
        return request

    request = asyncio.run(main())
    assert (request.outcomes, request.sent) == (["disconnected"], [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("body", "messages"), [(LONG, [(65_536, True), (len(LONG) - 65_536, False)]), (b"", [(0, False)])]
)
def test_who_has_got_a_held_body_whole_has_not_left_early(way: str, body: bytes, messages: Any) -> None:
    async def main() -> Request:
        request = Request(way, body)
        request.leaves_at_last = True
        await request.answer()
        return request

    request = asyncio.run(main())
    assert (request.outcomes, request.sent) == (["finished"], messages)


def test_a_layer_that_ends_its_sender_for_a_leave_amid_a_held_body_fails_nothing() -> None:
    async def main() -> Request:
        request = Request("listening")
        request.goes_on.set()

        async def stuck(message: Any) -> None:
            if message["type"] == "http.response.body":
                request.leaves.set()
                await asyncio.Event().wait()

        request.send = stuck  # type: ignore[method-assign]
        await request.answer()
        return request

    assert asyncio.run(main()).outcomes == ["disconnected"]


def test_half_a_body_that_was_held_is_no_whole_one_under_wsgi() -> None:
    outcomes: list[Any] = []
    heads: list[Any] = []
    is_gone = threading.Event()

    def producer(stream: Any) -> None:
        stream.write("half")
        is_gone.set()
        until = time.monotonic() + PATIENCE
        while stream.connected and time.monotonic() < until:
            time.sleep(0.001)

    options = {"on_finish": lambda stream: outcomes.append(stream.outcome), "heartbeat": 1}
    app = validator(streamkit.wrap(streamkit.stream(producer), options, kind="wsgi"))
    environ = environ_of(version="1.0") | {"waitress.client_disconnected": is_gone.is_set}
    with pytest.raises(BrokenPipeError) as raised:
        app(environ, lambda *head: heads.append(head))
    assert (outcomes, heads, raised.value.errno) == (["disconnected"], [], errno.EPIPE)


def test_a_leave_keeps_its_number_when_it_is_copied() -> None:
    left = pickle.loads(pickle.dumps(streamkit.ClientDisconnected()))
    assert (type(left), left.errno, str(left)) == (
        streamkit.ClientDisconnected,
        errno.EPIPE,
        "the client has disconnected",
    )
