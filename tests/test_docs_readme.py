"""The README: its blocks run, with what it leaves to the reader, and its links lead somewhere."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from servers.launch import ROOT, running
from servers.wire import Ending, fetch

import streamkit
from streamkit.testing import Client

PAGE = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def block(text: str) -> str:
    (found,) = (block for block in BLOCKS if text in block)
    return found


def run(text: str, **names: Any) -> dict[str, Any]:
    """What the block with this text defines, given what is the reader's own."""
    given = {"__name__": "readme", **names}
    exec(compile(block(text), "README.md", "exec"), given)
    return given


def test_the_first_example_streams() -> None:
    pytest.importorskip("flask")
    with Client(run("Flask(__name__)")["app"]) as client, client.get("/ticks") as answer:
        assert answer.next_chunk() == b"tick 0\n"
        assert not answer.ended


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_async_producer_streams(kind: Any) -> None:
    names = run("await stream.write", asyncio=asyncio)
    with Client(streamkit.stream(names["producer"]), kind=kind) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"tick 0\n"
        assert not answer.ended


@pytest.mark.server
def test_half_a_file_is_cut_as_the_command_shows(tmp_path: Path) -> None:
    pytest.importorskip("waitress")
    (tmp_path / "half.py").write_text(block("the database went away"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from waitress.runner import run; run()"

    def command(port: int) -> list[str]:
        return [sys.executable, "-c", code, f"--listen=127.0.0.1:{port}", "half:app"]

    with running(command, tmp_path / "log") as (port, _):
        reply = fetch(port, "/")
    assert (reply.body, reply.ending) == (b"id,name\n1,Ada\n", Ending.TRUNCATED)


def test_the_hooks_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    producer = run("stream.on_error")["producer"]
    with Client(streamkit.stream(producer), kind="wsgi") as client:
        assert client.get("/").read() == b""
    assert capsys.readouterr().out == "finished 0\n"


def test_a_layer_is_told_of_the_response() -> None:
    counted: list[Any] = []
    names = run("def counted(app)", count=lambda *told: counted.append(told))
    app = streamkit.wrap(names["counted"](lambda environ, start: streamkit.stream(["a"])(environ, start)))
    with Client(app) as client:
        assert client.get("/").read() == b"a"
    assert counted == [("finished", 1)]


def test_the_events_have_their_numbers() -> None:
    view = run("watch(after", streamkit=streamkit, watch=lambda after: [(7, 1.5)])["view"]
    with Client(view(), kind="wsgi") as client:
        assert client.get("/").read() == b'retry: 3000\nid: 7\ndata: {"price":1.5}\n\n'


def test_the_page_has_its_context() -> None:
    flask = pytest.importorskip("flask")
    jinja2 = pytest.importorskip("jinja2")
    app = flask.Flask("readme")
    app.jinja_loader = jinja2.DictLoader(
        {"layout.html": "{{ artist }}:{% content %}", "albums.html": "{{ greeting }} {{ albums }}"}
    )
    app.context_processor(lambda: {"greeting": "hello"})
    run("kit.templates", app=app, load=lambda: {"albums": 2})
    with Client(app) as client:
        assert client.get("/albums/Joni").read() == b"Joni:hello 2"


def test_the_live_view_is_a_file_of_rows() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("readme")
    run("@live", app=app, rows=lambda: ["1\n", "2\n"])
    with Client(app) as client:
        answer = client.get("/report")
        assert (answer.read(), answer.headers["Content-Type"]) == (b"1\n2\n", "text/csv")


def test_each_download_can_be_described(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "film.mp4").write_bytes(b"film")
    code = block("streamkit.csv_rows").replace("/srv/", f"{tmp_path}/")
    calls = [line.split("  #")[0] for line in code.splitlines()]
    names = {"streamkit": streamkit, "query": [[1, "Ada"]], "events": [{"n": 1}], "producer": [b"any"]}
    assert len(calls) == 5
    for call in calls:
        with Client(eval(call, dict(names)), kind="wsgi") as client:
            assert client.get("/").read()


def test_the_example_of_a_test_passes() -> None:
    run("streamkit.testing", app=streamkit.wrap(streamkit.event_stream(["first"]), kind="wsgi"))


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 10


def test_every_link_leads_to_a_file_and_every_page_is_linked() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)\)", PAGE))
    assert all((ROOT / link).exists() for link in linked)
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
