"""Live views in Django: an ordinary view until its first write, a stream from there on.

Rule: each test runs under WSGI and ASGI, with a synchronous and an asynchronous view.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import streamkit
from streamkit.errors import AlreadyCommitted

pytest.importorskip("django")
from django.contrib.messages import constants
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import path, re_path
from django.views import View

from streamkit.frameworks.django import live, respond

from .django_ways import INTERFACES, SESSIONS, LiveWay, Site
from .programs import Wait, cookies

COMMON = "django.middleware.common.CommonMiddleware"
CLICKJACKING = "django.middleware.clickjacking.XFrameOptionsMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"

WAYS = [(interface, kind) for interface in INTERFACES for kind in ("sync", "async")]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[LiveWay]:
    interface, kind = request.param
    with Site(interface) as site:
        yield LiveWay(site, kind)


# ---------------------------------------------------------------- the head


def test_a_chunk_arrives_before_the_next_is_made(way: LiveWay) -> None:
    arrived = threading.Event()

    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        yield "b"

    answer = way.client(program).get("/")
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.next_chunk(), answer.next_chunk(), answer.complete) == (b"b", None, True)


def test_a_method_of_a_class_based_view_may_be_live(way: LiveWay) -> None:
    class Page(View):
        greeting = "hello"

        @live
        def get(self, request: Any, stream: Any, *words: str, **named: str) -> None:
            stream.write(" ".join([self.greeting, request.method, *words, *named.values()]))

    class PageAsync(View):
        greeting = "hello"

        @live
        async def get(self, request: Any, stream: Any, *words: str, **named: str) -> None:
            await stream.write(" ".join([self.greeting, request.method, *words, *named.values()]))

    view = (Page if way.kind == "sync" else PageAsync).as_view()
    client = way.site.client(
        [path("", view), path("named/<name>", view), re_path(r"^unnamed/(\w+)$", view)]
    )
    assert client.get("/").read() == b"hello GET"
    assert client.get("/named/ann").read() == b"hello GET ann"
    assert client.get("/unnamed/bob").read() == b"hello GET bob"


def test_the_request_may_be_given_by_its_name(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield request.method

    page = way.view(program)

    def called(request: Any) -> Any:
        return page(request=request)

    async def called_async(request: Any) -> Any:
        return await page(request=request)

    client = way.site.client(called if way.kind == "sync" else called_async)
    assert client.get("/").read() == b"GET"


@pytest.mark.parametrize("name", ["first", "view", "values", "stream_", "given"])
def test_a_value_of_the_url_may_have_any_name(way: LiveWay, name: str) -> None:
    def page(request: Any, stream: Any, **values: Any) -> None:
        stream.write(str(values))

    async def page_async(request: Any, stream: Any, **values: Any) -> None:
        await stream.write(str(values))

    view = live(page if way.kind == "sync" else page_async)
    client = way.site.client([path(f"<int:{name}>", view)])
    assert client.get("/3").read() == str({name: 3}).encode()


def test_the_head_goes_up_through_the_middleware_at_the_first_write(way: LiveWay) -> None:
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


def test_a_cookie_keeps_the_attributes_that_it_was_set_with(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.set_cookie("a", "1", max_age=5, secure=True, samesite="None", partitioned=True)
        stream.set_cookie("b", "x y", path="/b")
        yield "a"

    answer = way.client(program).get("/")
    first, second = (value.strip() for value in answer.headers.getlist("Set-Cookie"))
    assert {"a=1", "Max-Age=5", "Secure", "SameSite=None", "Partitioned"} <= set(first.split("; "))
    assert second == 'b="x y"; Path=/b'


def test_a_view_that_says_nothing_has_a_content_type_and_is_completed(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "<p>"

    answer = way.client(program).get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (answer.read(), answer.complete) == (b"<p>", True)


def test_a_view_may_write_nothing_and_return_nothing(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        stream.status = 202
        yield from ()

    answer = way.client(program).get("/")
    assert (answer.status, answer.read()) == (202, b"")


@pytest.mark.parametrize("what", ["status", "header", "cookie", "session", "session item", "login"])
def test_after_the_first_write_the_head_is_closed(way: LiveWay, what: str) -> None:
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


def test_middleware_may_still_change_the_session_after_the_first_write(way: LiveWay) -> None:
    """MessageMiddleware stores its messages when the response passes it."""

    def program(request: Any, stream: Any) -> Iterator[Any]:
        request._messages.add(constants.INFO, "stored")
        yield "a"

    storage = "django.contrib.messages.storage.session.SessionStorage"
    answer = way.client(program, middleware=[SESSIONS, MESSAGES], MESSAGE_STORAGE=storage).get("/")
    assert (answer.read(), cookies(answer)) == (b"a", ["sessionid"])


# ---------------------------------------------------------------- ordinary responses


def test_a_view_that_writes_nothing_may_return_a_response(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        request.session["seen"] = 1
        return HttpResponse("plain", status=418, headers={"X-Name": "ann"})
        yield

    answer = way.client(program, middleware=[COMMON, SESSIONS]).get("/")
    assert (answer.status, answer.read(), answer.headers["X-Name"]) == (418, b"plain", "ann")
    assert answer.headers["Content-Length"] == "5"
    assert cookies(answer) == ["sessionid"]


def test_a_view_that_writes_nothing_may_return_a_stream_of_its_own(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        return respond(request, streamkit.stream(["a", "b"], headers={"X-Name": "ann"}))
        yield

    answer = way.client(program, middleware=[COMMON, SESSIONS]).get("/")
    assert (answer.status, answer.headers["X-Name"]) == (200, "ann")
    assert answer.read() == b"ab"


def test_a_redirect_before_the_first_write_is_one(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        return HttpResponseRedirect("/elsewhere")
        yield

    answer = way.client(program).get("/")
    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")


def test_a_view_that_has_nothing_new_may_answer_304(way: LiveWay) -> None:
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
    way: LiveWay, error: Exception, status: int, caplog: pytest.LogCaptureFixture
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
    way: LiveWay, caplog: pytest.LogCaptureFixture
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


def test_process_exception_sees_an_error_before_the_first_write(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        raise KeyError("k")
        yield

    answer = way.client(program, middleware=[f"{__name__}.Witness"]).get("/")
    assert (answer.status, answer.read()) == (409, b"witnessed 'k'")


def test_a_returned_response_after_the_first_write_is_dropped(way: LiveWay) -> None:
    def program(request: Any, stream: Any) -> Iterator[Any]:
        yield "a"
        return HttpResponse("b")

    assert way.client(program).get("/").read() == b"a"

