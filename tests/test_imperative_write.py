"""Applications that use PEP 3333's own `write()`, the callable that `start_response` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import streamkit
from streamkit import ProtocolViolation

ENVIRON = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}


class Server:
    """Records what reaches it; its `write` is missing where a server has none."""

    def __init__(self, *, has_write: bool = True) -> None:
        self.heads: list[tuple[str, dict[str, str]]] = []
        self.written: list[bytes] = []
        self.has_write = has_write

    def start_response(
        self, status: str, headers: Any, exc_info: Any = None
    ) -> Callable[[bytes], object] | None:
        self.heads.append((status, dict(headers)))
        return self.written.append if self.has_write else None


def writing(*headers: tuple[str, str]) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        write(b"a")
        write(b"b")
        return [b"c"]

    return streamkit.wrap(app)


@pytest.mark.parametrize("has_write", [True, False])
def test_what_is_written_comes_before_what_is_returned(has_write: bool) -> None:
    server = Server(has_write=has_write)
    body = writing()(dict(ENVIRON), server.start_response)
    assert b"".join([*server.written, *body]) == b"abc"
    assert len(server.heads) == 1


def test_a_body_without_a_length_gets_the_head_of_a_stream() -> None:
    server = Server()
    writing(("ETag", '"x"'))(dict(ENVIRON), server.start_response)
    (_, head), *_ = server.heads
    assert head["X-Accel-Buffering"] == "no"
    assert "ETag" not in head


def test_a_body_with_a_length_passes_as_it_is() -> None:
    server = Server()
    writing(("Content-Length", "3"), ("ETag", '"x"'))(dict(ENVIRON), server.start_response)
    assert server.heads == [("200 OK", {"Content-Type": "text/plain", "Content-Length": "3", "ETag": '"x"'})]


@pytest.mark.parametrize("body", ["text", b"bytes", None, 5])
def test_what_is_no_iterable_of_bytes_is_refused_by_name(body: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    with pytest.raises(ProtocolViolation, match="wanted an iterable of bytes"):
        streamkit.wrap(app)(dict(ENVIRON), Server().start_response)
