"""A server that answers each request with bytes written by hand.

    with answering(lambda request: [b"HTTP/1.1 200 OK\\r\\n\\r\\n", 0.5, b"late"]) as peer:
        ask(Address.parse(peer.url), …)
    assert peer.requests[0].startswith("GET / HTTP/1.1")

Rule: an answer is an iterable of what to send and of how many seconds to wait. Every thread that is
started here is joined before the block is left.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

Answer = Callable[[str], Iterable[bytes | float]]
PATIENCE = 20.0  # seconds; only a failing test waits so long


@dataclass
class Peer:
    """A listening socket, and what was asked of it."""

    listener: socket.socket
    answer: Answer
    url: str
    tls: ssl.SSLContext | None = None
    requests: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def listen(self) -> None:
        threads = []
        while True:
            connection, _ = self.listener.accept()
            if self.ended.is_set():
                connection.close()
                break
            threads.append(threading.Thread(target=self.serve, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def serve(self, connection: socket.socket) -> None:
        with ExitStack() as stack:
            stack.callback(lambda: connection.close())
            connection.settimeout(PATIENCE)
            request = b""
            try:
                if self.tls is not None:
                    connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
                while b"\r\n\r\n" not in request:
                    received = connection.recv(65536)
                    if not received:
                        return
                    request += received
                self.requests.append(request.decode("latin-1"))
                for step in self.answer(self.requests[-1]):
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    else:
                        self.ended.wait(step)
            except OSError:  # the doctor has left
                pass


@contextmanager
def answering(
    answer: Answer | Iterable[bytes | float], *, tls: ssl.SSLContext | None = None
) -> Iterator[Peer]:
    """Answer each request so, on a free port of this machine."""
    script = answer if callable(answer) else (lambda request, steps=list(answer): steps)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(
            listener, script, f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}", tls
        )
        thread = threading.Thread(target=peer.listen)
        thread.start()
        try:
            yield peer
        finally:
            peer.ended.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join(2 * PATIENCE)
            assert not thread.is_alive()


def response(body: bytes = b"", *, status: str = "200 OK", **fields: str) -> bytes:
    """A response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def head(status: str = "200 OK", **fields: str) -> bytes:
    """A head without a length."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


END = b"0\r\n\r\n"


def dripping(*, chunks: int = 4, pause: float = 0.25, is_held: bool = False, **fields: str) -> Answer:
    """The answer of a drip, or of one that something holds until its end."""
    careful = {"Cache_Control": "no-store, no-transform", "X_Accel_Buffering": "no", **fields}
    beginning = head(Content_Type="text/plain", Transfer_Encoding="chunked", **careful)

    def answer(request: str) -> Iterator[bytes | float]:
        if request.startswith("HEAD"):
            yield head(Content_Type="text/plain", **careful)
            return
        is_old = " HTTP/1.0\r\n" in request
        held = []
        yield head(Content_Type="text/plain", **careful) if is_old else beginning
        for number in range(chunks):
            if number:
                yield pause
            mark = b"[[chunk-%d %.3f]]\n" % (number, time.time())
            held.append(mark if is_old else chunk(mark))
            if not is_held:
                yield held.pop()
        yield b"".join([*held, b"" if is_old else END])

    return answer
