"""The examples of `docs/templates.md`, run as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

import streamkit
from streamkit.testing import Client

from .test_deferred import filled

PAGE = (Path(__file__).parent.parent.parent / "docs" / "templates.md").read_text()
SOURCES = dict(re.findall(r"```html\+jinja\n\{# (\S+) #\}\n(.*?)```", PAGE, re.DOTALL))
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LOADER = jinja2.DictLoader(SOURCES)

ALBUMS = ["Blue", "<Court and Spark>"]
SHOWN = ["<li>Blue</li>", "<li>&lt;Court and Spark&gt;</li>"]


def code_with(text: str) -> str:
    found = [block for block in CODE if text in block]
    assert len(found) == 1
    return found[0]


def run(text: str, **names: Any) -> dict[str, Any]:
    exec(compile(code_with(text), "docs/templates.md", "exec"), names)
    return names


def chunks_of(app: Any, path: str = "/", kind: Any = "wsgi", **asked: Any) -> list[str]:
    with Client(app, kind=kind, timeout=20) as client, client.get(path, **asked) as connection:
        assert connection.status == 200
        return [chunk.decode() for chunk in iter(connection.next_chunk, None)]


def environments() -> tuple[streamkit.Templates, streamkit.Templates]:
    return (
        streamkit.Templates(jinja2.Environment(loader=LOADER, autoescape=True)),
        streamkit.Templates(jinja2.Environment(loader=LOADER, autoescape=True, enable_async=True)),
    )


def check_albums(chunks: list[str]) -> None:
    assert "site.css" in chunks[0]
    assert "<li>" not in chunks[0]
    assert all(item in "".join(chunks[1:]) for item in SHOWN)
    assert chunks[-1].strip().endswith("</html>")


def test_the_flask_example() -> None:
    pytest.importorskip("flask")
    names = run("import flask", query=lambda artist: ALBUMS, __name__="__main__")
    names["app"].jinja_loader = LOADER
    check_albums(chunks_of(names["app"], "/albums/Joni"))


def test_the_starlette_example() -> None:
    pytest.importorskip("starlette")

    async def query_async(artist: str) -> list[str]:
        return ALBUMS

    names = run("import Starlette", query_async=query_async, loader=LOADER)
    check_albums(chunks_of(names["app"], "/albums/Joni", kind="asgi"))


def test_the_example_of_inheritance() -> None:
    for templates in environments():
        described = templates.chunked("extending.html", delay=[lambda: {"albums": ALBUMS}])
        first, second = chunks_of(described)
        assert first.strip().endswith("<body>")
        assert "<p>Blue</p>" in second


def test_the_example_of_a_deferred_block() -> None:
    for templates in environments():
        chunks = chunks_of(templates.chunked("shop.html", item="Vase", reviews=lambda: ["fine"]))
        assert "being fetched" in chunks[0]
        page = filled("".join(chunks))
        assert page.index("<li>fine</li>") < page.index("about us")


def test_the_example_of_slots() -> None:
    for templates in environments():
        page = "".join(chunks_of(templates.chunked("slots.html", item="Vase", price=lambda: "5 €")))
        assert "<script" not in page
        assert ">5 €</span></div>" in page.replace("\n", "")


def test_the_example_of_a_function_of_the_request() -> None:
    _, templates = environments()
    names = run("not_for_robots", templates=templates, reviews=lambda: ["fine"])
    described = asyncio.run(names["shop"](None))
    assert "placeholder" not in "".join(
        chunks_of(described, kind="asgi", headers={"User-Agent": "Somebot/1"})
    )
    assert "placeholder" in "".join(chunks_of(described, kind="asgi", headers={"User-Agent": "Mozilla"}))


def test_the_example_of_awaitables() -> None:
    async def load_weather() -> str:
        return "<sun>"

    async def load_admin() -> str:
        raise AssertionError("not used")

    _, templates = environments()
    names = run("load_weather()", templates=templates, load_weather=load_weather, load_admin=load_admin)
    page = "".join(chunks_of(asyncio.run(names["weather_page"](None))))
    assert "<p>&lt;sun&gt;</p>" in page


def test_the_example_of_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise LookupError("<table> missing")

    templates, _ = environments()
    templates.environment.globals["broken"] = broken
    names = run("shop_with_notice", plain_templates=templates)
    page = filled("".join(chunks_of(names["shop_with_notice"](None))))
    assert "could not be loaded: &lt;table&gt; missing" in page
    assert "works" in page
    assert [record.levelname for record in caplog.records] == ["ERROR"]
