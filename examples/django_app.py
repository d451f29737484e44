"""Streams from Django in one file: `python examples/django_app.py [PORT]` on uvicorn, `--wsgi` on waitress

curl -N http://127.0.0.1:8000/ticks      Django's own StreamingHttpResponse
curl -N http://127.0.0.1:8000/steps      a view writes to the stream of its request
curl -O http://127.0.0.1:8000/rows.csv   a CSV export, sent while it is written
curl -N http://127.0.0.1:8000/fails      a stream that fails half-way: curl ends with status 18
"""

import asyncio
import csv
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator

import uvicorn
import waitress
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

import streamkit

OPTIONS = {"http10_limit": 16 * 1024 * 1024, "headers": {"X-Served-By": "streamkit"}}
settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")


def stream_of(request: HttpRequest, content_type: str) -> streamkit.ResponseStream:
    """The stream of this request, for a view that is not async, under either interface."""
    scope = getattr(request, "scope", None)
    stream = request.META["streamkit.stream"] if scope is None else scope["streamkit.stream"].sync
    stream.headers["Content-Type"] = content_type
    return stream


def ticks(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for number in range(1, 6):
            yield f"tick {number}\n"
            time.sleep(0.5)

    # Under ASGI, Django would first collect all that `lines` yields.
    async def lines_async() -> AsyncIterator[str]:
        for number in range(1, 6):
            yield f"tick {number}\n"
            await asyncio.sleep(0.5)

    chunks = lines_async() if hasattr(request, "scope") else lines()
    return StreamingHttpResponse(chunks, content_type="text/plain; charset=utf-8")


def steps(request: HttpRequest) -> HttpResponse:
    out = stream_of(request, "text/plain; charset=utf-8")
    for number in range(1, 4):
        out.writeln(f"step {number} is done")
        time.sleep(0.5)
    return HttpResponse()  # the stream is the response; what the view returns is dropped


def rows(request: HttpRequest) -> HttpResponse:
    out = stream_of(request, "text/csv; charset=utf-8")
    out.headers["Content-Disposition"] = "attachment; filename=rows.csv"
    csv.writer(out).writerows((number, number**2) for number in range(10_000))
    return HttpResponse()


def fails(request: HttpRequest) -> HttpResponse:
    out = stream_of(request, "application/x-ndjson")
    out.write('{"record": 1}\n{"record": 2}\n')
    raise RuntimeError("the example fails here on purpose")


urlpatterns = [path("ticks", ticks), path("steps", steps), path("rows.csv", rows), path("fails", fails)]

if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--wsgi"]
    port = int(words[0] if words else os.environ.get("PORT", 8000))
    logging.basicConfig()  # Django's own settings print errors under DEBUG only
    if "--wsgi" in sys.argv:
        app = streamkit.wrap(get_wsgi_application(), OPTIONS)
        waitress.serve(app, host="127.0.0.1", port=port, threads=16, channel_request_lookahead=1)
    else:
        app = streamkit.wrap(get_asgi_application(), OPTIONS)
        uvicorn.run(app, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
