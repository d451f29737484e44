"""Between a completion and the cut after it: browsers drop what they have not parsed when the cut arrives.

Rule: only the shortest time is looked at, which a busy machine can but prolong.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from driving import PATIENCE, environ_of, scope_of

import streamkit

SHORTEST = 0.1  # seconds; it is twice as many
HTML = "text/html; charset=utf-8"


def write(stream: Any) -> None:
    stream.write(b"<p>begun")
    raise ValueError("in the middle")


async def write_async(stream: Any) -> None:
    await stream.write(b"<p>begun")
    raise ValueError("in the middle")


def wsgi_app(environ: Any, start_response: Any) -> Any:
    stream = environ["streamkit.stream"]
    stream.headers["Content-Type"] = HTML
    write(stream)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    stream = scope["streamkit.stream"]
    stream.headers["Content-Type"] = HTML
    await write_async(stream)


@pytest.mark.parametrize("kind", ["described", "wrapped"])
def test_a_cut_comes_a_moment_after_the_completion_under_wsgi(kind: str) -> None:
    sent: list[tuple[float, bytes]] = []

    def note(chunk: bytes) -> None:
        sent.append((time.monotonic(), chunk))

    described: Any = streamkit.stream(write, content_type=HTML)
    app = described if kind == "described" else streamkit.wrap(wsgi_app, kind="wsgi")

    def serve() -> None:
        for chunk in app(environ_of(), lambda *head: note):
            note(chunk)

    with pytest.raises(ValueError, match="in the middle"):
        serve()
    assert b"</script>" in b"".join(chunk for _, chunk in sent)
    assert time.monotonic() - sent[-1][0] >= SHORTEST


@pytest.mark.parametrize("kind", ["described", "wrapped", "synced"])
def test_a_cut_comes_a_moment_after_the_completion_under_asgi(kind: str) -> None:
    sent: list[tuple[float, bytes]] = []

    async def send(message: Any) -> None:
        sent.append((time.monotonic(), message.get("body", b"")))

    async def main() -> None:
        producer = write if kind == "synced" else write_async
        described: Any = streamkit.stream(producer, content_type=HTML)
        app = streamkit.wrap(asgi_app, kind="asgi") if kind == "wrapped" else described
        with pytest.raises(ValueError, match="in the middle"):
            await asyncio.wait_for(app(scope_of(), asyncio.Event().wait, send), PATIENCE)

    asyncio.run(main())
    assert b"</script>" in b"".join(chunk for _, chunk in sent)
    assert time.monotonic() - sent[-1][0] >= SHORTEST


async def wait_after_a_write(stream: Any) -> None:
    await stream.write(b"<p>begun")
    await asyncio.Event().wait()


async def waiting_app(scope: Any, receive: Any, send: Any) -> None:
    stream = scope["streamkit.stream"]
    stream.headers["Content-Type"] = HTML
    await wait_after_a_write(stream)


@pytest.mark.parametrize("kind", ["described", "wrapped"])
def test_a_page_past_its_time_is_cut_a_moment_after_its_completion(kind: str) -> None:
    sent: list[tuple[float, bytes]] = []

    async def send(message: Any) -> None:
        sent.append((time.monotonic(), message.get("body", b"")))

    async def main() -> None:
        wrapped = streamkit.wrap(waiting_app, kind="asgi", max_duration=0.05)
        described: Any = streamkit.stream(
            wait_after_a_write, content_type=HTML, options={"max_duration": 0.05}
        )
        app: Any = wrapped if kind == "wrapped" else described
        with pytest.raises(streamkit.errors.StreamEnded):
            await asyncio.wait_for(app(scope_of(), asyncio.Event().wait, send), PATIENCE)

    asyncio.run(main())
    assert b"</script>" in b"".join(chunk for _, chunk in sent)
    assert time.monotonic() - sent[-1][0] >= SHORTEST
