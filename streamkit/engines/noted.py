"""An ordinary response under ASGI, of which a hook on its request's stream wants to be told.

Rule: its messages go on as they come; the stream knows its status, its headers and its length.
"""

from __future__ import annotations

from ..types import Message
from .cared import Cared
from .phases import NOTED, OVER


class Noted(Cared):
    """The messages of a response that does not stream, and is asked after."""

    __slots__ = ()

    def _note(self, start: Message) -> None:
        self._start = start
        self._take_start()
        self.phase = NOTED
        self.is_page = True

    def _count(self, message: Message) -> Message:
        chunk = message.get("body")
        if isinstance(chunk, (bytes, bytearray)):
            self._sent += len(chunk)
        if not message.get("more_body"):
            self.phase = OVER
            self.scope = None  # it holds the stream, and must not be held by it
        return message
