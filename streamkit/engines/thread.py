"""Synchronous producers on pooled threads, written to from any thread.

Under WSGI the server's thread reads, under ASGI its loop does; either way the producer
writes without a thought for who reads.

Rule: the twin of `task` and `producing`; only `await` differs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import ExitStack
from contextvars import Context
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State
from ..core.producers import Kind, check_returned
from ..core.replay import guard_anew, guarded_by
from ..core.response import StreamingResponse
from ..errors import ClientDisconnected, StreamError
from ..types import Chunk
from .channel import Channel
from .ending import fail, outcome_of, raisable, report, settle
from .gather import ThreadGather
from .late import close_soon
from .logs import log_error
from .pool import pool
from .waits import ThreadWaits, future_of, reached

# One that may be taken again: the collector may run a destructor that adds an event in its midst.
guarded_by(threading.RLock)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=guard_anew)


NOT_IN_HOOK = "an on_commit hook may change the head, but not write the body"
HOOK_FAILED = "an on_commit hook failed while this write waited for it, so the head is not sent"


class ThreadStream(Channel, ThreadWaits):
    """A response stream over a channel."""

    _committing: Future[bool] | None = None  # the hooks of the commit at work; then whether all returned

    def write(self, data: Chunk, /) -> int:
        chunk = data if type(data) is bytes else self._utf8(data)
        if chunk:
            with self._mutex:
                if self._direct:
                    size = len(chunk)
                    wake, stand_in = self._wake, self._stand_in
                    if wake is not None and stand_in is not None and stand_in.sends(self, chunk):
                        return size
                    self._chunks.append(chunk)
                    room = self._room = self._room - size
                    if wake is not None:
                        self._wake = None
                        wake()
                    if room < 0:
                        self._wait_on_thread()
                    return size
        return self._write(data)

    def _write(self, data: Chunk) -> int:
        head = self._head  # before the charset is asked for, which may change until there is one
        chunk = self._encode(data)
        size = len(chunk)
        if head is None:
            self._check_open(size)
            if self._commit_with(chunk, size):
                return size
            self.commit()
            if isinstance(data, str):  # the hooks may have changed the charset
                chunk = self._encode(data)
                size = len(chunk)
        with self._mutex:
            if self._bom and isinstance(data, str):
                chunk = self._encode(data)  # only here is it known whether it begins the body
                size = len(chunk)
            if self._admits(size):
                self._append(chunk)
                if self._room < 0:
                    self._wait_on_thread()
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
                self._wait_on_thread()
        return True

    def commit(self) -> None:
        if self._head is not None:
            return
        with self._mutex:
            committing = self._committing
            if committing is None:
                if self._state is not State.STARTED:
                    return
                hooks = self._taken("commit")
                if not hooks:
                    self._commit_now()
                    return
                self._committer = threading.get_ident()
                self._committing = Future()
        if committing is None:
            self._commit_after(hooks)
        elif self._committer == threading.get_ident():
            raise StreamError(NOT_IN_HOOK)
        else:
            self._wait_for_hooks(committing)

    def _wait_for_hooks(self, committing: Future[bool]) -> None:
        """Wait until the hooks that another thread runs are through, or the stream is at its end."""
        awaited: list[Future[Any]] = [committing, future_of(self, "_when_committed")]
        if not self._is_over:
            wait_for_futures(awaited, return_when=FIRST_COMPLETED)
        if self._head is None and not self._is_over:
            raise StreamError(HOOK_FAILED)

    def commit_at_once(self) -> bool:
        """Commit where no hook has to run or to be waited for; whether that was so."""
        with self._mutex:
            if self._committer is not None or (self._commit_hooks and self._state is State.STARTED):
                return False
            if self._state is State.STARTED:
                self._commit_now()
            return True

    def _commit_after(self, hooks: list[Callable[..., Any]]) -> None:
        returned = False
        try:
            while hooks:
                for hook in hooks:
                    hook(self)
                hooks = self._taken("commit")  # a hook may have added one
            with self._mutex:
                if self._state is State.STARTED:
                    self._commit_now()
            returned = True
        finally:
            with self._mutex:
                committing, self._committing, self._committer = self._committing, None, None
            assert committing is not None
            committing.set_result(returned)

    def close(self) -> None:
        if not (self._is_over or self._puts_off_close()):
            self._close()

    def _close(self) -> None:
        self.commit()
        error = self._complete()
        if error is not None:
            fail(self, error, self._end)
            raise error

    def _is_at_work(self) -> bool:
        return self._at_work == threading.get_ident()

    def _close_late(self) -> None:
        close_soon(self)

    def gather(self) -> ThreadGather:
        """Where a producer of many small texts leaves them; see `core.gathering`."""
        return ThreadGather(self)

    def _settle_elsewhere(self) -> None:
        try:
            pool.submit(lambda: settle(self, outcome_of(self)))
        except RuntimeError:  # the machine has no thread for it, and there is no second time
            settle(self, outcome_of(self))


def start(stream: ThreadStream, context: Context) -> None:
    """Run the stream's producer on a pooled thread, in this context."""
    try:
        pool.submit(lambda: context.run(run, stream))
    except Exception:  # there is no thread for it, so it is not to run
        assert stream.response is not None
        close_unread(stream, stream.response)
        raise


def run(stream: ThreadStream) -> None:
    """Run the producer to its end, and end the stream as it ended."""
    response = stream.response
    assert response is not None
    is_entered = not response.resources
    stream._at_work = threading.get_ident()
    try:
        if response.resources:
            with ExitStack() as opened:
                for resource in response.resources:
                    opened.enter_context(resource)
                is_entered = True
                _produce(stream, response)
                if stream._head is None:
                    stream.commit()  # its hooks find the resources open, as they do at a first write
        else:
            _produce(stream, response)
    except BaseException as error:
        stream._at_work = None
        if not is_entered:
            close_unread(stream, response)
        try:
            fail(stream, error, stream._end)
        except BaseException:  # whatever a hook does, the reader is not left waiting
            stream._end(raisable(error))
            raise
        return
    stream._at_work = None
    end_of_producer(stream, response)


def end_of_producer(stream: ThreadStream, response: StreamingResponse) -> None:
    """The producer has returned: close its stream, unless it is to stay open."""
    try:
        if response.keep_open and stream._put_off is None:
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
    """Whether a loop may outlive this error: after the commit, with a hook of its own to judge it."""
    if (
        stream.closed
        or stream._ending is not None
        or (isinstance(error, ClientDisconnected) and not stream.connected)
    ):
        return False
    return stream._head is not None and stream.connected and stream._is_judged()


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
    if not (response.kind.is_iterable or response.closes_unread):
        return  # a function is called for the next request, whatever else it is
    try:
        close_iterator(response.producer, response.producer)
    except Exception as fault:
        log_error(stream, "closing the iterable failed", fault)
