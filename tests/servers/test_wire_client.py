"""The client itself: what it must not let pass."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from .wire import BadFraming, Connection, Ending, Framing, fetch

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def speaking() -> Iterator[Callable[..., int]]:
    """`speaking(reply)`: a port at which this reply is sent to one client, whatever it asks."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    threads: list[threading.Thread] = []

    def speak(reply: bytes, reset: bool = False) -> int:
        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.settimeout(20)
                client.recv(65536)
                client.sendall(reply)
                if reset:
                    client.recv(1)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        port: int = listener.getsockname()[1]
        return port

    yield speak
    for thread in threads:
        thread.join(20)
    listener.close()


@pytest.mark.parametrize(
    ("sent", "body", "framing", "ending"),
    [
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", b"abc", Framing.CHUNKED, Ending.COMPLETE),
        (
            CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            b"abc0123456789",
            Framing.CHUNKED,
            Ending.COMPLETE,
        ),
        (CHUNKED + b"3\r\nabc\r\n", b"abc", Framing.CHUNKED, Ending.TRUNCATED),
        (CHUNKED + b"3\r\nab", b"", Framing.CHUNKED, Ending.TRUNCATED),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"abc", Framing.CHUNKED, Ending.TRUNCATED),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc", Framing.LENGTH, Ending.COMPLETE),
        (HEAD + b"Content-Length: 4\r\n\r\nabc", b"abc", Framing.LENGTH, Ending.TRUNCATED),
        (HEAD + b"\r\nabc", b"abc", Framing.CLOSE, Ending.CLOSE_DELIMITED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", Framing.NONE, Ending.COMPLETE),
    ],
)
def test_the_client_tells_whole_bodies_from_cut_ones(
    speaking: Callable[..., int], sent: bytes, body: bytes, framing: Framing, ending: Ending
) -> None:
    reply = fetch(speaking(sent), "/")
    assert (reply.body, reply.framing, reply.ending) == (body, framing, ending)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n Folded: line\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\nHTTP/1.1 500 Internal Server Error\r\n\r\n",
        HEAD,
    ],
)
def test_the_client_forgives_no_broken_framing(speaking: Callable[..., int], sent: bytes) -> None:
    with pytest.raises(BadFraming):
        fetch(speaking(sent), "/")


def test_a_reset_is_a_truncated_end_even_where_the_close_delimits(speaking: Callable[..., int]) -> None:
    with Connection(speaking(HEAD + b"\r\nabc", reset=True)) as connection:
        connection.ask("GET", "/")
        connection.head()
        connection.read_until(b"abc")
        connection.socket.sendall(b"now")
        assert list(connection.chunks()) == []
        assert connection.ending is Ending.TRUNCATED
