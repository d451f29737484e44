"""A page sent while it is rendered, from Starlette: `python examples/templates/starlette_app.py [PORT]`

curl -N http://127.0.0.1:8000/         the layout, 0.5 s later the albums, 1.5 s later the sales
curl -N http://127.0.0.1:8000/whole    the same page, when all of it is there
curl -N http://127.0.0.1:8000/fails    a page that fails half-way: a browser goes to the error page
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import streamkit

HERE = Path(__file__).parent
ALBUMS = [{"title": "Blue Train", "year": 1958}, {"title": "Giant Steps", "year": 1960}]

environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "pages"), autoescape=True, enable_async=True
)
templates = streamkit.Templates(
    environment, {"completion": {"text/html": streamkit.html_completion("/oops")}}
)


async def load() -> dict[str, Any]:  # runs when the top of the layout has left
    await asyncio.sleep(0.5)
    return {"albums": ALBUMS}


async def sold_today() -> int:  # called in a deferred block, beside the page
    await asyncio.sleep(1.5)
    return 1_234


def fail() -> str:
    raise RuntimeError("the example fails here on purpose")


async def albums(request: Request) -> streamkit.StreamingResponse:
    return templates.chunked(
        "albums.html", layout="layout.html", delay=[load], artist="John Coltrane", sold_today=sold_today
    )


async def whole(request: Request) -> streamkit.StreamingResponse:
    return templates.view(
        "albums.html", layout="layout.html", delay=[load], artist="John Coltrane", sold_today=sold_today
    )


async def fails(request: Request) -> streamkit.StreamingResponse:
    return templates.chunked("fails.html", layout="layout.html", artist="John Coltrane", fail=fail)


async def oops(request: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>Oops</title><h1>Something went wrong</h1>")


routes = [
    Route("/", albums),
    Route("/whole", whole),
    Route("/fails", fails),
    Route("/oops", oops),
    Mount("/static", StaticFiles(directory=HERE / "static")),
]
app = streamkit.wrap(Starlette(routes=routes))

if __name__ == "__main__":
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8000))
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
