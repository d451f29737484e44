"""Streams from Flask, served by waitress: `python examples/flask_app.py [PORT]`

curl -N http://127.0.0.1:8000/ticks      a view returns `streamkit.stream(...)` as it is
curl -N http://127.0.0.1:8000/steps      a view writes to the stream of its request
curl -O http://127.0.0.1:8000/rows.csv   a CSV export, sent while it is written
curl -N http://127.0.0.1:8000/fails      a stream that fails half-way: curl ends with status 18
curl -N http://127.0.0.1:8000/events     what is said; with -H 'Last-Event-ID: 1' also what was missed
curl -d text=hello http://127.0.0.1:8000/say
"""

import csv
import os
import sys
import time
from collections.abc import Iterator
from itertools import count

import waitress
from flask import Flask, request

import streamkit

OPTIONS = {"http10_limit": 16 * 1024 * 1024, "headers": {"X-Served-By": "streamkit"}}

app = Flask(__name__)
app.wsgi_app = streamkit.wrap(app.wsgi_app, OPTIONS)  # type: ignore[method-assign]


@app.get("/ticks")
def ticks() -> streamkit.StreamingResponse:
    def lines() -> Iterator[str]:
        for number in range(1, 6):
            yield f"tick {number}\n"
            time.sleep(0.5)

    return streamkit.stream(lines())


@app.get("/steps")
def steps() -> str:
    out = request.environ["streamkit.stream"]
    out.headers["Content-Type"] = "text/plain; charset=utf-8"
    for number in range(1, 4):
        out.writeln(f"step {number} is done")
        time.sleep(0.5)
    return ""  # the stream is the response; what the view returns is dropped


@app.get("/rows.csv")
def rows() -> streamkit.StreamingResponse:
    def export(stream: streamkit.ResponseStream) -> None:
        csv.writer(stream).writerows((number, number**2) for number in range(10_000))

    disposition = {"Content-Disposition": "attachment; filename=rows.csv"}
    return streamkit.stream(export, content_type="text/csv; charset=utf-8", headers=disposition)


@app.get("/fails")
def fails() -> streamkit.StreamingResponse:
    def records() -> Iterator[str]:
        yield '{"record": 1}\n'
        yield '{"record": 2}\n'
        raise RuntimeError("the example fails here on purpose")

    return streamkit.stream(records(), content_type="application/x-ndjson")


history = streamkit.sse.History(size=1000)
listening: list[streamkit.EventStream] = []
numbers = count(1)


@app.get("/events")
def events() -> streamkit.StreamingResponse:
    def join(stream: streamkit.EventStream) -> None:
        listening.append(stream)
        stream.on_finish(listening.remove)

    return streamkit.event_stream(join, keep_open=True, replay=history, retry=2000)


@app.post("/say")
def say() -> tuple[str, int]:
    event = streamkit.ServerSentEvent(request.form["text"], id=next(numbers))
    history.add(event)  # kept for who comes back, also while nobody listens
    for stream in tuple(listening):
        try:
            stream.send(event)
        except (streamkit.ClientDisconnected, streamkit.StreamClosed):
            pass  # it has just left
    return "", 204


if __name__ == "__main__":
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8000))
    # Lookahead lets waitress notice a client that leaves.
    waitress.serve(app, host="127.0.0.1", port=port, threads=16, channel_request_lookahead=1)
