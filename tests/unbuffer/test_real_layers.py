"""Real layers, from the package index: what they hold without us, and no longer hold with us.

Rule: a layer is judged by the order in which chunks were made and read; a page by all its bytes.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.version import Version

import streamkit
from streamkit import unbuffer

from .layered import AT_ONCE, Drip, Page, Seen, wanted
from .stacks import STACKS, Stack

LONG = 10.0  # seconds that a chunk may wait for its reader; only a defect lets them pass
SHORT = 0.1


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Stack]:
    found = STACKS[request.param]
    wanted(pytestconfig, *found.packages)
    if "django" not in found.packages:
        yield found
        return
    settings = pytest.importorskip("django.test").override_settings
    with settings(**importlib.import_module(".django_pages", __package__).SETTINGS):
        yield found


def passes(stack: Stack) -> bool:
    """Whether the installed version of the layer holds no streams."""
    if stack.streams_from is None:
        return stack.passes
    name, version = stack.streams_from
    return Version(metadata.version(name)) >= Version(version)


def wrapped(stack: Stack, drip: Drip) -> object:
    strip = ("etag", "gzip", "cache", *stack.names)
    return streamkit.wrap(stack.make(drip), strip=strip, kind=stack.kind)


def test_without_us_the_first_chunk_comes_only_at_the_end(stack: Stack) -> None:
    if passes(stack):
        pytest.skip("this version of the layer passes each chunk on by itself")
    drip = Drip(SHORT)
    try:
        Seen(stack.make(drip), drip, stack.accept, stack.kind)
    except Exception:
        assert stack.breaks
    if "got 0" in drip.log and not stack.breaks:
        assert drip.log.index("got 0") > drip.log.index("made 2")
    else:
        assert stack.breaks


def test_with_us_each_chunk_comes_before_the_next_is_made(stack: Stack) -> None:
    drip = Drip(LONG)
    seen = Seen(wrapped(stack, drip), drip, stack.accept, stack.kind)
    assert drip.log == AT_ONCE
    assert seen.status == 200
    assert "ETag" not in seen.headers
    assert "Content-Length" not in seen.headers
    assert seen.headers.get("X-App", "kept") == "kept"


def test_a_page_has_the_same_bytes_and_headers_as_without_us(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.7e9)  # it stands in the header of gzip
    if "django" in stack.packages:
        gzip = importlib.import_module("django.middleware.gzip").GZipMiddleware
        monkeypatch.setattr(gzip, "max_random_bytes", 0)  # of padding, against BREACH
    with_us, without = wrapped(stack, Drip(SHORT)), stack.make(Drip(SHORT))
    if stack.lazy:
        with_us = unbuffer.strip(stack.make(Drip(SHORT)))
    pages = []
    for app in (with_us, without):
        pages.append([Page(app, stack.accept, stack.kind) for _ in range(2)])  # a cache may have the second
        if "django" in stack.packages:
            importlib.import_module("django.core.cache").cache.clear()
    if stack.repeats:
        assert pages[0] == pages[1]
    else:
        assert [page.headers for page in pages[0]] == [page.headers for page in pages[1]]


def test_the_report_names_the_layer(stack: Stack) -> None:
    app = wrapped(stack, Drip(SHORT))
    report = unbuffer.report(app)
    assert not report.held
    found = report.passes if passes(stack) else report.taken
    assert len(found) == stack.layers, report
    assert len(report.taken) + len(report.passes) == stack.layers
