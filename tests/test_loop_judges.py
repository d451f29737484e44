"""A loop goes on after an error for a hook of its own, and for no other."""

from __future__ import annotations

from typing import Any

import pytest
from driving import AsgiServer, WsgiServer, until

import streamkit

BOOM = RuntimeError("boom")


def failing(asynchronous: bool, told: list[BaseException]) -> Any:
    """Two letters, then errors; it ends by itself where it is called on and on."""
    turns = iter("ab")

    def turn() -> str | None:
        letter = next(turns, None)
        if letter is None and len(told) < 3:
            raise BOOM
        return letter

    def producer(stream: Any) -> None:
        letter = turn()
        stream.close() if letter is None else stream.write(letter)

    async def producer_async(stream: Any) -> None:
        letter = turn()
        await (stream.close() if letter is None else stream.write(letter))

    return producer_async if asynchronous else producer


def served(app: Any, interface: str) -> Any:
    with (WsgiServer if interface == "wsgi" else AsgiServer)(streamkit.wrap(app, kind=interface)) as server:
        return server.request().finish()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_hook_that_hears_of_the_errors_of_all_streams_does_not_keep_a_failing_loop_going(
    interface: str, asynchronous: bool
) -> None:
    told: list[BaseException] = []
    calls: list[str] = []
    described = streamkit.stream(
        failing(asynchronous, told), loop=True, callback=lambda: calls.append("callback")
    )
    app = streamkit.wrap(described, kind=interface, on_error=lambda stream, error: told.append(error))
    answer = served(app, interface)
    assert (answer.body, answer.complete, answer.error) == (b"ab", False, BOOM)
    assert until(lambda: calls)
    assert (told, calls) == ([BOOM], ["callback"])


@pytest.mark.parametrize("by", ["argument", "option"])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_hook_of_its_own_keeps_it_going(interface: str, asynchronous: bool, by: str) -> None:
    told: list[BaseException] = []

    def judge(stream: Any, error: BaseException) -> None:
        told.append(error)

    hooks: dict[str, Any] = {"on_error": judge} if by == "argument" else {"options": {"on_error": judge}}
    app = streamkit.stream(failing(asynchronous, told), loop=True, **hooks)
    answer = served(app, interface)
    assert (answer.body, answer.complete, answer.error) == (b"ab", True, None)
    assert told == [BOOM] * 3
