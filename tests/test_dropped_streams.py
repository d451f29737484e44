"""What is answered in place of a stream that a layer between two wraps has closed; and odd calls."""

from __future__ import annotations

from typing import Any

import pytest
from driving import WsgiServer, environ_of

import streamkit


def test_a_stream_in_place_of_one_that_a_layer_has_closed_is_cared_for_by_the_outer_wrap() -> None:
    outcomes: list[Any] = []

    def first(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return (b"no" for _ in range(1))

    tried = streamkit.wrap(first)

    def second(environ: Any, start_response: Any) -> Any:
        tried(dict(environ), lambda status, headers, exc_info=None: lambda chunk: None).close()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"yes" for _ in range(1))

    app = streamkit.wrap(second, on_finish=lambda stream: outcomes.append(stream.outcome))
    with WsgiServer(app) as server:
        answer = server.request().finish()
    assert (answer.body, answer.header("X-Accel-Buffering"), outcomes) == (b"yes", "no", ["finished"])


def test_a_response_that_is_called_with_a_name_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError):
        streamkit.stream(["x"])(environ_of(), lambda *head: None, more=1)  # type: ignore[call-overload]
