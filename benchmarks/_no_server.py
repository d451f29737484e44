"""A server without a socket: what it hands an app, and what drops all it is given.

Rule: nothing here measures, and nothing here knows a contender.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/articles/7",
    "RAW_URI": "/articles/7?page=2",
    "QUERY_STRING": "page=2",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "gunicorn/27.0.1",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "50122",
    "HTTP_HOST": "example.org",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
    "HTTP_COOKIE": "session=0123456789abcdef; theme=dark",
    "HTTP_CONNECTION": "keep-alive",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": sys.stdin.buffer,
    "wsgi.input_terminated": True,
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/articles/7",
    "raw_path": b"/articles/7",
    "query_string": b"page=2",
    "root_path": "",
    "client": ("127.0.0.1", 50122),
    "server": ("127.0.0.1", 8000),
    "headers": [
        (b"host", b"example.org"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (b"accept-encoding", b"gzip, deflate, br"),
        (b"cookie", b"session=0123456789abcdef; theme=dark"),
    ],
    "state": {},
}


def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
    return None


async def send(message: Any) -> None:
    return None


async def receive() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}
