"""`respond` in Django: every kind of producer, from every kind of view, through Django's own middleware.

Rule: a chunk that is awaited before the next is made shows that nothing holds it back; no test measures time.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import AlreadyServed, BodyTooShort, OptionsError, ProducerError

pytest.importorskip("django")
from django.core.cache import cache
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, override_settings
from django.test import Client as DjangoClient
from django.urls import path, reverse
from django.utils import timezone, translation
from django.utils.translation import gettext
from django.views.decorators.gzip import gzip_page

from streamkit.frameworks.django import StreamKitMiddleware, respond

from .django_site import INTERFACES, OURS, SESSIONS, Site, Urls
from .programs import PRODUCERS, Program, Wait, producer_of

GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
LOCALE = "django.middleware.locale.LocaleMiddleware"

WAYS = [(i, v, p) for i in INTERFACES for v in ("sync", "async") for p in PRODUCERS]


def view_of(kind: str, describe: Callable[[], Any], **more: Any) -> Any:
    """A view that responds with what is described."""

    def view(request: Any, **values: Any) -> Any:
        return respond(request, describe(), **more)

    async def view_async(request: Any, **values: Any) -> Any:
        return respond(request, describe(), **more)

    return view if kind == "sync" else view_async


class Way:
    """One interface, one kind of view, one kind of producer."""

    def __init__(self, site: Site, view: str, producer: str) -> None:
        self.site, self.interface = site, site.interface
        self.kind, self.producer = view, producer

    def view(self, program: Program, **described: Any) -> Any:
        producer = lambda: producer_of(self.producer, program)  # noqa: E731
        return view_of(self.kind, lambda: streamkit.stream(producer(), **described))

    def client(self, program: Program, described: Any = None, **given: Any) -> Any:
        return self.site.client(self.view(program, **(described or {})), **given)


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
    view = gzip_page(vary_on_headers("X-Kind")(view_of(kind, described)))
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
    client = site.client(view_of(kind, lambda: description))
    assert client.get("/").read() == b"a"
    assert client.get("/").status == 500
    with pytest.raises(AlreadyServed):
        description.begin()


@VIEWS
def test_a_description_of_a_function_can_be_served_again(site: Site, kind: str) -> None:
    description = streamkit.stream(lambda stream: stream.write("a"))
    client = site.client(view_of(kind, lambda: description))
    assert [client.get("/").read() for _ in range(2)] == [b"a", b"a"]


def test_what_is_no_description_is_refused() -> None:
    from django.test import RequestFactory

    with pytest.raises(ProducerError, match="description"):
        respond(RequestFactory().get("/"), ["a"])


# ---------------------------------------------------------------- the middleware


@pytest.mark.parametrize(
    ("options", "said"),
    [({"hartbeat": 1}, "did you mean 'heartbeat'"), ({"heartbeat": 0}, "heartbeat"), ("none", "mapping")],
)
@pytest.mark.parametrize("interface", INTERFACES)
def test_bad_settings_are_refused_at_the_start(interface: str, options: Any, said: str) -> None:
    with Site(interface) as site, pytest.raises(OptionsError, match=said):
        site.handler(lambda request: None, STREAMKIT=options)


@VIEWS
def test_the_settings_are_the_options_of_every_stream(site: Site, kind: str) -> None:
    finished: list[Any] = []
    options = {"headers": {"X-Site": "1"}, "on_finish": lambda stream: finished.append(stream.outcome)}
    view = view_of(kind, lambda: streamkit.stream(lambda stream: stream.write("a"), options={"heartbeat": 5}))
    answer = site.client(view, STREAMKIT=options).get("/")
    assert (answer.headers["X-Site"], answer.read()) == ("1", b"a")
    answer.wait_closed()
    assert finished == ["finished"]


def test_the_middleware_is_as_synchronous_as_the_chain_around_it() -> None:
    async def handled_async(request: Any) -> Any:
        return HttpResponse("async")

    def handled(request: Any) -> Any:
        return HttpResponse("sync")

    assert StreamKitMiddleware.sync_capable
    assert StreamKitMiddleware.async_capable
    ordinary, asynchronous = StreamKitMiddleware(handled), StreamKitMiddleware(handled_async)
    assert not asyncio.iscoroutinefunction(ordinary)
    assert asyncio.iscoroutinefunction(asynchronous)
    assert ordinary(object()).content == b"sync"
    assert asyncio.run(asynchronous(object())).content == b"async"


def sync_only(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        response.headers["X-Sync-Only"] = "1"
        return response

    return middleware


def async_only(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        response = await get_response(request)
        response.headers["X-Async-Only"] = "1"
        return response

    return middleware


async_only.sync_capable = False  # type: ignore[attr-defined]
async_only.async_capable = True  # type: ignore[attr-defined]


def test_middleware_of_one_kind_only_does_not_hold_a_stream_back(way: Way) -> None:
    """Django converts between the kinds, each time on another thread or loop."""
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        yield Wait(arrived)
        yield "b"

    chain = [f"{__name__}.sync_only"]
    if way.interface == "asgi":
        chain = [*chain, f"{__name__}.async_only", f"{__name__}.sync_only"]
    answer = way.client(program, middleware=chain).get("/")
    assert answer.headers["X-Sync-Only"] == "1"
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.read(), answer.complete) == (b"b", True)


def test_the_middlewares_still_do_their_work_for_ordinary_responses(site: Site) -> None:
    cache.clear()
    made: list[int] = []

    def view(request: Any) -> Any:
        made.append(1)
        return HttpResponse("ordinary " * 100, headers={"Cache-Control": "max-age=60"})

    client = site.client(view, middleware=[UPDATE, GZIP, CONDITIONAL, FETCH])
    answer = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(answer.read()) == b"ordinary " * 100
    assert answer.headers["Content-Encoding"] == "gzip"
    again = client.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.read(), made) == (304, b"", [1])


def test_gzip_stays_where_it_is_asked_for(site: Site) -> None:
    view = view_of("sync", lambda: streamkit.stream(["a" * 1000]))
    client = site.client(view, middleware=[GZIP], STREAMKIT={"strip": ("etag", "cache")})
    answer = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.read()) == b"a" * 1000


def test_without_the_middleware_a_stream_only_says_that_it_is_not_encoded(site: Site) -> None:
    view = view_of("sync", lambda: streamkit.stream(["a"]))
    answer = site.client(view, first=None).get("/")
    assert (answer.headers["Content-Encoding"], answer.read()) == ("identity", b"a")


@pytest.mark.parametrize("named", ["generator", "file"])
def test_an_ordinary_streaming_response_of_djangos_arrives_piece_by_piece(
    site: Site, named: str, tmp_path: Any
) -> None:
    """Django alone reads an ordinary iterator whole under ASGI, with a warning."""
    arrived, closed = threading.Event(), threading.Event()

    class File:
        """A file whose second block is there when the first has arrived."""

        def __init__(self) -> None:
            self.blocks = [b"a", b"b", b""]

        def read(self, size: int = -1) -> bytes:
            block = self.blocks.pop(0)
            assert block != b"b" or arrived.wait(PATIENCE), "the first block was held back"
            return block

        def close(self) -> None:
            closed.set()

    def produce() -> Iterator[bytes]:
        try:
            yield b"a"
            assert arrived.wait(PATIENCE), "the first chunk was held back"
            yield b"b"
        finally:
            closed.set()

    def view(request: Any) -> Any:
        return StreamingHttpResponse(produce()) if named == "generator" else FileResponse(File())

    answer = site.client(view).get("/")
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.read(), answer.complete) == (b"b", True)
    answer.wait_closed()
    assert closed.is_set()


# ---------------------------------------------------------------- nothing blocks, nothing piles up


@VIEWS
@pytest.mark.parametrize("producer", ["function", "iterable"])
def test_a_blocking_producer_does_not_block_the_loop(kind: str, producer: str) -> None:
    first, second = threading.Event(), threading.Event()

    def program(stream: Any) -> Iterator[Any]:
        yield "a"
        first.wait(PATIENCE)  # holds its thread
        yield "b"
        second.wait(PATIENCE)

    with Site("asgi") as site:
        client = site.client(view_of(kind, lambda: streamkit.stream(producer_of(producer, program))))
        blocked = client.get("/")
        assert blocked.next_chunk() == b"a"
        other = client.get("/")
        assert other.next_chunk() == b"a", "the loop is blocked"
        first.set()
        second.set()
        assert (blocked.read(), other.read()) == (b"b", b"b")


def test_a_producer_is_held_up_by_a_slow_client(way: Way) -> None:
    made: list[int] = []

    def program(stream: Any) -> Iterator[Any]:
        for n in range(1000):
            made.append(n)
            yield b"x" * 1024

    answer = way.client(program, {"options": {"high_water": 4096}}).get("/")
    assert answer.next_chunk()
    reached = len(made)
    settled = until(lambda: len(made) == reached or len(made) > 50, 0.2)
    assert settled
    assert len(made) <= 16, "the body is read ahead of the client"
    body = answer.read()
    assert len(made) == 1000
    assert len(body) <= 1023 * 1024


def test_settings_of_other_tests_are_forgotten() -> None:
    with override_settings(STREAMKIT={"heartbeat": 1}, MIDDLEWARE=[OURS]):
        assert StreamKitMiddleware(lambda request: None).options.heartbeat == 1
    assert StreamKitMiddleware(lambda request: None).options.heartbeat == 15
