"""Heads that many responses have in common, each checked, finished and encoded once.

Rule: a shared head is never changed; a response that wants another one gets headers of its own.
"""

from __future__ import annotations

from typing import Any

from ..errors import HeaderError
from ..options import Options
from .framing import Body
from .headers import Headers, Pairs, finished, media_type_in

_MOST_KEPT = 256


class Shared(Pairs):
    """A head that many responses have in common, and what `finished` made of it last."""

    __slots__ = ("_last", "encoded", "media_type")
    media_type: str  # in lower case, without parameters
    encoded: list[tuple[bytes, bytes]] | None  # for whoever sends bytes

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.media_type = media_type_in(pairs)
        self.encoded = None
        self._last: tuple[Options, Shared] | None = None  # one value: threads ask at once

    def finished_with(self, options: Options) -> Shared:
        """What leaves, with these options, before a body that is streamed and has no length."""
        last = self._last
        if last is None or last[0] is not options:
            self._last = last = (options, Shared(finished(self, options, 200, Body.STREAM)))
        return last[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy is one response's own

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise HeaderError(
            "this head is shared by many responses: describe a response with headers of its own"
        )

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


_of_content_types: dict[str, Shared] = {}


def content_type_alone(content_type: str) -> Shared:
    """The head that says nothing but this; `HeaderError` if it may not be sent."""
    head = _of_content_types.get(content_type)
    if head is None:
        head = Shared(list(Headers([("Content-Type", content_type)])))
        if len(_of_content_types) < _MOST_KEPT:
            _of_content_types[content_type] = head
    return head
