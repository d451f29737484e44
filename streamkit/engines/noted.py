"""An ordinary response under ASGI, of which a hook on its request's stream wants to be told.

Rule: its messages go on as they come; the stream knows its status, its headers and its length.
"""

from __future__ import annotations

from ..errors import StreamKitError
from ..types import Message
from .cared import Cared
from .phases import NOTED, OVER


class Noted(Cared):
    """The messages of a response that does not stream, and is asked after."""

    __slots__ = ()

    def _note(self, start: Message) -> None:
        self._start = start
        try:
            self._take_start()
        except StreamKitError:
            pass  # no head of ours: the server says what is wrong with it
        self.phase = NOTED
        self.is_page = True

    async def _send_noted(self, *messages: Message) -> None:
        for message in messages:
            chunk = message.get("body")
            size = len(chunk) if isinstance(chunk, (bytes, bytearray, memoryview)) else 0
            self._sent += size
            # Before it is sent: a server may end the task of a client that has got everything.
            if message["type"] != "http.response.start" and not message.get("more_body"):
                self.phase = OVER
                self.scope = None  # it holds the stream, and must not be held by it
            try:
                await self.server_send(message)
            except Exception as error:
                self.phase = NOTED
                self._sent -= size
                if isinstance(error, OSError):  # "raise an OSError if the client is gone" -- ASGI 2.4
                    self._connected = False
                raise
