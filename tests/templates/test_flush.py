"""Where pieces end: at a flush, when 16 KiB are together, and when something has waited for a moment."""

from __future__ import annotations

import itertools

import pytest
from driving import until

import streamkit

from .pages import Pages, pieces

PIECE = 16 * 1024

# Each has to have sent "a" before the gate is opened.
PLACES = {
    "the page": "a{% flush %}{{ gate('slow') }}b",
    "a loop": "{% for x in 'ab' %}{{ x }}{% flush %}"
    "{% if loop.first %}{{ gate('slow') }}{% endif %}{% endfor %}",
    "an include": "a{% include 'flush.html' %}{{ gate('slow') }}b",
    "an include without context": "a{% include 'flush.html' without context %}{{ gate('slow') }}b",
    "a macro": "{% macro m() %}{% flush %}{{ gate('slow') }}{% endmacro %}a{{ m() }}b",
    "an imported macro": "{% from 'macros.html' import m %}a{{ m(gate) }}b",
    "a call block": "{% macro m() %}{{ caller() }}{% endmacro %}"
    "a{% call m() %}{% flush %}{{ gate('slow') }}{% endcall %}b",
    "a set block": "a{% set x %}{% flush %}{{ gate('slow') }}{% endset %}{{ x }}b",
    "a filter block": "a{% filter upper %}{% flush %}{{ gate('slow') }}{% endfilter %}b",
    "a block": "a{% block x %}{% flush %}{{ gate('slow') }}b{% endblock %}",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_flush_sends_what_stands_before_it(pages: Pages, place: str):
    pages.add("flush.html", "{% flush %}")
    pages.add("macros.html", "{% macro m(gate) %}{% flush %}{{ gate('slow') }}{% endmacro %}")
    pages.add("page.html", PLACES[place])
    answer = pages.get(lambda t: t.chunked("page.html"))
    assert answer.read() == b"a"
    pages.open("slow")
    assert answer.rest().decode() in ("slowb", "SLOWb")


def test_what_captures_a_flush_gets_no_trace_of_it(pages: Pages):
    pages.add(
        "page.html",
        "{% macro m() %}x{% flush %}y{% endmacro %}{% set a = m() %}{{ a|length }}{{ m()|upper }}"
        "{% set b %}u{% flush %}v{% endset %}{{ b|length }}"
        "{% filter reverse|list|length|string %}p{% flush %}q{% endfilter %}",
    )
    assert pages.get(lambda t: t.chunked("page.html")).finish().body == b"2XY22"


def test_text_that_waits_is_sent_while_the_template_is_in_a_slow_value(pages: Pages):
    pages.add("page.html", "{% for x in 'ab' %}<{{ x }}>{{ gate(x) }}{% endfor %}")
    answer = pages.get(lambda t: t.chunked("page.html"))
    assert answer.read() == b"<a>"
    pages.open("a")
    assert answer.read() == b"a<b>"
    pages.open("b")
    assert answer.rest() == b"b"


def test_a_slow_value_before_all_text_leaves_the_status_open(pages: Pages):
    pages.add("page.html", "{{ gate('slow') }}{{ 1 // 0 }}")
    answer = pages.get(lambda t: t.chunked("page.html"))
    pages.wait_for("slow")
    pages.open("slow")
    answer.finish()
    assert isinstance(answer.error, ZeroDivisionError)
    assert not answer.committed


def test_a_long_table_comes_in_pieces_of_some_16_kib(pages: Pages):
    pages.add(
        "page.html", "{% for n in range(20000) %}<tr><td>{{ n }}</td><td>{{ n + 1 }}</td></tr>\n{% endfor %}"
    )
    found = pieces(pages.get(lambda t: t.chunked("page.html")))
    wanted = "".join(f"<tr><td>{n}</td><td>{n + 1}</td></tr>\n" for n in range(20000))
    assert "".join(found) == wanted
    assert len(found) <= 2 * len(wanted) / PIECE
    assert max(map(len, found)) < 2 * PIECE


def test_of_long_texts_no_more_are_together_than_make_a_piece(pages: Pages):
    pages.add("page.html", "{% for n in range(500) %}{{ text }}{% endfor %}")
    found = pieces(pages.get(lambda t: t.chunked("page.html", text="x" * 5000)))
    assert sum(map(len, found)) == 2_500_000
    assert max(map(len, found[3:])) <= 2 * PIECE


def test_text_of_any_kind_arrives_as_utf_8(pages: Pages):
    pages.add("page.html", "{{ text }}")
    text = "äöü€\U0001f600" * 5000
    answer = pages.get(lambda t: t.chunked("page.html", text=text)).finish()
    assert answer.body.decode() == text
    whole = pages.get(lambda t: t.view("page.html", text=text)).finish()
    assert whole.body.decode() == text
    assert whole.header("Content-Length") == str(len(whole.body))


def test_a_client_that_leaves_ends_the_rendering_at_one_of_its_next_pieces(pages: Pages):
    pages.add("page.html", "{% for n in numbers %}{{ n }}{% flush %}{% endfor %}")
    ended: list[str] = []
    answer = pages.get(
        lambda t: t.chunked("page.html", numbers=itertools.count(), callback=lambda: ended.append("ended"))
    )
    assert answer.read().startswith(b"0")
    answer.leave()
    answer.through()
    assert until(lambda: ended == ["ended"])


def test_a_plain_rendering_has_everything_in_its_place_and_no_trace_of_the_tags(pages: Pages):
    streamkit.Templates(pages.environment)
    pages.add(
        "page.html",
        "a{% flush %}{% defer %}d{% placeholder %}p{% enddefer %}{% content %}"
        "{% slots %}{% defer %}e{% enddefer %}{% endslots %}"
        "{% macro m() %}{% flush %}m{% endmacro %}{{ m() }}",
    )
    assert pages.environment.get_template("page.html").render() == "adem"


def test_a_template_that_is_rendered_within_a_page_has_its_own_blocks_in_place(pages: Pages):
    if pages.way.is_async:
        pytest.skip("an asynchronous template cannot be rendered on a loop")
    pages.add("mail.html", "{% defer %}<d>{% placeholder %}p{% enddefer %}")
    pages.add("page.html", "[{{ mail() }}]")
    environment = pages.environment
    answer = pages.get(
        lambda t: t.chunked("page.html", mail=lambda: environment.get_template("mail.html").render())
    )
    assert answer.finish().body == b"[&lt;d&gt;]"
