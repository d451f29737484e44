"""A layer from request to response that fails while it has streams in its hands leaves none of them open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from streamkit.unbuffer.around_request import InsideRequest, OutsideRequest

webob = pytest.importorskip("webob")


class Body:
    def __init__(self) -> None:
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"x"])

    def close(self) -> None:
        self.is_closed = True


class Stopped(BaseException):
    """As of a server that stops its worker."""


def asked_twice(error: BaseException, *, later: bool = False) -> tuple[list[Body], Any]:
    """A layer that asks the app twice, and then fails: the bodies that it had, and what came of it."""
    bodies: list[Body] = []

    def app(request: Any) -> Any:
        bodies.append(Body())
        return webob.Response(app_iter=bodies[-1])

    inside = InsideRequest(app)

    def layer(request: Any) -> Any:
        inside(request)
        inside(request)
        raise error

    async def layer_later(request: Any) -> Any:
        layer(request)

    answer: Any = None
    try:
        if later:
            answer = asyncio.run(OutsideRequest(layer_later, inside)(webob.Request.blank("/")))
        else:
            answer = OutsideRequest(layer, inside)(webob.Request.blank("/"))
    except BaseException as raised:
        answer = raised
    return bodies, answer


@pytest.mark.parametrize("later", [False, True])
def test_the_stream_of_a_layer_that_fails_goes_on_and_those_before_it_are_closed(later: bool) -> None:
    (first, last), answer = asked_twice(ValueError("of an empty body"), later=later)
    assert (first.is_closed, last.is_closed) == (True, False)
    assert answer.app_iter is last


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("error", [Stopped(), asyncio.CancelledError()], ids=["stopped", "cancelled"])
def test_the_streams_of_a_layer_that_is_stopped_are_closed(error: BaseException, later: bool) -> None:
    bodies, raised = asked_twice(error, later=later)
    assert type(raised) is type(error)
    assert [body.is_closed for body in bodies] == [True, True]


def test_the_stream_that_a_layer_refuses_is_closed() -> None:
    body = Body()
    inside = InsideRequest(lambda request: webob.Response(app_iter=body))

    def layer(request: Any) -> Any:
        inside(request)
        return webob.Response(status=403, body=b"not for you")

    answer = OutsideRequest(layer, inside)(webob.Request.blank("/"))
    assert (answer.status_code, answer.body) == (403, b"not for you")
    assert body.is_closed


def test_each_cookie_of_a_layer_stands_beside_those_of_the_stream() -> None:
    def app(request: Any) -> Any:
        response = webob.Response(app_iter=Body())
        response.set_cookie("app", "1")
        return response

    inside = InsideRequest(app)

    def layer(request: Any) -> Any:
        response = inside(request)
        response.set_cookie("first", "2")
        response.set_cookie("second", "3")
        return response

    answer = OutsideRequest(layer, inside)(webob.Request.blank("/"))
    cookies = [cookie.partition(";")[0] for cookie in answer.headers.getall("Set-Cookie")]
    assert cookies == ["app=1", "first=2", "second=3"]
    assert b"".join(answer.app_iter) == b"x"
