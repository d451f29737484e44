"""What a browser's `EventSource` makes of our event streams, directly and through nginx.

Rule: what is waited for is asked for, of the page or of the server. Time is compared with what
the browser was told to wait, and with nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.launch import COMPLAINT, ROOT, START_BOUND, _end_with_parent, end, free_port, poll
from servers.launch import KINDS as SERVERS
from servers.proxies import documented, front
from servers.wire import BadFraming, fetch

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = [pytest.mark.server, pytest.mark.system]

BOUND = 30.0  # seconds that a test waits for what it expects
RETRY = 300  # milliseconds that `events_app` tells the browser to wait
UNTOLD = 3000  # milliseconds that Chromium waits if it is told nothing
CLOSED = 2  # an EventSource's readyState that will not come back
AT_ONCE = 10.0  # seconds; far less than the heartbeat that could tell the same
CUT_NOT_502 = "error_page 502 504 = @cut; location @cut { return 444; }\n"

_numbers = itertools.count()


class Mortal:
    """A server that can be killed, and started again on its port."""

    def __init__(self, name: str, directory: Path) -> None:
        self.kind, self.port = SERVERS[name], free_port()
        self.log, self.ledgers = directory / "log", directory
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            part.replace("tests.servers.apps:", "tests.browser.events_app:")
            for part in self.kind.command(self.port, 8)
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "STREAMKIT_LEDGERS": str(self.ledgers)}
        with self.log.open("ab") as file:
            self.child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        poll(self._answers, bound=START_BOUND, what=f"an answer of {command[:4]}, which writes to {self.log}")

    def _answers(self) -> bool:
        assert self.child is not None
        assert self.child.poll() is None, self.log.read_text()[-4000:]
        try:
            fetch(self.port, "/plain")
        except (OSError, BadFraming):  # it is coming up
            return False
        return True

    def kill(self) -> None:
        """No word to anybody, as a crash or the kernel's out-of-memory killer does it."""
        assert self.child is not None
        # Its own session: this reaches its workers, and nobody else.
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(BOUND)
        self.child = None

    def notes(self, key: str) -> list[str]:
        """What has happened there under this key."""
        found: list[str] = json.loads(fetch(self.port, f"/notes?key={key}").body)
        return found


@dataclass(frozen=True)
class Source:
    """One EventSource of a page."""

    browser: WebDriver
    number: int

    def log(self, *types: str) -> list[dict[str, Any]]:
        """What it has dispatched, of these types or all."""
        log: list[dict[str, Any]]
        log = self.browser.execute_script("return heard[arguments[0]].log", self.number)
        return [event for event in log if event["type"] in types or not types]

    def state(self) -> object:
        return self.browser.execute_script("return heard[arguments[0]].source.readyState", self.number)

    def wait_for(self, count: int, *types: str) -> None:
        poll(lambda: len(self.log(*types)) >= count, bound=BOUND, what=f"{count} of {types}")


@dataclass(frozen=True)
class Site:
    """A server, and the address at which the browser finds it."""

    server: Mortal
    browser: WebDriver
    port: int
    key: str

    def open(self) -> None:
        self.browser.get(f"http://127.0.0.1:{self.port}/page?key={self.key}")

    def listen(self, query: str) -> Source:
        """A new EventSource in the page that is open."""
        self.browser.execute_script("listen(arguments[0])", query)
        return Source(self.browser, self.browser.execute_script("return heard.length - 1"))

    def notes(self) -> list[str]:
        return self.server.notes(self.key)

    def wait_for_note(self, note: str, bound: float = BOUND) -> None:
        poll(lambda: note in self.notes(), bound=bound, what=f"{note!r} among the notes")


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn-httptools"])
def mortal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    server = Mortal(request.param, tmp_path_factory.mktemp(request.param))
    yield server
    if server.child is not None:
        end(server.child)


@pytest.fixture
def server(mortal: Mortal) -> Iterator[Mortal]:
    """It is up, whatever the test before has done to it, and has complained of nothing at the end."""
    if mortal.child is None:
        mortal.start()
    before = mortal.log.stat().st_size
    yield mortal
    said = mortal.log.read_bytes()[before:].decode("utf-8", "replace")
    assert not COMPLAINT.search(said), said


@pytest.fixture
def nginx(system_program: Callable[..., str], tmp_path: Path) -> Callable[..., Any]:
    """`nginx(server, "more lines")`: as docs/proxies.md sets it, in front of that server."""

    def before(server: Mortal, more: str = "") -> Any:
        lines = more + documented("nginx")
        return front("nginx", system_program("nginx"), server, tmp_path, lines=lines)  # type: ignore[arg-type]

    return before


@pytest.fixture
def page(browser: WebDriver) -> Iterator[WebDriver]:
    """The browser, whose page is left at the end, so that it stops listening."""
    yield browser
    browser.get("about:blank")


def new_key() -> str:
    return f"k{next(_numbers)}"


@pytest.fixture(params=["directly", "nginx"])
def site(
    request: pytest.FixtureRequest, server: Mortal, page: WebDriver, nginx: Callable[..., Any]
) -> Iterator[Site]:
    """Each server, by each way, with the page open."""
    if request.param == "directly":
        site = Site(server, page, server.port, new_key())
        site.open()
        yield site
        return
    with nginx(server, CUT_NOT_502) as port:
        site = Site(server, page, port, new_key())
        site.open()
        yield site


def told(source: Source) -> list[tuple[str, str, str]]:
    """What the page was told, without the source's own `open` and `error`."""
    return [(e["type"], e["data"], e["lastEventId"]) for e in source.log("message", "weather")]


def test_each_event_arrives_before_the_next_is_made(site: Site) -> None:
    source = site.listen("script=steps")
    source.wait_for(5, "message")
    site.wait_for_note("seen 5")
    in_turn = [f"{what} {n}" for n in range(1, 6) for what in ("sends", "seen")]
    assert [note for note in site.notes() if note[-1].isdigit()] == in_turn
    assert told(source) == [("message", f'{{"number":{n}}}', f"{n}") for n in range(1, 6)]
    assert [event["type"] for event in source.log()] == ["open"] + ["message"] * 5


def test_names_lines_and_ids_reach_the_page_as_they_were_sent(site: Site) -> None:
    source = site.listen("script=kinds")
    source.wait_for(8, "message", "weather")
    assert told(source) == [
        ("message", "plain", ""),
        ("weather", "named", ""),
        ("message", "three\nlines\n of text", "first"),
        ("message", "carriage\nreturns\ntoo", "first"),  # an id is in force until the next
        ("weather", "", "7"),
        ("message", '{"text":"Grüße, 世界 🌍","none":null}', "7"),
        ("message", " a space before", ""),
        ("weather", "last", "unseen"),  # an event without data is not dispatched, but its id counts
    ]


def test_open_fires_before_the_first_event_of_a_slow_producer(site: Site) -> None:
    source = site.listen("script=slow")
    source.wait_for(1, "message")
    assert [event["type"] for event in source.log()] == ["open", "message"]
    # The producer has made its event because the page had said so.
    assert site.notes()[:3] == ["asked for, after None", "seen open", "sends None"]


@contextmanager
def growing(ledger: Path) -> Iterator[None]:
    """Someone writes a line each 20 ms, whether or not a server runs."""
    enough = threading.Event()

    def write() -> None:
        with ledger.open("a", buffering=1) as file:
            while not enough.wait(0.02):
                file.write("a line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        enough.set()
        writer.join()


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_and_started_again(site: Site) -> None:
    ledger = site.server.ledgers / site.key
    ledger.touch()
    source = site.listen("script=ledger")
    source.wait_for(1, "joined")
    with growing(ledger):
        source.wait_for(10, "message")
        site.server.kill()
        source.wait_for(3, "error")
        site.server.start()
        source.wait_for(2, "joined")
        source.wait_for(len(source.log("message")) + 10, "message")
    length = ledger.read_text().count("\n")
    source.wait_for(length, "message")
    assert [event["lastEventId"] for event in source.log("message")] == [f"{n + 1}" for n in range(length)]
    types = [event["type"] for event in source.log()]
    again = types.index("open", 1)
    assert "message" in types[again : types.index("joined", again)], "nothing was missed, nothing replayed"


def test_the_browser_comes_back_when_retry_has_passed(site: Site) -> None:
    source = site.listen("script=silent")
    source.wait_for(1, "message")
    site.server.kill()
    source.wait_for(4, "error")
    moments = [event["at"] for event in source.log("error")]
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert 0.9 * RETRY < min(waits) < 0.5 * UNTOLD


def test_a_stream_that_is_done_is_answered_204_and_never_asked_for_again(site: Site) -> None:
    source = site.listen("script=done")
    poll(lambda: source.state() == CLOSED, bound=BOUND, what="the end of the source")
    assert told(source) == [("message", "the last one", "1")]
    asked = [note for note in site.notes() if note.startswith("asked for")]
    assert asked == ["asked for, after None", "asked for, after streamkit.done"]
    site.wait_for_note("finished")


@pytest.mark.slow
def test_heartbeats_keep_a_silent_stream_open_over_the_patience_of_nginx(
    server: Mortal, page: WebDriver, nginx: Callable[..., Any]
) -> None:
    with nginx(server, "proxy_read_timeout 3s;\n") as port:
        site = Site(server, page, port, new_key())
        site.open()
        kept = site.listen("script=silent&heartbeat=1")
        cut = site.listen("script=silent&heartbeat=none")
        # Without heartbeats nginx cuts it each 3 s; at the fourth time, some 10 s have passed.
        cut.wait_for(4, "open")
        assert [event["type"] for event in kept.log()] == ["open", "message"]
        assert len(cut.log("error")) >= 3


def test_a_closed_tab_is_noticed_at_once_under_asgi_and_within_the_heartbeat_under_wsgi(site: Site) -> None:
    is_wsgi = site.server.kind.interface == "wsgi"
    heartbeat = AT_ONCE if is_wsgi else 6 * AT_ONCE
    first = site.browser.current_window_handle
    site.browser.switch_to.new_window("tab")
    try:
        site.open()
        site.listen(f"script=silent&heartbeat={heartbeat}").wait_for(1, "message")
        assert "disconnected" not in site.notes()
    finally:
        site.browser.close()
        site.browser.switch_to.window(first)
    site.wait_for_note("disconnected", AT_ONCE)


def test_a_502_from_nginx_closes_a_source(
    server: Mortal, page: WebDriver, nginx: Callable[..., Any]
) -> None:
    with nginx(server) as port:
        site = Site(server, page, port, new_key())
        site.open()
        source = site.listen("script=silent")
        source.wait_for(1, "message")
        server.kill()
        poll(lambda: source.state() == CLOSED, bound=BOUND, what="the end of the source")
