"""The iterables that a WSGI server sends, and how they begin and end.

Rule: the server's `start_response` is called here, once, when the head is known; until then
an error is raised to whoever asked for the body. A body closes its stream on every path:
exhaustion, an error, `close()`, and the collector.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ..core.compression import Coder
from ..core.framing import NEEDS_HTTP11, TOO_LONG, Body, Request
from ..core.response import StreamingResponse
from ..errors import BufferLimitExceeded, ClientDisconnected, TooManyStreams
from ..syntax import status_line
from ..types import Outcome, StartResponse
from . import producing, thread
from .bridge import BridgeStream
from .clock import thread_clock
from .ending import linger, outcome_of, settle, settle_async
from .logs import WSGI_LOG
from .pull import Pull
from .registry import RETRY_AFTER, TOO_MANY, check_room
from .spool import Spool
from .stand_in import stand_in_for
from .thread import ThreadStream

ChannelStream: TypeAlias = "ThreadStream | BridgeStream"
Reader: TypeAlias = "ThreadStream | BridgeStream | Pull"


def started(
    stream: ChannelStream,
    reader: Reader,
    start_response: StartResponse,
    commit_after: float | None,
    begin: Callable[[], object] | None = None,
) -> Iterable[bytes]:
    """Have the producer begin, wait for the head, hand it to the server, and return the body."""
    try:
        if stream.response is not None:  # an application on a worker has asked for room itself
            check_room(stream, thread_clock)
        thread_clock.add(stream)  # before it begins: a shutdown that comes now must find it
    except BaseException as error:
        stream._failed = not isinstance(error, TooManyStreams)  # then the clock has found no thread
        discard(stream, stream.response)
        if isinstance(error, TooManyStreams):
            return too_many(start_response, error)
        raise
    try:
        if begin is not None:
            begin()
        if not reader.wait_head(commit_after):
            _commit(stream)
            stream.beat()
        if stream._head is None:
            stream.raise_error()
            raise ClientDisconnected
        if stream._body is Body.WHOLE:
            return _whole(stream, reader, start_response)
        start_response(status_line(stream._head[0]), list(stream._head[1]))
        if stream.foreign and stream._body is not Body.STREAM:
            return _cut(stream, reader)
    except BaseException:
        stream._failed = True
        outcome = outcome_of(stream)
        reader.leave()
        settle_any(stream, outcome)
        raise
    if stream._coding is None:
        return StreamBody(stream, reader)
    return CodedBody(stream, reader, stream._new_coder())


def _cut(stream: ChannelStream, reader: Reader) -> Iterable[bytes]:
    """A body that its request or status does not have, and whose head came with it."""
    stream._end(None)
    settle_any(stream, "finished")
    reader.leave()
    return iter((b"",))


def _commit(stream: ChannelStream) -> None:
    if isinstance(stream, BridgeStream):
        asyncio.run_coroutine_threadsafe(_commit_bridge(stream), stream._loop).result()
    else:
        stream.commit()


async def _commit_bridge(stream: BridgeStream) -> None:
    await stream.commit()


def settle_any(stream: ChannelStream, outcome: Outcome, *, waits: bool = True) -> None:
    """Set the outcome; the hooks of an asynchronous stream run on its loop."""
    if not isinstance(stream, BridgeStream):
        settle(stream, outcome)
        return
    if stream._outcome is not None:
        return
    told = asyncio.run_coroutine_threadsafe(settle_async(stream, outcome), stream._loop)
    if waits:
        told.result()


class StreamBody:
    """The iterable that the server sends; it never knows how the chunks are made."""

    def __init__(self, stream: ChannelStream, reader: Reader) -> None:
        self._stream = stream
        self._reader = reader
        # A commit without a chunk: an empty one makes most servers send the head.
        self._flushes = not stream._chunks and not stream._done
        self._over = False

    def __iter__(self) -> StreamBody:
        stream = self._stream
        if isinstance(stream, ThreadStream) and stream is self._reader and not stream._done:
            stream._stand_in = stand_in_for(self, sys._getframe().f_back)
        return self

    def __next__(self) -> bytes:
        if self._flushes:
            self._flushes = False
            return b""
        if self._over:
            raise StopIteration
        try:
            chunk = self._reader.next_chunk()
        except BaseException:
            self._let_go()
            self._stream._failed = True
            linger(self._stream)
            outcome = outcome_of(self._stream)
            self._reader.leave()  # nobody reads on, also where the error is the reader's own
            settle_any(self._stream, outcome)
            raise
        if chunk is None:
            self._let_go()
            settle_any(self._stream, outcome_of(self._stream))
            raise StopIteration
        return chunk

    def _let_go(self) -> None:
        self._over = True
        self._stream._stand_in = None  # who keeps the stream need not keep the server's response

    def close(self) -> None:
        """The server is done, or the client gone. Never raises: it could only spoil a whole body."""
        if self._over:
            return
        self._let_go()
        if not self._stream.ended:
            self._reader.leave()
        settle_any(self._stream, outcome_of(self._stream))

    def __del__(self) -> None:
        if not self._over:
            self._let_go()
            self._reader.abandon()
            settle_any(self._stream, outcome_of(self._stream), waits=False)


class CodedBody(StreamBody):
    """The same, compressed."""

    def __init__(self, stream: ChannelStream, reader: Reader, coder: Coder) -> None:
        super().__init__(stream, reader)
        self._coder: Coder | None = coder

    def __iter__(self) -> CodedBody:
        return self  # what is written is not what the server sends

    def __next__(self) -> bytes:
        try:
            chunk = super().__next__()
        except StopIteration:
            coder, self._coder = self._coder, None
            if coder is None or not self._stream.connected:
                raise
            return coder.last()
        return self._coder.chunk(chunk) if chunk and self._coder is not None else chunk


class HeldBody:
    """A body that was held, in pieces."""

    def __init__(self, spool: Spool, stream: Any) -> None:
        self._pieces = spool.pieces()
        self._spool = spool
        self._stream = stream

    def __iter__(self) -> HeldBody:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            settle_any(self._stream, outcome_of(self._stream))
            raise

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]
        self._spool.close()
        if self._stream._outcome is None:
            self._stream._connected = False
            settle_any(self._stream, "disconnected")

    def __del__(self) -> None:
        self.close()


def _whole(stream: ChannelStream, reader: Reader, start_response: StartResponse) -> Iterable[bytes]:
    """Hold the body until it is complete; an error until then is a real 500."""
    spool = Spool(stream.options.http10_limit, stream._coder_if_any())
    try:
        while (chunk := reader.next_chunk()) is not None:
            spool.write(chunk)
        if not stream.connected:
            raise ClientDisconnected  # it may be half a body
        spool.complete()
    except BufferLimitExceeded as error:
        stream._failed = True
        stream.refuse(error)
        if isinstance(reader, Pull):
            reader.leave()
        settle_any(stream, "failed")
        return refuse(start_response, error, spool)
    except BaseException:
        spool.close()
        raise
    assert stream._head is not None
    stream._go_home()  # it is complete: nothing has to be done for it but to be sent
    status, pairs = stream._head
    try:
        start_response(status_line(status), [*pairs, ("Content-Length", str(spool.size))])
    except BaseException:
        spool.close()
        raise
    return HeldBody(spool, stream)


def plain_answer(
    start_response: StartResponse, status: int, text: str, more: Iterable[tuple[str, str]] = ()
) -> Iterable[bytes]:
    """A short response in plain text, whole."""
    body = text.encode()
    start_response(
        status_line(status),
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *more],
    )
    return [body]


def reject(start_response: StartResponse, request: Request) -> Iterable[bytes]:
    """Answer an HTTP/1.0 client that only HTTP/1.1 will do."""
    if request.method == "HEAD":
        start_response(status_line(505), [("Content-Type", "text/plain; charset=utf-8")])
        return iter((b"",))
    return plain_answer(start_response, 505, NEEDS_HTTP11)


def too_many(start_response: StartResponse, error: TooManyStreams, method: str = "GET") -> Iterable[bytes]:
    """Answer a client for whom there is no stream left now."""
    WSGI_LOG.warning("answered 503: %s", error)
    body = plain_answer(start_response, 503, TOO_MANY, [("Retry-After", str(RETRY_AFTER))])
    return body if method != "HEAD" else iter((b"",))


def refuse(start_response: StartResponse, error: BufferLimitExceeded, spool: Spool | None) -> Iterable[bytes]:
    if spool is not None:
        spool.close()
    WSGI_LOG.warning("answered 505: %s", error)
    return plain_answer(start_response, 505, TOO_LONG)


def head_only(
    stream: ChannelStream, response: StreamingResponse, start_response: StartResponse
) -> Iterable[bytes]:
    """The head as for GET; the producer never runs."""
    try:
        _commit(stream)
        stream.raise_error()  # of a hook of the commit that has aborted
        assert stream._head is not None
        start_response(status_line(stream._head[0]), list(stream._head[1]))
    except BaseException:
        stream._failed = True
        raise
    finally:
        discard(stream, response)
    return iter((b"",))  # hypercorn wants a chunk, and no other server minds an empty one


def discard(stream: ChannelStream, response: StreamingResponse | None) -> None:
    """End a stream whose producer is not to run."""
    stream._end(None)
    if response is None:
        pass
    elif isinstance(stream, BridgeStream):
        asyncio.run_coroutine_threadsafe(producing.close_unread(stream, response), stream._loop).result()
    else:
        thread.close_unread(stream, response)
    settle_any(stream, outcome_of(stream))
