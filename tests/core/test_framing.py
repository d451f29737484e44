"""What kind of body a response has."""

from __future__ import annotations

import pytest

from streamkit.core.framing import Body, Request, frame, options_of, version_of

GET11 = Request("GET", (1, 1), False)
GET10 = Request("GET", (1, 0), False)
GET10_CLOSING = Request("GET", (1, 0), True)
GET2 = Request("GET", (2, 0), False)


@pytest.mark.parametrize("request_", [GET11, GET2])
@pytest.mark.parametrize("http10", ["auto", "buffer", "stream", "reject"])
def test_http_1_1_and_later_stream_whatever_is_said_of_1_0(request_: Request, http10: str) -> None:
    assert frame(request_, 200, http10=http10) is Body.STREAM
    assert frame(request_, 200, http10=http10, endless=True) is Body.STREAM


@pytest.mark.parametrize(
    ("request_", "endless", "length", "http10", "body"),
    [
        (GET10, False, None, "auto", Body.WHOLE),
        (GET10, True, None, "auto", Body.STREAM),
        (GET10, False, 5, "auto", Body.STREAM),
        (GET10_CLOSING, False, None, "auto", Body.STREAM),
        (GET10_CLOSING, False, None, "buffer", Body.WHOLE),
        (GET10, True, None, "buffer", Body.WHOLE),
        (GET10, False, None, "stream", Body.STREAM),
    ],
)
def test_an_http_1_0_body_is_held_unless_its_end_is_certain_or_never_comes(
    request_: Request, endless: bool, length: int | None, http10: str, body: Body
) -> None:
    assert frame(request_, 200, endless=endless, content_length=length, http10=http10) is body


@pytest.mark.parametrize("status", [100, 103, 199, 204, 205, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_some_statuses_have_no_body_under_any_method(status: int, method: str) -> None:
    assert frame(Request(method, (1, 1), False), status, content_length=5) is Body.NONE


@pytest.mark.parametrize("version", [(1, 0), (1, 1), (2, 0)])
def test_a_head_response_has_the_head_alone(version: tuple[int, int]) -> None:
    assert frame(Request("HEAD", version, False), 200) is Body.UNSENT


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("HTTP/1.1", (1, 1)),
        ("HTTP/1.0", (1, 0)),
        ("1", (1, 0)),  # granian's word for 1.0
        ("1.0", (1, 0)),
        ("2", (2, 0)),
        ("HTTP/2.0", (2, 0)),
        ("HTTP/3", (3, 0)),
        ("HTTP/0.9", (0, 9)),
        ("INCLUDED", (1, 1)),
    ],
)
def test_versions_are_read_as_numbers(said: str, version: tuple[int, int]) -> None:
    assert version_of(said) == version


def test_connection_options_are_read_without_case_and_in_any_place() -> None:
    assert options_of("Keep-Alive, CLOSE ,te") == {"keep-alive", "close", "te"}


def test_a_request_is_read_from_an_environ_and_from_a_scope_alike() -> None:
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0", "HTTP_CONNECTION": "Close"}
    scope = {"method": "GET", "http_version": "1.0", "headers": [(b"connection", b"Close")]}
    assert Request.of_environ(environ) == Request.of_scope(scope) == GET10_CLOSING
