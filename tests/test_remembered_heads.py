"""Ordinary heads are known by the last one: whatever differs from it is looked at anew.

Rule: each case is asked twice, by a wrap that has seen an ordinary answer and by one that has not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
import werkzeug.datastructures
from driving import AsgiServer, WsgiServer, environ_of

import streamkit
from streamkit import ProtocolViolation
from streamkit.core.marking import MARK

KEY = "streamkit.stream"
HTML = ("Content-Type", "text/html; charset=utf-8")
EVENTS = ("Content-Type", "text/event-stream")
SIZED = ("Content-Length", "3")


class Answering:
    """A WSGI application whose next answer can be set."""

    def __init__(self) -> None:
        self.headers: Any = [HTML, SIZED]
        self.body: Callable[[], Any] = lambda: [b"abc"]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        start_response("200 OK", self.headers)
        return self.body()


def three_bytes() -> Iterator[bytes]:
    yield b"abc"


BODIES: list[Callable[[], Any]] = [
    lambda: [b"abc"],
    lambda: (b"a", b"bc"),
    three_bytes,
    lambda: FileWrapper(io.BytesIO(b"abc")),
]


def cared(app: Any) -> bool:
    """Whether its answer got the care of a stream."""
    with WsgiServer(app, validated=False) as server:
        answer = server.request().finish()
    assert answer.body == b"abc"
    return answer.header("X-Accel-Buffering") == "no"


@pytest.mark.parametrize("make", BODIES)
@pytest.mark.parametrize("ordinary_first", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        [("X-Kind", HTML[1]), EVENTS],
        [("X-Kind", HTML[1]), EVENTS, SIZED],
        [EVENTS, SIZED],
        [SIZED, EVENTS],
        [list(EVENTS), list(SIZED)],
        (EVENTS, SIZED),
    ],
)
def test_a_wsgi_stream_after_an_ordinary_answer_is_still_a_stream(
    make: Any, ordinary_first: bool, headers: Any
) -> None:
    app = Answering()
    app.body = make
    wrapped = streamkit.wrap(app, kind="wsgi")
    if ordinary_first:
        for ordinary in ([HTML, SIZED], [SIZED, HTML], [("X-Kind", "1"), HTML, SIZED]):
            app.headers = ordinary
            assert not cared(wrapped)
    app.headers = headers
    assert cared(wrapped)


@pytest.mark.parametrize("make", BODIES)
def test_a_wsgi_application_may_change_the_pair_that_was_remembered(make: Any) -> None:
    app = Answering()
    app.body = make
    kind, size = list(HTML), list(SIZED)
    app.headers = [kind, size]
    wrapped = streamkit.wrap(app, kind="wsgi")
    assert not cared(wrapped)
    kind[1] = EVENTS[1]
    assert cared(wrapped)
    kind[1] = HTML[1]
    assert not cared(wrapped)


@pytest.mark.parametrize("make", BODIES)
@pytest.mark.parametrize("marks", [False, True], ids=["", "marks are in use"])
@pytest.mark.parametrize("ordinary_first", [False, True])
@pytest.mark.parametrize(
    "headers", [None, 5, "ab", {"Content-Type": "text/html"}, iter([HTML]), [HTML[:1]], [None], [b"ab"]]
)
def test_a_wsgi_head_that_is_no_list_of_pairs_is_refused_by_name(
    make: Any, ordinary_first: bool, headers: Any, marks: bool
) -> None:
    if marks:  # as after any description that a wrapped app has served
        with WsgiServer(streamkit.wrap(streamkit.stream(["a"]), kind="wsgi")) as server:
            server.request().finish()
    app = Answering()
    wrapped = streamkit.wrap(app, kind="wsgi")
    app.body = make
    if ordinary_first:
        assert not cared(wrapped)
    app.headers = headers
    with pytest.raises(ProtocolViolation, match=r"\(name, value\) pairs in start_response"):
        wrapped(environ_of(), lambda *_: pytest.fail("a head was sent"))


def asgi_answers(*asked: tuple[Any, list[dict[str, Any]]], mend: Any = None) -> list[Any]:
    """What the client of one wrapped application gets for each of these heads and bodies, in order."""
    waiting = list(asked)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers, bodies = waiting.pop(0)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in bodies:
            await send({"type": "http.response.body", **body})

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answers = []
        for _ in asked:
            answers.append(server.request().finish())
            if mend is not None:
                mend()
        return answers


WHOLE = [{"body": b"abc"}]
LOW_HTML, LOW_SIZED = (b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"3")


@pytest.mark.parametrize("kind", [list, tuple])
def test_an_asgi_application_may_change_the_pair_that_was_remembered(kind: Any) -> None:
    pair = list(LOW_HTML)

    def change() -> None:
        pair[1] = b"text/event-stream"

    answers = asgi_answers((kind([pair, LOW_SIZED]), WHOLE), (kind([pair, LOW_SIZED]), WHOLE), mend=change)
    assert [answer.header("X-Accel-Buffering") for answer in answers] == [None, "no"]


def test_a_changed_name_that_was_a_bytearray_is_not_taken_for_a_length() -> None:
    name = bytearray(b"content-length")
    sized = [LOW_HTML, (name, b"3")]

    def change() -> None:
        name[:] = b"x-other-thing!"

    parts = [{"body": b"ab", "more_body": True}, {"body": b"c"}]
    with pytest.raises(AssertionError, match="two byte strings"):  # this server knows no bytearrays
        asgi_answers((sized, WHOLE))
    answers = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": sized})
        for part in parts:
            await send({"type": "http.response.body", **part})

    wrapped = streamkit.wrap(app, kind="asgi")

    async def lenient(scope: Any, receive: Any, send: Any) -> None:
        async def as_bytes(message: Any) -> None:
            if "headers" in message:
                message = {**message, "headers": [(bytes(n), bytes(v)) for n, v in message["headers"]]}
            await send(message)

        await wrapped(scope, receive, as_bytes)

    with AsgiServer(lenient) as server:
        for _ in range(2):
            answers.append(server.request().finish())
            change()
    assert [answer.header("X-Accel-Buffering") for answer in answers] == [None, "no"]


@pytest.mark.parametrize("media_type", [b"text/html; charset=utf-8", b"text/event-stream", b"text/plain"])
@pytest.mark.parametrize("coding", [MARK.encode(), b"gzip, " + MARK.encode()])
@pytest.mark.parametrize("rest", [[], [LOW_SIZED]])
@pytest.mark.parametrize("mixed_case", [False, True])
def test_a_kept_mark_never_reaches_an_asgi_server(
    media_type: bytes, coding: bytes, rest: Any, mixed_case: bool
) -> None:
    names = (b"Content-Type", b"Content-Encoding") if mixed_case else (b"content-type", b"content-encoding")
    head = [(names[0], media_type), (names[1], coding), *rest]
    answer = asgi_answers((head, WHOLE))[0]
    assert answer.values("Content-Encoding") == [c for c in ["gzip"] if coding.startswith(b"gzip")]
    assert answer.body == b"abc"


def test_a_coding_that_only_begins_like_the_mark_goes_on() -> None:
    head = [LOW_HTML, (b"content-encoding", MARK.encode() + b"-2"), LOW_SIZED]
    answer = asgi_answers((head, WHOLE))[0]
    assert (answer.header("Content-Encoding"), answer.body) == (f"{MARK}-2", b"abc")


LOW_MARK = (b"content-encoding", MARK.encode())
TITLE_MARK = (b"Content-Encoding", MARK.encode())


@pytest.mark.parametrize("mark", [LOW_MARK, TITLE_MARK])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("sized_first", [False, True])
def test_a_kept_head_with_the_mark_is_sent_without_it_after_an_ordinary_one_like_it(
    mark: tuple[bytes, bytes], at: int, sized_first: bool
) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    if sized_first:
        headers.reverse()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/described":  # from now on there are marks in this process
            await streamkit.stream(["a"])(scope, receive, send)
            return
        kept = [*headers[:at], mark, *headers[at:]] if scope["path"] == "/kept" else headers
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        await send({"type": "http.response.body", "body": b"ok"})

    async def in_lower_case(scope: Any, receive: Any, send: Any) -> None:
        async def lowered(message: Any) -> None:
            if "headers" in message:
                message = {**message, "headers": [(n.lower(), v) for n, v in message["headers"]]}
            await send(message)

        await wrapped(scope, receive, lowered)

    wrapped = streamkit.wrap(app, kind="asgi")
    with AsgiServer(in_lower_case) as server:
        for path in ("/described", "/", "/kept"):
            answer = server.request(path=path).finish()
            assert answer.header("Content-Encoding") is None
            assert answer.complete


@pytest.mark.parametrize(
    "kind", [list, tuple, werkzeug.datastructures.Headers, lambda pairs: dict(pairs).items()]
)
def test_a_kept_mark_never_reaches_a_wsgi_server(kind: Any) -> None:
    headers = [HTML, ("Content-Encoding", MARK), SIZED]

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/described":
            return streamkit.stream(["a"])(environ, start_response)
        start_response("200 OK", kind(headers) if environ["PATH_INFO"] == "/kept" else [HTML, SIZED])
        return [b"abc"]

    with WsgiServer(streamkit.wrap(app, kind="wsgi")) as server:
        for path in ("/described", "/", "/kept"):
            answer = server.request(path=path).finish()
            assert answer.header("Content-Encoding") is None
            assert answer.complete
