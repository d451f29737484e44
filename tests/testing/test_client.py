"""What a client takes, and when."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

import streamkit
from streamkit import testing
from streamkit.errors import NotAnApplication, OptionsError, StreamKitError
from streamkit.testing import AsyncClient, Client, LifespanFailed, NotOpen

from .ways import TEXT, survivors


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [environ["QUERY_STRING"].encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


def test_the_face_lists_its_names() -> None:
    assert sorted(testing.__all__) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name).__doc__


def test_errors_are_in_the_one_tree_and_are_what_the_field_would_catch() -> None:
    for error in (NotOpen, LifespanFailed):
        assert issubclass(error, StreamKitError)
        assert issubclass(error, RuntimeError)


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_interface_is_told_from_the_application(client: Any) -> None:
    assert (client(app).kind, client(asgi).kind) == ("wsgi", "asgi")
    assert client(lambda *request: None, kind="asgi").kind == "asgi"


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("nothing", [None, 5, "module:app", lambda: None])
def test_what_is_no_application_is_refused(client: Any, nothing: Any) -> None:
    with pytest.raises(NotAnApplication, match="wanted a WSGI application"):
        client(nothing)
    if not callable(nothing):
        with pytest.raises(NotAnApplication, match="wanted a WSGI application"):
            client(nothing, kind="wsgi")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_what_may_be_either_needs_its_kind(client: Any) -> None:
    with pytest.raises(NotAnApplication, match="say kind='wsgi' or kind='asgi'"):
        client(streamkit.stream(["a"]))


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("kind", "cgi", "kind: wanted 'wsgi', 'asgi' or None, got 'cgi'"),
        ("lifespan", True, "lifespan: wanted 'auto', 'on' or 'off', got True"),
        ("timeout", None, "timeout: wanted a finite number of seconds from 0 up, got None"),
        ("timeout", -1, "timeout: wanted a finite number"),
        ("timeout", float("inf"), "timeout: wanted a finite number"),
        ("timeout", float("nan"), "timeout: wanted a finite number"),
        ("timeout", "5", "timeout: wanted a finite number"),
        ("timeout", True, "timeout: wanted a finite number"),
        ("read_ahead", -1, "read_ahead: wanted a whole number from 0 up, got -1"),
        ("read_ahead", 1.5, "read_ahead: wanted a whole number"),
    ],
)
def test_arguments_of_a_client_that_do_not_hold_are_refused(
    client: Any, argument: str, value: Any, said: str
) -> None:
    with pytest.raises(OptionsError, match=said):
        client(app, **{argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("method", "GET /", "method: wanted a method such as 'GET', got 'GET /'"),
        ("method", "", "method: wanted a method"),
        ("method", None, "method: wanted a method"),
        ("path", "x", "path: wanted a str that begins with '/', got 'x'"),
        ("path", "http://localhost/", "path: wanted a str that begins with '/'"),
        ("path", b"/", "path: wanted a str that begins with '/'"),
        ("path", None, "path: wanted a str that begins with '/'"),
        ("query", 5, "query: wanted a str, a mapping, or pairs"),
        ("headers", 5, "headers: wanted a mapping, or pairs"),
        ("headers", ["a"], "headers: wanted a mapping, or pairs"),
        ("headers", {"a b": "c"}, "headers: wanted a header name"),
        ("headers", {"a": "b\nc"}, "headers: the value of a must not contain CR, LF"),
        ("headers", {"a": 5}, "headers: wanted a str as the value of a"),
        ("headers", [(5, "b")], "headers: wanted a header name"),
        ("body", "text", "body: wanted bytes, got str: 'text'"),
        ("http_version", 1.1, "http_version: wanted one of 1.0, 1.1, 2, 3, got 1.1"),
        ("http_version", "0.9", "http_version: wanted one of"),
        ("read_ahead", "1", "read_ahead: wanted a whole number"),
        ("environ_extra", [], "environ_extra: wanted a mapping or None"),
        ("scope_extra", 5, "scope_extra: wanted a mapping or None"),
    ],
)
def test_requests_that_no_client_could_send_are_refused(argument: str, value: Any, said: str) -> None:
    request = {"method": "GET", "path": "/", argument: value}
    with Client(app) as client, pytest.raises(OptionsError, match=said):
        client.open(**request)


def test_all_faults_of_a_request_are_told_in_one_message() -> None:
    with Client(app) as client, pytest.raises(OptionsError) as refused:
        client.get("x?a=b", query="c=d", body="", http_version="4")  # type: ignore[arg-type]
    assert len(refused.value.faults) == 3
    with Client(app) as client, pytest.raises(OptionsError, match="query: given twice"):
        client.get("/?a=b", query="c=d")


@pytest.mark.parametrize(
    ("path", "query", "arrived"),
    [
        ("/", None, b""),
        ("/?", None, b""),
        ("/?a=b&a=c", None, b"a=b&a=c"),
        ("/?a=%20 ü?/", None, b"a=%20%20%C3%BC?/"),
        ("/", "a=b", b"a=b"),
        ("/", {"a": "b c", "d": ["e", "f"]}, b"a=b+c&d=e&d=f"),
        ("/", [("a", "1"), ("a", 2)], b"a=1&a=2"),
    ],
)
def test_a_query_is_quoted_once(path: str, query: Any, arrived: bytes) -> None:
    with Client(app) as client:
        assert client.get(path, query=query).read() == arrived


@pytest.mark.parametrize("timeout", [-1, "5", True, float("nan")])
def test_a_wait_of_no_time_at_all_is_refused(timeout: Any) -> None:
    with Client(app) as client:
        connection = client.get("/")
        for wait in (connection.next_chunk, connection.read, connection.wait_head, connection.wait_closed,
                     connection.next_event, connection.close):  # fmt: skip
            with pytest.raises(OptionsError, match="timeout: wanted a finite number of seconds"):
                wait(timeout)
        with pytest.raises(OptionsError, match="limit: wanted a whole number"):
            connection.read(limit=-1)
        assert connection.read() == b""


def test_a_client_takes_requests_inside_its_block_alone() -> None:
    client = Client(app)
    with pytest.raises(NotOpen, match="open it first"):
        client.get("/")
    with client:
        assert client.get("/?a").read() == b"a"
        with pytest.raises(NotOpen, match="opened once"):
            client.__enter__()
    with pytest.raises(NotOpen, match="it is closed"):
        client.get("/")
    with pytest.raises(NotOpen, match="opened once"):
        client.__enter__()
    client.close()


def test_a_client_that_was_never_opened_can_be_closed() -> None:
    async def main() -> None:
        await AsyncClient(asgi).close()

    Client(asgi).close()
    asyncio.run(main())
    assert not survivors()


def test_a_wsgi_application_is_not_told_of_a_shutdown_but_takes_no_more_requests() -> None:
    with Client(app) as client:
        connection = client.get("/?a")
        assert client.shutdown(wait=True) is False
        with pytest.raises(NotOpen, match="told to shut down"):
            client.get("/")
        assert connection.read() == b"a"


class Noteless(RuntimeError):
    """An error as all are before CPython 3.11."""

    add_note = None


@pytest.mark.parametrize("kind", [RuntimeError, Noteless])
def test_closing_goes_through_all_connections_and_tells_of_each(kind: type[Exception]) -> None:
    def failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise kind(environ["QUERY_STRING"])

    client = Client(failing).__enter__()
    client.get("/?first")
    client.get("/?second")
    with pytest.raises(kind, match="first") as raised:
        client.close()
    shown = "".join(traceback.format_exception(raised.value))
    assert shown.count(f"{kind.__name__}: second") == 1
    assert not survivors()
