"""A page sent while it is rendered, from Flask: `python examples/templates/flask_app.py [PORT]`

curl -N http://127.0.0.1:8000/         the layout, 0.5 s later the albums, 1.5 s later the sales
curl -N http://127.0.0.1:8000/whole    the same page, when all of it is there
curl -N http://127.0.0.1:8000/fails    a page that fails half-way: a browser goes to the error page
"""

import os
import sys
import time
from typing import Any

import waitress
from flask import Flask

import streamkit
from streamkit.frameworks.flask import StreamKit

ALBUMS = [{"title": "Blue Train", "year": 1958}, {"title": "Giant Steps", "year": 1960}]

app = Flask(__name__, template_folder="pages")
app.config["STREAMKIT"] = {"completion": {"text/html": streamkit.html_completion("/oops")}}
kit = StreamKit(app)


def load() -> dict[str, Any]:  # runs when the top of the layout has left
    time.sleep(0.5)
    return {"albums": ALBUMS}


def sold_today() -> int:  # called in a deferred block, beside the page
    time.sleep(1.5)
    return 1_234


def fail() -> str:
    raise RuntimeError("the example fails here on purpose")


@app.get("/")
def albums() -> Any:
    return kit.templates.chunked(
        "albums.html", layout="layout.html", delay=[load], artist="John Coltrane", sold_today=sold_today
    )


@app.get("/whole")
def whole() -> Any:
    return kit.templates.view(
        "albums.html", layout="layout.html", delay=[load], artist="John Coltrane", sold_today=sold_today
    )


@app.get("/fails")
def fails() -> Any:
    return kit.templates.chunked("fails.html", layout="layout.html", artist="John Coltrane", fail=fail)


@app.get("/oops")
def oops() -> str:
    return "<!doctype html><title>Oops</title><h1>Something went wrong</h1>"


if __name__ == "__main__":
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8000))
    waitress.serve(app, host="127.0.0.1", port=port, threads=8)
