"""WSGI layers: some that hold, drop or break a stream, and some that do not.

Rule: a layer is what somebody could have in production. Those that are ours follow idioms of the field.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from webob.dec import wsgify
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.middleware.profiler import ProfilerMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.wrappers import Response as WerkzeugResponse

from .parts import CHUNK, CHUNKS, Part

HERE = __name__

# ---------------------------------------------------------------- WSGI


def drip(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return iter([CHUNK] * CHUNKS)


def close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


class JoinsAll:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        body = self.app(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            close(body)


class HoldsFourKilobytes:
    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        return self._blocks(self._application(environ, start_response))

    def _blocks(self, body: Any) -> Iterator[bytes]:
        held = b""
        try:
            for chunk in body:
                held += chunk
                if len(held) >= 4096:
                    yield held
                    held = b""
            yield held
        finally:
            close(body)


def counts_and_swallows(application: Any) -> Any:
    def counting(environ: Any, start_response: Any) -> Any:
        body = application(environ, start_response)
        environ["bytes"] = sum(map(len, body))
        return body

    return counting


class GzipsWithoutFlush:
    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __call__(self, environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

        return self._compressed(self.wrapped(environ, start))

    def _compressed(self, body: Any) -> Iterator[bytes]:
        compressor = zlib.compressobj(wbits=31)
        try:
            for chunk in body:
                packed = compressor.compress(chunk)
                if packed:
                    yield packed
            yield compressor.flush()
        finally:
            close(body)


def measures(app: Any) -> Any:
    def measuring(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        close(body)
        return [b"%d bytes" % len(body)]  # a generator has no length

    return measuring


@wsgify.middleware
def webob_etag(request: Any, app: Any) -> Any:
    response = request.get_response(app)
    response.md5_etag()
    return response


@wsgify.middleware
def webob_header(request: Any, app: Any) -> Any:
    response = request.get_response(app)
    response.headers["X-Seen"] = "1"
    return response


def werkzeug_etag(app: Any) -> Any:
    def tagging(environ: Any, start_response: Any) -> Any:
        response = WerkzeugResponse.from_app(app, environ)
        response.add_etag()
        return response(environ, start_response)

    return tagging


def adds_a_header(app: Any) -> Any:
    def adding(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Frame-Options", "DENY")], exc_info)

        return app(environ, start)

    return adding


class ReplacesWords:
    """Changes each chunk, and its length, as it passes."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        body = self.app(environ, start_response)
        return (chunk.replace(b"<p>", b"<p class='wide'>") for chunk in body)


def not_found(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"not here"]


PROFILER = Part(
    lambda app: ProfilerMiddleware(app, stream=io.StringIO()),
    "werkzeug.middleware.profiler.ProfilerMiddleware",
)
WSGI_GUILTY = [
    PROFILER,
    Part(webob_etag, f"{HERE}.webob_etag"),
    Part(HoldsFourKilobytes, f"{HERE}.HoldsFourKilobytes"),
    Part(counts_and_swallows, f"{HERE}.counts_and_swallows.<locals>.counting"),
    Part(GzipsWithoutFlush, f"{HERE}.GzipsWithoutFlush"),
    Part(JoinsAll, f"{HERE}.JoinsAll"),
    Part(measures, f"{HERE}.measures.<locals>.measuring"),
    Part(werkzeug_etag, f"{HERE}.werkzeug_etag.<locals>.tagging"),
]
WSGI_INNOCENT = [
    Part(ProxyFix, "ProxyFix"),
    Part(LintMiddleware, "LintMiddleware"),
    Part(lambda app: SharedDataMiddleware(app, {}), "SharedDataMiddleware"),
    Part(lambda app: DispatcherMiddleware(app, {"/elsewhere": not_found}), "DispatcherMiddleware"),
    Part(webob_header, "webob_header"),
    Part(adds_a_header, "adds_a_header"),
    Part(ReplacesWords, "ReplacesWords"),
]


def wsgi_stack(chosen: list[Part]) -> tuple[Any, AbstractContextManager[Any]]:
    app: Any = drip
    for part in reversed(chosen):
        app = part.put(app)
    return app, nullcontext()
