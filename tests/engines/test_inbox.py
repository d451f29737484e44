"""One `receive()` for the application and for whoever watches for the leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamkit.engines.inbox import READ_AHEAD, Inbox

PATIENCE = 20.0
Play = Callable[[Inbox, "asyncio.Queue[Any]"], Awaitable[None]]


def play(scene: Play) -> None:
    async def main() -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        inbox = Inbox(messages.get)
        try:
            await asyncio.wait_for(scene(inbox, messages), PATIENCE)
        finally:
            inbox.stop()

    asyncio.run(main())


def body(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


LEAVE = {"type": "http.disconnect"}


def test_a_disconnect_that_the_server_says_once_is_said_to_everyone() -> None:
    async def scene(inbox: Inbox, messages: Any) -> None:
        left = asyncio.Event()
        inbox.watch(left.set, at_once=True)
        messages.put_nowait(LEAVE)
        await left.wait()
        assert await inbox.receive() == LEAVE
        assert await inbox.receive() == LEAVE
        inbox.watch(left.set)
        assert inbox.disconnected

    play(scene)


def test_a_request_body_that_a_watcher_received_reaches_the_application_in_order() -> None:
    async def scene(inbox: Inbox, messages: Any) -> None:
        left = asyncio.Event()
        inbox.watch(left.set, at_once=True)
        sent = [body(1), body(2), body(3, more=False)]
        for message in sent:
            messages.put_nowait(message)
        for _ in range(100):
            await asyncio.sleep(0)
        assert messages.empty()
        assert [await inbox.receive() for _ in sent] == sent
        waiting = asyncio.create_task(inbox.receive())
        messages.put_nowait(LEAVE)
        assert await waiting == LEAVE
        assert left.is_set()

    play(scene)


def test_a_leave_that_the_application_receives_is_seen_by_the_watcher() -> None:
    async def scene(inbox: Inbox, messages: Any) -> None:
        left = asyncio.Event()
        waiting = asyncio.create_task(inbox.receive())
        await asyncio.sleep(0)
        inbox.watch(left.set, at_once=True)
        messages.put_nowait(LEAVE)
        assert await waiting == LEAVE
        assert left.is_set()

    play(scene)


def test_a_watcher_holds_no_more_of_an_unread_body_than_the_bound() -> None:
    async def scene(inbox: Inbox, messages: Any) -> None:
        left = asyncio.Event()
        for _ in range(100):
            messages.put_nowait(body(READ_AHEAD // 2))
        inbox.watch(left.set, at_once=True)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert messages.qsize() >= 97
        for _ in range(100):
            await inbox.receive()
        messages.put_nowait(LEAVE)
        await left.wait()

    play(scene)


def test_a_stopped_watcher_calls_nobody() -> None:
    async def scene(inbox: Inbox, messages: Any) -> None:
        calls: list[int] = []
        inbox.watch(lambda: calls.append(1), at_once=True)
        await asyncio.sleep(0)
        inbox.stop()
        messages.put_nowait(LEAVE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert calls == []

    play(scene)


# The second is there from CPython 3.12 on.
FACTORIES = {"usual": None, "eager": getattr(asyncio, "eager_task_factory", None)}


@pytest.mark.parametrize("way", FACTORIES)
def test_of_many_that_begin_at_once_each_is_watched_and_the_stopped_ones_are_not(way: str) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(FACTORIES[way])
        asked: list[int] = []
        left: list[int] = []
        asked_in_time: set[int] = set()
        over = asyncio.Event()
        ended = set(range(3, 50))

        def inbox_of(number: int) -> Inbox:
            async def receive() -> dict[str, Any]:
                asked.append(number)
                return LEAVE

            return Inbox(receive)

        def leave(number: int) -> None:
            left.append(number)
            if number == 2:  # one that leaves may end others, whose watch was to begin with its own
                asked_in_time.update(asked)
                for other in ended:
                    inboxes[other].stop()
            if len(set(left) | ended) == 98:
                over.set()

        inboxes = [inbox_of(number) for number in range(100)]
        for number, inbox in enumerate(inboxes):
            inbox.watch(lambda number=number: leave(number))
        inboxes[0].stop()
        inboxes[1].stop()
        await asyncio.wait_for(over.wait(), PATIENCE)
        later = inbox_of(100)
        seen = asyncio.Event()
        later.watch(seen.set)  # after the timer of the others has struck for the last time
        await asyncio.wait_for(seen.wait(), PATIENCE)
        assert not {0, 1} & set(asked)
        assert len(left) == len(set(left)), "each leave is told once"
        assert set(asked) & ended <= asked_in_time, "who was stopped asks no more"

    asyncio.run(main())
