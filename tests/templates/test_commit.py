"""The head of a page that is gathered: hooks, cookies, slow clients."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from driving import AsgiServer, WsgiServer

import streamkit

from .pages import Pages

WRAPPED = [pytest.param(name, id=name) for name in ("wsgi", "asgi")]


@pytest.fixture
def wrapped(pages: Pages) -> Pages:
    if not pages.way.wrapped:
        pytest.skip("only a wrapped app has a stream of the request's own")
    return pages


def served(pages: Pages, prepare: Any, **wishes: Any) -> Any:
    templates = streamkit.Templates(pages.environment)

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        prepare(environ["streamkit.stream"])
        return templates.chunked("page.html", **wishes)(environ, start_response)

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        prepare(scope["streamkit.stream"])
        await templates.chunked("page.html", **wishes)(scope, receive, send)

    server: Any = WsgiServer(streamkit.wrap(wsgi_app))
    if pages.way.interface == "asgi":
        server = AsgiServer(streamkit.wrap(asgi_app))
    return pages.servers.enter_context(server).request()


def test_hooks_of_the_commit_run_before_text_that_has_waited_is_sent(wrapped: Pages):
    wrapped.add("page.html", "a{{ gate('slow') }}b")

    def prepare(stream: Any) -> None:
        @stream.on_commit
        def add(stream: Any) -> None:
            stream.headers["X-Hook"] = "ran"
            stream.set_cookie("c", "v")

    answer = served(wrapped, prepare)
    assert answer.read() == b"a"
    assert answer.header("X-Hook") == "ran"
    wrapped.open("slow")
    assert answer.rest() == b"slowb"
    assert len(answer.values("Set-Cookie")) == 1


@pytest.mark.parametrize("source", ["a{{ gate('slow') }}b", "a{% flush %}{{ gate('slow') }}b", "a"])
def test_a_hook_of_the_commit_that_raises_is_an_error_of_the_page(wrapped: Pages, source: str):
    wrapped.add("page.html", source)
    wrapped.open("slow")

    def prepare(stream: Any) -> None:
        @stream.on_commit
        def fail(stream: Any) -> None:
            raise LookupError("hook")

    answer = served(wrapped, prepare).finish()
    assert isinstance(answer.error, LookupError)
    assert not answer.committed


@pytest.mark.parametrize("interface", WRAPPED)
def test_a_client_that_reads_slowly_has_the_template_wait_for_it(interface: str):
    made: list[int] = []

    def rows() -> Any:
        for n in range(4000):
            made.append(n)
            yield n

    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"p": "{% for n in rows %}{{ n }}:{{ x }}{% endfor %}"})
    )
    templates = streamkit.Templates(environment, {"high_water": 64 * 1024})
    response = templates.chunked("p", rows=rows(), x="x" * 1000)
    server: Any = WsgiServer(response) if interface == "wsgi" else AsgiServer(response)
    with server as running:
        answer = running.request(window=0)
        assert answer.read().startswith(b"0:")
        assert len(made) < 1000
        rest = answer.rest()
        assert rest.endswith(b"x" * 1000)
        assert len(made) == 4000
