"""What a body is compressed with: what the client takes, what is installed, and what the option says."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamkit
from streamkit.core.compression import is_installed, negotiated, offered_by
from streamkit.errors import OptionsError

INSTALLED = [coding for coding in ("gzip", "br", "zstd") if is_installed(coding)]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, zstd;q=0", "br"),
        ("br;q=0", "identity"),
        ("", "identity"),
        ("deflate", "identity"),
        ("identity", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, gzip;q=0.001", "gzip"),
        ("identity;q=0", "identity"),
        ("*;q=0", "identity"),
        ("gzip;q=nonsense, br", "br"),
    ],
)
def test_weights_count_before_our_own_order(accept: str, coding: str) -> None:
    assert negotiated(("zstd", "br", "gzip"), accept) == coding


@pytest.mark.parametrize(
    ("package", "coding"), [("brotli", "br"), ("backports.zstd", "zstd"), ("zlib", "gzip")]
)
def test_what_is_installed_is_on_offer(package: str, coding: str) -> None:
    pytest.importorskip(package)
    assert coding in offered_by(True, True)
    assert coding in offered_by(True, False)
    assert streamkit.Options(compress=[coding]).compress == (coding,)


def test_the_order_of_the_option_decides_among_equals() -> None:
    assert negotiated(("gzip", "zstd"), "zstd, gzip") == "gzip"
    assert negotiated(("zstd", "gzip"), "zstd, gzip") == "zstd"


def test_true_offers_gzip_first_for_streams_without_an_end() -> None:
    assert offered_by(True, True)[0] == "gzip"
    assert set(offered_by(True, False)) == set(INSTALLED)
    assert offered_by(False, False) == ()


def test_an_unknown_or_missing_coding_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match="compress: wanted names out of zstd, br, gzip, got 'deflate'"):
        streamkit.stream(iter(()), compress=["deflate"])
    with pytest.raises(OptionsError, match="compress: wanted a sequence of names, got 'gzip'"):
        streamkit.Options(compress="gzip")
    monkeypatch.setattr("streamkit.options.rules._is_there", lambda coding: False)
    with pytest.raises(OptionsError, match=r"makes br is installed: pip install 'streamkit-web\[compress\]'"):
        streamkit.Options(compress=["br"])


def test_an_ini_file_says_it_in_words() -> None:
    read = streamkit.Options.from_mapping
    assert read({"compress": "true"}).compress is True
    assert read({"compress": "false"}).compress is False
    assert read({"compress": "none"}).compress == ()
    assert read({"compress": "gzip"}).compress == ("gzip",)


BARE = """
import sys
for name in ("brotli", "zstandard", "backports.zstd", "compression.zstd"):
    sys.modules[name] = None
import streamkit

def served(accept):
    heads = []
    environ = {"wsgi.version": (1, 0), "REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": accept}
    app = streamkit.stream(["text"], compress=True)
    body = b"".join(app(environ, lambda *head: heads.append(head)))
    return dict(heads[0][1]).get("Content-Encoding"), body

assert served("br, zstd") == (None, b"text"), served("br, zstd")
assert served("br, gzip")[0] == "gzip"
try:
    streamkit.stream(["text"], compress=["br"])
except streamkit.OptionsError as error:
    assert "no package that makes br is installed" in str(error), error
else:
    raise AssertionError("nobody can make it")
"""


def test_without_its_package_a_coding_is_not_offered_and_by_name_it_is_refused() -> None:
    bare = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, timeout=60, check=False
    )
    assert bare.returncode == 0, bare.stderr
