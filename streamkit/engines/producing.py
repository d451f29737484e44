"""A producer on a loop as a task, from its start to its end, and what else has to be done for it.

Rule: the stream ends as its producer did, and what was opened for it is closed in its own task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import Context
from functools import partial
from typing import Any

from ..core.base import BaseStream
from ..core.producers import Kind, check_returned
from ..core.response import StreamingResponse
from .ending import fail_async, raisable, report_async
from .logs import log_error
from .task import WORKING, LoopStream
from .thread import may_go_on

# From CPython 3.12 on a task may run at once, up to its first wait: most need no turn of the loop.
EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

CLEANUP_SECONDS = 3.0  # for a producer that tidies up after the end; gunicorn waits as long for us
PRODUCER = "streamkit-producer"  # one name for all: a numbered one is a string for each


def start(stream: LoopStream, context: Context | None) -> asyncio.Task[None]:
    """Run the stream's producer as a task of its loop; `context` None is a copy of the current one."""
    loop = stream._loop
    if context is None:
        if loop.get_task_factory() is None:  # what `create_task` comes to, in less time
            return asyncio.Task(run(stream), loop=loop, name=PRODUCER, **EAGER)
        return loop.create_task(run(stream), name=PRODUCER)
    return context.run(partial(loop.create_task, run(stream), name=PRODUCER))


async def run(stream: LoopStream) -> None:
    """Run the producer to its end, and end the stream as it ended."""
    response = stream.response
    assert response is not None
    is_entered = not response.resources
    stream._at_work = producing = object()
    WORKING.set(producing)
    try:
        if response.resources:
            async with AsyncExitStack() as opened:
                await enter_all(opened, response.resources)
                is_entered = True
                check_returned(response.producer, await _producing(stream, response))
                if stream._head is None:
                    await stream.commit()  # its hooks find the resources open, as they do at a first write
        else:
            check_returned(response.producer, await _producing(stream, response))
    except BaseException as error:
        stream._at_work = None
        stream.stop_committing()
        ended = not stream.connected or stream._ending or stream._refusal
        if ended and isinstance(error, asyncio.CancelledError):
            stream._end(None)  # by the leave, or an early end; whoever cancelled does not wait for the word
            return
        if not is_entered:
            await close_unread(stream, response)
        try:
            await fail_async(stream, error, stream._end)
        except BaseException as raised:  # whatever a hook does, the reader is not left waiting
            stream._end(raisable(error))
            if isinstance(raised, (SystemExit, KeyboardInterrupt)):
                _leave_to_the_loop(asyncio.current_task())
            raise
        finally:
            del error
        return
    stream._at_work = None
    if stream._head is None or stream._limit is not None or response.keep_open:
        await end_of_producer(stream, response)
    else:
        stream.close()


def _leave_to_the_loop(task: asyncio.Task[None] | None) -> None:
    """What the loop raises out of this task, asyncio need not log again when the task is freed."""
    if task is not None:
        task.add_done_callback(asyncio.Task.exception)


async def enter_all(opened: AsyncExitStack, resources: tuple[Any, ...]) -> None:
    """Enter context managers of either kind."""
    for resource in resources:
        if hasattr(type(resource), "__aenter__"):
            await opened.enter_async_context(resource)
        else:
            opened.enter_context(resource)


async def end_of_producer(stream: LoopStream, response: StreamingResponse) -> None:
    """The producer has returned: close its stream, unless it is to stay open."""
    try:
        if stream._head is None:
            await stream.commit()
        if not response.keep_open or stream._put_off is not None:
            await stream.close()
    except BaseException as error:  # a hook of the commit, or a body that is too short
        stream.stop_committing()
        await fail_async(stream, error, stream._end)


def _producing(stream: LoopStream, response: StreamingResponse) -> Awaitable[Any]:
    """The producer at work; no coroutine around it, which every open stream would keep."""
    if response.kind is Kind.ASYNC_ITERABLE:
        return _produce_from(stream, response.producer, response.item_encoder())
    if response.loop:
        return _produce_again(stream, response.producer)
    working: Awaitable[Any] = response.producer(stream)
    return working


async def _produce_again(stream: LoopStream, producer: Callable[..., Awaitable[Any]]) -> None:
    while not stream.closed and stream.connected:
        try:
            check_returned(producer, await producer(stream))
        except Exception as error:
            if not may_go_on(stream, error) or not await report_async(stream, error):
                raise
        # A producer that never waits would keep its reader, and the whole loop, from running.
        await asyncio.sleep(0)


async def _produce_from(
    stream: LoopStream, iterable: AsyncIterable[Any], encode: Callable[[Any], bytes] | None
) -> None:
    iterator = aiter(iterable)
    try:
        async for item in iterator:
            await stream.write(item if encode is None else encode(item))
    finally:
        await close_iterator(iterable, iterator)


async def close_iterator(iterable: object, iterator: object) -> None:
    """Close what was iterated, in the task that iterated it."""
    for opened in (iterator, iterable) if iterator is not iterable else (iterable,):
        close = getattr(opened, "aclose", None)
        if close is not None:
            await close()


async def close_unread(stream: BaseStream, response: StreamingResponse) -> None:
    """Close the iterable of a producer that is not to run, and log what that raises."""
    if not (response.kind.is_iterable or response.closes_unread):
        return  # a function is called for the next request, whatever else it is
    try:
        await close_iterator(response.producer, response.producer)
    except Exception as fault:
        log_error(stream, "closing the iterable failed", fault)
