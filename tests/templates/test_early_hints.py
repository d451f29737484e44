"""103 Early Hints: the links of a whole page leave ahead of it, where server and browser can."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

import streamkit
from streamkit.testing import Client

NAVIGATES = {"Sec-Fetch-Mode": "navigate"}
LINKS = ["</a.css>; rel=preload; as=style", "</a.js>; rel=preload; as=script"]
TOP = "<link rel=stylesheet href=/a.css><script src=/a.js></script>"
SOURCES = {
    "layout.html": TOP + "{% block content %}{% endblock %}",
    "page.html": '{% extends "layout.html" %}{% block content %}{{ slow() }}{% endblock %}',
    "plain.html": TOP + "{% flush %}{{ slow() }}",
}


class Site:
    """A page, and in which order its links left and its slow part was rendered."""

    def __init__(self, kind: str, *, is_async: bool, can: bool = True) -> None:
        self.kind, self.can = kind, can
        self.sent: list[list[str]] = []
        self.log: list[str] = []
        environment = jinja2.Environment(
            loader=jinja2.DictLoader(SOURCES), autoescape=True, enable_async=is_async
        )
        environment.globals["slow"] = self.slow
        self.templates = streamkit.Templates(environment)

    def slow(self) -> str:
        self.log.append("slow")
        return "slow"

    def note(self, links: list[str]) -> None:
        self.log.append("hints")
        self.sent.append(links)

    def get(self, response: Any, headers: dict[str, str] | None = None, version: str = "1.1") -> Any:
        extra: dict[str, Any] = {}
        app: Any
        if self.kind == "wsgi":
            if self.can:
                extra["environ_extra"] = {"wsgi.early_hints": lambda pairs: self.note([v for _, v in pairs])}

            def app(environ: Any, start_response: Any) -> Any:
                return response(environ, start_response)
        else:
            if self.can:
                extra["scope_extra"] = {"extensions": {"http.response.early_hint": {}}}

            async def app(scope: Any, receive: Any, send: Any) -> None:
                async def noting(message: Any) -> None:
                    if message["type"] == "http.response.early_hint":
                        self.note([link.decode() for link in message["links"]])
                        return
                    self.log.append(message["type"])
                    await send(message)

                await response(scope, receive, noting)

        with Client(app, kind=self.kind, lifespan="off", read_ahead=10) as client:  # type: ignore[arg-type]
            connection = client.get("/", headers=headers or NAVIGATES, http_version=version, **extra)
            with connection:
                body = connection.read()
                return connection.headers, body


WAYS = [("wsgi", False), ("asgi", False), ("asgi", True)]


@pytest.mark.parametrize("name", ["page.html", "plain.html"])
@pytest.mark.parametrize(("kind", "is_async"), WAYS)
def test_the_links_of_a_whole_page_leave_before_its_slow_part_is_rendered(
    kind: str, is_async: bool, name: str
) -> None:
    site = Site(kind, is_async=is_async)
    headers, body = site.get(site.templates.view(name, preload=True))
    assert site.sent == [LINKS]
    assert site.log[:2] == ["hints", "slow"]
    assert headers.getlist("Link") == LINKS
    assert headers.get("Content-Length") == str(len(body))


@pytest.mark.parametrize(("kind", "is_async"), WAYS)
def test_nothing_is_sent_ahead_where_it_is_not_asked_for_or_not_understood(kind: str, is_async: bool) -> None:
    site = Site(kind, is_async=is_async)
    site.get(site.templates.view("page.html"))
    site.get(site.templates.chunked("page.html", preload=True))  # its head leaves with its top
    site.get(site.templates.view("page.html", preload=True), headers={"Sec-Fetch-Mode": "cors"})
    site.get(site.templates.view("page.html", preload=True), headers={"Accept": "*/*"})
    assert site.sent == []
    without = Site(kind, is_async=is_async, can=False)
    headers, _ = without.get(without.templates.view("page.html", preload=True))
    assert without.sent == []
    assert headers.getlist("Link") == LINKS


def test_an_asynchronous_environment_under_wsgi_sends_no_hints() -> None:
    site = Site("wsgi", is_async=True)
    headers, _ = site.get(site.templates.view("page.html", preload=True))
    assert site.sent == []
    assert headers.getlist("Link") == LINKS
