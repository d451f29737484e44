"""How event streams are served and how they end: E5-E10, R23, R24, X11 and X14, and what browsers are told.

Rule: every end is looked at from three sides: what the client got, whom it was told (callback, hooks),
and whether what was iterated is closed.
"""

from __future__ import annotations

import gc
import json
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from flask import Flask
from shapes import Run, Serve, serving
from starlette.applications import Starlette
from starlette.routing import Route
from test_event_stream import FUNCTIONS, KINDS, WAYS, app_of, giving
from werkzeug.exceptions import BadRequest

import streamkit
from streamkit import ServerSentEvent
from streamkit.errors import StreamClosed
from streamkit.sse import Decoder, History
from streamkit.testing import Client

LOUD = ("WARNING", "ERROR", "CRITICAL")
ERROR = b'event: error\ndata: {"error": "the stream failed before its end"}\n\n'
DONE, AFTER_1 = [("Last-Event-ID", "streamkit.done")], [("Last-Event-ID", "1")]


def end(outcome: str) -> bytes:
    return b'event: streamkit.end\ndata: {"outcome":"%b"}\n\n' % outcome.encode()


@pytest.fixture(params=WAYS, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


class Ends:
    """Whom an end concerns, and what they heard."""

    def __init__(self, **options: Any) -> None:
        self.outcomes: list[object] = []
        self.calls: list[str] = []
        self.errors: list[BaseException] = []
        self.described: dict[str, Any] = {
            "callback": lambda: self.calls.append("callback"),
            "options": {"on_finish": lambda stream: self.outcomes.append(stream.outcome),
                        "on_error": lambda stream, error: self.errors.append(error), **options},
        }  # fmt: skip

    def come(self, outcome: str) -> bool:
        return until(lambda: (self.outcomes, self.calls) == ([outcome], ["callback"]))


def giving_until(end: threading.Event | Exception, *items: Any) -> Any:
    def program() -> Run:
        for item in items:  # noqa: UP028 -- to `yield from` a tuple nothing can be sent
            yield item
        if isinstance(end, Exception):
            raise end
        assert end.wait(PATIENCE)

    return program


def ticking() -> Run:
    pause = threading.Event()
    for number in range(100_000):
        yield ServerSentEvent(number)
        pause.wait(0.005)


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname in LOUD]


def test_the_head_leaves_with_a_comment_when_the_first_event_is_late(served: Serve) -> None:
    told = threading.Event()

    def program() -> Run:
        assert told.wait(PATIENCE)
        yield "a"

    answer = served(program, options={"commit_after": 0.05})
    assert (answer.status, answer.read()) == (200, b":\n")
    told.set()
    assert answer.read() == b"data: a\n\n"


def test_silence_is_filled_with_comments_unless_that_is_switched_off(served: Serve) -> None:
    told = threading.Event()
    silent = served(giving_until(told, "b"), heartbeat=None, options={"heartbeat": 0.05})
    answer = served(giving_until(told, "a"), heartbeat=0.1)
    assert [answer.read() for _ in range(4)] == [b"data: a\n\n", b":\n", b":\n", b":\n"]
    told.set()
    assert silent.finish().body == b"data: b\n\n"
    assert Decoder().feed(answer.finish().body) == [ServerSentEvent("a")]


def test_an_idle_client_s_leave_is_noticed_without_a_write(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """X11: at once under ASGI, by the next heartbeat under WSGI."""
    ends, told = Ends(), threading.Event()
    heartbeat = 0.1 if served.shape.interface == "wsgi" else None
    answer = served(giving_until(told, "a"), heartbeat=heartbeat, **ends.described)
    assert answer.read() == b"data: a\n\n"
    answer.leave()
    assert ends.come("disconnected")
    told.set()
    answer.through()
    assert loud(caplog) == []


def test_done_ends_the_stream_for_good(functions: Serve) -> None:
    ends = Ends()

    def program(stream: Any) -> Run:
        yield "a"
        yield lambda: stream.done()
        yield lambda: stream.done()  # once is enough
        with pytest.raises(StreamClosed):
            yield "b"

    answer = functions(program, **ends.described).finish()
    assert (answer.body, answer.complete) == (b"data: a\n\nid: streamkit.done\n\n", True)
    assert functions(program, end_event=True).finish().body == answer.body + end("finished")
    assert ends.come("finished")
    decoder = Decoder()
    assert decoder.feed(answer.body) == [ServerSentEvent("a")]  # the page is shown nothing of it
    assert decoder.last_event_id == DONE[0][1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("asked", [{"sent": DONE}, {"query": "after=streamkit.done"}])
def test_whoever_comes_back_after_done_is_sent_away(served: Serve, asked: Any, method: str) -> None:
    ends, ran = Ends(), []

    def program() -> Run:
        ran.append(1)
        yield "a"

    headers = {"Access-Control-Allow-Origin": "*"}  # without it, a browser would come again and again
    answer = served(
        program, method=method, **asked, headers=headers, last_event_id_param="after", **ends.described
    ).finish()
    assert (answer.status, answer.body, answer.error, answer.complete) == (204, b"", None, True)
    assert (answer.header("Content-Type"), answer.header("Content-Length")) == (None, None)
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert answer.header("Cache-Control") == "no-store"  # caches may keep a 204, for other clients too
    assert ends.come("finished")
    assert ran == []


def test_an_error_after_the_commit_is_an_event_and_a_clean_end(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """E8: the stream is closed, and the callback runs."""
    ends, boom = Ends(), RuntimeError("secret")
    answer = served(giving_until(boom, "a"), **ends.described).finish()
    assert (answer.body, answer.complete, answer.error) == (b"data: a\n\n" + ERROR, True, None)
    assert ends.come("failed")
    assert ends.errors == [boom]
    assert until(lambda: [record.exc_info[1] for record in caplog.records if record.exc_info] == [boom])
    error = Decoder().feed(answer.body)[-1]
    assert (error.event, set(json.loads(error.data))) == ("error", {"error"})


@pytest.mark.parametrize("error", [RuntimeError("boom"), BadRequest("no")], ids=repr)
def test_an_error_before_the_first_event_is_raised_to_whoever_sees_it(served: Serve, error: Any) -> None:
    """R24"""
    ends = Ends()
    answer = served(giving_until(error), **ends.described).finish()
    assert (answer.committed, answer.error) == (False, error)
    assert ends.come("failed")


def test_a_hook_s_own_error_event_is_all_that_is_sent(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """R23"""

    def hook(stream: Any, error: Any) -> Run:
        yield lambda: stream.send({"sorry": str(error)}, event="problem")
        yield lambda: stream.close()

    boom = RuntimeError("boom")
    answer = served(giving_until(boom, "a"), on_error=served.hook(hook)).finish()
    assert answer.body == b'data: a\n\nevent: problem\ndata: {"sorry":"boom"}\n\n'
    assert (answer.complete, answer.error) == (True, None)
    assert until(lambda: [record.exc_info[1] for record in caplog.records if record.exc_info] == [boom])


def test_the_last_event_tells_the_outcome_where_that_is_wanted(served: Serve) -> None:
    assert served(giving("a"), end_event=True).finish().body == b"data: a\n\n" + end("finished")
    failed = served(giving_until(RuntimeError("boom"), "a"), end_event=True).finish()
    assert (failed.body, failed.complete) == (b"data: a\n\n" + ERROR + end("failed"), True)


def test_a_stream_that_runs_out_of_time_says_so_in_its_last_event(served: Serve) -> None:
    ends = Ends(max_duration=0.2)
    answer = served(ticking, end_event=True, **ends.described).finish()
    assert (answer.body[-len(end("timed_out")) :], answer.complete) == (end("timed_out"), True)
    assert ends.come("timed_out")


@pytest.mark.parametrize("end_event", [False, True])
def test_a_shutdown_says_farewell_with_a_time_to_come_back(
    served: Serve, end_event: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """X14"""
    ends = Ends()
    answer = served(ticking, end_event=end_event, **ends.described)
    assert answer.read().startswith(b"data: 0\n\n")
    assert streamkit.shutdown(grace=PATIENCE)
    told = end("shut_down").decode() if end_event else ""
    found = re.fullmatch(
        r"(data: \d+\n\n)+" + re.escape(told) + r"retry: (\d+)\n\n", answer.finish().body.decode()
    )
    assert found, answer.body[-200:]
    assert 1600 <= int(found[2]) <= 2400
    assert (answer.complete, answer.error, loud(caplog)) == (True, None, [])
    assert ends.come("shut_down")


def test_a_stream_that_is_repeated_or_kept_open_has_no_end_with_its_producer(functions: Serve) -> None:
    held: list[Any] = []

    def program(stream: Any) -> Run:
        held.append(stream)
        yield len(held)
        if len(held) == 3:
            yield lambda: stream.close()

    repeated = functions(program, loop=True, end_event=True).finish()
    assert repeated.body == b"data: 1\n\ndata: 2\n\ndata: 3\n\n" + end("finished")
    kept = functions(giving("a"), keep_open=True, end_event=True)
    assert kept.read() == b"data: a\n\n"
    assert streamkit.shutdown(grace=PATIENCE)
    assert kept.rest().startswith(end("shut_down") + b"retry: ")


def test_a_stream_is_kept_open_only_where_that_is_asked_for(functions: Serve) -> None:
    """E5, E7"""
    held: list[Any] = []

    def program(stream: Any) -> Run:
        held.append(stream.sync if functions.shape.awaits else stream)
        yield "a"

    assert functions(program).finish().complete
    answer = functions(program, keep_open=True)
    assert answer.read() == b"data: a\n\n"
    stream = held[-1]
    assert stream.event("e").send("from elsewhere") == 31
    assert answer.read() == b"event: e\ndata: from elsewhere\n\n"
    stream.close()
    stream.close()
    with pytest.raises(StreamClosed):
        stream.send("too late")
    answer.finish()
    assert (answer.complete, len(answer.chunks), stream.wait_finished(PATIENCE)) == (True, 2, True)


def test_a_head_request_gets_the_head_alone(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """E10"""
    ends, ran = Ends(), []

    def program() -> Run:
        ran.append(1)
        yield "a"

    answer = served(program, method="HEAD", **ends.described).finish()
    assert (answer.status, answer.header("Content-Type"), answer.body) == (200, "text/event-stream", b"")
    assert ends.come("finished")
    assert (ran, loud(caplog)) == ([], [])


class Source:
    """An iterator that counts how often it is closed."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.closed = iter(items), 0

    def __iter__(self) -> Iterator[Any]:
        return self.items

    def close(self) -> None:
        self.closed += 1


class AsyncSource:
    def __init__(self, items: list[Any]) -> None:
        self.items, self.closed = items, 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.items:
            yield item

    async def aclose(self) -> None:
        self.closed += 1


ENDLESS = ["a"] * 100_000
PATHS: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "finished": (["a"], {}, {}),
    "a bad item": (["a", b"bytes"], {}, {}),
    "left": (ENDLESS, {}, {}),
    "unread": (ENDLESS, {}, {}),
    "a head": (["a"], {"method": "HEAD"}, {}),
    "a 204": (["a"], {"headers": dict(DONE)}, {}),
    "a 505": (["a"], {"http_version": "1.0"}, {"options": {"http10": "reject"}}),
    "since() fails": (
        ["a"],
        {"headers": {"Last-Event-ID": "1"}},
        {"replay": SimpleNamespace(since=lambda last: 1 / 0)},
    ),
}


@pytest.mark.parametrize("source", [Source, AsyncSource])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("path", PATHS)
def test_what_was_iterated_is_closed_once_however_it_ends(path: str, interface: Any, source: Any) -> None:
    items, asked, described = PATHS[path]
    given = source(items)
    app = app_of(interface, lambda: streamkit.event_stream(given, **described))
    with (
        Client(app, kind=interface) as client,
        client.open(**{"method": "GET", "path": "/", **asked}) as answer,
    ):
        if path == "left":
            assert answer.next_chunk()
        elif path != "unread":
            with suppress(ZeroDivisionError):
                answer.read()
        answer.disconnect()
    assert until(lambda: given.closed == 1), given.closed


@pytest.mark.parametrize("left", [False, True])
def test_nothing_of_a_stream_waits_for_the_collector_when_it_is_over(served: Serve, left: bool) -> None:
    held, told = list[Any](), threading.Event()
    options: dict[str, Any] = {
        "heartbeat": 0.05,
        "on_finish": lambda stream: held.append(weakref.ref(stream)),
    }
    gc.collect()
    gc.disable()
    try:
        answer = served(giving_until(told, "a"), options=options, replay=History(), sent=AFTER_1)
        assert answer.read()
        if left:
            answer.leave()
            assert until(lambda: held)
        told.set()
        _ = answer.through() if left else answer.finish()
        answer.returned = None  # type: ignore[attr-defined]
        assert until(lambda: held and held[0]() is None, within=2), gc.get_referrers(held[0]())
    finally:
        gc.enable()


@pytest.mark.parametrize("wrap", [lambda app: app, streamkit.wrap], ids=["bare", "wrapped"])
def test_a_flask_view_and_a_starlette_endpoint_return_it_as_it_is(wrap: Callable[[Any], Any]) -> None:
    async def endpoint(request: Any) -> Any:
        return streamkit.event_stream(KINDS["async-function"](giving("a")), event="e")

    flask = Flask(__name__)
    flask.get("/")(lambda: streamkit.event_stream(KINDS["iterable"](giving("a")), event="e"))
    # Flask gives every answer of its own a Content-Type, also a 204: the validator minds.
    servers = (WsgiServer(wrap(flask), validated=False),
               AsgiServer(wrap(Starlette(routes=[Route("/", endpoint)]))))  # fmt: skip
    for server in servers:
        with server:
            answer, gone = server.request().finish(), server.request(sent=DONE).finish()
            assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")
            assert (answer.body, answer.complete) == (b"event: e\ndata: a\n\n", True)
            assert (gone.status, gone.body) == (204, b"")


def test_a_response_without_a_body_has_no_last_event(functions: Serve) -> None:
    def program() -> Run:
        yield from ()

    answer = functions(program, status=204, end_event=True).finish()
    assert (answer.status, answer.body, answer.complete) == (204, b"", True)
