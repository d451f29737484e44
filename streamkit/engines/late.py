"""A close that was put off and that the clock brings, while its producer goes on.

Twins: `close_told` for a thread, `close_told_async` for a loop. Both close as the producer would,
in its context, and tell the stream of what fails.

Rule: it is brought about once, and not where the producer has failed or aborted meanwhile.
"""

from __future__ import annotations

import asyncio
from functools import partial

from ..errors import BodyTooShort
from .ending import fail, fail_async
from .pool import pool
from .waits import LoopWaits, ThreadWaits


def close_soon(stream: ThreadWaits) -> None:
    """`close_told` for a clock, which must not wait for what hooks do."""
    try:
        pool.submit(partial(close_told, stream))
    except RuntimeError:
        pass  # the machine has no thread for it now; the clock comes again


def close_told(stream: ThreadWaits) -> None:
    """Close what was put off, in this thread."""
    put_off = stream._put_off
    if put_off is not None and not put_off.is_late:
        put_off.is_late = True
        put_off.context.run(_close, stream)


def _close(stream: ThreadWaits) -> None:
    if stream._is_over:
        return
    try:
        stream._close()
    except BodyTooShort:
        pass  # of which the stream has told
    except BaseException as error:  # a hook of the commit
        fail(stream, error, stream._end)


def close_told_async(stream: LoopWaits) -> None:
    """Close what was put off, in a task of this loop."""
    put_off = stream._put_off
    if put_off is not None and not put_off.is_late:
        put_off.is_late = True
        put_off.context.run(stream._keep, _close_async(stream, put_off.closer))


async def _close_async(stream: LoopWaits, closer: object) -> None:
    if stream._put_off is None or stream._is_over:
        return
    try:
        if isinstance(closer, asyncio.Future) and closer.done() and not closer.cancelled():
            closer.result()  # may raise: the error was its own, and has ended it
        await stream._close()
    except BodyTooShort:
        pass  # of which the stream has told
    except BaseException as error:
        await fail_async(stream, error, stream._end)
        await stream._cut_late()
