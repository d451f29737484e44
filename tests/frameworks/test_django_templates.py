"""Templates in Django: its Jinja2 backend in pieces, with the context that `render` gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

from streamkit.errors import ProducerError
from streamkit.testing import Client

pytest.importorskip("django")
pytest.importorskip("jinja2")
from django.contrib import messages
from django.db import connections
from django.http import HttpResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.test import override_settings
from django.urls import path
from django.utils import translation
from django.utils.functional import SimpleLazyObject
from jinja2 import DictLoader

from streamkit.frameworks.django import Templates

from .django_site import connected, database, fill
from .django_ways import INTERFACES, SESSIONS, Site
from .programs import read_up_to

PAGES = {
    "layout.html": "<title>{{ title }}</title>{% block body %}{% endblock %}</html>",
    "page.html": "{% extends 'layout.html' %}{% block body %}{{ request.path }} {{ shop }} {{ language() }}"
    "{% flush %}{{ wait() }}{{ request.path }} {{ language() }}{% endblock %}",
    "form.html": "<form>{% flush %}{% include 'token.html' %}</form>",
    "token.html": "{{ csrf_input }}",
    "flashing.html": "<h1>{% flush %}{% for message in messages %}[{{ message }}]{% endfor %}",
    "silent.html": "<h1>{% flush %}nothing",
    "around.html": "<h1>{% content %}</h1>",
    "deferred.html": "{% defer %}{{ rows() }} {{ language() }}{% placeholder %}…{% enddefer %}"
    "<p>{% flush %}{{ rows() }} {{ language() }}",
    "fails.html": "<p>{{ early() }}{% flush %}{{ late() }}",
}
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "NAME": "djangos"},
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "OPTIONS": {
            "loader": DictLoader(PAGES),
            "context_processors": [
                "frameworks.test_django_templates.shop",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def shop(request: Any) -> dict[str, str]:
    """A context processor; they go over what the view passes."""
    return {"shop": "Shop"}


class Shop:
    """A site whose one page is made by a function of its templates."""

    def __init__(self, site: Site, kind: str) -> None:
        self.site, self.kind = site, kind
        self.arrived = threading.Event()
        self.templates = Templates()

    def client(self, page: Any, **given: Any) -> Client:
        def view(request: Any) -> Any:
            return page(self, request)

        async def view_async(request: Any) -> Any:
            return page(self, request)

        def flash(request: Any) -> HttpResponse:
            messages.info(request, "hello")
            return HttpResponse("flashed")

        urls = [path("", view if self.kind == "sync" else view_async), path("flash", flash)]
        return self.site.client(urls, middleware=[SESSIONS, CSRF, MESSAGES], **given)

    def wait(self) -> str:
        assert self.arrived.wait(PATIENCE)
        return ""


WAYS = [(interface, kind) for interface in INTERFACES for kind in ("sync", "async")]


@pytest.fixture(params=WAYS, ids="-".join)
def a_shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    interface, kind = request.param
    given = {
        "TEMPLATES": TEMPLATES,
        "MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage",
    }
    with override_settings(**given), Site(interface) as site:
        yield Shop(site, kind)


def test_a_page_arrives_in_pieces_with_the_context_of_render(a_shop: Shop) -> None:
    def page(shop: Shop, request: Any) -> Any:
        given = {"wait": shop.wait, "title": "T", "shop": "Mine", "language": translation.get_language}
        if "whole" in request.GET:
            return render(request, "page.html", given, using="jinja2")
        with translation.override("de"):
            response = shop.templates.chunked(request, "page.html", context=given)
        response.set_cookie("seen", "1")
        return response

    client = a_shop.client(page)
    answer = client.get("/")
    assert read_up_to(answer, b"</title>") == b"<title>T</title>"
    assert answer.headers["Set-Cookie"].strip() == "seen=1; Path=/"
    assert read_up_to(answer, b"de") == b"/ Shop de"
    a_shop.arrived.set()
    assert answer.read() == b"/ de</html>"
    whole = client.get("/", query="whole=1").read()
    assert whole == b"<title>T</title>/ Shop en/ en</html>"


def test_the_token_of_a_form_has_its_cookie_although_it_comes_after_the_head(a_shop: Shop) -> None:
    def page(shop: Shop, request: Any) -> Any:
        return shop.templates.chunked(request, request.GET["page"])

    client = a_shop.client(page)
    form = client.get("/", query="page=form.html")
    assert form.headers["Set-Cookie"].strip().startswith("csrftoken=")
    assert form.next_chunk() == b"<form>"
    assert b'name="csrfmiddlewaretoken" value="' in form.read()
    silent = client.get("/", query="page=silent.html")
    assert "Set-Cookie" not in silent.headers, "a page without a form sets the cookie of one"
    silent.read()


def test_messages_are_shown_once_although_they_come_after_the_head(a_shop: Shop) -> None:
    def page(shop: Shop, request: Any) -> Any:
        if "around" in request.GET:
            return shop.templates.chunked(request, "flashing.html", layout="around.html")
        return shop.templates.chunked(request, request.GET["page"])

    client = a_shop.client(page)
    for query in ("page=flashing.html", "around=1"):
        cookie = client.get("/flash").headers["Set-Cookie"].strip().partition(";")[0]

        def get(query: str, cookie: str = cookie) -> bytes:
            return client.get("/", query=query, headers={"Cookie": cookie}).read()

        assert b"[" not in get("page=silent.html")
        assert b"[hello]" in get(query)
        assert b"[" not in get(query)


def test_what_a_page_does_not_name_is_not_asked_for(a_shop: Shop) -> None:
    def user() -> Any:  # as the `user` of `django.contrib.auth` is, which asks the database
        raise AssertionError("nobody wants to know")

    def page(shop: Shop, request: Any) -> Any:
        return shop.templates.chunked(request, "silent.html", user=SimpleLazyObject(user))

    answer = a_shop.client(page).get("/")
    assert answer.read() == b"<h1>nothing"
    assert "Vary" not in answer.headers


def test_deferred_blocks_have_the_language_and_leave_no_connection(a_shop: Shop) -> None:
    fill(3)

    def page(shop: Shop, request: Any) -> Any:
        given = {"rows": connected, "language": translation.get_language}
        with translation.override("de"):
            return shop.templates.chunked(request, "deferred.html", context=given)

    connections.close_all()
    answer = a_shop.client(page).get("/")
    assert answer.read().count(b"3 de") == 2
    answer.wait_closed()
    assert until(lambda: not database.open), f"still open: {database.open}"
    assert database.faults == []


def test_errors_are_djangos_until_the_first_piece_and_cut_the_page_after_it(a_shop: Shop) -> None:
    def fail() -> str:
        raise ZeroDivisionError("on purpose")

    def page(shop: Shop, request: Any) -> Any:
        if "missing" in request.GET:
            try:
                return shop.templates.chunked(request, ["none.html", "neither.html"])
            except TemplateDoesNotExist as error:
                return HttpResponse(f"{error} of {error.backend.name}")
        early = fail if "early" in request.GET else str
        return shop.templates.chunked(request, "fails.html", early=early, late=fail)

    client = a_shop.client(page)
    assert client.get("/", query="early=1").status == 500
    assert client.get("/", query="missing=1").read() == b"none.html, neither.html of jinja2"
    late = client.get("/")
    assert late.next_chunk() == b"<p>"
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        late.read()
    assert not late.complete


def test_a_page_may_be_sent_whole_and_be_the_first_that_exists(a_shop: Shop) -> None:
    def page(shop: Shop, request: Any) -> Any:
        return shop.templates.view(request, ["none.html", "silent.html"], status=201)

    answer = a_shop.client(page).get("/")
    assert (answer.status, answer.headers["Content-Length"]) == (201, "11")
    assert answer.read() == b"<h1>nothing"


def test_djangos_own_language_is_refused_with_what_to_do(a_shop: Shop) -> None:
    def page(shop: Shop, request: Any) -> Any:
        return Templates(using="djangos").chunked(request, "page.html")

    client = a_shop.client(page, DEBUG_PROPAGATE_EXCEPTIONS=False)
    assert client.get("/").status == 500
    with pytest.raises(ProducerError, match="own language are rendered whole, by render"):
        page(a_shop, None)
