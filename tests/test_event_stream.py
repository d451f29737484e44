"""What an event stream sends: SSE1-SSE9, E1-E4 and R2, from every kind of producer, under both interfaces.

Rule: a program yields events (`ServerSentEvent`, text, any object), and every kind of producer sends the
same; one that takes the stream may yield calls too. What an event looks like in bytes is written out here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer
from shapes import Asked, Program, Run, Serve, Shape, awaited_chunks, begun, push, push_awaiting, serving

import streamkit
from streamkit import AsyncEventStream, EventStream, ServerSentEvent
from streamkit.errors import EventFieldError, OptionsError, ProducerError, StreamError
from streamkit.testing import Client


def function(program: Program) -> Callable[[Any], None]:
    return lambda stream: push(begun(program, stream), SimpleNamespace(write=stream.send))


def async_function(program: Program) -> Callable[[Any], Awaitable[None]]:
    async def producer(stream: Any) -> None:
        await push_awaiting(begun(program, stream), SimpleNamespace(write=stream.send))

    return producer


KINDS: dict[str, Callable[[Program], Any]] = {
    "function": function,
    "async-function": async_function,
    "iterable": lambda program: program(),
    "async-iterable": lambda program: awaited_chunks(program()),
}


def app_of(interface: str, describe: Callable[[], Any], query: str = "") -> Any:
    """An application that answers each request with what `describe` gives."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await describe()({**scope, "query_string": query.encode()}, receive, send)

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        return describe()({**environ, "QUERY_STRING": query.encode().decode("latin-1")}, start_response)

    return wsgi if interface == "wsgi" else asgi


def way(interface: str, kind: str, wrapped: bool = False) -> Shape:
    def build(program: Program, asked: Asked) -> Any:
        described = dict(asked.response)
        query = described.pop("query", "")
        app = app_of(interface, lambda: streamkit.event_stream(KINDS[kind](program), **described), query)
        return streamkit.wrap(app, kind=interface) if wrapped else app

    name = f"{interface}-{'wrapped-' * wrapped}{kind}"
    return Shape(name, build, kind.startswith("async"), described=True, has_stream="function" in kind)


WAYS = [way(interface, kind) for interface in ("wsgi", "asgi") for kind in KINDS]
WAYS += [way("wsgi", "iterable", True), way("asgi", "async-function", True)]
FUNCTIONS = [way for way in WAYS if way.has_stream]


@pytest.fixture(params=WAYS, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def giving(*items: Any) -> Program:
    def program() -> Run:
        for item in items:  # noqa: UP028 -- to `yield from` a tuple nothing can be sent
            yield item

    return program


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        ('{"name":"John"}', b'data: {"name":"John"}\n\n'),  # SSE1
        ({"name": "Ryan"}, b'data: {"name":"Ryan"}\n\n'),
        (None, b"data: null\n\n"),  # SSE9
        ([1, True, None, "ü"], 'data: [1,true,null,"ü"]\n\n'.encode()),
        ("", b"data: \n\n"),
        (0, b"data: 0\n\n"),
        ("first line.\nsecond line.", b"data: first line.\ndata: second line.\n\n"),  # SSE5, E3
        ("a\rb\r\nc\n", b"data: a\ndata: b\ndata: c\ndata: \n\n"),  # SSE8
        (ServerSentEvent("d", "e", 1, 2), b"retry: 2\nevent: e\nid: 1\ndata: d\n\n"),  # SSE7
        (ServerSentEvent("", "", "", 0), b"retry: 0\nevent: \nid: \ndata: \n\n"),
        (ServerSentEvent(id=5), b"id: 5\n\n"),
        (ServerSentEvent(retry=9), b"retry: 9\n\n"),
    ],
)
def test_an_event_is_its_fields_in_their_order(served: Serve, item: Any, sent: bytes) -> None:
    answer = served(giving(item)).finish()
    assert (answer.body, answer.complete, answer.error) == (sent, True, None)


def test_defaults_are_on_every_event_until_one_brings_its_own(served: Serve) -> None:
    """SSE2, SSE3, SSE4"""
    items = ["a", ServerSentEvent("b", retry=1500), ServerSentEvent("c", event="other", id=2)]
    answer = served(giving(*items), event="send", retry=1000, id=1).finish()
    assert answer.body == (
        b"retry: 1000\nevent: send\nid: 1\ndata: a\n\n"
        b"retry: 1500\nevent: send\nid: 1\ndata: b\n\n"
        b"retry: 1000\nevent: other\nid: 2\ndata: c\n\n"
    )


def test_none_switches_a_default_off_for_one_event(functions: Serve) -> None:
    """SSE7"""

    def program(stream: Any) -> Run:
        yield lambda: stream.send("a", event=None, retry=None)
        yield lambda: stream.send("b", id=None)
        yield lambda: stream.event(None).send("c")

    answer = functions(program, event="e", retry=1, id="i").finish()
    assert answer.body == (b"id: i\ndata: a\n\nretry: 1\nevent: e\ndata: b\n\nretry: 1\nid: i\ndata: c\n\n")


def test_fields_that_are_set_before_are_kept_for_the_next_data(functions: Serve) -> None:
    """E1, E2"""
    chained: list[bool] = []

    def program(stream: Any) -> Run:
        chained.append(stream.event("tick").id(7).retry(1000) is stream)
        yield lambda: stream.comment("not yet")
        yield lambda: stream.send(id=6)  # no data: what was set waits on
        yield lambda: stream.send("a", id=8)
        yield lambda: stream.send("b")

    answer = functions(program, event="other").finish()
    assert chained == [True]
    assert answer.body == (
        b": not yet\n\nevent: other\nid: 6\n\n"
        b"retry: 1000\nevent: tick\nid: 8\ndata: a\n\nevent: other\ndata: b\n\n"
    )


def test_an_event_may_be_sent_as_one_value_and_its_size_is_told(functions: Serve) -> None:
    sizes: list[Any] = []

    def program(stream: Any) -> Run:
        sizes.append((yield lambda: stream.send(ServerSentEvent("ü", "e", 1))))
        sizes.append((yield lambda: stream.send(ServerSentEvent("b", "e", 2), event=None, id=3)))

    chunks = ["retry: 5\nevent: e\nid: 1\ndata: ü\n\n".encode(), b"retry: 5\nid: 3\ndata: b\n\n"]
    assert functions(program, retry=5).finish().body == b"".join(chunks)
    assert sizes == [len(chunk) for chunk in chunks]


@pytest.mark.parametrize("functions", [way for way in FUNCTIONS if not way.awaits], ids=str, indirect=True)
def test_shifting_takes_any_object_and_returns_the_stream(functions: Serve) -> None:
    """E4"""
    results: list[Any] = []
    noon = datetime(2024, 1, 2, 12)

    def program(stream: Any) -> Run:
        results.append((stream << noon << None << {"n": 1} << "two\nlines") is stream)
        with pytest.raises(EventFieldError):
            stream << b"\xff"
        stream.event("e").id(4) << 5 << b"bytes" << ServerSentEvent("whole", id=6)
        yield from ()

    answer = functions(program).finish()
    assert results == [True]
    assert answer.body == (
        b'data: 2024-01-02 12:00:00\n\ndata: {"n":1}\n\ndata: two\ndata: lines\n\n'
        b"event: e\nid: 4\ndata: 5\n\ndata: bytes\n\nid: 6\ndata: whole\n\n"
    )


def test_what_is_written_is_sent_as_it_is(functions: Serve) -> None:
    """R2: only what is sent as an event is encoded."""

    def program(stream: Any) -> Run:
        yield lambda: stream.write("hello")
        yield lambda: stream.write(b"world")

    answer = functions(program).finish()
    assert (answer.body, answer.header("Content-Type")) == (b"helloworld", "text/event-stream")


def test_each_event_is_one_write_of_the_server(served: Serve) -> None:
    """SSE6"""
    read = threading.Semaphore(0)
    items = ["plain", "two\nlines", ServerSentEvent({"all": 1}, "of", "its", 4), ServerSentEvent(id="alone")]

    def program() -> Run:
        for item in items:
            yield item
            assert read.acquire(timeout=PATIENCE)

    answer = served(program, retry=1, event="e")
    for _ in items:
        answer.read()
        read.release()
    assert answer.finish().chunks == [
        b"retry: 1\nevent: e\ndata: plain\n\n",
        b"retry: 1\nevent: e\ndata: two\ndata: lines\n\n",
        b'retry: 4\nevent: of\nid: its\ndata: {"all":1}\n\n',
        b"retry: 1\nevent: e\nid: alone\n\n",
    ]


# ---------------------------------------------------------------- bad input

BAD_FIELDS: list[dict[str, Any]] = [
    {"event": "a\nb"}, {"event": "a\rb"}, {"event": 5}, {"id": "a\nb"}, {"id": "a\r"}, {"id": "a\0"},
    {"id": 1.5}, {"id": True}, {"retry": -1}, {"retry": "5"}, {"retry": 1.5}, {"retry": True},
    {"data": object}, {"data": b"bytes"}, {"data": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_FIELDS, ids=repr)
def test_a_bad_field_is_an_error_before_anything_is_sent(served: Serve, bad: dict[str, Any]) -> None:
    """SSE8, SSE9: a real 500, for the head has not left."""
    answer = served(giving(ServerSentEvent(**{"data": "d", **bad}))).finish()
    assert (answer.committed, answer.body) == (False, b"")
    assert isinstance(answer.error, ValueError)
    assert isinstance(answer.error, EventFieldError)
    assert answer.error.field == next(iter(bad))


def test_a_bad_field_leaves_nothing_half_written_and_the_stream_usable(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        for bad in BAD_FIELDS:
            with pytest.raises(EventFieldError, match="wanted"):
                yield partial(stream.send, **{"data": "d", "event": "e", **bad})
            assert not stream.committed
        for name, value in (("event", "a\nb"), ("id", "a\0"), ("retry", -1)):
            with pytest.raises(EventFieldError):
                getattr(stream, name)(value)
        with pytest.raises(EventFieldError):
            yield lambda: stream.comment(5)
        with pytest.raises(EventFieldError, match="something"):
            yield lambda: stream.send()
        stream.id(3)
        with pytest.raises(EventFieldError):
            yield lambda: stream.send(object())
        yield lambda: stream.send("good")  # what was set before the refused data is still kept

    assert functions(program).finish().body == b"id: 3\ndata: good\n\n"


@pytest.mark.parametrize(
    ("described", "error", "told"),
    [
        ({"event": "a\nb"}, EventFieldError, "without CR and LF"),
        ({"id": "\0"}, EventFieldError, "NUL"),
        ({"retry": "5"}, EventFieldError, "whole milliseconds .* got str: '5'"),
        ({"heartbeat": 0}, OptionsError, "heartbeat: wanted a positive number"),
        ({"json": "orjson"}, OptionsError, "json: wanted a function .* 'orjson'"),
        ({"last_event_id_param": True}, OptionsError, "last_event_id_param: wanted the name .* True"),
        ({"replay": [1]}, ProducerError, r"since\(last_event_id\), got \[1\]"),
        ({"producer": ServerSentEvent("a")}, ProducerError, "put .* into a list"),
    ],
)
def test_a_bad_description_says_what_was_wanted_and_what_came(
    described: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        streamkit.event_stream(**{"producer": ["a"], **described})


def test_an_encoder_of_the_application_s_own_is_used_for_all_but_text(served: Serve) -> None:
    answer = served(giving("text", {"n": 1}), json=lambda value: f"<{sorted(value)}>\n".encode()).finish()
    assert answer.body == b"data: text\n\ndata: <['n']>\ndata: \n\n"


# ---------------------------------------------------------------- the request and the head


def test_the_head_names_the_media_type_alone_and_keeps_buffers_and_caches_off(served: Serve) -> None:
    """E6; "always encoded as UTF-8", so there is no charset to name."""
    answer = served(giving("a"), headers={"X-Own": "1"}).finish()
    assert (answer.status, answer.header("Content-Type")) == (200, "text/event-stream")
    assert (answer.header("X-Accel-Buffering"), answer.header("X-Own")) == ("no", "1")
    assert answer.header("Cache-Control") == "no-store, no-transform"
    assert answer.header("Content-Length") is None


@pytest.mark.parametrize(
    ("sent", "query", "last"),
    [
        ([], "", None),
        ([("Last-Event-ID", "7")], "", "7"),
        ([("Last-Event-ID", "")], "", None),
        ([("Last-Event-ID", "ü".encode().decode("latin-1"))], "", "ü"),  # as browsers send it
        ([("Last-Event-ID", "\xfc")], "", "ü"),  # what is no UTF-8 is Latin-1
        ([], "after=8", "8"),
        ([], "x=1&after=a%20%C3%BC+b&after=9", "a ü b"),
        ([], "after=ü", "ü"),
        ([], "after=", None),
        ([], "other=8", None),
        ([("Last-Event-ID", "7")], "after=8", "7"),  # the address is as old as the page
    ],
)
def test_the_last_event_id_comes_from_the_header_or_a_query_parameter(
    functions: Serve, sent: list[tuple[str, str]], query: str, last: str | None
) -> None:
    def program(stream: Any) -> Run:
        yield lambda: stream.send({"last": stream.last_event_id})

    answer = functions(program, sent=sent, query=query, last_event_id_param="after").finish()
    assert answer.body == streamkit.sse.encode({"last": last})
    if not sent:
        assert functions(program, query=query).finish().body == b'data: {"last":null}\n\n'


def test_producers_hold_a_response_stream_with_more_to_it(functions: Serve) -> None:
    held: list[Any] = []

    def program(stream: Any) -> Run:
        held.append(stream)
        yield "a"

    assert functions(program).finish().body == b"data: a\n\n"
    face: Any = AsyncEventStream if functions.shape.awaits else EventStream
    below: Any = streamkit.AsyncResponseStream if functions.shape.awaits else streamkit.ResponseStream
    assert issubclass(face, below)
    assert isinstance(held[0], face)
    assert held[0].response.media_type == "text/event-stream"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_the_twin_of_an_asynchronous_event_stream_sends_events_too(interface: Any) -> None:
    def work(stream: Any) -> None:
        stream.sync.event("e").id(1)
        stream.sync.send("from a thread", retry=2)
        stream.sync << "and" << 5
        stream.sync.comment("so")
        stream.sync.done()

    async def producer(stream: Any) -> None:
        assert isinstance(stream.sync, EventStream)
        with pytest.raises(StreamError, match="worker threads"):
            stream.sync.send("on the loop")
        await asyncio.to_thread(work, stream)

    app = app_of(interface, lambda: streamkit.event_stream(producer))
    with Client(app, kind=interface) as client:
        assert client.get("/").read() == (
            b"retry: 2\nevent: e\nid: 1\ndata: from a thread\n\n"
            b"data: and\n\ndata: 5\n\n: so\n\nid: streamkit.done\n\n"
        )


def test_http_1_0_gets_the_stream_delimited_by_the_close(served: Serve) -> None:
    read = threading.Event()

    def program() -> Run:
        yield "a"
        assert read.wait(PATIENCE)
        yield "b"

    answer = served(program, version="1.0")
    assert answer.read() == b"data: a\n\n"  # it is not held back until the end
    read.set()
    assert (answer.finish().body, answer.header("Content-Length")) == (b"data: a\n\ndata: b\n\n", None)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_one_description_serves_many_requests_at_once(interface: str, wrapped: bool) -> None:
    every = threading.Barrier(6)

    def producer(stream: EventStream) -> None:
        stream.event(f"of {stream.last_event_id}")
        every.wait(PATIENCE)
        stream.send(stream.last_event_id)

    description = streamkit.event_stream(producer)
    app = streamkit.wrap(description, kind=interface) if wrapped else description  # type: ignore[arg-type]
    with WsgiServer(app) if interface == "wsgi" else AsgiServer(app) as server:
        for _ in range(3):
            answers = {n: server.request(sent=[("Last-Event-ID", str(n))]) for n in range(1, 6)}
            every.wait(PATIENCE)
            for number, answer in answers.items():
                assert answer.finish().body == b"event: of %d\ndata: %d\n\n" % (number, number)
