"""A head that many responses have in common is made once, and belongs to each of them alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from driving import AsgiServer, WsgiServer

import streamkit
from streamkit import HeaderError

SERVERS = [WsgiServer, AsgiServer]
LATER = ("x-layer", "1")


def one_chunk(stream: Any) -> None:
    stream.write(b"abc")


async def one_chunk_async(stream: Any) -> None:
    await stream.write(b"abc")


def spoiling(app: Any, server: Any) -> Any:
    """A layer that adds to the list of headers it is given, as Starlette's and many of WSGI's do."""

    def wsgi(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers.append(LATER)
            return start_response(status, headers)

        return app(environ, start)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        async def spoiled(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-layer", b"1"))
            await send(message)

        await app(scope, receive, spoiled)

    return wsgi if server is WsgiServer else asgi


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("producer", [one_chunk, one_chunk_async, [b"abc"]])
def test_what_a_layer_adds_to_one_head_is_in_no_other(server: Any, producer: Any) -> None:
    with server(spoiling(streamkit.stream(producer), server)) as served:
        for _ in range(3):
            answer = served.request()
            assert answer.rest() == b"abc"
            assert answer.values("X-Layer") == ["1"]


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_hook_adds_to_one_head_is_in_no_other(server: Any) -> None:
    async def counting(stream: Any) -> None:
        stream.headers["X-Count"] = str(len(counts))
        counts.append(1)
        await stream.write(b"abc")

    counts: list[int] = []
    with server(streamkit.stream(counting)) as served:
        for expected in ("0", "1"):
            assert served.request().finish().values("X-Count") == [expected]
    with server(streamkit.stream(one_chunk_async)) as served:
        assert served.request().finish().values("X-Count") == []


@pytest.mark.parametrize("server", SERVERS)
def test_apps_with_other_options_have_heads_of_their_own(server: Any) -> None:
    described = streamkit.stream(one_chunk_async)
    kind = "wsgi" if server is WsgiServer else "asgi"
    apps = {value: streamkit.wrap(described, {"headers": {"X-App": value}}, kind=kind) for value in "ab"}
    for value in "abab":
        with server(apps[value]) as served:
            assert served.request().finish().values("X-App") == [value]


def test_the_shared_head_of_a_description_refuses_to_be_changed() -> None:
    described = streamkit.stream(one_chunk)
    with pytest.raises(HeaderError, match="shared by many responses"):
        described.headers.append(("X-Mine", "1"))
    with pytest.raises(HeaderError, match="shared by many responses"):
        described.headers[0] = ("Content-Type", "text/html")
    assert streamkit.stream(one_chunk).headers == [("Content-Type", "text/plain; charset=utf-8")]


def test_a_copy_of_a_description_has_a_head_of_its_own() -> None:
    copied = copy.deepcopy(streamkit.stream(one_chunk))
    copied.headers.append(("X-Mine", "1"))
    for described in (copied, pickle.loads(pickle.dumps(copied))):
        with WsgiServer(described) as served:
            assert served.request().finish().values("X-Mine") == ["1"]
    with WsgiServer(streamkit.stream(one_chunk)) as served:
        assert served.request().finish().values("X-Mine") == []
