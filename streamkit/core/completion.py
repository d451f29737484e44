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

from ..errors import OptionsError, StreamEnded
from ..options import Completion
from .headers import media_type_of
from .nonce import check_nonce, nonce_in

Function: TypeAlias = Callable[[Any, BaseException], "bytes | str | None"]

RETRY_MILLISECONDS = 2000  # time enough for a server to come back

_RECORD = '{"error": "the stream failed before its end"}'

# Whatever is open where the error struck is closed first; each part means nothing where it is not needed.
# "|", the line's end and ">" end a tag's name, an unquoted value and a doctype; inside a quoted value
# or a script they break what was cut, so that half an address is not fetched and half a script not run.
# Then the quotes, a comment (also one in a script, which hides its end tag) and CDATA of SVG and MathML.
_ENDS_OF_TOKENS = "|\n>\"'>-->\n]]>"
# Elements whose text is not read as markup; then those in which a script does not run.
_ENDS_OF_ELEMENTS = (
    "</script></style></textarea></title></xmp></iframe></noembed></noframes></noscript>"
    "</template></template></template></template></select>"
)
# A paragraph leaves SVG and MathML, whose scripts are others. Only a frameset takes the frame, and it
# takes nothing else.
_HTML_CLOSERS = f"{_ENDS_OF_TOKENS}{_ENDS_OF_ELEMENTS}<p>"

Nonce: TypeAlias = "str | Callable[[Any], str | None] | None"


def html_completion(error_page: str = "/500.html", *, nonce: Nonce = None, script: bool = True) -> Function:
    """Close whatever is open and go to the error page, by a script; without scripts, by a refresh and a link.

        Options(completion={"text/html": html_completion("/oops.html")})

    `nonce` is for a Content Security Policy that forbids inline scripts: a string, or a function of the
    stream that returns one, or None for a page without. If it is left out, it is that of the template's
    response, or taken from the response's own Content-Security-Policy. Where the policy is set outside
    the stream, or forbids scripts at all, `script=False` goes by the refresh and the link alone
    (`<meta http-equiv="refresh">`; WHATWG HTML).

    A refresh waits until the page is loaded, which a page that is cut never is: Chromium then shows the
    link and goes nowhere. With the option `on_failure="finish"` the page ends cleanly and the refresh works.

    It holds wherever the page was cut, in an attribute, a comment, a script, a table: what was cut is
    closed so that it is neither run nor fetched under half a name. Three places have no way out:
    `<plaintext>`, what follows a `</frameset>`, and more than four templates in one another. The script
    finds the error page from the page's own address, the refresh and the link from its `<base>`.
    """
    if not isinstance(error_page, str) or not error_page:
        raise OptionsError([f"error_page: wanted the address of a page, got {error_page!r}"])
    if isinstance(nonce, str):
        check_nonce(nonce)
    elif nonce is not None and not callable(nonce):
        raise OptionsError([f"nonce: wanted a string or a function of the stream, got {nonce!r}"])
    before, after = _page(error_page, script)

    def complete(stream: Any, error: BaseException) -> str:
        found = _nonce_for(stream, nonce) if script else None
        return f'{before} nonce="{found}"{after}' if found else before + after

    return complete


def _page(error_page: str, script: bool) -> tuple[str, str]:
    """The completion, cut where the script's nonce belongs."""
    # Any charset that a page may have holds ASCII.
    address = escape(error_page, quote=True).encode("ascii", "xmlcharrefreplace").decode("ascii")
    refresh = (
        f'<meta http-equiv="refresh" content="0; url={address}">'
        f'<a href="{address}">This page could not be completed.</a>'
    )
    before, end = f'{_HTML_CLOSERS}<frame src="{address}">', "</body></html>"
    if not script:
        return before, f"{refresh}{end}"
    # In a script only "<" could end the element early; JSON knows an escape for it.
    # An address of one's own, so that a `<base>` does not lead it to another site.
    found = f"new URL({json.dumps(error_page)}, window.location)".replace("<", "\\u003c")
    return (
        f"{before}<script",
        f">window.location.replace({found})</script><noscript>{refresh}</noscript>{end}",
    )


def _nonce_for(stream: Any, nonce: Nonce) -> str | None:
    if nonce is None:
        described = getattr(getattr(stream, "response", None), "nonce", None)
        if described is not None:
            return check_nonce(described)
        headers = getattr(stream, "headers", None)
        policy = headers.get("Content-Security-Policy") if headers is not None else None
        return nonce_in(policy) if policy else None
    found = nonce(stream) if callable(nonce) else nonce
    return None if found is None else check_nonce(found)


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
