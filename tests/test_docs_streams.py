"""The page on streams: its code runs, and what it says of ends, hooks and members holds."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENCE, until
from servers.launch import running
from servers.wire import Connection, Ending

import streamkit
from streamkit.testing import Client
from streamkit.testing import Connection as Answer

PAGE = (Path(__file__).parents[1] / "docs" / "streams.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
KINDS = ["wsgi", "asgi"]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the blocks of the page define, one after the other; the handler of a signal is not for here."""
    pytest.importorskip("flask")
    pytest.importorskip("httpx")
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        if "signal.signal" not in block:
            exec(compile(block, "docs/streams.md", "exec"), names)
    return names


def body_of(answer: Answer) -> bytes:
    """The body, up to its end or to the producer's error."""
    body = b""
    try:
        while chunk := answer.next_chunk():
            body += chunk
    except RuntimeError:
        pass
    return body


def rows(section: str) -> list[str]:
    """The first cells of the table under this heading."""
    text = re.split(rf"^##+ {section}\n", PAGE, flags=re.MULTILINE)[1].split("\n#")[0]
    return re.findall(r"^\| (?!---)(.*?) \|", text, re.MULTILINE)[1:]


def names_in(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([a-z_0-9]+)[`(]", cell)}


def test_every_argument_of_stream_is_on_the_page() -> None:
    code = streamkit.StreamingResponse.__init__.__code__
    taken = set(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    assert names_in(rows("Describing a response")) == taken


@pytest.mark.parametrize("face", [streamkit.ResponseStream, streamkit.AsyncResponseStream])
def test_every_member_of_a_stream_is_on_the_page(face: type) -> None:
    told = set(re.findall(r"`(?:stream\.|\.)?([a-z_0-9]+)[`(=]", PAGE))
    members = {name for name in dir(face) if not name.startswith("_")}
    inner = {"foreign", "imperative", "read1", "readinto", "readline", "readlines"}
    assert members - inner <= told


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_example_is_a_whole_body(page: dict[str, Any], kind: Any) -> None:
    with Client(page["described"], kind=kind) as client:
        answer = client.get("/")
        assert answer.read() == b"row 0\nrow 1\nrow 2\n"
        assert answer.headers["X-Made-By"] == "report"
    with Client(streamkit.stream(page["report_async"]), kind=kind) as client:
        assert client.get("/").read() == b"row 0\nrow 1\nrow 2\n"


def test_hooks_are_told_of_the_failure(page: dict[str, Any]) -> None:
    with Client(page["app_that_fails"]) as client, client.get("/") as answer:
        assert (body_of(answer), answer.complete) == (b"one\nsorry\n", False)
    assert page["ended"] == [("failed", 10)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_is_a_file(page: dict[str, Any], kind: Any) -> None:
    with Client(streamkit.stream(page["archive"]), kind=kind) as client:
        with zipfile.ZipFile(io.BytesIO(client.get("/").read())) as archive:
            assert archive.read("note.txt") == b"text"
    for producer in (page["table"], page["export"]):
        with Client(streamkit.stream(producer), kind=kind) as client:
            assert client.get("/").read() == b"0,0\r\n1,1\r\n2,4\r\n"


def test_html_goes_to_the_page_that_the_option_names(page: dict[str, Any]) -> None:
    for app, address in ((page["app_with_page"], b"/oops.html"), (page["app_with_page"].app, b"/500.html")):
        with Client(app, kind="wsgi") as client, client.get("/") as answer:
            assert address in body_of(answer)
            assert not answer.complete


@pytest.mark.parametrize("kind", KINDS)
def test_completions_are_those_of_the_table(kind: Any) -> None:
    record = b'{"error": "the stream failed before its end"}'

    def half(stream: Any) -> None:
        stream.write("half\n")
        raise RuntimeError

    expected = {
        "text/event-stream": (b"half\nevent: error\ndata: " + record + b"\n\n", True),
        "application/x-ndjson": (b"half\n" + record + b"\n", False),
        "application/ndjson": (b"half\n" + record + b"\n", False),
        "application/jsonl": (b"half\n" + record + b"\n", False),
        "application/json-seq": (b"half\n\x1e" + record + b"\n", False),
        "text/csv": (b"half\n", False),
    }
    for content_type, (wanted, is_whole) in expected.items():
        described = streamkit.stream(half, content_type=content_type)
        with Client(described, kind=kind) as client, client.get("/") as answer:
            assert (body_of(answer), answer.complete) == (wanted, is_whole), content_type


@pytest.mark.parametrize("kind", KINDS)
def test_a_leave_comes_out_of_the_write(page: dict[str, Any], kind: Any) -> None:
    left = threading.Event()

    class Sensor:
        closed = False

        def __iter__(self) -> Any:
            yield "1"
            assert left.wait(PATIENCE)
            while True:
                yield "2"

        def close(self) -> None:
            self.closed = True

    sensor = Sensor()
    page["open_sensor"] = lambda: sensor
    told: list[Any] = []
    described = streamkit.stream(
        page["measurements"],
        on_error=lambda stream, error: told.append(type(error)),
        options={"on_finish": lambda stream: told.append(stream.outcome)},
    )
    with Client(described, kind=kind) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"1\n"
        answer.disconnect()
        left.set()
    assert until(lambda: len(told) == 2)
    assert told == [streamkit.ClientDisconnected, "disconnected"]
    assert until(lambda: sensor.closed)


@pytest.mark.parametrize("kind", KINDS)
def test_http_1_0_makes_a_late_error_one_before_the_head(kind: Any) -> None:
    told: list[Any] = []

    def half(stream: Any) -> None:
        stream.write("half")
        raise RuntimeError

    described = streamkit.stream(
        half,
        content_type="text/html",
        on_error=lambda stream, error: told.append(error),
        options={"on_finish": lambda stream: told.append(stream.outcome)},
    )
    with Client(described, kind=kind) as client:
        answer = client.get("/", http_version="1.0")
        with pytest.raises(RuntimeError):
            answer.wait_head()
    assert told == ["failed"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_before_the_commit_is_the_outcome_failed_and_reaches_no_error_hook(kind: Any) -> None:
    told: list[Any] = []

    def none(stream: Any) -> None:
        stream.on_error(lambda stream, error: told.append(error))
        stream.on_finish(lambda stream: told.append(stream.outcome))
        raise LookupError

    with Client(streamkit.stream(none, callback=lambda: told.append("over")), kind=kind) as client:
        with pytest.raises(LookupError):
            client.get("/").wait_head()
    assert told == ["over", "failed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_without_await_is_sent_and_flush_does_nothing(kind: Any) -> None:
    committed: list[bool] = []

    async def forgets(stream: Any) -> None:
        flushed = stream.flush()
        committed.append(stream.committed)
        stream.write(b"one ")
        stream.writeln("two")
        flushed.close()  # as the interpreter does, with a warning

    with Client(streamkit.stream(forgets), kind=kind) as client:
        assert client.get("/").read() == b"one two\n"
    assert committed == [False]


def test_a_write_to_the_stream_of_the_scope_does_nothing_without_await() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        written = stream.write(b"lost")
        await stream.write(b"kept")
        written.close()
        await stream.close()

    with Client(streamkit.wrap(app)) as client:
        assert client.get("/").read() == b"kept"


def test_there_is_no_shift_operator_on_an_async_stream() -> None:
    async def shifts(stream: Any) -> None:
        stream << "text"

    with Client(streamkit.stream(shifts), kind="asgi") as client, pytest.raises(TypeError):
        client.get("/").wait_head()


def test_whoever_posts_is_heard_by_all_who_listen_in_the_chat(page: dict[str, Any]) -> None:
    listening = page["listening"]
    with Client(page["chat"]) as client:
        ann, bob = client.get("/chat"), client.get("/chat")
        assert (ann.status, bob.status) == (200, 200)
        assert until(lambda: len(listening) == 2)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert client.open("POST", "/chat", headers=form, body=b"text=hello").status == 204
        for answer in (ann, bob):
            event = answer.next_event()
            assert event is not None
            assert event.data == "hello"
        ann.close()
        assert until(lambda: len(listening) == 1)
        assert client.open("POST", "/chat", headers=form, body=b"text=again").status == 204
        event = bob.next_event()
        assert event is not None
        assert event.data == "again"
        listening[0].close()
        assert bob.next_event() is None
    assert until(lambda: not listening)


def upstream_of(page: dict[str, Any], parts: Any, content_type: str) -> threading.Event:
    """Put a server with these parts in the place of the page's; gives what is set when it is left."""
    import httpx

    left = threading.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            async for part in parts():
                yield part

        async def aclose(self) -> None:
            left.set()

    head = {"Content-Type": content_type}
    transport = httpx.MockTransport(lambda request: httpx.Response(203, headers=head, stream=Body()))
    page["upstream"] = httpx.AsyncClient(base_url="http://127.0.0.1:9000", transport=transport)
    return left


def test_a_relay_passes_a_chunk_on_before_the_next_is_made_and_leaves_when_it_is_left(
    page: dict[str, Any],
) -> None:
    async def parts() -> Any:
        yield b"one"
        await asyncio.Event().wait()

    left = upstream_of(page, parts, "text/x-tokens")
    with Client(page["app_that_relays"]) as client, client.get("/") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (203, "text/x-tokens")
        assert answer.next_chunk() == b"one"
        assert not left.is_set()
        answer.close()
    assert left.is_set()


def test_a_relay_of_what_breaks_off_is_cut(page: dict[str, Any]) -> None:
    import httpx

    async def parts() -> Any:
        yield b"one"
        raise httpx.RemoteProtocolError("the upstream broke off")

    left = upstream_of(page, parts, "text/plain")
    with Client(page["app_that_relays"]) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"one"
        with pytest.raises(httpx.RemoteProtocolError):
            answer.next_chunk()
        assert not answer.complete
    assert left.is_set()


def test_a_loop_goes_on_until_the_stream_is_closed(page: dict[str, Any]) -> None:
    with Client(page["app_with_clock"]) as client:
        assert len(client.get("/").read().splitlines()) == 3


PROGRAM = """
import json
import sys
import streamkit

{lines}

def idle(stream):
    stream.on_finish(lambda stream: print(json.dumps(stream.outcome), flush=True))
    stream.send("begun")

def answer(environ, start_response):
    described = streamkit.event_stream(idle, keep_open=True)
    return (described if environ["PATH_INFO"] == "/" else streamkit.stream(["up"]))(environ, start_response)

app = streamkit.wrap(answer)
server, port = sys.argv[1], int(sys.argv[2])
if server == "waitress":
    import waitress
    waitress.serve(app, host="127.0.0.1", port=port)
elif server == "werkzeug":
    from werkzeug.serving import run_simple
    run_simple("127.0.0.1", port, app, threaded=True)
else:
    from cheroot.wsgi import Server
    server = Server(("127.0.0.1", port), app)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
"""


@pytest.mark.server
@pytest.mark.parametrize("server", ["waitress", "werkzeug", "cheroot"])
def test_the_lines_on_shutdown_end_an_idle_stream_in_order(server: str, tmp_path: Path) -> None:
    pytest.importorskip(server)
    (lines,) = (block for block in BLOCKS if "signal.signal" in block)
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(textwrap.dedent(PROGRAM).format(lines=lines))

    def command(port: int) -> list[str]:
        return [sys.executable, str(program), server, str(port)]

    with running(command, log) as (port, child), Connection(port) as connection:
        connection.ask("GET", "/")
        assert connection.head().status == 200
        chunks = connection.chunks()
        assert next(chunks).payload == b"data: begun\n\n"
        child.send_signal(signal.SIGTERM)
        said = b"".join(chunk.payload for chunk in chunks)
        assert said.startswith(b"retry: ")
        assert connection.ending is Ending.COMPLETE
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail("the server does not end")
    outcomes = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('"')]
    assert outcomes.count("shut_down") == 1
