"""Producers of kinds that are not to be seen at a glance, and functions that are none.

Rule: what is only odd works under both interfaces; what cannot work is refused, and nothing lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from driving import AsgiServer, WsgiServer

import streamkit
from streamkit.errors import ProducerError

INTERFACES = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])


class Odd:
    """Objects whose kind is not to be seen from their type."""

    async def __call__(self, stream: Any) -> None:
        await stream.write("called")

    def method(self, stream: Any) -> None:
        stream.write("method")

    async def async_method(self, stream: Any, more: str = "async method") -> None:
        await stream.write(more)

    @classmethod
    def of_class(cls, stream: Any) -> None:
        stream.write(f"of {cls.__name__}")

    @staticmethod
    async def static(stream: Any) -> None:
        await stream.write("static")


class BothWays:
    """Can be iterated either way; the asynchronous one blocks nobody."""

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("a loop would wait for it")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"awaited"


class CalledOrIterated:
    def __call__(self, stream: Any) -> None:
        raise AssertionError("its chunks are there already")

    def __iter__(self) -> Iterator[str]:
        return iter(["iterated"])


def run_to_its_end() -> Iterator[bytes]:
    chunks = iter([b"gone"])
    list(chunks)
    return chunks


def begun() -> Iterator[bytes]:
    chunks = (chunk for chunk in (b"gone", b"left"))
    next(chunks)
    return chunks


async def written(stream: Any, *, text: str) -> None:
    await stream.write(text)


ODD_PRODUCERS: list[tuple[Callable[[], Any], bytes]] = [
    (Odd, b"called"),
    (lambda: Odd().method, b"method"),
    (lambda: Odd().async_method, b"async method"),
    (lambda: Odd.of_class, b"of Odd"),
    (lambda: Odd.static, b"static"),
    (lambda: partial(written, text="partial"), b"partial"),
    (lambda: partial(partial(Odd().async_method), more="partial twice"), b"partial twice"),
    (lambda: partial(Odd()), b"called"),
    (lambda: lambda *every: every[0].write("every"), b"every"),
    (lambda: lambda stream, end="!": stream.write(end), b"!"),
    (BothWays, b"awaited"),
    (CalledOrIterated, b"iterated"),
    (run_to_its_end, b""),
    (begun, b"left"),
    (lambda: map(str, [1, 2]), b"12"),
    (lambda: {"a": 1, "b": 2}.keys(), b"ab"),
]


@INTERFACES
@pytest.mark.parametrize(("make", "body"), ODD_PRODUCERS)
def test_a_producer_may_be_an_object_of_any_kind(server: Any, make: Callable[[], Any], body: bytes) -> None:
    with server(streamkit.stream(make())) as serving_it:
        answer = serving_it.request().finish()
    assert (answer.body, answer.complete, answer.error) == (body, True, None)


def takes_nothing() -> None: ...


async def takes_two(stream: Any, more: Any) -> None: ...


def takes_by_name(*, stream: Any) -> None: ...


def takes_one_more_by_name(stream: Any, *, more: Any) -> None: ...


class Taking:
    def nothing(self) -> None: ...

    async def two(self, stream: Any, more: Any) -> None: ...

    def itself(self, stream: Any) -> None: ...


@pytest.mark.parametrize(
    "producer",
    [
        takes_nothing,
        takes_two,
        takes_by_name,
        takes_one_more_by_name,
        Taking().nothing,
        Taking().two,
        Taking.itself,
    ],
)
def test_a_function_that_cannot_take_the_stream_is_refused_before_it_is_served(producer: Any) -> None:
    with pytest.raises(ProducerError, match=rf"takes the stream.*{producer.__name__}.*takes \("):
        streamkit.stream(producer)


@INTERFACES
@pytest.mark.parametrize("returned", ["text", b"bytes", bytearray(b"bytes")])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_text_that_a_function_returns_is_not_lost_in_silence(
    server: Any, returned: Any, asynchronous: bool
) -> None:
    async def promises(stream: Any) -> Any:
        return returned

    with server(streamkit.stream(promises if asynchronous else lambda stream: returned)) as serving_it:
        answer = serving_it.request().finish()
    assert isinstance(answer.error, ProducerError)
    assert type(returned).__name__ in str(answer.error)
    assert not answer.committed
