"""Blocks that come out of order: placeholders, their filling, slots, and what they see."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.errors import OptionsError

from .pages import Pages

PLACEHOLDER = re.compile(r'<sk-placeholder id="(sk-[0-9a-f]+-\d+)">(.*?)</sk-placeholder>', re.DOTALL)
BLOCK = re.compile(
    r'<template id="(sk-[0-9a-f]+-\d+)">(.*?)</template>'
    r'<script([^>]*)>(?:function.*?\})?\$sk\("\1"\)</script>',
    re.DOTALL,
)


def filled(page: str) -> str:
    """The page as a browser would have it at the end."""
    blocks = {found[1]: found[2] for found in BLOCK.finditer(page)}
    page = BLOCK.sub("", page)
    done = PLACEHOLDER.sub(lambda found: blocks.pop(found[1]), page)
    assert not blocks, "blocks without a placeholder"
    return done


def rendered(pages: Pages, source: str, **context: Any) -> str:
    pages.add("page.html", source)
    return filled(pages.get(lambda t: t.chunked("page.html", **context)).finish().body.decode())


def test_blocks_follow_the_page_in_the_order_in_which_they_become_ready(pages: Pages):
    pages.add(
        "page.html",
        "<html><body>{% for x in 'ab' %}"
        "<p>{% defer %}{{ gate(x) }}{% placeholder %}wait {{ x }}{% enddefer %}</p>"
        "{% endfor %}end</body>\n</html>{{ '\n' }}",
    )
    answer = pages.get(lambda t: t.chunked("page.html"))
    first = answer.read().decode()
    assert PLACEHOLDER.findall(first)[0][1] == "wait a"
    assert first.endswith("end")
    pages.open("b")
    assert ">b</template>" in answer.read().decode()
    pages.open("a")
    assert ">a</template>" in answer.read().decode()
    assert answer.rest() == b"</body>\n</html>\n"
    assert filled(answer.body.decode()) == "<html><body><p>a</p><p>b</p>end</body>\n</html>\n"


def test_the_placeholder_arrives_while_the_page_is_in_a_slow_value(pages: Pages):
    pages.add("page.html", "{% defer %}{{ gate('a') }}{% placeholder %}w{% enddefer %}{{ gate('page') }}")
    answer = pages.get(lambda t: t.chunked("page.html"))
    assert PLACEHOLDER.search(answer.read().decode())
    pages.open("a")
    pages.open("page")
    assert filled(answer.finish().body.decode()) == "apage"


SEEN = {
    "loop variables": (
        "{% for x in [1, 2, 3] %}{% defer %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.nextitem }}"
        "{{ loop.previtem }};{% enddefer %}{% endfor %}",
        "11False2;22False31;33True2;",
    ),
    "nested loops": (
        "{% for x in 'ab' %}{% set outer = loop %}{% for y in [1, 2] %}"
        "{% defer %}{{ x }}{{ y }}{{ outer.index }}{{ loop.index }} {% enddefer %}{% endfor %}{% endfor %}",
        "a111 a212 b121 b222 ",
    ),
    "variables that change afterwards": (
        "{% set v = 1 %}{% defer %}{{ v }}{% enddefer %}"
        "{% set v = 2 %}{% defer %}{{ v }}{% enddefer %}{{ v }}",
        "122",
    ),
    "macros defined in the loop": (
        "{% for x in 'ab' %}{% macro m(n) %}{{ x }}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}"
        "{% defer %}{{ m(1) }}{% enddefer %}{% endfor %}",
        "a1a0b1b0",
    ),
    "a macro's arguments": (
        "{% macro m(n) %}{% defer %}[{{ n }}]{% enddefer %}{% endmacro %}{{ m(1) }}{{ m('<') }}",
        "[1][&lt;]",
    ),
    "a macro's caller": (
        "{% macro m() %}{% defer %}[{{ caller() }}]{% placeholder %}{{ caller() }}{% enddefer %}"
        "{% endmacro %}"
        "{% for x in 'ab' %}{% call m() %}{{ x }}{% endcall %}{% endfor %}",
        "[a][b]",
    ),
    "varargs and kwargs": (
        "{% macro m() %}{% defer %}{{ varargs[0] }}{{ kwargs.k }}{% enddefer %}{% endmacro %}{{ m(1, k=2) }}",
        "12",
    ),
    "a call block": (
        "{% macro m() %}<{{ caller(1) }}>{% endmacro %}"
        "{% call(n) m() %}{% defer %}{{ n }}{% enddefer %}{% endcall %}",
        "<1>",
    ),
    "a block in it": ("{% defer %}{% block b %}b{{ v }}{% endblock %}{% enddefer %}", "bV"),
    "an include": (
        "{% for x in 'ab' %}{% defer %}{% include 'x.html' %}{% enddefer %}{% endfor %}",
        "(a)(b)",
    ),
    "one in an include": ("{% for x in 'ab' %}{% include 'deferred.html' %}{% endfor %}", "<a><b>"),
    "one in another": ("{% defer %}a{% defer %}b{% placeholder %}w{% enddefer %}c{% enddefer %}", "abc"),
    "an import": ("{% import 'x.html' as other with context %}{% defer %}{{ other }}{% enddefer %}", "()"),
    "with": ("{% with v = 1 %}{% defer %}{{ v }}{% enddefer %}{% endwith %}{{ v }}", "1V"),
    "a namespace": ("{% set n = namespace(v=1) %}{% defer %}{{ n.v }}{% enddefer %}", "1"),
    "autoescape that is switched off": (
        "{% autoescape false %}{% defer %}{{ '<' }}{{ ['<']|join }}{% enddefer %}{% endautoescape %}"
        "{{ '<' }}",
        "<<&lt;",
    ),
    "captured output": ("{% set x %}{% defer %}d{% enddefer %}{% endset %}({{ x }})", "(d)"),
    "a generator": ("{% for x in g %}{% defer %}{{ x }}{{ loop.index }}{% enddefer %}{% endfor %}", "1122"),
    "what asks for more than a generator knows": (
        "{% for x in g %}{% set last = loop.last %}{% defer %}{{ x }}{{ last }}{% enddefer %}{% endfor %}",
        "1False2True",
    ),
}


@pytest.mark.parametrize("what", SEEN)
def test_a_deferred_block_sees(pages: Pages, what: str):
    source, wanted = SEEN[what]
    pages.add("x.html", "({{ x }})")
    pages.add("deferred.html", "{% defer %}<{{ x }}>{% enddefer %}")
    assert rendered(pages, source, v="V", g=iter([1, 2])) == wanted


@pytest.mark.parametrize("what", SEEN)
def test_in_place_it_gives_the_same(pages: Pages, what: str):
    source, wanted = SEEN[what]
    pages.add("x.html", "({{ x }})")
    pages.add("deferred.html", "{% defer %}<{{ x }}>{% enddefer %}")
    pages.add("page.html", source)
    for way in ("chunked", "view"):
        answer = pages.get(
            lambda t, way=way: getattr(t, way)("page.html", defer=False, v="V", g=iter([1, 2]))
        )
        assert answer.finish().body.decode() == wanted


def test_a_block_in_a_child_of_a_layout_is_deferred(pages: Pages):
    pages.add("base.html", "<body>{% block a %}{% endblock %}{% block b %}B{% endblock %}</body>")
    pages.add(
        "page.html",
        "{% extends 'base.html' %}{% defer %}nowhere{% enddefer %}"
        "{% block a %}{% defer %}d{% enddefer %}{% endblock %}"
        "{% block b %}{% defer %}{{ super() }}b{% enddefer %}{% endblock %}",
    )
    body = pages.get(lambda t: t.chunked("page.html")).finish().body.decode()
    assert filled(body) == "<body>dBb</body>"


def test_a_macro_that_is_imported_without_context_has_its_blocks_in_place(pages: Pages):
    pages.add("macros.html", "{% macro m() %}{% defer %}d{% placeholder %}w{% enddefer %}{% endmacro %}")
    pages.add("page.html", "{% from 'macros.html' import m %}{{ m() }}")
    assert pages.get(lambda t: t.chunked("page.html")).finish().body == b"d"


def test_many_blocks_all_arrive(pages: Pages):
    source = "{% for x in range(100) %}{% defer %}{{ x }},{% enddefer %}{% endfor %}"
    assert rendered(pages, source) == "".join(f"{x}," for x in range(100))


def test_blocks_run_beside_each_other(pages: Pages):
    pages.add("page.html", "{% for x in 'abcd' %}{% defer %}{{ gate(x) }}{% enddefer %}{% endfor %}")
    answer = pages.get(lambda t: t.chunked("page.html"))
    for name in "abcd":
        pages.wait_for(name)
    for name in "dcba":
        pages.open(name)
    assert filled(answer.finish().body.decode()) == "abcd"


@pytest.mark.parametrize(
    "asked",
    [
        {"version": "1.0", "sent": [("Connection", "close")]},
        {"sent": [("Save-Data", "on")]},
    ],
    ids=["HTTP/1.0", "Save-Data"],
)
def test_clients_that_cannot_or_will_not_have_them_out_of_order_get_them_in_place(pages: Pages, asked: Any):
    pages.add("page.html", "{% slots %}a{% defer %}b{% placeholder %}w{% enddefer %}c{% endslots %}")
    assert pages.get(lambda t: t.chunked("page.html"), **asked).finish().body == b"abc"


def test_a_function_of_the_request_may_say_who_gets_them_in_place(pages: Pages):
    pages.add("page.html", "{% defer %}b{% placeholder %}w{% enddefer %}")
    asked: list[Any] = []

    def may_defer(request: Any) -> bool:
        asked.append(request)
        return False

    assert pages.get(lambda t: t.chunked("page.html", defer=may_defer)).finish().body == b"b"
    assert "REQUEST_METHOD" in asked[0] or asked[0]["type"] == "http"


NONCE_WAYS = {
    "as an argument": lambda t: t.chunked("page.html", nonce="abc+/="),
    "in a header": lambda t: t.chunked(
        "page.html", headers={"Content-Security-Policy": "script-src 'nonce-abc+/='"}
    ),
    "in the context variable": lambda t: _with_nonce("abc+/=", t),
}


def _with_nonce(nonce: str, templates: streamkit.Templates) -> Any:
    token = streamkit.templates.csp_nonce.set(nonce)
    try:
        return templates.chunked("page.html")
    finally:
        streamkit.templates.csp_nonce.reset(token)


@pytest.mark.parametrize("way", NONCE_WAYS)
def test_scripts_have_the_nonce_of_the_policy(pages: Pages, way: str):
    pages.add("page.html", "{% defer %}a{% enddefer %}{% defer %}b{% enddefer %}")
    body = pages.get(NONCE_WAYS[way]).finish().body.decode()
    assert body.count("<script") == body.count('<script nonce="abc+/=">') == 2


def test_a_failed_page_goes_to_the_error_page_under_the_same_nonce(pages: Pages):
    pages.add("page.html", "a{% flush %}{{ 1 // 0 }}")
    body = pages.get(lambda t: t.chunked("page.html", nonce="abc")).finish().body.decode()
    assert '<script nonce="abc">window.location' in body


@pytest.mark.parametrize("nonce", ['"><script>', "a b", "", 5])
def test_a_nonce_that_is_none_is_refused(pages: Pages, nonce: Any):
    pages.add("page.html", "a")
    with pytest.raises(OptionsError, match="nonce"):
        streamkit.Templates(pages.environment).chunked("page.html", nonce=nonce)


def test_slots_need_no_script_and_are_filled_while_their_host_is_open(pages: Pages):
    pages.add(
        "page.html",
        "<body>{% slots %}{% for x in 'ab' %}"
        "<p>{% defer %}{{ gate(x) }}{% placeholder %}w{{ x }}{% enddefer %}</p>"
        "{% endfor %}{% endslots %}end{% defer %}c{% enddefer %}</body>",
    )
    answer = pages.get(lambda t: t.chunked("page.html"))
    first = answer.read().decode()
    found = re.fullmatch(
        r'<body><div><template shadowrootmode="open"><p><slot name="(sk-\w+-1)">wa</slot></p>'
        r'<p><slot name="(sk-\w+-2)">wb</slot></p></template>',
        first,
    )
    assert found is not None
    pages.open("b")
    assert answer.read().decode() == f'<span slot="{found[2]}">b</span>'
    pages.open("a")
    assert answer.read().decode() == f'<span slot="{found[1]}">a</span>'
    rest = answer.rest().decode()
    assert rest.startswith("</div>end<sk-placeholder")
    assert filled(rest) == "</div>endc</body>"


def test_a_block_outside_the_slots_that_is_ready_first_comes_after_the_page(pages: Pages):
    pages.add(
        "page.html",
        "{% defer %}{{ gate('out') }}{% enddefer %}"
        "{% slots %}{% defer %}{{ gate('in') }}{% enddefer %}{% endslots %}.",
    )
    answer = pages.get(lambda t: t.chunked("page.html"))
    answer.read()
    pages.open("out")
    pages.wait_for("in")
    pages.open("in")
    body = answer.finish().body.decode()
    assert body.index(">in</span></div>.") < body.index(">out</template>")


def test_slots_in_slots_are_one_region(pages: Pages):
    pages.add("page.html", "{% slots %}a{% slots %}{% defer %}b{% enddefer %}{% endslots %}c{% endslots %}d")
    body = pages.get(lambda t: t.chunked("page.html")).finish().body.decode()
    assert body.count("shadowrootmode") == body.count("<div>") == body.count("</div>") == 1


FAILING = (
    "<body>{% defer %}{{ gate('bad') }}{{ 1 // 0 }}{% enddefer %}"
    "{% defer %}{{ gate('good') }}{% enddefer %}.</body>"
)


def test_where_a_hook_mends_it_a_failed_block_shows_the_notice_and_the_others_arrive(
    pages: Pages, caplog: pytest.LogCaptureFixture
):
    pages.add("page.html", FAILING)
    errors: list[BaseException] = []
    write = pages.hook("sorry")

    def hook(stream: Any, error: BaseException) -> Any:
        errors.append(error)
        return write(stream, error)

    answer = pages.get(lambda t: t.chunked("page.html", on_error=hook))
    pages.open("bad")
    answer.read()
    pages.open("good")
    assert filled(answer.finish().body.decode()) == "<body>sorrygood.</body>"
    assert answer.complete
    assert [type(error) for error in errors] == [ZeroDivisionError]
    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert logged == [ZeroDivisionError]


def test_in_slots_too(pages: Pages):
    pages.add("page.html", "{% slots %}" + FAILING + "{% endslots %}")
    pages.open("bad")
    pages.open("good")
    answer = pages.get(lambda t: t.chunked("page.html", on_error=pages.hook("sorry"))).finish()
    assert re.search(r'<span slot="sk-\w+-1">sorry</span>', answer.body.decode())
    assert answer.complete


def test_without_a_hook_a_failed_block_ends_the_page(pages: Pages, caplog: pytest.LogCaptureFixture):
    pages.add("page.html", FAILING)
    answer = pages.get(lambda t: t.chunked("page.html"))
    answer.read()
    pages.open("bad")
    answer.finish()
    pages.open("good")
    assert isinstance(answer.error, ZeroDivisionError)
    assert not answer.complete
    assert "/500.html" in answer.body.decode()


def test_a_hook_that_raises_mends_nothing(pages: Pages):
    pages.add("page.html", FAILING)
    calls: list[BaseException] = []

    def hook(stream: Any, error: BaseException) -> None:
        calls.append(error)
        raise error

    pages.open("bad")
    pages.open("good")
    answer = pages.get(lambda t: t.chunked("page.html", on_error=hook)).finish()
    assert isinstance(answer.error, ZeroDivisionError)
    assert len(calls) == 1


def test_a_notice_from_a_template_is_escaped(pages: Pages):
    pages.add("page.html", "{% defer %}{{ 1 // 0 }}{% enddefer %}")
    pages.add("notice.html", "<b>{{ error }}{{ hostile }}</b>")
    templates = streamkit.Templates(pages.environment)
    if pages.way.is_async:

        async def hook(stream: Any, error: BaseException) -> None:
            await stream.write(await templates.fragment("notice.html", error=error, hostile="</template>"))
    else:

        def hook(stream: Any, error: BaseException) -> None:  # type: ignore[misc]
            stream.write(templates.fragment("notice.html", error=error, hostile="</template>"))

    body = pages.get(lambda t: t.chunked("page.html", on_error=hook)).finish().body.decode()
    assert "<b>integer division or modulo by zero&lt;/template&gt;</b></template>" in body


def test_a_client_that_leaves_while_a_block_is_waited_for_ends_the_page(pages: Pages):
    pages.add("page.html", "a{% defer %}{{ gate('slow') }}{% enddefer %}")
    ended: list[str] = []
    answer = pages.get(lambda t: t.chunked("page.html", callback=lambda: ended.append("ended")))
    answer.read()
    pages.wait_for("slow")
    answer.leave()
    if pages.way.interface == "asgi":
        answer.through()
        assert ended == ["ended"]
        pages.open("slow")
    else:  # nothing is written, so nothing shows that it has left
        pages.open("slow")
        answer.through()
        assert ended == ["ended"]


class Never(threading.Event):
    """What is waited for for longer than the test waits for anything."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(3 * PATIENCE)


def test_a_heartbeat_shows_that_the_client_of_a_block_that_never_ends_has_left(pages: Pages):
    pages.add("page.html", "<p>a</p>{% defer %}{{ gate('never') }}{% enddefer %}</body>")
    pages.gates["never"] = Never()
    answer = pages.get(lambda t: t.chunked("page.html"), options={"heartbeat": 0.05})
    answer.read()
    pages.wait_for("never")
    answer.leave()
    answer.through()
    assert not pages.gates["never"].is_set()


def test_max_duration_ends_a_page_whose_block_never_ends(pages: Pages):
    pages.add("page.html", "a{% defer %}{{ gate('never') }}{% enddefer %}")
    pages.gates["never"] = Never()
    answer = pages.get(lambda t: t.chunked("page.html"), options={"max_duration": 0.4, "heartbeat": None})
    answer.finish()
    assert not pages.gates["never"].is_set()


def test_values_that_are_awaited_in_the_context_are_waited_for_where_they_are_used(pages: Pages):
    if not pages.way.is_async:
        pytest.skip("for asynchronous environments")

    async def slow() -> str:
        return await pages._gate_async("slow")

    async def rows() -> list[int]:
        return [1, 2]

    async def never() -> None:
        raise AssertionError("not used, and yet awaited")

    pages.add(
        "page.html",
        "a{{ slow }}{% for row in rows %}{{ row }}{% endfor %}{{ slow|upper }}{% include 'part.html' %}",
    )
    pages.add(
        "part.html",
        "{% defer %}{{ slow }}{{ rows|length }}{% enddefer %}{% defer %}{{ slow.upper() }}{% enddefer %}",
    )
    answer = pages.get(lambda t: t.chunked("page.html", slow=slow(), rows=rows(), never=never()))
    assert answer.read() == b"a"
    pages.open("slow")
    assert filled("a" + answer.rest().decode()) == "aslow12SLOWslow2SLOW"


def test_a_block_outside_the_slots_stands_in_the_page_once_whenever_it_is_ready(pages: Pages):
    pages.add(
        "page.html",
        "{% defer %}{{ gate('outside') }}{% enddefer %}"
        "{% slots %}{% defer %}{{ gate('inside') }}{% enddefer %}{% endslots %}.",
    )
    answer = pages.get(lambda t: t.chunked("page.html"))
    answer.read()
    pages.open("outside")
    pages.wait_for("inside")
    pages.open("inside")
    body = answer.finish().body.decode()
    assert (body.count("outside"), body.count("inside"), answer.complete) == (1, 1, True)
