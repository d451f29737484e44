"""The ASGI side: a middleware for any app, and how a description is carried out.

    app = streamkit.asgi.StreamingMiddleware(app, {"high_water": 256 * 1024})

What does not stream passes through as it is: the same messages in the same order.

Rule: `http.response.start` is sent when it is known what follows it; until then an error is
a real 500. After a leave nothing is awaited for a client that is not there.
"""

from .description import respond
from .middleware import StreamingMiddleware

__all__ = ["StreamingMiddleware", "respond"]
