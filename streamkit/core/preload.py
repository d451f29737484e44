"""What the top of an HTML page makes the browser fetch, as `Link` header fields.

    preload_links('<link rel=stylesheet href=/a.css><script src=/a.js>')
    # ["</a.css>; rel=preload; as=style", "</a.js>; rel=preload; as=script"]

A browser that has these with the head fetches before it has parsed anything; a server or a proxy
may send them on as 103 Early Hints (RFC 8297).

Rule: an address stands in a field as it stands in the page, or it does not stand there. What would
need quoting inside `<...>` (RFC 8288), or would mean another address there than in the page, is left out.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import NamedTuple

from .nonce import is_nonce

MOST_LINKS = 16
# nginx gives a whole head 4 KiB (proxy_buffer_size), and answers 502 beyond.
MOST_BYTES = 2048  # bytes of all links together
LOOKED_AT = 64 * 1024  # characters of the page

# Only what RFC 3986 allows in a reference: no ">", no space, no quote, nothing outside ASCII.
_REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_INTEGRITY = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/_-]+={0,2}")
_MEDIA = re.compile(r"[A-Za-z0-9 ():,.<>=/-]+")
_SPACE = " \t\n\f\r"  # ASCII whitespace -- WHATWG Infra

# JavaScript MIME types -- WHATWG MIME Sniffing; others, such as "importmap", are not fetched as scripts.
_JAVASCRIPT = re.compile(
    r"(?:text|application)/(?:x-)?(?:java|ecma)script|text/(?:javascript1\.[0-5]|jscript|livescript)"
)
# What stands in these is text, or not fetched where scripts run.
_INERT = frozenset(
    {"iframe", "math", "noembed", "noframes", "noscript", "svg", "template", "textarea", "title", "xmp"}
)


class _Fetch(NamedTuple):
    relation: str
    kind: str | None
    address: str
    media: str


def preload_links(page: str) -> list[str]:
    """A `Link` field value for each style sheet and script that this beginning of a page fetches.

    `rel=preload` for style sheets and classic scripts, `rel=modulepreload` for modules; `crossorigin`,
    `integrity`, `media` and `nonce` as the page has them. At most 16, of 2 KiB together, each once. A tag
    that is not complete is not looked at; neither is what follows the first 64 Ki characters.
    """
    top = _Top()
    top.feed(page[:LOOKED_AT])
    links: list[str] = []
    room = MOST_BYTES
    for link in top.found.values():
        room -= len(link) + 2  # the ", " between two
        if room < 0 or len(links) == MOST_LINKS:
            break
        links.append(link)
    return links


class _Top(HTMLParser):
    """Collects what is fetched, each once, in the order of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[_Fetch, str] = {}
        self._inert: list[str] = []
        self._has_base = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _INERT:
            self._inert.append(tag)
        if self._inert:
            return
        # Of two attributes with one name the first counts -- WHATWG HTML, "duplicate-attribute"
        attributes = {name: value or "" for name, value in reversed(attrs)}
        if tag == "base" and "href" in attributes:
            self._has_base = True
        elif tag == "link" and _is_stylesheet(attributes):
            self._fetch("preload", "style", attributes.get("href", ""), attributes)
        elif tag == "script" and "src" in attributes and "nomodule" not in attributes:
            kind = attributes.get("type", "").strip(_SPACE).lower()
            if kind == "module":
                self._fetch("modulepreload", None, attributes["src"], attributes)
            elif not kind or _JAVASCRIPT.fullmatch(kind):
                self._fetch("preload", "script", attributes["src"], attributes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # "/>" ends elements of SVG and MathML only; in HTML it means nothing.
        if tag not in ("svg", "math"):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inert:
            while self._inert.pop() != tag:
                pass

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        # The standard library's own fails on a keyword that it does not know; HTML ends it at ">".
        end = self.rawdata.find(">", i)
        return end + 1 or -1

    def _fetch(self, relation: str, kind: str | None, address: str, attributes: dict[str, str]) -> None:
        address = address.strip(_SPACE)
        if not _REFERENCE.fullmatch(address):
            return
        scheme = _SCHEME.match(address)
        if scheme is not None and scheme[0].lower() not in ("http:", "https:"):
            return
        # A field is resolved by the address of the response, which knows nothing of `<base>`.
        if self._has_base and scheme is None:
            return
        media = attributes.get("media", "").strip(_SPACE) if kind == "style" else ""
        if media and not _MEDIA.fullmatch(media):
            return
        fetch = _Fetch(relation, kind, address, media)
        if fetch not in self.found:
            self.found[fetch] = _field(fetch, attributes)


def _is_stylesheet(attributes: dict[str, str]) -> bool:
    relations = attributes.get("rel", "").lower().split()
    kind = attributes.get("type", "").strip(_SPACE).lower()
    return (
        "stylesheet" in relations
        and "alternate" not in relations
        and "disabled" not in attributes
        and kind in ("", "text/css")
    )


def _field(fetch: _Fetch, attributes: dict[str, str]) -> str:
    """The value of RFC 8288; each parameter is a token, or quoted and free of quotes and backslashes."""
    parts = [f"<{fetch.address}>", f"rel={fetch.relation}"]
    if fetch.kind is not None:
        parts.append(f"as={fetch.kind}")
    if "crossorigin" in attributes:
        # Every other value means "anonymous" -- WHATWG HTML, "CORS settings attributes"
        with_credentials = attributes["crossorigin"].lower() == "use-credentials"
        parts.append("crossorigin=use-credentials" if with_credentials else "crossorigin=anonymous")
    integrity = attributes.get("integrity", "").split()
    if integrity and all(map(_INTEGRITY.fullmatch, integrity)):
        parts.append(f'integrity="{" ".join(integrity)}"')
    if fetch.media:
        parts.append(f'media="{fetch.media}"')
    if is_nonce(attributes.get("nonce")):
        parts.append(f'nonce="{attributes["nonce"]}"')
    return "; ".join(parts)
