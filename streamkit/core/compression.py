"""Content codings of streams: which one a response gets, and what makes its bytes.

    coding = chosen(("zstd", "gzip"), head, 200, "gzip, br;q=0.5", endless=True)     # "gzip"
    coder = coder_for("gzip", endless=True)
    coder.chunk(b"data: 1\\n\\n")     # all of it can be decoded at once
    coder.last()                    # and from here on the body is whole

One context lives as long as its body, so what was sent once costs next to nothing again. The
price is its memory: for a stream without an end some 30 KiB with gzip, 65 with zstd, 490 with br;
`docs/compression.md` has the figures, and what secrets have to do with it.

Rule: no byte waits in a context once `chunk` has returned; only a clean end asks for `last`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, TypeAlias

from werkzeug.http import parse_accept_header

from ..errors import EngineUnavailable
from ..options import CODINGS
from .framing import has_body
from .headers import IDENTITY, Pairs, media_type_of

Offer: TypeAlias = "bool | tuple[str, ...]"
Calls: TypeAlias = "tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]"

# What `compress=True` offers, best first. Event by event gzip has by far the smallest context for about
# as few bytes; in longer chunks zstd is some four times as fast for about as many.
FOR_ENDLESS = ("gzip", "zstd", "br")
FOR_FINITE = ("zstd", "br", "gzip")

# Compressed in themselves: to do it again takes time and saves nothing. SVG and bitmaps are not.
_PACKED_TYPES = frozenset(
    {
        "application/epub+zip", "application/gzip", "application/java-archive", "application/octet-stream",
        "application/ogg", "application/pdf", "application/vnd.rar", "application/x-7z-compressed",
        "application/x-brotli", "application/x-bzip2", "application/x-compress", "application/x-gzip",
        "application/x-rar-compressed", "application/x-xz", "application/x-zip-compressed",
        "application/zip", "application/zlib", "application/zstd", "font/woff", "font/woff2",
        # Parts of a kind of their own; in practice they are pictures, and ranges of who knows what.
        "multipart/byteranges", "multipart/x-mixed-replace",
    }
)  # fmt: skip
_PACKED_FAMILIES = ("image/", "video/", "audio/", "application/vnd.openxmlformats", "application/grpc")
_PACKED_SUFFIXES = ("+zip", "+gzip", "+zstd")
_PICTURES_IN_THE_OPEN = frozenset({"image/svg+xml", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon"})

# Digests are of the bytes as they are coded, those of the whole representation too (RFC 9530, section 3).
_FORBIDDING = frozenset(
    {"content-encoding", "content-range", "content-digest", "repr-digest", "digest", "content-md5"}
)


class Coder:
    """One compressed body. Not for two threads at once; each call blocks for as long as it computes."""

    __slots__ = ("_compress", "_finish", "_flush")

    def __init__(self, calls: Calls) -> None:
        self._compress, self._flush, self._finish = calls

    def chunk(self, data: bytes) -> bytes:
        """The bytes of one chunk, flushed: whoever has them can decode all that was given so far."""
        return self._compress(data) + self._flush()

    def held(self, data: bytes) -> bytes:
        """As many bytes as come by themselves, for a body that is sent whole; maybe none."""
        return self._compress(data)

    def last(self, data: bytes = b"") -> bytes:
        """The bytes of the last chunk, and the end that tells a whole body from one that was cut."""
        return self._compress(data) + self._finish()


def coder_for(coding: str, *, endless: bool) -> Coder:
    """A new context; a small one for a stream that is open for long and mostly idle."""
    return Coder(_FACTORIES[coding](endless))


def is_compressible(head: Pairs, status: int, *, default_type: str | None) -> bool:
    """Whether a body under this head, as the application made it, may be compressed.

    Not one that is compressed or that must be left as it is: `no-transform` (RFC 9111, section
    5.2.2.6) counts where the application has set it, parts (206) and digests are of these very bytes.
    """
    if not (has_body(status) or status == 304) or status == 206:
        return False
    media_type = default_type
    for name, value in head:
        lowered = name.lower()
        if lowered in _FORBIDDING:
            return False
        if lowered == "content-type":
            media_type = value
        elif lowered == "cache-control" and "no-transform" in _directives(value):
            return False
    return media_type is not None and _is_open(media_type_of(media_type))


def _directives(value: str) -> list[str]:
    return [directive.strip().lower() for directive in value.split(",")]


def _is_open(media_type: str) -> bool:
    """Whether a body of this type has something to be saved."""
    if media_type in _PACKED_TYPES or media_type.endswith(_PACKED_SUFFIXES):
        return False
    return not media_type.startswith(_PACKED_FAMILIES) or media_type in _PICTURES_IN_THE_OPEN


def chosen(
    offer: Offer,
    head: Pairs,
    status: int,
    accept: str | None,
    *,
    endless: bool,
    default_type: str | None = None,
) -> str | None:
    """The coding for this head; `identity` where the client wants none, None where none is on offer."""
    offered = offered_by(offer, endless)
    if not offered or not is_compressible(head, status, default_type=default_type):
        return None
    if accept is None:
        return IDENTITY  # any would be acceptable; who says nothing may not know one, as Python's urllib
    return _negotiated(offered, accept) if len(accept) <= 256 else negotiated(offered, accept)


@lru_cache(64)
def offered_by(offer: Offer, endless: bool) -> tuple[str, ...]:
    """The codings on offer, best first; those of `True` as far as they are installed."""
    if isinstance(offer, tuple):
        return offer
    return tuple(filter(is_installed, FOR_ENDLESS if endless else FOR_FINITE)) if offer else ()


def negotiated(offered: Iterable[str], accept: str) -> str:
    """The best of `offered` for this Accept-Encoding, or `identity` (RFC 9110, section 12.5.3).

    Weights count first, then the order of the offer. A client that refuses every coding and
    `identity` too is sent the body as it is, as section 12.5.3 allows.
    """
    weights = {("gzip" if name == "x-gzip" else name): q for name, q in _weights(accept)}
    others = weights.get("*", 0.0)
    best, weight = IDENTITY, weights.get(IDENTITY, 0.0)
    for coding in offered:
        q = weights.get(coding, others)
        if q > weight or (q == weight and q > 0 and best == IDENTITY):
            best, weight = coding, q
    return best


def _weights(accept: str) -> list[tuple[str, float]]:
    return [(name.lower(), q) for name, q in parse_accept_header(accept)]


_negotiated = lru_cache(256)(negotiated)


# ---------------------------------------------------------------- the makers of bytes


def _gzip(endless: bool) -> Calls:
    # 16 more: a gzip member, not a zlib stream. With 4 KiB of window an idle stream takes some 30 KiB;
    # with the usual 32 KiB it takes up to 270, for one byte in eight.
    level, window, memory = (6, 12, 4) if endless else (5, 15, 8)
    context = zlib.compressobj(level, zlib.DEFLATED, 16 + window, memory)
    return context.compress, partial(context.flush, zlib.Z_SYNC_FLUSH), context.flush


def _brotli(endless: bool) -> Calls:
    # Below quality 5 its events are no smaller than gzip's; from 2^18 of window on it takes 1.3 MiB.
    context = _import("br").Compressor(quality=5, lgwin=16)
    return context.process, context.flush, context.finish


def _zstd(endless: bool) -> Calls:
    module = _import("zstd")
    # RFC 9659 wants windows of at most 8 MiB; these are 8 KiB with tables to match, and 128 KiB.
    sizes = {"window_log": 13, "hash_log": 10, "chain_log": 10} if endless else {"window_log": 17}
    level = 1 if endless else 3
    context: Any
    if hasattr(module, "ZstdCompressionParameters"):  # of zstandard
        parameters = module.ZstdCompressionParameters.from_level(level, **sizes)
        context = module.ZstdCompressor(compression_params=parameters).compressobj()
        return context.compress, partial(context.flush, module.COMPRESSOBJ_FLUSH_BLOCK), context.flush
    names = module.CompressionParameter
    options = {names.compression_level: level, **{getattr(names, name): sizes[name] for name in sizes}}
    context = module.ZstdCompressor(options=options)
    return context.compress, partial(context.flush, context.FLUSH_BLOCK), context.flush


_FACTORIES: dict[str, Callable[[bool], Calls]] = {"gzip": _gzip, "br": _brotli, "zstd": _zstd}


def is_installed(coding: str) -> bool:
    """Whether this coding can be made here."""
    try:
        _import(coding)
    except EngineUnavailable:
        return False
    return True


@lru_cache
def _import(coding: str) -> Any:
    """The first of the packages that make this coding."""
    for name in CODINGS[coding]:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise EngineUnavailable(
        f"no package that makes {coding} is installed: pip install 'streamkit-web[compress]'"
    )
