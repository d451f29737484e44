"""What can make the chunks of a body.

A producer is a function that takes the stream, an async function that does, an iterable
of text and bytes, or an async iterable of them.

Rule: `kind_of` is the only place that tells them apart, and refuses everything else with
a `ProducerError` that says what to write instead.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from enum import Enum
from functools import partial
from types import AsyncGeneratorType, FunctionType, GeneratorType, MethodType
from typing import Any, TypeAlias

from ..errors import ProducerError
from ..types import Chunk
from .stream import AsyncResponseStream, ResponseStream

Producer: TypeAlias = (
    Callable[[ResponseStream], object]
    | Callable[[AsyncResponseStream], Awaitable[object]]
    | Iterable[Chunk]
    | AsyncIterable[Chunk]
)


class Kind(Enum):
    FUNCTION = "function"
    COROUTINE_FUNCTION = "async function"
    ITERABLE = "iterable"
    ASYNC_ITERABLE = "async iterable"

    is_async: bool
    is_iterable: bool

    def __init__(self, name: str) -> None:
        # Not properties: each response asks a few times.
        self.is_async = name.startswith("async")
        self.is_iterable = name.endswith("iterable")


# What most iterables are: asked for by their type, they cost less than any `isinstance`.
_KNOWN = {
    AsyncGeneratorType: Kind.ASYNC_ITERABLE,
    GeneratorType: Kind.ITERABLE,
    list: Kind.ITERABLE,
    tuple: Kind.ITERABLE,
}

_WANTED = (
    "wanted a producer: a function that takes the stream, an async function that does, "
    "an iterable of str or bytes, or an async iterable of them"
)
_COROUTINE = inspect.CO_COROUTINE
_OTHER_FLAGS = inspect.CO_GENERATOR | _COROUTINE | inspect.CO_ASYNC_GENERATOR


def kind_of(producer: object) -> Kind:
    """Which of the four kinds this is; `ProducerError` if it is none."""
    if type(producer) is FunctionType:
        flags = producer.__code__.co_flags & _OTHER_FLAGS
        if flags == _COROUTINE:
            return Kind.COROUTINE_FUNCTION
        if not flags:
            return Kind.FUNCTION
    known = _KNOWN.get(type(producer))
    if known is not None:
        return known
    if isinstance(producer, (str, bytes, bytearray, memoryview)):
        raise ProducerError(
            f"{_WANTED}; got one {type(producer).__name__}, which would be sent a character at a time: "
            f"put it into a list"
        )
    if inspect.iscoroutine(producer):
        producer.close()
        raise ProducerError(f"{_WANTED}; got a coroutine: pass the async function itself, without calling it")
    if hasattr(type(producer), "__aiter__"):
        return Kind.ASYNC_ITERABLE
    if isinstance(producer, Iterable):
        return Kind.ITERABLE
    if not callable(producer) or isinstance(producer, type):
        raise ProducerError(f"{_WANTED}; got {type(producer).__name__}: {producer!r}")
    return _kind_of_callable(producer)


def _kind_of_callable(producer: Any) -> Kind:
    function = producer
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ProducerError(
            f"{_WANTED}; got the generator function {producer!r}: call it and pass the generator"
        )
    return Kind.COROUTINE_FUNCTION if inspect.iscoroutinefunction(function) else Kind.FUNCTION


def check_takes_stream(producer: object) -> None:
    """Refuse a function or a method that cannot be called with the stream and nothing else."""
    function, given = producer, 1
    if type(function) is MethodType:
        function, given = function.__func__, 2
    if type(function) is not FunctionType:
        return  # iterables; and what other callables take, they say when they are called
    code = function.__code__
    if code.co_argcount == given and not code.co_kwonlyargcount:
        return
    takes_it = code.co_argcount >= given or code.co_flags & inspect.CO_VARARGS
    wants_more = code.co_argcount - len(function.__defaults__ or ()) > given or code.co_kwonlyargcount > len(
        function.__kwdefaults__ or ()
    )
    if wants_more or not takes_it:
        raise ProducerError(f"{_WANTED}; got {producer!r}, which takes {inspect.signature(function)}")


def is_one_shot(producer: object) -> bool:
    """Whether the producer is an iterator, whose chunks can be had only once."""
    return hasattr(type(producer), "__next__") or hasattr(type(producer), "__anext__")


def check_returned(producer: object, returned: object) -> None:
    """Refuse what a function producer returned unused: nothing is lost silently."""
    if returned is None:
        return
    if isinstance(returned, (str, bytes, bytearray)):
        raise ProducerError(
            f"{producer!r} returned {type(returned).__name__}, which is not sent: wanted it written to the "
            "stream, or in a list in place of the function"
        )
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise ProducerError(f"{producer!r} returned an awaitable: pass an async function instead")
    if inspect.isgenerator(returned) or isinstance(returned, AsyncIterable):
        raise ProducerError(f"{producer!r} returned a generator: pass the generator itself instead")
