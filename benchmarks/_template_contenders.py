"""One page as each tool has a user send it, and what its server says of itself.

Rule: a tool is imported by its own server only.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# ---------------------------------------------------------------- the page

LATE = 0.2  # seconds until the rows of /late are there
LAYOUT = """<!DOCTYPE html>
<html lang="en"><head><title>{{ title }}</title><link rel="stylesheet" href="/style.css"></head>
<body><h1>{{ title }}</h1>
{% block content %}{% endblock %}
</body></html>
"""
PAGE = """{% extends "layout.html" %}
{% block content %}<table>
{% for row in rows() %}<tr><td>{{ row.number }}</td><td>{{ row.name }}</td><td>{{ row.price }}</td></tr>
{% endfor %}</table>{% endblock %}
"""
TEMPLATES = {"layout.html": LAYOUT, "page.html": PAGE}
TITLE = "Prices & names"
NAMES = ["plain", "with <markup>", "with 'quotes'", "of Æthelred"]
MOST_ROWS = 10_000
ALL_ROWS = [{"number": n, "name": NAMES[n % 4], "price": f"{n * 1.01:.2f}"} for n in range(MOST_ROWS)]


def ask_of(path: str) -> tuple[int, bool]:
    """How many rows, and whether they come late, of /page/<rows> and /late/<rows>."""
    _, kind, count = path.split("/")
    return int(count), kind == "late"


def rows_of(count: int, late: bool) -> Callable[[], list[dict[str, Any]]]:
    def rows() -> list[dict[str, Any]]:
        if late:
            time.sleep(LATE)
        return ALL_ROWS[:count]

    return rows


def rows_of_async(count: int, late: bool) -> Callable[[], Any]:
    async def rows() -> list[dict[str, Any]]:
        if late:
            import asyncio

            await asyncio.sleep(LATE)
        return ALL_ROWS[:count]

    return rows


def environment(**options: Any) -> Any:
    from jinja2 import DictLoader, Environment

    return Environment(loader=DictLoader(TEMPLATES), autoescape=True, **options)


# ---------------------------------------------------------------- the contenders


def flask(way: str) -> WSGIApp:
    from flask import Flask, render_template, stream_template
    from jinja2 import DictLoader

    app = Flask(__name__)
    app.jinja_loader = DictLoader(TEMPLATES)  # type: ignore[assignment]
    send = {"stream": stream_template, "render": render_template}[way]

    @app.get("/<kind>/<int:count>")
    def page(kind: str, count: int) -> Any:
        return send("page.html", title=TITLE, rows=rows_of(count, kind == "late"))

    return app


def flask_stream() -> WSGIApp:
    """Flask's `stream_template`."""
    return flask("stream")


def flask_render() -> WSGIApp:
    """Flask's `render_template`: whole."""
    return flask("render")


def streamkit_flask() -> WSGIApp:
    """`Templates(app.jinja_env).chunked` in the same app."""
    from flask import Flask
    from jinja2 import DictLoader

    import streamkit

    app = Flask(__name__)
    app.jinja_loader = DictLoader(TEMPLATES)  # type: ignore[assignment]
    templates = streamkit.Templates(app.jinja_env)

    @app.get("/<kind>/<int:count>")
    def page(kind: str, count: int) -> Any:
        return templates.chunked("page.html", title=TITLE, rows=rows_of(count, kind == "late"))

    return app


def starlette(endpoint: Callable[[Any], Awaitable[Any]]) -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/page/{count:int}", endpoint), Route("/late/{count:int}", endpoint)])


def starlette_generate() -> ASGIApp:
    """Starlette's `StreamingResponse(template.generate())`: a thread is asked for each text."""
    from starlette.responses import StreamingResponse

    template = environment().get_template("page.html")

    async def page(request: Any) -> Any:
        texts = template.generate(title=TITLE, rows=rows_of(*ask_of(request.url.path)))
        return StreamingResponse(texts, media_type="text/html")

    return starlette(page)


def starlette_async() -> ASGIApp:
    """Starlette's `StreamingResponse(template.generate_async())`."""
    from starlette.responses import StreamingResponse

    template = environment(enable_async=True).get_template("page.html")

    async def page(request: Any) -> Any:
        texts = template.generate_async(title=TITLE, rows=rows_of_async(*ask_of(request.url.path)))
        return StreamingResponse(texts, media_type="text/html")

    return starlette(page)


def starlette_render() -> ASGIApp:
    """Starlette's `HTMLResponse(template.render())`, in an endpoint on a thread: whole."""
    from starlette.responses import HTMLResponse

    template = environment().get_template("page.html")

    def page(request: Any) -> Any:
        return HTMLResponse(template.render(title=TITLE, rows=rows_of(*ask_of(request.url.path))))

    return starlette(page)  # type: ignore[arg-type]


def streamkit_asgi() -> ASGIApp:
    """`Templates(environment).chunked` in the same app."""
    import streamkit

    templates = streamkit.Templates(environment())

    async def page(request: Any) -> Any:
        return templates.chunked("page.html", title=TITLE, rows=rows_of(*ask_of(request.url.path)))

    return starlette(page)


def streamkit_async() -> ASGIApp:
    """The same with `enable_async=True`."""
    import streamkit

    templates = streamkit.Templates(environment(enable_async=True))

    async def page(request: Any) -> Any:
        return templates.chunked("page.html", title=TITLE, rows=rows_of_async(*ask_of(request.url.path)))

    return starlette(page)


WSGI: dict[str, Callable[[], WSGIApp]] = {
    "flask-stream": flask_stream,
    "streamkit-flask": streamkit_flask,
    "flask-render": flask_render,
}
ASGI: dict[str, Callable[[], ASGIApp]] = {
    "starlette-generate": starlette_generate,
    "starlette-async": starlette_async,
    "streamkit-asgi": streamkit_asgi,
    "streamkit-async": streamkit_async,
    "starlette-render": starlette_render,
}
# Beside whom each stands: the unbuffered way of its own interface and environment.
PEERS = {
    "streamkit-flask": "flask-stream",
    "flask-render": "flask-stream",
    "streamkit-asgi": "starlette-generate",
    "starlette-render": "starlette-generate",
    "streamkit-async": "starlette-async",
}


def wsgi(name: str) -> WSGIApp:
    """What gunicorn is given: a contender, and beside it what its process says of itself."""
    app = WSGI[name]()

    def measured(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/cpu":
            return app(environ, start_response)
        body = repr(time.process_time()).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return measured


class Measured:
    """What uvicorn imports, by attribute: as `wsgi`."""

    def __getattr__(self, name: str) -> Any:
        made = ASGI[name.replace("_", "-")]

        def factory() -> ASGIApp:
            app = made()

            async def measured(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["path"] != "/cpu":
                    await app(scope, receive, send)
                    return
                headers = [(b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": repr(time.process_time()).encode()})

            return measured

        return factory


measured = Measured()
