"""The markup of what is deferred: its placeholder, and how it gets there when it is ready.

Two ways. `Filler` needs a script of the page: the block comes in a `<template>` after the page, and a
few inline bytes put it into its placeholder's place. `Slots` needs none: the region is a declarative
shadow tree (WHATWG HTML, `shadowrootmode`), each placeholder a `<slot>` of it, and the block comes
later as a child of the host, which is still open, and is shown in its slot.

Rule: ids are made here, of hexadecimal digits, and nothing else of the application's goes into a tag
but the nonce, which was checked.
"""

from __future__ import annotations

from typing import Any, Protocol

_SCRIPT = (
    "function $sk(i){var t=document.querySelector('template[id=\"'+i+'\"]'),"
    "p=document.querySelector('sk-placeholder[id=\"'+i+'\"]');"
    "if(t){if(p)p.replaceWith(t.content);t.remove()}document.currentScript.remove()}"
)


class Region(Protocol):
    """Where deferred blocks go."""

    open: set[str]  # the ids of those that have not come
    held: list[Any]  # those that became ready while another region was being filled

    def placeholder(self, key: str, waiting: str) -> str: ...
    def before(self, key: str) -> str: ...
    def after(self, key: str) -> str: ...


class Filler:
    """The page: placeholders that a script fills."""

    def __init__(self, nonce: str | None) -> None:
        self.open: set[str] = set()
        self.held: list[Any] = []
        self._script = f'<script nonce="{nonce}">' if nonce else "<script>"
        self._knows = False  # the page has the function

    def placeholder(self, key: str, waiting: str) -> str:
        return f'<sk-placeholder id="{key}">{waiting}</sk-placeholder>'

    def before(self, key: str) -> str:
        return f'<template id="{key}">'

    def after(self, key: str) -> str:
        function = "" if self._knows else _SCRIPT
        self._knows = True
        return f'</template>{self._script}{function}$sk("{key}")</script>'


class Slots:
    """A shadow tree: placeholders that the browser fills by itself."""

    OPEN = '<div><template shadowrootmode="open">'
    BETWEEN = "</template>"
    CLOSE = "</div>"

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.held: list[Any] = []

    def placeholder(self, key: str, waiting: str) -> str:
        return f'<slot name="{key}">{waiting}</slot>'

    def before(self, key: str) -> str:
        return f'<span slot="{key}">'

    def after(self, key: str) -> str:
        return "</span>"
