"""Real layers around the apps of `layered`, as their own documentation has them set up.

Rule: each is a function of the drip to the whole app; nothing here knows streamkit.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .layered import Drip, flask, plain_asgi, plain_wsgi, pyramid, quart, starlette

Make = Callable[[Drip], Any]


@dataclass
class Stack:
    make: Make
    packages: tuple[str, ...]
    accept: str = "gzip"
    names: tuple[str, ...] = ()  # of layers of the user's own, which `strip` has to be told of
    breaks: bool = False  # without us a stream does not even arrive whole
    kind: str | None = None  # where it cannot be told from the app
    lazy: bool = False  # it gives a page piece by piece too, so that `wrap` takes that for a stream
    streams_from: tuple[str, str] | None = None  # a distribution, and the version that holds nothing
    passes: bool = False  # no version of it holds streams
    layers: int = 1
    repeats: bool = True  # a page has the same bytes each time


STACKS: dict[str, Stack] = {}


def stack(name: str, *packages: str, **known: Any) -> Callable[[Make], Make]:
    def kept(make: Make) -> Make:
        STACKS[name] = Stack(make, packages, **known)
        return make

    return kept


HERE = __name__

# ---------------------------------------------------------------- WSGI


@stack("werkzeug profiler", "werkzeug")
def _(drip: Drip) -> Any:
    from werkzeug.middleware.profiler import ProfilerMiddleware

    return ProfilerMiddleware(plain_wsgi(drip), stream=io.StringIO())


@stack("paste gzipper", "paste.gzipper")
def _(drip: Drip) -> Any:
    from paste.gzipper import middleware

    return middleware(plain_wsgi(drip))


@stack("paste evalexception", "paste.evalexception")
def _(drip: Drip) -> Any:
    from paste.evalexception import EvalException

    return EvalException(plain_wsgi(drip))


@stack("wsgigzip", "wsgigzip")
def _(drip: Drip) -> Any:
    from wsgigzip import GzipMiddleware

    return GzipMiddleware(plain_wsgi(drip))


@stack("wsgi-request-logger", "requestlogger", breaks=True)
def _(drip: Drip) -> Any:
    from requestlogger import ApacheFormatter, WSGILogger

    return WSGILogger(plain_wsgi(drip), [], ApacheFormatter())


@stack("webob md5_etag", "webob", kind="wsgi")
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    @wsgify.middleware
    def with_etag(request: Any, app: Any) -> Any:
        response = request.get_response(app)
        response.md5_etag()
        response.conditional_response = True
        return response

    return with_etag(plain_wsgi(drip))


@stack("webob encode_content", "webob", kind="wsgi")
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    @wsgify.middleware
    def encoded(request: Any, app: Any) -> Any:
        response = request.get_response(app)
        response.encode_content("gzip")
        return response

    return encoded(plain_wsgi(drip))


@stack("webob encode_content lazy", "webob", kind="wsgi", lazy=True)
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    @wsgify.middleware
    def encoded(request: Any, app: Any) -> Any:
        response = request.get_response(app)
        response.encode_content("gzip", lazy=True)
        return response

    return encoded(plain_wsgi(drip))


@stack("webob body read", "webob", kind="wsgi", names=(f"{HERE}.webob_reads",))
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    return wsgify.middleware(webob_reads)(plain_wsgi(drip))


def webob_reads(request: Any, app: Any) -> Any:
    response = request.get_response(app)
    response.headers["X-Length"] = str(len(response.body))
    return response


@stack("webob copy", "webob", kind="wsgi", names=(f"{HERE}.webob_copies",))
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    return wsgify.middleware(webob_copies)(plain_wsgi(drip))


def webob_copies(request: Any, app: Any) -> Any:
    return request.get_response(app).copy()


@stack("webob str", "webob", kind="wsgi", names=(f"{HERE}.webob_prints",))
def _(drip: Drip) -> Any:
    from webob.dec import wsgify

    return wsgify.middleware(webob_prints)(plain_wsgi(drip))


def webob_prints(request: Any, app: Any) -> Any:
    response = request.get_response(app)
    str(response)
    return response


@stack("werkzeug from_app buffered", "werkzeug", names=(f"{HERE}.from_app_buffered",))
def _(drip: Drip) -> Any:
    return from_app_buffered(plain_wsgi(drip))


def from_app_buffered(app: Any) -> Any:
    from werkzeug.wrappers import Response

    def serve(environ: Any, start_response: Any) -> Any:
        return Response.from_app(app, environ, buffered=True)(environ, start_response)

    return serve


# ---------------------------------------------------------------- Flask


def hooked(name: str, *, names: tuple[str, ...] = ()) -> Callable[[Callable[[Any], Any]], Any]:
    """A Flask app with this after_request function."""

    def kept(hook: Callable[[Any], Any]) -> Any:
        @stack(name, "flask", names=names)
        def _(drip: Drip) -> Any:
            app = flask(drip)
            app.after_request(hook)
            return app

        return hook

    return kept


@hooked("flask get_data")
def _(response: Any) -> Any:
    response.headers["X-Length"] = str(len(response.get_data()))
    return response


@hooked("flask data")
def _(response: Any) -> Any:
    response.headers["X-Length"] = str(len(response.data))
    return response


@hooked("flask add_etag")
def _(response: Any) -> Any:
    response.add_etag()
    return response


@hooked("flask add_etag and make_conditional")
def _(response: Any) -> Any:
    from flask import request

    response.add_etag()
    return response.make_conditional(request)


@hooked("flask make_conditional")
def _(response: Any) -> Any:
    from flask import request

    return response.make_conditional(request)


@hooked("flask freeze")
def _(response: Any) -> Any:
    response.freeze()
    return response


@hooked("flask calculate_content_length")
def _(response: Any) -> Any:
    response.headers["X-Length"] = str(response.calculate_content_length())
    return response


@hooked("flask gzip by hand")
def _(response: Any) -> Any:
    if "Content-Encoding" not in response.headers:
        response.set_data(gzip.compress(response.get_data(), mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    return response


@stack("flask-compress", "flask", "flask_compress", streams_from=("flask-compress", "1.22"))
def _(drip: Drip) -> Any:
    from flask_compress import Compress

    app = flask(drip)
    Compress(app)
    return app


@stack(
    "flask-compress br",
    "flask",
    "flask_compress",
    "brotli",
    accept="br",
    streams_from=("flask-compress", "1.22"),
)
def _(drip: Drip) -> Any:
    from flask_compress import Compress

    app = flask(drip)
    Compress(app)
    return app


@stack("flask-htmlmin", "flask", "flask_htmlmin")
def _(drip: Drip) -> Any:
    from flask_htmlmin import HTMLMIN

    app = flask(drip)
    app.config["MINIFY_HTML"] = True
    HTMLMIN(app)
    return app


@stack("flask-minify", "flask", "flask_minify")
def _(drip: Drip) -> Any:
    from flask_minify import Minify

    app = flask(drip)
    Minify(app=app, html=True)
    return app


@stack("flask-caching", "flask", "flask_caching", layers=2)
def _(drip: Drip) -> Any:
    from flask_caching import Cache

    app = flask(drip)
    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    cached = cache.cached(timeout=60)
    app.view_functions["stream"] = cached(drip.chunks)
    app.view_functions["page"] = cached(app.view_functions["page"])
    return app


@stack("flask profiler", "flask")
def _(drip: Drip) -> Any:
    from werkzeug.middleware.profiler import ProfilerMiddleware

    app = flask(drip)
    app.wsgi_app = ProfilerMiddleware(app.wsgi_app, stream=io.StringIO())
    return app


# ---------------------------------------------------------------- ASGI


@stack("asgi-gzip", "asgi_gzip")
def _(drip: Drip) -> Any:
    from asgi_gzip import GZipMiddleware

    return GZipMiddleware(plain_asgi(drip))


def _compressed(coding: str) -> None:
    @stack(f"starlette-compress {coding}", "starlette_compress", "brotli", "backports.zstd", accept=coding)
    def _(drip: Drip) -> Any:
        from starlette_compress import CompressMiddleware

        return CompressMiddleware(plain_asgi(drip))

    @stack(f"starlette with starlette-compress {coding}", "starlette", "starlette_compress", accept=coding)
    def _(drip: Drip) -> Any:
        from starlette.middleware import Middleware
        from starlette_compress import CompressMiddleware

        return starlette(drip, Middleware(CompressMiddleware, minimum_size=5))


for _coding in ("gzip", "br", "zstd"):
    _compressed(_coding)


@stack("starlette gzip", "starlette", streams_from=("starlette", "1.5"))
def _(drip: Drip) -> Any:
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware

    return starlette(drip, Middleware(GZipMiddleware, minimum_size=5))


@stack("asgi-etags", "asgi_etags", breaks=True, kind="asgi")
def _(drip: Drip) -> Any:
    from asgi_etags import ETagMiddleware

    return ETagMiddleware(plain_asgi(drip), lambda body: f'"{hashlib.md5(body).hexdigest()}"')


def dispatching(name: str) -> Callable[[Any], Any]:
    """A Starlette app with this function as BaseHTTPMiddleware's."""

    def kept(dispatch: Any) -> Any:
        @stack(name, "starlette", names=(f"{HERE}.{dispatch.__name__}",))
        def _(drip: Drip) -> Any:
            from starlette.middleware import Middleware
            from starlette.middleware.base import BaseHTTPMiddleware

            return starlette(drip, Middleware(BaseHTTPMiddleware, dispatch=dispatch))

        return dispatch

    return kept


@dispatching("starlette dispatch with an etag")
async def dispatch_etag(request: Any, call_next: Any) -> Any:
    from starlette.responses import Response

    response = await call_next(request)
    body = b"".join([chunk async for chunk in response.body_iterator])
    headers = dict(response.headers)
    headers["ETag"] = f'"{hashlib.md5(body).hexdigest()}"'
    headers.pop("content-length", None)
    return Response(body, status_code=response.status_code, headers=headers)


@dispatching("starlette dispatch that logs the body")
async def dispatch_logging(request: Any, call_next: Any) -> Any:
    from starlette.concurrency import iterate_in_threadpool

    response = await call_next(request)
    parts = [chunk async for chunk in response.body_iterator]
    response.body_iterator = iterate_in_threadpool(iter(parts))
    return response


@dispatching("starlette dispatch with a guard that guards nothing")
async def dispatch_guarded(request: Any, call_next: Any) -> Any:
    from starlette.responses import Response, StreamingResponse

    response = await call_next(request)
    if isinstance(response, StreamingResponse):
        return response
    body = b"".join([chunk async for chunk in response.body_iterator])
    return Response(body, status_code=response.status_code, headers=dict(response.headers))


# ---------------------------------------------------------------- Quart


@stack("quart get_data", "quart")
def _(drip: Drip) -> Any:
    app = quart(drip)

    @app.after_request
    async def length(response: Any) -> Any:
        response.headers["X-Length"] = str(len(await response.get_data()))
        return response

    return app


@stack("quart add_etag", "quart")
def _(drip: Drip) -> Any:
    app = quart(drip)

    @app.after_request
    async def etag(response: Any) -> Any:
        await response.add_etag()
        return response

    return app


@stack("quart-compress", "quart", "quart_compress")
def _(drip: Drip) -> Any:
    from quart_compress import Compress

    app = quart(drip)
    Compress(app)
    return app


# ---------------------------------------------------------------- Pyramid


@stack("pyramid md5_etag", "pyramid")
def _(drip: Drip) -> Any:
    return pyramid(drip, lambda config: config.add_tween(f"{HERE}.tween_etag"))


def tween_etag(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.md5_etag()
        response.conditional_response = True
        return response

    return tween


@stack("pyramid encode_content", "pyramid")
def _(drip: Drip) -> Any:
    return pyramid(drip, lambda config: config.add_tween(f"{HERE}.tween_gzip"))


def tween_gzip(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.encode_content("gzip")
        return response

    return tween


@stack("pyramid debugtoolbar", "pyramid_debugtoolbar", repeats=False)
def _(drip: Drip) -> Any:
    app = pyramid(drip, lambda config: config.include("pyramid_debugtoolbar"))

    def from_here(environ: Any, start_response: Any) -> Any:
        environ["REMOTE_ADDR"] = "127.0.0.1"  # others do not get a toolbar
        return app(environ, start_response)

    return from_here


# ---------------------------------------------------------------- Django


def django(
    name: str, *middleware: str, packages: tuple[str, ...] = (), asgi: bool = True, **known: Any
) -> None:
    """A Django site with this middleware, by both interfaces."""
    for interface in ("wsgi", "asgi") if asgi else ("wsgi",):

        def make(drip: Drip, interface: str = interface) -> Any:
            from .django_pages import site

            return site(drip, interface, list(middleware))

        stack(f"{name}, {interface}", "django", *packages, **known)(make)


_PAGES = f"{HERE.rpartition('.')[0]}.django_pages"

django("django gzip", "django.middleware.gzip.GZipMiddleware", asgi=False, streams_from=("django", "6.1"))
django("django conditional get", "django.middleware.http.ConditionalGetMiddleware", passes=True)
django(
    "django caches",
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
    passes=True,
    layers=2,
)
django(
    "django-brotli",
    "django_brotli.middleware.BrotliMiddleware",
    packages=("django_brotli",),
    accept="br",
    asgi=False,
)
for _coding in ("gzip", "br", "zstd"):
    django(
        f"django-compression-middleware {_coding}",
        "compression_middleware.middleware.CompressionMiddleware",
        packages=("compression_middleware",),
        accept=_coding,
        asgi=False,
    )
django("django-pipeline", "pipeline.middleware.MinifyHTMLMiddleware", packages=("pipeline",), breaks=True)
django("django digest of the content", f"{_PAGES}.with_digest", names=(f"{_PAGES}.with_digest",), breaks=True)
django("django joining", f"{_PAGES}.joining", names=(f"{_PAGES}.joining",), asgi=False)
django(
    "django joining either",
    f"{_PAGES}.joining_either",
    names=(f"{_PAGES}.joining_either",),
)
