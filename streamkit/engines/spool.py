"""Bodies that are held whole: in memory first, on disk above 1 MiB.

Rule: whoever makes a spool closes it; nothing is read before the last byte is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from ..core.compression import Coder
from ..errors import BufferLimitExceeded

IN_MEMORY = 1024 * 1024  # bytes
_PIECE = 64 * 1024  # bytes


class Spool:
    """A body under a limit, compressed where it has a `coder`; `BufferLimitExceeded` when it passes that."""

    def __init__(self, limit: int, coder: Coder | None = None) -> None:
        self.limit = limit
        self._coder = coder
        self.size = 0
        self.exceeded: BufferLimitExceeded | None = None
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  # closed by `close`

    @property
    def on_disk(self) -> bool:
        """Whether the next write may touch the disk."""
        return self.size > IN_MEMORY

    def write(self, chunk: bytes) -> None:
        if self._coder is not None:
            chunk = self._coder.held(chunk)
        if self.exceeded is None and self.size + len(chunk) > self.limit:
            self.exceeded = BufferLimitExceeded(self.limit)
        if self.exceeded is not None:
            raise self.exceeded
        self.size += len(chunk)
        self._file.write(chunk)

    def complete(self) -> None:
        """Nothing follows: from now on `size` is that of the whole body. Once is enough."""
        coder, self._coder = self._coder, None
        if coder is not None:  # little is left in it, so the limit is not asked again
            rest = coder.last()
            self.size += len(rest)
            self._file.write(rest)

    def pieces(self) -> Iterator[bytes]:
        """The body from its start, in pieces; closes the spool at the end."""
        try:
            self._file.seek(0)
            while piece := self._file.read(_PIECE):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        self._file.close()
