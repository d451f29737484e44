"""Synchronous producers on pooled threads, written to from any thread.

Under WSGI the server's thread reads, under ASGI its loop does; either way the producer
writes without a thought for who reads.

Rule: the twin of `task`; only `await` differs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from contextvars import Context
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State
from ..core.producers import Kind, check_returned
from ..core.replay import guarded_by
from ..core.response import StreamingResponse
from ..errors import ClientDisconnected, StreamError
from ..types import Chunk
from .channel import Channel
from .ending import fail, log_error, outcome_of, raisable, report, settle
from .gather import ThreadGather
from .pool import pool
from .waits import ThreadWaits, reached

# One that may be taken again: the collector may run a destructor that adds an event in its midst.
guarded_by(threading.RLock)


class ThreadStream(Channel, ThreadWaits):
    """A response stream over a channel."""

    def write(self, data: Chunk, /) -> int:
        if type(data) is bytes and data:
            with self._mutex:
                if self._direct:
                    size = len(data)
                    self._chunks.append(data)
                    room = self._room = self._room - size
                    wake = self._wake
                    if wake is not None:
                        self._wake = None
                        wake()
                    if room < 0:
                        self._wait_for_room()
                    return size
        return self._write(data)

    def _write(self, data: Chunk) -> int:
        chunk = self._encode(data)
        size = len(chunk)
        if self._head is None:
            self._check_open(size)
            if self._commit_with(chunk, size):
                return size
            self.commit()
            if isinstance(data, str):  # the hooks may have changed the charset
                chunk = self._encode(data)
                size = len(chunk)
        with self._mutex:
            if self._admits(size):
                self._append(chunk)
                if self._room < 0:
                    self._wait_for_room()
        return size

    def _commit_with(self, chunk: bytes, size: int) -> bool:
        """Commit and take the first chunk in one step, so that the reader is woken once for both."""
        with self._mutex:
            if self._committer is not None or self._state is not State.STARTED or self._commit_hooks:
                return False
            self._fix_head_here()
            try:
                if (self._direct and size) or self._admits(size):
                    self._append(chunk)
            finally:
                self._wake_reader()
                reached(self, "_when_committed")
            if self._room < 0:
                self._wait_for_room()
        return True

    def _wait_for_room(self) -> None:
        """Wait until the reader has taken some; the mutex is held before and after."""
        while self._must_wait():
            turn = threading.Lock()
            turn.acquire()
            self._writers += (turn.release,)
            self._mutex.release()
            try:
                turn.acquire()
            finally:
                self._mutex.acquire()

    def commit(self) -> None:
        if self._head is not None:
            return
        me = threading.get_ident()
        with self._mutex:
            committer = self._committer
            if committer is None and self._state is State.STARTED:
                hooks = self._taken("commit")
                if not hooks:
                    self._commit_now()
                    return
                self._committer = me
        if committer is None:
            if self._committer == me:
                self._commit_after(hooks)
        elif committer == me:
            raise StreamError("an on_commit hook may change the head, but not write the body")
        else:
            self.wait_committed()
            if self._head is None and not self.closed:
                self.commit()  # the hooks of that thread failed, and its error is its own

    def commit_at_once(self) -> bool:
        """Commit where no hook has to run or to be waited for; whether that was so."""
        with self._mutex:
            if self._committer is not None or (self._commit_hooks and self._state is State.STARTED):
                return False
            if self._state is State.STARTED:
                self._commit_now()
            return True

    def _commit_after(self, hooks: list[Callable[..., Any]]) -> None:
        try:
            while hooks:
                for hook in hooks:
                    hook(self)
                hooks = self._taken("commit")  # a hook may have added one
            with self._mutex:
                if self._state is State.STARTED:
                    self._commit_now()
        except BaseException:
            waiting, self._when_committed = self._when_committed, None
            if waiting is not None:
                waiting.set_result(None)  # whoever waits tries by itself
            raise
        finally:
            self._committer = None

    def close(self) -> None:
        if self.closed:
            return
        self.commit()
        error = self._complete()
        if error is not None:
            fail(self, error, self._end)
            raise error

    def gather(self) -> ThreadGather:
        """Where a producer of many small texts leaves them; see `core.gathering`."""
        return ThreadGather(self)

    def _settle_elsewhere(self) -> None:
        pool.submit(lambda: settle(self, outcome_of(self)))


def start(stream: ThreadStream, context: Context) -> None:
    """Run the stream's producer on a pooled thread, in this context."""
    pool.submit(lambda: context.run(run, stream))


def run(stream: ThreadStream) -> None:
    """Run the producer to its end, and end the stream as it ended."""
    response = stream.response
    assert response is not None
    is_entered = not response.resources
    try:
        if response.resources:
            with ExitStack() as opened:
                for resource in response.resources:
                    opened.enter_context(resource)
                is_entered = True
                _produce(stream, response)
        else:
            _produce(stream, response)
    except BaseException as error:
        if not is_entered:
            close_unread(stream, response)
        try:
            fail(stream, error, stream._end)
        except BaseException:  # whatever a hook does, the reader is not left waiting
            stream._end(raisable(error))
            raise
        finally:
            del error
        return
    end_of_producer(stream, response)


def end_of_producer(stream: ThreadStream, response: StreamingResponse) -> None:
    """The producer has returned: close its stream, unless it is to stay open."""
    try:
        if response.keep_open:
            stream.commit()
        else:
            stream.close()
    except BaseException as error:  # a hook of the commit, or a body that is too short
        fail(stream, error, stream._end)


def _produce(stream: ThreadStream, response: StreamingResponse) -> None:
    producer = response.producer
    if response.kind is Kind.ITERABLE:
        _produce_from(stream, producer)
    elif response.loop:
        while not stream.closed and stream.connected:
            try:
                check_returned(producer, producer(stream))
            except Exception as error:
                if not may_go_on(stream, error) or not report(stream, error):
                    raise
    else:
        check_returned(producer, producer(stream))


def may_go_on(stream: BaseStream, error: BaseException) -> bool:
    """Whether a loop may outlive this error: after the commit, with a hook to judge it."""
    if (
        stream.closed
        or stream._ending is not None
        or (isinstance(error, ClientDisconnected) and not stream.connected)
    ):
        return False
    return stream._head is not None and stream.connected and bool(stream._error_calls())


def _produce_from(stream: ThreadStream, iterable: Iterable[Chunk]) -> None:
    iterator = iter(iterable)
    try:
        for chunk in iterator:
            stream.write(chunk)
    finally:
        close_iterator(iterable, iterator)


def close_iterator(iterable: object, iterator: object) -> None:
    """Close what was iterated, in the thread that iterated it."""
    for opened in (iterator, iterable) if iterator is not iterable else (iterable,):
        close = getattr(opened, "close", None)
        if close is not None:
            close()


def close_unread(stream: BaseStream, response: StreamingResponse) -> None:
    """Close the iterable of a producer that is not to run, and log what that raises."""
    try:
        close_iterator(response.producer, response.producer)
    except Exception as fault:
        log_error(stream, "closing the iterable failed", fault)
