"""What another stream says of itself, for the twins that stand for it on the other side.

Rule: nothing here waits, and nothing is kept: each answer is the other stream's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..core.base import BaseStream
from ..core.headers import Headers, Items
from ..core.stream import AsyncResponseStream, ResponseStream
from ..types import Outcome


class Mirror(BaseStream):
    """The head, and what has happened, of the stream that this one stands for."""

    _origin: AsyncResponseStream | ResponseStream

    def _stand_for(self, origin: AsyncResponseStream | ResponseStream) -> None:
        self._origin = origin
        self.response = origin.response
        self.options = origin.options
        self.request = origin.request

    # -- the head

    @property
    def status(self) -> int:
        return self._origin.status

    @status.setter
    def status(self, status: int) -> None:
        self._origin.status = status

    @property
    def headers(self) -> Headers:
        return self._origin.headers

    @headers.setter
    def headers(self, headers: Items) -> None:
        self._origin.headers = headers

    def set_cookie(self, key: str, value: str = "", **attributes: Any) -> None:
        self._origin.set_cookie(key, value, **attributes)

    @property
    def content_type(self) -> str:
        return self._origin.content_type

    def _is_stale(self, etag: str | None, last_modified: datetime | None, weak: bool) -> bool:
        return self._origin._is_stale(etag, last_modified, weak)

    # -- what has happened

    @property
    def committed(self) -> bool:
        return self._origin.committed

    @property
    def closed(self) -> bool:
        return self._origin.closed

    @property
    def connected(self) -> bool:
        return self._origin.connected

    @property
    def outcome(self) -> Outcome | None:
        return self._origin.outcome

    @property
    def bytes_sent(self) -> int:
        return self._origin.bytes_sent

    def tell(self) -> int:
        return self._origin.tell()

    @property
    def at_line_start(self) -> bool:
        return self._origin.at_line_start

    @property
    def tail(self) -> bytes:
        return self._origin.tail

    @property
    def ignore_disconnect(self) -> bool:
        return self._origin.ignore_disconnect

    @ignore_disconnect.setter
    def ignore_disconnect(self, ignore: bool) -> None:
        self._origin.ignore_disconnect = ignore

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._origin!r}>"
