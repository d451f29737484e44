"""Drive any WSGI or ASGI app in process, and read its chunks or server-sent events as they come.

    with Client(app) as client, client.get("/ticks") as connection:
        assert connection.status == 200
        assert connection.next_chunk() == b"tick 1\\n"    # the second is not made yet
        connection.disconnect()                          # the app hears of it, as from a server

    async with AsyncClient(app) as client, client.get("/events") as connection:
        event = await connection.next_event(timeout=2.0)

The app is asked for a chunk when the test asks for one, and not before: `next()` is not called
(WSGI) and `send` does not return (ASGI). The clients of httpx and WebTest read the whole body
first, so an endless stream never gets back to the test. The price: no bytes go over a socket, so
what a server does to them (framing, buffers of its own, time-outs) is not seen here.

Every wait has a bound, 5 seconds unless told otherwise, and raises `TimeoutError`; the app's own
error is raised to the test. No thread and no task outlives `close()`.

Rule: the face hands names on and holds no logic.
"""

from ._exchange import NotOpen
from .asgi import LifespanFailed
from .client import AsyncClient, Client
from .connection import AsyncConnection, Connection

__all__ = ["AsyncClient", "AsyncConnection", "Client", "Connection", "LifespanFailed", "NotOpen"]
