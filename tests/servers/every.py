"""Every server of the table in `docs/servers.md`: how it is started, and how it is watched.

    with started(KINDS["waitress"], tmp_path) as server:
        server.fetch("/ten?key=a")
        server.journal("a").outcomes == ["finished"]

Rule: one worker each, and nothing set that a user would not set too. A server is watched from
outside, by its journal and by what the kernel tells of its processes: one that has a single
thread answers no question while it streams.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .h2client import H2Connection
from .launch import ROOT, running
from .wire import BadFraming, Connection, Reply

MODULE = "tests.servers.every_app"
WSGI, ASGI, UNDER_A2WSGI = f"{MODULE}:wsgi_app", f"{MODULE}:asgi_app", f"{MODULE}:under_a2wsgi"
THREADS = 8
APP_WIDE = {"grace": 1.0}  # the options that no response of its own can have
COPIED = ("streamkit", "werkzeug", "markupsafe", "asgiref", "typing_extensions")


class Place(NamedTuple):
    """Where a server is to run."""

    port: int
    directory: Path
    program: str  # the path of its Debian program, where it is one


@dataclass(frozen=True)
class Kind:
    """A server, as it is set up here."""

    name: str
    interface: str
    command: Callable[[Place], list[str]]
    program: str | None = None  # not a Python package, but this program
    http2: bool = False  # asked by HTTP/2, with prior knowledge


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _gunicorn(worker: str, app: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        threads = [f"--threads={THREADS}"] if worker == "gthread" else []
        return _python(
            "gunicorn", f"--worker-class={worker}", "--workers=1", *threads, f"--bind=127.0.0.1:{place.port}",
            "--no-control-socket", "--worker-tmp-dir=/tmp", app,
        )  # fmt: skip

    return command


def _waitress(place: Place) -> list[str]:
    # Without lookahead it does not see that a client has left before it writes to it.
    return _python(
        "waitress", f"--listen=127.0.0.1:{place.port}", f"--threads={THREADS}",
        "--channel-request-lookahead=1", WSGI,
    )  # fmt: skip


def _werkzeug(place: Place) -> list[str]:
    code = (
        "from werkzeug.serving import run_simple\n"
        f"from {MODULE} import wsgi_app\n"
        f"run_simple('127.0.0.1', {place.port}, wsgi_app, threaded=True)"
    )
    return [sys.executable, "-c", code]


def _cheroot(place: Place) -> list[str]:
    return _python("cheroot", f"--bind=127.0.0.1:{place.port}", f"--threads={THREADS}", WSGI)


def _gevent(place: Place) -> list[str]:
    code = (
        "from gevent.monkey import patch_all; patch_all()\n"
        "from gevent.pywsgi import WSGIServer\n"
        f"from {MODULE} import wsgi_app\n"
        f"WSGIServer(('127.0.0.1', {place.port}), wsgi_app).serve_forever()"
    )
    return [sys.executable, "-c", code]


def _uwsgi(*ways: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        # `threads` lets Python threads run at all; without `die-on-term` SIGTERM means "reload".
        return [
            sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()",
            *(way.format(port=place.port) for way in ways), "--master", "--need-app", "--die-on-term",
            f"--threads={THREADS}", f"--module={WSGI}", f"--virtualenv={sys.prefix}",
        ]  # fmt: skip

    return command


def _granian(interface: str, app: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        threads = [f"--blocking-threads={THREADS}"] if interface == "wsgi" else []
        return _python(
            "granian", f"--interface={interface}", "--workers=1", *threads, "--host=127.0.0.1",
            f"--port={place.port}", app,
        )  # fmt: skip

    return command


def _hypercorn(app: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        # No worker: the process that is started is the one that serves.
        return _python("hypercorn", "--workers=0", f"--bind=127.0.0.1:{place.port}", "--error-logfile=-", app)

    return command


def _uvicorn(protocol: str, loop: str, app: str = ASGI, *more: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return _python(
            "uvicorn", "--host=127.0.0.1", f"--port={place.port}", f"--http={protocol}", f"--loop={loop}",
            *more, app,
        )  # fmt: skip

    return command


def _daphne(place: Place) -> list[str]:
    return _python("daphne", "--bind=127.0.0.1", f"--port={place.port}", ASGI)


APACHE = """
ServerName 127.0.0.1
ServerRoot {directory}
Listen 127.0.0.1:{port}
PidFile {directory}/apache.pid
ErrorLog /dev/stderr
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
WSGIRestrictEmbedded {restrict}
WSGISocketPrefix {directory}/wsgi
{process}
WSGIPythonPath {directory}
WSGIScriptAlias / {directory}/every_app.py
WSGICallableObject wsgi_app
WSGIApplicationGroup %{{GLOBAL}}
<Directory {directory}>
    Require all granted
</Directory>
"""
MODULES = "/usr/lib/apache2/modules"


def _mod_wsgi(mode: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        directory = _readable_by_all(place.directory)
        daemon = f"WSGIDaemonProcess app processes=1 threads={THREADS} python-path={directory}\n"
        config = APACHE.format(
            directory=directory, port=place.port, modules=MODULES,
            # Apache serves as nobody when root starts it.
            user="User nobody\nGroup nogroup" if os.geteuid() == 0 else "",
            process=daemon + "WSGIProcessGroup app" if mode == "daemon" else "",
            restrict="On" if mode == "daemon" else "Off",
        )  # fmt: skip
        (directory / "apache.conf").write_text(config)
        return [place.program, "-f", str(directory / "apache.conf"), "-DFOREGROUND"]

    return command


def _readable_by_all(directory: Path) -> Path:
    """A copy of all that is imported: the tree and the environment may be root's alone."""
    shutil.copy(Path(__file__).parent / "every_app.py", directory)
    for name in COPIED:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        origin = ROOT / name / "__init__.py" if name == "streamkit" else Path(spec.origin)
        if origin.name != "__init__.py":
            shutil.copy(origin, directory)
        elif not (directory / name).exists():
            shutil.copytree(origin.parent, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


HTTP_SOCKET = ("--http-socket=127.0.0.1:{port}",)
ROUTER = ("--http=127.0.0.1:{port}", "--http-auto-chunked", "--http-keepalive")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("gunicorn sync", "wsgi", _gunicorn("sync", WSGI)),
        Kind("gunicorn gthread", "wsgi", _gunicorn("gthread", WSGI)),
        Kind("gunicorn gevent", "wsgi", _gunicorn("gevent", WSGI)),
        Kind("gunicorn asgi", "asgi", _gunicorn("asgi", ASGI)),
        Kind("waitress", "wsgi", _waitress),
        Kind("werkzeug", "wsgi", _werkzeug),
        Kind("cheroot", "wsgi", _cheroot),
        Kind("gevent pywsgi", "wsgi", _gevent),
        Kind("uWSGI http-socket", "wsgi", _uwsgi(*HTTP_SOCKET)),
        Kind("uWSGI http, auto-chunked", "wsgi", _uwsgi(*ROUTER)),
        Kind("mod_wsgi embedded", "wsgi", _mod_wsgi("embedded"), program="apache2"),
        Kind("mod_wsgi daemon", "wsgi", _mod_wsgi("daemon"), program="apache2"),
        Kind("granian wsgi", "wsgi", _granian("wsgi", WSGI)),
        Kind("granian asgi", "asgi", _granian("asgi", ASGI)),
        Kind("hypercorn wsgi", "wsgi", _hypercorn(f"wsgi:{WSGI}")),
        Kind("hypercorn asgi", "asgi", _hypercorn(ASGI)),
        Kind("hypercorn asgi, HTTP/2", "asgi", _hypercorn(ASGI), http2=True),
        Kind("uvicorn h11", "asgi", _uvicorn("h11", "asyncio")),
        Kind("uvicorn httptools", "asgi", _uvicorn("httptools", "uvloop")),
        Kind("daphne", "asgi", _daphne),
        Kind("a2wsgi on uvicorn", "wsgi", _uvicorn("httptools", "uvloop", UNDER_A2WSGI, "--factory")),
    )
}


@dataclass(frozen=True)
class Record:
    """What the journal says of one key."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def details(self, what: str) -> list[Any]:
        return [line["detail"] for line in self.lines if line["what"] == what]

    def count(self, what: str) -> int:
        return len(self.details(what))

    @property
    def outcomes(self) -> list[str]:
        """What each call of `on_finish` was told."""
        return self.details("finish")

    @property
    def written(self) -> int:
        return sum(self.details("wrote"))


@dataclass(frozen=True)
class Served:
    """A running server."""

    kind: Kind
    port: int
    child: subprocess.Popen[bytes]
    log: Path
    directory: Path

    def connect(self, **options: Any) -> Connection | H2Connection:
        return (H2Connection if self.kind.http2 else Connection)(self.port, **options)

    def fetch(self, path: str, version: str = "1.1", fields: dict[str, str] | None = None) -> Reply:
        with self.connect() as connection:
            connection.ask("GET", path, version, fields)
            return connection.reply()

    def journal(self, key: str) -> Record:
        whole, _, _ = (self.directory / "journal").read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return Record([line for line in lines if line["key"] == key])

    def resident(self) -> int:
        """Bytes of memory that all its processes have."""
        return sum(_resident(pid) for pid in processes_of(self.child.pid))


def processes_of(session: int) -> list[int]:
    """The processes of a session, which each server here is one of."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            # After the name, which may hold anything: state, parent, group, session.
            fields = Path(f"/proc/{int(name)}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has ended in between


@contextmanager
def started(kind: Kind, logs: Path, program: str = "") -> Iterator[Served]:
    """A server of this kind, with all its processes ended afterwards."""
    log = logs / f"{kind.name.replace(' ', '-').replace('/', '')}-{time.monotonic_ns()}.log"
    # Not pytest's own directory: nobody but its user may enter that one.
    directory = Path(tempfile.mkdtemp(prefix="streamkit-every-"))
    directory.chmod(0o777)
    journal = directory / "journal"
    journal.touch()
    journal.chmod(0o666)
    environment = [
        "env", f"STREAMKIT_JOURNAL={journal}", f"STREAMKIT_OPTIONS={json.dumps(APP_WIDE)}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]  # fmt: skip
    try:
        with running(lambda port: [*environment, *kind.command(Place(port, directory, program))], log) as (
            port,
            child,
        ):
            try:
                yield Served(kind, port, child, log, directory)
            finally:
                left = processes_of(child.pid)
        for pid in left:
            if pid in processes_of(child.pid):
                os.kill(pid, signal.SIGKILL)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


Check = Callable[[Any], None]  # of a running server; what does not hold is raised
Faults = dict[str, BaseException | None]  # by check: what does not hold; None: it holds


def ask_all(server: Served, checks: Mapping[str, Check]) -> Faults:
    """What of these does not hold on this server."""
    faults: Faults = {}
    for name, ask in checks.items():
        try:
            ask(server)
        except (AssertionError, OSError, ValueError, BadFraming) as fault:
            faults[name] = fault
        else:
            faults[name] = None
    return faults
