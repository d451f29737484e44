"""What Roda's chunked specs and Rails' template streaming check (scenarios C1 to C17, RT1 to RT8)."""

from __future__ import annotations

import contextvars
from typing import Any
from wsgiref.validate import validator

import jinja2
import pytest
from markupsafe import Markup
from werkzeug.test import create_environ

import streamkit
from streamkit.errors import OptionsError, ProducerError

from .pages import Pages, pieces

LAYOUT = "h{% content %}t"


@pytest.fixture
def plain(pages: Pages) -> Pages:
    pages.add("layout.html", LAYOUT)
    pages.add("m.html", "m")
    return pages


def test_the_layouts_top_the_content_and_the_layouts_end_are_pieces(plain: Pages):
    """C1, C10"""
    answer = plain.get(lambda t: t.chunked("m.html", layout="layout.html"))
    assert pieces(answer) == ["h", "m", "t"]
    assert answer.complete
    assert answer.header("Content-Length") is None
    assert answer.header("Content-Type") == "text/html; charset=utf-8"


def test_the_layouts_top_arrives_before_the_content_is_rendered(pages: Pages):
    """C3"""
    pages.add("layout.html", LAYOUT)
    pages.add("slow.html", "m{{ gate('slow') }}")
    answer = pages.get(lambda t: t.chunked("slow.html", layout="layout.html"))
    assert answer.read() == b"h"
    pages.open("slow")
    assert answer.rest() == b"mslowt"


def test_delayed_functions_run_in_order_after_the_top_and_before_the_content(pages: Pages):
    """C3, C4"""
    pages.add("layout.html", LAYOUT)
    pages.add("m.html", "{{ first }}{{ second }}{{ third }}")
    calls: list[str] = []

    def first() -> dict[str, str]:
        calls.append("first")
        return {"first": "1", "second": "?"}

    def second() -> dict[str, str]:
        calls.append("second")
        return {"second": "<2>"}

    def third() -> None:
        calls.append("third")

    def waiting() -> None:
        pages._gate("delay")

    delay = [waiting, *map(pages.function, (first, second, third))]
    if pages.way.is_async:

        async def waiting_async() -> None:
            await pages._gate_async("delay")

        delay[0] = waiting_async
    answer = pages.get(lambda t: t.chunked("m.html", layout="layout.html", delay=delay))
    assert answer.read() == b"h"
    assert calls == []
    pages.open("delay")
    assert answer.rest() == b"1&lt;2&gt;t"
    assert calls == ["first", "second", "third"]


@pytest.mark.parametrize("delay", [[5], [None], "name", 5, {"a": 1}, len])
def test_a_delay_that_is_no_sequence_of_functions_is_refused_when_the_page_is_described(
    plain: Pages, delay: Any
):
    """C5"""
    templates = streamkit.Templates(plain.environment)
    with pytest.raises(ProducerError, match="delay: wanted"):
        templates.chunked("m.html", layout="layout.html", delay=delay)


def test_a_delayed_function_that_returns_neither_a_mapping_nor_none_is_an_error(plain: Pages):
    answer = plain.get(lambda t: t.chunked("m.html", delay=[plain.function(lambda: 5)])).finish()
    assert isinstance(answer.error, ProducerError)
    assert "wanted a mapping or None" in str(answer.error)
    assert not answer.committed


def test_without_a_layout_there_is_one_piece_after_the_delayed_functions(pages: Pages):
    """C6"""
    pages.add("page.html", "a{{ late }}b{% for x in range(50) %}{{ x }}{% endfor %}")
    answer = pages.get(lambda t: t.chunked("page.html", delay=[pages.function(lambda: {"late": "<"})]))
    assert pieces(answer) == ["a&lt;b" + "".join(map(str, range(50)))]


def test_a_flush_splits_the_content_and_the_layout(pages: Pages):
    """C7"""
    pages.add("layout.html", "h{% flush %}H{% content %}t{% flush %}T")
    pages.add("m.html", "m{% flush %}M")
    answer = pages.get(lambda t: t.chunked("m.html", layout="layout.html"))
    assert pieces(answer) == ["h", "H", "m", "M", "t", "T"]


def test_after_no_chunk_the_next_page_is_whole_with_its_length_and_the_one_after_in_pieces(plain: Pages):
    """C8, C13"""
    answer = plain.get(
        lambda t: t.chunked("m.html", layout="layout.html"),
        before=lambda: streamkit.Templates.no_chunk(),
    )
    assert pieces(answer) == ["hmt"]
    assert answer.header("Content-Length") == "3"
    assert answer.header("X-Accel-Buffering") is None
    again = plain.get(lambda t: t.chunked("m.html", layout="layout.html"))
    assert pieces(again) == ["h", "m", "t"]


def test_no_chunk_holds_for_one_page_of_a_thread(plain: Pages):
    templates = streamkit.Templates(plain.environment)
    templates.no_chunk()
    ways = [templates.chunked("m.html", layout="layout.html").way for _ in range(2)]
    assert ways == ["whole", "chunked"]


def test_no_chunk_in_a_request_without_a_page_leaves_the_next_request_on_its_thread_alone(plain: Pages):
    templates = streamkit.Templates(plain.environment)

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/page":
            return templates.chunked("m.html", layout="layout.html")(environ, start_response)
        templates.no_chunk()
        start_response("204 No Content", [])
        return []

    def ask(path: str) -> list[bytes]:
        body = wrapped(create_environ(path), lambda status, headers, exc_info=None: None)
        try:
            return list(body)
        finally:
            getattr(body, "close", lambda: None)()

    wrapped: Any = streamkit.wrap(validator(app), kind="wsgi")
    assert b"".join(ask("/other")) == b""
    assert ask("/page") == [b"h", b"m", b"t"]


def test_a_view_is_whole_unless_chunk_by_default_and_with_content_of_its_own_always(plain: Pages):
    """C11"""
    by_default = {"chunk_by_default": True}
    assert pieces(plain.get(lambda t: t.view("m.html", layout="layout.html"))) == ["hmt"]
    answer = plain.get(lambda t: t.view("m.html", layout="layout.html"), options=by_default)
    assert pieces(answer) == ["h", "m", "t"]
    answer = plain.get(lambda t: t.view(content="m", layout="layout.html"), options=by_default)
    assert pieces(answer) == ["hmt"]
    assert answer.header("Content-Length") == "3"


def test_extra_headers_come_only_with_pieces(plain: Pages):
    """C13"""
    options = {"headers": {"X-Extra": "1"}}
    chunked = plain.get(lambda t: t.chunked("m.html"), options=options).finish()
    whole = plain.get(lambda t: t.view("m.html"), options={"http10": "reject"}).finish()
    assert (chunked.header("X-Extra"), chunked.header("X-Accel-Buffering")) == ("1", "no")
    assert chunked.header("Cache-Control") == "private, no-cache, no-transform"
    assert whole.header("X-Accel-Buffering") is None
    assert whole.header("Cache-Control") is None


def test_no_header_takes_transfer_encoding_into_its_own_hands(plain: Pages):
    """C12: framing belongs to the server."""
    answer = plain.get(lambda t: t.chunked("m.html")).finish()
    assert answer.header("Transfer-Encoding") is None


@pytest.mark.parametrize("given", ["private", "max-age=3"])
def test_a_cache_control_of_the_applications_own_is_kept(plain: Pages, given: str):
    """RT7"""
    answer = plain.get(lambda t: t.chunked("m.html", headers={"Cache-Control": given})).finish()
    assert answer.header("Cache-Control") == given


def test_status_headers_and_context_are_those_that_were_given(plain: Pages):
    """C14"""
    plain.add("of.html", "{{ a }}{{ b }}{{ status }}")
    plain.add("around.html", "{{ a }}[{% content %}]")
    answer = plain.get(
        lambda t: t.chunked(
            ["missing.html", "of.html"],
            layout="around.html",
            status=404,
            headers={"X-Own": "x"},
            context={"a": "<a>", "status": "s"},
            b=2,
        )
    )
    assert pieces(answer) == ["&lt;a&gt;[", "&lt;a&gt;2s", "]"]
    assert (answer.status, answer.header("X-Own")) == (404, "x")


CONTENTS = {
    "text": lambda: "<m>",
    "markup": lambda: Markup("<m>"),
    "list": lambda: ["<", Markup("m"), Markup("&gt;")],
    "generator": lambda: (text for text in ["<m", ">"]),
    "function": lambda: lambda: "<m>",
    "function of an iterable": lambda: lambda: iter(["<", "m>"]),
    "function of nothing": lambda: lambda: None,
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("layout", [None, "layout.html"])
def test_content_may_be_given_in_place_of_a_template_and_is_escaped(plain: Pages, kind: str, layout: Any):
    """C14"""
    answer = plain.get(lambda t: t.chunked(content=CONTENTS[kind](), layout=layout)).finish()
    wanted = {"markup": "<m>", "list": "&lt;m&gt;", "function of nothing": ""}.get(kind, "&lt;m&gt;")
    assert answer.body.decode() == (wanted if layout is None else f"h{wanted}t")


def test_asynchronous_content_is_awaited(plain: Pages):
    async def texts() -> Any:
        yield "<"
        yield "m"

    async def text() -> str:
        return "m"

    if plain.way.is_async:
        assert plain.get(lambda t: t.chunked(content=texts())).finish().body == b"&lt;m"
        assert plain.get(lambda t: t.chunked(content=text)).finish().body == b"m"
    else:
        templates = streamkit.Templates(plain.environment)
        for content in (texts(), text):
            with pytest.raises(ProducerError, match="enable_async"):
                templates.chunked(content=content)


@pytest.mark.parametrize(
    "wishes", [{}, {"name": "m.html", "content": "m"}, {"content": 5}, {"content": b"m"}]
)
def test_neither_both_or_no_texts_are_refused(plain: Pages, wishes: Any):
    with pytest.raises(ProducerError, match="wanted"):
        streamkit.Templates(plain.environment).chunked(**wishes)


def test_a_template_that_is_missing_is_an_error_of_the_view(plain: Pages):
    templates = streamkit.Templates(plain.environment)
    with pytest.raises(jinja2.TemplateNotFound):
        templates.chunked("other.html")
    with pytest.raises(jinja2.TemplateNotFound):
        templates.chunked("m.html", layout="other.html")


def test_an_error_before_the_first_piece_is_a_real_error(plain: Pages):
    """C15, C17"""
    plain.add("bad.html", "m{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.chunked("bad.html")).finish()
    assert isinstance(answer.error, ZeroDivisionError)
    assert not answer.committed


def test_an_error_after_it_shows_the_output_so_far_what_the_hook_writes_the_completion_and_is_cut(
    plain: Pages,
):
    """C15, C17, RT8"""
    plain.add("bad.html", "m{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.chunked("bad.html", layout="layout.html", on_error=plain.hook("e")))
    found = pieces(answer)
    assert found[:3] == ["h", "m", "e"]
    assert "/500.html" in found[3]
    assert isinstance(answer.error, ZeroDivisionError)
    assert not answer.complete


def test_an_error_in_the_layouts_end_comes_after_all_before_it(plain: Pages):
    """RT8"""
    plain.add("around.html", "h{% content %}t{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.chunked("m.html", layout="around.html"))
    assert pieces(answer)[:3] == ["h", "m", "t"]
    assert not answer.complete


def test_a_failed_page_may_be_ended_cleanly(plain: Pages):
    """C17"""
    plain.add("bad.html", "m{{ 1 // 0 }}")
    answer = plain.get(
        lambda t: t.chunked("bad.html", layout="layout.html"),
        options={"on_failure": "finish", "completion": {"text/html": "!"}},
    )
    assert pieces(answer) == ["h", "m", "!"]
    assert answer.complete


def test_the_traceback_has_the_line_of_the_template(plain: Pages):
    plain.add("bad.html", "m\n\n{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.chunked("bad.html", layout="layout.html")).finish()
    assert answer.error is not None
    lines, trace = [], answer.error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    assert lines[-1] == 3


def test_empty_pieces_are_not_sent(plain: Pages):
    """C16"""
    plain.add("flushes.html", "{% flush %}{{ '' }}{% flush %}a{% flush %}{% flush %}{{ '' }}")
    assert pieces(plain.get(lambda t: t.chunked("flushes.html"))) == ["a"]
    plain.add("bare.html", "{% content %}")
    assert pieces(plain.get(lambda t: t.chunked("m.html", layout="bare.html"))) == ["m"]


def test_an_empty_page_is_one(plain: Pages):
    plain.add("empty.html", "")
    answer = plain.get(lambda t: t.chunked("empty.html")).finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


def test_what_a_layout_holds_before_a_block_goes_before_the_block_is_rendered(pages: Pages):
    """RT1, RT3"""
    pages.add("base.html", "<title>{% block title %}?{% endblock %}</title>\n{% block body %}{% endblock %}!")
    pages.add(
        "page.html",
        "{% extends 'base.html' %}{% block title %}T{% endblock %}"
        "{% block body %}Hello {{ gate('slow') }}{% include 'part.html' %}{% endblock %}",
    )
    pages.add("part.html", "part")
    answer = pages.get(lambda t: t.chunked("page.html"))
    assert answer.read() == b"<title>"
    assert answer.read() == b"T</title>\n"
    pages.open("slow")
    assert answer.rest() == b"Hello slowpart!"


def test_a_page_that_extends_its_layout_has_its_delayed_functions_run_before_its_content(pages: Pages):
    pages.add("base.html", "{% block title %}{% endblock %}|{% block content %}{% endblock %}")
    pages.add(
        "page.html",
        "{% extends 'base.html' %}{% block title %}{{ late }}T{% endblock %}"
        "{% block content %}{{ late }}{% endblock %}",
    )
    answer = pages.get(lambda t: t.chunked("page.html", delay=[pages.function(lambda: {"late": "<"})]))
    assert pieces(answer) == ["T|", "&lt;"]


def test_super_and_blocks_within_blocks_work_as_in_jinja(pages: Pages):
    pages.add("base.html", "[{% block a %}base{% block b %}B{% endblock %}{% endblock %}]")
    pages.add("middle.html", "{% extends 'base.html' %}{% block a %}middle {{ super() }}{% endblock %}")
    pages.add(
        "page.html",
        "{% extends 'middle.html' %}{% block a %}{% flush %}page {{ super() }}{% endblock %}"
        "{% block b %}b{{ self.c() }}{% block c %}c{% endblock %}{% endblock %}",
    )
    answer = pages.get(lambda t: t.chunked("page.html")).finish()
    assert answer.body == b"[page middle basebcc]"


def test_a_scoped_block_in_a_loop_is_flushed_once(pages: Pages):
    pages.add("base.html", "[{% for x in 'abc' %}{% block row scoped %}{% endblock %}{% endfor %}]")
    pages.add("page.html", "{% extends 'base.html' %}{% block row %}{{ x }}{% endblock %}")
    assert pieces(pages.get(lambda t: t.chunked("page.html"))) == ["[", "abc]"]


@pytest.mark.parametrize("way", ["chunked", "view"])
def test_a_layout_that_has_no_place_for_the_content_is_an_error(plain: Pages, way: str):
    plain.add("without.html", "{% block content %}{% endblock %}")
    answer = plain.get(lambda t: getattr(t, way)("m.html", layout="without.html")).finish()
    assert isinstance(answer.error, ProducerError)
    assert "wanted a layout with {% content %}" in str(answer.error)
    assert not answer.committed


@pytest.mark.parametrize("way", ["chunked", "view"])
def test_text_is_in_the_charset_of_the_content_type(plain: Pages, way: str):
    headers = {"Content-Type": "text/html; charset=iso-8859-1"}
    answer = plain.get(lambda t: getattr(t, way)(content="äöü", headers=headers)).finish()
    assert answer.body == "äöü".encode("latin-1")
    assert answer.complete


@pytest.mark.parametrize("way", ["chunked", "view"])
def test_a_page_in_pieces_has_one_byte_order_mark(pages: Pages, way: str):
    pages.add("page.html", "a{% flush %}{{ gate('slow') }}{% flush %}b{% defer %}late{% enddefer %}")
    pages.open("slow")
    headers = {"Content-Type": "text/html; charset=utf-16"}
    body = pages.get(lambda t: getattr(t, way)("page.html", headers=headers)).finish().body
    assert body.startswith("".encode("utf-16"))
    text = body.decode("utf-16")
    assert "\ufeff" not in text
    assert text.startswith("aslowb")
    assert "late" in text


LOCALE: contextvars.ContextVar[str] = contextvars.ContextVar("locale", default="none")


def test_layout_and_content_have_the_context_variables_of_the_description(plain: Pages):
    """RT6"""
    plain.environment.globals["locale"] = LOCALE.get
    plain.add("around.html", "{{ locale() }}{% content %}{% defer %}{{ locale() }}{% enddefer %}")
    plain.add("m.html", "{{ locale() }}")

    def describe(templates: streamkit.Templates) -> Any:
        LOCALE.set("de")
        response = templates.chunked("m.html", layout="around.html")
        LOCALE.set("fr")
        return response

    body = plain.get(describe).finish().body
    assert body.startswith(b"dede<sk-placeholder")
    assert b">de</template>" in body
    assert LOCALE.get() == "none"


def test_a_head_request_renders_nothing(pages: Pages):
    pages.add("page.html", "{{ gate('never') }}")
    answer = pages.get(lambda t: t.chunked("page.html"), method="HEAD").finish()
    assert (answer.status, answer.body, pages.log) == (200, b"", [])
    assert answer.header("Content-Type") == "text/html; charset=utf-8"


def test_an_http_1_0_client_gets_the_whole_page_with_everything_in_its_place(plain: Pages):
    plain.add("m.html", "m{% defer %}d{% placeholder %}p{% enddefer %}{% flush %}M")
    for describe in (
        lambda t: t.chunked("m.html", layout="layout.html"),
        lambda t: t.view("m.html", layout="layout.html"),
    ):
        answer = plain.get(describe, version="1.0").finish()
        assert (answer.body, answer.header("Content-Length")) == (b"hmdMt", "5")


def test_an_http_1_0_client_whose_page_fails_gets_a_real_error(plain: Pages):
    plain.add("bad.html", "m{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.chunked("bad.html", layout="layout.html"), version="1.0").finish()
    assert isinstance(answer.error, ZeroDivisionError)
    assert not answer.committed


def test_a_template_that_is_loaded_already_is_chunked_by_the_face(plain: Pages):
    template = plain.environment.from_string("a{{ b }}")
    assert pieces(plain.get(lambda t: streamkit.chunked(template, b="<"))) == ["a&lt;"]
    streamkit.Templates(plain.environment)
    loaded = plain.environment.get_template("m.html")
    assert pieces(plain.get(lambda t: streamkit.chunked(loaded, layout="layout.html"))) == ["h", "m", "t"]
    with pytest.raises(ProducerError, match=r"Templates\(environment\)"):
        streamkit.chunked("m.html")  # type: ignore[arg-type]


def test_a_description_can_be_served_again(plain: Pages):
    plain.add("late.html", "{{ late }}")
    calls: list[int] = []

    def late() -> dict[str, int]:
        calls.append(len(calls))
        return {"late": len(calls)}

    described = streamkit.Templates(plain.environment).chunked("late.html", delay=[late])
    assert [pieces(plain.get(lambda t: described)) for _ in range(2)] == [["1"], ["2"]]


def test_the_first_pieces_style_sheets_and_scripts_are_named_in_link_headers(plain: Pages):
    plain.add("around.html", "<link rel=stylesheet href=/a.css><script src=/a.js></script>{% content %}")
    for describe in (
        lambda t: t.chunked("m.html", layout="around.html", preload=True),
        lambda t: t.view("m.html", layout="around.html", preload=True),
    ):
        answer = plain.get(describe).finish()
        assert answer.values("Link") == ["</a.css>; rel=preload; as=style", "</a.js>; rel=preload; as=script"]
    assert plain.get(lambda t: t.chunked("m.html", layout="around.html")).finish().values("Link") == []


class TestWhatIsNoEnvironment:
    def test_names_what_was_wanted_and_where_it_is(self) -> None:
        class Flaskish:
            jinja_env = None

        with pytest.raises(ProducerError, match=r"wanted a jinja2\.Environment.*\.jinja_env"):
            streamkit.Templates(Flaskish())  # type: ignore[arg-type]

    def test_a_native_environment_renders_no_text(self) -> None:
        from jinja2.nativetypes import NativeEnvironment

        with pytest.raises(ProducerError, match="renders text"):
            streamkit.Templates(NativeEnvironment())

    def test_options_are_checked(self) -> None:
        with pytest.raises(OptionsError):
            streamkit.Templates(jinja2.Environment(), {"chunk_by_defualt": True})


@pytest.mark.parametrize("way", ["chunked", "view"])
@pytest.mark.parametrize("app_wide", [streamkit.Options(), streamkit.Options(heartbeat=5)])
def test_pages_under_the_same_options_share_theirs(plain: Pages, way: str, app_wide: streamkit.Options):
    describe = getattr(streamkit.Templates(plain.environment), way)
    first, second = (describe(content="a", nonce=nonce).options_over(app_wide) for nonce in ("abc", "def"))
    assert first is second


@pytest.mark.parametrize("defer", [None, 1, "yes"])
def test_a_wish_to_defer_that_is_none_is_refused_when_the_page_is_described(plain: Pages, defer: Any):
    templates = streamkit.Templates(plain.environment)
    with pytest.raises(OptionsError, match="defer: wanted True, False or a function of the request"):
        templates.chunked("m.html", defer=defer)


def test_an_async_delayed_function_is_refused_where_templates_are_not(plain: Pages):
    async def function() -> None: ...

    templates = streamkit.Templates(jinja2.Environment(loader=jinja2.DictLoader({"m.html": "m"})))
    with pytest.raises(ProducerError, match=r"delay: .*function.* is asynchronous"):
        templates.chunked("m.html", delay=[function])


@pytest.mark.parametrize("way", ["chunked", "view"])
def test_what_a_delayed_function_cannot_wait_for_is_an_error(way: str):
    async def later() -> None: ...

    templates = streamkit.Templates(jinja2.Environment(loader=jinja2.DictLoader({"m.html": "m"})))
    page = getattr(templates, way)("m.html", delay=[lambda: later()])
    with pytest.raises(ProducerError, match=r"delay: .* is asynchronous"):
        b"".join(page(create_environ(), lambda *head: lambda chunk: None))


@pytest.mark.parametrize("way", ["chunked", "view"])
def test_delayed_functions_run_although_nothing_shows_what_they_return(plain: Pages, way: str):
    ran: list[str] = []
    plain.add("top.html", "top")
    plain.add("child.html", "{% extends 'top.html' %}{% block content %}never{% endblock %}")
    delay = [plain.function(lambda: ran.append("first")), plain.function(lambda: {"x": ran.append("second")})]
    answer = plain.get(lambda t: getattr(t, way)("child.html", delay=delay)).finish()
    assert (answer.body, answer.complete, answer.error) == (b"top", True, None)
    assert ran == ["first", "second"]


def test_the_traceback_of_a_page_that_is_sent_whole_has_the_line_of_the_template(plain: Pages):
    plain.add("bad.html", "m\n\n{{ 1 // 0 }}")
    answer = plain.get(lambda t: t.view("bad.html", layout="layout.html")).finish()
    assert isinstance(answer.error, ZeroDivisionError)
    lines, trace = [], answer.error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    assert lines[-1] == 3
