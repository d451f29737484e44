"""Templates in Starlette and FastAPI: in pieces, with the context of `Jinja2Templates.TemplateResponse`."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.errors import ProducerError
from streamkit.testing import Client

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
from jinja2 import DictLoader, Environment
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from streamkit.frameworks.starlette import Templates

from .programs import read_up_to

PAGES = {
    "layout.html": "<title>{{ title }}</title>{% block body %}{% endblock %}</html>",
    "page.html": "{% extends 'layout.html' %}{% block body %}{{ request.url.path }} {{ user }} "
    "{{ url_for('named', name='x').path }}{% flush %}{{ wait() }}{{ request.url.path }}{% endblock %}",
    "fails.html": "<p>{{ early() }}{% flush %}{{ late() }}",
    "waiting.html": "<p>{% defer %}{{ wait() }}{% placeholder %}…{% enddefer %}{% flush %}",
    "deferred.html": "<p>{% defer %}{{ url_for('named', name='d').path }}{% placeholder %}…{% enddefer %}",
}
KINDS = ["sync", "async"]


class Shop:
    """An app whose one page is made by a function of its templates."""

    def __init__(self, page: Any, *, endpoint: str = "async", environment: str = "sync") -> None:
        made = Environment(loader=DictLoader(PAGES), autoescape=True, enable_async=environment == "async")
        self.starlettes = Jinja2Templates(env=made, context_processors=[lambda request: {"user": "ann"}])
        self.templates = Templates(self.starlettes)
        self.arrived = threading.Event()

        async def answer_async(request: Request) -> Any:
            return page(self, request)

        def answer(request: Request) -> Any:
            return page(self, request)

        async def pass_on(request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["X-Middleware"] = "1"
            return response

        async def handle(request: Request, error: Exception) -> Any:
            return PlainTextResponse("handled", 500)

        async def named(request: Request) -> Any:
            return PlainTextResponse("named")

        routes = [
            Route("/", answer_async if endpoint == "async" else answer),
            Route("/named/{name}", named, name="named"),
        ]
        self.app = streamkit.wrap(
            Starlette(
                routes=routes,
                middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
                exception_handlers={ZeroDivisionError: handle},
            )
        )

    def wait(self) -> str:
        assert self.arrived.wait(PATIENCE)
        return ""


@pytest.mark.parametrize("endpoint", KINDS)
def test_a_page_arrives_in_pieces_with_the_context_of_template_response(endpoint: str) -> None:
    def page(shop: Shop, request: Request) -> Any:
        if "whole" in request.query_params:
            return shop.starlettes.TemplateResponse(request, "page.html", {"wait": shop.wait, "title": "T"})
        response = shop.templates.chunked(request, "page.html", wait=shop.wait, context={"title": "T"})
        response.set_cookie("seen", "1")
        return response

    shop = Shop(page, endpoint=endpoint)
    with Client(shop.app) as client:
        answer = client.get("/")
        first = read_up_to(answer, b"/named/x")
        assert first == b"<title>T</title>/ ann /named/x"
        assert (answer.headers["X-Middleware"], answer.headers["Set-Cookie"].partition(";")[0]) == (
            "1",
            "seen=1",
        )
        shop.arrived.set()
        assert first + answer.read() == client.get("/", query="whole=1").read()


@pytest.mark.parametrize("environment", KINDS)
def test_pages_of_either_environment_are_sent_and_their_values_awaited(environment: str) -> None:
    async def title() -> str:
        return "awaited"

    def page(shop: Shop, request: Request) -> Any:
        shop.arrived.set()
        given = title() if environment == "async" else "plain"
        return shop.templates.chunked(request, "page.html", wait=shop.wait, title=given)

    with Client(Shop(page, environment=environment).app) as client:
        given = "awaited" if environment == "async" else "plain"
        assert client.get("/").read() == f"<title>{given}</title>/ ann /named/x/</html>".encode()


def test_a_page_may_be_sent_whole_with_its_length() -> None:
    def page(shop: Shop, request: Request) -> Any:
        shop.arrived.set()
        if "no_chunk" in request.query_params:
            shop.templates.no_chunk()
            return shop.templates.chunked(request, "page.html", wait=shop.wait)
        return shop.templates.view(request, "page.html", wait=shop.wait, status=201)

    with Client(Shop(page).app) as client:
        whole = client.get("/")
        assert whole.status == 201
        assert int(whole.headers["Content-Length"]) == len(whole.read())
        assert "Content-Length" in client.get("/", query="no_chunk=1").headers


def test_deferred_blocks_and_fragments_have_the_request() -> None:
    def page(shop: Shop, request: Request) -> Any:
        if "fragment" in request.query_params:
            return PlainTextResponse(shop.templates.fragment(request, "deferred.html"))
        return shop.templates.chunked(request, "deferred.html")

    with Client(Shop(page).app) as client:
        assert b"/named/d" in client.get("/").read()
        assert client.get("/", query="fragment=1").read() == b"<p>/named/d"


def test_a_request_is_over_when_the_deferred_blocks_of_a_client_that_left_are() -> None:
    begun, ended = threading.Event(), threading.Event()

    def page(shop: Shop, request: Request) -> Any:
        def wait() -> str:
            begun.set()
            assert shop.arrived.wait(PATIENCE)
            ended.set()
            return ""

        return shop.templates.chunked(request, "waiting.html", wait=wait)

    shop, over = Shop(page), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await shop.app(scope, receive, send)
        finally:
            assert ended.is_set(), "what it uses may be closed under it"
            over.set()

    with Client(app) as client:
        answer = client.get("/")
        assert answer.next_chunk()
        assert begun.wait(PATIENCE)
        answer.disconnect()
        assert not over.wait(0.05)
        shop.arrived.set()
        answer.wait_closed()
        assert over.wait(PATIENCE)


def test_an_error_is_the_apps_until_the_first_piece_and_cuts_the_page_after_it() -> None:
    def fail() -> str:
        raise ZeroDivisionError("on purpose")

    def fail_late() -> str:
        raise LookupError("on purpose")

    def page(shop: Shop, request: Request) -> Any:
        early = fail if "early" in request.query_params else str
        return shop.templates.chunked(request, "fails.html", early=early, late=fail_late)

    with Client(Shop(page).app) as client:
        early = client.get("/", query="early=1")
        assert (early.status, early.read()) == (500, b"handled")
        late = client.get("/")
        assert late.next_chunk() == b"<p>"
        with pytest.raises(LookupError, match="on purpose"):
            late.read()
        assert not late.complete


def test_what_are_no_templates_of_starlettes_is_refused() -> None:
    with pytest.raises(ProducerError, match=r"wanted starlette\.templating\.Jinja2Templates, got <jinja2"):
        Templates(Environment())


@pytest.mark.server
def test_a_fastapi_endpoint_returns_a_page_as_it_is() -> None:
    fastapi = pytest.importorskip("fastapi")
    from streamkit.frameworks.fastapi import Templates as FastAPITemplates

    app = fastapi.FastAPI()
    made = Environment(loader=DictLoader({"page.html": "{{ request.path_params['name'] }}{% flush %}!"}))
    templates = FastAPITemplates(Jinja2Templates(env=made))

    def page(name: str, request: Any) -> Any:
        return templates.chunked(request, "page.html")

    page.__annotations__["request"] = Request
    app.add_api_route("/{name}", page)
    with Client(app) as client:
        answer = client.get("/ann")
        assert (answer.next_chunk(), answer.read()) == (b"ann", b"!")
