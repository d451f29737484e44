"""`respond` in Django: every kind of producer, from every kind of view, through Django's own middleware.

Rule: a chunk that is awaited before the next is made shows that nothing holds it back; no test measures time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import AlreadyServed, BodyTooShort, ClientDisconnected, ProducerError

pytest.importorskip("django")
from django.http import Http404, HttpResponse
from django.test import AsyncClient
from django.test import Client as DjangoClient
from django.urls import path, reverse
from django.utils import timezone, translation
from django.utils.translation import gettext
from django.views.decorators.gzip import gzip_page

from streamkit.frameworks.django import respond

from .django_ways import INTERFACES, SESSIONS, Site, Urls, Way, responding
from .programs import PRODUCERS, Wait, producer_of

GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"

WAYS = [(i, v, p) for i in INTERFACES for v in ("sync", "async") for p in PRODUCERS]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    interface, view, producer = request.param
    with Site(interface) as site:
        yield Way(site, view, producer)


@pytest.fixture(params=INTERFACES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with Site(request.param) as site:
        yield site


VIEWS = pytest.mark.parametrize("kind", ["sync", "async"])


# ---------------------------------------------------------------- every producer, every view


def test_a_chunk_arrives_before_the_next_is_made(way: Way) -> None:
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        yield "b"

    answer = way.client(program, {"status": 201, "headers": {"X-Name": "ann"}}).get("/")
    assert (answer.status, answer.headers["X-Name"]) == (201, "ann")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.next_chunk(), answer.next_chunk(), answer.complete) == (b"b", None, True)


def test_nothing_holds_a_stream_back(way: Way) -> None:
    """Every middleware of Django's that could; see the table of what buffers."""
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a" * 1000
        yield Wait(arrived)
        yield "b"

    chain = [UPDATE, GZIP, CONDITIONAL, COMMON, SESSIONS, FETCH]
    client = way.client(program, middleware=chain, SESSION_ENGINE="django.contrib.sessions.backends.cache")
    answer = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert answer.next_chunk() == b"a" * 1000
    arrived.set()
    assert (answer.read(), answer.complete) == (b"b", True)
    for name in ("Content-Encoding", "ETag", "Content-Length", "Last-Modified"):
        assert name not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store, no-transform"


def test_the_language_time_zone_and_urls_of_the_request_are_the_producers(way: Way) -> None:
    arrived = threading.Event()

    def seen() -> str:
        zone = timezone.get_current_timezone_name()
        return f"{translation.get_language()} {gettext('Yes')} {zone} {reverse('here')}"

    def program(stream: Any) -> Iterator[Any]:
        yield seen()
        yield Wait(arrived)
        yield seen()

    inner = way.view(program)

    def view(request: Any) -> Any:
        with translation.override("de"), timezone.override(zoneinfo.ZoneInfo("Asia/Tokyo")):
            request.urlconf = Urls([])
            return inner(request)

    async def view_async(request: Any) -> Any:
        with translation.override("de"), timezone.override(zoneinfo.ZoneInfo("Asia/Tokyo")):
            return await (await inner(request))

    chain = [f"{__name__}.OtherUrls"]
    client = way.site.client(view if way.kind == "sync" else view_async, middleware=chain)
    answer = client.get("/")
    assert answer.next_chunk() == b"de Ja Asia/Tokyo /here/of/the/request"
    arrived.set()
    assert answer.read() == b"de Ja Asia/Tokyo /here/of/the/request"
    plain = way.client(program).get("/") if way.interface == "wsgi" else None
    assert plain is None or plain.status == 500  # no such name: nothing has leaked


class OtherUrls:
    """Gives each request URLs of its own, as sites with several hosts do."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        from django.conf import settings

        here = path("here/of/the/request", lambda request: None, name="here")
        request.urlconf = Urls([*settings.ROOT_URLCONF.urlpatterns, here])
        return self.get_response(request)


def test_an_error_before_the_first_chunk_is_the_views(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        raise Http404("nothing")
        yield "a"

    answer = way.client(program, DEBUG=True).get("/")
    assert answer.status == 404
    assert b"nothing" in answer.read()


def test_a_client_that_has_left_before_the_first_chunk_is_nobodys_error(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """The word for it comes from the engine, where the server hands its socket over."""

    def program(stream: Any) -> Iterator[Any]:
        raise ClientDisconnected
        yield "a"

    assert way.client(program).get("/").status == 499
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_view_may_catch_what_the_producer_raises_before_its_first_chunk(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        raise KeyError("k")
        yield "a"

    view = way.view(program)

    def catching(request: Any) -> Any:
        try:
            return view(request)
        except KeyError as error:
            return HttpResponse(f"caught {error}")

    async def catching_async(request: Any) -> Any:
        try:
            return await (await view(request))
        except KeyError as error:
            return HttpResponse(f"caught {error}")

    client = way.site.client(catching if way.kind == "sync" else catching_async)
    assert client.get("/").read() == b"caught 'k'"


def test_an_error_after_the_first_chunk_cuts_the_body(way: Way) -> None:
    told: list[Any] = []

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        raise KeyError("k")

    described = {"content_type": "text/csv", "on_error": lambda *details: told.append(details[1])}
    answer = way.client(program, described).get("/")
    assert answer.next_chunk() == b"a"
    with pytest.raises(KeyError):
        answer.next_chunk()
    assert not answer.complete
    assert [str(error) for error in told] == ["'k'"]


def test_a_leave_ends_the_producer_and_calls_back_once(way: Way) -> None:
    called, ended = [], threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        try:
            while True:
                yield "x" * 1000
        finally:
            ended.set()

    answer = way.client(program, {"callback": lambda: called.append(1)}).get("/")
    assert answer.next_chunk()
    answer.disconnect()
    assert ended.wait(PATIENCE), "the producer goes on without a reader"
    answer.wait_closed()
    assert until(lambda: called)
    assert called == [1]


def test_head_runs_no_producer(way: Way) -> None:
    ran, called = [], []

    def program(stream: Any) -> Iterator[Any]:
        ran.append(1)
        yield "a"

    described = {"status": 203, "callback": lambda: called.append(1)}
    answer = way.client(program, described).open("HEAD", "/")
    assert (answer.status, answer.read(), ran, called) == (203, b"", [], [1])
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_declared_length_is_sent_and_enforced(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield "abc"

    client = way.client(program, {"content_length": 3}, middleware=[COMMON])
    answer = client.get("/")
    assert (answer.headers.getlist("Content-Length"), answer.read()) == (["3"], b"abc")
    short = way.client(program, {"content_length": 4}).get("/")
    assert short.next_chunk() == b"abc"
    with pytest.raises(BodyTooShort):
        short.next_chunk()


def test_an_http_1_0_client_gets_the_whole_with_its_length(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield "b"

    answer = way.client(program).get("/", http_version="1.0")
    assert (answer.headers["Content-Length"], answer.read()) == ("2", b"ab")


def test_the_test_client_of_django_reads_a_stream(way: Way) -> None:
    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield "b"

    def ask() -> tuple[int, bytes]:
        answer = DjangoClient().get("/")
        return answer.status_code, b"".join(answer.streaming_content)

    async def ask_async() -> tuple[int, bytes]:
        answer = await AsyncClient().get("/")
        return answer.status_code, b"".join([part async for part in answer])

    way.site.handler(way.view(program))
    assert (ask() if way.interface == "wsgi" else asyncio.run(ask_async())) == (200, b"ab")


# ---------------------------------------------------------------- the response in the view's hands


@VIEWS
def test_the_response_of_respond_can_be_changed_like_any_other(site: Site, kind: str) -> None:
    def changed(response: Any) -> Any:
        response.status_code = 206
        response.headers["X-View"] = "1"
        response["Cache-Control"] = "private"
        response.set_cookie("view", "1")
        return response

    description = lambda: streamkit.stream(["a"], headers={"X-Described": "1", "Cache-Control": "no-cache"})  # noqa: E731

    def view(request: Any) -> Any:
        return changed(respond(request, description()))

    async def view_async(request: Any) -> Any:
        return changed(respond(request, description()))

    answer = site.client(view if kind == "sync" else view_async).get("/")
    assert (answer.status, answer.read()) == (206, b"a")
    assert (answer.headers["X-View"], answer.headers["X-Described"]) == ("1", "1")
    assert answer.headers.getlist("Cache-Control") == ["private"]
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert [value.strip() for value in answer.headers.getlist("Set-Cookie")] == ["view=1; Path=/"]


@VIEWS
def test_a_header_that_the_view_takes_off_stays_off(site: Site, kind: str) -> None:
    def without(response: Any) -> Any:
        del response.headers["X-Described"]
        return response

    def view(request: Any) -> Any:
        return without(respond(request, streamkit.stream(["a"], headers={"X-Described": "1"})))

    async def view_async(request: Any) -> Any:
        return without(respond(request, streamkit.stream(["a"], headers={"X-Described": "1"})))

    answer = site.client(view if kind == "sync" else view_async).get("/")
    assert "X-Described" not in answer.headers


@VIEWS
def test_decorators_of_views_see_the_response(site: Site, kind: str) -> None:
    from django.views.decorators.vary import vary_on_headers

    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a" * 1000
        yield Wait(arrived)
        yield "b"

    described = lambda: streamkit.stream(producer_of("function", program))  # noqa: E731
    view = gzip_page(vary_on_headers("X-Kind")(responding(kind, described)))
    answer = site.client(view).get("/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Vary"] == "X-Kind"
    assert "Content-Encoding" not in answer.headers
    assert answer.next_chunk() == b"a" * 1000
    arrived.set()
    assert answer.read() == b"b"


def test_an_asynchronous_view_may_await_the_response(site: Site) -> None:
    seen: list[Any] = []

    async def view(request: Any) -> Any:
        async def produce(stream: Any) -> None:
            stream.status = 203
            await stream.write("a")

        response = await respond(request, streamkit.stream(produce))
        seen.append(response.status_code)
        return response

    assert site.client(view).get("/").read() == b"a"
    assert seen == [203]


@VIEWS
def test_an_iterator_can_be_served_once_only(site: Site, kind: str) -> None:
    description = streamkit.stream(iter(["a"]))
    client = site.client(responding(kind, lambda: description))
    assert client.get("/").read() == b"a"
    assert client.get("/").status == 500
    with pytest.raises(AlreadyServed):
        description.begin()


@VIEWS
def test_a_description_of_a_function_can_be_served_again(site: Site, kind: str) -> None:
    description = streamkit.stream(lambda stream: stream.write("a"))
    client = site.client(responding(kind, lambda: description))
    assert [client.get("/").read() for _ in range(2)] == [b"a", b"a"]


def test_what_is_no_description_is_refused() -> None:
    from django.test import RequestFactory

    with pytest.raises(ProducerError, match="description"):
        respond(RequestFactory().get("/"), ["a"])



@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_vary_of_a_decorator_stands_beside_that_of_the_stream(site: Site, kind: str) -> None:
    """What the producer says before its commit is as much the head as what the view has said."""
    from django.views.decorators.vary import vary_on_headers

    def produce(stream: Any) -> None:
        stream.headers["Vary"] = "Accept-Language"
        stream.write("a")

    view = vary_on_headers("X-Kind")(responding(kind, lambda: streamkit.stream(produce)))
    answer = site.client(view).get("/")
    assert {field.strip() for field in answer.headers["Vary"].split(",")} == {"Accept-Language", "X-Kind"}
    assert answer.read() == b"a"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_both_of_two_headers_of_one_name_are_sent(site: Site, kind: str) -> None:
    links = [("Link", "</a.css>; rel=preload"), ("Link", "</b.css>; rel=preload")]
    view = responding(kind, lambda: streamkit.stream(["a"], headers=links))
    answer = site.client(view).get("/")
    assert ", ".join(answer.headers.getlist("Link")) == ", ".join(value for _, value in links)
    assert answer.read() == b"a"


def test_a_view_that_has_turned_translations_off_has_them_off_in_its_producer(site: Site) -> None:
    def view(request: Any) -> Any:
        translation.activate("de")
        with translation.override(None):
            return respond(request, streamkit.stream(produce))

    def produce(stream: Any) -> None:
        stream.write(f"{translation.get_language()} {gettext('Yes')}")

    assert site.client(view, LANGUAGE_CODE="fr").get("/").read() == b"None Yes"


def test_a_view_on_a_pooled_thread_can_catch_what_the_producer_raises_before_its_head(site: Site) -> None:
    def view(request: Any) -> Any:
        try:
            return respond(request, streamkit.stream(produce))
        except LookupError as error:
            return HttpResponse(f"caught {error.args[0]}")

    def produce(stream: Any) -> None:
        raise LookupError("early")

    options = {"engine": "thread"} if site.interface == "wsgi" else {}
    assert site.client(view, wrapped=options).get("/").read() == b"caught early"
