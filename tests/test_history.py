"""`History` between threads and processes, and which ids and events it takes.

Rule: what is in the midst of `add` is held there by a destructor of what it lets go of, or by a trace.
"""

from __future__ import annotations

import copy
import enum
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit import ServerSentEvent
from streamkit.errors import EventFieldError, ProducerError
from streamkit.sse import Decoder, History
from streamkit.testing import Client


def event(number: int) -> ServerSentEvent:
    return ServerSentEvent(f"event {number}", id=number)


class Held:
    """Data whose destructor waits."""

    def __init__(self) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()

    def kept_by(self, history: History) -> None:
        history.add(ServerSentEvent(_Waiting(self), id="held"))


class _Waiting:
    def __init__(self, held: Held) -> None:
        self.held = held

    def __del__(self) -> None:
        self.held.reached.set()
        self.held.let_go.wait(PATIENCE)


def test_nobody_is_told_of_a_later_event_and_never_of_the_one_before_it() -> None:
    """Two threads add; one of them is in the midst of it, and the other through, when a client asks."""
    history, held, told = History(2), Held(), list[Any]()
    held.kept_by(history)
    history.add(event(2))
    first = threading.Thread(target=history.add, args=(event(3),))
    first.start()
    assert held.reached.wait(PATIENCE)

    def second() -> None:
        history.add(event(4))
        told.extend(history.since("2") or ())

    asking = threading.Thread(target=second)
    asking.start()
    asking.join(1)  # should it wait for the first
    held.let_go.set()
    for thread in (first, asking):
        thread.join(PATIENCE)
    told.extend(history.since(str(told[-1].id)) or ())
    assert told == [event(3), event(4)]


def test_a_destructor_may_add_an_event_in_the_midst_of_another() -> None:
    history = History(1)

    class Last:
        def __del__(self) -> None:
            history.add(event(3))

    history.add(ServerSentEvent(Last(), id=1))
    history.add(event(2))
    assert history.since("2") == [event(3)]


class Name(str, enum.Enum):
    first, second = "1st", "2nd"


class Number(enum.IntEnum):
    first, second = 1, 2


@pytest.mark.parametrize("ids", [Name, Number])
def test_an_id_of_an_enumeration_is_known_by_what_was_sent(ids: Any) -> None:
    history = History()
    items = [ServerSentEvent(one.name, id=one) for one in ids]
    with Client(streamkit.event_stream(items, replay=history), kind="wsgi") as client:
        first = Decoder().feed(client.get("/").read())
        assert [seen.id for seen in first] == [str(one.value) for one in ids]
        again = client.get("/", headers={"Last-Event-ID": first[0].id or ""}).read()
        assert [(seen.event, seen.data) for seen in Decoder().feed(again)] == [(None, "second")]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"event": "a\nb"}, "without CR and LF"),
        ({"event": 5}, "event: wanted a str"),
        ({"retry": "soon"}, "whole milliseconds"),
        ({"id": True}, "a str or an int"),
    ],
)
def test_a_field_that_cannot_be_sent_is_refused_where_it_is_added(bad: dict[str, Any], told: str) -> None:
    """And not from each client that comes back and would be sent it."""
    history = History()
    with pytest.raises(EventFieldError, match=told):
        history.add(ServerSentEvent(**{"data": "d", "id": 1, **bad}))
    assert len(history) == 0


def test_a_class_is_no_replay() -> None:
    """It would be found out by the first client that comes back."""
    with pytest.raises(ProducerError, match="wanted an object with since"):
        streamkit.event_stream(["a"], replay=History)  # type: ignore[arg-type]


class Kept:
    @classmethod
    def since(cls, last_event_id: str) -> list[ServerSentEvent]:
        return [ServerSentEvent("missed", id=2)]


def test_a_class_is_one_whose_own_method_it_is() -> None:
    with Client(streamkit.event_stream(["a"], replay=Kept), kind="wsgi") as client:
        again = client.get("/", headers={"Last-Event-ID": "1"}).read()
    assert [seen.data for seen in Decoder().feed(again)] == ["missed", "a"]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_a_history_has_its_events_and_goes_its_own_way(again: Callable[[Any], Any]) -> None:
    history = History(2)
    for number in range(4):
        history.add(event(number))
    copied = (
        again(streamkit.event_stream(["a"], replay=history)).replay
        if again is copy.deepcopy
        else again(history)
    )
    copied.add(event(4))
    assert (copied.since("2"), history.since("2")) == ([event(3), event(4)], [event(3)])
    assert copied.since("1") is None


FORKS = """
import os, signal, sys, threading, warnings
from streamkit import ServerSentEvent
from streamkit.sse import History

warnings.simplefilter("ignore")  # a fork with threads at work is what is asked for here


def forked_at(step):
    history, amid, forked, left = History(), threading.Event(), threading.Event(), [step]

    def look(frame, what, detail):
        if "replay" not in frame.f_code.co_filename:
            return None
        left[0] -= 1
        if left[0] == 0:
            amid.set()
            forked.wait(20)
        return look

    def add():
        sys.settrace(look)
        history.add(ServerSentEvent("a", id=1))
        sys.settrace(None)
        amid.set()

    thread = threading.Thread(target=add)
    thread.start()
    amid.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(20)
        history.add(ServerSentEvent("b", id=2))
        history.add(ServerSentEvent("c", id=3))
        os._exit([event.id for event in history.since("2")] != [3])
    forked.set()
    thread.join(20)
    assert os.waitpid(child, 0)[1] == 0, step
    return left[0] <= 0


step = 1
while forked_at(step):
    step += 1
assert step > 5, step
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="wanted os.fork")
def test_a_fork_amid_an_add_leaves_the_child_a_history() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=PATIENCE * 5)
