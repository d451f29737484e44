"""The `streamkit` command: what it says, what it returns, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.launch import ROOT, poll
from servers.wire import Connection, fetch

import streamkit
from streamkit.cli import main

BOUND = 30.0  # seconds for a start or an end
ADDRESS = re.compile(r"streamkit demo on http://127\.0\.0\.1:(\d+)/ \((uvicorn, ASGI|waitress, WSGI)\)\. ")
BOTH = pytest.mark.parametrize("more", [[], ["--wsgi"]], ids=["ASGI", "WSGI"])


@contextmanager
def started(arguments: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`python -m streamkit …` as a child with its own temporary folder; ended with the block."""
    said, temporary = folder / "said", folder / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    with said.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "streamkit", *arguments], cwd=folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield child, said
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(BOUND)


def port_of(child: subprocess.Popen[bytes], said: Path) -> int:
    def look() -> re.Match[str] | None:
        assert child.poll() is None, said.read_text()
        return ADDRESS.search(said.read_text())

    return int(poll(look, bound=BOUND, what="the address")[1])


@BOTH
@pytest.mark.server
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_demo_says_its_address_once_and_leaves_nothing_behind(
    more: list[str], ending: signal.Signals, tmp_path: Path
) -> None:
    with started(["demo", "--port=0", *more], tmp_path) as (child, said):
        assert fetch(port_of(child, said), "/").status == 200
        assert list((tmp_path / "temporary").iterdir()), "no database was made"
        child.send_signal(ending)
        assert child.wait(BOUND) == 0
    assert said.read_text().count("\n") == 1
    assert said.read_text().endswith(". Ctrl+C ends it.\n")
    assert list((tmp_path / "temporary").iterdir()) == []


@BOTH
@pytest.mark.server
def test_ctrl_c_ends_the_demo_while_a_stream_is_open(more: list[str], tmp_path: Path) -> None:
    with started(["demo", "--port=0", *more], tmp_path) as (child, said):
        with Connection(port_of(child, said)) as connection:
            connection.ask("GET", "/ticks")
            connection.head()
            assert next(connection.chunks()).payload.startswith(b"tick 1")
            child.send_signal(signal.SIGINT)
            assert child.wait(BOUND) == 0
    assert list((tmp_path / "temporary").iterdir()) == []


@BOTH
def test_a_port_in_use_is_one_line_and_status_2(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", f"--port={port}", *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"streamkit demo: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_host_that_is_not_there_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--host=host.invalid", "--port=0"]) == 2
    assert re.fullmatch(
        r"streamkit demo: cannot listen on host\.invalid port 0: .+\n", capsys.readouterr().err
    )


@pytest.mark.parametrize(("package", "more"), [("uvicorn", []), ("waitress", ["--wsgi"])])
def test_a_missing_server_names_the_extra_to_install(
    package: str, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo", "--port=0", *more]) == 2
    wanted = f"streamkit demo: {package} is not installed: pip install 'streamkit-web[demo]'\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["demo", "--port=many"], ["demo", "--port=70000"]])
def test_wrong_arguments_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert "usage: streamkit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["demo", "--port=many"], "argument --port: a port is a number, not 'many'"),
        (["doctor", "http://x", "--seconds=1h"], "argument --seconds: seconds are a number, not '1h'"),
        (["doctor", "http://x", "--silence="], "argument --silence: seconds are a number, not ''"),
    ],
)
def test_a_word_in_the_place_of_a_number_is_told_in_words_of_the_user(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.endswith(f"error: {wanted}\n")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"streamkit {streamkit.__version__}\n"


def test_help_needs_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("uvicorn", "waitress"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ending:
        main(["demo", "--help"])
    assert ending.value.code == 0
    assert "--wsgi" in capsys.readouterr().out
