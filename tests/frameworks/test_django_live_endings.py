"""How live views in Django end, and how they are written.

Rule: each test runs under WSGI and ASGI, with a synchronous and an asynchronous view.
"""

from __future__ import annotations

import gc
import inspect
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

from streamkit.errors import ClientDisconnected, ProducerError

pytest.importorskip("django")
from django.http import Http404, HttpResponse
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.views import View

from streamkit.frameworks.django import live

from .django_ways import INTERFACES, SESSIONS, LiveWay, Site
from .programs import Ends, Wait, cookies, view_of

WAYS = [(interface, kind) for interface in INTERFACES for kind in ("sync", "async")]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[LiveWay]:
    interface, kind = request.param
    with Site(interface) as site:
        yield LiveWay(site, kind)


# ---------------------------------------------------------------- HEAD, errors, leaves


def test_head_has_the_head_of_get_and_no_body(way: LiveWay, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["X-Name"] = "ann"
        request.session["seen"] = 1
        try:
            while True:
                yield "a"
        finally:
            ended.set()

    answer = way.client(program, middleware=[SESSIONS]).open("HEAD", "/")
    assert (answer.status, answer.headers["X-Name"], answer.read()) == (200, "ann", b"")
    assert cookies(answer) == ["sessionid"]
    assert ended.wait(PATIENCE), "the view goes on without a reader"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_head_of_what_is_not_there_is_404(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise Http404
        yield

    answer = way.client(program).open("HEAD", "/")
    assert (answer.status, answer.read()) == (404, b"")


def test_an_error_after_the_first_write_cuts_the_stream_and_is_told_once(way: LiveWay) -> None:
    ends = Ends()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        stream.headers["Content-Type"] = "text/csv"
        yield "a"
        raise ZeroDivisionError("on purpose")

    answer = way.client(program).get("/")
    assert answer.next_chunk() == b"a"
    with pytest.raises(ZeroDivisionError):
        answer.next_chunk()
    assert not answer.complete
    assert ends.come() == ["failed"]
    assert [str(error) for error in ends.errors] == ["on purpose"]


def test_a_view_whose_client_leaves_is_ended_and_its_hooks_run_once(
    way: LiveWay, caplog: pytest.LogCaptureFixture
) -> None:
    ends, ended, errors = Ends(), threading.Event(), []

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        try:
            while True:
                yield "x" * 1000
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    answer = way.client(program).get("/")
    assert answer.next_chunk()
    answer.disconnect()
    assert ended.wait(PATIENCE), "the view goes on without a reader"
    assert ends.come() == ["disconnected"]
    answer.wait_closed()
    assert ends.outcomes == ["disconnected"]
    assert all(isinstance(error, ClientDisconnected) for error in ends.errors)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_waiting_view_hears_of_a_leave_by_heartbeat_or_at_once(way: LiveWay) -> None:
    ends, never = Ends(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        stream.headers["Content-Type"] = "text/event-stream"
        yield "data: 1\n\n"
        while stream.connected:
            if way.kind == "sync":
                never.wait(0.01)
            else:
                yield Wait(never)

    # Under WSGI only a heartbeat finds out, whose write fails on a real server.
    answer = way.client(program, STREAMKIT={"heartbeat": 0.05}).get("/")
    assert answer.next_chunk() == b"data: 1\n\n"
    answer.disconnect()
    assert ends.come() == ["disconnected"]
    never.set()
    answer.wait_closed()


def test_a_client_that_leaves_before_the_first_write_is_nobodys_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, ended = threading.Event(), threading.Event()
    for kind in ("sync", "async"):
        never = threading.Event()

        def program(request: Any, stream: Any, never: threading.Event = never) -> Iterator[Any]:
            try:
                began.set()
                yield Wait(never)
            finally:
                ended.set()

        with Site("asgi") as site:
            answer = site.client(live(view_of(kind, program))).get("/")
            assert began.wait(PATIENCE)
            answer.disconnect()
            answer.wait_closed()
            never.set()
            assert ended.wait(PATIENCE)
        began.clear()
        ended.clear()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------- how views are written


def test_values_of_the_url_are_the_views(way: LiveWay) -> None:
    """Scenario S10."""

    def program(request: Any, stream: Any, *args: Any, **values: Any) -> Iterator[Any]:
        yield f"{request.method} {args} {values}"

    view = way.view(program)
    patterns = [path("named/<int:number>/<name>", view), re_path(r"^unnamed/(\d+)$", view)]
    client = way.site.client(patterns)
    assert client.get("/named/7/ann").read() == b"GET () {'number': 7, 'name': 'ann'}"
    assert client.get("/unnamed/7").read() == b"GET ('7',) {}"


def test_a_class_based_view_can_be_live(way: LiveWay) -> None:
    def program(request: Any, stream: Any, number: int) -> Iterator[Any]:
        yield f"{request.method} {number}"

    plain = view_of(way.kind, program)
    if way.kind == "sync":

        def get(self: Any, request: Any, stream: Any, **values: Any) -> Any:
            return plain(request, stream, **values)
    else:

        async def get(self: Any, request: Any, stream: Any, **values: Any) -> Any:  # type: ignore[misc]
            return await plain(request, stream, **values)

    Numbers = type("Numbers", (View,), {"get": method_decorator(live)(get)})
    client = way.site.client([path("<int:number>", Numbers.as_view())])
    assert client.get("/7").read() == b"GET 7"


def test_the_bodies_of_posts_can_be_read_by_the_view(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield request.body
        yield request.POST["a"]

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = way.client(program).open("POST", "/", body=b"a=1", headers=headers)
    assert answer.read() == b"a=11"


def test_a_view_keeps_its_name_and_its_marks() -> None:
    from django.views.decorators.csrf import csrf_exempt

    @live
    @csrf_exempt
    def ticks(request: Any, stream: Any) -> None:
        """Ticks."""

    @live
    async def ticks_async(request: Any, stream: Any) -> None: ...

    assert (ticks.__name__, ticks.__doc__, ticks.csrf_exempt) == ("ticks", "Ticks.", True)
    assert inspect.iscoroutinefunction(ticks_async)
    assert not inspect.iscoroutinefunction(ticks)


def test_a_generator_function_is_refused_as_a_live_view() -> None:
    with pytest.raises(ProducerError, match="generator"):

        @live
        def wrong(request: Any, stream: Any) -> Iterator[str]:
            yield "a"


def test_a_view_without_room_for_the_stream_is_refused_as_a_live_view() -> None:
    with pytest.raises(ProducerError, match=r"takes \(request, stream, \.\.\.\), but .* takes \(request\)"):
        live(lambda request: None)


def test_django_wrapped_by_streamkit_gives_its_options_below_the_settings(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield "b"

    client = way.client(
        program,
        middleware=[SESSIONS],
        wrapped={"headers": {"X-Wrap": "1", "X-Both": "wrap"}},
        STREAMKIT={"headers": {"X-Both": "settings"}},
    )
    answer = client.get("/")
    assert (answer.headers["X-Wrap"], answer.headers["X-Both"]) == ("1", "settings")
    assert (answer.read(), answer.complete) == (b"ab", True)


def test_many_live_views_at_once_do_not_wait_for_each_other(way: LiveWay) -> None:
    go_on = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(go_on)
        yield "b"

    client = way.client(program)
    answers = [client.get("/") for _ in range(20)]
    assert [answer.next_chunk() for answer in answers] == [b"a"] * 20
    go_on.set()
    assert [answer.read() for answer in answers] == [b"b"] * 20


def test_a_response_that_is_replaced_on_its_way_ends_its_producer(way: LiveWay) -> None:
    ends, never = Ends(), threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        ends.listen(stream)
        yield "a"
        while stream.connected:
            yield "b" * 1000

    view = way.view(program)
    if way.kind == "sync":

        def other(request: Any) -> Any:
            view(request)
            return HttpResponse("other")
    else:

        async def other(request: Any) -> Any:  # type: ignore[misc]
            await view(request)
            return HttpResponse("other")

    assert way.site.client(other).get("/").read() == b"other"

    def told() -> bool:
        gc.collect()  # CPython 3.10 keeps the dropped response in a cycle
        return bool(ends.outcomes)

    assert until(told), "the producer waits for a reader that never comes"
    assert ends.outcomes == ["disconnected"]
    never.set()


def test_the_room_says_what_to_install_where_django_is_missing() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['django'] = None\n"
        "try: import streamkit.frameworks.django\n"
        "except ImportError as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "streamkit-web[django]" in said

