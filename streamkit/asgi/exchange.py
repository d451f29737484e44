"""How a description is carried out under ASGI, from its request to its end.

Rule: whoever is awaited here can be cut off from outside, and says so to the producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..core.context import inherited
from ..core.framing import TOO_LONG, Body
from ..core.headers import Pairs
from ..core.response import StreamingResponse
from ..engines import producing, thread
from ..engines.coded import CodedSend
from ..engines.ending import forget, linger_async, needs_settling, outcome_of
from ..engines.inbox import SHORT, Inbox
from ..engines.last_words import is_held
from ..engines.logs import ASGI_LOG
from ..engines.messages import (
    abort_transport,
    body_message,
    close_after_error,
    encoded,
    heard,
    plain_answer,
    send_whole,
    spooled,
    uncancel,
)
from ..engines.pull import AsyncPull
from ..engines.ready import keep, turn
from ..engines.send import ScopeStream
from ..engines.spool import Spool
from ..engines.task import TaskStream
from ..engines.thread import ThreadStream
from ..engines.waits import reached
from ..errors import BufferLimitExceeded, ClientDisconnected
from ..options import Options
from ..types import Outcome, Scope
from ..unbuffer.marker import marked_fields
from .answers import commit_either, settle_either
from .prepared import Prepared, clock_of

GATHER_TURNS = 4  # turns of the loop for which events that come in each of them wait for one `send`


class Exchange(Prepared):
    """One request whose description is being carried out: its producer, its reader, its leave."""

    __slots__ = ()

    async def run(self, response: StreamingResponse, scope: Scope, options: Options | None) -> None:
        """Start the producer and send what it makes, to whatever end."""
        another = self._prepare(response, scope, options)
        del response, scope, options  # the stream has all that counts from here on
        if another is not None:
            await another
            return
        stream = self.stream
        if self.reader is not stream or isinstance(stream, ThreadStream):
            self._watch()
        stream._carrier = self
        self.task = asyncio.current_task(stream._loop if isinstance(stream, TaskStream) else None)
        try:
            self._start()
            try:
                if await self._open():
                    await self._send_body()
            except asyncio.CancelledError as error:
                if not self.cut_off or stream._ending is None or not stream.connected:
                    raise
                uncancel()  # by `ended_early`: what waits is still to be sent
                self.cut_off = False
                await self._carry_end(error)
        except asyncio.CancelledError as error:
            self._stop_watching()
            stream.leave()
            await self._end(outcome_of(stream), error)
            if not self.cut_off:
                raise
            uncancel()
            if stream._given_up:
                await heard()
        except BaseException as error:
            if await self._is_broken_by(error):
                raise
            forget(error)
        else:
            self._stop_watching()
            if self.cut_off:
                uncancel()
            await self._end(outcome_of(stream))
        finally:
            stream._carrier = None

    async def _is_broken_by(self, error: BaseException) -> bool:
        """End a body that is not whole; whether the server is to hear of this error."""
        stream = self.stream
        self._stop_watching()
        if self.cut_off:
            uncancel()
        stream._failed = True
        stream._cut = stream._head is not None
        is_leave = isinstance(error, ClientDisconnected)
        if not is_leave and not is_held(stream) and stream._failure is None:
            stream._uncarried = error  # the server's, or a layer's, of which no producer knows
        outcome = outcome_of(stream)
        try:
            await linger_async(stream)
        finally:  # it may be cancelled
            stream.leave()
            await self._end(outcome, error)
        if is_leave and outcome in ("disconnected", "timed_out"):
            return False
        if stream._cut:
            await close_after_error(self.root[0])
        return True

    def ended_early(self) -> None:
        """The stream was ended from outside: an iterable that is being waited for is let go."""
        if self.puller is not None and self.stream._pulling:
            self.cut_off = True
            self.puller.cancel()

    def give_up(self) -> None:
        """The client takes nothing: stop waiting for it. May be called from any thread."""
        if not isinstance(self.stream, ThreadStream):
            self._cut()
        elif self.task is not None:
            self.task.get_loop().call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        if self.task is not None and self.stream._carrier is self:
            self.cut_off = True
            abort_transport(*self.root)
            self.task.cancel()

    def _start(self) -> None:
        stream, excluded = self.stream, self.stream.options.excluded_context
        try:
            clock_of(stream).add(stream)
        except RuntimeError:  # the machine has no thread for it
            assert stream.response is not None
            thread.close_unread(stream, stream.response)
            raise
        if isinstance(stream, ThreadStream):
            thread.start(stream, inherited(excluded))
        elif self.reader is stream:
            self.producer = producing.start(stream, inherited(excluded) if excluded else None)
        else:
            self.puller = asyncio.current_task()

    def _left(self) -> None:
        """The client has left; servers say so too of one that has got everything."""
        if self.last:
            return
        self.stream.leave()
        if self.puller is not None and not self.stream.ignore_disconnect:
            self.cut_off = True
            self.puller.cancel()

    def _watch(self) -> None:
        """Be told when the client leaves."""
        # A wrap that does not know that it carries this stream watches for itself, by its one inbox.
        if isinstance(self.receive, ScopeStream) and self.receive.carried is self.stream:
            self.inbox = self.receive.inbox
        else:  # nobody can ask this one what it was told
            self.inbox = Inbox(self.receive, keeps=False)
        self.inbox.watch(self._left)

    def _stop_watching(self) -> None:
        self.puller = None
        self.stream._carrier = None
        if self.inbox is not None:
            self.inbox.stop()

    async def _open(self) -> bool:
        """Send the head when it is known; whether the body is to follow."""
        stream, reader = self.stream, self.reader
        response = stream.response
        assert response is not None
        if self.producer is not None:
            if not self.producer.done():
                await turn()  # a producer that need not wait is over after this one
            if not stream._done:
                self._watch()
        if stream._head is None and not await reader.wait_head_async(
            stream.options.commit_after_for(response.media_type)
        ):
            await commit_either(stream)
            stream.beat()
        if stream._head is None:
            stream.raise_error()
            return False  # the client left before there was anything to say
        status, pairs = stream._head
        if stream._body is Body.WHOLE:
            await self._hold(status, pairs)
            return False
        if stream._coding is not None:
            self.send = CodedSend(self.send, stream._new_coder())
        headers = marked_fields(encoded(pairs)) if self.marks else encoded(pairs)
        try:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            if not stream._done:
                if not stream._chunks:
                    await self.send(body_message(b"", more=True))  # some servers wait for a body
            elif reader is stream and not stream._apart and stream._error is None:
                chunk = stream.next_now()
                if chunk is not None or stream.connected:  # asked last: a clock may give up
                    await self._send_last(chunk or b"")  # complete before its head had left
                    return False
        except OSError as error:
            raise self._gone() from error
        return True

    def _send_last(self, chunk: bytes) -> Awaitable[None]:
        """Send the message that ends the body."""
        self.last = True
        return self.send({"type": "http.response.body", "body": chunk, "more_body": False})

    def _gone(self) -> ClientDisconnected:
        self.stream.leave()  # "raise an OSError if the client is gone" -- ASGI 2.4
        return ClientDisconnected()

    async def _carry_end(self, error: BaseException) -> None:
        """Send what is left of a stream that was ended while its iterable was being waited for."""
        stream = self.stream
        assert isinstance(self.reader, AsyncPull)
        stream._pulling = False
        await self.reader.close(error)
        if stream._head is None or stream._body is Body.WHOLE:
            stream.raise_error()
        else:
            await self._send_body()

    async def _send_body(self) -> None:
        stream, reader, send = self.stream, self.reader, self.send
        assert stream.response is not None
        # Where another chunk follows in each turn of the loop, some wait for one `send`.
        gathering = GATHER_TURNS if self.producer is not None and stream.response.gathers else 0
        sent = 0
        while True:
            if isinstance(reader, AsyncPull):
                chunk = await reader.next_chunk_async()
            else:
                # Not `next_chunk_async`: an idle stream would keep its frame.
                while (parked := reader.until_next()) is not None:
                    await parked
                chunk = reader.next_now()
            if chunk is None:
                break
            self.last = ended = stream._done and not stream._chunks and stream._error is None
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": not ended})
            except OSError as error:
                raise self._gone() from error
            if ended:  # the end travels with the last chunk
                return
            sent += 1
            if sent == SHORT and self.inbox is not None:
                self.inbox.hasten()
            del chunk  # it may be long, and the next one far away
            for _ in range(gathering):
                held = len(stream._chunks)
                await turn()
                if len(stream._chunks) == held:
                    break
        if stream.connected:
            try:
                await self._send_last(b"")
            except OSError as error:
                raise self._gone() from error

    async def _hold(self, status: int, pairs: Pairs) -> None:
        """Hold the body until it is complete; an error until then is a real 500."""
        stream = self.stream
        spool = Spool(stream.options.http10_limit, stream._coder_if_any())
        try:
            while (chunk := await self.reader.next_chunk_async()) is not None:
                await spooled(spool, chunk)
        except BufferLimitExceeded as error:
            spool.close()
            stream._failed = True
            stream.refuse(error)
            ASGI_LOG.warning("answered 505: %s", error)
            await plain_answer(self.send, 505, TOO_LONG)
            return
        except BaseException:
            spool.close()
            raise
        if not stream.connected:  # it may be half a body
            spool.close()
            return
        stream._go_home()  # it is complete: nothing has to be done for it but to be sent
        try:
            await send_whole(self.send, status, pairs, spool, self._note_last)
        except OSError as error:
            raise self._gone() from error

    def _note_last(self) -> None:
        self.last = True

    async def _end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Bring the producer to its end, then tell whom it concerns."""
        stream = self.stream
        if isinstance(self.reader, AsyncPull):
            await self.reader.close(error or ClientDisconnected())
        going = None if self.producer is None or self.producer.done() else self.producer
        if going is not None or outcome != "finished":
            await settle_either(stream, outcome)
            if going is not None and not going.done():
                await self._join(going)
        if needs_settling(stream):
            await settle_either(stream, outcome)
        elif stream._claim(outcome):
            if stream._when_committed is not None:
                reached(stream, "_when_committed")
            if stream._when_finished is not None:
                reached(stream, "_when_finished")

    async def _join(self, producer: asyncio.Task[None]) -> None:
        """Wait for a producer that is still at work, as long as its response has a use for it."""
        stream = self.stream
        keep(producer)
        if stream._outcome == "finished":  # what it still does is no longer the response's
            return
        if not stream.connected and stream.ignore_disconnect:
            await asyncio.wait([producer])
            return
        is_cancelled = not stream._done or not stream.connected or stream._ending is not None
        if is_cancelled:
            await self._cancel(producer)
        await asyncio.wait([producer], timeout=producing.CLEANUP_SECONDS)
        if is_cancelled and not producer.done():
            ASGI_LOG.warning("%r goes on after its cancellation", stream.response)

    async def _cancel(self, producer: asyncio.Task[None]) -> None:
        """Cancel it, unless it has heard of the end by a write and tidies up: that must not be struck."""
        try:
            await turn()  # in which a write that waits hears of it
            if self.stream._heard == id(producer):
                await asyncio.wait([producer], timeout=producing.CLEANUP_SECONDS)
        finally:
            producer.cancel()  # nothing, where it is done
