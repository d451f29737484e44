"""The WSGI side is a server as PEP 3333 wants it, and tells of an application that is none."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from wsgiref.validate import validator

import pytest

import streamkit
from streamkit.errors import ProtocolViolation
from streamkit.testing import Client

from .ways import TEXT, survivors

Environ = dict[str, Any]


class Body:
    """An iterable whose steps are noted with their threads."""

    def __init__(self, parts: Iterator[bytes], notes: list[tuple[str, int]]) -> None:
        self.parts, self.notes = parts, notes

    def note(self, step: str) -> None:
        self.notes.append((step, threading.get_ident()))

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        self.note("next")
        return next(self.parts)

    def close(self) -> None:
        self.note("close")


def returning(body: Callable[[], Any], status: str = "200 OK", headers: Any = TEXT) -> Any:
    def app(environ: Environ, start_response: Any) -> Any:
        start_response(status, headers)
        return body()

    return app


def endless() -> Iterator[bytes]:
    while True:
        yield b"tick\n"


def failing() -> Iterator[bytes]:
    yield b"one"
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("parts", "read"),
    [(lambda: iter([b"one", b"two"]), 3), (lambda: iter([b"one", b"two"]), 1), (endless, 2), (failing, 1)],
    ids=["whole", "left", "endless", "failing"],
)
def test_close_is_called_once_on_the_thread_that_iterates(parts: Any, read: int) -> None:
    notes: list[tuple[str, int]] = []
    app = returning(lambda: Body(parts(), notes))
    with Client(app) as client, client.get("/") as connection:
        for _ in range(read):
            connection.next_chunk()
    assert [step for step, _ in notes] == ["next"] * read + ["close"]
    assert {thread for _, thread in notes} == {notes[0][1]}
    assert notes[0][1] != threading.get_ident()


def test_close_is_called_where_the_iteration_failed() -> None:
    notes: list[tuple[str, int]] = []
    with Client(returning(lambda: Body(failing(), notes))) as client, client.get("/") as connection:
        assert connection.next_chunk() == b"one"
        with pytest.raises(RuntimeError, match="boom"):
            connection.next_chunk()
        connection.wait_closed()
    assert [step for step, _ in notes] == ["next", "next", "close"]


def test_close_is_called_on_what_is_no_iterable_at_all() -> None:
    class Nothing:
        closed = False

        def close(self) -> None:
            self.closed = True

    nothing = Nothing()
    with Client(returning(lambda: nothing)) as client, client.get("/") as connection:
        with pytest.raises(ProtocolViolation, match="wanted an iterable of bytes"):
            connection.read()
        connection.wait_closed()
    assert nothing.closed


def test_an_error_in_close_does_not_spoil_a_whole_body_but_is_told() -> None:
    def parts() -> Iterator[bytes]:
        yield b"whole"

    class Closing(Body):
        def close(self) -> None:
            raise RuntimeError("boom")

    app = returning(lambda: Closing(parts(), []))
    with Client(app) as client:
        connection = client.get("/")
        assert connection.read() == b"whole"
        assert connection.complete
        with pytest.raises(RuntimeError, match="boom"):
            connection.close()


VALID: dict[str, Callable[[], Any]] = {
    "list": lambda: returning(lambda: [b"one", b"two"]),
    "iterator": lambda: returning(lambda: iter([b"one", b"two"])),
    "stream": lambda: streamkit.stream(lambda stream: stream.writelines(["one", "two"])),
    "wrapped": lambda: streamkit.wrap(returning(lambda: iter([b"one", b"two"]))),
    "written": lambda: streamkit.wrap(written),
    "imperative": lambda: imperative,
}


def written(environ: Environ, start_response: Any) -> list[bytes]:
    environ["streamkit.stream"].writelines(["one", "two"])
    return []


def imperative(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"one")
    write(b"two")
    return []


@pytest.mark.parametrize("app", VALID.values(), ids=VALID.keys())
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_standard_librarys_validator_stands_between_without_a_word(
    app: Callable[[], Any], method: str, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(validator(app()), kind="wsgi") as client:
        connection = client.open(method, "/a?b=c", http_version=version, headers={"Cookie": "a=b"})
        assert connection.read() == b"onetwo"
        connection.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("app", VALID.values(), ids=VALID.keys())
def test_the_validator_has_nothing_to_say_of_a_leave(
    app: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(validator(app()), kind="wsgi") as client, client.get("/") as connection:
        assert connection.next_chunk()
    assert capsys.readouterr().err == ""


def test_what_the_validator_finds_is_raised_to_the_test() -> None:
    app = validator(returning(lambda: [b"x"], headers=[]))
    with Client(app, kind="wsgi") as client, pytest.raises(AssertionError, match="No Content-Type header"):
        client.get("/").read()


def test_the_environ_is_that_of_a_server() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read()]

    headers = [("X-A", "1"), ("X-A", "2"), ("Cookie", "a=b"), ("Cookie", "c=d"), ("Content-Type", "text/x")]
    extra = {"wsgi.url_scheme": "https", "HTTPS": "on"}
    with Client(app) as client:
        connection = client.open(
            "post", "/caf%C3%A9/ö x?q=ü&r=%20", headers=headers, body=b"abc", http_version="1.0",
            environ_extra=extra, scope_extra={"ignored": True},
        )  # fmt: skip
        assert connection.read() == b"abc"
    environ = seen[0]
    assert type(environ) is dict
    wanted = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/café/ö x".encode().decode("latin-1"),
        "QUERY_STRING": "q=%C3%BC&r=%20", "CONTENT_TYPE": "text/x", "CONTENT_LENGTH": "3",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.0", "HTTPS": "on",
        "HTTP_HOST": "localhost", "HTTP_X_A": "1, 2", "HTTP_COOKIE": "a=b; c=d", "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https", "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False, "wsgi.errors": sys.stderr,
    }  # fmt: skip
    assert {key: environ[key] for key in wanted} == wanted
    assert isinstance(environ["wsgi.file_wrapper"](io.BytesIO(b"")), environ["wsgi.file_wrapper"])


def test_write_returns_when_the_next_chunk_is_wanted() -> None:
    written: list[int] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"")  # it sends the head, and holds nobody up
        for n in range(3):
            written.append(n)
            write(b"%d" % n)
        return [b"rest"]

    with Client(app) as client, client.get("/") as connection:
        assert connection.status == 200
        for n in range(3):
            assert connection.next_chunk() == b"%d" % n
            assert written == list(range(n + 1))
        assert connection.read() == b"rest"


def test_write_raises_what_a_server_raises_when_the_client_is_gone() -> None:
    heard: list[BaseException] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        try:
            while True:
                write(b"tick")
        except BrokenPipeError as gone:
            heard.append(gone)
            raise RuntimeError("could not write") from gone

    with Client(app) as client, client.get("/") as connection:
        assert connection.next_chunk() == b"tick"
        connection.disconnect()
        connection.wait_closed()
        assert connection.error is None
    assert len(heard) == 1


def test_an_error_beside_the_leave_is_the_applications_own() -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        try:
            while True:
                write(b"tick")
        finally:
            raise RuntimeError("in its tidying up")

    with Client(app) as client:
        connection = client.get("/")
        assert connection.next_chunk() == b"tick"
        with pytest.raises(RuntimeError, match="tidying up"):
            connection.close()


def test_the_head_leaves_with_the_first_chunk_and_may_be_replaced_until_then() -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            start_response("500 Oh", TEXT, sys.exc_info())
        yield b"an error page"

    with Client(app) as client:
        connection = client.get("/")
        assert connection.next_chunk() == b"an error page"
        assert connection.status == 500


def test_a_head_that_was_seen_is_not_replaced() -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"one"
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            start_response("500 Oh", TEXT, sys.exc_info())
        yield b"never"

    with Client(app) as client:
        connection = client.get("/")
        assert connection.next_chunk() == b"one"
        with pytest.raises(RuntimeError, match="boom"):
            connection.next_chunk()
        assert connection.status == 200


def start_twice(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return []


def swallows(environ: Environ, start_response: Any) -> list[bytes]:
    try:
        start_response("nonsense", TEXT)
    except ProtocolViolation:
        start_response("200 OK", TEXT)
    return [b"all is well"]


def writes_text(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", TEXT)("text")
    return []


BREACHES: list[tuple[str, Any, str]] = [
    ("no start", lambda environ, start_response: [b"x"], "a chunk came before start_response"),
    ("no start at all", lambda environ, start_response: [], "the body ended before start_response"),
    ("two starts", start_twice, "a second time without exc_info"),
    ("a breach let pass", swallows, "wanted a status"),
    ("status code", returning(list, status=200), "wanted a status such as '200 OK'"),  # type: ignore[arg-type]
    ("status text", returning(list, status="OK"), "wanted a status such as '200 OK'"),
    ("headers dict", returning(list, headers={}), "wanted the headers as a list"),
    ("header list", returning(list, headers=[["A", "b"]]), "wanted each header as a tuple"),
    ("header bytes", returning(list, headers=[(b"A", b"b")]), "wanted a header name"),
    ("header value", returning(list, headers=[("A", "b\r\nC: d")]), "must not contain CR, LF"),
    ("hop by hop", returning(list, headers=[("Connection", "close")]), "Connection is hop-by-hop"),
    ("text", returning(lambda: ["x"]), "wanted each chunk as bytes"),
    ("bytearray", returning(lambda: [bytearray(b"x")]), "wanted each chunk as bytes"),
    ("one text", returning(lambda: "x"), "wanted an iterable of bytes"),
    ("one bytes", returning(lambda: b"x"), "wanted an iterable of bytes"),
    ("none", returning(lambda: None), "wanted an iterable of bytes"),
    ("written text", writes_text, "wanted each chunk as bytes"),
]


@pytest.mark.parametrize(("app", "said"), [breach[1:] for breach in BREACHES], ids=[b[0] for b in BREACHES])
def test_a_breach_of_pep_3333_is_raised_to_the_test(app: Any, said: str) -> None:
    with Client(app, kind="wsgi") as client, pytest.raises(ProtocolViolation, match=said):
        client.get("/").read()


def test_an_exit_of_the_application_reaches_the_test() -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        sys.exit(3)

    with Client(app) as client, pytest.raises(SystemExit):
        client.get("/").read()


def test_the_context_of_the_test_is_that_of_the_application_but_not_the_other_way() -> None:
    number: ContextVar[int] = ContextVar("number")

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen = number.get()
        number.set(8)
        start_response("200 OK", TEXT)
        return [str(seen).encode()]

    number.set(7)
    with Client(app) as client:
        assert client.get("/").read() == b"7"
    assert number.get() == 7


def test_an_application_that_does_not_end_is_told_with_its_place() -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        go_on.wait(20)
        start_response("200 OK", TEXT)
        return []

    client = Client(app, timeout=0.05)
    said = r"in wait .* < app \(.*test_wsgi.py:\d+\).*; the client has left, and it still runs"
    with pytest.raises(TimeoutError, match=said):
        with client:
            client.get("/")
    go_on.set()
    for thread in threading.enumerate():
        if thread.name in survivors():
            thread.join(20)
    assert not survivors()
