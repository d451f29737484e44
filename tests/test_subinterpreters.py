"""Several applications in one process, each in an interpreter of its own, as mod_wsgi and uWSGI have them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVE = """
import asyncio, streamkit

def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"ok"]

async def aplain(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

async def receive():
    await asyncio.Event().wait()

async def send(message):
    sent.append(message.get("body"))

sent = []
environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/", "wsgi.version": (1, 0)}
scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}
wrapped, awrapped = streamkit.wrap(plain, kind="wsgi"), streamkit.wrap(aplain, kind="asgi")
bodies = [list(wrapped(dict(environ), lambda *head: None)) for _ in range(3)]
for _ in range(3):
    asyncio.run(awrapped(dict(scope), receive, send))
assert bodies == [[b"ok"]] * 3, bodies
assert sent == [None, b"ok"] * 3, sent
"""

STREAM = """
import streamkit

environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/", "wsgi.version": (1, 0)}
described = streamkit.wrap(streamkit.stream(lambda stream: stream.write("streamed")), kind="wsgi")
body = described(environ, lambda *head: None)
assert b"".join(body) == b"streamed"
body.close()
"""

HOST = """
import os, sys

try:
    import _interpreters as interpreters
    kind = ("legacy",)
    named = {}
except ImportError:
    import _xxsubinterpreters as interpreters
    kind = ()
    named = {"isolated": False}

plain, stream = sys.argv[1:]
exec(plain, {})
others = [interpreters.create(*kind, **named) for _ in range(2)]
for code in (plain, plain, stream):  # the last starts threads, after which nothing more can be run in them
    for other in others:
        failed = interpreters.run_string(other, code)  # before CPython 3.13 it raises
        assert failed is None, failed
    exec(code, {})
print("served", flush=True)
os._exit(0)  # as servers end their processes: an interpreter with threads cannot be destroyed
"""


def test_each_interpreter_of_a_process_serves() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HOST, SERVE, STREAM],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr


ISOLATED = """
import _interpreters as interpreters, sys

for _ in range(2):
    other = interpreters.create("isolated")
    failed = interpreters.run_string(other, sys.argv[1])
    assert failed is None, failed
    interpreters.destroy(other)
print("served")
"""


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="CPython aborts after asyncio in one of them"
)
def test_an_interpreter_with_a_lock_of_its_own_serves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, SERVE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
