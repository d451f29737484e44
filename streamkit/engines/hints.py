"""103 Early Hints (RFC 8297): what a browser may fetch while the response is still being made.

Rule: sent where the server has a way of its own, and to browsers that navigate; nowhere else. A server
"might refrain from sending Early Hints over HTTP/1.1 unless the client is known to handle informational
responses correctly" (RFC 8297), and browsers look at them only for navigations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..core.request import header_of
from ..types import Environ, Scope, Send

EXTENSION = "http.response.early_hint"  # ASGI; hypercorn and uvicorn over HTTP/2
WSGI_KEY = "wsgi.early_hints"  # gunicorn

# Of a stream on a thread it returns when they are sent; of one on a loop it is to be awaited.
Hints: TypeAlias = Callable[[Sequence[str]], Any]


def hints_of_environ(environ: Environ) -> Hints | None:
    """What sends `Link` values early, for a producer on a thread; None where nothing does."""
    server_hints = environ.get(WSGI_KEY)
    if server_hints is None or not _navigates(environ):
        return None
    return lambda links: server_hints([("Link", link) for link in links])


def hints_of_scope(scope: Scope, send: Send, *, on_thread: bool) -> Hints | None:
    """The same for ASGI, on a thread or to be awaited."""
    if EXTENSION not in (scope.get("extensions") or {}) or not _navigates(scope):
        return None

    def message(links: Sequence[str]) -> Any:
        return send({"type": EXTENSION, "links": [link.encode("ascii") for link in links]})

    if not on_thread:
        return message
    loop = asyncio.get_running_loop()

    async def sent(links: Sequence[str]) -> None:
        await message(links)

    # Waited for, because the head must not overtake them.
    return lambda links: asyncio.run_coroutine_threadsafe(sent(links), loop).result()


def _navigates(request: Any) -> bool:
    return header_of(request, "sec-fetch-mode") == "navigate"
