"""What a stream that is looked at has to ask itself: heartbeats, limits, an early end.

Rule: silence is told from two looks that saw the same number of bytes, so that no chunk pays
for a clock. Application code is never called from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.base import BaseStream
from ..core.framing import Body
from ..core.headers import media_type_of, value_of
from ..core.heartbeat import heartbeat_for
from ..errors import StreamEnded

if TYPE_CHECKING:
    from .write import RequestStream


class Watch:
    """What the last look saw."""

    __slots__ = ("parked", "since", "taken")

    def __init__(self, taken: int, now: float) -> None:
        self.taken = taken  # bytes that the server had
        self.since = now  # seconds; the first look that saw them
        self.parked = now  # the last look that saw the server wait for us, if any


def silence_of(stream: BaseStream, taken: int, now: float) -> float:
    """Seconds since the first look that saw this number of bytes."""
    watch: Watch | None = stream._watch
    if watch is None:
        stream._watch = Watch(taken, now)
        return 0.0
    if watch.taken != taken:
        watch.taken, watch.since = taken, now
        return 0.0
    return now - watch.since


def wants_heartbeat(stream: BaseStream, silence: float) -> bool:
    """Whether the silence would be too long at the next look."""
    longest = stream.options.heartbeat
    # The bytes may have gone just after the look before the first that saw them.
    return longest is not None and silence + 2 * stream.options.tick > longest


def heartbeat_of(stream: BaseStream) -> bytes | None:
    """What may be sent now to say nothing."""
    if stream._head is None or stream._body is not Body.STREAM or stream._limit is not None:
        return None
    own = stream.response.heartbeat_bytes if stream.response is not None else None
    return heartbeat_for(media_type_of(value_of(stream._head[1], "content-type") or ""), stream._tail, own)


def is_past(stream: BaseStream, now: float) -> bool:
    """Whether `max_duration` has passed, for a stream that has not been ended for it."""
    return stream._deadline is not None and now >= stream._deadline and stream._ending is None


def out_of_time(stream: BaseStream) -> StreamEnded:
    return StreamEnded("timed_out", f"its max_duration of {stream.options.max_duration:g} s has passed")


def taken_for_gone(stream: BaseStream) -> StreamEnded:
    return StreamEnded("timed_out", f"its client took nothing for {stream.options.write_timeout:g} s")


def look_at_request(stream: RequestStream, now: float) -> None:
    """A stream whose application writes on the server's own stack: it can only be told."""
    if is_past(stream, now):
        stream.end_early(out_of_time(stream))
    if silence_of(stream, stream._sent, now) >= stream.options.write_timeout and stream._busy:
        stream.give_up(taken_for_gone(stream))
