"""What holds on which server, as the page `docs/servers.md` says it.

    python -m tests.servers.table > docs/servers.md

Rule: each cell holds, or stands in `LISTED` with its cause; `test_every` asks the servers and fails
where either is not so.
"""

from __future__ import annotations

from .every import KINDS

# By the name of the check in `test_every`: the heading, and what is asked.
COLUMNS: dict[str, tuple[str, str]] = {
    "error_before": ("error before the 1st chunk", "The client gets a complete 500."),
    "error_after": (
        "error after 2 chunks",
        "The client gets both chunks of plain text, and then an end that it can tell from a whole body.",
    ),
    "error_declared": (
        "the same, declared",
        "In an event stream and in records the error stands in the body; the event stream ends in order.",
    ),
    "http_1_0": ("HTTP/1.0", "Ten chunks made in half a second arrive whole, with their Content-Length."),
    "http_1_0_closing": (
        "HTTP/1.0, closing",
        "To a client that said `Connection: close` the same chunks go as they are made, without framing.",
    ),
    "head": (
        "HEAD, endless",
        "HEAD is answered at once and without a body, the producer does not run, and the connection can "
        "be used again where it stays open.",
    ),
    "leave_active": (
        "leave, active",
        "The client leaves, by a reset or in order, between chunks: the producer ends, the outcome is "
        "`disconnected`, and each hook is called once.",
    ),
    "leave_idle": (
        "leave, idle",
        "The same of an event stream that says nothing: noticed at once under ASGI, within the heartbeat "
        "under WSGI.",
    ),
    "leave_idle_by_line": (
        "leave, idle, no heartbeat",
        "The same of plain text, which has no heartbeat: noticed by the socket, where the server hands it "
        "over. A client that only closed its own side and reads on does not get half a body as a whole one.",
    ),
    "heartbeat": ("heartbeat", "A silent event stream, and silent records, go on with a heartbeat."),
    "flood": (
        "unread flood",
        "A client reads nothing of an endless flood: the producer is held up, the memory bounded, and the "
        "producer ends when the client leaves.",
    ),
    "write_timeout": (
        "`write_timeout`",
        "A client that takes nothing is given up, with the outcome `timed_out`; if it reads on later, it "
        "finds a body cut short.",
    ),
    "max_duration": ("`max_duration`", "An idle event stream is ended, with the outcome `timed_out`."),
    "context": (
        "context variables",
        "A producer finds what its app has set, and leaves nothing to the next request.",
    ),
    "sigterm": ("SIGTERM, gone", "With an idle event stream open and `grace=1`, the server is gone in time."),
    "sigterm_told": (
        "SIGTERM, told",
        "That stream ends with the outcome `shut_down`, and its hooks are called, before the server goes.",
    ),
}
H2 = "hypercorn asgi, HTTP/2"
NOT_ASKED = {(H2, "http_1_0"), (H2, "http_1_0_closing")}

CLEAN_END = (
    "The server ends the body in order whatever the app raises. Use a media type that declares its "
    "errors, or a Content-Length."
)
NO_FRAMING = (
    "`--http-socket` frames no body: its end is the connection's, and looks the same for a whole body and "
    "for half a one. Use a media type that declares its errors."
)
HANGS = (
    "The server leaves its client waiting when an app raises. So streamkit ends the body in order there, "
    'unless `on_failure="abort"` is set. Use a media type that declares its errors.'
)
CHUNKS = 'The server sends chunks to HTTP/1.0 too. `http10="buffer"` avoids it.'
LAST_CHUNK = "The server sends a last chunk after the reply to a HEAD, which spoils the next reply."
NEVER_TOLD = (
    "The server never tells a WSGI app that its client has left, and takes all that it writes. Serve the "
    "ASGI side there, or set `max_duration`."
)
NO_SOCKET = "The server keeps its socket to itself: only a heartbeat, or the next write, notices a leave."
NO_BACKPRESSURE = "The server takes all that is written at once, and holds it in memory."
NO_HANDLER = "The process ends at once by the signal. Call `streamkit.shutdown()` from a handler of your own."
OWN_HANDLER = (
    "The server takes the signal where Python code cannot stand before it. Call `streamkit.shutdown()` from "
    "a hook of its own, where it has one."
)
WAITS = (
    "The server waits for its streams to end, and a WSGI app in one of its threads cannot hear the signal. "
    "Set `max_duration`, or serve the ASGI side."
)
CUTS = (
    "daphne cuts its connections at once, as a rule before an app can hear of it: the outcome is "
    "`disconnected`."
)

ROUTER, SOCKET = "uWSGI http, auto-chunked", "uWSGI http-socket"
UNTELLING = ("hypercorn wsgi", "a2wsgi on uvicorn")
CAUSES: list[tuple[str, str, tuple[str, ...]]] = [
    ("error_after", CLEAN_END, (ROUTER, "mod_wsgi daemon", "granian wsgi")),
    ("error_after", NO_FRAMING, (SOCKET,)),
    ("error_after", HANGS, (H2,)),
    ("http_1_0_closing", CHUNKS, ("werkzeug", "uvicorn httptools", "a2wsgi on uvicorn")),
    ("head", LAST_CHUNK, ("gevent pywsgi", ROUTER)),
    ("leave_active", NEVER_TOLD, UNTELLING),
    ("leave_idle", NEVER_TOLD, UNTELLING),
    ("leave_idle_by_line", NEVER_TOLD, UNTELLING),
    ("leave_idle_by_line", NO_SOCKET, (ROUTER, "mod_wsgi embedded", "mod_wsgi daemon", "granian wsgi")),
    ("flood", NEVER_TOLD, UNTELLING),
    ("flood", NO_BACKPRESSURE, (H2, "daphne")),
    ("write_timeout", NO_BACKPRESSURE, (H2, "daphne")),
    ("write_timeout", CLEAN_END, (ROUTER, "mod_wsgi daemon", "granian wsgi")),
    ("sigterm", WAITS, ("granian wsgi", *UNTELLING)),
    ("sigterm", OWN_HANDLER, ("mod_wsgi embedded", "mod_wsgi daemon")),
    ("sigterm_told", NO_HANDLER, ("waitress", "werkzeug", "cheroot", "gevent pywsgi")),
    ("sigterm_told", OWN_HANDLER, (SOCKET, ROUTER, "mod_wsgi embedded", "mod_wsgi daemon")),
    ("sigterm_told", WAITS, ("granian wsgi", *UNTELLING)),
    ("sigterm_told", CUTS, ("daphne",)),
]
# Which of two comes first is chance there: such a cell is listed, and not asserted to fail.
RACES = {("daphne", "sigterm_told")}
LISTED = {(name, column): cause for column, cause, names in CAUSES for name in names}

SEEN_WITH = (
    "gunicorn 27.0.1, waitress 3.0.2, werkzeug 3.1.9, cheroot 11.1.2, gevent 26.9.0, uWSGI 2.0.30, "
    "mod_wsgi 4.9.4, granian 2.8.7, hypercorn 0.18.0, uvicorn 0.54.0, daphne 4.2.3, a2wsgi 1.10.10"
)
HEAD = """# Servers

<!-- Made by `python -m tests.servers.table > docs/servers.md`; do not edit. -->

What holds on which server. Each cell is a test (`tests/servers/test_every.py`), and so is each exception:
one that begins to hold fails the tests until it is taken off this page.

The app is wrapped by `streamkit.wrap`, and its producers are functions that take the stream: on a thread
under WSGI, as a task under ASGI. Each server has one worker and eight threads where it has threads; waitress
has `--channel-request-lookahead=1`, uWSGI `--threads` and `--die-on-term`, and hypercorn `--workers 0`, so
that it serves by itself. A number stands for a cause below.

"""
TAIL = f"""
## Other doors

TLS that the server itself ends (gunicorn gthread and gevent, cheroot, hypercorn, uvicorn) and unix-domain
sockets (gunicorn gthread, waitress, hypercorn, uvicorn, and nginx before each) keep what the table says:
`tests/servers/test_tls.py` and `test_unix_sockets.py`. One thing differs. To an HTTP/1.0 client that closes,
the end of the connection is the body's: gunicorn and cheroot end a whole body without TLS's `close_notify`,
and hypercorn and uvicorn with h11 end half a body with it. `http10="buffer"` avoids both.

Seen with {SEEN_WITH}, on Linux. gunicorn has no eventlet worker any more.
"""


def page() -> str:
    """The whole page."""
    numbers = {cause: number for number, cause in enumerate(dict.fromkeys(LISTED.values()), 1)}
    headings = ["server", *(heading for heading, _ in COLUMNS.values())]
    lines = [_row(headings), "|---" * len(headings) + "|"]
    lines += [_row([name, *(_cell(name, column, numbers) for column in COLUMNS)]) for name in KINDS]
    lines += ["", "## What each column asks", ""]
    lines += [f"- **{heading}**: {asked}" for heading, asked in COLUMNS.values()]
    lines += ["", "## Causes", ""]
    lines += [f"{number}. {cause}" for cause, number in numbers.items()]
    return HEAD + "\n".join(lines) + "\n" + TAIL


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(name: str, column: str, numbers: dict[str, int]) -> str:
    if (name, column) in NOT_ASKED:
        return "–"
    cause = LISTED.get((name, column))
    return "holds" if cause is None else f"no: {numbers[cause]}"


if __name__ == "__main__":
    print(page(), end="")
