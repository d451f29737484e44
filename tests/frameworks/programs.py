"""One program as every kind of view and producer, for the frameworks that have both kinds of views.

    def program(request, stream):
        yield "a"                     # written
        yield Wait(arrived)           # waited for, without blocking a loop
        return HttpResponse()         # what the view returns

Rule: an error of a write is raised at its `yield`. An iterable gets None for its stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from driving import PATIENCE

Program = Callable[..., Any]
PRODUCERS = ["function", "async-function", "iterable", "async-iterable"]


class Wait:
    """A step that ends when the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def now(self) -> None:
        assert self.event.wait(PATIENCE), "the event that the program waits for did not come"

    async def come(self) -> None:
        """Look until it is set: a worker that waits could outlive the test."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while not self.event.is_set():
            assert loop.time() < end, "the event that the program waits for did not come"
            await asyncio.sleep(0.002)


class Call:
    """A step that runs a blocking function, and gives its result: the ORM, say."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function


def run(program: Any, write: Callable[[Any], Any]) -> Any:
    try:
        item = next(program)
        while True:
            try:
                if isinstance(item, Wait):
                    argument = item.now()
                elif isinstance(item, Call):
                    argument = item.function()
                else:
                    argument = write(item)
            except BaseException as error:
                item = program.throw(error)
            else:
                item = program.send(argument)
    except StopIteration as end:
        return end.value


async def run_async(program: Any, write: Callable[[Any], Any]) -> Any:
    try:
        item = next(program)
        while True:
            try:
                if isinstance(item, Wait):
                    argument = await item.come()
                elif isinstance(item, Call):
                    argument = await called(item.function)
                else:
                    argument = await write(item)
            except BaseException as error:
                item = program.throw(error)
            else:
                item = program.send(argument)
    except StopIteration as end:
        return end.value


async def called(function: Callable[[], Any]) -> Any:
    """Run blocking code as Django's ORM has it run."""
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)()


def view_of(kind: str, program: Program) -> Any:
    """The program as a view that takes its stream after the request, `sync` or `async`; not live yet."""
    if kind == "sync":

        def view(request: Any, stream: Any, *args: Any, **values: Any) -> Any:
            return run(program(request, stream, *args, **values), stream.write)

        return view

    async def view_async(request: Any, stream: Any, *args: Any, **values: Any) -> Any:
        return await run_async(program(request, stream, *args, **values), stream.write)

    return view_async


def producer_of(kind: str, program: Program, *arguments: Any) -> Any:
    """The program as a producer of this kind; it is called with the arguments, and the stream."""
    if kind == "function":
        return lambda stream: run(program(*arguments, stream), stream.write)
    if kind == "async-function":

        async def produce(stream: Any) -> Any:
            return await run_async(program(*arguments, stream), stream.write)

        return produce
    begun = program(*arguments, None)
    return _iterated(begun) if kind == "iterable" else _iterated_async(begun)


def _iterated(program: Any) -> Iterator[Any]:
    try:
        argument = None
        while True:
            try:
                item = program.send(argument)
            except StopIteration:
                return
            argument = None
            if isinstance(item, Wait):
                item.now()
            elif isinstance(item, Call):
                argument = item.function()
            else:
                yield item
    finally:
        program.close()


async def _iterated_async(program: Any) -> AsyncIterator[Any]:
    try:
        argument = None
        while True:
            try:
                item = program.send(argument)
            except StopIteration:
                return
            argument = None
            if isinstance(item, Wait):
                await item.come()
            elif isinstance(item, Call):
                argument = await called(item.function)
            else:
                yield item
    finally:
        program.close()


class Ends:
    """What the hooks of one stream were told."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.errors: list[BaseException] = []
        self.heard = threading.Event()

    def listen(self, stream: Any) -> None:
        stream.on_error(lambda stream, error: self.errors.append(error))
        stream.on_finish(self._finish)

    def _finish(self, stream: Any) -> None:
        self.outcomes.append(stream.outcome)
        self.heard.set()

    def come(self) -> list[str]:
        assert self.heard.wait(PATIENCE), "nobody was told of the end"
        return self.outcomes


def read_up_to(answer: Any, end: bytes) -> bytes:
    """The chunks up to the one that ends so; on a busy machine a piece of a page may come as several."""
    body = b""
    while not body.endswith(end):
        chunk = answer.next_chunk()
        assert chunk is not None, f"the body ended without {end!r}: {body!r}"
        body += chunk
    return body


def cookies(answer: Any) -> list[str]:
    """The names of the cookies that an answer sets, in their order."""
    return [value.strip().partition("=")[0] for value in answer.headers.getlist("Set-Cookie")]
