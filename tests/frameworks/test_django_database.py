"""Django's database connections and signals: when a stream has ended, and not before.

Rule: the backend counts its connections by thread (`django_site.database`); each test begins and ends
with none open.
"""

from __future__ import annotations

import threading
import unittest
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from driving import PATIENCE, until

import streamkit

pytest.importorskip("django")
from asgiref.sync import sync_to_async
from django.core.signals import request_finished
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import AsyncClient, TestCase
from django.test import Client as DjangoClient

from streamkit.frameworks.django import live, respond

from .django_site import Row, connected, database, fill
from .django_ways import INTERFACES, Site
from .programs import PRODUCERS, Call, Wait, producer_of, view_of

SHAPES = [*PRODUCERS, "live"]
WAYS = [(i, v, p) for i in INTERFACES for v in ("sync", "async") for p in SHAPES]


@pytest.fixture(autouse=True, scope="module")
def rows() -> None:
    fill(3)


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    connections.close_all()
    database.faults.clear()
    assert database.open == {}
    yield
    connections.close_all()
    assert until(lambda: not database.open), f"still open: {database.open}"
    assert database.faults == []


class Way:
    def __init__(self, site: Site, kind: str, shape: str) -> None:
        self.site, self.interface, self.kind, self.shape = site, site.interface, kind, shape

    def view(self, program: Any, **described: Any) -> Any:
        """A view whose producer is this program, which takes the stream, or is live itself."""
        if self.shape == "live":
            return live(view_of(self.kind, lambda request, stream: program(stream)))

        def describe() -> Any:
            return streamkit.stream(producer_of(self.shape, program), **described)

        def view(request: Any) -> Any:
            return respond(request, describe())

        async def view_async(request: Any) -> Any:
            return respond(request, describe())

        return view if self.kind == "sync" else view_async


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    interface, kind, shape = request.param
    with Site(interface) as site:
        yield Way(site, kind, shape)


@contextmanager
def closing_order(finish: Any) -> Iterator[None]:
    """Call `finish` at the end of each request, after Django's own receivers."""
    request_finished.connect(finish)
    try:
        yield
    finally:
        request_finished.disconnect(finish)


class Requests:
    """What Django's signals said."""

    def __init__(self) -> None:
        self.finished = 0

    def __enter__(self) -> Requests:
        request_finished.connect(self._finish)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        request_finished.disconnect(self._finish)

    def _finish(self, **details: Any) -> None:
        self.finished += 1


@pytest.fixture
def requests() -> Iterator[Requests]:
    with Requests() as requests:
        yield requests


# ---------------------------------------------------------------- at the end, and not before


def test_a_connection_is_open_until_the_stream_has_ended_and_closed_then(
    way: Way, requests: Requests
) -> None:
    first, second = threading.Event(), threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        count = yield Call(connected)
        yield f"{count} rows"
        yield Wait(first)
        count = yield Call(connected)
        yield f" and {count}"
        yield Wait(second)

    answer = way.site.client(way.view(program)).get("/")
    assert answer.next_chunk() == b"3 rows"
    opened = database.opened
    assert (len(database.open), requests.finished) == (1, 0)
    first.set()
    assert answer.next_chunk() == b" and 3"
    assert (len(database.open), requests.finished) == (1, 0)
    assert database.opened == opened, "it was closed and opened again while the stream was open"
    second.set()
    assert answer.next_chunk() is None
    answer.wait_closed()
    assert (len(database.open), requests.finished) == (0, 1)


def test_a_connection_of_the_view_and_that_of_the_producer_are_both_closed(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        count = yield Call(connected)
        yield f"{count}"

    inner = way.view(program)

    def view(request: Any) -> Any:
        connected()
        return inner(request)

    async def view_async(request: Any) -> Any:
        await Row.objects.acount()
        return await inner(request)

    answer = way.site.client(view if way.kind == "sync" else view_async).get("/")
    assert answer.read() == b"3"
    answer.wait_closed()
    assert database.open == {}


def test_a_query_can_be_streamed_row_by_row(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        rows = Row.objects.order_by("number").iterator(chunk_size=1)
        while row := (yield Call(lambda: next(rows, None))):
            yield row.name + "\n"

    answer = way.site.client(way.view(program)).get("/")
    assert answer.read() == b"name 0\nname 1\nname 2\n"


def test_an_error_closes_the_connection_and_finishes_the_request_once(way: Way, requests: Requests) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield Call(connected)
        if stream is not None:
            stream.headers["Content-Type"] = "text/csv"
        yield "a"
        raise ZeroDivisionError

    answer = way.site.client(way.view(program, content_type="text/csv")).get("/")
    assert answer.next_chunk() == b"a"
    with pytest.raises(ZeroDivisionError):
        answer.next_chunk()
    answer.wait_closed()
    assert until(lambda: not database.open)
    assert requests.finished == 1


def test_a_leave_closes_the_connection_and_finishes_the_request_once(way: Way, requests: Requests) -> None:
    def program(stream: Any) -> Iterator[Any]:
        while True:
            yield Call(connected)
            yield "x" * 1000

    answer = way.site.client(way.view(program)).get("/")
    assert answer.next_chunk()
    answer.disconnect()
    answer.wait_closed()
    assert until(lambda: not database.open)
    assert requests.finished == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("shape", ["async-function", "async-iterable"])
@pytest.mark.parametrize("django", ["waits", "sends"])
def test_an_asynchronous_producer_ends_before_its_request_does(kind: str, shape: str, django: str) -> None:
    """Also after a leave, whether Django waits for a chunk or sends one: its clean-up has a database."""
    order: list[str] = []
    waits = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        try:
            for _ in range(3):
                yield "x" * 1000
            waits.set()
            yield Wait(threading.Event())
        finally:
            order.append("producer")

    def finish(**details: Any) -> None:
        order.append("request")

    request_finished.connect(finish)
    try:
        with Site("asgi") as site:
            client = site.client(Way(site, kind, shape).view(program))
            answer = client.get("/", read_ahead=10 if django == "waits" else 0)
            assert answer.next_chunk()
            assert django == "sends" or waits.wait(PATIENCE)
            answer.disconnect()
            answer.wait_closed()
    finally:
        request_finished.disconnect(finish)
    assert order == ["producer", "request"]


def test_an_error_before_the_first_chunk_closes_the_connection(way: Way, requests: Requests) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield Call(connected)
        raise ZeroDivisionError
        yield "a"

    answer = way.site.client(way.view(program)).get("/")
    assert answer.status == 500
    answer.read()
    answer.wait_closed()
    assert until(lambda: not database.open)
    assert requests.finished == 1


def test_hooks_may_use_the_database(way: Way) -> None:
    """They run when the producer has ended, by whoever reads its stream, or on a thread of their own."""
    counts: list[int] = []

    def sync_hook(*details: Any) -> None:
        counts.append(connected())

    async def async_hook(*details: Any) -> None:
        counts.append(await sync_to_async(connected)())

    is_async = way.shape.startswith("async") or (way.shape == "live" and way.kind == "async")
    hook = async_hook if is_async else sync_hook

    def program(stream: Any) -> Iterator[Any]:
        if stream is not None and way.shape == "live":
            stream.headers["Content-Type"] = "text/event-stream"
        yield "a"
        raise ZeroDivisionError

    view = way.view(program, callback=hook, on_error=hook, content_type="text/event-stream")
    options = {"on_error": hook, "on_finish": hook}
    answer = way.site.client(view, STREAMKIT=options).get("/")
    assert answer.read().startswith(b"a")
    answer.wait_closed()
    assert until(lambda: len(counts) == (2 if way.shape == "live" else 4))
    assert until(lambda: not database.open)


def test_hooks_that_a_producer_adds_may_use_the_database(way: Way) -> None:
    """As hooks that are described; what they open is closed by when the request is finished."""
    counts: list[int] = []
    open_at_the_end: list[int] = []
    is_async = way.shape.startswith("async") or (way.shape == "live" and way.kind == "async")

    def sync_hook(*details: Any) -> None:
        counts.append(connected())

    async def async_hook(*details: Any) -> None:
        counts.append(await sync_to_async(connected)())

    def program(stream: Any) -> Iterator[Any]:
        if stream is not None:
            hook = async_hook if is_async else sync_hook
            for moment in (stream.on_commit, stream.on_error, stream.on_finish):
                moment(hook)
            if way.shape == "live":
                stream.headers["Content-Type"] = "text/event-stream"
        yield "a"
        raise ZeroDivisionError

    def finish(**details: Any) -> None:
        open_at_the_end.append(len(database.open))

    view = way.view(program, content_type="text/event-stream")
    with closing_order(finish):
        answer = way.site.client(view).get("/")
        assert answer.read().startswith(b"a")
        answer.wait_closed()
        assert until(lambda: len(open_at_the_end) == 1)
    if "iterable" not in way.shape:
        assert counts == [3, 3, 3]
        # Django's own closes a server thread's connection with this signal.
        assert way.interface == "wsgi" or open_at_the_end == [0]
    assert until(lambda: not database.open)


@pytest.mark.parametrize("shape", ["push", "async push"])
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_hook_of_the_commit_of_a_producer_that_writes_nothing_leaves_no_connection(
    interface: str, shape: str
) -> None:
    counts: list[int] = []

    def push(stream: Any) -> None:
        stream.on_commit(lambda stream: counts.append(connected()))

    async def push_async(stream: Any) -> None:
        async def hook(stream: Any) -> None:
            counts.append(await sync_to_async(connected)())

        stream.on_commit(hook)

    producer = push_async if "async" in shape else push

    def view(request: Any) -> Any:
        return respond(request, streamkit.stream(producer))

    with Site(interface) as site:
        answer = site.client(view).get("/")
        assert answer.read() == b""
        answer.wait_closed()
        assert counts == [3]
        assert until(lambda: not database.open)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_hook_of_a_commit_that_does_not_wait_for_its_producer_leaves_no_connection(interface: str) -> None:
    counts: list[int] = []
    go = threading.Event()

    def push(stream: Any) -> None:
        stream.on_commit(lambda stream: counts.append(connected()))
        assert go.wait(PATIENCE)

    def view(request: Any) -> Any:
        return respond(request, streamkit.stream(push, options={"commit_after": 0.05}))

    def finish(**details: Any) -> None:
        open_at_the_end.append(len(database.open))

    open_at_the_end: list[int] = []
    with closing_order(finish), Site(interface) as site:
        answer = site.client(view).get("/")
        assert until(lambda: counts == [3])
        go.set()
        assert answer.read() == b""
        answer.wait_closed()
        assert until(lambda: len(open_at_the_end) == 1)
        assert interface == "wsgi" or open_at_the_end == [0]
        assert until(lambda: not database.open)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_repeated_producer_still_ends_at_an_error_that_nobody_minds(interface: str) -> None:
    calls: list[int] = []

    def produce(stream: Any) -> None:
        calls.append(stream.write("a"))
        raise ZeroDivisionError

    def view(request: Any) -> Any:
        return respond(request, streamkit.stream(produce, loop=True, content_type="text/csv"))

    with Site(interface) as site:
        answer = site.client(view).get("/")
        assert answer.next_chunk() == b"a"
        with pytest.raises(ZeroDivisionError):
            answer.next_chunk()
        answer.wait_closed()
    assert calls == [1]


def test_event_streams_and_open_streams_close_their_connections_too(way: Way) -> None:
    """Their iterables run on a pooled thread, also under WSGI."""

    def program(stream: Any) -> Iterator[Any]:
        count = yield Call(connected)
        yield f"data: {count}\n\n"

    view = way.view(program, content_type="text/event-stream")
    answer = way.site.client(view).get("/")
    assert answer.read() == b"data: 3\n\n"
    answer.wait_closed()
    assert database.open == {}


def test_fifty_aborted_streams_leave_no_connection(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield Call(connected)
        for _ in range(1000):
            yield "x" * 1000

    client = way.site.client(way.view(program))
    answers = [client.get("/") for _ in range(50)]
    for answer in answers:
        assert answer.next_chunk()
    assert database.open
    for answer in answers:
        answer.disconnect()
    for answer in answers:
        answer.wait_closed()
    assert until(lambda: not database.open), f"{len(database.open)} connections are left"


def test_a_view_in_a_transaction_and_its_producer_have_connections_of_their_own() -> None:
    """`ATOMIC_REQUESTS` is the view's; the producer of a function writes by itself."""
    inside: list[bool] = []

    def produce(stream: Any) -> None:
        inside.append(connection.in_atomic_block)
        stream.write("a")

    def view(request: Any) -> Any:
        with transaction.atomic():
            inside.append(connection.in_atomic_block)
            return respond(request, streamkit.stream(produce))

    with Site("wsgi") as site:
        assert site.client(view).get("/").read() == b"a"
    assert inside == [True, False]


def test_with_all_of_django_on_pooled_threads_no_connection_is_left_there() -> None:
    """`engine="thread"` of `streamkit.wrap`: the server's thread, where Django closes, has opened none."""

    def view(request: Any) -> Any:
        rows = (f"{count} " for count in [connected(), connected()])
        return respond(request, streamkit.stream(rows)) if request.GET else HttpResponse(str(connected()))

    with Site("wsgi") as site:
        client = site.client(view, wrapped={"engine": "thread"})
        for query, body in ((None, b"3"), ("stream=1", b"3 3 ")):
            answer = client.get("/", query=query)
            assert answer.read() == body
            answer.wait_closed()
            assert until(lambda: not database.open)


# ---------------------------------------------------------------- the request


@pytest.mark.parametrize("interface", INTERFACES)
def test_an_ordinary_request_is_finished_once(interface: str) -> None:
    with Requests() as requests, Site(interface) as site:
        answer = site.client(lambda request: HttpResponse("a")).get("/")
        assert answer.read() == b"a"
        answer.wait_closed()
    assert requests.finished == 1


def test_an_iterable_is_inside_the_transaction_of_djangos_test_case() -> None:
    """Under WSGI it runs on the thread of the test, which holds the transaction."""

    class InTransaction(TestCase):
        databases: ClassVar = {"default"}

        def runTest(self) -> None:
            Row.objects.create(number=9, name="only here")
            rows = lambda: (f"{row.name}\n" for row in Row.objects.order_by("-number")[:1])  # noqa: E731
            with Site("wsgi") as site:
                site.handler(lambda request: respond(request, streamkit.stream(rows())))
                answer = DjangoClient().get("/")
                assert b"".join(answer.streaming_content) == b"only here\n"
            assert connection.in_atomic_block, "the test's own transaction was closed"

    result = unittest.TestResult()
    unittest.TestSuite([InTransaction()]).run(result)
    assert (result.errors, result.failures) == ([], [])
    assert connected() == 3


def test_an_asynchronous_producer_is_inside_the_transaction_of_djangos_test_case() -> None:
    """Under ASGI with Django's own client: `sync_to_async` leads to the thread of the test."""

    class InTransaction(TestCase):
        databases: ClassVar = {"default"}

        async def test(self) -> None:
            await Row.objects.acreate(number=9, name="only here")

            async def rows() -> AsyncIterator[str]:
                async for row in Row.objects.order_by("-number")[:1]:
                    yield row.name

            async def view(request: Any) -> Any:
                return respond(request, streamkit.stream(rows()))

            with Site("asgi") as site:
                site.handler(view)
                answer = await AsyncClient().get("/")
                assert [part async for part in answer] == [b"only here"]

    result = unittest.TestResult()
    unittest.TestSuite([InTransaction("test")]).run(result)
    assert (result.errors, result.failures, result.testsRun) == ([], [], 1)
    assert connected() == 3
