"""What `test_templates` has its browser open: pages whose slow parts wait until a test lets them go on.

    /style.css    the style sheet; it is noted that it was asked for
    /oops.html    where a page that fails goes
    /<name>       PAGES[name] in the layout

Rule: nothing here takes its time by a clock. A part is made when its gate is open, and that is noted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import DictLoader, Environment
from servers.launch import poll

import streamkit

BOUND = 30.0  # seconds that a gate stays shut at most

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #1d2733; background: #f4f6f8 }
header { background: #20405f; color: #fff; padding: 12px 24px } h1 { font-size: 20px; margin: 0 }
main { padding: 16px 24px } p { margin: 0 0 12px }
.cards { display: flex; gap: 16px }
.card { flex: 1; background: #fff; border: 1px solid #d5dde5; padding: 12px 16px }
h2 { font-size: 16px; margin: 0 0 4px } .waiting { color: #8593a3 } li { margin: 0 }
ul { margin: 0; padding-left: 20px }
"""
LAYOUT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Albums</title>
<link rel="stylesheet" href="/style.css"></head>
<body><header><h1>Albums of 1959</h1></header>
<main>{% block content %}{% endblock %}</main>
</body></html>
"""
CARD = """<div class="card"><h2>{{ title }}</h2>%s<div id="{{ title }}"><ul>
{%% for line in query(title) %%}<li>{{ line }}</li>{%% endfor %%}</ul></div>%s</div>"""
WAITING = '{% placeholder %}<div id="waiting-{{ title }}" class="waiting">is looked for …</div>{% enddefer %}'
CARDS = (
    "{% for title in ['Sellers', 'Reviews', 'Concerts'] %}" + CARD % ("{% defer %}", WAITING) + "{% endfor %}"
)
PAGES = {
    "late": "<p>Kind of Blue</p><p id=late>{{ query('late')|join }}</p>",
    "deferred": f'<p id=text>Kind of Blue</p><div class="cards">{CARDS}</div><p id=after>after them</p>',
    "slots": f'<p id=text>Kind of Blue</p>{{% slots %}}<link rel="stylesheet" href="/style.css">'
    f'<div class="cards">{CARDS}</div>{{% endslots %}}<p id=after>after them</p>',
    "fails": "<p id=text>Kind of Blue</p>{% flush %}<p title='{{ query('first')|join }}{{ fail() }}'>",
    "deferred-fails": "<p id=text>Kind of Blue</p>{% defer %}<textarea>{{ fail() }}{% enddefer %}",
}  # fmt: skip
OOPS = b"<!doctype html><title>oops</title><h1 id=oops>Something went wrong</h1>"
LINES = {
    "Sellers": ["Kind of Blue", "Time Out", "Mingus Ah Um"],
    "Reviews": ["“A quiet revolution”", "“Nine to the bar”"],
    "Concerts": ["Tuesday, 8 pm", "Friday, 9 pm"],
}
POLICY = "default-src 'none'; style-src 'self'; script-src 'nonce-bm9uY2U='"


class Site:
    """The pages, and what has happened to them."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self.address = ""
        self.notes: list[str] = []
        self.headers: dict[str, str] = {}  # of the pages to come
        self.gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        begin, end = '{% extends "layout.html" %}{% block content %}', "{% endblock %}"
        pages = {name: f"{begin}{page}{end}" for name, page in PAGES.items()}
        loader = DictLoader({"layout.html": LAYOUT, **pages})
        environment = Environment(loader=loader, autoescape=True, enable_async=kind == "async")
        environment.globals["query"] = self._query_async if kind == "async" else self._query
        environment.globals["fail"] = self._fail
        completion = {"text/html": streamkit.html_completion("/oops.html")}
        self.templates = streamkit.Templates(environment, {"completion": completion, **options})

    def _query(self, name: str) -> list[str]:
        assert self.gates[name].wait(BOUND), f"nobody opened {name}"
        self.notes.append(name)
        return LINES.get(name, [name])

    async def _query_async(self, name: str) -> list[str]:
        return await asyncio.to_thread(self._query, name)

    def _fail(self) -> str:
        raise RuntimeError("it fails here on purpose")

    def open(self, name: str) -> None:
        self.gates[name].set()

    def close(self) -> None:
        """Let go whatever waits."""
        for gate in self.gates.values():
            gate.set()

    def answer(self, path: str) -> Any:
        """What is served for this path: a description, or a type and a body."""
        self.notes.append(path)
        name = path[1:]
        if name in PAGES:
            return self.templates.chunked(name, headers=self.headers)
        if path == "/style.css":
            self.open("style")
            return streamkit.stream([STYLE], content_type="text/css", headers={"Cache-Control": "no-store"})
        return streamkit.stream([OOPS], content_type="text/html", status=200 if path == "/oops.html" else 404)

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        return self.answer(environ["PATH_INFO"])(environ, start_response)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(scope["path"])(scope, receive, send)


@contextmanager
def served(kind: str, **options: Any) -> Iterator[Site]:
    """A site on a real server in this process: `WSGI`, `ASGI`, or `async` for an asynchronous environment."""
    site = Site(kind, options)
    start = _on_waitress if kind == "WSGI" else _on_uvicorn
    with start(site) as port:
        site.address = f"http://127.0.0.1:{port}"
        try:
            yield site
        finally:
            site.close()


@contextmanager
def _on_waitress(site: Site) -> Iterator[int]:
    import waitress

    server = waitress.create_server(site.wsgi, host="127.0.0.1", port=0, threads=8)
    with _thread(server.run):
        try:
            yield server.effective_port
        finally:
            site.close()
            poll(lambda: _has_ended(server), bound=BOUND, what="the end of waitress's connections")
            # In its own thread, which may be waiting for what is closed; by now no worker wakes it any more.
            server.trigger.pull_trigger(server.close)


def _has_ended(server: Any) -> bool:
    """Whether it has no connection any more; those that are there are told to end."""
    channels = list(server.active_channels.values())
    for channel in channels:
        channel.will_close = True  # the browser would keep it
    if channels:
        server.trigger.pull_trigger()
    return not channels


@contextmanager
def _on_uvicorn(site: Site) -> Iterator[int]:
    import uvicorn

    config = uvicorn.Config(
        site.asgi, interface="asgi3", host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    with _thread(server.run):
        try:
            poll(lambda: server.started, bound=BOUND, what="uvicorn")
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            site.close()
            server.should_exit = True


@contextmanager
def _thread(run: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(BOUND)
    assert not thread.is_alive(), "the server did not end"
