"""What ends a stream that failed after its commit, so that no client takes half for whole.

    Options(completion={"text/html": html_completion("/oops.html"), "text/csv": "# incomplete\\n"})

Rule: nothing of the error reaches the client. A completion is the last thing written; the
end after it is abnormal, unless the media type itself has told the client (event streams).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, TypeAlias

from ..errors import StreamEnded
from ..options import Completion
from .headers import media_type_of

Function: TypeAlias = Callable[[Any, BaseException], "bytes | str | None"]

RETRY_MILLISECONDS = 2000  # time enough for a server to come back

_RECORD = '{"error": "the stream failed before its end"}'

# Whatever is open where the error struck is closed first, in this order: an attribute's
# quotes and its tag, a comment (also one inside a script, which hides its end tag), CDATA of
# SVG and MathML, then every element whose text the parser does not read as markup.
_HTML_CLOSERS = (
    "\"'>-->]]>"
    "</script></style></textarea></title></xmp></iframe></noembed></noframes></noscript></template></select>"
)


def html_completion(error_page: str = "/500.html") -> Function:
    """Close whatever is open and go to the error page; a link and a refresh without scripts."""
    # In a script only "<" could end the element early; JSON knows an escape for it.
    in_script = json.dumps(error_page).replace("<", "\\u003c")
    in_attribute = escape(error_page, quote=True)
    page = (
        f"{_HTML_CLOSERS}<script>window.location.replace({in_script})</script>"
        f'<noscript><meta http-equiv="refresh" content="0; url={in_attribute}">'
        f'<a href="{in_attribute}">This page could not be completed.</a></noscript></body></html>'
    )
    return lambda stream, error: page


def _event_stream(stream: Any, error: BaseException) -> str:
    # A line cut in two becomes part of the error event, never an event of its own.
    return f"{_newline_if_needed(stream)}event: error\ndata: {_RECORD}\n\n"


def _json_lines(stream: Any, error: BaseException) -> str:
    return f"{_newline_if_needed(stream)}{_RECORD}\n"


def _json_sequence(stream: Any, error: BaseException) -> str:
    return f"\x1e{_RECORD}\n"  # RFC 7464: a record separator abandons a truncated text


def farewell(ending: StreamEnded, jitter: float, tail: bytes) -> bytes:
    """The last lines of an event stream that is ended early; the browser will ask again.

    At shutdown it is told to wait some 2 s, by `jitter` (0 to 1) up to a fifth more or less,
    so that not all come back at once. `tail` has the last two bytes of the body: an event that
    is not complete must not become one.
    """
    if ending.outcome != "shut_down" or not tail.endswith(b"\n"):
        return b""
    line = b"retry: %d\n" % round(RETRY_MILLISECONDS * (0.8 + 0.4 * jitter))
    return line + b"\n" if tail == b"\n\n" else line


def _newline_if_needed(stream: Any) -> str:
    return "" if stream.at_line_start else "\n"


DEFAULT_COMPLETIONS: Mapping[str, Function] = {
    "text/html": html_completion(),
    "application/xhtml+xml": html_completion(),
    "text/event-stream": _event_stream,
    "application/x-ndjson": _json_lines,
    "application/ndjson": _json_lines,
    "application/jsonl": _json_lines,
    "application/json-seq": _json_sequence,
}

# The error event is the end: a cut would only make the browser ask again at once.
ENDS_CLEANLY = frozenset({"text/event-stream"})


def completion_for(
    content_type: str, own: Mapping[str, Completion], stream: Any, error: BaseException
) -> bytes | str | None:
    """The bytes or text that complete this stream; None for nothing."""
    media_type = media_type_of(content_type)
    chosen: Completion = own[media_type] if media_type in own else DEFAULT_COMPLETIONS.get(media_type)
    return chosen(stream, error) if callable(chosen) else chosen
