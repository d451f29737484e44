"""Our middleware in Django beside Django's own, which hold no stream back and do their work.

Rule: a chunk that is awaited before the next is made shows that nothing holds it back; no test measures time.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import OptionsError

pytest.importorskip("django")
from django.core.cache import cache
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import override_settings

from streamkit.frameworks.django import StreamKitMiddleware

from .django_site import OURS
from .django_ways import INTERFACES, Site, Way, responding
from .programs import PRODUCERS, Wait, producer_of

GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"

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
    described = lambda: streamkit.stream(lambda stream: stream.write("a"), options={"heartbeat": 5})  # noqa: E731
    view = responding(kind, described)
    answer = site.client(view, STREAMKIT=options).get("/")
    assert (answer.headers["X-Site"], answer.read()) == ("1", b"a")
    answer.wait_closed()
    assert finished == ["finished"]


@VIEWS
def test_the_stream_of_a_wrapped_site_stands_in_meta(site: Site, kind: str) -> None:
    def stream_of(request: Any) -> Any:
        stream = request.META["streamkit.stream"]
        return stream.sync if site.interface == "asgi" else stream

    def view(request: Any) -> Any:
        stream_of(request).write("a")
        return HttpResponse("dropped")

    async def view_async(request: Any) -> Any:
        if site.interface == "asgi":
            await request.META["streamkit.stream"].write("a")
        else:
            request.META["streamkit.stream"].write("a")
        return HttpResponse("dropped")

    client = site.client(view if kind == "sync" else view_async, wrapped={})
    assert client.get("/").read() == b"a"


@pytest.mark.parametrize("interface", INTERFACES)
def test_synchronous_middleware_leaves_the_stream_in_meta(interface: str) -> None:
    def view(request: Any) -> Any:
        return HttpResponse(str("streamkit.stream" in request.META))

    above = f"{__name__}.SyncOnly"
    with Site(interface) as site:
        client = site.client(view, wrapped={}, first=above, middleware=[OURS])
        assert client.get("/").read() == b"True"


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


class SyncOnly:
    """As WhiteNoise's: what stands above it is made synchronous too."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)


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
    cache.clear()


def test_gzip_stays_where_it_is_asked_for(site: Site) -> None:
    view = responding("sync", lambda: streamkit.stream(["a" * 1000]))
    client = site.client(view, middleware=[GZIP], STREAMKIT={"strip": ("etag", "cache")})
    answer = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.read()) == b"a" * 1000


def test_without_the_middleware_a_stream_only_says_that_it_is_not_encoded(site: Site) -> None:
    view = responding("sync", lambda: streamkit.stream(["a"]))
    answer = site.client(view, first=None).get("/")
    assert (answer.headers["Content-Encoding"], answer.read()) == ("identity", b"a")


@pytest.mark.parametrize("below", [(), (f"{__name__}.SyncOnly",)], ids=["none", "sync only"])
@pytest.mark.parametrize("named", ["generator", "file"])
def test_an_ordinary_streaming_response_of_djangos_arrives_piece_by_piece(
    site: Site, named: str, below: tuple[str, ...]
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

    answer = site.client(view, middleware=below).get("/")
    assert answer.next_chunk() == b"a"
    arrived.set()
    assert (answer.read(), answer.complete) == (b"b", True)
    answer.wait_closed()
    assert closed.is_set()


class Shouting:
    """Synchronous, and at work on what passes through it."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        response.streaming_content = (piece.upper() for piece in response.streaming_content)
        return response


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_a_synchronous_middleware_above_ours_finds_an_ordinary_iterator(site: Site) -> None:
    def view(request: Any) -> Any:
        return StreamingHttpResponse(iter([b"a", b"b"]))

    chain = [f"{__name__}.Shouting", OURS, f"{__name__}.SyncOnly"]
    assert site.client(view, first=None, middleware=chain).get("/").read() == b"AB"


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
        client = site.client(responding(kind, lambda: streamkit.stream(producer_of(producer, program))))
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

    looks: list[int] = []

    def stands_still() -> bool:
        looks.append(len(made))
        return len(looks) > 20 and looks[-20] == looks[-1]

    answer = way.client(program, {"options": {"high_water": 4096}}).get("/")
    first = answer.next_chunk()
    assert until(stands_still)
    assert len(made) <= 16, "the body is read ahead of the client"
    assert len(first + answer.read()) == 1000 * 1024
    assert len(made) == 1000


def test_settings_of_other_tests_are_forgotten() -> None:
    with override_settings(STREAMKIT={"heartbeat": 1}, MIDDLEWARE=[OURS]):
        assert StreamKitMiddleware(lambda request: None).options.heartbeat == 1
    assert StreamKitMiddleware(lambda request: None).options.heartbeat == 15
