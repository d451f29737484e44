"""An ASGI layer that holds streams, between two halves that hand streams past it.

    Outside( layer( Inside(app) ) )

The app goes on inside the layer's call, so scopes, context variables and cancellation are as ever;
only its messages go past the layer, and the layer gets a placeholder. What a layer does to the head
after the app has returned comes too late for a stream, and is dropped.

Rule: the app's errors are raised to whoever is outside, whatever the layer makes of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

from ..core.causes import says
from ..core.headers import Pairs, is_streaming, value_of
from ..types import ASGIApp, ASGIHeaders, Message, Receive, Scope, Send
from .heads import is_computed, merged, placeholder

LOG = logging.getLogger("streamkit")

# Turns of the loop that a layer has to pass the placeholder's head on: some do so from another task.
TURNS = 20

_numbers = itertools.count()


class _Refused(OSError):
    """Tells an app that its stream is not wanted; servers say the same with OSError (ASGI 2.4)."""


class _Passage:
    """One request on its way around the layer; shared by both halves, also by copies of the scope."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send
        self.taken = False  # a stream was taken off: what the layer sends is the placeholder's
        self.refused = False  # but the layer has answered for itself
        self.head: Message | None = None  # the layer's, for the placeholder
        self.held: list[Message] = []
        self.error: BaseException | None = None  # the app's, after it was taken off

    def __copy__(self) -> _Passage:
        return self

    def __deepcopy__(self, memo: Any) -> _Passage:
        return self

    async def from_layer(self, message: Message) -> None:
        """The `send` that the layer has."""
        if not self.taken or self.refused:
            await self.send(message)
            return
        if message["type"] == "http.response.start" and self.head is None:
            self.head = message
        self.held.append(message)

    async def refuse(self) -> None:
        self.refused = True
        held, self.held = self.held, []
        for message in held:
            await self.send(message)
        raise _Refused("a layer has answered in the stream's place")


class InsideASGI:
    """The inner half: the app, whose streams the layer does not see."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.key = f"streamkit.unbuffer.{next(_numbers)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage: _Passage | None = scope.get(self.key)
        if passage is None:
            await self.app(scope, receive, send)
            return
        sender = _Sender(passage, send)

        async def receive_past() -> Message:
            message = await receive()
            # For the layer the response is over; for the client it is not.
            if message["type"] == "http.disconnect" and passage.taken:
                return await passage.receive()
            return message

        try:
            await self.app(scope, receive_past, sender.send)
        except BaseException as error:
            if passage.refused and says(error, lambda one: isinstance(one, _Refused)):
                return
            if passage.taken:
                passage.error = error
            raise
        if sender.start is not None:  # a head without a body: let the layer see what the app did
            await send(sender.start)


class _Sender:
    """What the app sends: to the layer, or past it."""

    def __init__(self, passage: _Passage, send: Send) -> None:
        self._passage, self._to_layer = passage, send
        self._past = False
        self.start: Message | None = None

    async def send(self, message: Message) -> None:
        """The `send` that the app has: its head waits for what follows it."""
        if self._past:
            await self._passage.send(message)
        elif message["type"] == "http.response.start" and self.start is None:
            self.start = message
        elif self.start is None:
            await self._to_layer(message)
        else:
            start, self.start = self.start, None
            if message["type"] == "http.response.body" and _is_stream(start, message):
                await self._go_past(start)
                await self._passage.send(message)
            else:
                await self._to_layer(start)
                await self._to_layer(message)

    async def _go_past(self, start: Message) -> None:
        passage = self._passage
        status, own = start["status"], _decoded(start.get("headers", ()))
        given, sent = placeholder(status, own)
        passage.taken = self._past = True
        try:
            await self._to_layer({**start, "status": given, "headers": _encoded(sent)})
            await self._to_layer({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:  # the layer's; the stream has none of it
            LOG.warning("a layer failed on the empty body that stands for a stream", exc_info=error)
        for _ in range(TURNS):
            if passage.head is not None:
                break
            await asyncio.sleep(0)
        if passage.head is not None:
            if not is_computed(passage.head["status"], given, own):
                await passage.refuse()
            came = _decoded(passage.head.get("headers", ()))
            own = merged(own, sent, came, passage.head["status"])
        await passage.send({**start, "headers": _encoded(own)})


def _is_stream(start: Message, first: Message) -> bool:
    if not first.get("more_body", False) or start["status"] in (204, 304):
        return False
    headers = _decoded(start.get("headers", ()))
    return value_of(headers, "content-length") is None or is_streaming(headers)


def _decoded(headers: Any) -> Pairs:
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def _encoded(pairs: Pairs) -> ASGIHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


class OutsideASGI:
    """The outer half: the layer, called with streams taken off and put back."""

    def __init__(self, wrapped: ASGIApp, inside: InsideASGI) -> None:
        self.wrapped = wrapped
        self._key = inside.key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.wrapped(scope, receive, send)
            return
        passage = _Passage(receive, send)
        before = scope.get(self._key)
        scope[self._key] = passage
        try:
            await self.wrapped(scope, receive, passage.from_layer)
        except Exception as error:
            if not passage.taken or passage.refused:
                raise
            if passage.error is None:
                LOG.warning(
                    "%r failed on the empty body that stands for a stream; the stream is whole",
                    self.wrapped,
                    exc_info=error,
                )
        finally:
            if before is None:
                scope.pop(self._key, None)
            else:
                scope[self._key] = before
        if passage.error is not None:
            raise passage.error
