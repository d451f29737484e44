"""Bytes that say nothing: what keeps a silent body from being taken for a dead one.

Proxies cut a connection after some silence (nginx after 60 s), and a WSGI server learns
only by writing that its client has left.

Rule: a heartbeat may stand where the body has paused, and nowhere else: `heartbeat_for` looks at the
last bytes, and gives nothing where one could become part of what the application writes.
"""

from __future__ import annotations

from .events import HEARTBEAT as EVENT_STREAM_HEARTBEAT

# A line of its own each; inside an unfinished line there is no room for one.
_LINES = {
    # Scripts and style sheets, in which it may come to stand, pass over such a line too.
    "text/html": b"<!-- -->\n",
    "text/event-stream": EVENT_STREAM_HEARTBEAT,
    # A blank line: the specifications of the line formats let readers pass over it.
    "application/x-ndjson": b"\n",
    "application/ndjson": b"\n",
    "application/jsonl": b"\n",
}


def heartbeat_for(media_type: str, tail: bytes, own: bytes | None = None) -> bytes | None:
    """The heartbeat for a body of this type that has paused after `tail`, its last two bytes.

    `own` is what the response itself calls invisible, whatever its type. None: there is none.
    """
    if own is not None:
        return own
    if tail.endswith(b">") and media_type in ("text/html", "application/xhtml+xml"):
        return b"<!-- -->"
    # Not after a CR: what follows it may be the LF of the same line's end.
    return _LINES.get(media_type) if tail.endswith(b"\n") else None
