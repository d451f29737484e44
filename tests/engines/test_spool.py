"""Bodies that are held whole."""

from __future__ import annotations

import pytest

from streamkit import BufferLimitExceeded
from streamkit.engines.spool import IN_MEMORY, Spool


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_what_is_written_comes_back_in_pieces_from_memory_or_disk(size: int) -> None:
    spool = Spool(limit=4 * IN_MEMORY)
    body = bytes(index % 251 for index in range(1024)) * (size // 1024) + b"x" * (size % 1024)
    for start in range(0, size, 100_000):
        spool.write(body[start : start + 100_000])
    assert spool.size == size
    assert spool.on_disk == (size > IN_MEMORY)
    assert b"".join(spool.pieces()) == body
    assert spool._file.closed


def test_one_byte_over_the_limit_is_refused_with_the_limit() -> None:
    spool = Spool(limit=10)
    spool.write(b"x" * 10)
    with pytest.raises(BufferLimitExceeded, match="10 bytes") as refused:
        spool.write(b"x")
    assert refused.value.limit == 10
    spool.close()
