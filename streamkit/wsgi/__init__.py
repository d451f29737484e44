"""The WSGI side: a middleware for any app, and how a description is carried out (PEP 3333).

    app = streamkit.wsgi.StreamingMiddleware(app, {"high_water": 256 * 1024})

What does not stream passes through as it is: the same iterable, the same `file_wrapper`.

Rule: `start_response` of the server is called once, when the head is known and before the
iterable is returned; until then an error is a real 500, raised to whoever would have seen it.
"""

from .description import respond
from .middleware import StreamingMiddleware

__all__ = ["StreamingMiddleware", "respond"]
