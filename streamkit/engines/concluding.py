"""The end of a request under ASGI: the application has returned, or raised.

Rule: whatever was begun gets the end that it deserves, and each error reaches somebody once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeGuard

from ..core.base import BaseStream
from ..core.causes import says
from ..core.commit import State
from ..core.framing import TOO_LONG, Body
from ..errors import (
    ApplicationFailed,
    BufferLimitExceeded,
    ClientDisconnected,
    ProtocolViolation,
    StreamEnded,
    TooManyStreams,
)
from .crossing import Crossing
from .ending import (
    fail_async,
    finished,
    forget,
    is_caused_by,
    is_end_of,
    linger_async,
    outcome_of,
    settle_async,
)
from .last_words import last_words
from .logs import ASGI_LOG, log_error
from .messages import body_message, close_after_error, heard, plain_answer, take_back, too_many
from .phases import CARED, DROPPING, HELD, NEW, NOTED, ORDER, OVER
from .ready import keep
from .relay import Relay
from .waits import reached


class Concluding(Relay):
    """What has to be done for a response when its application is through."""

    __slots__ = ()

    _refused: TooManyStreams | None = None  # it found all streams taken

    def _close(self) -> Awaitable[None]:
        """Complete the response."""
        raise NotImplementedError

    async def _close_after_commit(self) -> None:
        """Complete a response of which nothing was sent yet."""
        raise NotImplementedError

    async def conclude(self, error: BaseException | None) -> None:
        """The application has returned, or raised: end the response as that deserves."""
        writer, self._writer = self._writer, None
        try:
            if self._cut_off and not isinstance(error, GeneratorExit) and writer is asyncio.current_task():
                await take_back(self._cut_off)
            if self._given_up:
                await heard()
            for beside in self._beside:
                is_told_to_stop = isinstance(error, asyncio.CancelledError) and not self._cut_off
                if is_told_to_stop or (error is not None and self._head is None):
                    # The server waits for no more; or its error is the answer. Not before it has begun.
                    asyncio.get_running_loop().call_soon(beside.cancel)
                await asyncio.wait([beside])
                _hear_of_leave(beside)
            if self._crossing is not None:
                error = await self._crossed(self._crossing, error)
            if self._put_off is not None and error is None:
                if self.phase == NEW:
                    error = await self._closed_late()
                elif self.phase == CARED and not self._is_over:
                    await self._close()
            if not self._is_failure(self._app_status):
                self._app_status = 0
            self._put_off = None
            await self._conclude(error)
        except asyncio.CancelledError:
            if self._outcome is None:  # amid its last words, or while they were sent
                self._connected = False
                await self._settle()
            raise
        finally:
            self.scope = None
            for beside in self._beside if self._outcome is not None else ():
                beside.cancel()  # nothing, where it is done
            if self._inbox is not None:
                self._inbox.stop()
            if self._crossing is not None:
                self._crossing.cut()
                self._crossing = None  # it holds the stream, and must not be held by it
            if self._heading is not None:
                _hear_of_leave(self._heading)
            if self.spool is not None:
                self.spool.close()

    async def _closed_late(self) -> BaseException | None:
        """Close what was put off and has no head yet; what that has raised."""
        # In a task of its own: its writer is cancelled for a leave, and the server's own must not be.
        closing = keep(asyncio.get_running_loop().create_task(self._close_after_commit()))
        try:
            await asyncio.wait([closing])
        finally:
            closing.cancel()  # nothing, where it is done
        _hear_of_leave(closing)
        return None if closing.cancelled() else closing.exception()

    async def _crossed(self, crossing: Crossing, error: BaseException | None) -> BaseException | None:
        """Have sent what worker threads have written; what the application has to answer for then."""
        is_told_to_stop = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        if is_told_to_stop and not (self._cut_off and self._connected):
            return error
        try:
            await crossing.empty()
        except Exception as fault:
            if error is None:
                return fault
            if not is_caused_by(error, fault):
                log_error(self, "the server took no more of what worker threads had written", fault)
        return error

    async def _conclude(self, error: BaseException | None) -> None:
        if self._is_last and self.phase == CARED and self.inbox.disconnected:
            self.phase = OVER  # its task was ended amid the last message, for the leave of whom it was for
        if self._ending is not None and self._connected:
            if isinstance(error, asyncio.CancelledError) and not self._cut_off:
                raise error
            is_word = isinstance(error, asyncio.CancelledError) or is_end_of(self, error)
            if error is not None and not is_word:
                log_error(self, "the application failed at the end of its stream", error)
            await self._conclude_early(self._ending)
            return
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            is_cut_off = self._cut_off and not isinstance(error, GeneratorExit)
            if not is_cut_off and self.phase not in (OVER, DROPPING):
                self._connected = False  # by the server, whose client gets no more: this is no whole body
            await self._settle()
            if not is_cut_off:
                raise error
            return
        if self._only_left(error):
            ASGI_LOG.debug("the client has left: %r", error)
            forget(error)
            await settle_async(self, outcome_of(self))
            return
        if error is None and self.spool is not None:
            error = self.spool.exceeded
        if error is None:
            if self._inbox is not None and self._inbox.disconnected and self._is_unanswered():
                self._connected = False  # an application that waits for a leave may return without an answer
            error = self._unfinished()
        if self._head is None:
            await self._conclude_uncommitted(error)
        elif self.phase in (OVER, DROPPING):  # what happened after a complete response is the application's
            await settle_async(self, outcome_of(self))
            if error is None and self._failed:
                error = self._error  # the server did not take the end that `close` has sent
            if error is not None:
                raise error
        else:
            await self._conclude_stream(error)

    def _only_left(self, error: BaseException | None) -> TypeGuard[BaseException]:
        """Whether this error only says that the client has left, or that somebody was cut off for it."""
        words = (ClientDisconnected, asyncio.CancelledError) if self._cut_off else ClientDisconnected
        return not self._connected and says(error, lambda one: isinstance(one, words))

    async def _conclude_early(self, ending: StreamEnded) -> None:
        """Say the last words of a stream that was ended from outside, and end it as they allow."""
        if self.phase == OVER:
            await settle_async(self, outcome_of(self))
            return
        await self._say_last_words(ending)
        if self._error is not None:
            await linger_async(self)
            await close_after_error(self.root[0])
            raise self._error

    async def _say_last_words(self, ending: StreamEnded) -> None:
        """End the stream as its kind does, unless it has an end already."""
        if self._ended:
            await self._until_finished()
            return
        words, clean = last_words(self, ending)
        if words and self._body is Body.STREAM:
            try:
                await self.server_send(body_message(words, more=True))
            except OSError:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._connected = False
        self._lingers = bool(words) and not clean
        self._end(None if clean else ending)
        await self._finish("finish" if clean else "abort")

    def _unfinished(self) -> BaseException | None:
        """What an application that has returned left undone."""
        has_body = self._head is not None and self._body in (Body.STREAM, Body.WHOLE)
        if self._app_status and has_body and not self.closed:
            return ApplicationFailed(self._app_status)
        if self.phase == CARED and self._connected and not self._ended:
            heading = self._heading
            if heading is not None and heading.done() and not heading.cancelled() and heading.exception():
                return heading.exception()  # of a hook of the commit, which the clock has brought about
            return ProtocolViolation(
                "the application returned before the last http.response.body of its stream: wanted one "
                "without more_body (ASGI, HTTP protocol)"
            )
        if self._is_unanswered() and self._connected:
            return ProtocolViolation(
                "the application returned without a response: "
                f"wanted {ORDER[self.phase]} (ASGI, HTTP protocol)"
            )
        return None

    def _is_unanswered(self) -> bool:
        """Whether nobody has begun a response."""
        return self.phase in (NEW, HELD) and self._state is State.STARTED and self.carried is None

    async def _conclude_uncommitted(self, error: BaseException | None) -> None:
        if self.carried is None:
            is_cut = self.phase == NOTED  # a page without its end
            self._failed = is_cut or (error is not None and self.phase != OVER)
            if is_cut and self._inbox is not None and self._inbox.disconnected:
                self._connected = False
        await self._settle()
        if self.carried is None and self._refused is not None:
            if error is not None and error is not self._refused:
                log_error(self, "the application failed when it was refused a stream", error)
            await too_many(self.server_send, self._refused)
            return
        if error is None:
            error = self._error
        if error is not None:
            raise error

    async def _settle(self) -> None:
        """Set the outcome; the stream that carries the response tells the application-wide hook."""
        if self.carried is None:
            await settle_async(self, outcome_of(self))
        elif self._claim(self.carried._outcome or outcome_of(self)):
            reached(self, "_when_finished")
            told = self._told()
            for hook in self._taken("finish"):
                try:
                    await finished(hook(told))
                except Exception as fault:
                    log_error(self, "an on_finish hook failed", fault)

    def _told(self) -> BaseStream:
        """What the hooks of the end are called with: the stream of the response, if that has ended."""
        carrier = self._carrier()
        return self if carrier is None or carrier._outcome is None else self._face_of(carrier)

    async def _conclude_stream(self, error: BaseException | None) -> None:
        if isinstance(error, BufferLimitExceeded):
            await self._refuse(error)
            return
        if error is not None:
            await fail_async(self, error, self._end)
        await self._finish("finish" if self._error is None else "abort")
        failure = self._error
        if failure is not None:
            await linger_async(self)
            await close_after_error(self.root[0])
            raise failure

    async def _refuse(self, error: BufferLimitExceeded) -> None:
        self._failed = True
        ASGI_LOG.warning("answered 505: %s", error)
        await plain_answer(self.server_send, 505, TOO_LONG)
        self._end(error)
        await settle_async(self, "failed")


def _hear_of_leave(task: asyncio.Task[None]) -> None:
    """Take note of a leave for which nobody awaits this task: asyncio would log it as an error."""
    if task.done() and not task.cancelled() and isinstance(task._exception, ClientDisconnected):
        task.exception()
