"""Start real proxies in front of a server, set up as docs/proxies.md says.

    with upstream("gunicorn", tmp_path) as server, front("varnish", program, server, tmp_path) as port:
        fetch(port, "/plain")

Rule: the settings that this project recommends stand in docs/proxies.md and nowhere else. What
stands here is the frame that a program needs to run at all: in the foreground, as whoever runs the
tests, listening on 127.0.0.1, writing below its own directory, compressing all it may.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from .launch import KINDS as SERVERS
from .launch import ROOT, Server, running

CHUNKS = 5  # in each of the scripts that go step by step
MANUAL = ROOT / "docs" / "proxies.md"
BLOCK = re.compile(r"<!-- tested: ([\w, ]+) -->\n```\w*\n(.*?)```\n", re.DOTALL)
UPSTREAM = "127.0.0.1:8000"  # where the manual's backend listens

NGINX = """
$user
worker_processes 1;
pid $directory/nginx.pid;
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    gzip on;
    gzip_proxied any;
    gzip_http_version 1.0;
    gzip_min_length 1;
    gzip_types text/plain text/event-stream;
    server {
        listen 127.0.0.1:$port;
        $lines
    }
}
"""

APACHE = """
$modules
ServerName localhost
Listen 127.0.0.1:$port
DefaultRuntimeDir $directory
PidFile $directory/apache.pid
ErrorLog $directory/error.log
# Started by root, the workers must be somebody else.
User www-data
Group www-data
AddOutputFilterByType DEFLATE text/plain text/event-stream
$lines
"""
APACHE_MODULES = Path("/usr/lib/apache2/modules")  # where Debian keeps them
MODULES = ["mpm_event", "authz_core", "filter", "deflate", "proxy", "proxy_http"]

HAPROXY = """
global
    maxconn 128
$lines
frontend clients
    bind 127.0.0.1:$port
    compression algo gzip
    compression type text/plain text/event-stream
    default_backend app
"""

VARNISH = """
vcl 4.1;
sub vcl_backend_response {
    if (beresp.http.Content-Type ~ "^text/") {
        set beresp.do_gzip = true;
    }
}
$lines
"""

CADDY = """
{
    admin off
    auto_https off
    grace_period 1s
}
http://:$port {
    bind 127.0.0.1
    $lines
}
"""


@dataclass(frozen=True)
class Kind:
    """A proxy: its program, what its configuration looks like, and how it stays in the foreground."""

    program: str
    frame: str
    # Of the program, its configuration file, the directory that it may write to, and the port.
    command: Callable[[str, Path, Path, int], list[str]]


def _nginx(program: str, config: Path, directory: Path, port: int) -> list[str]:
    log = str(directory / "error.log")
    return [program, "-p", str(directory), "-e", log, "-c", str(config), "-g", "daemon off;"]


def _apache(program: str, config: Path, directory: Path, port: int) -> list[str]:
    return [program, "-f", str(config), "-D", "FOREGROUND"]


def _haproxy(program: str, config: Path, directory: Path, port: int) -> list[str]:
    return [program, "-db", "-f", str(config)]


def _varnish(program: str, config: Path, directory: Path, port: int) -> list[str]:
    return [
        program, "-F", "-j", "none", "-n", str(directory / "work"), "-a", f"127.0.0.1:{port}", "-T", "none",
        "-f", str(config), "-s", "malloc,16m", "-p", "vsl_space=1M", "-p", "thread_pools=1",
        "-p", "thread_pool_min=10",
    ]  # fmt: skip


def _caddy(program: str, config: Path, directory: Path, port: int) -> list[str]:
    # It keeps an identity of its own below the home directory, wherever that is.
    homes = [f"{name}={directory}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")]
    return ["env", *homes, program, "run", "--adapter", "caddyfile", "--config", str(config)]


RESTARTING = "nginx, events while the app restarts"
KINDS: dict[str, Kind] = {
    "nginx": Kind("nginx", NGINX, _nginx),
    "apache": Kind("apache2", APACHE, _apache),
    "haproxy": Kind("haproxy", HAPROXY, _haproxy),
    "varnish": Kind("varnishd", VARNISH, _varnish),
    "caddy": Kind("caddy", CADDY, _caddy),
}


def documented(name: str) -> str:
    """The lines that docs/proxies.md says to set for this proxy, or for this case."""
    blocks: dict[str, str] = dict(BLOCK.findall(MANUAL.read_text(encoding="utf-8")))
    assert set(blocks) == {*KINDS, RESTARTING}, f"{MANUAL} has blocks for {sorted(blocks)}"
    return blocks[name]


def version_of(program: str) -> tuple[int, int]:
    """The version that `caddy version` prints."""
    said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


@contextmanager
def upstream(name: str, directory: Path) -> Iterator[Server]:
    """One of the servers of `launch`, serving `tests.servers.proxy_app`."""
    kind = SERVERS[name]
    log = directory / f"{name}.log"

    def command(port: int) -> list[str]:
        return [
            part.replace("tests.servers.apps:", "tests.servers.proxy_app:") for part in kind.command(port, 8)
        ]

    with running(command, log) as (port, child):
        yield Server(kind, port, child, log)


@contextmanager
def front(
    name: str, program: str, server: Server, directory: Path, *, lines: str | None = None
) -> Iterator[int]:
    """That proxy in front of the server, with the documented lines or with these; gives its port."""
    kind = KINDS[name]
    lines = documented(name) if lines is None else lines
    assert lines.count(UPSTREAM) == 1, f"{name}: where is {UPSTREAM}?"
    known = {
        "directory": directory,
        "lines": lines.replace(UPSTREAM, f"127.0.0.1:{server.port}"),
        # Started by root, nginx's workers would be somebody else, who may not enter the directory.
        "user": "user root;" if os.geteuid() == 0 else "",
        "modules": "\n".join(f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so" for m in MODULES),
    }
    config = directory / f"{name}.conf"

    def command(port: int) -> list[str]:
        config.write_text(Template(kind.frame).substitute(known, port=port))
        return kind.command(program, config, directory, port)

    with running(command, directory / f"{name}.log") as (port, _):
        yield port
