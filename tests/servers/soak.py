"""Mixed streams, aborts, failures and restarts for half an hour, on real servers behind nginx.

    python -m tests.servers.soak --minutes 30 --server both --json figures.json

A server has several lives: gunicorn's worker is replaced by HUP, uvicorn is ended by SIGTERM and
started again, both under load and with event streams open. In each life the load pauses now and
then: at these quiet points threads and descriptors must be what they were at the first of them.

Rule: every answer is checked against what `soak_app` says that it must be, and nothing is forgiven but
a 502 while a server restarts and a 503 while a crowd is there; both are counted. Exit status 1: a fault.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .launch import KINDS as LAUNCHED
from .launch import ROOT, Server, _end_with_parent, end, free_port, poll
from .proxies import front
from .soak_app import GRACE, KINDS, MAX_STREAMS, SCRIPTS, Kind, complaints
from .wire import Connection, Ending, fetch

CLIENTS = 8  # at a time, for each server
PAUSE = (0.05, 0.3)  # seconds that a client rests between two visits, least and most
LATE = 2.0  # seconds after the grace in which all must be over; the machine has two cores
QUIET = 4.0  # seconds that a quiet point takes, about
STILL = 3.0  # seconds in which no level moves at one; idle pooled workers leave after about two
LEVELS = ("threads", "tasks", "descriptors")
LOOK_EVERY = 3.0  # seconds between two looks at the server under load
SPARE = 2  # threads, tasks and descriptors that may be more than at the first quiet point
MEGABYTE = 1024 * 1024


class TurnedAway(Exception):
    """A 502 or a 503."""


class Book:
    """What everybody notes, and until when a client may be turned away with a 502 or a 503."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.excused = {502: 0.0, 503: 0.0}
        self._lock = threading.Lock()

    def note(self, what: str, fault: str = "") -> None:
        with self._lock:
            self.notes[what] += 1
            if fault:
                self.faults.append(f"{time.strftime('%H:%M:%S')} {what}: {fault}"[:1000])


@dataclass
class Visitor:
    """A client, who asks through nginx."""

    port: int
    kind: Kind
    book: Book
    random: Random
    longest: float  # seconds that it listens at most
    began: float = 0.0

    def visit(self) -> None:
        play, script = self.random.choices(list(PLAYS), list(PLAYS.values()))[0]
        way, self.began = self.random.choice(self.kind.ways), time.monotonic()
        try:
            result, fault = play(self, way, script), ""
        except TurnedAway as away:
            result, fault = str(away), "" if self.book.excused[away.args[0]] > self.began else way
        except Exception as error:
            result, fault = "FAULT", f"{way} after {time.monotonic() - self.began:.1f} s: {error!r}"
        self.book.note(f"{script if play is whole else play.__name__}: {result}", fault)


@contextmanager
def asked(
    port: int, path: str, status: int = 200, *, method: str = "GET", version: str = "1.1", **more: Any
) -> Iterator[Connection]:
    with Connection(port, patience=20.0, **more) as connection:
        connection.ask(method, path, version)
        expect_head(connection, status)
        yield connection


def expect_head(connection: Connection, status: int) -> None:
    head = connection.head()
    if head.status in (502, 503):
        raise TurnedAway(head.status)
    assert head.status == status, head


def rest(connection: Connection, until: float = math.inf, most: float = math.inf) -> bytes:
    """The body to its end, or to a moment, or until there is more than `most`."""
    got = bytearray()
    try:
        for chunk in connection.chunks():
            got += chunk.payload
            left = until - time.monotonic()
            if left <= 0 or len(got) > most:
                break
            connection.socket.settimeout(min(left, 20.0))
    except TimeoutError:
        assert time.monotonic() >= until - 0.1, f"nothing came for 20 s after {bytes(got[-200:])!r}"
    return bytes(got)


def check_events(body: bytes) -> None:
    numbers = [int(number) for number in re.findall(rb"^data: (\d+)\n\n", body, re.MULTILINE)]
    assert numbers == list(range(len(numbers))), body


def check_whole(connection: Connection, script: str, ending: Ending | None) -> None:
    wanted, got = SCRIPTS[script].gives, rest(connection)
    assert got == wanted if isinstance(wanted, bytes) else wanted.fullmatch(got), got[:200]
    assert connection.ending is ending, connection.ending


def check_farewell(connection: Connection, body: bytes) -> None:
    check_events(body)
    assert re.search(rb"\nretry: \d{4}\n\n?$", body), body[-200:]
    assert connection.ending is Ending.COMPLETE, connection.ending


def listen(visitor: Visitor, way: str, script: str) -> str:
    """An event stream, left after a random moment."""
    stay = visitor.random.uniform(0.2, visitor.longest)
    with asked(visitor.port, f"/{way}/{script}") as connection:
        connection.socket.settimeout(stay)
        body = rest(connection, until=time.monotonic() + stay)
        if connection.ending is not None and visitor.book.excused[502] > visitor.began:
            check_farewell(connection, body)
            return "farewell"
        assert connection.ending is None, (connection.ending, body[-200:])
        check_events(body)
        assert stay < 3 or way not in visitor.kind.beats or b"\n:\n" in body, f"no heartbeat: {body!r}"
        if visitor.random.random() < 0.5:
            connection.reset()
    return "left"


def whole(visitor: Visitor, way: str, script: str) -> str:
    """What has an end of its own, in order or not."""
    with asked(visitor.port, f"/{way}/{script}", SCRIPTS[script].status) as connection:
        check_whole(connection, script, SCRIPTS[script].ending)
    return "as it must be"


def http10(visitor: Visitor, way: str, script: str) -> str:
    with asked(visitor.port, f"/{way}/{script}", version="1.0") as connection:
        check_whole(connection, script, Ending.CLOSE_DELIMITED)  # by nginx, which chunks to 1.1 only
    return "as it must be"


def head(visitor: Visitor, way: str, script: str) -> str:
    """HEAD, and on the same connection a GET, which finds out whether there was a body."""
    with asked(visitor.port, f"/{way}/events", method="HEAD") as connection:
        connection.ask("GET", f"/{way}/{script}")
        expect_head(connection, 200)
        check_whole(connection, script, SCRIPTS[script].ending)
    return "as it must be"


def reset(visitor: Visitor, way: str, script: str) -> str:
    """A download, left in the middle."""
    with asked(visitor.port, f"/{way}/{script}") as connection:
        rest(connection, most=visitor.random.randrange(MEGABYTE // 4, MEGABYTE * 3 // 4))
        connection.reset()
    return "left"


def stall(visitor: Visitor, way: str, script: str) -> str:
    """A client that takes nothing for a while, and finds its body cut short then."""
    with asked(visitor.port, f"/{way}/{script}", receive_buffer=64 * 1024) as connection:
        time.sleep(3.0)
        rest(connection, most=64 * MEGABYTE)  # what is on the way is a few; more was not cut
        assert connection.ending is Ending.TRUNCATED, connection.ending
    return "as it must be"


FAILING = ("fail-before", "fail-after", "fail-after-events", "limited-events", "limited-text")
# How often each is played, out of 24 times.
PLAYS: dict[tuple[Callable[..., str], str], int] = {
    (listen, "events"): 5,
    (whole, "ten"): 4,
    (whole, "download"): 3,
    (reset, "download"): 3,
    **{(whole, script): 1 for script in FAILING},
    (http10, "ten"): 2,
    (head, "ten"): 1,
    (stall, "flood"): 1,
}


class Soak:
    """One server behind its nginx, the clients, and whoever starts it anew."""

    def __init__(self, name: str, minutes: float, directory: Path, nginx: str) -> None:
        self.kind, self.nginx, self.directory = KINDS[name], nginx, directory / name
        self.directory.mkdir()
        self.seconds = minutes * 60
        # A restart every five minutes; in a short run, one or two all the same.
        self.number = 6 if minutes > 15 else 3 if minutes > 2 else 2
        self.log, self.port, self.front = self.directory / "server.log", free_port(), 0
        self.book, self.lock, self.active, self.going, self.over = Book(), threading.Lock(), 0, False, False
        self.lives, self.restarts = list[dict[str, Any]](), list[dict[str, Any]]()

    def start(self) -> None:
        """Start the server on its port, and wait until it answers."""
        command = [sys.executable, "-m", *self.kind.arguments.format(port=self.port).split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as file:
            self.child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        poll(self.stats, bound=60, what="an answer of the server")

    def stats(self) -> dict[str, int]:
        """What the serving process says of itself; nothing if there is none."""
        try:
            return json.loads(fetch(self.port, "/stats").body)  # type: ignore[no-any-return]
        except (OSError, AssertionError):
            return {}

    def streams(self) -> int:
        """How many are open, or as many as may be where nobody tells."""
        return self.stats().get("streams", MAX_STREAMS)

    def client(self, seed: int) -> None:
        visitor = Visitor(self.front, self.kind, self.book, Random(seed), min(6.0, self.seconds / 10))
        while not self.over:
            with self.lock:
                goes = self.going
                self.active += goes
            if goes:
                visitor.visit()
                with self.lock:
                    self.active -= 1
            time.sleep(visitor.random.uniform(*PAUSE))

    def crowd(self) -> None:
        """More event streams than there may be."""
        self.book.excused[503] = math.inf
        with ExitStack() as stack:
            connections = [stack.enter_context(Connection(self.front)) for _ in range(MAX_STREAMS + 4)]
            for number, connection in enumerate(connections):
                connection.ask("GET", f"/{self.kind.ways[number % len(self.kind.ways)]}/events")
            heads = [connection.head() for connection in connections]
            refused = [head for head in heads if head.status == 503 and head.get("Retry-After") == "5"]
            served = [head for head in heads if head.status == 200]
            wrong = len(refused) < 4 or len(refused) + len(served) < len(heads)
            self.book.note("crowd", f"{len(served)} served, {len(refused)} refused" if wrong else "")
        # A producer that sleeps hears late of its client's leave, and those of the other clients are there.
        poll(lambda: 2 * self.streams() <= MAX_STREAMS, bound=60, what="the end of the crowd")
        self.book.excused[503] = time.monotonic()

    def load(self, until: float, life: dict[str, Any]) -> None:
        """Let the clients go on until then, with a crowd at first."""
        self.going = True
        self.crowd()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_EVERY))
            life["loaded"].append(self.stats())

    def quiet(self, life: dict[str, Any]) -> None:
        """Stop the clients, and look once no stream is open and all levels stand still."""
        with self.lock:
            self.going = False
        poll(lambda: not self.active, bound=60, what="the end of all visits")
        latest, since, last = time.monotonic() + 60, time.monotonic(), self.stats()
        while time.monotonic() - since < STILL:
            assert time.monotonic() < latest, f"the levels never stand still: {last}"
            time.sleep(0.25)
            now = self.stats()
            if now.get("streams") != 0 or any(now.get(name) != last.get(name) for name in LEVELS):
                since = time.monotonic()
            last = now
        life["quiet"].append(last)

    def live(self, end_of_life: float) -> None:
        life: dict[str, Any] = {"quiet": [], "loaded": []}
        self.lives.append(life)
        with ThreadPoolExecutor(self.kind.holds) as pool:
            list(pool.map(lambda _: fetch(self.port, "/hold"), range(self.kind.holds)))
        whole = end_of_life - time.monotonic()
        self.load(time.monotonic() + whole / 6, life)
        self.quiet(life)
        for left in range(max(1, round(whole / 60)), 0, -1):
            now = time.monotonic()
            self.load(now + (end_of_life - now) / left - 2 * QUIET, life)
            self.quiet(life)
        self.judge(*life["quiet"])

    def judge(self, first: dict[str, int], *others: dict[str, int]) -> None:
        """Note as faults what has grown between the quiet points of one life."""
        for name in LEVELS:
            most = max(other[name] for other in others)
            self.book.note(f"levels of {name}", f"{first[name]}, then {most}" * (most > first[name] + SPARE))
        last, allowed = others[-1]["resident"], first["resident"] * 1.1 + 5 * MEGABYTE
        self.book.note("levels of memory", f"{first['resident']}, then {last}" * (last > allowed))

    def restart(self) -> None:
        """A new life under load, while an event stream is open in every way."""
        self.going = True
        time.sleep(1.0)
        pid = self.stats()["pid"]
        old = Path(f"/proc/{pid}")
        with ExitStack() as stack, ThreadPoolExecutor(len(self.kind.ways)) as pool:
            held = [stack.enter_context(asked(self.front, f"/{way}/events")) for way in self.kind.ways]
            bodies = [connection.read_until(b"\n\n") for connection in held]
            self.book.excused[502], began = math.inf, time.monotonic()
            os.kill(self.child.pid, self.kind.restart)
            ended = pool.map(self.farewell, self.kind.ways, held, bodies)
            # gunicorn's worker, which is its child, or uvicorn itself, which is ours.
            poll(lambda: self.child.poll() is not None or not old.exists(), bound=GRACE + LATE, what=f"{old}")
            gone = time.monotonic() - began
            if self.child.poll() is not None:
                self.start()
            poll(lambda: self.stats().get("pid", pid) != pid, bound=60, what="the new process")
            self.book.excused[502] = time.monotonic() + 0.5
            farewells = [round(moment - began, 2) for moment in ended]
        self.book.note("restart", f"farewells only after {farewells} s" * (max(farewells) > GRACE))
        self.restarts.append({"process gone after": round(gone, 2), "farewells after": farewells})

    def farewell(self, way: str, connection: Connection, body: bytes) -> float:
        try:
            check_farewell(connection, body + rest(connection))
        except AssertionError as error:
            self.book.note("restart", f"no farewell, {way}: {error!r}")
        return time.monotonic()

    def run(self) -> dict[str, Any]:
        """All lives; the figures."""
        self.start()
        server = Server(LAUNCHED["gunicorn"], self.port, self.child, self.log)  # for its port only
        try:
            with front("nginx", self.nginx, server, self.directory) as self.front:
                with ThreadPoolExecutor(CLIENTS) as clients:
                    clients.map(self.client, range(CLIENTS))
                    self.live_all()
        finally:
            end(self.child)
        return self.figures()

    def live_all(self) -> None:
        began = time.monotonic()
        try:
            for number in range(1, self.number + 1):
                if number > 1:
                    self.restart()
                self.live(began + self.seconds * number / self.number)
        except Exception as error:
            self.book.note("the soak itself", repr(error))
        self.over = True

    def figures(self) -> dict[str, Any]:
        meant, unexpected = complaints(self.log.read_text("utf-8", "replace"))
        of_nginx = (self.directory / "error.log").read_text("utf-8", "replace")
        unexpected += re.findall(r".*\[(?:alert|crit|emerg)\].*", of_nginx)
        return {
            "faults": self.book.faults + unexpected,
            "notes": dict(sorted(self.book.notes.items())),
            "restarts": self.restarts,
            "log": dict(meant),
            "nginx": dict(Counter(re.findall(r"\[error\].*?\*\d+ (.+?),? (?:while|client)", of_nginx))),
            "lives": self.lives,
        }


def run(minutes: float, names: list[str], directory: Path, nginx: str) -> dict[str, dict[str, Any]]:
    """Soak these servers side by side."""
    soaks = [Soak(name, minutes, directory, nginx) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(Soak.run, soaks), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak real servers behind nginx.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--server", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    asked_for = parser.parse_args()
    names = list(KINDS) if asked_for.server == "both" else [asked_for.server]
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    figures = run(asked_for.minutes, names, Path(tempfile.mkdtemp(prefix="streamkit-soak-")), nginx)
    if asked_for.json:
        asked_for.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps({name: {**each, "lives": "see --json"} for name, each in figures.items()}, indent=1))
    return any(each["faults"] for each in figures.values())


if __name__ == "__main__":
    sys.exit(main())
