"""Compressed event streams of real servers, read by a decoder that gets what the socket gives.

Rule: an event is made when the server was told that the one before has been decoded.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

import pytest
from servers.launch import COMPLAINT, KINDS, running
from servers.wire import Connection, Ending, fetch

from streamkit.core.compression import is_installed
from streamkit.sse import Decoder

pytestmark = pytest.mark.server


@pytest.fixture(
    scope="module", params=["gunicorn", "waitress", "uvicorn-httptools", "uvicorn-h11", "hypercorn"]
)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server of `tests.browser.events_app`, which has complained of nothing at the end."""
    pytest.importorskip(request.param.partition("-")[0], reason=f"{request.param} is not installed")
    directory = tmp_path_factory.mktemp("compressed")

    def command(port: int) -> list[str]:
        parts = KINDS[request.param].command(port, 8)
        return [part.replace("tests.servers.apps:", "tests.browser.events_app:") for part in parts]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMKIT_LEDGERS", str(directory))
        with running(command, directory / "log") as (port, _):
            yield port
    said = (directory / "log").read_text()
    assert not COMPLAINT.search(said), said


class Unpacked:
    """A decoder that is fed as bytes arrive."""

    def __init__(self, coding: str) -> None:
        if coding == "gzip":
            inside = zlib.decompressobj(31)
            self.feed, self.is_whole = inside.decompress, lambda: inside.eof
        elif coding == "br":
            brotli = pytest.importorskip("brotli").Decompressor()
            self.feed, self.is_whole = brotli.process, brotli.is_finished
        else:
            zstd = pytest.importorskip("backports.zstd").ZstdDecompressor()
            self.feed, self.is_whole = zstd.decompress, lambda: zstd.eof


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_each_event_can_be_decoded_before_the_next_is_made(
    port: int, coding: str, request: pytest.FixtureRequest
) -> None:
    if not is_installed(coding):
        pytest.skip(f"nothing that makes {coding} is installed")
    key = request.node.name
    unpacked, events = Unpacked(coding), Decoder()
    seen: list[str] = []
    with Connection(port) as connection:
        connection.ask(
            "GET",
            f"/events?key={key}&script=steps&compress={coding}&heartbeat=none",
            fields={"Accept-Encoding": f"{coding}, identity;q=0.5"},
        )
        head = connection.head()
        assert (head.get("Content-Encoding"), head.get("Vary")) == (coding, "Accept-Encoding")
        for chunk in connection.chunks():
            for event in events.feed(unpacked.feed(chunk.payload)):
                seen.append(event.data or "")
                fetch(port, f"/seen?key={key}&what={event.id}")
            if len(seen) == 5:
                break
    assert seen == [json.dumps({"number": n}, separators=(",", ":")) for n in range(1, 6)]
    notes = json.loads(fetch(port, f"/notes?key={key}").body)
    in_turn = [f"{what} {n}" for n in range(1, 6) for what in ("sends", "seen")]
    assert [note for note in notes if note[-1].isdigit()] == in_turn


def test_a_stream_that_is_done_ends_its_compressed_body(port: int, request: pytest.FixtureRequest) -> None:
    unpacked = Unpacked("gzip")
    with Connection(port) as connection:
        connection.ask(
            "GET",
            f"/events?key={request.node.name}&script=done&compress=gzip",
            fields={"Accept-Encoding": "gzip"},
        )
        connection.head()
        text = b"".join([unpacked.feed(chunk.payload) for chunk in connection.chunks()])
    assert connection.ending in (Ending.COMPLETE, Ending.CLOSE_DELIMITED)
    assert text.startswith(b"retry: ") or b"data: the last one" in text
    assert text.endswith(b"id: streamkit.done\n\n")
    assert unpacked.is_whole()
