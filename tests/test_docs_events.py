"""The page on server-sent events: its code runs, and what it says of ends and replays holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.testing import Client

PAGE = (Path(__file__).parents[1] / "docs" / "events.md").read_text()
KINDS = ["wsgi", "asgi"]
DONE = {"Last-Event-ID": "streamkit.done"}


@pytest.fixture
def page() -> dict[str, Any]:
    """What the blocks of the page define, one after the other."""
    pytest.importorskip("flask")
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/events.md", "exec"), names)
    return names


def told(connection: Any) -> list[tuple[str | None, str, str | None]]:
    return [(event.event, event.data, event.id) for event in connection.events()]


def next_of(connection: Any) -> tuple[str | None, str, str | None]:
    event = connection.next_event(PATIENCE)
    assert event is not None
    return (event.event, event.data, event.id)


def last(event: tuple[Any, Any, str | None]) -> dict[str, str]:
    assert event[2] is not None
    return {"Last-Event-ID": event[2]}


def test_every_argument_of_its_own_is_on_the_page() -> None:
    code = streamkit.event_stream.__init__.__code__
    taken = set(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    table = PAGE.split("| argument |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert listed == taken - {"producer", "options"}


@pytest.mark.parametrize("face", [streamkit.EventStream, streamkit.AsyncEventStream])
def test_every_member_of_its_own_is_on_the_page(face: type) -> None:
    own = {name for name in dir(face) if not name.startswith("_")} - set(dir(streamkit.ResponseStream))
    table = PAGE.split("| member |")[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(\w+)[`(]", cell)}
    assert listed == own - {"sync"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_goes_on_after_the_last_id(page: dict[str, Any], kind: Any) -> None:
    with Client(page["view"](), kind=kind) as client:
        body = client.get("/").read()
        assert body.startswith(b'retry: 3000\nevent: tick\nid: 1\ndata: {"number":1}\n\nretry: 3000\n')
        assert told(client.get("/", headers={"Last-Event-ID": "2"})) == [("tick", '{"number":3}', "3")]
        assert client.get("/", headers=DONE).status == 204


@pytest.mark.parametrize("kind", KINDS)
def test_done_is_an_id_without_an_event(page: dict[str, Any], kind: Any) -> None:
    with Client(streamkit.event_stream(page["ticks_async"]), kind=kind) as client:
        assert client.get("/").read() == b"data: text\n\n: no page sees this\n\nid: streamkit.done\n\n"
        assert [data for _, data, _ in told(client.get("/"))] == ["text"]


def test_httpx_sse_makes_an_empty_event_of_done() -> None:
    httpx = pytest.importorskip("httpx")
    httpx_sse = pytest.importorskip("httpx_sse")
    response = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=b"data: text\n\nid: streamkit.done\n\n"
    )
    events = [(event.data, event.id) for event in httpx_sse.EventSource(response).iter_sse()]
    assert events == [("text", ""), ("", "streamkit.done")]


def test_items_become_what_the_page_shows(page: dict[str, Any]) -> None:
    with Client(page["app"]) as client:
        assert client.get("/").read() == b"".join(page["encoded"])
    with pytest.raises(streamkit.EventFieldError):
        streamkit.sse.encode(b"bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_answered_so_that_the_browser_stops(page: dict[str, Any], kind: Any) -> None:
    with Client(page["stopped"], kind=kind) as client:
        assert told(client.get("/")) == [(None, "first", None), ("failed", "no prices today", None)]
        assert client.get("/", headers=DONE).status == 204
    with Client(streamkit.event_stream(page["failing"], end_event=True), kind=kind) as client:
        answer = client.get("/")
        names = [name for name, _, _ in told(answer)]
        assert (names, answer.complete) == ([None, "error", "streamkit.end"], True)


@pytest.mark.parametrize(("name", "kind"), [("prices", "wsgi"), ("prices", "asgi"), ("prices_async", "asgi")])
def test_each_listener_hears_all_and_what_it_missed(page: dict[str, Any], name: str, kind: Any) -> None:
    described, listeners = page[name], page["listeners"]

    def app(*request: Any) -> Any:
        query = request[0].get("QUERY_STRING") or request[0].get("query_string", b"").decode()
        if query:
            page["publish"](int(query))  # under ASGI on the loop, as the page says
            return streamkit.stream(["told"])(*request)
        return described()(*request)

    def published(price: int) -> None:
        assert client.get("/", query=str(price)).read() == b"told"

    with Client(app, kind=kind) as client:
        one, two = client.get("/"), client.get("/")
        assert (one.status, two.status) == (200, 200)
        assert until(lambda: len(listeners) == 2)
        published(1)
        first = next_of(one)
        assert first[1] == '{"price":1}'
        assert next_of(two) == first
        one.close()
        assert until(lambda: len(listeners) == 1)
        published(2)
        assert next_of(two)[1] == '{"price":2}'
        two.close()
        assert until(lambda: not listeners)
        published(3)
        again = client.get("/", headers=last(first))
        assert [next_of(again)[1] for _ in range(2)] == ['{"price":2}', '{"price":3}']
        assert until(lambda: len(listeners) == 1)
        published(4)
        assert next_of(again)[1] == '{"price":4}'
        stranger = client.get("/", headers={"Last-Event-ID": "of another process"})
        assert next_of(stranger)[:2] == ("stream-reset", '{"last_event_id":"of another process"}')


def test_a_listener_that_does_not_read_is_let_go_and_comes_back(page: dict[str, Any]) -> None:
    with Client(page["prices"](), kind="wsgi") as client:
        slow = client.get("/")
        assert slow.status == 200
        assert until(lambda: page["listeners"])
        (mine,) = page["listeners"]
        price = 0
        while mine in page["listeners"]:
            page["publish"](price := price + 1)
        seen = told(slow)
        assert [data for _, data, _ in seen] == [f'{{"price":{n + 1}}}' for n in range(len(seen))]
        again = client.get("/", headers=last(seen[-1]))
        assert next_of(again)[1] == f'{{"price":{len(seen) + 1}}}'


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_in_sqlite_serves_every_process(page: dict[str, Any], kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    log, other = page["Log"](path, size=3), page["Log"](path, size=3)

    def app(*request: Any) -> Any:
        return page["followed"](log)(*request)

    with Client(app, kind=kind) as client:
        answer = client.get("/")
        assert answer.status == 200
        other.add({"n": 1})
        first = next_of(answer)
        assert first == (None, '{"n": 1}', "1")
        answer.close()
        other.add({"n": 2})
        again = client.get("/", headers=last(first))
        assert next_of(again)[1] == '{"n": 2}'
        other.add({"n": 3})
        assert next_of(again)[1] == '{"n": 3}'
        for number in (4, 5):
            other.add({"n": number})
        assert [next_of(again)[1] for _ in range(2)] == ['{"n": 4}', '{"n": 5}']
        for unknown in ("1", "6", "-1", "nonsense", "9" * 40):
            lost = client.get("/", headers={"Last-Event-ID": unknown})
            assert next_of(lost)[0] == "stream-reset"
            lost.close()


def test_what_is_written_between_the_beginning_and_the_replay_is_sent_once(
    page: dict[str, Any], tmp_path: Path
) -> None:
    log = page["Log"](tmp_path / "log")
    log.add(1)
    described = page["followed"](log)
    log.add(2)
    with Client(described, kind="wsgi") as client:
        answer = client.get("/", headers={"Last-Event-ID": "1"})
        assert next_of(answer)[1] == "2"
        log.add(3)
        assert next_of(answer)[1] == "3"


def test_a_live_view_sends_events(page: dict[str, Any]) -> None:
    with Client(page["site"]) as client:
        answer = client.get("/ticks", headers={"Last-Event-ID": "1"})
        assert told(answer) == [(None, '{"number":2}', "2"), (None, '{"number":3}', "3")]
