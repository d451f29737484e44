"""Deferred blocks in text that somebody else gets hold of before the page: they stand in their place."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jinja2")

from jinja2 import Environment, nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension

import streamkit

from .pages import Pages
from .test_deferred import filled

MACRO = "{% macro m(n='') %}{% defer %}late{{ n }}{% placeholder %}w{% enddefer %}{% endmacro %}"
OUTER = MACRO + "{% macro outer() %}<{{ m() }}>{% endmacro %}"

CAPTURED = {
    "a macro in a filter": (MACRO + "{{ m()|upper }}", "LATE"),
    "a macro in two filters": (MACRO + "{{ m()|safe|upper }}", "LATE"),
    "a macro in a macro in a filter": (OUTER + "{{ outer()|upper }}", "<LATE>"),
    "a macro as an argument of a macro": (
        MACRO + "{% macro n(x) %}{{ x|upper }}{% endmacro %}{{ n(m()) }}",
        "LATE",
    ),
    "a macro in a filter block": (MACRO + "{% filter upper %}{{ m() }}{% endfilter %}", "LATE"),
    "a macro in a variable's block": (MACRO + "{% set x %}{{ m() }}{% endset %}{{ x|length }}", "4"),
    "a macro in a variable": (MACRO + "{% set x = m() %}{{ x|length }}", "4"),
    "a macro in a concatenation": (MACRO + "{{ 'a' ~ m() }}", "alate"),
    "a macro in a condition": (MACRO + "{% if 'late' == m() %}yes{% endif %}", "yes"),
    "a macro in a loop": (MACRO + "{% for c in m() %}{{ c }}.{% endfor %}", "l.a.t.e."),
    "a macro with context": ("{% from 'macros.html' import m with context %}{{ m()|upper }}", "LATE"),
    "a macro of a module": ("{% import 'macros.html' as f with context %}{{ f.m()|upper }}", "LATE"),
    "a module": ("{% import 'part.html' as f with context %}{{ (f ~ '')|upper }}", "LATE"),
    "an include in a filter block": ("{% filter upper %}{% include 'part.html' %}{% endfilter %}", "LATE"),
    "a block that a layout filters": (
        "{% extends 'shouting.html' %}{% block b %}{% defer %}late{% enddefer %}{% endblock %}",
        "LATE",
    ),
    "a parent's block": (
        "{% extends 'deferring.html' %}{% block b %}{{ super()|upper }}{% endblock %}",
        "LATE",
    ),
    "a block by name": ("{% block b %}{% defer %}late{% enddefer %}{% endblock %}{{ self.b()|upper }}", None),
    "a caller": (
        "{% macro m() %}{{ caller()|upper }}{% endmacro %}"
        "{% call m() %}{% defer %}late{% enddefer %}{% endcall %}",
        "LATE",
    ),
    "a recursive loop": (
        "{% for x in [[], [[]]] recursive %}{% defer %}a{% enddefer %}{{ loop(x)|upper }}{% endfor %}",
        "aaA",
    ),
    "what another extension holds": ("{% hold %}{% include 'part.html' %}{% endhold %}", "LATE"),
    "one in one": (
        "{% macro m() %}{% defer %}a{% defer %}b{% enddefer %}{% enddefer %}{% endmacro %}{{ m()|upper }}",
        "AB",
    ),
}

INTO_THE_PAGE = {
    "a macro": MACRO + "{{ m() }}",
    "a macro in a macro": OUTER + "{{ outer() }}",
    "a macro that is safe anyway": MACRO + "{{ m()|e|safe }}",
    "a macro on a condition": MACRO + "{{ m() if true else m() }}",
    "a macro in a deferred block's neighbour": MACRO + "{{ m()|upper }}{{ m(1) }}",
    "after a filter block": "{% filter upper %}a{% endfilter %}{% include 'part.html' %}",
    "after a variable": "{% set x %}a{% endset %}{% include 'part.html' %}",
    "after an import": "{% import 'macros.html' as f with context %}{{ f.m() }}",
    "a parent's block": "{% extends 'deferring.html' %}{% block b %}{{ super() }}{% endblock %}",
}


class Hold(Extension):
    """`{% hold %}`, which does something with the text between, as one that caches does."""

    tags = {"hold"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endhold",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_held"), [], [], body, lineno=lineno)

    def _held(self, caller: Any) -> Any:
        if self.environment.is_async:
            return self._held_async(caller)
        return caller().upper()

    async def _held_async(self, caller: Any) -> Any:
        return (await caller()).upper()


@pytest.fixture
def parts(pages: Pages) -> Pages:
    pages.environment.add_extension(Hold)
    pages.add("part.html", "{% defer %}late{% enddefer %}")
    pages.add("macros.html", MACRO)
    pages.add("shouting.html", "{% filter upper %}{% block b %}{% endblock %}{% endfilter %}")
    pages.add("deferring.html", "{% block b %}{% defer %}late{% enddefer %}{% endblock %}")
    return pages


@pytest.mark.parametrize("what", CAPTURED)
def test_a_block_in_captured_text_stands_in_its_place(parts: Pages, what: str) -> None:
    source, wanted = CAPTURED[what]
    parts.add("page.html", source)
    body = parts.get(lambda t: t.chunked("page.html")).finish().body.decode()
    if what == "a block by name":  # once in the page, and once captured
        assert filled(body) == "lateLATE"
    elif what == "a recursive loop":
        assert filled(body) == wanted
    else:
        assert body == wanted


@pytest.mark.parametrize("what", INTO_THE_PAGE)
def test_a_block_in_text_that_goes_into_the_page_is_deferred(parts: Pages, what: str) -> None:
    parts.add("page.html", INTO_THE_PAGE[what])
    body = parts.get(lambda t: t.chunked("page.html")).finish().body.decode()
    assert body.count("<sk-placeholder") == 1
    assert "late" in filled(body)


def test_a_compiler_of_the_applications_own_is_kept() -> None:
    class Own(CodeGenerator):
        pass

    for is_async in (False, True):
        environment = Environment(enable_async=is_async)
        environment.code_generator_class = Own
        streamkit.Templates(environment)
        made = environment.code_generator_class
        assert issubclass(made, Own)
        streamkit.Templates(environment)
        assert environment.code_generator_class is made
