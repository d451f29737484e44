"""The last words of a body that ends before its time, and whether the end after them may look whole.

Rule: a completion that fails, or cannot be encoded, is logged, and the body ends without one.
"""

from __future__ import annotations

import random

from ..core.base import BaseStream
from ..core.completion import ENDS_CLEANLY, completion_for, farewell
from ..core.framing import Body
from ..core.headers import media_type_of
from ..errors import StreamEnded
from .logs import log_error


def is_held(stream: BaseStream) -> bool:
    """Whether nothing has reached the client yet, so that an error is still a real 500."""
    return stream._head is None or stream._body is Body.WHOLE


def ends_cleanly(stream: BaseStream, error: BaseException) -> bool:
    """Whether a body that ends with this error may look whole."""
    if is_held(stream):
        return False
    options = stream.options
    if options.on_failure == "finish" or (stream.request.hangs and "on_failure" not in options.given):
        return True
    if media_type_of(stream.content_type) in ENDS_CLEANLY:
        return True
    response = stream.response
    # What has no end of its own cannot be taken for whole.
    if not isinstance(error, StreamEnded) or response is None or response.is_file:
        return False
    return response.keep_open or response.loop


def last_words(stream: BaseStream, ending: StreamEnded) -> tuple[bytes, bool]:
    """What a stream that is ended early sends last, and whether the end after it is clean."""
    if is_held(stream):
        return b"", False
    if media_type_of(stream.content_type) == "text/event-stream" and stream._limit is None:
        said = stream.response.last_words(ending.outcome) if stream.response is not None else b""
        return said_after(stream.tail, said) + farewell(ending, random.random(), stream.tail), True
    words, clean = completion_of(stream, ending)
    try:
        return (stream._encode(words) if words else b""), clean
    except Exception as fault:  # not to be encoded, or no text at all
        log_error(stream, "a completion failed", fault)
        return b"", clean


def completion_of(stream: BaseStream, error: BaseException) -> tuple[bytes | str | None, bool]:
    """What to write after this error, and whether the end after it is clean."""
    assert stream._head is not None
    content_type = next((v for n, v in stream._head[1] if n.lower() == "content-type"), "")
    clean = ends_cleanly(stream, error)
    if stream._limit is not None or stream._body is not Body.STREAM:
        return None, clean and stream._limit is None
    try:
        words = completion_for(content_type, stream.options.completion, stream, error)
        said = stream.response.last_words("failed") if stream.response is not None else b""
        if not said:
            return words, clean
        completed = stream._encode(words or "")
        return completed + said_after(completed or stream.tail, said), clean
    except Exception as fault:
        log_error(stream, "a completion failed", fault)
        return None, clean


def said_after(tail: bytes, said: bytes) -> bytes:
    """The last event, after these bytes: a line that is cut in two must not become part of its name."""
    return b"\n" + said if said and not tail.endswith((b"\n", b"\r")) else said
