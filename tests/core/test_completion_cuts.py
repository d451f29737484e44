"""Wherever a page is cut, its completion is read as what it is: judged by html5lib's parser.

Rule: a page is completed and parsed whole; what is looked for is the element, not the text. html5lib does
not know `<template>`: what a browser makes of templates stands in `tests/browser/test_completion.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from types import SimpleNamespace
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamkit import OptionsError, html_completion

html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")

HTML = "{http://www.w3.org/1999/xhtml}"
# What an address may hold that markup or a script could take for its own.
ADDRESS = "/oops.html?a=\"'</script><!--&copy=1&amp;"
IN_SCRIPT = r'"/oops.html?a=\"' + r"""'\u003c/script>\u003c!--&copy=1&amp;""" + '"'
SCRIPT = f"window.location.replace(new URL({IN_SCRIPT}, window.location))"
COMPLETION = html_completion(ADDRESS, nonce="bm9uY2U=")(None, RuntimeError())
REFRESH = html_completion(ADDRESS, script=False)(None, RuntimeError())

# Every state of the tokenizer in which a page can end, by a page that ends there.
TOKENS = {
    "nothing": "",
    "text": "<!doctype html><p>text",
    "a character reference": "<p>fish &am",
    "a numeric reference": "<p>fish &#x2",
    "the start of a tag": "<p>a <",
    "a tag's name": "<p>a <sect",
    "a script's name": "<p>a <script",
    "plaintext's name": "<p>a <plaintext",
    "the start of an end tag": "<p>a </",
    "an end tag's name": "<p>a </sect",
    "an end tag": "<p>a </section ",
    "before an attribute": "<p ",
    "an attribute's name": "<p tit",
    "after an attribute's name": "<p title ",
    "before a value": "<p title=",
    "before a value, after a space": "<p title= ",
    "a double-quoted value": '<p title="half',
    "a double-quoted value with a single quote": "<p title=\"it's",
    "a double-quoted value with a tag": '<p title="<b>',
    "a single-quoted value": "<p title='half",
    "a single-quoted value with a double quote": "<p title='say \"x",
    "an unquoted value": "<p title=half",
    "a reference in a value": '<p title="&am',
    "after a quoted value": '<p title="a"',
    "a self-closing tag": "<br /",
    "a markup declaration": "<!",
    "half a comment's start": "<!-",
    "the start of a comment": "<!--",
    "a comment that could end abruptly": "<!---",
    "a comment": "<!-- half",
    "a comment with a dash": "<!-- half -",
    "a comment with two dashes": "<!-- half --",
    "a comment with a bang": "<!-- half --!",
    "a comment with a start of one": "<!-- half <!--",
    "a processing instruction": '<?xml version="1.0"',
    "a doctype's keyword": "<!DOCT",
    "a doctype": "<!DOCTYPE",
    "a doctype's name": "<!DOCTYPE ht",
    "a doctype's public keyword": "<!DOCTYPE html PUBLIC",
    "a doctype's public identifier": '<!DOCTYPE html PUBLIC "-//W3C',
    "a doctype's single-quoted public identifier": "<!DOCTYPE html PUBLIC '-//W3C",
    "between a doctype's identifiers": '<!DOCTYPE html PUBLIC "-//W3C" ',
    "a doctype's system identifier": "<!DOCTYPE html SYSTEM 'http",
    "CDATA's keyword": "<svg><![CDA",
    "CDATA": "<svg><![CDATA[ <p> half",
    "CDATA with a bracket": "<math><![CDATA[ half ]",
    "CDATA with two brackets": "<svg><![CDATA[ half ]]",
    "a script": "<script>let x = '<p>'",
    "a script's attribute": '<script data-x="half',
    "a script's half end tag": "<script>x</scr",
    "a script's end tag": "<script>x</script",
    "a script's end tag with a space": "<script>x</script ",
    "a script's comment": "<script><!-- half",
    "a script's comment with dashes": "<script><!-- half --",
    "a script in a script's comment": "<script><!-- <script",
    "text of a script in a script's comment": "<script><!-- <script> half",
    "the end of a script in a script's comment": "<script><!-- <script> </scr",
    "after a script in a script's comment": "<script><!-- <script> </script> half",
    "a style sheet": "<style>p { content: '<p>",
    "a text area": "<form><textarea><p>half",
    "a text area's attribute": "<form><textarea title='half",
    "a title": "<head><title>half <b>",
    "a title's half end tag": "<head><title>half</ti",
    "an iframe": "<iframe><p>half",
    "an xmp": "<xmp><p>half",
    "a noembed": "<noembed><p>half",
    "noframes": "<noframes><p>half",
}
# Every mode of tree construction that a page can end in.
ELEMENTS = {
    "html": "<html>",
    "a head": "<html><head>",
    "after a head": "<html><head></head>",
    "a body": "<body><p>half",
    "after a body": "<body></body>",
    "after html": "<body></body></html>",
    "a noscript in the head": "<head><noscript><link rel=stylesheet href=/a.css>",
    "a noscript": "<body><noscript><p>half",
    "a comment in a noscript": "<body><noscript><!-- half",
    "a style sheet in a noscript": "<head><noscript><style>half",
    "a select": "<select><option>half",
    "an optgroup": "<select><optgroup label='half",
    "a table": "<table>",
    "a caption": "<table><caption>half",
    "a colgroup": "<table><colgroup><col>",
    "a row group": "<table><tbody>",
    "a row": "<table><tr>",
    "a cell": "<table><tr><td>half",
    "a select in a cell": "<table><tr><td><select><option>half",
    "a table in a table": "<table><tr><td><table><tr>",
    "a list": "<ul><li>half",
    "a link": "<a href=/x>half",
    "a button": "<button><b>half",
    "misnested formatting": "<b><p><i></b>half",
    "an object": "<object><param name=a>half",
    "preformatted text": "<pre>half",
    "a heading": "<h1>half",
    "SVG": "<svg><g>",
    "text in SVG": "<svg><text>half",
    "a title in SVG": "<svg><title>half",
    "a script in SVG": "<svg><script>let x",
    "a style sheet in SVG": "<svg><style>p {",
    "a text area's namesake in SVG": "<svg><textarea>",
    "a foreign object": "<svg><foreignObject><p>half",
    "MathML": "<math><mrow>",
    "a text in MathML": "<math><mi>x",
    "an annotation": "<math><annotation-xml>half",
    "an annotation in HTML": "<math><annotation-xml encoding='text/html'><p>half",
    "SVG in a table": "<table><tr><td><svg><g>",
    "MathML in a paragraph in a select": "<p><math><mtext><select><option>",
}
BOTH = {**TOKENS, **ELEMENTS}
SCRIPTING = [True, False]


def elements(page: str, scripting: bool) -> Iterator[tuple[Element, list[str]]]:
    """Each element of the page, and the names of those that it stands in."""
    root = html5lib.HTMLParser().parse(page, scripting=scripting)

    def walk(element: Element, above: list[str]) -> Iterator[tuple[Element, list[str]]]:
        yield element, above
        for child in element:
            if isinstance(child.tag, str):
                yield from walk(child, [*above, element.tag])

    return walk(root, [])


def text_of(element: Element) -> str:
    return "".join(element.itertext())


def shown(found: list[tuple[Element, list[str]]], tag: str, **attributes: str) -> list[tuple[str, list[str]]]:
    """The text and the place of each element of HTML with this tag and exactly these attributes."""
    return [
        (text_of(one), above)
        for one, above in found
        if one.tag == HTML + tag and dict(one.items()) == attributes
    ]


def assert_leads_on(half: str, scripting: bool) -> None:
    """Our script is there once, with its text; without scripts, the refresh and the link."""
    found = list(elements(half + COMPLETION, scripting))
    ours = [(text, above) for text, above in shown(found, "script", nonce="bm9uY2U=") if text == SCRIPT]
    assert len(ours) == 1, half
    assert HTML + "select" not in ours[0][1]
    assert not scripting or HTML + "noscript" not in ours[0][1]
    refresh = shown(found, "meta", **{"http-equiv": "refresh", "content": f"0; url={ADDRESS}"})
    links = [text for text, _ in shown(found, "a", href=ADDRESS)]
    if scripting:
        assert not refresh
    else:
        assert len(refresh) == 1
        assert "This page could not be completed." in links


def assert_refreshes(half: str, scripting: bool) -> None:
    found = list(elements(half + REFRESH, scripting))
    assert len(shown(found, "meta", **{"http-equiv": "refresh", "content": f"0; url={ADDRESS}"})) == 1
    assert "This page could not be completed." in [text for text, _ in shown(found, "a", href=ADDRESS)]


@pytest.mark.parametrize("scripting", SCRIPTING)
@pytest.mark.parametrize("half", BOTH.values(), ids=list(BOTH))
def test_a_page_cut_there_leads_to_the_error_page(half: str, scripting: bool) -> None:
    assert_leads_on(half, scripting)
    assert_refreshes(half, scripting)


@pytest.mark.parametrize("outer", ELEMENTS.values(), ids=list(ELEMENTS))
def test_a_token_cut_within_any_element_leads_to_the_error_page(outer: str) -> None:
    for inner in TOKENS.values():
        assert_leads_on(outer + inner, scripting=True)
        assert_leads_on(outer + inner, scripting=False)


PAGE = (
    '<!DOCTYPE html><html lang="en"><head><title>{t}</title><meta name=a content={u}>'
    "<style>p::after {{ content: 'x' }}</style><script>let x = {j}; // {j}\n<!-- <script> --></script></head>"
    "<body class='{s}'><!-- {c} --><p title=\"{t}\">{t}<a href='/?q={u}'>{t}</a><svg><title>{t}</title>"
    "<text x={u}>{t}</text><![CDATA[{c}]]></svg><table><tr><td>{t}</table><textarea>{t}</textarea>"
    "<select><option value={u}>{t}</select><math><mi>{t}</mi></math><noscript>{t}</noscript></body></html>"
)
HOSTILE = st.lists(
    st.sampled_from(
        ["<", ">", '"', "'", "=", "&", "-", "--", "!", "/", "]", "`", " ", "\n", "\0", "script", "x"]
    )
    | st.sampled_from(
        ["</script>", "<script>", "-->", "<!--", "]]>", "<![CDATA[", "<p>", "window", "&amp", "é"]
    ),
    max_size=6,
).map("".join)


def page_with(text: str) -> str:
    """A page that shows this text at every place, escaped as a careful template does it."""
    in_html = escape(text, quote=True)
    unquoted = re.sub(r"[^a-z0-9]", lambda found: f"&#{ord(found[0])};", text.replace("\0", ""))
    in_script = '"' + re.sub(r"[^a-z ]", lambda found: f"\\u{ord(found[0]):04x}", text) + '"'
    in_comment = re.sub(r"[->\]]", "", text)
    return PAGE.format(t=in_html, u=unquoted or "x", j=in_script, s=in_html, c=in_comment)


@example("</script><!--<script>", 10**6)
@given(HOSTILE, st.integers(0, 1200))
def test_no_text_on_a_page_changes_what_completes_it(text: str, cut: int) -> None:
    half = page_with(text)[:cut]
    assert_leads_on(half, scripting=True)
    assert_leads_on(half, scripting=False)


# Markup of any kind in any order, as if a template had escaped nothing: all but what has no way out.
MARKUP = st.lists(
    st.sampled_from([half for half in BOTH.values() if "plaintext" not in half])
    | st.sampled_from(
        ["<svg>", "</svg>", "<math>", "<p>", "</p>", "<table>", "</table>", "<td>", "<select>", "</b>"]
    )
    | HOSTILE,
    max_size=6,
).map("".join)


@given(MARKUP)
def test_no_markup_before_it_changes_what_a_completion_is(half: str) -> None:
    assert_leads_on(half, scripting=True)
    assert_leads_on(half, scripting=False)


def test_a_frameset_takes_the_error_page_as_its_frame() -> None:
    for half in (
        "<frameset cols='*,*'>",
        "<frameset><frame src='/a",
        "<frameset><noframes>half",
        "<frameset><!-- x",
    ):
        found = list(elements(half + COMPLETION, scripting=True))
        frames = [text for text, _ in shown(found, "frame", src=ADDRESS)]
        assert len(frames) == 1
    assert not shown(list(elements("<p>" + COMPLETION, scripting=True)), "frame", src=ADDRESS)


@pytest.mark.parametrize("half", ["<plaintext>half", "<frameset></frameset>"])
def test_after_plaintext_and_a_frameset_there_is_no_way_out(half: str) -> None:
    found = list(elements(half + COMPLETION, scripting=True))
    assert not [one for one, _ in found if one.tag == HTML + "script"]


@pytest.mark.parametrize(
    "half",
    [
        "<script>start(); // then",
        "<script>start(); /* then",
        "<script>start(); <!-- then",
        "<script>start() ",
        "<script>start(); let x = 'th",
        '<script>start(); let x = "th',
        "<script>start(); let x = `th",
        "<script>start(); let x = [[1, // two",
        "<svg><script>start(); // then",
    ],
)
def test_a_script_that_was_cut_has_no_end_that_a_parser_of_scripts_takes(half: str) -> None:
    # Every way on ends with this: on a line of its own, so that no comment hides it, an operator
    # that wants what never comes. That browsers do not run it stands in their own tests.
    script = next(
        one for one, _ in elements(half + COMPLETION, scripting=True) if one.tag.endswith("}script")
    )
    assert text_of(script).endswith("\n]]>")


@pytest.mark.parametrize(
    "half", ['<script src="//cdn.exa', "<script src='//cdn.exa", "<script src=//cdn.exa"]
)
def test_half_a_host_is_no_host(half: str) -> None:
    script = next(one for one, _ in elements(half + COMPLETION, scripting=True) if one.tag == HTML + "script")
    assert script.get("src").startswith("//cdn.exa|")  # "|" is a forbidden host code point -- WHATWG URL


class Answer:
    """A stream whose response has this policy."""

    response: Any = None

    def __init__(self, policy: str | None) -> None:
        self.headers = {} if policy is None else {"Content-Security-Policy": policy}


def scripts_of(text: Any) -> list[dict[str, str]]:
    found = elements("<p>" + text, scripting=True)
    return [dict(one.items()) for one, _ in found if one.tag == HTML + "script"]


@pytest.mark.parametrize(
    ("policy", "nonce"),
    [
        (None, None),
        ("default-src 'self'", None),
        ("script-src 'nonce-abc'", "abc"),
        ("default-src 'nonce-abc=='; img-src *", "abc=="),
        ("default-src 'nonce-no'; SCRIPT-SRC 'self' 'Nonce-a+/-_b'", "a+/-_b"),
        ("script-src 'nonce-no'; script-src-elem 'nonce-abc'", "abc"),
        ("script-src 'nonce-abc'; script-src 'nonce-no'", "abc"),
        ("style-src 'nonce-no'; script-src 'self'", None),
        ("script-src 'nonce-<b>'", None),
        ("script-src 'nonce-abc', script-src 'nonce-no'", "abc"),
    ],
)
def test_the_nonce_is_taken_from_the_response_s_own_policy(policy: str | None, nonce: str | None) -> None:
    text = html_completion("/oops.html")(Answer(policy), RuntimeError())
    assert scripts_of(text) == [{} if nonce is None else {"nonce": nonce}]


def test_the_nonce_that_a_description_has_goes_before_that_of_the_policy() -> None:
    answer = Answer("script-src 'nonce-no'")
    answer.response = SimpleNamespace(nonce="abc")
    assert scripts_of(html_completion("/oops.html")(answer, RuntimeError())) == [{"nonce": "abc"}]
    answer.response = SimpleNamespace()  # as most descriptions are
    assert scripts_of(html_completion("/oops.html")(answer, RuntimeError())) == [{"nonce": "no"}]


def test_a_nonce_may_be_a_function_of_the_stream_and_no_nonce_is_none() -> None:
    asked: list[Any] = []

    def nonce(stream: Any) -> str | None:
        asked.append(stream)
        return "abc" if stream is answer else None

    answer, other = Answer("script-src 'nonce-other'"), Answer(None)
    complete = html_completion("/oops.html", nonce=nonce)
    assert scripts_of(complete(answer, RuntimeError())) == [{"nonce": "abc"}]
    assert scripts_of(complete(other, RuntimeError())) == [{}]
    assert asked == [answer, other]


@pytest.mark.parametrize("nonce", ['"><b>', "", "a b", "a\n", "===", "a===", "é", 5])
def test_what_is_no_nonce_is_refused_and_not_shown(nonce: Any) -> None:
    with pytest.raises(OptionsError, match="nonce: wanted") as refused:
        html_completion("/oops.html", nonce=nonce)
    assert "<b>" not in str(refused.value)
    with pytest.raises(OptionsError, match="nonce: wanted"):
        html_completion("/oops.html", nonce=lambda stream: nonce)(Answer(None), RuntimeError())


@pytest.mark.parametrize("page", ["", None, b"/oops.html"])
def test_an_error_page_has_an_address(page: Any) -> None:
    with pytest.raises(OptionsError, match="error_page: wanted the address of a page"):
        html_completion(page)


def test_without_a_script_there_is_a_refresh_and_a_link_and_no_inline_code() -> None:
    assert isinstance(REFRESH, str)
    assert "<script" not in REFRESH
    assert "<noscript>" not in REFRESH
    assert "nonce" not in REFRESH


def test_a_completion_can_be_sent_in_every_charset() -> None:
    text = html_completion("/größe/エラー.html")(Answer(None), RuntimeError())
    assert isinstance(text, str)
    assert text.isascii()
    found = list(elements("<p>" + text, scripting=False))
    assert [above[-1] for _, above in shown(found, "a", href="/größe/エラー.html")]
