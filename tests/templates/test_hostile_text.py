"""Autoescaping is never weakened: whatever the text, a page has the elements that its template wrote.

Rule: a page with hostile text is compared, as html5lib's parser sees it, with the same page with harmless
text. Neither may have an element or an attribute more than the other, and the text is there as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streamkit
from streamkit.errors import OptionsError
from streamkit.syntax import check_value
from streamkit.testing import Client

html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")

HARMLESS = "words"
WORDS = """<|>|"|'|=|&|-|--|!|/|]|`| |\n|\t|{{|}}|{%|%}|</script>|<script>alert(1)</script>|-->|
<!--|<![CDATA[|<p>|</p>|</template>|<template>|</sk-placeholder>|<slot name=|</slot>|</span>|</div>|
</textarea>|<img src=x onerror=alert(1)>| onload=alert(1) |javascript:|&lt;|&quot;|&#60;|$sk(|</body>"""
TEXT = st.lists(st.sampled_from(WORDS.split("|")) | st.text(max_size=3), min_size=1, max_size=5).map("".join)
LINK = re.compile(r"</(?:style\.css|a\.js)\?q=[!#-;=?-\[\]_a-z~%]*>; rel=preload; as=(?:style|script)")
IDS = re.compile(r"sk-[0-9a-f]{12}-\d+")

SOURCES = {
    "layout.html": """<!DOCTYPE html><html><head><title>{{ text }}</title>
<link rel="stylesheet" href="/style.css?q={{ text }}"><script src='/a.js?q={{ text }}'></script></head>
<body class="{{ text }}"><!-- a page -->{% flush %}{% content %}<p>{{ text }}</p></body></html>""",
    "base.html": """<!DOCTYPE html><html><head><title>{{ text }}</title></head>
<body>{% block content %}{% endblock %}<p>{{ text }}</p></body></html>""",
    "content.html": "<p title='{{ text }}'>{{ text }}{% flush %}</p><b>{{ delayed }}</b>",
    "deferred.html": """{% extends "base.html" %}{% block content %}{% for each in [text, text] %}<div id=a>
{% defer %}<i title="{{ each }}">{{ each }}</i>{% placeholder %}<u class='{{ each }}'>{{ text }}</u>
{% enddefer %}</div>{% endfor %}{% defer %}{{ text }}{% enddefer %}
{% macro m(a) %}{% defer %}<em>{{ a }}</em>{% enddefer %}{% endmacro %}{{ m(text) }}{% endblock %}""",
    "slots.html": """{% extends "base.html" %}{% block content %}{% slots %}<div>{{ text }}{% defer %}
<i title="{{ text }}">{{ text }}</i>{% placeholder %}<u>{{ text }}</u>{% enddefer %}</div>{% endslots %}
{% endblock %}""",
    "captured.html": """{% extends "base.html" %}{% block content %}
{% set a %}<s>{{ text }}{% flush %}</s>{% endset %}{{ a }}
{% filter trim %}<tt>{{ text }}{% defer %}<i>{{ text }}</i>{% enddefer %}</tt>{% endfilter %}
{% call wrap() %}<q>{{ text }}{% defer %}<i>{{ text }}</i>{% enddefer %}</q>{% endcall %}{% endblock %}
{% macro wrap() %}<div>{{ caller() }}</div>{% endmacro %}""",
    "fails.html": """{% extends "base.html" %}{% block content %}<p>{{ text }}</p>{% flush %}
<p title="{{ text }}{{ fail(text) }}">{% endblock %}""",
    "fails-in-text.html": """{% extends "base.html" %}{% block content %}<textarea>{{ text }}{% flush %}
{{ text }}{{ fail(text) }}</textarea>{% endblock %}""",
    "fails-deferred.html": """{% extends "base.html" %}{% block content %}<p>{{ text }}</p>
{% defer %}<i>{{ fail(text) }}</i>{% placeholder %}{{ text }}{% enddefer %}{% endblock %}""",
    "notice.html": "<strong title='{{ error }}'>{{ error }}</strong>",
}  # fmt: skip


class Failure(RuntimeError):
    """What a template raises here, with the text."""


def fail(text: str) -> str:
    raise Failure(text)


def templates_of(*, is_async: bool) -> streamkit.Templates:
    loader = jinja2.DictLoader(SOURCES)
    environment = jinja2.Environment(loader=loader, autoescape=True, enable_async=is_async)
    environment.globals["fail"] = fail
    return streamkit.Templates(environment, {"on_failure": "finish"})


WAYS = [(kind, is_async) for kind in ("wsgi", "asgi") for is_async in (False, True)]
TEMPLATES = {is_async: templates_of(is_async=is_async) for is_async in (False, True)}
PAGES = [
    "deferred.html",
    "slots.html",
    "captured.html",
    "fails.html",
    "fails-in-text.html",
    "fails-deferred.html",
]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{'async' if way[1] else 'sync'}", scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    kind, is_async = request.param
    site = Site(kind, TEMPLATES[is_async])
    with Client(site.app, kind=kind, lifespan="off", read_ahead=100) as client:
        site.client = client
        yield site


class Site:
    """An app that answers with what a test describes."""

    client: Client

    def __init__(self, kind: str, templates: streamkit.Templates) -> None:
        self.templates = templates
        self.response: Any = None

        def wsgi(environ: Any, start_response: Any) -> Any:
            return self.response(environ, start_response)

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await self.response(scope, receive, send)

        self.app: Any = wsgi if kind == "wsgi" else asgi

    def answer(self, response: Any) -> tuple[Any, str]:
        """The headers and the page."""
        self.response = response
        with self.client.get("/") as connection:
            body = connection.read().decode("utf-8", "surrogateescape")
            return connection.headers, body

    def body(self, response: Any) -> str:
        return self.answer(response)[1]


def elements(page: str) -> Counter[tuple[str, ...]]:
    """How often each element is there: its name, those of its attributes and of what it stands in."""
    found: Counter[tuple[str, ...]] = Counter()

    def walk(element: Element, above: tuple[str, ...]) -> None:
        tag = str(element.tag).rpartition("}")[2]
        found[(*above, tag, *sorted(element.keys()))] += 1
        for child in element:
            if isinstance(child.tag, str):
                walk(child, (*above, tag))
            else:
                found[("comment", child.text or "")] += 1

    for scripting in (True, False):
        walk(html5lib.HTMLParser().parse(IDS.sub("sk", page), scripting=scripting), ())
    return found


def assert_only_text_differs(hostile: str, harmless: str) -> None:
    assert elements(hostile) == elements(harmless)


SETTINGS = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", PAGES)
@SETTINGS
@given(text=TEXT)
def test_no_text_adds_an_element_or_an_attribute_to_a_page(site: Site, name: str, text: str) -> None:
    hostile, harmless = (site.body(site.templates.chunked(name, text=words)) for words in (text, HARMLESS))
    assert_only_text_differs(hostile, harmless)


@SETTINGS
@given(text=TEXT)
def test_nor_to_a_layout_its_content_and_what_was_delayed(site: Site, text: str) -> None:
    def page(words: str) -> str:
        delay = [lambda: {"delayed": words}]
        return site.body(
            site.templates.chunked("content.html", layout="layout.html", delay=delay, text=words)
        )

    assert_only_text_differs(page(text), page(HARMLESS))


@SETTINGS
@given(text=TEXT)
def test_nor_by_a_content_that_is_no_template(site: Site, text: str) -> None:
    def pages(words: str) -> Iterator[str]:
        for content in (words, [words, words], lambda: words, lambda: [words]):
            yield site.body(site.templates.chunked(content=content, layout="layout.html", text=words))
            yield site.body(site.templates.chunked(content=content))

    for hostile, harmless in zip(pages(text), pages(HARMLESS), strict=True):
        assert_only_text_differs(hostile, harmless)


@pytest.mark.parametrize("name", ["fails.html", "fails-deferred.html", "fails-in-text.html"])
@SETTINGS
@given(text=TEXT)
def test_nor_by_a_notice_of_the_error(site: Site, name: str, text: str) -> None:
    if site.templates.environment.is_async:

        async def notice(stream: Any, error: BaseException) -> None:
            await stream.write(await site.templates.fragment("notice.html", error=error))
    else:

        def notice(stream: Any, error: BaseException) -> None:
            stream.write(site.templates.fragment("notice.html", error=error))

    def page(words: str) -> str:
        return site.body(site.templates.chunked(name, text=words, on_error=notice))

    assert_only_text_differs(page(text), page(HARMLESS))


@pytest.mark.parametrize("name", PAGES[:3])
@SETTINGS
@given(text=TEXT)
def test_a_page_in_pieces_says_what_a_whole_one_says(site: Site, name: str, text: str) -> None:
    in_pieces = site.body(site.templates.chunked(name, text=text, defer=False))
    assert in_pieces == site.body(site.templates.view(name, text=text))


@SETTINGS
@given(text=TEXT)
def test_a_link_to_preload_has_no_more_than_its_address(site: Site, text: str) -> None:
    page = site.templates.chunked("content.html", layout="layout.html", preload=True, text=text)
    links = site.answer(page)[0].getlist("Link")
    for link in links:
        check_value("Link", link)
        assert LINK.fullmatch(link), link
    quiet = site.templates.chunked("content.html", layout="layout.html", preload=True, text="a")
    assert len(site.answer(quiet)[0].getlist("Link")) == 2


@SETTINGS
@given(text=TEXT)
def test_what_is_no_nonce_never_reaches_a_page(site: Site, text: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", text):
        page = site.body(site.templates.chunked("deferred.html", text=HARMLESS, nonce=text))
        assert elements(page) == elements(
            site.body(site.templates.chunked("deferred.html", text=HARMLESS, nonce="a"))
        )
        return
    with pytest.raises(OptionsError, match="nonce: wanted"):
        site.templates.chunked("deferred.html", text=HARMLESS, nonce=text)


@pytest.mark.parametrize("name", ["fails.html", "fails-deferred.html"])
def test_an_error_page_of_the_app_s_own_is_reached_with_the_nonce_of_the_page(site: Site, name: str) -> None:
    options = {"completion": {"text/html": streamkit.html_completion("/oops.html")}, "on_failure": "finish"}
    templates = streamkit.Templates(site.templates.environment, options)
    page = site.body(templates.chunked(name, text=HARMLESS, nonce="bm9uY2U="))
    assert '<script nonce="bm9uY2U=">window.location.replace(new URL("/oops.html"' in page
