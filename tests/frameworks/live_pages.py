"""Pages that are the same in each framework: live views, a description, a template.

Rule: a page is a program (see `programs`), which knows no framework; what it needs of one stands in
that framework's `Ways`. A program says by `seen(key, ...)` what nobody outside can see.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import streamkit
from streamkit.errors import AlreadyCommitted

from .programs import Wait

ETAG = '"same"'
name_of_request: ContextVar[str] = ContextVar("name_of_request", default="nobody")
left_behind: ContextVar[str] = ContextVar("left_behind", default="")
told: dict[str, list[str]] = defaultdict(list)
released: dict[str, threading.Event] = defaultdict(threading.Event)


def seen(key: str, what: str) -> None:
    told[key].append(what)


def release(key: str) -> str:
    released[key].set()
    return "released"


def what_was_seen(key: str) -> str:
    return json.dumps(told[key])


class Ways:
    """What a program needs of its framework."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def query(self, name: str) -> str:
        raise NotImplementedError

    def session(self) -> Any:
        raise NotImplementedError

    def missing(self) -> BaseException:
        """The framework's own 404."""
        raise NotImplementedError

    def whole(self, text: str, status: int = 200) -> Any:
        """An ordinary response."""
        raise NotImplementedError

    def if_none_match(self) -> str | None:
        raise NotImplementedError

    @property
    def key(self) -> str:
        return self.query("key")


# ---------------------------------------------------------------- the pages


def hello(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    stream.set_cookie("tasted", "1")
    ways.session()["visits"] = 1
    yield f"hello {name}"
    for change in (
        lambda: stream.headers.set("X-Late", "1"),
        lambda: stream.set_cookie("late", "1"),
        lambda: ways.session().update(visits=2),
    ):
        try:
            change()
        except AlreadyCommitted:
            seen(ways.key, "refused")
    yield Wait(released[ways.key])
    yield ", world"


def events(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    stream.headers["Content-Type"] = "text/event-stream"
    yield f"data: {name}\n\n"
    yield "data: world\n\n"


def whole(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    yield from ()
    return ways.whole(f"all of {name}")


def missing(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    stream.headers["X-Never-Seen"] = "1"
    yield from ()
    raise ways.missing()


def same(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    if ways.if_none_match() == ETAG:
        return ways.whole("", 304)
    stream.headers["ETag"] = ETAG
    yield "changed"


def empty(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    stream.status = 204
    yield from ()


def fails(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    if ways.query("type"):
        stream.headers["Content-Type"] = ways.query("type")
    stream.on_error(lambda stream, error: seen(ways.key, type(error).__name__))
    if ways.query("when") == "late":
        yield "[1, "
    raise ZeroDivisionError("on purpose")


def mended(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    """An error hook writes the last event by itself."""
    stream.headers["Content-Type"] = "text/event-stream"
    is_async = isinstance(stream, streamkit.AsyncResponseStream)

    def mend(stream: Any, error: BaseException) -> None:
        stream.write("event: sorry\ndata: mended\n\n")
        stream.close()

    async def mend_async(stream: Any, error: BaseException) -> None:
        await stream.write("event: sorry\ndata: mended\n\n")
        await stream.close()

    stream.on_error(mend_async if is_async else mend)
    yield "data: 1\n\n"
    raise ZeroDivisionError("on purpose")


def endless(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    """Ends when its client leaves; a text that a full connection soon holds up."""
    stream.headers["Content-Type"] = "text/csv"
    stream.on_finish(lambda stream: seen(ways.key, stream.outcome))
    try:
        while True:
            yield "x" * 4096
    except BaseException as error:
        seen(ways.key, type(error).__name__)
        raise


def deaf(ways: Ways, stream: Any, name: str) -> Iterator[Any]:
    """Runs on, whether its client has left or not."""
    stream.ignore_disconnect = True
    stream.headers["Content-Type"] = "text/csv"
    stream.on_finish(lambda stream: seen(ways.key, stream.outcome))
    while stream.connected:
        yield "x" * 4096
    for _ in range(15):
        yield "x" * 65536
    seen(ways.key, "done")


PAGES = (hello, events, whole, missing, same, empty, fails, mended, endless, deaf)


def export(ways: Ways) -> streamkit.StreamingResponse:
    """A download with all that may stand around a producer; it says whose request it is of."""
    key, when, early = ways.key, ways.query("when"), ways.missing()
    name_of_request.set(ways.query("name"))

    @contextmanager
    def opened() -> Iterator[None]:
        seen(key, "opened")
        try:
            yield
        finally:
            seen(key, "closed")

    def rows(stream: streamkit.ResponseStream) -> None:
        if when == "early":
            raise early
        seen(key, "row")
        stream.write(f"{name_of_request.get()},{left_behind.get()}\r\n")
        left_behind.set(name_of_request.get())
        if when == "late":
            raise ZeroDivisionError("on purpose")

    return streamkit.send_stream(
        rows, "na\u00efve.csv", resources=[opened()], callback=lambda: seen(key, "called back")
    )


TEMPLATES = {
    "layout.html": "<title>{{ title }}</title><body>{% content %}</body></html>",
    "page.html": "<h1>{{ request.path }}</h1>{% flush %}"
    "{% defer %}<b>{{ slow() }}</b>{% placeholder %}<i>wait</i>{% enddefer %}<p>{{ title }}</p>",
}


def page_wishes(ways: Ways) -> dict[str, Any]:
    """A page whose deferred block waits until it is released."""
    key = ways.key

    def slow() -> str:
        assert released[key].wait(20)
        return "slow"

    return {"layout": "layout.html", "context": {"title": "Live", "slow": slow}}
