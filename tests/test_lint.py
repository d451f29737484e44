"""Every kind of stream under WebTest's linter: PEP 3333, read by somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from webtest import TestApp

import streamkit


def function(stream: streamkit.ResponseStream) -> None:
    stream.set_cookie("seen", "1")
    stream.write("one, ")
    stream << "two"


async def async_function(stream: streamkit.AsyncResponseStream) -> None:
    stream.set_cookie("seen", "1")
    await stream.write("one, ")
    await stream.write("two")


def iterable() -> Iterator[str]:
    yield "one, "
    yield "two"


async def async_iterable() -> AsyncIterator[str]:
    yield "one, "
    yield "two"


def imperative(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    function(environ["streamkit.stream"])
    return []


def generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"one, ", b"two"])


WAYS: dict[str, Callable[[], Any]] = {
    "function": lambda: streamkit.stream(function),
    "async function": lambda: streamkit.stream(async_function),
    "iterable": lambda: streamkit.stream(iterable()),
    "async iterable": lambda: streamkit.stream(async_iterable()),
    "write": lambda: streamkit.wrap(imperative),
    "thread": lambda: streamkit.wrap(imperative, engine="thread"),
    "foreign": lambda: streamkit.wrap(generator),
    "wrapped": lambda: streamkit.wrap(streamkit.stream(function), kind="wsgi"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_the_linter_has_nothing_to_say(way: Callable[[], Any], version: str) -> None:
    client = TestApp(way(), extra_environ={"SERVER_PROTOCOL": version})
    response = client.get("/")
    assert response.text == "one, two"
    assert response.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_linter_has_nothing_to_say_of_a_head(way: Callable[[], Any]) -> None:
    response = TestApp(way(), extra_environ={"SERVER_PROTOCOL": "HTTP/1.1"}).head("/")
    assert response.body == b""
    assert response.headers["Cache-Control"] == "no-store, no-transform"
