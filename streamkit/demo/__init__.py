"""`streamkit demo`: a small page with live streams, on a real server.

    serve("127.0.0.1", 8000)               # uvicorn, ASGI
    serve("127.0.0.1", 8000, wsgi=True)    # waitress, WSGI; both block until Ctrl+C

Rule: servers are set up here and nowhere else; what is streamed stands in `app`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

from streamkit.demo.app import asgi_app, filled_database, wsgi_app
from streamkit.engines.registry import open_streams

__all__ = ["DemoUnavailable", "serve"]

GRACE = 3  # seconds that open streams get at Ctrl+C; nobody waits longer for a demo
THREADS = 16  # waitress's own 4 are taken by four open streams


class DemoUnavailable(Exception):
    """The demo cannot start here; the text says why, and how to mend it."""


def serve(host: str, port: int, *, wsgi: bool = False) -> None:
    """Serve the demo until Ctrl+C or SIGTERM; port 0 takes a free one."""
    name, kind, run = ("waitress", "WSGI", _on_waitress) if wsgi else ("uvicorn", "ASGI", _on_uvicorn)
    server = _imported(name)
    with contextlib.closing(_listen(host, port)) as listener:
        # uvicorn's own loggers do not propagate, so nothing is printed twice.
        logging.basicConfig(format="%(levelname)s: %(name)s: %(message)s")
        # It warns of each request that finds no idle thread, which the first one can be too early for.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            # SIGTERM ends the demo as Ctrl+C does, so that the database is removed then, too. Not by
            # Python's own handler: streamkit ends the open streams first where somebody has set one.
            signal.signal(signal.SIGTERM, _interrupt)
            signal.signal(signal.SIGINT, _interrupt)
        try:
            with filled_database() as database:
                print(
                    f"streamkit demo on {_address(host, listener)} ({name}, {kind}). Ctrl+C ends it.",
                    flush=True,
                )
                run(server, listener, database)
        except KeyboardInterrupt:
            pass  # this is how it ends


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.default_int_handler)  # the second time it ends at once
    _say_what_is_open()
    raise KeyboardInterrupt


def _say_what_is_open() -> None:
    """Tell whoever has pressed Ctrl+C what the demo waits for, where it has to wait."""
    number = len(open_streams())
    if number:
        said = "1 open stream" if number == 1 else f"{number} open streams"
        text = f"streamkit demo: ending {said}, within {GRACE} s. Ctrl+C again ends it at once.\n"
        # Not by `print`, which fails in a signal handler where the main thread is printing just now.
        with contextlib.suppress(OSError):
            os.write(2, text.encode())


def _on_uvicorn(uvicorn: ModuleType, listener: socket.socket, database: Path) -> None:
    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            _say_what_is_open()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        asgi_app(database, GRACE),
        log_level="warning",
        access_log=False,
        ws="none",
        # Later than streamkit: it ends streams as they should be, uvicorn cancels their tasks.
        timeout_graceful_shutdown=GRACE + 1,
    )
    Server(config).run(sockets=[listener])


def _on_waitress(waitress: ModuleType, listener: socket.socket, database: Path) -> None:
    server = waitress.create_server(
        wsgi_app(database, GRACE),
        sockets=[listener],
        threads=THREADS,
        # Without lookahead waitress does not read while it sends, and hears of no client that left.
        channel_request_lookahead=1,
    )
    server.run()


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise DemoUnavailable(f"{name} is not installed: pip install 'streamkit-web[demo]'") from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        # `create_server` adds the address to the text, which is told here already.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise DemoUnavailable(f"cannot listen on {host} port {port}: {reason}") from error


def _address(host: str, listener: socket.socket) -> str:
    port: int = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
