"""A write that an async producer forgets to await is sent all the same: nothing is lost silently."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from driving import AsgiServer, WsgiServer

import streamkit

SERVERS = [WsgiServer, AsgiServer]


async def text_first(stream: Any) -> None:
    stream.write("a")
    stream.write(b"b")
    stream.write(bytearray(b"c"))
    stream.writeln("d")


async def bytes_first(stream: Any) -> None:
    stream.write(b"a")
    stream.write("b")
    stream.write(memoryview(b"c"))
    stream.writeln(b"d")


async def after_a_wait(stream: Any) -> None:
    await stream.write("a")
    stream.write("b")
    stream.write("c")
    stream.writeln("d")


async def behind_a_hook(stream: Any) -> None:
    stream.on_commit(lambda stream: stream.headers.set("X-Hook", "1"))
    stream.write("a")
    stream.write("b")
    stream.write("c")
    stream.writeln("d")


PRODUCERS = [text_first, bytes_first, after_a_wait, behind_a_hook]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_writes_that_are_not_awaited_arrive_in_order(server: Any, producer: Any) -> None:
    with server(streamkit.stream(producer)) as served:
        answer = served.request().finish()
        assert answer.body == b"abcd\n"
        assert answer.complete


@pytest.mark.parametrize("server", SERVERS)
def test_events_that_are_not_awaited_arrive_in_order(server: Any) -> None:
    async def producer(stream: Any) -> None:
        stream.send("one")
        stream.comment("two")
        stream.send({"three": 3}, event="x")

    with server(streamkit.event_stream(producer)) as served:
        body = served.request().finish().body
        assert body == b'data: one\n\n: two\n\nevent: x\ndata: {"three":3}\n\n'


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("charset", ["latin-1", "utf-16"])
def test_text_is_encoded_as_the_headers_say_when_it_is_written(server: Any, charset: str) -> None:
    """The charset may have been asked for before, by a write that was refused."""

    async def producer(stream: Any) -> None:
        with pytest.raises(UnicodeEncodeError):
            await stream.write("\ud800")
        stream.headers["Content-Type"] = f"text/plain; charset={charset}"
        stream.write("é")
        await stream.write("è")

    with server(streamkit.stream(producer)) as served:
        answer = served.request().finish()
        assert answer.body == "éè".encode(charset)


@pytest.mark.parametrize("server", SERVERS)
def test_a_hook_of_the_commit_still_chooses_the_charset(server: Any) -> None:
    async def producer(stream: Any) -> None:
        stream.on_commit(lambda stream: stream.headers.set("Content-Type", "text/plain; charset=latin-1"))
        stream.write("é")
        stream.write("è")

    with server(streamkit.stream(producer)) as served:
        assert served.request().finish().body == "éè".encode("latin-1")


@pytest.mark.parametrize("server", SERVERS)
def test_what_cannot_be_written_is_refused_at_once(server: Any) -> None:
    async def producer(stream: Any) -> None:
        with pytest.raises(streamkit.UnsupportedData):
            stream.write(5)
        stream.write("a")
        with pytest.raises(streamkit.UnsupportedData):
            stream.write(5)
        stream.close()
        with pytest.raises(streamkit.StreamClosed):
            stream.write("b")

    with server(streamkit.stream(producer)) as served:
        assert served.request().finish().body == b"a"


@pytest.mark.parametrize("server", SERVERS)
def test_what_is_written_while_a_hook_of_the_commit_waits_is_sent_in_its_order(server: Any) -> None:
    async def producer(stream: Any) -> None:
        @stream.on_commit
        async def hook(stream: Any) -> None:
            await asyncio.sleep(0.01)

        buffer = bytearray(b"b")
        forgotten = stream.write("a")
        written = stream.write(buffer)
        buffer[:] = b"X"
        assert await written == 1
        stream.write("c")
        await stream.writeln("d")
        forgotten.close()  # Python would warn of it

    with server(streamkit.stream(producer)) as served:
        answer = served.request().finish()
        assert answer.body == b"abcd\n"
        assert answer.complete
