"""Streams from Django in one file: `python examples/django_app.py [PORT]` on uvicorn, `--wsgi` on waitress

curl -N http://127.0.0.1:8000/ticks      Django's own StreamingHttpResponse
curl -N http://127.0.0.1:8000/steps      a live view
curl -O http://127.0.0.1:8000/rows.csv   a live view as a file: a CSV export, sent while it is written
curl -OJ http://127.0.0.1:8000/squares   the same as a download that is described
curl -N http://127.0.0.1:8000/fails      a stream that fails half-way: curl ends with status 18
"""

import csv
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
import waitress
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import path

import streamkit
from streamkit.frameworks.django import live, respond

OPTIONS = {"http10_limit": 16 * 1024 * 1024, "headers": {"X-Served-By": "streamkit"}}
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["streamkit.frameworks.django.StreamKitMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",
    STREAMKIT=OPTIONS,
)


def ticks(request: HttpRequest) -> HttpResponseBase:
    def lines() -> Iterator[str]:
        for number in range(1, 6):
            yield f"tick {number}\n"
            time.sleep(0.5)

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")


@live
def steps(request: HttpRequest, stream: Any) -> None:
    stream.headers["Content-Type"] = "text/plain; charset=utf-8"
    for number in range(1, 4):
        stream.writeln(f"step {number} is done")
        time.sleep(0.5)


@live
def rows(request: HttpRequest, stream: Any) -> None:
    stream.headers["Content-Type"] = "text/csv; charset=utf-8"
    stream.headers["Content-Disposition"] = "attachment; filename=rows.csv"
    csv.writer(stream).writerows((number, number**2) for number in range(10_000))


def squares(request: HttpRequest) -> HttpResponseBase:
    numbers = ((number, number**2) for number in range(10_000))
    return respond(request, streamkit.csv_rows(numbers, "squares.csv", header=["number", "square"]))


@live
def fails(request: HttpRequest, stream: Any) -> None:
    stream.headers["Content-Type"] = "application/x-ndjson"
    stream.write('{"record": 1}\n{"record": 2}\n')
    raise RuntimeError("the example fails here on purpose")


urlpatterns = [
    path("ticks", ticks),
    path("steps", steps),
    path("rows.csv", rows),
    path("squares", squares),
    path("fails", fails),
]

if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--wsgi"]
    port = int(words[0] if words else os.environ.get("PORT", 8000))
    logging.basicConfig()  # Django's own settings print errors under DEBUG only
    # The middleware sees to our streams, `wrap` to those that Django makes by itself.
    if "--wsgi" in sys.argv:
        wsgi = streamkit.wrap(get_wsgi_application(), OPTIONS)
        waitress.serve(wsgi, host="127.0.0.1", port=port, threads=16, channel_request_lookahead=1)
    else:
        asgi = streamkit.wrap(get_asgi_application(), OPTIONS)
        uvicorn.run(asgi, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
