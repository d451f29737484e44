"""Streams from Starlette, served by uvicorn: `python examples/starlette_app.py [PORT]`

curl -N http://127.0.0.1:8000/ticks      an endpoint returns `streamkit.stream(...)` as it is
curl -N http://127.0.0.1:8000/steps      an endpoint writes to the stream of its request
curl -O http://127.0.0.1:8000/rows.csv   a CSV export, sent while it is written
curl -N http://127.0.0.1:8000/fails      a stream that fails half-way: curl ends with status 18
"""

import asyncio
import csv
import os
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import streamkit

OPTIONS = {"http10_limit": 16 * 1024 * 1024, "headers": {"X-Served-By": "streamkit"}}


async def ticks(request: Request) -> streamkit.StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(1, 6):
            yield f"tick {number}\n"
            await asyncio.sleep(0.5)

    return streamkit.stream(lines())


async def steps(request: Request) -> Response:
    out = request.scope["streamkit.stream"]
    out.headers["Content-Type"] = "text/plain; charset=utf-8"
    for number in range(1, 4):
        await out.writeln(f"step {number} is done")
        await asyncio.sleep(0.5)
    return Response()  # the stream is the response; what the endpoint returns is dropped


async def rows(request: Request) -> streamkit.StreamingResponse:
    def export(stream: streamkit.ResponseStream) -> None:  # not async, so it runs on a thread and may block
        csv.writer(stream).writerows((number, number**2) for number in range(10_000))

    disposition = {"Content-Disposition": "attachment; filename=rows.csv"}
    return streamkit.stream(export, content_type="text/csv; charset=utf-8", headers=disposition)


async def fails(request: Request) -> streamkit.StreamingResponse:
    async def records() -> AsyncIterator[str]:
        yield '{"record": 1}\n'
        yield '{"record": 2}\n'
        raise RuntimeError("the example fails here on purpose")

    return streamkit.stream(records(), content_type="application/x-ndjson")


routes = [Route("/ticks", ticks), Route("/steps", steps), Route("/rows.csv", rows), Route("/fails", fails)]
app = streamkit.wrap(Starlette(routes=routes), OPTIONS)

if __name__ == "__main__":
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8000))
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
