"""What the top of a page makes a browser fetch, as `Link` fields that no markup can break out of."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.core.preload import MOST_BYTES, MOST_LINKS, preload_links
from streamkit.syntax import check_value

HASH = "sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC"
# RFC 8288 by hand: one link value whose parameters are tokens or quoted strings without escapes.
PARAMETER = r'[a-z]+=(?:[A-Za-z0-9-]+|"[^"\\\x00-\x1f\x7f]*")'
LINK = re.compile(rf"<[!#-;=?-\[\]_a-z~%]+>(?:; {PARAMETER})+")


@pytest.mark.parametrize(
    ("markup", "link"),
    [
        ("<link rel=stylesheet href=/a.css>", "</a.css>; rel=preload; as=style"),
        ("<LINK HREF='a.css?v=1&amp;w=2' REL='x StyleSheet'>", "<a.css?v=1&w=2>; rel=preload; as=style"),
        ('<link rel="stylesheet" href=" ../a.css\n" type=text/css />', "<../a.css>; rel=preload; as=style"),
        ("<script src=/a.js></script>", "</a.js>; rel=preload; as=script"),
        ("<script async src=/a.js type=text/javascript>", "</a.js>; rel=preload; as=script"),
        ("<script src=/a.js type=module></script>", "</a.js>; rel=modulepreload"),
        ("<script src=https://cdn.example/a.js>", "<https://cdn.example/a.js>; rel=preload; as=script"),
        ("<script src=//cdn.example/a.js>", "<//cdn.example/a.js>; rel=preload; as=script"),
        ("<script src=/a.js src=/b.js>", "</a.js>; rel=preload; as=script"),
        ("<script src=/a.js crossorigin>", "</a.js>; rel=preload; as=script; crossorigin=anonymous"),
        ("<script src=/a.js crossorigin=x>", "</a.js>; rel=preload; as=script; crossorigin=anonymous"),
        (
            "<script src=/a.js type=module crossorigin=Use-Credentials>",
            "</a.js>; rel=modulepreload; crossorigin=use-credentials",
        ),
        (f"<script src=/a.js integrity={HASH}>", f'</a.js>; rel=preload; as=script; integrity="{HASH}"'),
        ("<script src=/a.js nonce=abc>", '</a.js>; rel=preload; as=script; nonce="abc"'),
        (
            "<link rel=stylesheet href=/a.css media='screen and (min-width: 40em)'>",
            '</a.css>; rel=preload; as=style; media="screen and (min-width: 40em)"',
        ),
    ],
)
def test_what_a_page_fetches_is_a_link(markup: str, link: str) -> None:
    assert preload_links(f"<!doctype html><html><head><title>a</title>{markup}") == [link]


@pytest.mark.parametrize(
    "markup",
    [
        "<link rel=icon href=/a.ico>",
        "<link rel='alternate stylesheet' href=/a.css>",
        "<link rel=stylesheet href=/a.css disabled>",
        "<link rel=stylesheet href=/a.less type=text/less>",
        "<link rel=stylesheet>",
        "<link rel=stylesheet href=''>",
        "<script>let a = '<link rel=stylesheet href=/a.css>'</script>",
        "<script src=/a.js nomodule></script>",
        "<script src=/a.json type=importmap></script>",
        "<script src=/a.js type=text/template></script>",
        "<!-- <link rel=stylesheet href=/a.css> -->",
        "<noscript><link rel=stylesheet href=/a.css></noscript>",
        "<template><script src=/a.js></script></template>",
        "<title><script src=/a.js></script></title>",
        "<textarea><script src=/a.js></script></textarea>",
        "<svg><script src=/a.js></script></svg>",
        "<base href=/elsewhere/><script src=/a.js></script>",
        "<script src=data:text/javascript,alert(1)></script>",
        "<script src=javascript:alert(1)></script>",
        "<script src=/a.js",
        "<script src='/a.js",
        "<link rel=stylesheet href=/a.css media='(a\"b)'>",
    ],
)
def test_what_is_not_fetched_or_not_where_it_seems_is_no_link(markup: str) -> None:
    assert preload_links(f"<head>{markup}") == []


@pytest.mark.parametrize(
    "address",
    [
        "/a>; rel=preconnect, <https://evil.example/",
        "/a&gt;; rel=preconnect, &lt;https://evil.example/",
        "/a\r\nSet-Cookie: a=b",
        "/a&#13;&#10;Set-Cookie: a=b",
        "/a b.css",
        "/a\\b.css",
        "/ä.css",
        "/a&quot;b.css",
        "/a%zz.css",
        "/a\0.css",
    ],
)
def test_an_address_that_would_need_quoting_is_left_out(address: str) -> None:
    assert preload_links(f'<link rel=stylesheet href="{address}"><script src="{address}"></script>') == []


@pytest.mark.parametrize("name", ["integrity", "nonce", "crossorigin", "as"])
def test_a_parameter_that_would_need_quoting_is_left_out(name: str) -> None:
    for hostile in ("&quot;; rel=preconnect", 'sha256-a"', "a\r\nb: c", "sha256-\\", "é"):
        markup = f"<script src=/a.js {name}='{hostile}'></script>"
        plain = "</a.js>; rel=preload; as=script"
        assert preload_links(markup) in ([plain], [f"{plain}; crossorigin=anonymous"])


def test_what_follows_a_base_is_taken_only_with_its_whole_address() -> None:
    page = "<script src=/a></script><base href=//cdn/><script src=/b></script><script src=https://c/d>"
    assert preload_links(page) == ["</a>; rel=preload; as=script", "<https://c/d>; rel=preload; as=script"]


def test_what_follows_an_element_of_text_is_taken() -> None:
    text = "<title>a</title><noscript><b></noscript><svg/><svg></svg></p></svg><iframe><title></iframe>"
    page = f"{text}<script src=/a.js></script>"
    assert preload_links(page) == ["</a.js>; rel=preload; as=script"]


def test_each_is_there_once_in_the_order_of_the_page() -> None:
    script, style = "<script src=/b></script>", "<link rel=stylesheet href="
    page = f"{script}{style}/a>{script}{style}/b>"
    assert [link.split(">")[0] for link in preload_links(page)] == ["</b", "</a", "</b"]


def test_there_are_not_more_than_a_head_can_hold() -> None:
    many = "".join(f"<script src=/{number}.js></script>" for number in range(1000))
    assert len(preload_links(many)) == MOST_LINKS
    long = "".join(f"<script src=/{number}/{'x' * 500}.js></script>" for number in range(1000))
    assert 0 < len(", ".join(preload_links(long))) <= MOST_BYTES
    assert preload_links(f"<script src=/{'x' * 10_000}></script>") == []
    assert preload_links(" " * 70_000 + "<script src=/a.js></script>") == []


WORDS = """<script src=|<link rel=stylesheet href=|<base href=/x>|</script>|<title>|</title>|<svg>|</svg>|
<template>|</template>|<!--|-->|<![CDATA[|
<![if x]>|<![x[|]]>|<?|<!x| nonce="| integrity='sha256-| crossorigin=| media=|
 type=module|/a.js|https:|//b|&gt;|&#10;|&quot;|\\|,|;"""
MARKUP = st.lists(
    st.sampled_from(WORDS.replace("|\n", "|").split("|"))
    | st.text(st.sampled_from("<>\"'=/ \r\n\0\\;,ax:&#é"), max_size=4),
    max_size=12,
).map("".join)


def assert_whole(links: list[Any]) -> None:
    for link in links:
        assert LINK.fullmatch(link), link
        check_value("Link", link)


@given(MARKUP)
def test_no_markup_breaks_out_of_a_field(markup: str) -> None:
    assert_whole(preload_links(markup))
    assert_whole(preload_links(f'<script src="/a.js" {markup}></script>'))
    assert_whole(preload_links(f'<link rel=stylesheet href="{markup}" media="{markup}" nonce="{markup}">'))


@given(st.text(st.sampled_from("<>\"'=/ \r\n\0\\;,ax:&#é"), max_size=8))
def test_no_value_that_begins_well_breaks_out_of_a_field(more: str) -> None:
    end = escape(more, quote=True)
    for beginning in (f"integrity='{HASH}", "nonce='abc", "crossorigin='", "type='"):
        assert_whole(preload_links(f"<script src=/a.js {beginning}{end}'></script>"))
    assert_whole(preload_links(f"<link rel=stylesheet href=/a.css media='screen{end}'>"))
    assert_whole(preload_links(f"<link rel=stylesheet href='/a.css{end}'>"))


@given(st.text())
def test_any_text_at_all_may_be_looked_at(text: str) -> None:
    assert_whole(preload_links(text))
