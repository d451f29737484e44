"""An HTTP/2 client with the face of `wire.Connection`: prior knowledge, no TLS, a stream at a time.

Rule: the window opens only for what the test has read, so a client that does not read holds the
server up, as over HTTP/1. RST_STREAM, GOAWAY and the connection's end cut a body; only END_STREAM
completes it.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events

from .wire import PATIENCE, READ_SIZE, BadFraming, Chunk, Ending, Framing, Head, Reply


class H2Connection:
    """One HTTP/2 connection to a server on this machine."""

    def __init__(self, port: int, *, patience: float = PATIENCE, receive_buffer: int | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), patience)
        self.port = port
        self.framing = Framing.NONE  # HTTP/2 frames every body by itself
        self.ending: Ending | None = None
        config = h2.config.H2Configuration(client_side=True, header_encoding="ascii")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._stream = 0
        self._head: Head | None = None
        self._waiting: deque[tuple[bytes, int]] = deque()  # the data, and what it takes of the window
        self._send()

    def __enter__(self) -> H2Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, method: str, path: str, version: str = "2", fields: dict[str, str] | None = None) -> None:
        """Send a request without a body, on a new stream."""
        self._stream = self._h2.get_next_available_stream_id()
        self._head, self.ending = None, None
        self._waiting.clear()
        names = {":method": method, ":path": path, ":scheme": "http", ":authority": f"127.0.0.1:{self.port}"}
        more = [(name.lower(), value) for name, value in (fields or {}).items()]
        self._h2.send_headers(self._stream, [*names.items(), *more], end_stream=True)
        self._send()

    def head(self) -> Head:
        """Read the head of the response."""
        while self._head is None:
            if self.ending is not None:
                raise BadFraming("the stream ended before its head")
            self._read()
        return self._head

    def chunks(self) -> Iterator[Chunk]:
        """The body, frame by frame; sets `ending` at the end."""
        while True:
            while self._waiting:
                data, window = self._waiting.popleft()
                if self.ending is None and window:
                    self._h2.acknowledge_received_data(window, self._stream)
                    self._send()
                if data:
                    yield Chunk(data, time.monotonic())
            if self.ending is not None:
                return
            self._read()

    def reply(self) -> Reply:
        """Read one whole response."""
        head = self.head()
        body = b"".join([chunk.payload for chunk in self.chunks()])
        assert self.ending is not None
        return Reply(head, body, self.framing, self.ending)

    def read_until(self, mark: bytes) -> bytes:
        """Read the body until `mark` has arrived; the rest can be read on."""
        got = bytearray()
        for chunk in self.chunks():
            got += chunk.payload
            if mark in got:
                return bytes(got)
        raise AssertionError(f"the body ended ({self.ending}) without {mark!r}: {bytes(got)[-200:]!r}")

    def rest_of_connection(self) -> bytes:
        """What else arrives on this stream."""
        return b"".join([chunk.payload for chunk in self.chunks()])

    def reset(self) -> None:
        """Leave this stream; the connection stays until it is closed."""
        self._h2.reset_stream(self._stream, h2.errors.ErrorCodes.CANCEL)
        self._send()

    def close(self) -> None:
        """Leave with the whole connection."""
        self.socket.close()

    def _send(self) -> None:
        self.socket.sendall(self._h2.data_to_send())

    def _read(self) -> None:
        try:
            received = self.socket.recv(READ_SIZE)
        except ConnectionError:
            received = b""
        if not received:
            self.ending = Ending.TRUNCATED
            return
        for event in self._h2.receive_data(received):
            if getattr(event, "stream_id", self._stream) in (self._stream, 0):
                self._take(event)
        self._send()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            fields = [(str(name), str(value)) for name, value in event.headers]
            status = next(int(value) for name, value in fields if name == ":status")
            self._head = Head("2", status, tuple(field for field in fields if field[0] != ":status"))
        elif isinstance(event, h2.events.DataReceived):
            self._waiting.append((event.data or b"", event.flow_controlled_length or 0))
        elif isinstance(event, h2.events.StreamEnded):
            self.ending = Ending.COMPLETE
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            self.ending = self.ending or Ending.TRUNCATED
