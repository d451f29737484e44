"""The page on Django, Starlette, FastAPI and Quart: its code runs, and does what the page says.

Rule: a block is found by the heading above it, and run as it stands.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers.launch import ROOT

import streamkit
from streamkit.testing import Client

from .programs import read_up_to

pytestmark = pytest.mark.server  # FastAPI and Quart are not among what the quick tests need

PAGE = (ROOT / "docs" / "frameworks-asgi.md").read_text()
CSV = b"0,0\r\n1,1\r\n2,4\r\n"


def blocks(heading: str) -> list[str]:
    """The Python blocks under this heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, f"no section {heading}"
    return re.findall(r"^```python\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Runs a block as a module of its own: annotations look for their names there."""
    name = f"page_{request.node.name}"

    def run(code: str) -> Any:
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(code, f"<{name}>", "exec"), vars(module))
        return module

    yield run
    sys.modules.pop(name, None)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_django(run: Callable[[str], Any], interface: str) -> None:
    pytest.importorskip("django")
    from .django_ways import Site

    settings, code = (run(block) for block in blocks("Django"))
    ours, *others = settings.MIDDLEWARE
    with Site(interface) as site:
        client = site.client(code.urlpatterns, first=ours, middleware=others, STREAMKIT=settings.STREAMKIT)
        ticks = client.get("/ticks/2", headers={"Accept-Encoding": "gzip"})
        assert ticks.read() == b"data: 0\n\ndata: 1\n\n"
        assert ticks.headers["Set-Cookie"].strip().startswith("sessionid=")
        assert (ticks.headers["X-Accel-Buffering"], "Content-Encoding" in ticks.headers) == ("no", False)
        assert client.get("/ticks-async/2").read() == b"data: 0\n\ndata: 1\n\n"
        assert client.get("/export").read().startswith(CSV)
        events = client.get("/events")
        assert json.loads(events.next_event().data) == {"n": 1}
        assert events.headers["Set-Cookie"].strip() == "seen=1; Path=/"


def test_starlette(run: Callable[[str], Any]) -> None:
    pytest.importorskip("starlette")
    (code,) = blocks("Starlette")
    with Client(run(code).app) as client:
        assert client.get("/ticks", query="count=2").read() == b"data: 0\n\ndata: 1\n\n"
        assert client.get("/blocking").read() == b"one\n"
        assert client.get("/plain").read() == b"ab"
        changed = client.get("/changed")
        assert (changed.read(), changed.headers["Set-Cookie"].split(";")[0]) == (b"ab", "seen=1")


def test_fastapi(run: Callable[[str], Any]) -> None:
    pytest.importorskip("fastapi")
    app = run("".join(blocks("FastAPI"))).app
    with Client(app) as client:
        ticks = client.get("/live/tick", query="last=1")
        assert [(event.event, event.data) for event in ticks.events()] == [("tick", "2"), ("tick", "3")]
        assert [event.data for event in client.get("/described").events()] == ["1", "2", "3"]
        assert [(event.data, event.id) for event in client.get("/yields").events()][-1] == ("3", "3")
        assert client.get("/export").read() == b"1\r\n2\r\n3\r\n"
        assert client.get("/rows.csv").read() == b"1\r\n2\r\n3\r\n"
    for path in ("/live/{name}", "/described", "/yields"):
        answers = app.openapi()["paths"][path]["get"]["responses"]
        assert list(answers["200"]["content"]) == ["text/event-stream"]


def test_templates_of_starlette(run: Callable[[str], Any]) -> None:
    pytest.importorskip("jinja2")
    code, _ = blocks("Templates")
    with Client(run(code).app) as client:
        answer = client.get("/albums")
        assert (read_up_to(answer, b"</h1>"), answer.read()) == (b"<h1>/albums</h1>", b"<p>Blue<p>Hejira")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_templates_of_django(run: Callable[[str], Any], interface: str) -> None:
    pytest.importorskip("django")
    pytest.importorskip("jinja2")
    from django.test import override_settings

    from .django_ways import SESSIONS, Site

    code = run("".join(["from jinja2 import DictLoader\n", blocks("Templates")[1]]))
    messages = "django.contrib.messages.middleware.MessageMiddleware"
    with override_settings(TEMPLATES=code.TEMPLATES), Site(interface) as site:
        answer = site.client(code.form, middleware=[SESSIONS, messages]).get("/")
        assert answer.next_chunk() == b"<form>"
        assert b"csrfmiddlewaretoken" in answer.read()


def test_quart(run: Callable[[str], Any]) -> None:
    pytest.importorskip("quart")
    (code,) = blocks("Quart")
    page = run(code)

    @page.site.after_request  # type: ignore[untyped-decorator]
    async def note(response: Any) -> Any:
        response.headers["X-After"] = "1"
        return response

    @page.site.get("/fails")  # type: ignore[untyped-decorator]
    async def fails() -> Any:
        async def produce() -> Any:
            raise ZeroDivisionError
            yield "a"

        return produce()

    with Client(page.app) as client:
        lines = client.get("/lines")
        assert (lines.next_chunk(), lines.next_chunk(), lines.next_chunk()) == (b"one\n", b"two\n", None)
        assert (lines.headers["X-Served-By"], lines.headers["X-After"]) == ("streamkit", "1")
        steps = client.get("/steps")
        assert steps.read() == b"data: 1\n\ndata: 2\n\n"
        assert (steps.headers["X-Served-By"], "X-After" in steps.headers) == ("streamkit", False)
        failed = client.get("/fails")
        with pytest.raises(ZeroDivisionError):
            failed.wait_head()  # nothing was sent: the server answers 500


def test_the_settings_of_the_page_are_options() -> None:
    settings: dict[str, Any] = {}
    exec(blocks("Django")[0], settings)
    assert streamkit.Options.of(settings["STREAMKIT"], {}).heartbeat == 15
