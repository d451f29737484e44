"""SIGTERM with 200 open streams: each has its end in time, and then the process is gone.

Rule: a server is asked once, by `asked`; the tests look at what came of it. What the server itself
needs for its end is measured on a second one without streams and allowed for. Every client closes
its connection when its body has ended: how long kept connections linger is the server's affair.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .every import processes_of
from .launch import poll, running
from .wire import BadFraming, Connection, Ending

pytestmark = pytest.mark.server

MODULE = "tests.servers.sigterm_app"
GRACE = 2.0  # seconds
SLACK = 3.0  # seconds that a busy machine may be late
LAST_MOMENT = 0.5  # seconds of the grace that are kept for the last words
BOUND = GRACE + 1 + SLACK
PATIENCE = 20.0  # seconds without a byte
THREADS = 210  # the streams, and a few for ordinary requests
AT_ONCE = 4  # servers asked side by side; most of the time each of them waits
OPEN = {"events": 160, "text": 20, "flood": 1, "ten": 19}
SMALL = {"receive_buffer": 64 * 1024}  # of who takes nothing
TEN = b"".join(b"%d\n" % number for number in range(10))
WHOLE = {(TEN, Ending.COMPLETE)}
# After a heartbeat no blank line follows: it could end an event.
FAREWELL = re.compile(rb"data: 0\n\n(?P<beats>:\n)*retry: (?P<wait>\d+)\n(?(beats)|\n)")


@dataclass(frozen=True)
class Kind:
    """A server whose apps hear of a signal, and how it is started."""

    name: str
    command: str

    @property
    def workers(self) -> int:
        return 2 if self.name.endswith("2 workers") else 1

    def on(self, port: int) -> list[str]:
        return [sys.executable, "-m", *self.command.format(port=port).split()]


WSGI, ASGI = f"{MODULE}:wsgi_app", f"{MODULE}:asgi_app"
GUNICORN = "gunicorn --bind=127.0.0.1:{port} --no-control-socket --worker-tmp-dir=/tmp"
GTHREAD = f"{GUNICORN} --worker-class=gthread --threads={THREADS} {WSGI}"
UVICORN = f"uvicorn --host=127.0.0.1 --port={{port}} {ASGI}"
HYPERCORN = f"hypercorn --bind=127.0.0.1:{{port}} --error-logfile=- {ASGI}"
GRANIAN = f"granian --interface=asgi --host=127.0.0.1 --port={{port}} {ASGI}"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("gunicorn gthread", GTHREAD),
        Kind("gunicorn gthread, 2 workers", f"{GTHREAD} --workers=2"),
        Kind("gunicorn gthread, preloaded", f"{GTHREAD} --preload --graceful-timeout=3"),
        Kind("gunicorn gevent", f"{GUNICORN} --worker-class=gevent {WSGI}"),
        Kind("gunicorn asgi", f"{GUNICORN} --worker-class=asgi {ASGI}"),
        Kind("gunicorn asgi, 2 workers", f"{GUNICORN} --worker-class=asgi {ASGI} --workers=2"),
        Kind("uvicorn h11", f"{UVICORN} --http=h11 --loop=asyncio"),
        Kind("uvicorn httptools", f"{UVICORN} --http=httptools --loop=uvloop"),
        Kind("uvicorn, 2 workers", f"{UVICORN} --workers=2"),
        Kind("hypercorn asgi", f"{HYPERCORN} --workers=0"),
        Kind("hypercorn asgi, 2 workers", f"{HYPERCORN} --workers=2"),
        Kind("granian asgi", f"{GRANIAN} --workers=1"),
        Kind("granian asgi, 2 workers", f"{GRANIAN} --workers=2"),
    )
}

# What does not hold, with its cause.
UNTOLD = {
    "gunicorn gthread, preloaded": "The app is wrapped before its worker has handlers, and the worker resets "
    "what stands. Have gunicorn's post_worker_init call streamkit.engines.registry.signals.hook_in().",
    "hypercorn asgi, 2 workers": "Its workers are told by an event of hypercorn's own, without a signal, and "
    "send lifespan.shutdown only after --graceful-timeout (3 s), when the streams are cut. Use several "
    "processes with --workers 0.",
}
WAITS = "It waits without end for a client that takes nothing. Set --workers-kill-timeout."
HELD_UP = dict.fromkeys(("granian asgi", "granian asgi, 2 workers"), WAITS)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    kind: Kind
    port: int
    child: subprocess.Popen[bytes]
    log: Path
    journal: Path

    def lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self.journal.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def pids(self, what: str) -> set[int]:
        return {line["pid"] for line in self.lines() if line["what"] == what}

    def ask(self, path: str, **options: Any) -> Connection:
        connection = Connection(self.port, patience=PATIENCE, **options)
        connection.ask("GET", path)
        return connection

    def answering(self) -> set[int]:
        """Workers that answer; one that is up need not listen yet."""
        with ExitStack() as stack:
            connections = [stack.enter_context(self.ask("/pid")) for _ in range(8 * self.kind.workers)]
            return {int(connection.reply().body) for connection in connections}

    def handlers(self) -> Any:
        """The modules of the signal handlers that stand."""
        with self.ask("/signals") as connection:
            return json.loads(connection.reply().body)


@contextmanager
def started(kind: Kind, directory: Path, **options: Any) -> Iterator[Running]:
    """A server of this kind, with all its workers up."""
    stem = directory / f"{kind.name.replace(' ', '-')}-{time.monotonic_ns()}"
    journal, log = stem.with_suffix(".journal"), stem.with_suffix(".log")
    journal.touch()
    environment = ["env", f"STREAMKIT_JOURNAL={journal}", f"STREAMKIT_OPTIONS={json.dumps(options)}"]
    with running(lambda port: [*environment, *kind.on(port)], log) as (port, child):
        server = Running(kind, port, child, log, journal)
        up = "running" if "asgi_app" in kind.command else "imported"  # uvloop forgets earlier signals
        poll(lambda: len(server.pids(up)) >= kind.workers, bound=PATIENCE, what="the workers")
        answered: set[int] = set()

        def all_answer() -> bool:
            answered.update(server.answering())
            return len(answered) >= kind.workers

        poll(all_answer, bound=PATIENCE, what="an answer of each worker")
        yield server


@dataclass
class End:
    """How one client's stream ended."""

    body: bytes = b""
    ending: Ending | None = None
    at: float = 0.0  # seconds after the signal


@dataclass
class Report:
    """What came of one server."""

    idle: float  # seconds from SIGTERM to the end of a server without streams
    left_alone: dict[str, str]  # the modules of the signal handlers, with signals=False
    handlers: dict[str, str] = field(default_factory=dict)  # and without
    signalled: float = 0.0
    gone: float = 0.0  # seconds from SIGTERM to the end of the process
    is_held_up: bool = False  # it was gone only when the client had left that took nothing
    ends: dict[str, End] = field(default_factory=dict)  # by key
    lines: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""

    def of(self, name: str) -> dict[str, End]:
        return {key: end for key, end in self.ends.items() if key.startswith(name)}


class Clients:
    """Many open streams, each with a first chunk that has arrived."""

    def __init__(self, server: Running, stack: ExitStack) -> None:
        self.server, self.stack = server, stack
        self.open: dict[str, Connection] = {}
        self.begun: dict[str, bytes] = {}  # what came up to the first chunk, and with it

    def begin(self, name: str, number: int) -> None:
        begun = {}
        options = SMALL if name == "flood" else {}
        for key in (f"{name}-{index}" for index in range(number)):
            begun[key] = self.stack.enter_context(self.server.ask(f"/{name}?key={key}", **options))
        for key, connection in begun.items():
            if name != "flood":  # its client takes nothing
                connection.head()
                self.begun[key] = connection.read_until(b"0\n")
        self.open |= begun

    def end_of(self, key: str, signalled: float) -> End:
        """Read to the end, and close."""
        connection, end = self.open.pop(key), End(self.begun.get(key, b""))
        try:
            if key.startswith("flood"):
                connection.head()
            for chunk in connection.chunks():
                end.body += chunk.payload
            end.ending = connection.ending
        except (OSError, BadFraming) as fault:
            end.body += repr(fault).encode()
        end.at = time.monotonic() - signalled
        connection.close()
        return end

    def ends_of(self, names: tuple[str, ...], signalled: float) -> dict[str, End]:
        keys = [key for name in names for key in self.open if key.startswith(name)]
        return {key: self.end_of(key, signalled) for key in keys}


def asked(kind: Kind, directory: Path) -> Report:
    """The end of one server with streams, and of one without."""
    with started(kind, directory, grace=GRACE, signals=False) as server:
        left_alone, began = server.handlers(), time.monotonic()
        server.child.send_signal(signal.SIGTERM)
        server.child.wait(PATIENCE)
        report = Report(time.monotonic() - began, left_alone)
    with started(kind, directory, grace=GRACE) as server, ExitStack() as stack:
        report.handlers = server.handlers()
        clients = Clients(server, stack)
        for name, number in OPEN.items():  # those with an end of their own come last
            clients.begin(name, 0 if name == "flood" and kind.name in HELD_UP else number)
        assert len(server.pids("started")) == kind.workers
        _signalled(report, server, clients)
        report.lines, report.log = server.lines(), server.log.read_text("utf-8", "replace")
    return report


def _signalled(report: Report, server: Running, clients: Clients) -> None:
    ended: list[float] = []
    waiting = threading.Thread(target=lambda: ended.append((server.child.wait(), time.monotonic())[1]))
    report.signalled = time.monotonic()
    server.child.send_signal(signal.SIGTERM)
    waiting.start()
    report.ends = clients.ends_of(("events", "ten", "text"), report.signalled)
    waiting.join(max(0.0, report.signalled + BOUND + report.idle - time.monotonic()))
    report.is_held_up = waiting.is_alive()
    report.ends |= clients.ends_of(("flood",), report.signalled)
    # Python's resource tracker outlives its parent by a moment.
    poll(lambda: not processes_of(server.child.pid), bound=PATIENCE, what="the end of all its processes")
    waiting.join(PATIENCE)
    report.gone = ended[0] - report.signalled


@pytest.fixture(scope="module")
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Report]]]:
    """Every server that a test of this session wants, being asked."""
    own: list[Any] = [item for item in request.session.items if item.path == request.path]
    wanted = {item.callspec.params.get("name"): None for item in own if hasattr(item, "callspec")}
    directory = tmp_path_factory.mktemp("sigterm")
    with ThreadPoolExecutor(AT_ONCE) as clients:
        yield {name: clients.submit(asked, KINDS[name], directory) for name in wanted if name}


@pytest.fixture
def report(reports: dict[str, Future[Report]], name: str) -> Report:
    return reports[name].result()


every = pytest.mark.parametrize("name", KINDS)
telling = pytest.mark.parametrize("name", [name for name in KINDS if name not in UNTOLD])


@every
def test_every_client_has_its_end_within_the_grace(report: Report) -> None:
    assert max(end.at for key, end in report.ends.items() if not key.startswith("flood")) < BOUND


@every
def test_the_process_is_gone_within_the_grace_and_all_its_workers_with_it(report: Report) -> None:
    assert report.gone < BOUND + report.idle
    assert not re.search("never retrieved|never awaited|Task was destroyed", report.log), report.log[-4000:]


def farewells(ends: dict[str, End]) -> set[int]:
    """The milliseconds after which these event streams, cleanly ended, are to be asked for again."""
    events = [end for key, end in ends.items() if key.startswith("events")]
    assert {end.ending for end in events} == {Ending.COMPLETE}, events
    waits = [int(found["wait"]) for end in events if (found := FAREWELL.fullmatch(end.body))]
    assert len(waits) == len(events), events
    return set(waits)


@telling
def test_each_event_stream_gets_its_farewell_and_a_clean_end(report: Report) -> None:
    waits = farewells(report.ends)
    assert 1600 <= min(waits) < max(waits) <= 2400, "not all come back at once"


@telling
def test_what_has_an_end_of_its_own_comes_to_it(report: Report) -> None:
    stopped = {line["key"]: line["at"] for line in report.lines if line["what"] == "stopped"}
    for key, end in report.of("ten").items():
        is_late = stopped[key] > report.signalled + GRACE - LAST_MOMENT  # the producer, on a busy machine
        assert is_late or (end.body, end.ending) in WHOLE, (key, end)


@telling
def test_text_without_an_end_is_cut(report: Report) -> None:
    for key, end in report.of("text").items():
        assert end.ending is Ending.TRUNCATED, (key, end)
        assert end.body.startswith(b"0\n1\n"), "it went on during the grace"


@telling
def test_a_client_that_takes_nothing_holds_nothing_up(report: Report, name: str, tmp_path: Path) -> None:
    if name in HELD_UP:
        holds_up(KINDS[name], tmp_path)
        return
    assert not report.is_held_up
    assert report.ends["flood-0"].ending is Ending.TRUNCATED


def holds_up(kind: Kind, directory: Path) -> None:
    counts: list[int] = []
    with started(kind, directory, grace=1.0) as server, server.ask("/flood?key=a", **SMALL) as flood:

        def stands_still() -> bool:
            counts.append(sum(line["what"] == "wrote" for line in server.lines()))
            return counts[-1] > 0 and counts[-20:] == counts[-1:] * 20

        poll(stands_still, bound=PATIENCE, what="an end of what the server takes")
        server.child.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):  # else take it off the list
            server.child.wait(3.0)
        flood.reset()
        server.child.wait(PATIENCE)


@telling
def test_the_hooks_of_each_stream_run_once(report: Report) -> None:
    for key in report.ends:
        lines = [line for line in report.lines if line["key"] == key]
        told = Counter(line["what"] for line in lines)
        errors = told.pop("error", 0)
        assert told == {"started": 1, "stopped": 1, "finish": 1, "callback": 1}, (key, told)
        outcome = next(line["detail"] for line in lines if line["what"] == "finish")
        assert outcome == "shut_down" or (outcome == "finished" and key.startswith("ten")), key
        assert errors == (outcome == "shut_down" and not key.startswith("events")), key


@telling
def test_signals_false_leaves_the_servers_handlers_alone(report: Report) -> None:
    assert report.handlers == dict.fromkeys(("SIGTERM", "SIGINT"), "streamkit.engines.registry")
    assert report.left_alone.keys() == report.handlers.keys()
    assert not any(module.startswith("streamkit") for module in report.left_alone.values())


def test_a_preloaded_app_is_told_once_a_hook_of_gunicorns_has_said_so(tmp_path: Path) -> None:
    code = "from streamkit.engines.registry import signals\ndef post_worker_init(_): signals.hook_in()\n"
    (tmp_path / "hooks.py").write_text(code)
    kind = Kind("preloaded", f"{GTHREAD} --preload --config={tmp_path}/hooks.py")
    with started(kind, tmp_path, grace=60.0) as server, ExitStack() as stack:
        clients = Clients(server, stack)
        clients.begin("events", 5)
        server.child.send_signal(signal.SIGTERM)
        ends = clients.ends_of(("events",), time.monotonic())
        server.child.wait(PATIENCE)
    assert farewells(ends)


@pytest.mark.parametrize("name", UNTOLD)
def test_who_is_not_told_is_listed_with_its_cause(report: Report) -> None:
    assert "shut_down" not in {line["detail"] for line in report.lines}, "it holds; take it off the list"
    assert {end.ending for end in report.of("events").values()} == {Ending.TRUNCATED}


TWICE = ("gunicorn gthread, 2 workers", "gunicorn gevent", "gunicorn asgi", "uvicorn, 2 workers")


@pytest.mark.parametrize("again", [*TWICE, "hypercorn asgi", "granian asgi, 2 workers"])
def test_a_second_sigterm_during_the_grace_does_no_harm(again: str, tmp_path: Path) -> None:
    with started(KINDS[again], tmp_path, grace=10.0) as server, ExitStack() as stack:
        # To all its processes, as systemd sends it. A worker of granian's hangs on its second SIGTERM, also
        # where it serves a bare app; its main process has each worker get one.
        send = os.kill if again.startswith("granian") else os.killpg
        clients = Clients(server, stack)
        for name in ("events", "ten"):
            clients.begin(name, 5)
        send(server.child.pid, signal.SIGTERM)
        ends = clients.ends_of(("events",), time.monotonic())
        send(server.child.pid, signal.SIGTERM)
        ends |= clients.ends_of(("ten",), time.monotonic())
        server.child.wait(PATIENCE)
        outcomes = Counter(line["detail"] for line in server.lines() if line["what"] == "finish")
    assert outcomes == {"shut_down": 5, "finished": 5}
    assert farewells(ends)
    assert {(end.body, end.ending) for key, end in ends.items() if key.startswith("ten")} == WHOLE


# All of them finish a request that is under way.
WAITING = [name for name in KINDS if name not in UNTOLD and "2 workers" not in name]


@pytest.mark.parametrize("waiting", WAITING)
def test_a_stream_that_opens_after_the_signal_is_ended_too(waiting: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with (
        started(KINDS[waiting], tmp_path, grace=1.0) as server,
        server.ask("/events?key=f") as first,
        server.ask(f"/events?key=e&after={go}") as late,
    ):
        first.head()
        first.read_until(b"0\n")
        poll(lambda: server.pids("waits"), bound=PATIENCE, what="the request")
        server.child.send_signal(signal.SIGTERM)
        assert list(first.chunks()), "the farewell: the signal has been heard"
        go.touch()
        late.head()
        body = b"".join(chunk.payload for chunk in late.chunks())
        assert (late.ending, bool(FAREWELL.fullmatch(body))) == (Ending.COMPLETE, True), body
        late.close()
        server.child.wait(PATIENCE)
        finished = [line["detail"] for line in server.lines() if line["what"] == "finish"]
        assert finished == ["shut_down"] * 2


@pytest.mark.parametrize("interrupted", ["uvicorn h11", "uvicorn httptools", "uvicorn, 2 workers"])
def test_ctrl_c_ends_uvicorn_at_once(interrupted: str, tmp_path: Path) -> None:
    with started(KINDS[interrupted], tmp_path, grace=60.0) as server, ExitStack() as stack:
        clients = Clients(server, stack)
        clients.begin("events", 20)
        os.killpg(server.child.pid, signal.SIGINT)  # to all in the foreground, as a terminal sends it
        ends = clients.ends_of(("events",), time.monotonic())
        server.child.wait(PATIENCE)  # far less than the grace
    assert farewells(ends)
