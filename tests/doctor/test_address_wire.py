"""Heads, framing and content codings, read as bytes come."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest

from streamkit.doctor.decoding import decoder_for
from streamkit.doctor.http1 import Body, Framing, Head, framing_of, parse_head
from streamkit.doctor.observations import MARK

CHUNKED = (Framing.CHUNKED, 0)
LIMIT = 100_000


def fed(body: Body, data: bytes, size: int) -> bytes:
    return b"".join(body.feed(data[start : start + size]) for start in range(0, len(data), size))


# -- heads


def test_a_head_is_its_status_and_its_fields():
    found = parse_head(b"HTTP/1.1 200 OK\r\nServer:  nginx \r\nvia: a\r\nVia: b")
    assert found == Head("1.1", 200, (("Server", "nginx"), ("via", "a"), ("Via", "b")))
    assert found.get("VIA") == "a, b"
    assert found.get("Missing") is None


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH", b"HTTP/2 200", b"HTTP/1.1 two hundred"])
def test_what_is_no_status_line_is_no_head(text: bytes):
    assert parse_head(text) is None


def test_a_reason_may_be_missing():
    assert parse_head(b"HTTP/1.0 204") == Head("1.0", 204)


def test_words_of_a_list_are_compared_without_case_and_values():
    head = Head("1.1", 200, (("Cache-Control", "No-Store, max-age=5"),))
    assert head.has("cache-control", "no-store")
    assert head.has("cache-control", "max-age")
    assert not head.has("cache-control", "store")


@pytest.mark.parametrize(
    ("method", "status", "fields", "wanted"),
    [
        ("GET", 200, {}, (Framing.CLOSE, 0)),
        ("GET", 200, {"Content-Length": "12"}, (Framing.LENGTH, 12)),
        ("GET", 200, {"Content-Length": "12, 12"}, (Framing.LENGTH, 12)),
        ("GET", 200, {"Content-Length": "-1"}, (Framing.CLOSE, 0)),
        ("GET", 200, {"Content-Length": "12", "Transfer-Encoding": "chunked"}, (Framing.CHUNKED, 0)),
        ("HEAD", 200, {"Transfer-Encoding": "chunked"}, (Framing.NONE, 0)),
        ("GET", 304, {"Content-Length": "12"}, (Framing.NONE, 0)),
    ],
)
def test_how_a_body_is_delimited(
    method: str, status: int, fields: dict[str, str], wanted: tuple[Framing, int]
):
    assert framing_of(method, Head("1.1", status, tuple(fields.items()))) == wanted


# -- framing


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_chunks_are_taken_out_of_their_framing_however_they_are_cut(size: int):
    body = Body(CHUNKED)
    data = b"4\r\nwiki\r\n5;name=value\r\npedia\r\n00D\r\n in\r\n\r\nchunks\r\n0\r\nTrailer: yes\r\n\r\n"
    assert fed(body, data, size) == b"wikipedia in\r\n\r\nchunks"
    assert body.is_whole
    assert body.fault is None


def test_many_small_chunks_take_no_longer_than_they_are_many():
    body = Body(CHUNKED)
    began = time.process_time()
    for _ in range(20):
        assert len(body.feed(b"1\r\nx\r\n" * 40_000)) == 40_000
    # Cut off one by one, these took minutes.
    assert time.process_time() - began < 20.0


def test_a_body_without_its_last_chunk_is_not_whole():
    body = Body(CHUNKED)
    assert body.feed(b"4\r\nwiki\r\n0\r\n") == b"wiki"
    assert not body.is_whole


@pytest.mark.parametrize(
    "data", [b"wiki\r\n", b"-4\r\nwiki\r\n", b"0x4\r\n", b"\r\n", b"4\r\nwikipedia\r\n", b"f" * 5000]
)
def test_what_is_no_chunk_is_a_fault_and_no_error(data: bytes):
    body = Body(CHUNKED)
    body.feed(data)
    assert body.fault is not None
    assert body.feed(b"more") == b""


def test_what_follows_the_end_is_a_fault():
    for body, data in ((Body((Framing.LENGTH, 2)), b"abc"), (Body(CHUNKED), b"0\r\n\r\nmore")):
        body.feed(data)
        assert body.is_whole
        assert "follow the end" in (body.fault or "")


def test_a_length_ends_a_body_and_a_close_has_none():
    counted, open_ended = Body((Framing.LENGTH, 3)), Body((Framing.CLOSE, 0))
    assert (counted.feed(b"ab"), counted.is_whole) == (b"ab", False)
    assert (counted.feed(b"c"), counted.is_whole) == (b"c", True)
    assert (open_ended.feed(b"abc"), open_ended.is_whole) == (b"abc", False)


# -- content codings


def flushed(pieces: list[bytes], wbits: int) -> list[bytes]:
    encoder = zlib.compressobj(wbits=wbits)
    return [encoder.compress(piece) + encoder.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]


@pytest.mark.parametrize(
    ("coding", "wbits"), [("gzip", 31), ("x-gzip", 31), ("deflate", 15), ("deflate", -15)]
)
def test_each_flushed_piece_can_be_read_when_it_has_come(coding: str, wbits: int):
    decoder = decoder_for(coding, LIMIT)
    pieces = [b"first\n", b"second\n", b"third\n"]
    assert [decoder.feed(piece) for piece in flushed(pieces, wbits)] == pieces


def test_the_header_of_gzip_alone_is_no_payload():
    data = gzip.compress(b"payload")
    decoder = decoder_for("gzip", LIMIT)
    assert decoder.feed(data[:10]) == b""
    assert decoder.feed(data[10:]) == b"payload"


def test_members_of_gzip_follow_one_another():
    data = gzip.compress(b"one ") + gzip.compress(b"two")
    assert decoder_for("gzip", LIMIT).feed(data) == b"one two"
    decoder = decoder_for("gzip", LIMIT)
    assert b"".join(decoder.feed(data[at : at + 1]) for at in range(len(data))) == b"one two"
    assert decoder.fault is None


def test_no_identity_is_decoded():
    for coding in (None, "", "identity", "Identity"):
        assert decoder_for(coding, LIMIT).feed(b"as it is") == b"as it is"


def test_a_coding_behind_identity_is_decoded():
    assert decoder_for("identity, gzip", LIMIT).feed(gzip.compress(b"payload")) == b"payload"


def test_an_unknown_coding_can_only_be_counted():
    assert not decoder_for("x-secret", LIMIT).can_read
    assert not decoder_for("gzip, br", LIMIT).can_read
    assert decoder_for("gzip", LIMIT).can_read


def test_what_is_no_gzip_is_a_fault_and_no_error():
    decoder = decoder_for("gzip", LIMIT)
    decoder.feed(gzip.compress(b"payload")[:10])
    decoder.feed(b"\xff" * 50)
    assert decoder.fault is not None
    assert decoder.feed(b"more") == b""


def test_a_bomb_gives_no_more_than_the_limit():
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(decoder_for("gzip", 1000).feed(bomb)) == 1000


def test_brotli_is_read_where_a_package_for_it_is_installed():
    brotli = pytest.importorskip("brotli")
    encoder = brotli.Compressor()
    decoder = decoder_for("br", LIMIT)
    for piece in (b"first\n", b"second\n"):
        assert decoder.feed(encoder.process(piece) + encoder.flush()) == piece
    broken = decoder_for("br", LIMIT)
    broken.feed(b"\xff" * 50)
    assert broken.fault is not None


def test_a_mark_is_found_in_any_media_type():
    found = MARK.findall(b'data: [[chunk-3 1732.123]]\n\n{"drip": "[[chunk-4 1733.000]]"}')
    assert found == [(b"3", b"1732.123"), (b"4", b"1733.000")]
