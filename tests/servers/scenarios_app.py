"""What test_scenarios.py asks the servers for, beside what `apps` has.

    /length/sync-function/short      a body of a declared length, shorter than it said
    /kept/async-function/open?key=a  a stream kept open; /kept/async-function/push and /close write into it
    /leave/imperative?key=b          goes on when it is released after its client left
    /abort/sync-function/after       cut short by the producer itself
    /context/sync-iterable           says whose request it takes itself for, and then sets a name
    /fault/returns-none              an application that breaks its interface, wrapped

Rule: as in `apps`, only child processes import this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import streamkit

from . import apps
from .apps import Play, Release, Script, key_of

WHOLE = b"Hello World!"  # what /length/ declares the length of
PIECES: dict[str, list[bytes]] = {
    "exact": [b"Hello ", b"World!"],
    "short": [b"Hello "],
    "long": [b"Hello ", b"World!", b" and more"],
    "fails": [b"Hello "],
}
LATE = b"y" * 65536  # one of fifteen chunks that are written after the leave

OURS = ("/length/", "/kept/", "/context/", "/abort/", "/leave/")

kept: dict[str, Any] = {}
name: ContextVar[str] = ContextVar("name", default="nobody")


def pieces_of(what: str) -> Iterator[bytes]:
    yield from PIECES[what]
    if what == "fails":
        raise apps.Boom("before the end")


async def pieces_of_async(what: str) -> AsyncIterator[bytes]:
    for piece in pieces_of(what):
        yield piece


def with_a_length(way: str, what: str) -> Any:
    def write_all(stream: Any) -> None:
        for piece in pieces_of(what):
            stream.write(piece)

    async def write_all_async(stream: Any) -> None:
        for piece in pieces_of(what):
            await stream.write(piece)

    producers: dict[str, Callable[[], Any]] = {
        "sync-function": lambda: write_all,
        "async-function": lambda: write_all_async,
        "sync-iterable": lambda: pieces_of(what),
        "async-iterable": lambda: pieces_of_async(what),
    }
    return streamkit.stream(producers[way](), content_length=len(WHOLE))


def opened(way: str, key: str) -> Any:
    play = Play(apps.SCRIPTS["short"], key)

    def opening(stream: Any) -> None:
        kept[key] = stream
        stream.write("hi!")

    async def opening_async(stream: Any) -> None:
        kept[key] = stream.sync
        await stream.write("hi!")

    producer = opening if way == "sync-function" else opening_async
    return streamkit.stream(producer, keep_open=True, callback=lambda: play.count("callback"))


def kept_answer(way: str, act: str, key: str) -> Any:
    if act == "open":
        return opened(way, key)
    if act == "push":
        kept[key].write("hello")
    else:
        kept.pop(key).close()
    return streamkit.stream([b"ok"])


def write_on(play: Play, stream: Any) -> None:
    stream.ignore_disconnect = True
    stream.on_error(lambda stream, error: play.count(f"error {type(error).__name__}"))
    stream.on_finish(play.finished)
    stream.write(b"first\n")
    play.rest(Release())
    for _ in range(15):
        stream.write(LATE)
    play.count("completed")


async def write_on_async(play: Play, stream: Any) -> None:
    stream.ignore_disconnect = True
    stream.on_error(lambda stream, error: play.count(f"error {type(error).__name__}"))
    stream.on_finish(play.finished)
    await stream.write(b"first\n")
    await play.rest_async(Release())
    for _ in range(15):
        await stream.write(LATE)
    play.count("completed")


def aborting(way: str, when: str, key: str) -> Any:
    play = Play(Script(list), key)

    def abort(stream: Any) -> None:
        if when == "after":
            stream.write(b"first\n")
            play.rest(Release())
        stream.abort("no more paper")

    async def abort_async(stream: Any) -> None:
        if when == "after":
            await stream.write(b"first\n")
            await play.rest_async(Release())
        stream.abort("no more paper")

    return streamkit.stream(abort if way == "sync-function" else abort_async)


def names() -> Iterator[str]:
    yield f"{name.get()}\n"
    name.set("somebody")
    yield f"{name.get()}\n"


async def names_async() -> AsyncIterator[str]:
    for each in names():
        yield each


def of_context(way: str) -> Any:
    def write_all(stream: Any) -> None:
        stream.writelines(names())

    async def write_all_async(stream: Any) -> None:
        await stream.writelines(names())

    producers: dict[str, Callable[[], Any]] = {
        "sync-function": lambda: write_all,
        "async-function": lambda: write_all_async,
        "sync-iterable": names,
        "async-iterable": names_async,
    }
    return streamkit.stream(producers[way]())


def described(path: str, query: str) -> Any:
    """The description that answers /length/, /kept/, /context/, /abort/ and, of a function, /leave/."""
    _, kind, way, *more = path.split("/")
    if kind == "context":
        return of_context(way)
    if kind == "length":
        return with_a_length(way, *more)
    if kind == "kept":
        return kept_answer(way, more[0], key_of(query))
    if kind == "abort":
        return aborting(way, *more, key_of(query))
    play = Play(Script(list), key_of(query))
    if way == "sync-function":
        return streamkit.stream(lambda stream: write_on(play, stream))

    async def producer(stream: Any) -> None:
        await write_on_async(play, stream)

    return streamkit.stream(producer)


def faulty_producer(fault: str) -> Any:
    """Descriptions that fail before they have sent anything."""

    def producer(stream: Any) -> None:
        if fault == "writes-5":
            stream.write(5)
        elif fault == "header-newline":
            stream.headers["X-Bad"] = "1\r\nX-Injected: 1"
        elif fault == "negative-timeout":
            stream.wait_finished(-1)
        stream.write(b"never")

    if fault == "yields-5":
        return streamkit.stream([5])
    if fault == "no-producer":
        return streamkit.stream(None)  # type: ignore[arg-type]
    if fault == "unknown-option":
        return streamkit.stream(producer, options={"hartbeat": 1})
    return streamkit.stream(producer)


# WSGI.


def faulty_wsgi_app(environ: dict[str, Any], start_response: Any) -> Any:
    fault = environ["PATH_INFO"].rpartition("/")[2]
    head = [("Content-Type", "text/plain")]
    if fault == "returns-none":
        start_response("200 OK", head)
        return None
    if fault == "starts-twice":
        start_response("200 OK", head)
        start_response("200 OK", head)
        return iter([b"never"])
    if fault == "never-starts":
        return iter([b"never"])
    if fault == "header-newline-foreign":
        start_response("200 OK", [*head, ("X-Bad", "1\r\nX-Injected: 1")])
        return iter([b"never"])
    return faulty_producer(fault)(environ, start_response)


_faulty_wsgi_app = streamkit.wrap(faulty_wsgi_app, kind="wsgi")


def inner_wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    play = Play(Script(list), key_of(environ.get("QUERY_STRING", "")))
    write_on(play, environ["streamkit.stream"])
    return []


_inner_wsgi_app = streamkit.wrap(inner_wsgi_app, kind="wsgi")


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    if path.startswith("/fault/"):
        return _faulty_wsgi_app(environ, start_response)
    if path == "/leave/imperative":
        return _inner_wsgi_app(environ, start_response)
    if path.startswith(OURS):
        return described(path, query)(environ, start_response)  # type: ignore[no-any-return]
    return apps.wsgi_app(environ, start_response)


# ASGI.

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"never", "more_body": True}


async def faulty_asgi_app(scope: Any, receive: Any, send: Any) -> None:
    fault = scope["path"].rpartition("/")[2]
    if fault == "returns-none":
        return
    if fault == "starts-twice":
        await send(START)
        await send(START)
    elif fault == "never-starts":
        await send(BODY)
    elif fault == "header-newline-foreign":
        await send({**START, "headers": [(b"x-bad", b"1\r\nX-Injected: 1")]})
        await send(BODY)
    else:
        await faulty_producer(fault)(scope, receive, send)


_faulty_asgi_app = streamkit.wrap(faulty_asgi_app, kind="asgi")


async def inner_asgi_app(scope: Any, receive: Any, send: Any) -> None:
    play = Play(Script(list), key_of(scope["query_string"].decode()))
    await write_on_async(play, scope["streamkit.stream"])


_inner_asgi_app = streamkit.wrap(inner_asgi_app, kind="asgi")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    path, query = scope.get("path", ""), scope.get("query_string", b"").decode()
    if path.startswith("/fault/"):
        await _faulty_asgi_app(scope, receive, send)
    elif path == "/leave/imperative":
        await _inner_asgi_app(scope, receive, send)
    elif path.startswith(OURS):
        # Some write into a stream of this loop, by its twin for threads.
        response = await asyncio.to_thread(described, path, query)
        await response(scope, receive, send)
    else:
        await apps.asgi_app(scope, receive, send)
