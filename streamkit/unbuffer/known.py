"""Which layers hold streams, and of what kind they are.

    etag    digests and conditional answers, made of the whole body
    gzip    what makes bodies smaller: compression, HTML minifiers
    cache   what keeps a body whole: caches, profilers, loggers of bodies

Rule: a layer is known by the dotted name of its class or function, or, where it is a function of the
user's own, by the methods that its code calls on a response. What is not known is left alone.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .layers import Layer, name_of

__all__ = ["KNOWN", "Known", "known_as", "names_of", "original"]


@dataclass(frozen=True)
class Known:
    """What is known of a layer."""

    kind: str
    package: str | None = None  # the distribution that has it
    streams_from: str | None = None  # the version of it from which on it flushes each chunk
    lets_pass: bool = False  # it asks whether a response streams, and leaves it alone then

    @property
    def passes(self) -> str | None:
        """Why nothing needs to be done; None where it holds."""
        if self.lets_pass:
            return "leaves streams alone by itself"
        if self.package is None or self.streams_from is None:
            return None
        installed = _version(self.package)
        if installed is not None and _numbers(installed) >= _numbers(self.streams_from):
            return f"passes each chunk on since {self.package} {self.streams_from} ({installed} is installed)"
        return None


# The versions: seen to hold below, and to stream from there on.
KNOWN: dict[str, Known] = {
    "asgi_etags.core.ETagMiddleware": Known("etag"),
    "asgi_gzip.GZipMiddleware": Known("gzip"),
    "compression_middleware.middleware.CompressionMiddleware": Known("gzip"),
    "django.middleware.cache.CacheMiddleware": Known("cache", lets_pass=True),
    "django.middleware.cache.FetchFromCacheMiddleware": Known("cache", lets_pass=True),
    "django.middleware.cache.UpdateCacheMiddleware": Known("cache", lets_pass=True),
    "django.middleware.gzip.GZipMiddleware": Known("gzip", "django", "6.1"),
    "django.middleware.http.ConditionalGetMiddleware": Known("etag", lets_pass=True),
    "django_brotli.middleware.BrotliMiddleware": Known("gzip"),
    "flask_compress.flask_compress.Compress.after_request": Known("gzip", "flask-compress", "1.22"),
    "flask_htmlmin.HTMLMIN.response_minify": Known("gzip"),
    "flask_minify.main.Minify.main": Known("gzip"),
    "htmlmin.middleware.HtmlMinifyMiddleware": Known("gzip"),
    "paste.evalexception.middleware.EvalException": Known("cache"),
    "paste.gzipper.middleware": Known("gzip"),
    "pipeline.middleware.MinifyHTMLMiddleware": Known("gzip"),
    "pyramid_debugtoolbar.toolbar.toolbar_tween_factory": Known("cache"),
    "quart_compress.quart_compress.Compress.after_request": Known("gzip"),
    "requestlogger.WSGILogger": Known("cache"),
    "starlette.middleware.gzip.GZipMiddleware": Known("gzip", "starlette", "1.5"),
    "starlette_compress.CompressMiddleware": Known("gzip"),
    "werkzeug.middleware.profiler.ProfilerMiddleware": Known("cache"),
    "wsgigzip.gzip.GzipMiddleware": Known("gzip"),
}

# Methods of Werkzeug's, WebOb's and Quart's responses that read the whole body.
_READING = {
    "add_etag": "etag",
    "calculate_content_length": "etag",
    "freeze": "etag",
    "make_conditional": "etag",
    "md5_etag": "etag",
    "encode_content": "gzip",
    "set_data": "gzip",
    "get_data": "cache",
}


def known_as(layer: Layer) -> Known | None:
    """What is known of this layer; None for all that is not."""
    for name in names_of(layer):
        if name in KNOWN:
            return KNOWN[name]
    if layer.kind == "view":
        return Known("cache")
    function = _own_function(layer)
    if function is None:
        return None
    for name in _names_in(function.__code__):
        if name in _READING:
            return Known(_READING[name])
    # A plain attribute's name, so only where it can hardly be another's.
    return Known("cache") if layer.kind == "hook" and "data" in function.__code__.co_names else None


def original(layer: Layer) -> Any:
    """What the layer was, where our own function already stands around it."""
    value = layer.object
    return value.__dict__.get("around", value) if type(value) is types.FunctionType else value


def names_of(layer: Layer) -> list[str]:
    """The dotted names that this layer goes by: its own, its base classes', its function's."""
    value = original(layer)
    names = [name_of(value)]
    if "<lambda>" not in names[0]:  # what a factory of that name has made
        names.append(names[0].partition(".<locals>")[0])
    if layer.calls is not None:
        names.append(layer.calls)
    if type(value) is types.MethodType:
        names += [f"{name_of(base)}.{value.__name__}" for base in type(value.__self__).__mro__]
    elif type(value) is not types.FunctionType:
        made = value if isinstance(value, type) else type(value)
        names += [name_of(base) for base in made.__mro__ if base is not object]
    return list(dict.fromkeys(names))


def _own_function(layer: Layer) -> types.FunctionType | None:
    """The user's function that makes the layer, where it is one."""
    value = original(layer)
    if layer.name == "webob.dec.wsgify":
        value = vars(value).get("func")
    elif layer.kind not in ("hook", "request"):
        return None
    value = value.__func__ if type(value) is types.MethodType else value
    if type(value) is not types.FunctionType or value.__module__.partition(".")[0] in ("django", "pyramid"):
        return None
    return value


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _version(package: str) -> str | None:
    from importlib import metadata  # slow to import, and seldom asked

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """`(1, 5)` of `1.5rc1`."""
    numbers = []
    for part in version.split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not part[:1].isdigit():
            break
        numbers.append(int(part) if part.isdigit() else int(digits[:1]))
    return tuple(numbers)
