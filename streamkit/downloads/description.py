"""A response whose body is to be saved as a file.

    return streamkit.send_stream(producer, "report.csv")

Rule: a download says what it is (type, name), how it may be kept, and that it is never to
look whole when it is not; how its bytes are made is for the other rooms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from ..core.disposition import content_disposition
from ..core.headers import Items, Pairs
from ..core.producers import Producer
from ..core.response import Resource, StreamingResponse
from ..options import Options
from ..types import EngineName
from .media_types import OCTET_STREAM, media_type_of_download

if TYPE_CHECKING:
    from typing_extensions import Unpack

LOG = logging.getLogger("streamkit")

# The browser of whoever may see it can keep it, and asks before it uses it again; not `no-store`
# as for other streams: with it old browsers refuse to save a file that was sent over TLS.
CACHE_CONTROL = "private, no-cache, no-transform"

# Their completion is markup for a reader, which has no place at the end of a file.
_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class Wishes(TypedDict, total=False):
    """The keywords of `streamkit.stream` that every download takes."""

    status: int
    headers: Items
    callback: Callable[[], object] | None
    on_error: Callable[..., object] | None
    engine: EngineName | None
    resources: Iterable[Resource]
    compress: bool | Sequence[str] | None
    options: Options | Mapping[str, Any] | None


class StreamWishes(Wishes, total=False):
    """Those of them that `send_stream` takes besides."""

    keep_open: bool
    loop: bool
    heartbeat_bytes: bytes | None


class Download(StreamingResponse):
    """Describe a file that is sent while `producer` makes it; see `streamkit.stream`.

    - `filename`: what the client is to save it as; any text, or None for no name.
    - `disposition`: `attachment` to save it, `inline` to show it (RFC 6266), no other word.
    - `type`: a full media type, which stands as it is, or a registered short name (`csv`);
      None: by the filename's extension, else application/octet-stream. No charset is added.
    - `content_length`: in bytes, where it is known; sent and enforced.

    All three are kept as they were given. Headers of the caller's own win over those made
    here. Ranges are refused (`Accept-Ranges: none`): what is generated cannot be resumed.
    Raises `HeaderError` for what cannot be sent, and what `streamkit.stream` raises.
    """

    is_file = True

    otherwise: ClassVar[str] = OCTET_STREAM  # the type where neither caller nor extension says one

    def __init__(
        self,
        producer: Producer,
        filename: str | None,
        *,
        disposition: str = "attachment",
        type: str | None = None,
        content_length: int | None = None,
        **more: Unpack[StreamWishes],
    ) -> None:
        self.filename = filename
        self.disposition = disposition
        self.type = type
        named = content_disposition(disposition, filename)
        super().__init__(producer, content_type=self._media_type(), content_length=content_length, **more)
        ours = [("Content-Disposition", named), ("Accept-Ranges", "none")]
        given = {name.lower() for name, _ in self.headers}
        self.describe_head([*self.headers, *(pair for pair in ours if pair[0].lower() not in given)])

    def _media_type(self) -> str:
        return media_type_of_download(self.type, self.filename, self.otherwise)

    def describe_head(self, headers: Pairs) -> None:
        super().describe_head(headers)
        # A file has an end, also where its type is one of streams: an HTTP/1.0 client, which
        # could not tell a cut from that end, gets it whole.
        self.endless = self.keep_open or self.loop

    def options_over(self, app_wide: Options) -> Options:
        """The app's options and this response's own, with the defaults of a download below them.

        `cache_control` is that of downloads unless somebody gave one. `on_failure` and a
        page's `completion` are obeyed only where this very download was given them.
        """
        options = super().options_over(app_wide)
        own = self.options if self.options is not None else _NONE
        page = self.media_type if self.media_type in _PAGES else None
        return options.merged(
            _of_a_file(
                CACHE_CONTROL if "cache_control" not in options.given else None,
                "abort" if "on_failure" not in own.given else None,
                None if page in own.completion else page,
            )
        )

    def begin(self) -> None:
        """Note that serving begins, also in the log."""
        super().begin()
        facts = {"filename": self.filename, "disposition": self.disposition, "type": self.type}
        # Not as fields of their own: a log record has a `filename` already.
        LOG.info("download of %r (%s)", self.filename, self.disposition, extra={"download": facts})

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.filename!r} {self.media_type} of {self.producer!r}>"


# Shared, because an open download holds its options, and to check them takes as long as to describe it.
@lru_cache
def _of_a_file(cache_control: str | None, on_failure: str | None, page: str | None) -> Options:
    """What a download adds to its options; each of these that is None stays as it is."""
    added: dict[str, Any] = {"cache_control": cache_control, "on_failure": on_failure}
    if page is not None:
        added["completion"] = {page: None}
    return Options(**{name: value for name, value in added.items() if value is not None})


# To describe is all that `send_stream` does, so it is the description's own constructor.
send_stream = Download

_NONE = Options()
