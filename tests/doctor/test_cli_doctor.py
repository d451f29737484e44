"""`streamkit doctor`: what it prints, what it returns, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.launch import ROOT, poll

from streamkit.cli import APP, main
from streamkit.doctor import CODES, Advice, Arrival, Diagnosis, Finding, Severity, Track
from streamkit.doctor.show import Look, as_json, as_text

from .answering import END, answering, chunk, dripping, head, response

BOUND = 60.0  # seconds for a whole run on a busy machine


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "streamkit", "doctor", *arguments],
        env={**known, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()  # if it still runs: nobody must wait for it without end


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit status, and what was printed and complained of."""
    with started(list(arguments), **environment) as child:
        said, complaints = child.communicate(timeout=BOUND)
    return child.returncode, said, complaints


# -- the command as a process


def test_a_stream_that_arrives_as_it_is_made_is_status_0():
    with answering(dripping()) as peer:
        status, said, complaints = run(f"{peer.url}/events")
    assert (status, complaints) == (0, "")
    lines = said.splitlines()
    assert lines[0] == f"streamkit doctor {peer.url}/events"
    assert lines[-1] == "It streams: nothing holds it back."
    row = next(line for line in lines if line.startswith("HTTP/1.1"))
    assert row.count("█") >= 3
    assert "\x1b" not in said
    assert "FAULT" not in said


def test_a_stream_that_is_held_is_status_1_and_says_by_whom_and_what_to_set():
    with answering(dripping(is_held=True, Server="nginx/1.22.1")) as peer:
        status, said, complaints = run(peer.url)
    assert (status, complaints) == (1, "")
    assert "FAULT  buffered\n" in said
    assert "nginx" in said
    assert "        proxy_buffering off;\n" in said
    assert said.endswith("It does not arrive as it is made.\n")


def test_a_stream_that_breaks_off_is_status_1_and_not_said_to_be_held():
    def answer(request: str):
        yield head(Transfer_Encoding="chunked", Content_Type="text/csv")
        if not request.startswith("HEAD"):
            yield chunk(b"id,name\n1,Ada\n")  # and the end of the connection

    with answering(answer) as peer:
        status, said, complaints = run(peer.url)
    assert (status, complaints) == (1, "")
    assert "FAULT  broken-end\n" in said
    assert said.endswith("It arrives, and does not end as it should.\n")


def test_an_address_that_answers_with_an_error_is_status_2():
    with answering([response(status="404 Not Found")]) as peer:
        status, said, complaints = run(peer.url)
    assert (status, complaints) == (2, "")
    assert "It could not be asked: " in said
    assert "answered 404" in said


def test_an_address_where_nobody_listens_is_status_2_and_no_traceback():
    status, said, complaints = run("http://127.0.0.1:1/")
    assert (status, complaints) == (2, "")
    assert "Connection refused" in said


def test_a_module_in_the_place_of_an_address_leads_to_the_name_of_its_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "shop_that_is_no_host"]) == 2
    assert "module" not in capsys.readouterr().out
    Path("shop_that_is_no_host.py").touch()
    assert main(["doctor", "shop_that_is_no_host"]) == 2
    assert "; the app of a module is named shop_that_is_no_host:attribute\n" in capsys.readouterr().out


def test_a_page_is_status_1_and_accuses_nobody():
    with answering([response(b"<p>")]) as peer:
        status, said, _ = run(peer.url)
    assert status == 1
    assert said.endswith("It was not seen to stream; nobody is accused.\n")


def test_json_is_one_object_with_all_that_was_found():
    with answering(dripping(is_held=True, Server="nginx/1.22.1")) as peer:
        status, said, complaints = run(peer.url, "--json", "--path=/events")
    assert (status, complaints) == (1, "")
    found = json.loads(said)
    assert list(found) == [
        "schema", "target", "status", "refusal", "findings", "tracks", "layers", "facts",
    ]  # fmt: skip
    assert (found["schema"], found["target"], found["status"], found["refusal"]) == (1, peer.url, 1, None)
    assert found["facts"]["address"] == f"{peer.url}/events"
    assert found["facts"]["Server"] == "nginx/1.22.1"
    buffered = found["findings"][0]
    assert list(buffered) == ["code", "severity", "sentence", "evidence", "advice", "guilty", "configured"]
    assert (buffered["code"], buffered["severity"], buffered["guilty"]) == ("buffered", "fault", "nginx")
    assert buffered["advice"][0]["where"] == "nginx"
    assert buffered["advice"][0]["lines"][-1] == "proxy_buffering off;"
    track = found["tracks"][0]
    assert list(track) == ["name", "head_at", "ended_at", "remark", "arrivals"]
    assert track["name"] == "HTTP/1.1"
    assert track["arrivals"][-1]["offset"] > 100
    assert track["arrivals"][-1]["at"] > 0.5


def test_json_of_what_could_not_be_asked_has_the_reason():
    status, said, _ = run("http://127.0.0.1:1/", "--json")
    found = json.loads(said)
    assert status == found["status"] == 2
    assert "Connection refused" in found["refusal"]
    assert found["findings"] == found["tracks"] == []


def test_the_app_s_own_port_settles_who_holds_a_stream():
    with answering(dripping()) as own, answering(dripping(is_held=True, Server="nginx")) as peer:
        status, said, _ = run(peer.url, "--direct", own.url)
    assert status == 1
    assert "by nginx; the app's own port streams" in " ".join(said.split())
    with answering(dripping(is_held=True)) as own, answering(dripping(is_held=True, Server="nginx")) as peer:
        status, said, _ = run(peer.url, "--direct", own.url)
    assert status == 1
    assert "by the app or its server" in " ".join(said.split())


def test_headers_and_the_proxy_s_name_are_taken():
    with answering(dripping(is_held=True)) as peer:
        status, said, _ = run(peer.url, "--header", "Cookie: a=b", "--proxy=lighttpd", "--seconds=20")
    assert status == 1
    assert all("\r\nCookie: a=b\r\n" in request for request in peer.requests)
    assert "server.stream-response-body" in said


def test_a_stream_without_end_is_left_after_so_many_seconds():
    def answer(request: str):
        yield head(Transfer_Encoding="chunked", Content_Type="text/plain")
        while not request.startswith("HEAD"):
            yield chunk(b"tick\n")
            yield 0.1
        yield END

    with answering(answer) as peer:
        status, said, _ = run(peer.url, "--seconds=1.5")
    assert status == 0
    assert "still open" in said


def test_ctrl_c_ends_it_in_one_line_and_leaves_the_connection():
    left = []

    def answer(request: str):
        yield head(Transfer_Encoding="chunked")
        try:
            while True:
                yield chunk(b"tick\n")
                yield 0.05
        finally:
            left.append(request)

    with answering(answer) as peer, started([peer.url, "--seconds=600"]) as child:
        poll(lambda: peer.requests, bound=BOUND, what="the first request")
        child.send_signal(signal.SIGINT)
        said, complaints = child.communicate(timeout=BOUND)
        assert child.returncode == 130
        assert (said, complaints) == ("", "streamkit doctor: interrupted\n")
    assert len(left) == 1


def test_a_reader_who_leaves_early_is_no_error():
    with answering([response(b"<p>")]) as peer, started([peer.url]) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(BOUND) == 1


def test_a_terminal_of_ascii_gets_ascii():
    with answering(dripping(is_held=True)) as peer:
        status, said, complaints = run(peer.url, PYTHONIOENCODING="ascii")
    assert (status, complaints) == (1, "")
    assert said.isascii()
    assert "#" in next(line for line in said.splitlines() if line.startswith("HTTP/1.1"))


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["http://x", "--seconds=0"], ["http://x", "--seconds=nan"], ["http://x", "--seconds=many"],
        ["http://x", "--header=nothing"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ending:
        main(["doctor", *arguments])
    assert ending.value.code == 2
    assert "usage: streamkit doctor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["http://x", "--server=gunicorn"], "--server is for an app"),
        (["module:app", "--direct=http://x"], "--direct is for an address"),
        (["module:app", "--proxy=nginx"], "--proxy is for an address"),
        (["http://x", "--header=A b: c"], "a header is 'Name: value'"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_status_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "is_app"),
    [
        ("module:app", True),
        ("package.module:create_app()", True),
        ("localhost:8000", False),
        ("example.org:8000/path", False),
        ("http://example.org", False),
        ("example.org", False),
    ],
)
def test_an_app_is_told_from_an_address(target: str, is_app: bool):
    assert bool(APP.fullmatch(target)) is is_app


# -- the text


FOUND = Diagnosis(
    "http://x/",
    findings=(
        Finding(
            "buffered", Severity.FAULT, "it is held", ("all at once",),
            (Advice("nginx", "set this", ("a;",)),), "nginx", "app.py:12",
        ),
        Finding("no-store", Severity.NOTE, "it lacks no-store"),
    ),
    tracks=(
        Track("HTTP/1.1", (Arrival(0.0, 5), Arrival(1.0, 10), Arrival(2.0, 15)), 0.0, 2.0, "200"),
        Track("late", (Arrival(2.0, 15),), 2.0, None, "200"),
        Track("nothing", remark="no answer"),
    ),
    layers=("Outer", "View"),
    facts={"Server": "nginx"},
)  # fmt: skip


def test_the_time_line_shows_when_each_byte_came():
    rows = as_text(FOUND, Look(blocks=True)).splitlines()
    first, late, nothing = (
        next(row for row in rows if row.startswith(name)) for name in ("HTTP", "late", "noth")
    )
    assert [index for index, cell in enumerate(first) if cell == "█"] == [10, 33, 57]
    assert first[58] == "|"
    assert [index for index, cell in enumerate(late) if cell == "█"] == [57]
    assert late[58] == ">"
    assert nothing.split() == ["nothing", "0", "B", "no", "answer"]


def test_the_text_has_all_of_a_finding():
    said = as_text(FOUND, Look(blocks=True))
    for part in ("FAULT  buffered", "  it is held", "  It is set up at app.py:12.", "  · all at once"):
        assert f"\n{part}\n" in said
    assert "\n  → nginx: set this\n        a;\n" in said
    assert "\n  Server: nginx\n" in said
    assert "\nLayers, from the outermost:\n  Outer\n  View\n" in said


SOME = (Track("HTTP/1.1", (Arrival(0.0, 5),), 0.0, 0.1),)


@pytest.mark.parametrize(
    ("codes", "tracks", "verdict"),
    [
        ((), SOME, "It streams: nothing holds it back."),
        (("buffered",), SOME, "It does not arrive as it is made."),
        (("broken-end",), SOME, "It arrives, and does not end as it should."),
        (("cut", "broken-end"), SOME, "It arrives, and does not end as it should."),
        (("broken-end",), (Track("HTTP/1.1", (), 0.0, 0.1),), "It breaks off."),
        (("broken-end", "layer-buffers"), SOME, "It does not arrive as it is made."),
        (("no-stream",), SOME, "It was not seen to stream; nobody is accused."),
        (("no-stream", "broken-end"), SOME, "It arrives, and does not end as it should."),
    ],
)
def test_the_last_line_is_what_it_comes_to(codes: tuple[str, ...], tracks: tuple[Track, ...], verdict: str):
    findings = tuple(Finding(code, Severity.FAULT, "so it is") for code in codes)
    assert as_text(Diagnosis("x", findings, tracks)).splitlines()[-1] == verdict


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31;1mFAULT\x1b[0m  buffered" in as_text(FOUND, Look.of(Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert Look.of(Terminal()) == Look(colour=False, blocks=True)
    monkeypatch.setenv("NO_COLOR", "")
    assert Look.of(Terminal()).colour
    monkeypatch.setenv("TERM", "dumb")
    assert not Look.of(Terminal()).colour


def test_no_control_character_of_the_other_side_reaches_the_terminal(tmp_path: Path):
    evil = "\x1b]0;title\x07\x9b2J"
    finding = Finding("late", Severity.FAULT, evil, (evil,), (Advice(evil, evil, (evil,)),), evil, evil)
    diagnosis = Diagnosis("x", (finding,), (Track(evil, remark=evil),), (evil,), facts={"Server": evil})
    said = as_text(diagnosis, Look(blocks=True)) + as_text(Diagnosis("x", refusal=evil))
    assert not set(said) & {"\x1b", "\x07", "\x9b"}
    assert json.loads(as_json(diagnosis))["facts"] == {"Server": evil}


def test_the_manual_has_every_code_that_is_found_at_an_address():
    listed = set(
        re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "doctor.md").read_text("utf-8"), re.MULTILINE)
    )
    at_an_address = {code for code in CODES if not code.startswith(("layer-", "producer-", "sync-"))}
    assert at_an_address <= listed
