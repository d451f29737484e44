"""What Rails' tests check of the response and its body, R26-R45 of the scenarios.

Rule: as in test_rails_live.py, a test says nothing about one interface or engine.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from shapes import FUNCTIONS, ITERABLES, SHAPES, SYNC_FUNCTIONS, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.errors import BodyNotAllowed, StreamClosed


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def pushed(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=SYNC_FUNCTIONS, ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=ITERABLES, ids=str)
def iterable(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.mark.parametrize(("known", "status", "body"), [(None, 200, b"fresh"), ('W/"123"', 304, b"")])
def test_a_conditional_request_is_answered_in_full_or_by_an_empty_304(
    pushed: Serve, known: str | None, status: int, body: bytes
) -> None:
    """R26: the comparison is the framework's; that a 304 stays empty is ours."""

    def program(stream: Any) -> Run:
        stream.headers["ETag"] = 'W/"123"'
        if stream.headers["ETag"] == known:
            stream.status = 304
            yield stream.commit
            return
        yield "fresh"

    answer = pushed(program).finish()
    assert (answer.status, answer.body, answer.complete) == (status, body, True)
    assert answer.header("ETag") == 'W/"123"'


def test_the_body_handed_to_a_wsgi_server_does_not_look_like_a_whole_one(served: Serve) -> None:
    """R27: no list, no tuple, no length; what `write()` carried has left before the app returns."""

    def program() -> Run:
        yield "a"
        yield "b"

    answer = served(program).finish()
    assert answer.header("Content-Length") is None
    if served.shape.interface == "wsgi" and served.shape.name != "wsgi-environ-write":
        body = answer.returned  # type: ignore[attr-defined]
        assert not isinstance(body, (list, tuple, bytes))
        assert not hasattr(body, "__len__")


def test_a_hook_used_as_a_decorator_stays_the_function_it_was(pushed: Serve) -> None:
    """R28: there is no unset hook in streamkit to be called; registering one gives it back."""

    def note(stream: Any, *more: Any) -> None: ...

    kept: list[object] = []

    def program(stream: Any) -> Run:
        kept.extend(register(note) for register in (stream.on_commit, stream.on_error, stream.on_finish))
        yield "a"

    assert pushed(program).finish().complete
    assert kept == [note] * 3


@pytest.mark.parametrize(
    ("charset", "text", "count"), [("utf-8", "foo", 3), ("utf-8", "né", 3), ("latin-1", "né", 2)]
)
def test_write_says_how_many_bytes_it_wrote(pushed: Serve, charset: str, text: str, count: int) -> None:
    """R29: text is sent in the charset of the Content-Type."""
    counts: list[int] = []
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        streams.append(stream)
        counts.append((yield text))
        counts.append((yield b"\xff\xff"))
        counts.append(stream.tell())

    answer = pushed(program, content_type=f"text/plain; charset={charset}").finish()
    assert counts == [count, 2, count + 2]
    assert streams[0].bytes_sent == count + 2
    assert answer.body == text.encode(charset) + b"\xff\xff"


@pytest.mark.parametrize("view", [bytearray, memoryview])
def test_a_buffer_that_is_used_again_leaves_earlier_chunks_alone(pushed: Serve, view: Any) -> None:
    """R30"""

    def program(stream: Any) -> Run:
        buffer = bytearray(b"foo")
        for content in (b"bar", b"baz", b"qux"):
            buffer[:] = content
            yield buffer if view is bytearray else memoryview(buffer)

    assert pushed(program, window=0).finish().body == b"barbazqux"


def test_an_abort_from_another_thread_releases_a_waiting_reader(synced: Serve) -> None:
    """R31"""
    streams: list[Any] = []

    def program(stream: Any) -> Run:
        yield "written"
        streams.append(stream)

    answer = synced(program, keep_open=True)
    assert answer.read() == b"written"
    reader = threading.Thread(target=answer.finish)
    reader.start()
    assert until(lambda: streams)
    streams[0].abort("enough")
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert (answer.body, answer.complete) == (b"written", False)
    assert streams[0].outcome == "aborted"


def test_an_abort_after_the_close_still_lets_the_reader_end(pushed: Serve) -> None:
    """R32"""

    def program(stream: Any) -> Run:
        yield "foo"
        yield stream.close
        stream.abort("too late")

    answer = pushed(program).finish()
    assert b"foo".startswith(answer.body)
    assert answer.status == 200


def test_another_thread_writes_while_the_consumer_iterates(synced: Serve) -> None:
    """R34"""
    streams: list[Any] = []
    made, results = threading.Event(), []

    def program(stream: Any) -> Run:
        streams.append(stream)
        made.set()
        yield from ()

    def write() -> None:
        assert made.wait(PATIENCE)
        streams[0].write("foo")
        results.append(streams[0].wait_committed(PATIENCE))
        streams[0].close()
        results.append(streams[0].wait_finished(PATIENCE))

    writer = threading.Thread(target=write)
    writer.start()
    answer = synced(program, keep_open=True)
    assert answer.read() == b"foo"
    assert answer.finish().complete
    writer.join(PATIENCE)
    assert results == [True, True]


def test_one_write_and_a_close_are_one_chunk(pushed: Serve) -> None:
    """R35"""

    def program(stream: Any) -> Run:
        yield "omg"
        yield stream.close

    answer = pushed(program).finish()
    assert (answer.chunks, answer.complete) == ([b"omg"], True)


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        (None, "no-store, no-transform"),
        ("private", "private"),
        ("public, max-age=60", "public, max-age=60"),
        ("public, no-store", "no-store"),
    ],
)
def test_cache_control_is_the_apps_own_or_the_default(pushed: Serve, own: str | None, sent: str) -> None:
    """R36: `public` goes where `no-store` contradicts it."""

    def program(stream: Any) -> Run:
        if own:
            stream.headers["Cache-Control"] = own
        yield "x"

    assert pushed(program).finish().header("Cache-Control") == sent


def test_a_content_length_among_the_headers_is_taken_off(pushed: Serve) -> None:
    """R37: a length that is known is declared by `content_length=`."""

    def program(stream: Any) -> Run:
        stream.headers["Content-Length"] = "3"
        yield "longer than three"

    answer = pushed(program).finish()
    assert answer.header("Content-Length") is None
    assert (answer.body, answer.complete) == (b"longer than three", True)


def test_headers_set_on_a_stream_do_not_reach_the_description_or_the_next_stream(functions: Serve) -> None:
    """R38"""
    given, numbers = {"X-Given": "1"}, itertools.count()

    def program(stream: Any) -> Run:
        if next(numbers) == 0:
            stream.headers["X-Own"] = "2"
            stream.headers["X-Given"] = "changed"
            stream.headers["X-Default"] = "changed"
        yield "x"

    options = {"headers": {"X-Default": "3"}}
    first, second = (functions(program, headers=given, options=options).finish() for _ in range(2))
    names = ("X-Given", "X-Own", "X-Default", "X-Accel-Buffering")
    assert [first.header(name) for name in names] == ["changed", "2", "changed", "no"]
    assert [second.header(name) for name in names] == ["1", None, "3", "no"]
    assert (given, options) == ({"X-Given": "1"}, {"headers": {"X-Default": "3"}})


@pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_description_served_twice_has_the_same_head_twice(server: Any, asynchronous: bool) -> None:
    """R38"""
    numbers = itertools.count()

    def producer(stream: Any) -> Any:
        if next(numbers) == 0:
            stream.headers["X-Own"] = "2"
            stream.headers["X-Given"] = "changed"
            stream.status = 203
        return stream.write("x")

    async def async_producer(stream: Any) -> None:
        await producer(stream)

    described = streamkit.stream(async_producer if asynchronous else producer, headers={"X-Given": "1"})
    with server(described) as serving_it:
        first, second = (serving_it.request().finish() for _ in range(2))
    assert [first.status, first.header("X-Given"), first.header("X-Own")] == [203, "changed", "2"]
    assert [second.status, second.header("X-Given"), second.header("X-Own")] == [200, "1", None]


def test_wait_committed_returns_when_another_thread_commits(synced: Serve) -> None:
    """R39"""
    streams: list[Any] = []
    made, go, seen = threading.Event(), threading.Event(), []

    def program(stream: Any) -> Run:
        streams.append(stream)
        made.set()
        assert go.wait(PATIENCE)
        yield "x"

    answer = synced(program)
    assert made.wait(PATIENCE)
    assert streams[0].wait_committed(0.01) is False
    waiter = threading.Thread(target=lambda: seen.append(streams[0].wait_committed(PATIENCE)))
    waiter.start()
    go.set()
    waiter.join(PATIENCE)
    assert seen == [True]
    assert answer.finish().complete
    assert streams[0].wait_finished(PATIENCE) is True


@pytest.mark.parametrize("how", ["commit", "flush", "write"])
def test_wait_committed_returns_at_the_commit_and_not_only_at_the_end(pushed: Serve, how: str) -> None:
    """R39"""
    streams: list[Any] = []
    made, waited = threading.Event(), threading.Event()

    def program(stream: Any) -> Run:
        streams.append(stream.sync if pushed.shape.awaits else stream)
        made.set()
        yield "x" if how == "write" else getattr(stream, how)
        assert waited.wait(PATIENCE), "the waiter was not told of the commit"

    answer = pushed(program)
    assert made.wait(PATIENCE)
    assert streams[0].wait_committed(PATIENCE) is True
    waited.set()
    assert answer.finish().complete


def test_a_write_after_the_close_raises(pushed: Serve) -> None:
    """R40, D13"""

    def program(stream: Any) -> Run:
        yield "before"
        yield stream.close
        with pytest.raises(StreamClosed) as refused:
            yield "after"
        assert isinstance(refused.value, ValueError)

    answer = pushed(program).finish()
    assert (answer.body, answer.complete, answer.error) == (b"before", True, None)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_refuses_writes_and_sends_no_length(pushed: Serve, status: int) -> None:
    """R42, X8, S20: 205 keeps a Content-Type, which `wsgiref.validate` asks for."""

    def program(stream: Any) -> Run:
        with pytest.raises(BodyNotAllowed) as refused:
            yield "x"
        assert refused.value.status == status
        assert not stream.committed
        yield stream.commit
        with pytest.raises(BodyNotAllowed):
            yield b"y" * 1_000_000

    answer = pushed(program, status=status).finish()
    assert (answer.status, answer.body, answer.complete) == (status, b"", True)
    assert answer.header("Content-Length") is None
    assert status == 205 or answer.header("Content-Type") is None


def test_a_generator_is_asked_for_no_more_than_the_reader_takes(iterable: Serve) -> None:
    """R43, S3"""
    made: list[int] = []

    def program() -> Run:
        for number in range(1_000_000):
            made.append(number)
            yield f"{number};"

    answer = iterable(program, window=0, options={"high_water": 1})
    for number in range(3):
        assert answer.read() == b"%d;" % number
        assert len(made) <= number + 3, "one may be on its way and one be waiting"


def test_importing_after_the_first_write_waits_for_nobody(
    pushed: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R44: Rails' interlock; here, no lock of ours is held while the app's code runs."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imported_late.py").write_text("value = 'imported'")
    monkeypatch.delitem(sys.modules, "imported_late", raising=False)
    looked: list[bool] = []

    def look_from_elsewhere(stream: Any) -> None:
        looker = threading.Thread(
            target=lambda: (stream.headers.get("X"), stream.status, stream.closed, stream.connected)
        )
        looker.start()
        looker.join(PATIENCE)
        looked.append(not looker.is_alive())

    def program(stream: Any) -> Run:
        for register in (stream.on_commit, stream.on_finish):
            register(look_from_elsewhere)
        yield "first "
        yield importlib.import_module("imported_late").value

    assert pushed(program).finish().body == b"first imported"
    assert looked == [True, True]


PARTS = [b"hello", b"\n", b"world", b"\n"]


def test_a_wsgi_app_that_streams_nothing_is_passed_through_untouched() -> None:
    """R45: the very same iterable reaches the server."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("201 Created", [("Content-Type", "text/plain"), ("Content-Length", "12")])
        return PARTS

    with WsgiServer(streamkit.wrap(app)) as server:
        answer = server.request().finish()
    assert answer.returned is PARTS
    assert (answer.status, answer.body) == (201, b"hello\nworld\n")
    assert answer.headers == [("Content-Type", "text/plain"), ("Content-Length", "12")]


def test_an_asgi_app_that_streams_nothing_is_passed_through_untouched() -> None:
    """R45: the very same messages reach the server."""
    start = {"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"12")]}
    messages = [start, *({"type": "http.response.body", "body": part, "more_body": True} for part in PARTS)]
    messages.append({"type": "http.response.body"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with AsgiServer(streamkit.wrap(app)) as server:
        answer = server.request().finish()
    assert all(sent is message for (_, sent), message in zip(answer.messages, messages, strict=True))
