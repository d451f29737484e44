"""Live views in Django: an ordinary view until its first write, a stream from there on.

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

from streamkit.errors import AlreadyCommitted, ClientDisconnected, ProducerError

pytest.importorskip("django")
from django.contrib.messages import constants
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.views import View

from streamkit.frameworks.django import live

from .django_site import INTERFACES, SESSIONS, Site
from .programs import Program, Wait, view_of

COMMON = "django.middleware.common.CommonMiddleware"
CLICKJACKING = "django.middleware.clickjacking.XFrameOptionsMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"

WAYS = [(interface, kind) for interface in INTERFACES for kind in ("sync", "async")]


class Way:
    """One interface and one kind of view."""

    def __init__(self, site: Site, kind: str) -> None:
        self.site, self.kind, self.interface = site, kind, site.interface

    def view(self, program: Program) -> Any:
        return live(view_of(self.kind, program))

    def client(self, program: Program, **given: Any) -> Any:
        """A client of a site whose one view is this program, live."""
        return self.site.client(self.view(program), **given)


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    interface, kind = request.param
    with Site(interface) as site:
        yield Way(site, kind)


def cookies(answer: Any) -> list[str]:
    return [value.strip().partition("=")[0] for value in answer.headers.getlist("Set-Cookie")]


class Ends:
    """What the hooks of one stream were told."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.errors: list[BaseException] = []
        self.heard = threading.Event()

    def listen(self, stream: Any) -> None:
        stream.on_error(lambda stream, error: self.errors.append(error))
        stream.on_finish(self._finish)

    def _finish(self, stream: Any) -> None:
        self.outcomes.append(stream.outcome)
        self.heard.set()

    def come(self) -> list[str]:
        assert self.heard.wait(PATIENCE), "nobody was told of the end"
        return self.outcomes


# ---------------------------------------------------------------- the head


def test_a_chunk_arrives_before_the_next_is_made(way: Way) -> None:
    arrived = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        yield "b"

    answer = way.client(program).get("/")
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.next_chunk(), answer.next_chunk(), answer.complete) == (b"b", None, True)


def test_the_head_goes_up_through_the_middleware_at_the_first_write(way: Way) -> None:
    gone_up = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.status = 201
        stream.headers["Content-Type"] = "text/event-stream"
        stream.headers["X-Name"] = "ann"
        stream.set_cookie("tasted", "1")
        request.session["seen"] = request.session.get("seen", 0) + 1
        yield f"data: {request.session['seen']}\n\n"
        yield Wait(gone_up)
        yield "data: last\n\n"

    client = way.client(program, middleware=[COMMON, SESSIONS, CLICKJACKING])
    answer = client.get("/")
    assert answer.status == 201
    assert answer.headers.getlist("Content-Type") == ["text/event-stream"]
    assert (answer.headers["X-Name"], answer.headers["X-Frame-Options"]) == ("ann", "DENY")
    assert answer.headers["Vary"] == "Cookie"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert cookies(answer) == ["tasted", "sessionid"]
    assert answer.next_chunk() == b"data: 1\n\n"
    gone_up.set()
    assert answer.read() == b"data: last\n\n"
    session = answer.headers.getlist("Set-Cookie")[1].strip().partition(";")[0]
    assert client.get("/", headers={"Cookie": session}).read().startswith(b"data: 2\n\n")


def test_a_cookie_keeps_the_attributes_that_it_was_set_with(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.set_cookie("a", "1", max_age=5, secure=True, samesite="None", partitioned=True)
        stream.set_cookie("b", "x y", path="/b")
        yield "a"

    answer = way.client(program).get("/")
    first, second = (value.strip() for value in answer.headers.getlist("Set-Cookie"))
    assert {"a=1", "Max-Age=5", "Secure", "SameSite=None", "Partitioned"} <= set(first.split("; "))
    assert second == 'b="x y"; Path=/b'


def test_a_view_that_says_nothing_has_a_content_type_and_is_completed(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "<p>"

    answer = way.client(program).get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (answer.read(), answer.complete) == (b"<p>", True)


def test_a_view_may_write_nothing_and_return_nothing(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.status = 202
        yield from ()

    answer = way.client(program).get("/")
    assert (answer.status, answer.read()) == (202, b"")


@pytest.mark.parametrize("what", ["status", "header", "cookie", "session", "session item", "login"])
def test_after_the_first_write_the_head_is_closed(way: Way, what: str) -> None:
    def change(request: Any, stream: Any) -> None:
        if what == "status":
            stream.status = 404
        elif what == "header":
            stream.headers["X-Late"] = "1"
        elif what == "cookie":
            stream.set_cookie("late", "1")
        elif what == "session":
            request.session.modified = True
        elif what == "session item":
            request.session["late"] = 1
        else:
            request.session.cycle_key()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        request.session["early"] = 1
        yield "a"
        with pytest.raises(AlreadyCommitted):
            change(request, stream)
        assert request.session["early"] == 1
        yield "b"

    answer = way.client(program, middleware=[SESSIONS]).get("/")
    assert answer.read() == b"ab"
    assert cookies(answer) == ["sessionid"]


def test_middleware_may_still_change_the_session_after_the_first_write(way: Way) -> None:
    """MessageMiddleware stores its messages when the response passes it."""

    def program(request: Any, stream: Any) -> Iterator[Any]:
        request._messages.add(constants.INFO, "stored")
        yield "a"

    storage = "django.contrib.messages.storage.session.SessionStorage"
    answer = way.client(program, middleware=[SESSIONS, MESSAGES], MESSAGE_STORAGE=storage).get("/")
    assert (answer.read(), cookies(answer)) == (b"a", ["sessionid"])


# ---------------------------------------------------------------- ordinary responses


def test_a_view_that_writes_nothing_may_return_a_response(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        request.session["seen"] = 1
        return HttpResponse("plain", status=418, headers={"X-Name": "ann"})
        yield

    answer = way.client(program, middleware=[COMMON, SESSIONS]).get("/")
    assert (answer.status, answer.read(), answer.headers["X-Name"]) == (418, b"plain", "ann")
    assert answer.headers["Content-Length"] == "5"
    assert cookies(answer) == ["sessionid"]


def test_a_redirect_before_the_first_write_is_one(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        return HttpResponseRedirect("/elsewhere")
        yield

    answer = way.client(program).get("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")


def test_a_view_that_has_nothing_new_may_answer_304(way: Way) -> None:
    """Scenario R26."""
    from django.views.decorators.http import condition

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"

    view = condition(etag_func=lambda request: 'W/"1"')(way.view(program))
    client = way.site.client(view)
    first = client.get("/")
    assert (first.status, first.read()) == (200, b"a")
    again = client.get("/", headers={"If-None-Match": 'W/"1"'})
    assert (again.status, again.read()) == (304, b"")


@pytest.mark.parametrize(("error", "status"), [(Http404("gone"), 404), (PermissionDenied(), 403)])
def test_an_error_before_the_first_write_is_answered_by_django(
    way: Way, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.headers["X-Of-The-Stream"] = "1"
        raise error
        yield

    answer = way.client(program, middleware=[CLICKJACKING]).get("/")
    assert (answer.status, answer.headers["X-Frame-Options"]) == (status, "DENY")
    assert "X-Of-The-Stream" not in answer.headers
    answer.read()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_error_before_the_first_write_has_the_debug_page(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        secret_of_this_frame = "visible"  # noqa: F841
        raise ZeroDivisionError("on purpose")
        yield

    answer = way.client(program, DEBUG=True).get("/")
    page = answer.read().decode()
    assert answer.status == 500
    assert "on purpose" in page
    assert "secret_of_this_frame" in page
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


class Witness:
    """Middleware that answers one kind of error."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)

    def process_exception(self, request: Any, error: Exception) -> Any:
        return HttpResponse(f"witnessed {error}", status=409) if isinstance(error, LookupError) else None


def test_process_exception_sees_an_error_before_the_first_write(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise KeyError("k")
        yield

    answer = way.client(program, middleware=[f"{__name__}.Witness"]).get("/")
    assert (answer.status, answer.read()) == (409, b"witnessed 'k'")


def test_a_returned_response_after_the_first_write_is_dropped(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        return HttpResponse("b")

    assert way.client(program).get("/").read() == b"a"


# ---------------------------------------------------------------- HEAD, errors, leaves


def test_head_has_the_head_of_get_and_no_body(way: Way, caplog: pytest.LogCaptureFixture) -> None:
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


def test_head_of_what_is_not_there_is_404(way: Way) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise Http404
        yield

    answer = way.client(program).open("HEAD", "/")
    assert (answer.status, answer.read()) == (404, b"")


def test_an_error_after_the_first_write_cuts_the_stream_and_is_told_once(way: Way) -> None:
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
    way: Way, caplog: pytest.LogCaptureFixture
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


def test_a_waiting_view_hears_of_a_leave_by_heartbeat_or_at_once(way: Way) -> None:
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


def test_values_of_the_url_are_the_views(way: Way) -> None:
    """Scenario S10."""

    def program(request: Any, stream: Any, *args: Any, **values: Any) -> Iterator[Any]:
        yield f"{request.method} {args} {values}"

    view = way.view(program)
    patterns = [path("named/<int:number>/<name>", view), re_path(r"^unnamed/(\d+)$", view)]
    client = way.site.client(patterns)
    assert client.get("/named/7/ann").read() == b"GET () {'number': 7, 'name': 'ann'}"
    assert client.get("/unnamed/7").read() == b"GET ('7',) {}"


def test_a_class_based_view_can_be_live(way: Way) -> None:
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


def test_the_bodies_of_posts_can_be_read_by_the_view(way: Way) -> None:
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


def test_django_wrapped_by_streamkit_gives_its_options_below_the_settings(way: Way) -> None:
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


def test_many_live_views_at_once_do_not_wait_for_each_other(way: Way) -> None:
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


def test_a_response_that_is_replaced_on_its_way_ends_its_producer(way: Way) -> None:
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

