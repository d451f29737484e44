"""`replay=`: what a client missed comes first, nothing comes twice, and what is lost is said to be lost.

Rule: whether something was lost or doubled is read off the ids alone, and never off the time.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until
from shapes import Program, Run, Serve, serving
from test_event_stream import FUNCTIONS, KINDS, WAYS, app_of, giving

import streamkit
from streamkit import ServerSentEvent
from streamkit.errors import EventFieldError, OptionsError, ProducerError
from streamkit.sse import Decoder, History
from streamkit.testing import Client

ASYNC = [way for way in WAYS if way.awaits]
AFTER_1 = [("Last-Event-ID", "1")]
RESET = b'event: stream-reset\ndata: {"last_event_id":"1"}\n\n'


@pytest.fixture(params=WAYS, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=ASYNC, ids=str)
def asynchronous(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


class Found:
    """A replay that finds what it was given, and notes what it was asked."""

    def __init__(self, found: Any) -> None:
        self.found, self.asked = found, list[str]()

    def since(self, last_event_id: str) -> Any:
        self.asked.append(last_event_id)
        return self.found


def event(number: int) -> ServerSentEvent:
    return ServerSentEvent(f"event {number}", id=number)


def ids(body: bytes) -> list[int]:
    return [int(seen.id or 0) for seen in Decoder().feed(body)]


# ---------------------------------------------------------------- a replay of the application's own


def test_what_was_missed_comes_before_what_is_made(served: Serve) -> None:
    replay = Found(iter([event(2), ServerSentEvent({"n": 3}, "own", 3), "text"]))
    answer = served(giving(event(4)), sent=AFTER_1, replay=replay, event="e", retry=5).finish()
    assert answer.body == (
        b"retry: 5\nevent: e\nid: 2\ndata: event 2\n\n"
        b'retry: 5\nevent: own\nid: 3\ndata: {"n":3}\n\nretry: 5\nevent: e\ndata: text\n\n'
        b"retry: 5\nevent: e\nid: 4\ndata: event 4\n\n"
    )
    assert replay.asked == ["1"]


def test_a_client_that_comes_for_the_first_time_missed_nothing(served: Serve) -> None:
    replay = Found([event(2)])
    assert ids(served(giving(event(4)), replay=replay).finish().body) == [4]
    assert ids(served(giving(event(4)), replay=replay, method="HEAD", sent=AFTER_1).finish().body) == []
    assert ids(served(giving(event(4)), sent=[("Last-Event-ID", "")], replay=replay).finish().body) == [4]
    assert replay.asked == []
    asked: dict[str, Any] = {"query": "after=1", "last_event_id_param": "after"}
    assert ids(served(giving(event(4)), replay=replay, **asked).finish().body) == [2, 4]
    assert replay.asked == ["1"]


def test_what_is_no_longer_known_is_one_reset_in_place_of_a_gap(served: Serve) -> None:
    items = [ServerSentEvent("no id"), event(1), event(5)]
    answer = served(giving(*items), sent=AFTER_1, replay=Found(None)).finish()
    assert answer.body == RESET + b"data: no id\n\nid: 1\ndata: event 1\n\nid: 5\ndata: event 5\n\n"


def test_what_the_client_has_had_is_not_sent_again(served: Serve) -> None:
    """Also where a replayed event had no id: then those without are not known, and none is left out."""
    items = [event(1), event(3), ServerSentEvent("no id"), "text", ServerSentEvent("empty", id=""), event(4)]
    replay = Found([event(2), event(3), ServerSentEvent("neither"), ServerSentEvent("nor", id="")])
    answer = served(giving(*items), sent=AFTER_1, replay=replay).finish()
    assert [seen.data for seen in Decoder().feed(answer.body)] == [
        "event 2", "event 3", "neither", "nor", "no id", "text", "empty", "event 4",
    ]  # fmt: skip


def test_a_since_may_be_awaited(asynchronous: Serve) -> None:
    class Awaited(Found):
        async def since(self, last_event_id: str) -> Any:
            await asyncio.sleep(0)
            return super().since(last_event_id)

    class Iterated(Found):
        async def since(self, last_event_id: str) -> AsyncIterator[ServerSentEvent]:
            for found in super().since(last_event_id):
                yield found

    for kind in (Awaited, Iterated):
        replay = kind([event(2)])
        answer = asynchronous(giving(event(2), event(3)), sent=AFTER_1, replay=replay).finish()
        assert (ids(answer.body), replay.asked) == ([2, 3], ["1"])
    assert (
        asynchronous(giving("a"), sent=AFTER_1, replay=Awaited(None)).finish().body == RESET + b"data: a\n\n"
    )


def test_a_coroutine_needs_a_producer_that_can_wait() -> None:
    class Awaited:
        async def since(self, last_event_id: str) -> None: ...

    with pytest.raises(ProducerError, match="an asynchronous producer, not a plain iterable"):
        streamkit.event_stream(["a"], replay=Awaited())
    for producer in (lambda stream: None, ["a"]):
        replay = Found(None)
        replay.since = lambda last: Awaited().since(last)  # type: ignore[method-assign]
        with Client(streamkit.event_stream(producer, replay=replay), kind="wsgi") as client:
            answer = client.get("/", headers={"Last-Event-ID": "1"})
            with pytest.raises(ProducerError, match="only an asynchronous producer"):
                answer.read()


@pytest.mark.parametrize("found", ["text", b"bytes", event(2), 5])
def test_a_since_that_finds_no_events_says_what_came(served: Serve, found: Any) -> None:
    answer = served(giving(event(4)), sent=AFTER_1, replay=Found(found)).finish()
    assert not answer.committed
    assert isinstance(answer.error, ProducerError)
    assert f"got {found!r}" in str(answer.error)


def test_an_error_in_since_is_a_real_500(served: Serve) -> None:
    boom, ends = LookupError("boom"), list[str]()

    class Broken:
        def since(self, last_event_id: str) -> Any:
            raise boom

    answer = served(giving("a"), sent=AFTER_1, replay=Broken(), callback=lambda: ends.append("end")).finish()
    assert (answer.committed, answer.error) == (False, boom)
    assert until(lambda: ends == ["end"])


def test_a_producer_that_is_repeated_replays_once(functions: Serve) -> None:
    rounds = list[int]()

    def program(stream: Any) -> Run:
        rounds.append(1)
        yield event(2 + len(rounds))
        if len(rounds) == 3:
            yield lambda: stream.close()

    answer = functions(program, sent=AFTER_1, loop=True, replay=Found([event(2), event(3)])).finish()
    assert ids(answer.body) == [2, 3, 4, 5]


def test_a_replay_s_own_add_is_not_called(served: Serve) -> None:
    class Log(Found):
        def add(self, channel: str, text: str) -> None:
            raise AssertionError("not asked for")

    assert ids(served(giving(event(1)), replay=Log([])).finish().body) == [1]


# ---------------------------------------------------------------- the history


def test_a_history_keeps_the_last_events_each_once() -> None:
    history = History(3)
    for number in [1, 2, 2, 3, 4, 1]:
        history.add(event(number))
    history.add(ServerSentEvent("no id"))
    history.add(ServerSentEvent("empty", id=""))
    assert len(history) == 3
    assert history.since("2") == [event(3), event(4)]
    assert history.since("4") == []
    assert history.since("1") == [event(2), event(3), event(4)]  # all that came after it are there
    assert history.since("5") is None
    assert History().since("1") is None
    history.add(event(5))
    assert history.since("1") is None


def test_a_history_of_one_event_is_one() -> None:
    history = History(1)
    for number in range(1, 50):
        history.add(event(number))
        assert (history.since(str(number)), history.since(str(number - 2))) == ([], None)
    assert history.since("48") == [event(49)]


def test_a_history_that_many_threads_fill_at_once_has_each_event_once_and_in_order() -> None:
    history, events = History(10_000), [event(number) for number in range(1, 2001)]
    fillers = [threading.Thread(target=lambda: [history.add(each) for each in events]) for _ in range(4)]
    for step in (threading.Thread.start, threading.Thread.join):
        for filler in fillers:
            step(filler)
    assert history.since("1") == events[1:]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "5", None])
def test_a_history_s_size_is_a_number_of_events(size: Any) -> None:
    with pytest.raises(OptionsError, match="size: wanted a whole number of events"):
        History(size)


def test_what_cannot_be_sent_is_not_kept() -> None:
    history = History()
    for bad, told in (
        ("text", "a ServerSentEvent"),
        (ServerSentEvent("a", id="b\n"), "CR, LF"),
        (None, "got"),
    ):
        with pytest.raises(EventFieldError, match=told):
            history.add(bad)  # type: ignore[arg-type]
    assert len(history) == 0


def test_a_stream_fills_its_history_with_events_as_they_were(functions: Serve) -> None:
    history, state = History(), {"n": 0}

    def program(stream: Any) -> Run:
        for state["n"] in (1, 2, 3):
            yield lambda: stream.send(state, id=state["n"], event="e")
        yield "no id"

    first = functions(program, replay=history).finish()
    assert ids(first.body)[:3] == [1, 2, 3]
    second = functions(giving(), sent=AFTER_1, replay=history).finish()
    assert second.body == b'event: e\nid: 2\ndata: {"n":2}\n\nevent: e\nid: 3\ndata: {"n":3}\n\n'


def test_a_producer_that_begins_at_the_beginning_sends_only_what_is_new(served: Serve) -> None:
    history = History()
    first = served(giving(*map(event, range(1, 5))), replay=history).finish()
    assert ids(first.body) == [1, 2, 3, 4]
    again = served(giving(*map(event, range(1, 7))), sent=[("Last-Event-ID", "2")], replay=history).finish()
    assert ids(again.body) == [3, 4, 5, 6]


def test_a_stream_that_lags_behind_brings_nothing_back() -> None:
    history = History(2)
    with Client(app_of("wsgi", lambda: streamkit.event_stream(map(event, range(1, 10)), replay=history)),
                kind="wsgi", read_ahead=1) as client:  # fmt: skip
        assert ids(client.get("/").read()) == list(range(1, 10))
        assert ids(client.get("/").read()) == list(range(1, 10))
        missed = client.get("/", headers={"Last-Event-ID": "8"})  # it replays 9, whose turn came again
        assert ids(missed.read()) == [9]
    assert history.since("8") == [event(9)]


def deaf_at_first(history: History, heard: list[int]) -> Program:
    def program() -> Run:
        for number in (4, 5, 6):  # sent by others, or by hand, before this one has begun to listen
            history.add(event(number))
        yield "no id"
        for number in heard:
            yield event(number)
        yield event(7)

    return program


@pytest.mark.parametrize("heard", [[6], [5, 6], []], ids=repr)
def test_what_comes_between_the_replay_and_the_producer_s_beginning_is_not_lost(
    served: Serve, heard: list[int]
) -> None:
    """A generator's body begins when it is advanced: until then it listens to nothing."""
    history = History()
    for number in (1, 2, 3):
        history.add(event(number))
    asked: dict[str, Any] = {"sent": [("Last-Event-ID", "2")], "replay": history}
    answer = served(deaf_at_first(history, heard), **asked).finish()
    told = [seen.data for seen in Decoder().feed(answer.body)]
    assert told == ["event 3", "no id", "event 4", "event 5", "event 6", "event 7"]


def test_a_gap_that_is_too_long_is_a_reset() -> None:
    history = History(2)

    def generator() -> Iterator[ServerSentEvent]:
        for number in range(2, 9):
            history.add(event(number))
        yield event(9)

    history.add(event(1))
    with Client(streamkit.event_stream(generator(), replay=history), kind="wsgi") as client:
        body = client.get("/", headers={"Last-Event-ID": "1"}).read()
    assert body == RESET + b"id: 9\ndata: event 9\n\n"


# ---------------------------------------------------------------- many clients


class Feed:
    """One publisher and its listeners, who begin to listen when their generator is advanced."""

    def __init__(self) -> None:
        self.history = History(100_000)
        self.over = threading.Event()
        self._listeners = set[Callable[[int | None], object]]()
        self._lock = threading.Lock()

    def publish(self, number: int | None) -> None:
        with self._lock:
            if number is None:
                self.over.set()
            else:
                self.history.add(event(number))
            for tell in tuple(self._listeners):
                tell(number)

    @contextmanager
    def telling(self, tell: Callable[[int | None], object]) -> Iterator[None]:
        with self._lock:
            self._listeners.add(tell)
            if self.over.is_set():
                tell(None)
        try:
            yield
        finally:
            self._listeners.discard(tell)

    def events(self) -> Iterator[ServerSentEvent]:
        heard: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        with self.telling(heard.put):
            while (number := heard.get(timeout=PATIENCE)) is not None:
                yield event(number)

    async def async_events(self) -> AsyncIterator[ServerSentEvent]:
        heard: asyncio.Queue[int | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with self.telling(lambda number: loop.call_soon_threadsafe(heard.put_nowait, number)):
            while (number := await heard.get()) is not None:
                yield event(number)

    def function(self, stream: Any) -> None:
        for found in self.events():
            stream.send(found)

    async def async_function(self, stream: Any) -> None:
        async for found in self.async_events():
            await stream.send(found)

    def producer(self, kind: str) -> Any:
        return {"function": self.function, "async-function": self.async_function,
                "iterable": self.events(), "async-iterable": self.async_events()}[kind]  # fmt: skip


def follow(server: Any, seen: list[int]) -> None:
    """Read all events after the first, as one who leaves and comes back again and again."""
    dice = random.Random(id(seen))
    while len(seen) < 300:
        last = str(seen[-1] if seen else 1)
        answer, decoder = server.request(sent=[("Last-Event-ID", last)]), Decoder(last_event_id=last)
        for _ in range(dice.randrange(1, 60)):
            seen.extend(int(found.id or 0) for found in decoder.feed(answer.read()))
        answer.leave()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_many_clients_that_leave_and_come_back_miss_nothing_and_have_nothing_twice(
    interface: str, kind: str
) -> None:
    feed, pause = Feed(), threading.Event()
    feed.publish(1)
    app = app_of(interface, lambda: streamkit.event_stream(feed.producer(kind), replay=feed.history))
    seen: list[list[int]] = [[] for _ in range(6)]
    with WsgiServer(app) if interface == "wsgi" else AsgiServer(app) as server:
        clients = [threading.Thread(target=follow, args=(server, mine)) for mine in seen]
        for client in clients:
            client.start()
        number = 1
        while any(client.is_alive() for client in clients):
            feed.publish(number := number + 1)
            pause.wait(0.001)
        feed.publish(None)
    for mine in seen:
        assert mine == list(range(2, len(mine) + 2))
        assert len(mine) >= 300
