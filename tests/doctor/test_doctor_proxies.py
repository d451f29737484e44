"""What the doctor says of real proxies: set up badly, and as docs/proxies.md says.

Each bad configuration is mended by the very lines that the doctor advises, and asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from servers.launch import KINDS as SERVERS
from servers.launch import Server, running
from servers.proxies import KINDS, documented, front, version_of

from streamkit.doctor import Diagnosis, Finding, Severity, examine_address

pytest.importorskip("gunicorn")
pytestmark = [pytest.mark.server, pytest.mark.system]

DRIP = "/drip?chunks=4&pause=0.4"
KEPT = "/kept?chunks=4&pause=0.4"  # the same with streamkit around the app
LONG = "/drip?chunks=4&pause=0.4&size=1000"  # Caddy compresses nothing that begins with fewer than 512 bytes
SLOW = "/drip?chunks=2&pause=3"
SECONDS = 12.0

NGINX_1_0 = "location / { proxy_pass http://127.0.0.1:8000; proxy_http_version 1.0; }"
NGINX_PATIENT_FOR_2_S = "proxy_read_timeout 2s;\n" + documented("nginx")
APACHE_PATIENT_FOR_2_S = 'ProxyPass "/" "http://127.0.0.1:8000/" timeout=2'
HAPROXY_THAT_WAITS = documented("haproxy").replace("    option http-no-delay\n", "")
VARNISH = 'backend app { .host = "127.0.0.1:8000"; }'
VARNISH_THAT_COLLECTS = VARNISH + "\nsub vcl_backend_response { set beresp.do_stream = false; }"
CADDY_THAT_COMPRESSES = "reverse_proxy 127.0.0.1:8000\nencode gzip"


@dataclass(frozen=True)
class Setting:
    """A server with the probe app, and proxies to put in front of it."""

    server: Server
    start: Callable[..., int]

    def ask(
        self, name: str, lines: str, path: str, *, direct: bool = False, proxy: str | None = None
    ) -> Diagnosis:
        own = f"http://127.0.0.1:{self.server.port}" if direct else None
        address = f"http://127.0.0.1:{self.start(name, lines, self.server)}{path}"
        diagnosis = examine_address(address, seconds=SECONDS, direct=own, proxy=proxy)
        assert diagnosis.refusal is None, diagnosis
        return diagnosis


@pytest.fixture(scope="module")
def start(
    system_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., int]]:
    """`start("nginx", lines, server)`: its port; each is started once."""
    with ExitStack() as stack:
        known: dict[tuple[str, str, int], int] = {}

        def run(name: str, lines: str, server: Server) -> int:
            key = name, lines, server.port
            if key not in known:
                program = system_program(KINDS[name].program)
                directory = tmp_path_factory.mktemp(name)
                known[key] = stack.enter_context(front(name, program, server, directory, lines=lines))
            return known[key]

        yield run


@pytest.fixture(scope="module")
def behind(
    start: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Setting]]:
    """`behind("gunicorn")`: that server with the probe app."""
    with ExitStack() as stack:
        known: dict[str, Setting] = {}

        def serve(name: str) -> Setting:
            if name not in known:
                kind, log = SERVERS[name], tmp_path_factory.mktemp(name) / "log"

                def command(port: int) -> list[str]:
                    return [
                        part.replace("tests.servers.apps:", "tests.doctor.drips:")
                        for part in kind.command(port, 8)
                    ]

                port, child = stack.enter_context(running(command, log))
                known[name] = Setting(Server(kind, port, child, log), start)
            return known[name]

        yield serve


@pytest.fixture(scope="module")
def gunicorn(behind: Callable[[str], Setting]) -> Setting:
    return behind("gunicorn")


def the(code: str, diagnosis: Diagnosis) -> Finding:
    (found,) = [finding for finding in diagnosis.findings if finding.code == code]
    return found


def codes(diagnosis: Diagnosis, *severities: Severity) -> set[str]:
    return {finding.code for finding in diagnosis.findings if finding.severity in severities}


def lines_for(proxy: str, finding: Finding) -> str:
    (advice,) = [advice for advice in finding.advice if advice.where == proxy]
    return "\n".join(advice.lines)


# -- nothing is said of the good ones


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn-httptools"])
@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_found_behind_a_proxy_that_is_set_up_as_the_manual_says(
    behind: Callable[[str], Setting], system_program: Callable[..., str], name: str, server: str
) -> None:
    diagnosis = behind(server).ask(name, documented(name), KEPT)
    # Caddy's documented fault: until caddyserver/caddy#5952 it ended what was cut as if it were whole.
    is_old = name == "caddy" and version_of(system_program(KINDS[name].program)) < (2, 8)
    assert codes(diagnosis, Severity.FAULT) == set()
    assert codes(diagnosis, Severity.RISK) == ({"no-abnormal-end"} if is_old else set())
    # HAProxy tells the app that an HTTP/1.0 client keeps its connection, and so it gets a Content-Length.
    assert codes(diagnosis, Severity.NOTE) == ({"http10-held"} if name == "haproxy" else set())
    assert diagnosis.status == 0


# -- nginx


def test_nginx_that_buffers_is_named_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("buffered", gunicorn.ask("nginx", NGINX_1_0, DRIP))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "nginx")
    advice = lines_for("nginx", finding)
    assert "proxy_buffering off;" in advice
    mended = f"location / {{ proxy_pass http://127.0.0.1:8000;\n{advice}\n}}"
    assert gunicorn.ask("nginx", mended, DRIP).status == 0


def test_nginx_that_compresses_is_named_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("compressed-and-held", gunicorn.ask("nginx", documented("nginx"), DRIP))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "nginx")
    mended = documented("nginx").replace("{", "{\n" + lines_for("nginx", finding), 1)
    assert gunicorn.ask("nginx", mended, DRIP).status == 0


def test_nginx_that_buffers_is_mended_by_the_advice_for_the_app_too(gunicorn: Setting) -> None:
    assert gunicorn.ask("nginx", NGINX_1_0, KEPT).status == 0


def test_nginx_that_speaks_http_1_0_ends_a_broken_body_cleanly(gunicorn: Setting) -> None:
    finding = the("no-abnormal-end", gunicorn.ask("nginx", NGINX_1_0, KEPT))
    assert finding.guilty == "nginx"
    assert "proxy_http_version 1.1;" in lines_for("nginx", finding)


@pytest.mark.slow
def test_nginx_that_loses_its_patience_is_named_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("cut", gunicorn.ask("nginx", NGINX_PATIENT_FOR_2_S, SLOW))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "nginx")
    mended = f"{lines_for('nginx', finding)}\n{documented('nginx')}"
    assert "cut" not in codes(gunicorn.ask("nginx", mended, SLOW), *Severity)


def test_a_second_nginx_does_not_see_what_the_first_has_taken_off(gunicorn: Setting) -> None:
    inner = gunicorn.start("nginx", documented("nginx"), gunicorn.server)
    two_hops = replace(gunicorn, server=replace(gunicorn.server, port=inner))
    outer = two_hops.start("nginx", NGINX_1_0, two_hops.server)
    own = f"http://127.0.0.1:{gunicorn.server.port}"
    diagnosis = examine_address(f"http://127.0.0.1:{outer}{KEPT}", seconds=SECONDS, direct=own)
    assert "the app's own port streams" in the("buffered", diagnosis).sentence
    assert "in front of another nginx" in the("accel-buffering", diagnosis).sentence


# -- Apache


@pytest.mark.slow
def test_apache_that_loses_its_patience_is_told_and_mended_by_the_advice(gunicorn: Setting) -> None:
    # Apache hands the app's Server field on, so that the user has to name it.
    finding = the("cut", gunicorn.ask("apache", APACHE_PATIENT_FOR_2_S, SLOW, proxy="apache"))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "apache")
    mended = gunicorn.ask("apache", lines_for("apache", finding), SLOW)
    assert "cut" not in codes(mended, *Severity)


def test_apache_holds_nothing_even_without_streamkit(gunicorn: Setting) -> None:
    diagnosis = gunicorn.ask("apache", documented("apache"), DRIP)
    assert codes(diagnosis, Severity.FAULT, Severity.RISK) == set()
    assert codes(diagnosis, Severity.NOTE) == {"accel-buffering", "no-transform", "no-store"}


# -- HAProxy


def test_haproxy_that_waits_for_more_is_told_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("late", gunicorn.ask("haproxy", HAPROXY_THAT_WAITS, KEPT))
    assert finding.severity is Severity.FAULT
    assert "HAProxy" in finding.evidence[-1]
    advice = lines_for("haproxy", finding)
    mended = HAPROXY_THAT_WAITS.replace("    mode http\n", f"    mode http\n    {advice}\n")
    assert gunicorn.ask("haproxy", mended, KEPT).status == 0


def test_haproxy_that_compresses_is_told_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("compressed-and-held", gunicorn.ask("haproxy", documented("haproxy"), DRIP, direct=True))
    assert "each chunk until the next" in finding.sentence
    assert "the app's own port streams" in finding.sentence
    assert "HAProxy" in finding.evidence[-1]
    mended = documented("haproxy").replace(
        "backend app\n", f"backend app\n    {lines_for('haproxy', finding)}\n"
    )
    assert gunicorn.ask("haproxy", mended, DRIP).status == 0


# -- Varnish


@pytest.mark.parametrize("lines", [VARNISH, VARNISH_THAT_COLLECTS], ids=["do_gzip", "do_stream"])
def test_varnish_that_holds_is_named_and_mended_by_the_advice(gunicorn: Setting, lines: str) -> None:
    finding = the("buffered", gunicorn.ask("varnish", lines, KEPT))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "varnish")
    mended = f"{lines}\nsub vcl_backend_response {{\n{lines_for('varnish', finding)}\n}}"
    assert gunicorn.ask("varnish", mended, KEPT).status == 0


def test_varnish_that_lets_only_an_encoder_s_header_through_is_told(gunicorn: Setting) -> None:
    finding = the("compressed-and-held", gunicorn.ask("varnish", VARNISH, KEPT))
    assert finding.guilty == "varnish"
    assert finding.evidence[0].startswith("the first 10 bytes, an encoder's header")


def test_varnish_that_sends_a_recording_is_named_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("replayed", gunicorn.ask("varnish", documented("varnish"), DRIP))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "varnish")
    assert "Cache-Control: no-store, no-transform" in lines_for("your app", finding)
    advice = lines_for("varnish", finding)
    mended = documented("varnish").replace("sub vcl_recv {", f"sub vcl_recv {{\n{advice}")
    assert "replayed" not in codes(gunicorn.ask("varnish", mended, DRIP), *Severity)


# -- Caddy


def test_caddy_that_compresses_is_named_and_mended_by_the_advice(gunicorn: Setting) -> None:
    finding = the("compressed-and-held", gunicorn.ask("caddy", CADDY_THAT_COMPRESSES, LONG))
    assert (finding.severity, finding.guilty) == (Severity.FAULT, "caddy")
    mended = f"reverse_proxy 127.0.0.1:8000\n{lines_for('caddy', finding)}"
    # The lines look at X-Accel-Buffering, which the app must send.
    assert gunicorn.ask("caddy", mended, LONG.replace("/drip", "/kept")).status == 0


def test_caddy_that_ends_a_broken_body_cleanly_is_told(
    gunicorn: Setting, system_program: Callable[..., str]
) -> None:
    diagnosis = gunicorn.ask("caddy", documented("caddy"), KEPT)
    is_old = version_of(system_program("caddy")) < (2, 8)
    assert ("no-abnormal-end" in codes(diagnosis, Severity.RISK)) is is_old
