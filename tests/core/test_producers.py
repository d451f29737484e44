"""What can make chunks, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from streamkit import ProducerError
from streamkit.core.producers import Kind, check_returned, is_one_shot, kind_of


def function(stream: Any) -> None: ...


async def async_function(stream: Any) -> None: ...


def generator() -> Iterator[str]:
    yield "a"


async def async_generator() -> AsyncIterator[str]:
    yield "a"


class Callable_:
    def __call__(self, stream: Any) -> None: ...

    def method(self, stream: Any) -> None: ...

    async def async_method(self, stream: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, stream: Any) -> None: ...


@pytest.mark.parametrize(
    ("producer", "kind"),
    [
        (function, Kind.FUNCTION),
        (lambda stream: None, Kind.FUNCTION),
        (functools.partial(function), Kind.FUNCTION),
        (Callable_(), Kind.FUNCTION),
        (Callable_().method, Kind.FUNCTION),
        (print, Kind.FUNCTION),
        (async_function, Kind.COROUTINE_FUNCTION),
        (functools.partial(async_function), Kind.COROUTINE_FUNCTION),
        (Callable_().async_method, Kind.COROUTINE_FUNCTION),
        (AsyncCallable(), Kind.COROUTINE_FUNCTION),
        (["a"], Kind.ITERABLE),
        (("a" for _ in "a"), Kind.ITERABLE),
        (generator(), Kind.ITERABLE),
        (async_generator(), Kind.ASYNC_ITERABLE),
    ],
)
def test_each_producer_is_one_of_four_kinds(producer: Any, kind: Kind) -> None:
    assert kind_of(producer) is kind


@pytest.mark.parametrize(
    ("producer", "says"),
    [
        (5, "int: 5"),
        (None, "NoneType"),
        (object(), "object"),
        ("text", "put it into a list"),
        (b"bytes", "put it into a list"),
        (generator, "call it and pass the generator"),
        (async_generator, "call it and pass the generator"),
        (list, "wanted a producer"),
    ],
)
def test_everything_else_is_refused_with_what_to_pass_instead(producer: Any, says: str) -> None:
    with pytest.raises(ProducerError, match=says):
        kind_of(producer)


def test_a_coroutine_is_refused_and_closed() -> None:
    with pytest.raises(ProducerError, match="without calling it"):
        kind_of(async_function(None))


def test_only_iterators_can_be_had_once() -> None:
    assert is_one_shot(generator())
    assert is_one_shot(async_generator())
    assert not is_one_shot(["a"])
    assert not is_one_shot(function)


def test_what_a_function_returns_unused_is_not_lost() -> None:
    check_returned(function, None)
    check_returned(function, 5)  # `lambda stream: stream.write(b"...")`
    with pytest.raises(ProducerError, match="pass an async function"):
        check_returned(function, async_function(None))
    with pytest.raises(ProducerError, match="pass the generator itself"):
        check_returned(function, generator())
