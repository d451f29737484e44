"""Asking an address: what is sent, what is written down, and that all of it is bounded."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamkit.doctor import CannotAsk, examine_address
from streamkit.doctor.address import Address, ask, check_field
from streamkit.doctor.http1 import Framing
from streamkit.doctor.observations import Ending, Question

from .answering import END, answering, chunk, dripping, head, response

CHUNKED = head(Transfer_Encoding="chunked", Content_Type="text/plain")
GET = Question("HTTP/1.1")
BOUND = 15.0  # seconds that a request of a second may take on a busy machine


def codes(url: str, **options: object) -> list[str]:
    diagnosis = examine_address(url, **options)  # type: ignore[arg-type]
    assert diagnosis.refusal is None, diagnosis
    return [finding.code for finding in diagnosis.findings]


# -- addresses


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        ("http://example.org", None, "http://example.org/"),
        ("example.org:8000/a?b=c", None, "http://example.org:8000/a?b=c"),
        ("localhost:8000", "/x?y", "http://localhost:8000/x?y"),
        ("https://example.org/a", "b", "https://example.org/b"),
        ("https://[::1]:8443/a#part", None, "https://[::1]:8443/a"),
        ("http://example.org/Straße und%20so", None, "http://example.org/Stra%C3%9Fe%20und%20so"),
        ("http://bücher.example/", None, "http://xn--bcher-kva.example/"),
        ("http://example.org/a\r\nX: y", None, "http://example.org/aX:%20y"),
        ("http://example.org/", "/a\r\nX: y", "http://example.org/a%0D%0AX:%20y"),
    ],
)
def test_an_address_is_written_as_a_request_needs_it(text: str, path: str | None, wanted: str):
    assert str(Address.parse(text, path)) == wanted


@pytest.mark.parametrize(
    "text", ["ftp://example.org/", "http://", "http://example.org:99999/", "http:///x", "http://a:b@c/", ""]
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(CannotAsk, match="address"):
        Address.parse(text)


@pytest.mark.parametrize("field", [("A b", "c"), ("A", "b\r\nC: d"), ("", "x")])
def test_a_field_that_breaks_the_request_is_refused(field: tuple[str, str]):
    with pytest.raises(CannotAsk, match="Name: value"):
        check_field(*field)


# -- one request


def test_each_piece_is_written_down_with_the_bytes_until_then():
    steps = [CHUNKED, chunk(b"one"), 0.2, chunk(b"two"), 0.2, chunk(b"three"), END]
    with answering(steps) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND)
    assert seen.payload == b"onetwothree"
    assert seen.arrivals[-1].offset == 11
    assert [arrival.at for arrival in seen.arrivals] == sorted(arrival.at for arrival in seen.arrivals)
    assert (seen.ending, seen.framing) == (Ending.COMPLETE, Framing.CHUNKED)
    assert seen.is_local
    assert peer.requests[0].startswith("GET / HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_piece_is_there_before_the_next_is_sent():
    written = threading.Event()

    def answer(request: str) -> Iterator[bytes | float]:
        yield CHUNKED + chunk(b"one\n")
        yield 1.0
        written.set()
        yield chunk(b"two\n") + END

    with answering(answer) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND)
    assert written.is_set()
    assert [arrival.offset for arrival in seen.arrivals] == [4, 8]
    assert seen.arrivals[0].at < seen.arrivals[1].at


def test_a_compressed_body_is_counted_twice_on_the_wire_and_as_payload():
    coded = gzip.compress(b"payload " * 10)
    steps = [head(Content_Encoding="gzip", Content_Length=str(len(coded))), coded[:10], 0.2, coded[10:]]
    with answering(steps) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND)
    assert (seen.wire[0].offset, seen.wire[-1].offset) == (10, len(coded))
    assert seen.payload == b"payload " * 10
    assert seen.arrivals[-1].offset == 80


@pytest.mark.parametrize(
    ("steps", "ending"),
    [
        ([CHUNKED, chunk(b"x")], Ending.CUT),
        ([head(Content_Length="5"), b"abc"], Ending.CUT),
        ([head(), b"abc"], Ending.CLOSED),
        ([head(Content_Length="3"), b"abc"], Ending.COMPLETE),
    ],
)
def test_how_a_body_ended_is_told_and_not_guessed(steps: list[bytes | float], ending: Ending):
    with answering(steps) as peer:
        assert ask(Address.parse(peer.url), GET, seconds=BOUND).ending is ending


def test_a_body_that_goes_on_is_left_after_so_many_seconds():
    def answer(request: str) -> Iterator[bytes | float]:
        yield CHUNKED
        while True:
            yield chunk(b"tick\n")
            yield 0.05

    with answering(answer) as peer:
        began = time.monotonic()
        seen = ask(Address.parse(peer.url), GET, seconds=0.5)
    assert time.monotonic() - began < BOUND
    assert seen.ending is Ending.OPEN
    assert seen.ended_at is None
    assert seen.payload.startswith(b"tick\n")


def flood() -> Iterator[bytes | float]:
    yield CHUNKED
    while True:
        yield chunk(b"x" * 60_000)


def test_a_flood_is_left_after_so_many_bytes():
    with answering(lambda request: flood()) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND, limit=500_000)
    assert seen.ending is Ending.OPEN
    assert 500_000 <= len(seen.payload) < 700_000
    assert seen.watched < BOUND


def test_a_bomb_is_left_after_so_many_bytes_of_payload():
    bomb = gzip.compress(b"\0" * 20_000_000)
    with answering([response(bomb, Content_Encoding="gzip")]) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND, limit=100_000)
    assert len(seen.payload) <= 100_000


def test_a_comparison_is_left_when_it_has_shown_enough():
    def answer(request: str) -> Iterator[bytes | float]:
        yield CHUNKED
        while True:
            yield chunk(b"tick\n")
            yield 0.1

    with answering(answer) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=60.0, enough=3)
    assert seen.watched < 30.0
    assert len(seen.bursts) == 3


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([], "ended without an answer"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "no head of HTTP/1"),
        ([b"HTTP/1.1 200 OK\r\nX: y\r\n"], "no head of HTTP/1"),
        ([BOUND], "no answer in "),
        ([b"X" * 70_000], "no head of HTTP/1"),
    ],
)
def test_what_is_no_answer_is_a_problem_and_no_error(steps: list[bytes | float], problem: str):
    with answering(steps) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=0.3)
    assert seen.head is None
    assert problem in (seen.problem or "")


def test_an_interim_response_is_passed_over():
    with answering([head("103 Early Hints", Link="</a.css>"), response(b"body")]) as peer:
        seen = ask(Address.parse(peer.url), GET, seconds=BOUND)
    assert seen.head is not None
    assert (seen.head.status, seen.payload) == (200, b"body")


def test_a_body_behind_the_answer_to_a_head_is_seen():
    with answering([response(b"body")]) as peer:
        seen = ask(Address.parse(peer.url), Question("HEAD", method="HEAD"), seconds=BOUND)
    assert (seen.after_end, seen.followed_by) == (4, b"body")
    assert seen.payload == b""
    assert "\r\nConnection: close\r\n" in peer.requests[0]


@pytest.mark.parametrize(("more", "ending"), [([], Ending.COMPLETE), ([BOUND], Ending.OPEN)])
def test_a_connection_that_stays_open_behind_the_answer_to_a_head_is_seen(more: list[float], ending: Ending):
    with answering([response(), *more]) as peer:
        seen = ask(Address.parse(peer.url), Question("HEAD", method="HEAD"), seconds=0.5)
    assert seen.ending is ending


def test_http_1_0_is_asked_as_nginx_asks_it():
    with answering([head(), b"body"]) as peer:
        ask(Address.parse(peer.url), Question("HTTP/1.0", version="1.0"), seconds=BOUND)
    assert peer.requests[0].startswith("GET / HTTP/1.0\r\n")
    assert "\r\nConnection: close\r\n" in peer.requests[0]


def test_a_port_where_nobody_listens_is_a_problem():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen = ask(Address.parse(f"http://127.0.0.1:{port}/"), GET, seconds=BOUND)
    assert seen.problem == f"127.0.0.1:{port}: Connection refused"


def test_a_port_that_speaks_no_tls_is_a_problem():
    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND)
        thread = threading.Thread(target=refuse)
        thread.start()
        seen = ask(Address.parse(f"https://127.0.0.1:{listener.getsockname()[1]}"), GET, seconds=BOUND)
        thread.join(BOUND)
    assert seen.head is None
    assert seen.problem is not None
    assert seen.problem.endswith(": is it http:// there?")


def test_so_it_does_in_the_words_of_a_newer_openssl(monkeypatch: pytest.MonkeyPatch):
    def wrap_socket(*args: object, **options: object) -> None:
        raise ssl.SSLError(1, "[SSL] record layer failure (_ssl.c:1033)")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_socket)
    with answering([b""]) as peer:
        seen = ask(Address.parse(peer.url.replace("http:", "https:")), GET, seconds=BOUND)
    assert (seen.problem or "").endswith(": is it http:// there?")


# -- all requests


def test_nothing_but_get_and_head_is_sent_and_one_request_at_a_time():
    came_meanwhile = []

    def answer(request: str) -> Iterator[bytes | float]:
        before = len(peer.requests)
        yield 0.05
        came_meanwhile.append(len(peer.requests) - before)
        yield response(b"" if request.startswith("HEAD") else b"body")

    with answering(answer) as peer:
        codes(peer.url, direct=peer.url)
    assert {request.split(" ")[0] for request in peer.requests} == {"GET", "HEAD"}
    assert all("\r\nContent-Length" not in request for request in peer.requests)
    versions = [request.split("\r\n")[0][-3:] for request in peer.requests]
    assert versions.count("1.0") == 1
    assert sum("Accept-Encoding: gzip, deflate" in request for request in peer.requests) == 2
    assert set(came_meanwhile) == {0}


def test_the_user_s_fields_go_with_each_request():
    with answering([response(b"body")]) as peer:
        codes(peer.url, fields=[("Cookie", "a=b")], path="/x?y=z")
    assert all("\r\nCookie: a=b\r\n" in request for request in peer.requests)
    assert all(request.split(" ")[1] == "/x?y=z" for request in peer.requests)


def test_a_redirect_is_followed_and_all_else_is_asked_there():
    def answer(request: str) -> list[bytes]:
        found = request.split(" ")[1]
        return [response(status="302 Found", Location="/there") if found == "/here" else response(b"body")]

    with answering(answer) as peer:
        diagnosis = examine_address(f"{peer.url}/here")
    assert diagnosis.facts["address"] == f"{peer.url}/there"
    assert [request.split(" ")[1] for request in peer.requests] == [
        "/here",
        *["/there"] * (len(peer.requests) - 1),
    ]


def test_five_redirects_are_followed_and_no_more():
    with answering([response(status="308 Permanent Redirect", Location="/again")]) as peer:
        assert examine_address(peer.url).status == 2
    assert len(peer.requests) == 6


def test_a_password_does_not_go_to_another_origin():
    with answering([response(b"body")]) as other:
        with answering([response(status="307 Temporary Redirect", Location=f"{other.url}/x")]) as peer:
            codes(peer.url, fields=[("Authorization", "Basic c2VjcmV0")])
    assert "Authorization" in peer.requests[0]
    assert other.requests
    assert not any("Authorization" in request for request in other.requests)


@pytest.mark.parametrize(
    ("steps", "refusal"),
    [
        ([response(status="404 Not Found")], "answered 404"),
        ([response(status="401 Unauthorized")], "--header"),
        ([response(status="503 Service Unavailable")], "answered 503"),
        ([response(status="302 Found", Location="/again")], "redirected more than 5 times"),
        ([response(status="302 Found", Location="gopher://x")], "address is"),
        ([response(status="304 Not Modified")], "answered 304"),
        ([b"nonsense\r\n\r\n"], "no head of HTTP/1"),
        ([], "ended without an answer"),
    ],
)
def test_what_cannot_be_examined_is_refused_with_its_reason(steps: list[bytes | float], refusal: str):
    with answering(steps) as peer:
        diagnosis = examine_address(peer.url, seconds=2)
    assert diagnosis.status == 2
    assert diagnosis.findings == ()
    assert refusal in (diagnosis.refusal or "")


def test_a_proxy_that_nobody_knows_is_refused_before_anything_is_asked():
    with answering([response(b"body")]) as peer:
        assert "nginx, apache" in (examine_address(peer.url, proxy="squid").refusal or "")
    assert peer.requests == []


def test_an_app_s_own_port_that_does_not_answer_is_a_refusal():
    with answering([response(b"body")]) as peer, answering([response(status="404 Not Found")]) as own:
        diagnosis = examine_address(peer.url, direct=own.url)
    assert (diagnosis.refusal or "").startswith(f"{own.url}/ answered 404")


def test_an_app_s_own_port_without_a_path_is_asked_for_the_same_path():
    with answering([response(b"body")]) as peer, answering([response(b"body")]) as own:
        examine_address(f"{peer.url}/x?y", direct=own.url)
        examine_address(f"{peer.url}/x?y", direct=f"{own.url}/inside")
    assert {request.split(" ")[1] for request in own.requests} == {"/x?y", "/inside"}


def test_a_page_is_no_stream():
    with answering(lambda request: [response(b"" if request.startswith("HEAD") else b"<p>page</p>")]) as peer:
        assert codes(peer.url) == ["no-stream"]


def test_the_last_chunk_behind_the_answer_to_a_head_is_laid_on_the_server():
    drip = dripping()

    def answer(request: str) -> Iterator[bytes | float]:
        yield from drip(request)
        if request.startswith("HEAD"):
            yield END  # as waitress does

    with answering(answer) as peer:
        (finding,) = examine_address(peer.url, seconds=BOUND).findings
    assert (finding.code, finding.severity.value) == ("head-differs", "note")
    assert [advice.where for advice in finding.advice] == ["your server"]


def test_a_late_page_with_its_length_behind_nginx_leads_to_the_http_version_that_nginx_speaks():
    def answer(request: str) -> Iterator[bytes | float]:
        yield 0.0 if request.startswith("HEAD") else 1.5
        yield response(b"" if request.startswith("HEAD") else b"row\n" * 9, Server="nginx")

    with answering(answer) as peer:
        (finding,) = examine_address(peer.url, seconds=BOUND).findings
    assert (finding.code, finding.guilty) == ("no-stream", None)
    assert "proxy_http_version 1.1;" in finding.advice[0].lines


def test_a_head_that_never_comes_is_not_held_against_anybody():
    def answer(request: str) -> list[bytes | float]:
        return [response()] if request.startswith("HEAD") else [BOUND]

    with answering(answer) as peer:
        diagnosis = examine_address(peer.url, seconds=0.5)
    assert [finding.code for finding in diagnosis.findings] == ["cannot-tell"]
    assert "though HEAD is answered" in diagnosis.findings[0].sentence


def test_a_server_that_answers_nothing_cannot_be_asked():
    with answering([BOUND]) as peer:
        assert examine_address(peer.url, seconds=0.5).status == 2


# -- over TLS


@pytest.mark.system
def test_a_stream_is_watched_over_tls_in_http_1_1(
    system_program: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            system_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with answering(dripping(), tls=context) as peer:
        untrusted = examine_address(peer.url, seconds=5)
        assert "certificate verify failed" in (untrusted.refusal or "")
        assert "SSL_CERT_FILE" in (untrusted.refusal or "")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        diagnosis = examine_address(peer.url, seconds=10)
    assert (diagnosis.refusal, diagnosis.findings) == (None, ())
    assert len(diagnosis.tracks[0].arrivals) >= 3
