"""Jinja's corners: what a deferred block may hold and stand in, and gives what it gives in its place."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import jinja2
import pytest
from driving import PATIENCE, until
from jinja2.nativetypes import NativeEnvironment

import streamkit
from streamkit.testing import Client

from .pages import Pages
from .test_deferred import filled

PARTS = {
    "base.html": "<body>B{% flush %}{% block a %}{% defer %}base{% enddefer %}{% flush %}{% endblock %}"
    "{% block b %}b{% endblock %}</body>",
    "middle.html": "{% extends 'base.html' %}"
    "{% block a %}m[{% flush %}{{ super() }}{% flush %}]{% endblock %}",
    "macros.html": "{% macro f(x) %}({% defer %}{{ x }}{% placeholder %}w{% enddefer %}){% endmacro %}",
    "counted.html": "{% defer %}{{ ns.i }}{% enddefer %}",
}
COUNTED = "{% set ns = namespace(i=0) %}{% for x in 'abc' %}{% set ns.i = ns.i + 1 %}"
TREE = [{"n": 1, "c": [{"n": 2, "c": [{"n": 3}]}]}, {"n": 4}]
SAME = {
    "three templates with super": (
        "{% extends 'middle.html' %}{% block a %}p({% flush %}{{ super() }}){% endblock %}"
        "{% block b %}{{ self.a() }}{% endblock %}",
        "<body>Bp(m[base])p(m[base])</body>",
    ),
    "super in a deferred block": (
        "{% extends 'middle.html' %}{% block a %}{% defer %}d{{ super() }}{% enddefer %}{% endblock %}",
        "<body>Bdm[base]b</body>",
    ),
    "a block of its own in a deferred block": (
        "{% block a %}{% defer %}x{% enddefer %}{% endblock %}{% defer %}{{ self.a() }}{% enddefer %}",
        "xx",
    ),
    "a module in a deferred block": (
        "{% import 'macros.html' as m with context %}{% defer %}{{ m.f(1) }}{% enddefer %}{{ m.f(2) }}",
        "(1)(2)",
    ),
    "a recursive loop": (
        "{% for v in 'pq' %}{% for x in tree recursive %}{% defer %}{{ v }}{{ x.n }}"
        "{% if x.c %}({{ loop(x.c) }}){% endif %}{% enddefer %}{% endfor %}{% endfor %}",
        "p1(p2(p3))p4q1(q2(q3))q4",
    ),
    "a recursive loop that the page goes on with": (
        "{% for x in tree recursive %}{% defer %}{{ x.n }}{{ loop.depth }}{% enddefer %}"
        "{% if x.c %}<{{ loop(x.c) }}>{% endif %}{% endfor %}",
        "11<22<33>>41",
    ),
    "a filter": (
        "{% filter upper %}a{% flush %}{% defer %}d{% placeholder %}w{% enddefer %}{% endfilter %}",
        "AD",
    ),
    "a captured text that is used twice": (
        "{% set x %}{% flush %}{% defer %}d{% placeholder %}w{% enddefer %}{% endset %}{{ x }}{{ x }}",
        "dd",
    ),
    "a captured text with a filter": ("{% set x|upper %}{% defer %}d{% enddefer %}{% endset %}{{ x }}", "D"),
    "a namespace that counts": (
        COUNTED + "{% defer %}{{ ns.i }}{% enddefer %}{% endfor %}{{ ns.i }}",
        "1233",
    ),
    "a namespace in an include": (COUNTED + "{% include 'counted.html' %}{% endfor %}{{ ns.i }}", "1233"),
    "a cycler": (
        "{% set c = cycler('o', 'e') %}"
        "{% for x in 'abc' %}{{ c.next() }}{% defer %}{{ c.current }}{% enddefer %}{% endfor %}",
        "oeeooe",
    ),
    "a joiner": (
        "{% set j = joiner('|') %}{% defer %}{{ j() }}{{ j() }}{% enddefer %}[{{ j() }}]",
        "|[]",
    ),
    "autoescape by a variable": (
        "{% for on in (true, false) %}{% autoescape on %}"
        "{% defer %}{{ x }}{{ [x]|join }}{% placeholder %}{{ x }}{% enddefer %}"
        "{% endautoescape %}{% endfor %}",
        "&lt;b&gt;&lt;b&gt;<b><b>",
    ),
}


@pytest.mark.parametrize("what", [name for name in SAME if name != "a joiner"])
@pytest.mark.parametrize("defer", [True, False], ids=["deferred", "in place"])
def test_out_of_order_and_in_its_place_a_page_says_the_same(pages: Pages, what: str, defer: bool):
    source, wanted = SAME[what]
    for name, part in {**PARTS, "page.html": source}.items():
        pages.add(name, part)
    answer = pages.get(lambda t: t.chunked("page.html", defer=defer, tree=TREE, x="<b>")).finish()
    assert answer.complete
    assert filled(answer.body.decode()) == wanted


def test_a_joiner_in_a_deferred_block_is_not_the_pages(pages: Pages):
    pages.add(
        "page.html",
        "{% set j = joiner('|') %}{% defer %}{{ j() }}{{ j() }}{% enddefer %}"
        "{% flush %}{{ gate('x') }}[{{ j() }}]",
    )
    pages.open("x")
    assert filled(pages.get(lambda t: t.chunked("page.html")).finish().body.decode()) == "|x[]"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("what", SAME)
def test_a_plain_rendering_says_the_same(what: str, is_async: bool):
    source, wanted = SAME[what]
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({**PARTS, "page.html": source}), autoescape=True, enable_async=is_async
    )
    streamkit.Templates(environment)
    wanted = wanted.replace("|[]", "|[|]")  # in its place a joiner is the same one everywhere
    assert environment.get_template("page.html").render(tree=TREE, x="<b>") == wanted


ROWS = {
    "a tuple": "(0, 1, 2)",
    "a range": "range(3)",
    "the keys of a dict": "{0: 1, 1: 2, 2: 3}",
    "the values of a dict": "{5: 0, 6: 1, 7: 2}.values()",
    "an ordered dict": "ordered",
    "a deque": "deque",
    "what is reversed": "[2, 1, 0]|reverse",
    "a recursive loop": "[0, 1, 2]",
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_deferred_block_knows_what_follows_in_a_loop_over_a_collection(pages: Pages, kind: str):
    recursive = " recursive" if kind == "a recursive loop" else ""
    pages.add(
        "page.html",
        f"{{% for x in {ROWS[kind]}{recursive} %}}"
        "{% defer %}{{ x }}{{ loop.nextitem }}{{ loop.last }}{{ loop.length }} {% enddefer %}{% endfor %}",
    )
    others = {"ordered": OrderedDict.fromkeys(range(3)), "deque": deque(range(3))}
    body = pages.get(lambda t: t.chunked("page.html", **others)).finish().body.decode()
    assert filled(body) == "01False3 12False3 2True3 "


def test_a_deferred_block_takes_nothing_from_the_loop_that_the_page_goes_on_with(pages: Pages):
    # The page has looked one item ahead, so the block knows that one, but not how many there are.
    pages.add(
        "page.html",
        "{% for x in rows() %}{{ x }}{% if loop.last %}!{% else %}"
        "{% defer %}{{ loop.nextitem }}{{ loop.length }}{% enddefer %}{{ gate(x) }}{% endif %}{% endfor %}",
    )
    answer = pages.get(
        lambda t: t.chunked("page.html", on_error=pages.hook("?"), rows=lambda: (x for x in "abcd"))
    )
    for x in "abc":
        pages.open(x)
    assert filled(answer.finish().body.decode()) == "a?ab?bc?cd!"


CAPTURED_SLOTS = {
    "a filter": "{% filter upper %}{% slots %}a{% defer %}b{% enddefer %}{% endslots %}c{% endfilter %}",
    "a variable": "{% set x %}{% slots %}a{% defer %}b{% enddefer %}{% endslots %}c{% endset %}{{ x|upper }}",
    "a macro": "{% macro m() %}{% slots %}a{% defer %}b{% enddefer %}{% endslots %}c{% endmacro %}"
    "{{ m()|upper }}",
    "an include": "{% filter upper %}{% include 'slots.html' %}c{% endfilter %}",
}


@pytest.mark.parametrize("what", CAPTURED_SLOTS)
def test_slots_in_captured_text_leave_no_trace_in_it(pages: Pages, what: str):
    pages.add("slots.html", "{% slots %}a{% defer %}b{% enddefer %}{% endslots %}")
    pages.add("page.html", CAPTURED_SLOTS[what])
    assert pages.get(lambda t: t.chunked("page.html")).finish().body == b"ABC"


@pytest.mark.parametrize("inner", ["", "a filter", "a macro"])
def test_a_region_of_slots_goes_on_after_slots_within_it(pages: Pages, inner: str):
    slots = CAPTURED_SLOTS.get(inner, "{% slots %}A{% defer %}B{% enddefer %}{% endslots %}C")
    pages.add("page.html", "{% slots %}" + slots + "{% defer %}late{% enddefer %}{% endslots %}.")
    body = pages.get(lambda t: t.chunked("page.html")).finish().body.decode()
    shadow, rest = body.split("</template>")
    assert shadow.endswith("</slot>"), "the block after the inner slots has its place in the region"
    assert rest.endswith((">late</span></div>.", ">B</span></div>."))


class Lazy:
    """As Django's `SimpleLazyObject`: whoever asks what it is has it find that out."""

    @property
    def __class__(self) -> Any:
        raise AssertionError("it was asked for before it was used")

    def __str__(self) -> str:
        return "lazy"


def test_a_lazy_value_is_not_asked_for_before_it_is_used(pages: Pages):
    pages.add(
        "page.html",
        "{% set other = value %}"
        "{% defer %}{{ value }}{% if false %}{{ other }}{% endif %}{% enddefer %}{{ other }}.",
    )
    body = pages.get(lambda t: t.chunked("page.html", value=Lazy())).finish().body.decode()
    assert filled(body) == "lazylazy."


def test_slots_beside_the_blocks_of_an_included_child_take_nothing_from_the_region_around(pages: Pages):
    pages.add("base.html", "<{% block b %}{% endblock %}>")
    pages.add("child.html", "{% extends 'base.html' %}{% slots %}{% endslots %}{% block b %}c{% endblock %}")
    slots = "{% slots %}{% defer %}late{% enddefer %}{% include 'child.html' %}{% endslots %}."
    pages.add("page.html", slots)
    body = pages.get(lambda t: t.chunked("page.html")).finish().body.decode()
    assert body.endswith(">late</span></div>.")


def test_slots_beside_the_blocks_of_a_child_are_not_shown_as_nothing_is(pages: Pages):
    pages.add("base.html", "<{% block b %}{% endblock %}>")
    slots = "{% slots %}a{% defer %}b{% enddefer %}{% endslots %}"
    pages.add("page.html", "{% extends 'base.html' %}" + slots + "{% block b %}c{% endblock %}")
    assert pages.get(lambda t: t.chunked("page.html")).finish().body == b"<c>"


OTHER_SIGNS = {
    "block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "${",
    "variable_end_string": "}", "comment_start_string": "<#", "comment_end_string": "#>",
}  # fmt: skip


@pytest.mark.parametrize("autoescape", [True, False])
def test_where_tags_have_other_signs_content_that_is_no_template_is_shown(autoescape: bool):
    sources = {"layout.html": "<a><% content %></a>", "page.html": "[<% defer %>${ x }<% enddefer %>]"}
    templates = streamkit.Templates(
        jinja2.Environment(loader=jinja2.DictLoader(sources), autoescape=autoescape, **OTHER_SIGNS)
    )
    shown = "&lt;b&gt;" if autoescape else "<b>"
    for response, wanted in (
        (templates.chunked(content="<b>", layout="layout.html"), f"<a>{shown}</a>"),
        (templates.chunked("page.html", x="<b>"), f"[{shown}]"),
    ):
        with Client(response, kind="wsgi", timeout=PATIENCE) as client, client.get("/") as connection:
            body = b"".join(iter(connection.next_chunk, None)).decode()
        assert filled(body) == wanted


@pytest.mark.parametrize("word", ["break", "continue"])
@pytest.mark.parametrize("tag", ["defer", "slots"])
def test_a_loop_cannot_be_left_out_of_the_midst_of(tag: str, word: str):
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", "streamkit.templates.Streaming"])
    with pytest.raises(jinja2.TemplateSyntaxError, match=rf"\{{% {word} %\}}.*\{{% {tag} %\}}") as raised:
        environment.from_string(f"{{% for x in y %}}\n{{% {tag} %}}\n{{% if x %}}{{% {word} %}}{{% endif %}}"
                                f"{{% end{tag} %}}{{% endfor %}}")  # fmt: skip
    assert raised.value.lineno == 3
    whole_loop = f"{{% {tag} %}}{{% for x in 'ab' %}}{{{{ x }}}}{{% {word} %}}{{% endfor %}}{{% end{tag} %}}"
    assert environment.from_string(whole_loop).render() == ("a" if word == "break" else "ab")


def test_the_page_cannot_be_the_content_of_a_deferred_block():
    environment = jinja2.Environment(extensions=["streamkit.templates.Streaming"])
    with pytest.raises(jinja2.TemplateSyntaxError, match="cannot stand in"):
        environment.from_string("{% defer %}{% content %}{% enddefer %}")


def test_an_environment_that_renders_no_text_is_refused():
    with pytest.raises(streamkit.errors.ProducerError, match="renders text"):
        streamkit.Templates(NativeEnvironment())


def test_an_undefined_name_in_a_deferred_block_is_an_error_with_the_templates_line(pages: Pages):
    pages.environment.undefined = jinja2.StrictUndefined
    pages.add("page.html", "a{% flush %}\n{% defer %}\n{{ nowhere }}{% enddefer %}")
    answer = pages.get(lambda t: t.chunked("page.html")).finish()
    assert isinstance(answer.error, jinja2.UndefinedError)
    assert b"nowhere" not in answer.body
    traceback = answer.error.__traceback__
    lines = []
    while traceback is not None:
        lines.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    assert ("<template>", 3) in lines


@pytest.mark.parametrize(
    "source",
    [
        "a{% flush %}{{ gate('slow') }}{{ 1 // 0 }}",
        "a{% flush %}{% defer %}d{% placeholder %}{{ gate('slow') }}{{ 1 // 0 }}{% enddefer %}",
    ],
    ids=["the page", "a placeholder"],
)
def test_an_error_is_logged_though_the_client_has_left(
    pages: Pages, source: str, caplog: pytest.LogCaptureFixture
):
    if pages.way.interface == "wsgi" or pages.way.is_async:
        pytest.skip("elsewhere the leave shows at a write, or ends the task")
    pages.add("page.html", source)
    answer = pages.get(lambda t: t.chunked("page.html"))
    answer.read()
    pages.wait_for("slow")
    answer.leave()
    answer.through()
    pages.open("slow")
    assert until(lambda: any(record.exc_info for record in caplog.records))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
