"""Heartbeats, time limits and a limit of streams: what an open stream gets from its clock.

Rule: nothing here measures time but by order; a limit is short enough to be reached at once,
and a wait long enough for a busy machine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from shapes import SHAPES, WITH_STREAM, Run, Serve, Shape, serving

import streamkit
from streamkit.errors import ClientDisconnected, StreamEnded, TooManyStreams

EVENTS = "text/event-stream"
LOUD = ("WARNING", "ERROR", "CRITICAL")

# The application is on the server's own stack there: nobody else can write meanwhile.
ON_SERVERS_STACK = "wsgi-environ-write"
BEATING = [shape for shape in WITH_STREAM if shape.name != ON_SERVERS_STACK]
# In WSGI whoever pulls or writes on the server's stack is stuck with it: only its socket could help.
STALLED = [shape for shape in SHAPES if shape.interface == "asgi" or shape in BEATING]
STALLED = [shape for shape in STALLED if not (shape.interface == "wsgi" and shape.name.endswith("-iterable"))
           or "async" in shape.name]  # fmt: skip


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BEATING, ids=str)
def beating(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=STALLED, ids=str)
def stalled(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


class Ends:
    """Whom the end concerns, and what they heard."""

    def __init__(self) -> None:
        self.outcomes: list[object] = []
        self.errors: list[BaseException] = []
        self.heard = threading.Event()
        self.options: dict[str, Any] = {"on_finish": self._finish, "on_error": self._error}

    def _finish(self, stream: Any) -> None:
        self.outcomes.append(stream.outcome)
        self.heard.set()

    def _error(self, stream: Any, error: BaseException) -> None:
        self.errors.append(error)

    def come(self) -> list[object]:
        assert self.heard.wait(PATIENCE), "nobody was told of the end"
        return self.outcomes


def until_told(told: threading.Event, first: bytes) -> Callable[[], Run]:
    def program() -> Run:
        yield first
        assert told.wait(PATIENCE)

    return program


# ---------------------------------------------------------------- heartbeats


@pytest.mark.parametrize(
    ("content_type", "first", "beat"),
    [
        (EVENTS, b"data: 1\n\n", b":\n"),
        (EVENTS, b"data: 1\n", b":\n"),  # in the midst of an event: it must not end here
        ("application/x-ndjson", b"{}\n", b"\n"),
        ("text/html; charset=utf-8", b"<p>", b"<!-- -->"),
        ("text/html; charset=utf-8", b"<p>\n", b"<!-- -->\n"),
    ],
)
def test_a_silent_stream_sends_what_says_nothing(
    beating: Serve, content_type: str, first: bytes, beat: bytes
) -> None:
    told = threading.Event()
    answer = beating(until_told(told, first), content_type=content_type, options={"heartbeat": 0.1})
    assert answer.read() == first
    assert answer.read() == beat
    told.set()
    assert answer.finish().body.replace(beat, b"") == first.replace(beat, b"")


@pytest.mark.parametrize(
    ("content_type", "first"),
    [("text/plain", b"a\n"), (EVENTS, b"data: half"), ("text/html", b"<p"), ("application/jsonl", b"{")],
)
def test_where_nothing_is_invisible_there_is_no_heartbeat(
    beating: Serve, content_type: str, first: bytes
) -> None:
    told = threading.Event()
    other = threading.Event()
    answer = beating(until_told(told, first), content_type=content_type, options={"heartbeat": 0.05})
    # A second stream with the same clock shows that it has struck, many times.
    beats = beating(until_told(other, b"\n"), content_type="application/jsonl", options={"heartbeat": 0.05})
    assert beats.read() == b"\n"
    for _ in range(5):
        assert beats.read() == b"\n"
    told.set()
    other.set()
    assert answer.finish().body == first


@pytest.mark.parametrize("shape", [shape for shape in BEATING if shape.described], ids=str)
def test_a_response_may_bring_a_heartbeat_of_its_own(shape: Shape) -> None:
    told = threading.Event()
    for served in serving(shape):
        answer = served(until_told(told, b"a"), heartbeat_bytes=b"\0", options={"heartbeat": 0.1})
        assert (answer.read(), answer.read()) == (b"a", b"\0")
        told.set()


@pytest.mark.parametrize("shape", [shape for shape in BEATING if shape.described], ids=str)
def test_a_slow_producers_head_leaves_with_a_heartbeat(shape: Shape) -> None:
    """`commit_after`: the browser's `open` fires, and no proxy gives up before the first event."""
    told = threading.Event()

    def program() -> Run:
        assert told.wait(PATIENCE)
        yield b"data: 1\n\n"

    for served in serving(shape):
        answer = served(program, content_type=EVENTS, options={"commit_after": 0.05})
        assert (answer.status, answer.read()) == (200, b":\n")
        told.set()
        assert answer.read() == b"data: 1\n\n"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_declared_length_and_a_held_body_have_no_room_for_heartbeats(version: str) -> None:
    told = threading.Event()
    other = threading.Event()
    for served in serving(next(shape for shape in BEATING if shape.name == "asgi-function")):
        more: dict[str, Any] = {"content_length": 3} if version == "1.1" else {"content_type": "text/html"}
        answer = served(until_told(told, b"<p>"), version=version, options={"heartbeat": 0.05}, **more)
        beats = served(until_told(other, b"{}\n"), content_type=EVENTS, options={"heartbeat": 0.05})
        for _ in range(5):
            beats.read()
        told.set()
        other.set()
        assert answer.finish().body == b"<p>"


@pytest.mark.parametrize("shape", [shape for shape in BEATING if shape.interface == "wsgi"], ids=str)
def test_under_wsgi_an_idle_stream_learns_of_a_leave_by_its_heartbeat(
    shape: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """X11; PEP 3333 knows no leave, but a server that cannot write calls `close()`."""
    ends, left = Ends(), threading.Event()

    def program(stream: Any) -> Run:
        yield b"data: 1\n\n"
        assert left.wait(PATIENCE)
        assert not stream.connected
        with pytest.raises(ClientDisconnected):
            yield b"data: 2\n\n"

    for served in serving(shape):
        run = program if not shape.awaits else until_told(left, b"data: 1\n\n")
        answer = served(run, content_type=EVENTS, options={"heartbeat": 0.1, **ends.options})
        assert answer.read() == b"data: 1\n\n"
        answer.leave()
        assert ends.come() == ["disconnected"]
        left.set()
        answer.through()
    assert [record for record in caplog.records if record.levelname in LOUD] == []


# ---------------------------------------------------------------- limits


def test_a_client_that_takes_nothing_for_write_timeout_is_gone(
    stalled: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()

    def program() -> Run:
        for _ in range(10_000):
            yield b"x" * 16_384

    answer = stalled(program, options={"write_timeout": 0.2, "high_water": 65_536, **ends.options}, window=0)
    assert answer.read()
    assert ends.come() == ["timed_out"]
    assert stalled.ended(), "the producer goes on"
    assert [type(error) for error in ends.errors] == [ClientDisconnected]
    assert [record for record in caplog.records if record.levelname in LOUD] == []


@pytest.mark.parametrize(
    "shape",
    [shape for shape in STALLED if shape.name in ("wsgi-function", "asgi-function", "asgi-async-function",
                                                  "asgi-async-iterable", "asgi-scope")],
    ids=str,
)  # fmt: skip
def test_a_client_that_takes_its_time_is_not_cut(shape: Shape) -> None:
    """Longer than `write_timeout` in all, but never without a sign of life for so long."""
    ends = Ends()

    def program() -> Run:
        for _ in range(40):
            yield b"x" * 1000

    pause = threading.Event()
    options = {"write_timeout": 2.0, "high_water": 1000, **ends.options}
    for served in serving(shape):
        answer = served(program, options=options, window=0)
        for _ in range(25):
            answer.read()
            pause.wait(0.1)
        assert answer.finish().complete
        assert ends.come() == ["finished"]


def endless() -> Run:
    pause = threading.Event()
    for number in range(100_000):
        yield b"data: %d\n\n" % number
        pause.wait(0.005)


def test_max_duration_ends_an_event_stream_cleanly(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    answer = served(endless, content_type=EVENTS, options={"max_duration": 2.0, **ends.options})
    assert answer.finish().body.startswith(b"data: 0\n\n")
    assert (answer.complete, answer.error) == (True, None)
    assert (ends.come(), ends.errors) == (["timed_out"], [])
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def test_max_duration_cuts_a_body_that_would_look_whole(served: Serve) -> None:
    ends = Ends()
    answer = served(endless, options={"max_duration": 2.0, **ends.options}).finish()
    assert answer.body.startswith(b"data: 0\n\n")
    assert not answer.complete
    assert isinstance(answer.error, StreamEnded)
    assert ends.come() == ["timed_out"]
    assert [type(error) for error in ends.errors] == [StreamEnded]


def test_a_producer_whose_time_is_over_is_told_at_its_next_write(beating: Serve) -> None:
    told: list[BaseException] = []

    def program() -> Run:
        try:
            yield from endless()
        except BaseException as error:
            told.append(error)
            raise

    beating(program, content_type=EVENTS, options={"max_duration": 0.6}).finish()
    assert beating.ended()
    if not beating.shape.awaits:  # those are cancelled where they wait
        assert [type(error) for error in told] == [StreamEnded]
        assert "max_duration of 0.6 s" in str(told[0])


def trying(told: threading.Event) -> Run:
    """Write nothing, again and again, for so long as a test may wait."""
    for _ in range(4000):
        told.wait(0.005)
        yield b""


def test_a_silent_stream_ends_at_max_duration_too(beating: Serve) -> None:
    ends, told = Ends(), threading.Event()

    def program() -> Run:
        yield b"data: 1\n\n"
        if beating.shape.name in ("asgi-scope", "asgi-scope-sync"):
            # The request's own code runs on, which is not ours to stop; it is told at its next write.
            with pytest.raises(StreamEnded):
                yield from trying(told)
        else:
            assert told.wait(PATIENCE)

    options = {"max_duration": 0.6, **ends.options}
    answer = beating(program, content_type=EVENTS, options=options)
    assert answer.rest() == b"data: 1\n\n"
    assert answer.complete
    if not beating.shape.awaits:
        assert ends.come() == ["timed_out"]
    told.set()
    assert ends.come() == ["timed_out"]


def test_beyond_max_streams_a_client_is_told_to_come_later(served: Serve) -> None:
    told = threading.Event()
    options = {"max_streams": 1}
    first = served(until_told(told, b"a"), options=options)
    assert first.read() == b"a"
    ran: list[int] = []

    def never() -> Run:
        ran.append(1)
        yield b"b"

    second = served(never, options=options).finish()
    assert (second.status, second.header("Retry-After"), second.error) == (503, "5", None)
    assert second.complete
    if served.shape.described:
        assert ran == []
    told.set()
    assert first.finish().complete
    third = served(until_told(told, b"c"), options=options).finish()
    assert (third.status, third.body) == (200, b"c")


@pytest.mark.parametrize("shape", [shape for shape in WITH_STREAM if not shape.described], ids=str)
def test_an_application_that_writes_by_itself_hears_that_all_streams_are_taken(shape: Shape) -> None:
    told, heard = threading.Event(), list[BaseException]()

    def second() -> Run:
        try:
            yield b"b"
        except TooManyStreams as error:
            heard.append(error)

    for served in serving(shape):
        first = served(until_told(told, b"a"), options={"max_streams": 1})
        assert first.read() == b"a"
        assert served(second, options={"max_streams": 1}).finish().status == 503
        assert "max_streams" in str(heard[0])
        told.set()


def test_the_names_of_the_limits_are_public() -> None:
    assert streamkit.StreamEnded is StreamEnded
    assert streamkit.TooManyStreams is TooManyStreams


# ---------------------------------------------------------------- streams of other code


def foreign(asynchronous: bool, content_type: str, options: Any, program: Callable[[], Any]) -> Any:
    """An application that streams in its interface's own way, wrapped."""

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", content_type)])
        return program()

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for chunk in program():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0.002)
        await send({"type": "http.response.body"})

    return streamkit.wrap(asgi_app if asynchronous else wsgi_app, options)


@pytest.mark.parametrize("kind", [WsgiServer, AsgiServer])
def test_streams_of_other_code_count_among_max_streams(kind: Any) -> None:
    options = {"max_streams": 1}
    with kind(foreign(kind is AsgiServer, "text/plain", options, endless)) as server:
        first = server.request()
        assert first.read().startswith(b"data: 0")
        second = server.request().finish()
        assert (second.status, second.header("Retry-After")) == (503, "5")
        first.leave()


@pytest.mark.parametrize("kind", [WsgiServer, AsgiServer])
def test_an_event_stream_of_other_code_ends_in_order_at_max_duration(kind: Any) -> None:
    ends = Ends()
    options = {"max_duration": 0.6, **ends.options}
    with kind(foreign(kind is AsgiServer, EVENTS, options, endless)) as server:
        answer = server.request().finish()
        assert (answer.complete, answer.error) == (True, None)
        assert ends.come() == ["timed_out"]


@pytest.mark.parametrize("kind", [WsgiServer, AsgiServer])
def test_an_event_stream_of_other_code_says_that_it_has_failed(kind: Any) -> None:
    def failing() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        raise RuntimeError("boom")

    with kind(foreign(kind is AsgiServer, EVENTS, {}, failing)) as server:
        answer = server.request().finish()
        assert answer.body.startswith(b"data: 1\n\nevent: error\n")
        assert answer.complete


def test_an_application_that_fails_behind_a_refusal_says_so_to_its_server_alone() -> None:
    options = {"max_streams": 1}

    def failing() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        raise RuntimeError("boom")

    with AsgiServer(foreign(True, EVENTS, options, endless)) as server:
        first = server.request()
        assert first.read()
        second = AsgiServer(foreign(True, EVENTS, options, failing))
        with second:
            answer = second.request().finish()
            assert (answer.status, answer.complete) == (503, True)
            assert isinstance(answer.error, RuntimeError)
        first.leave()


def test_many_at_once_never_pass_max_streams(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    def producer(stream: Any) -> None:
        stream.write("a")
        assert told.wait(PATIENCE)

    app = streamkit.wrap(streamkit.stream(producer), {"max_streams": 5}, kind="wsgi")
    with WsgiServer(app) as server:
        answers = [server.request() for _ in range(30)]
        statuses = [answer.status for answer in answers]
        told.set()
    assert (statuses.count(200), statuses.count(503)) == (5, 25)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_body_that_is_held_for_http_1_0_gives_its_room_back(interface: Any) -> None:
    """Nothing has to be looked at while it is held, so no clock counts it out."""

    def on_stack(environ: Any, start_response: Any) -> list[bytes]:
        environ["streamkit.stream"].write(b"a")
        return []

    async def on_task(scope: Any, receive: Any, send: Any) -> None:
        await scope["streamkit.stream"].write(b"a")

    app: Any = on_stack if interface == "wsgi" else on_task
    wrapped: Any = streamkit.wrap(app, {"max_streams": 1}, kind=interface)
    with WsgiServer(wrapped) if interface == "wsgi" else AsgiServer(wrapped) as server:
        answers = [server.request(version="1.0").finish() for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"a")] * 3


def test_a_client_that_comes_to_life_after_write_timeout_does_not_take_half_a_body_for_whole() -> None:
    over = threading.Event()
    outcomes: list[object] = []

    def producer(stream: Any) -> None:
        while True:
            stream.write(b"x" * 1000)

    def on_finish(stream: Any) -> None:
        outcomes.append(stream.outcome)
        over.set()

    options = {"write_timeout": 0.2, "high_water": 10_000, "on_finish": on_finish}
    with WsgiServer(streamkit.wrap(streamkit.stream(producer, options=options), kind="wsgi")) as server:
        answer = server.request(window=1000)
        assert over.wait(PATIENCE)
        answer.finish()
    assert outcomes == ["timed_out"]
    assert isinstance(answer.error, StreamEnded)
    assert not answer.complete


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_who_hears_of_the_end_before_its_last_words_are_known_does_not_make_it_a_good_one(
    interface: str,
) -> None:
    is_asked, has_heard = threading.Event(), threading.Event()

    def producer(stream: Any) -> None:
        stream.write("half")
        assert is_asked.wait(PATIENCE)
        try:
            stream.write("more")
        finally:
            has_heard.set()

    def completion(stream: Any, error: Exception) -> str:
        is_asked.set()
        assert has_heard.wait(PATIENCE)
        until(lambda: stream.closed, within=0.2)  # it must not be, whatever time the producer has
        return "; cut"

    options: Any = {"max_duration": 1, "completion": {"text/csv": completion}}
    described = streamkit.stream(producer, content_type="text/csv", options=options)
    with (WsgiServer if interface == "wsgi" else AsgiServer)(described) as server:
        answer = server.request()
        assert answer.read() == b"half"
        answer.finish()
    assert (answer.body, answer.complete) == (b"half; cut", False)
