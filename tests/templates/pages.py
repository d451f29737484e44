"""Templates served in each of the ways that there are: either interface, either kind of environment.

    def test_something(pages):
        pages.add("page.html", "a{% flush %}{{ gate('slow') }}b")
        answer = pages.get(lambda templates: templates.chunked("page.html"))
        assert answer.read() == b"a"
        pages.open("slow")

Rule: a template knows neither interface nor kind; `gate` waits in it until the test opens it, as a
slow query would, and gives its name as text.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import jinja2
from driving import PATIENCE, Answer, AsgiServer, Sent, WsgiServer

import streamkit


@dataclass(frozen=True)
class Way:
    interface: str
    is_async: bool
    wrapped: bool = False

    def __str__(self) -> str:
        kind = "async" if self.is_async else "sync"
        return f"{self.interface}-{kind}{'-wrapped' if self.wrapped else ''}"


WAYS = [
    *(Way(interface, is_async) for interface in ("wsgi", "asgi") for is_async in (False, True)),
    Way("wsgi", False, wrapped=True),
    Way("asgi", True, wrapped=True),
]


class Events(dict[str, threading.Event]):
    """An event for each name, the same for every thread that asks."""

    def __missing__(self, name: str) -> threading.Event:
        return self.setdefault(name, threading.Event())


@dataclass
class Pages:
    way: Way
    servers: ExitStack
    sources: dict[str, str] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=Events)
    reached: dict[str, threading.Event] = field(default_factory=Events)
    log: list[str] = field(default_factory=list)
    _environment: jinja2.Environment | None = None

    def add(self, name: str, source: str) -> None:
        self.sources[name] = source

    @property
    def environment(self) -> jinja2.Environment:
        if self._environment is None:
            self._environment = jinja2.Environment(
                loader=jinja2.DictLoader(self.sources), autoescape=True, enable_async=self.way.is_async
            )
            self._environment.globals["gate"] = self._gate_async if self.way.is_async else self._gate
        return self._environment

    def _gate(self, name: str) -> str:
        self.log.append(name)
        self.reached[name].set()
        assert self.gates[name].wait(PATIENCE), f"nobody opened {name!r}"
        return name

    async def _gate_async(self, name: str) -> str:
        return await asyncio.to_thread(self._gate, name)

    def open(self, name: str) -> None:
        self.gates[name].set()

    def wait_for(self, name: str) -> None:
        assert self.reached[name].wait(PATIENCE), f"the template never came to {name!r}"

    def function(self, body: Callable[[], Any]) -> Callable[[], Any]:
        """A function of the kind that the environment takes."""
        if not self.way.is_async:
            return body

        async def awaited() -> Any:
            await asyncio.sleep(0)
            return body()

        return awaited

    def hook(self, text: str) -> Callable[..., Any]:
        """An error hook that writes this."""
        if not self.way.is_async:
            return lambda stream, error: stream.write(text)

        async def write(stream: Any, error: BaseException) -> None:
            await stream.write(text)

        return write

    def get(
        self,
        describe: Callable[[streamkit.Templates], Any],
        *,
        options: Any = None,
        method: str = "GET",
        version: str = "1.1",
        sent: Sent = (),
        before: Callable[[], object] = lambda: None,
    ) -> Answer:
        templates = streamkit.Templates(self.environment, options)

        def view() -> Any:
            before()
            return describe(templates)

        app: Any
        if self.way.interface == "wsgi":

            def app(environ: Any, start_response: Any) -> Any:
                return view()(environ, start_response)

            server: Any = WsgiServer
        else:

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await view()(scope, receive, send)

            server = AsgiServer
        if self.way.wrapped:
            app = streamkit.wrap(app, kind=self.way.interface)
        running = self.servers.enter_context(server(app))
        answer: Answer = running.request(method, sent=sent, version=version)
        return answer


def serving(way: Way) -> Iterator[Pages]:
    with ExitStack() as servers:
        pages = Pages(way, servers)
        try:
            yield pages
        finally:
            for gate in list(pages.gates.values()):
                gate.set()


def pieces(answer: Answer) -> list[str]:
    """All the pieces of a page that is over, as text."""
    answer.finish()
    return [chunk.decode() for chunk in answer.chunks]
