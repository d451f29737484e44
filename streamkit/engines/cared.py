"""A stream that an ASGI application makes with messages of its own: completed on its way.

Rule: until it is known whether a stream follows, the head waits; so an error until then is
still a real 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Literal, TypeAlias

from ..core.commit import State, after
from ..core.framing import NEEDS_HTTP11, Body, frame
from ..core.headers import Pairs, finished, is_streaming, media_type_of
from ..core.request import Fields, fields_of
from ..errors import ClientDisconnected, ProtocolViolation, StreamClosed, TooManyStreams
from ..syntax import check_status
from ..types import Message
from .clock import loop_clock
from .coded import CodedSend
from .ending import outcome_of, report_async, run_commit_hooks, settle_async
from .messages import body_message, encoded, plain_answer, request_of, send_whole, spooled, too_many
from .passing import nothing
from .phases import CARED, DROPPING, OVER, OWN
from .pull import TURNS
from .ready import keep
from .registry import check_room
from .spool import Spool
from .tended import Tended

End: TypeAlias = Literal["finish", "abort"]


def no_headers(got: object) -> ProtocolViolation:
    """What to raise for a head that is none."""
    return ProtocolViolation(f"wanted headers as pairs of byte strings (ASGI, HTTP protocol), got {got!r}")


class Cared(Tended):
    """The head, the chunks and the end of other people's streams: HTTP/1.0, HEAD, 505, the spool."""

    __slots__ = ()

    def _begin_foreign(self, message: Message) -> Awaitable[None]:
        """A stream that says so by its media type: its head need not wait for a chunk for ever."""
        self._start = message
        self.phase = CARED
        seconds = self.options.commit_after_for(media_type_of(self._foreign_type()))
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._commit_foreign_late)
        return nothing()

    def _foreign_type(self) -> str:
        assert self._start is not None
        return next(
            (v.decode("latin-1") for n, v in self._start.get("headers", ()) if n.lower() == b"content-type"),
            "",
        )

    def _commit_foreign_late(self) -> None:
        if self._head is None and self.phase == CARED and not self._is_over and self._heading is None:
            self._heading = keep(asyncio.get_running_loop().create_task(self._commit_foreign_now()))
            self._heading.add_done_callback(self._hear_of_late_commit)

    def _hear_of_late_commit(self, task: asyncio.Task[None]) -> None:
        """An application that has no more to send for now is told of a commit that failed beside it."""
        if not task.cancelled() and task._exception is not None:
            self.inbox.say_left()

    def _commit_foreign(self) -> Coroutine[Any, Any, None] | asyncio.Task[None]:
        if self._commit_hooks and self._heading is None:
            # They may be awaited, and the clock may come here meanwhile.
            self._heading = keep(asyncio.get_running_loop().create_task(self._commit_foreign_now()))
        return self._commit_foreign_now() if self._heading is None else self._heading

    def _take_start(self) -> None:
        """The head as the application has described it: hooks may change it."""
        message = self._start
        assert message is not None
        if self._headers is not None:  # asked for before there was a head: they were nobody's
            del self._headers
        self._status = check_status(message.get("status"))
        headers = message.get("headers", ())
        try:
            self._pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]
        except (AttributeError, TypeError, ValueError):
            raise no_headers(headers) from None

    async def _committed_pairs(self) -> Pairs:
        """Run the hooks of the commit, and fix the head as they leave it."""
        if self._commit_hooks:
            self._committing = True
            try:
                hooks = run_commit_hooks(self)
                if hooks is not None:
                    await hooks
            finally:
                self._committing = False
        if self._abort is not None:  # by a hook of the commit
            raise self._abort
        self._state = after(self._state, "commit")
        if self._headers is None:
            return self._pairs
        self._headers.freeze()
        return list(self._headers)

    async def _commit_foreign_now(self) -> None:
        if self._head is not None or self._start is None or self.scope is None:
            return
        self.phase = CARED
        self.request = request_of(self.scope, self.root[0])
        self._take_start()
        if self.outer is not None:
            self.outer.is_carried_by(self)
        pairs = await self._committed_pairs()
        message = self._start
        http10 = self.options.http10
        self._body = frame(self.request, self._status, endless=is_streaming(pairs), http10=http10)
        coding = self._choose_coding(pairs, self._status, self._body) if self.options.compress else None
        pairs = finished(
            pairs, self.options, self._status, self._body, foreign=True, default_type=None, coding=coding
        )
        self._head = (self._status, pairs)
        if http10 == "reject" and self.request.version < (1, 1):
            self._drop()
            await plain_answer(self.server_send, 505, NEEDS_HTTP11)
            return
        try:
            check_room(self, loop_clock())
        except TooManyStreams as error:
            self._drop()
            await too_many(self.server_send, error)
            return
        self._prepare_body()
        if self.spool is None:
            await self._send_foreign_head(message)
        else:
            self._attend()

    async def _send_foreign_head(self, message: Message) -> None:
        assert self._head is not None
        status, pairs = self._head
        try:
            await self.server_send({**message, "status": status, "headers": encoded(pairs)})
            if self._body is not Body.STREAM:
                self._drop()
                await self.server_send(body_message(b"", more=False))
                return
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._gone(error)
            return
        self._attend()

    def _prepare_body(self) -> None:
        """The head is fixed: a body that is held gets its spool, and a compressed one its context."""
        coder = self._coder_if_any()
        if self._body is Body.WHOLE:
            self.spool = Spool(self.options.http10_limit, coder)
        elif coder is not None:
            self.server_send = CodedSend(self.server_send, coder)

    def _asked(self) -> tuple[str, Fields]:
        scope = self.scope
        if scope is None:
            return super()._asked()
        return scope["method"], fields_of(scope, encoding=True)

    def _drop(self) -> None:
        """Nobody will read the body: an application that listens for the client hears that it has left."""
        self.phase = DROPPING
        self.inbox.say_left()

    async def _send_foreign(self, message: Message) -> None:
        if self._head is None:
            await self._commit_foreign()
        more = bool(message.get("more_body"))
        if not more:
            if self._ending is not None and self.phase == CARED and self._connected:
                return  # a layer ends in order what was ended from outside: `conclude` says the last words
            await self._beaten()
            self._is_last = self.spool is None
        if self.phase == CARED and self._abort is not None:
            raise self._abort
        if self.phase == CARED:
            chunk: Any = message.get("body", b"")
            if not isinstance(chunk, (bytes, bytearray, memoryview)):
                raise ProtocolViolation(f"wanted bytes as the body of a message (ASGI), got {chunk!r}")
            chunk = bytes(chunk)
            if self._put_off is not None:  # closed, amid an error: nothing follows but the end
                if more:
                    return
                chunk, message = b"", {**message, "body": b""}
            if chunk:
                await self._hand_over(chunk, more=more and self.spool is None)
            try:
                if self.spool is not None and not more:
                    await self._send_spool()
                elif not chunk and self.spool is None and self._connected:
                    await self.server_send(message)
            except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
                self._gone(error)
            is_open = self._ending is None and self._put_off is None
            self._direct = is_open and self.spool is None and self._body is Body.STREAM
        if not more:
            self.phase = OVER
            await self._finish("finish")

    async def _hand_over(self, chunk: bytes, *, more: bool = True) -> None:
        if not self._connected:
            if self.ignore_disconnect:
                return
            raise ClientDisconnected
        if self._ending is not None:
            raise self._ending
        self._tail = chunk[-2:]
        if self.spool is not None:
            await spooled(self.spool, chunk)
        elif not await self._give(chunk, more=more):
            return
        self._sent += len(chunk)
        self._turns += 1
        if not self._turns % TURNS:
            await self._turn()

    async def _give(self, chunk: bytes, *, more: bool) -> bool:
        """Send a message with the chunk; False if the client is gone, which nobody minds."""
        self._busy = True
        try:
            await self.server_send(body_message(chunk, more=more))
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._gone(error)
            return False
        finally:
            self._busy = False
        return True

    async def _send_crossed(self, chunk: bytes) -> bool:
        """Send what a worker thread has written; False if it was dropped on purpose."""
        if self._abort is not None:
            return False
        if not self._connected:
            if self.ignore_disconnect:
                return False
            raise ClientDisconnected
        return await self._give(chunk, more=True)

    def _must_wait(self) -> bool:
        """Whether a worker thread still has a client to wait for; raises if nothing more will be taken."""
        if self._abort is not None:
            raise StreamClosed(f"the stream was ended during the write: {self._abort}")
        if not self._connected and not self.ignore_disconnect:
            raise ClientDisconnected
        if self._ending is not None and self._connected:
            raise self._ending
        return self._connected

    async def _write_through(self, chunk: bytes) -> int:
        """The way of almost every chunk: nothing to check but the connection."""
        if (not self._direct or self._state is not State.COMMITTED) and not self._admits(len(chunk)):
            return len(chunk)  # it ended between the call and this first step
        self._busy = True
        try:
            await self.server_send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._gone(error)
            return len(chunk)
        finally:
            self._busy = False
        size = len(chunk)
        self._tail = chunk[-2:]
        self._sent += size
        self._turns = turns = self._turns + 1
        if not turns % TURNS:
            await self._turn()
        return size

    async def _turn(self) -> None:
        """Let others have the loop, and hear at once of a client that has left a longer body."""
        self.inbox.hasten()
        await asyncio.sleep(0)

    async def _send_spool(self) -> None:
        spool, head = self.spool, self._head
        assert spool is not None
        assert head is not None
        self.spool = None
        if not self._connected:
            spool.close()
            return
        self._go_home()  # it is complete: nothing has to be done for it but to be sent
        await send_whole(self.server_send, head[0], head[1], spool, self._note_last)

    async def _finish(self, how: End) -> None:
        """Close the body if that is still to be done, and tell whom it concerns."""
        if self._ended:
            await self._until_finished()
            return
        self._ended, self._direct = True, False
        self._finishing = asyncio.get_running_loop().create_future()
        try:
            await self._finish_now(how)
        finally:
            self._finishing.set_result(None)

    def _admits(self, size: int) -> bool:
        if self._ended and self._connected:  # the last message is on its way
            raise StreamClosed("cannot write to a closed stream")
        return super()._admits(size)

    async def _until_finished(self) -> None:
        """Wait for whoever is at the end of the body, in another task."""
        if self._finishing is not None:
            await asyncio.wait([self._finishing])

    async def _finish_now(self, how: End) -> None:
        if self._inbox is not None:
            self._inbox.stop()
        failure = await self._send_end(how)
        if self.phase == CARED:
            self.phase = DROPPING  # `close` came before the application's own end
        if self._state is State.COMMITTED:
            self._state = after(self._state, how if failure is None else "abort")
        if failure is not None and self._error is None:
            self._error, self._failed = failure, True
            self.touched = True  # `conclude` raises it
            if self._failure is None:
                await report_async(self, failure)
        await settle_async(self, outcome_of(self))

    async def _cut_late(self) -> None:
        await self._finish("abort")

    async def _send_end(self, how: End) -> Exception | None:
        """Send what is left, and the end of a body that has a good one; what the server has raised."""
        try:
            if self._crossing is not None:
                await self._crossing.empty()
            await self._beaten()
            if how == "finish" and self._connected and self.phase in (OWN, CARED):
                if self.spool is not None:
                    await self._send_spool()
                else:
                    await self.server_send(body_message(b"", more=False))
        except OSError:  # "raise an OSError if the client is gone" -- ASGI 2.4
            self._connected = False
        except Exception as failure:
            return failure
        return None
