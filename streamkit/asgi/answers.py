"""What both engines' streams are answered with under ASGI, where no body is to be made.

Rule: a synchronous stream commits and is settled on a worker, whenever a hook may run.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeAlias

from ..core.context import inherited
from ..core.framing import NEEDS_HTTP11
from ..core.response import StreamingResponse
from ..engines import producing, thread
from ..engines.ending import needs_settling, outcome_of, settle, settle_async
from ..engines.messages import body_message, encoded, plain_answer, too_many
from ..engines.pull import AsyncPull
from ..engines.task import TaskStream
from ..engines.thread import ThreadStream
from ..engines.twin import on_worker
from ..errors import TooManyStreams
from ..types import Outcome, Send

ChannelStream: TypeAlias = "ThreadStream | TaskStream"
Reader: TypeAlias = "ThreadStream | TaskStream | AsyncPull"


async def commit_either(stream: ChannelStream) -> None:
    """Commit, with the hooks of that; those of a synchronous stream run on a worker."""
    if isinstance(stream, TaskStream):
        await stream.commit()
    elif not stream.commit_at_once():
        around = None if stream.response is None else stream.response.beside
        commit = stream.commit if around is None else around(stream.commit)
        context = inherited(stream.options.excluded_context)  # for the hooks
        await on_worker(lambda: context.run(commit))


def settle_either(stream: ChannelStream, outcome: Outcome) -> Awaitable[None]:
    """Set the outcome; the hooks of a synchronous stream run on a worker."""
    if isinstance(stream, TaskStream):
        return settle_async(stream, outcome)
    return _settle_thread(stream, outcome)


async def _settle_thread(stream: ThreadStream, outcome: Outcome) -> None:
    if stream._outcome is None and needs_settling(stream):
        context = inherited(stream.options.excluded_context)
        await on_worker(lambda: context.run(settle, stream, outcome))
    else:
        settle(stream, outcome)


async def head_only(stream: ChannelStream, response: StreamingResponse, send: Send) -> None:
    """The head as for GET; the producer never runs."""
    try:
        await commit_either(stream)
        stream.raise_error()  # of a hook of the commit that has aborted
        assert stream._head is not None
        status, pairs = stream._head
        try:
            await send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
            await send(body_message(b"", more=False))
        except OSError:  # "raise an OSError if the client is gone" -- ASGI 2.4
            stream.leave()
    except BaseException:
        stream._failed = True
        raise
    finally:
        await discard(stream, response)


async def answer_505(stream: ChannelStream, response: StreamingResponse, send: Send) -> None:
    """Refuse a client of HTTP/1.0, as the option `http10` says."""
    await discard(stream, response)
    await plain_answer(send, 505, NEEDS_HTTP11)


async def answer_503(
    stream: ChannelStream, response: StreamingResponse, send: Send, error: TooManyStreams
) -> None:
    """Refuse a client for whom there is no stream left."""
    await discard(stream, response)
    await too_many(send, error)


async def discard(stream: ChannelStream, response: StreamingResponse) -> None:
    """End a stream whose producer is not to run."""
    stream._end(None)
    if response.kind.is_async:  # rows of a download are behind a coroutine function
        await producing.close_unread(stream, response)
    else:
        thread.close_unread(stream, response)
    await settle_either(stream, outcome_of(stream))
