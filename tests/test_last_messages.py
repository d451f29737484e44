"""A server under ASGI whose client is gone at some message, or leaves because it has got everything."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from driving import PATIENCE, scope_of

import streamkit
from streamkit.engines.thread import ThreadStream
from streamkit.errors import ClientDisconnected, StreamEnded


class Server:
    """One request to a producer that writes once, and returns when its server asks for a leave."""

    def __init__(self, gone_at: str = "") -> None:
        self.outcomes: list[Any] = []
        self.sent: list[str] = []
        self._gone_at = gone_at  # the message for which there is no client any more
        self._is_asked, self._leaves = asyncio.Event(), asyncio.Event()

    async def receive(self) -> Any:
        self._is_asked.set()
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        name = message.get("body", b"start").decode() or ("more" if message["more_body"] else "last")
        if name == self._gone_at:
            raise OSError("the client is gone")
        self.sent.append(name)
        if name == "last":
            self._leaves.set()
            for _ in range(10):  # which it hears before this message is through
                await asyncio.sleep(0)

    async def request(self, way: str) -> None:
        async def producer(stream: Any) -> None:
            await stream.write(b"all")
            await asyncio.wait_for(self._is_asked.wait(), PATIENCE)

        async def foreign(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"all", "more_body": True})
            await asyncio.wait_for(self._is_asked.wait(), PATIENCE)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def listening(scope: Any, receive: Any, send: Any) -> None:
            sender = asyncio.ensure_future(foreign(scope, receive, send))
            while (await receive())["type"] != "http.disconnect":
                pass
            sender.cancel()
            await asyncio.wait([sender])

        options = {"on_finish": lambda stream: self.outcomes.append(stream.outcome)}
        own = {"foreign": foreign, "listening": listening}.get(way)
        app: Any = own or streamkit.stream(producer, options=options)
        if way != "described":
            app = streamkit.wrap(app, options if own else None, kind="asgi")
        await asyncio.wait_for(app(scope_of(), self.receive, self.send), PATIENCE)


@pytest.mark.parametrize("way", ["described", "wrapped", "foreign", "listening"])
def test_a_client_that_leaves_when_it_has_got_everything_has_not_left_early(way: str) -> None:
    async def main() -> Server:
        server = Server()
        await server.request(way)
        return server

    server = asyncio.run(main())
    assert (server.sent, server.outcomes) == (["start", "all", "last"], ["finished"])


@pytest.mark.parametrize("way", ["described", "wrapped", "foreign"])
@pytest.mark.parametrize("gone_at", ["start", "all", "last"])
def test_a_server_that_cannot_send_has_no_client_and_gets_no_further_message(way: str, gone_at: str) -> None:
    async def main() -> Server:
        server = Server(gone_at)
        await server.request(way)
        return server

    server = asyncio.run(main())
    names = ["start", "all", "last"]
    assert (server.sent, server.outcomes) == (names[: names.index(gone_at)], ["disconnected"])


class Started:
    """A server whose head is on its way until the producer, in its thread, has ended."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.ended = asyncio.Event()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.start":
            await asyncio.wait_for(self.ended.wait(), PATIENCE)


def test_a_client_that_is_given_up_while_its_head_leaves_gets_no_half_body_as_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taking = ThreadStream.next_now

    def given_up_first(stream: ThreadStream) -> bytes | None:
        # As the clock does in its own thread, of a client that takes nothing.
        clock = threading.Thread(target=stream.give_up, args=(StreamEnded("timed_out", "it took nothing"),))
        clock.start()
        clock.join(PATIENCE)
        return taking(stream)

    async def request() -> list[Any]:
        loop, server = asyncio.get_running_loop(), Started()

        def producer(stream: Any) -> None:
            stream.write(b"half of what the client is to get")
            stream.close()
            loop.call_soon_threadsafe(server.ended.set)

        monkeypatch.setattr(ThreadStream, "next_now", given_up_first)
        with contextlib.suppress(asyncio.CancelledError, ClientDisconnected):
            described = streamkit.stream(producer)(scope_of(), server.receive, server.send)
            await asyncio.wait_for(described, PATIENCE)
        return server.sent

    sent = asyncio.run(request())
    assert sent[0]["type"] == "http.response.start"
    assert [message for message in sent[1:] if not message.get("more_body")] == []
