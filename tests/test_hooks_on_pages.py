"""What a hook of the end learns of the response, whoever has made it: a page, a file, a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from driving import AsgiServer, WsgiServer, environ_of
from test_hooks_elsewhere import (
    DESCRIBED,
    KEY,
    Boom,
    asgi_messages,
    asgi_own,
    wsgi_iterable,
    wsgi_own,
    wsgi_write,
)

import streamkit

ENGINES: list[tuple[str, dict[str, Any]]] = [("asgi", {}), ("wsgi", {}), ("wsgi", {"engine": "thread"})]
WSGI_ENGINES: list[dict[str, Any]] = [{}, {"engine": "thread"}]
SIZED = ("Content-Length", "5")


def page(kind: str, *fields: tuple[str, str], chunks: tuple[bytes, ...] = (b"made ",)) -> Any:
    """An application that answers in its own way, and does not stream."""
    fields = (("Content-Type", "text/plain"), *fields)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        pairs = [(name.lower().encode(), value.encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": 404, "headers": pairs})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": chunk is not chunks[-1]})

    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", list(fields))
        return list(chunks)

    return asgi if kind == "asgi" else wsgi


def sized(body: Callable[[], Any]) -> Any:
    """An application whose body is none that is all there, but has a length."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [("Content-Type", "text/plain"), SIZED])
        return body()

    return app


def pieces() -> Iterator[bytes]:
    yield b"made"
    yield b" "


def broken() -> Iterator[bytes]:
    yield b"made"
    raise Boom


def sized_write(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [("Content-Type", "text/plain"), SIZED])(b"ma")
    return [b"de "]


def written_and_returned(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [("Content-Type", "text/plain")])(b"ma")
    return iter([b"de", b" "])


def asking(app: Any, kind: str, hook: Callable[[Any], object], **options: Any) -> Any:
    """The application in a layer that puts a hook of the end on its stream, in a wrap."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        scope[KEY].on_finish(hook)
        await app(scope, receive, send)

    def wsgi(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_finish(hook)
        return app(environ, start_response)

    return streamkit.wrap(asgi if kind == "asgi" else wsgi, kind=kind, **options)


def answer_of(app: Any, kind: str, **request: Any) -> Any:
    with AsgiServer(app) if kind == "asgi" else WsgiServer(app) as server:
        return server.request(**request).finish()


PAGES = {
    "a page": lambda kind: page(kind),
    "a page with its length": lambda kind: page(kind, SIZED),
    "a page of two chunks": lambda kind: page(kind, SIZED, chunks=(b"made", b" ")),
    "a page of its own type": lambda kind: page(kind, ("X-Own", "1"), SIZED),
}
WSGI_PAGES = {
    "an iterable with a length": lambda kind: sized(pieces),
    "write() with a length": lambda kind: sized_write,
    "write(), and more returned": lambda kind: written_and_returned,
}


@pytest.mark.parametrize(
    ("kind", "options", "make"),
    [
        *((kind, options, make) for kind, options in ENGINES for make in PAGES.values()),
        *(("wsgi", options, make) for options in WSGI_ENGINES for make in WSGI_PAGES.values()),
    ],
)
def test_a_hook_of_the_end_knows_the_status_the_headers_and_the_length_of_a_page(
    kind: str, options: dict[str, Any], make: Callable[[str], Any]
) -> None:
    heard: list[Any] = []

    def hook(told: Any) -> None:
        heard.append((told.outcome, told.status, told.headers["Content-Type"], told.bytes_sent, told.closed))

    app = asking(make(kind), kind, hook, **options)
    for _ in range(2):  # of a second one like the first, less is asked
        answer = answer_of(app, kind)
        assert (answer.status, answer.body, answer.error) == (404, b"made ", None)
    assert heard == [("finished", 404, "text/plain", 5, True)] * 2


STREAMS: dict[str, dict[str, Callable[[], Any]]] = {
    "asgi": {**DESCRIBED, "messages": lambda: asgi_messages, "own": lambda: asgi_own},
    "wsgi": {
        **DESCRIBED,
        "other iterable": lambda: wsgi_iterable,
        "own": lambda: wsgi_own,
        "write": lambda: wsgi_write,
    },
}


@pytest.mark.parametrize("wraps", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options", "make"),
    [(kind, options, make) for kind, options in ENGINES for make in STREAMS[kind].values()],
)
def test_a_hook_of_the_end_knows_the_same_of_a_stream_in_one_wrap_and_in_two(
    kind: str, options: dict[str, Any], make: Callable[[], Any], wraps: int
) -> None:
    heard: list[Any] = []

    def hook(told: Any) -> None:
        heard.append((told.outcome, told.status, told.bytes_sent, told.committed, told.closed))
        assert told.headers["Content-Type"].startswith("text/plain")

    app = make()
    for _ in range(wraps):
        app = asking(app, kind, hook, **options)
    assert answer_of(app, kind).body == b"made "
    assert heard == [("finished", 200, 5, True, True)] * wraps


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_hook_of_the_end_that_comes_after_a_description_has_ended_knows_the_same(name: str) -> None:
    heard: list[Any] = []
    described = DESCRIBED[name]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def late(told: Any) -> None:
            heard.append((told.outcome, told.bytes_sent))

        await described(scope, receive, send)
        scope[KEY].on_finish(lambda told: told.on_finish(late))
        scope[KEY].on_finish(lambda told: heard.append((told.outcome, told.bytes_sent)))

    assert answer_of(streamkit.wrap(app, kind="asgi"), "asgi").body == b"made "
    assert heard[0] == ("finished", 5)


@pytest.mark.parametrize(("kind", "options"), ENGINES)
def test_the_application_wide_hook_does_not_hear_of_a_page_that_a_hook_asks_after(
    kind: str, options: dict[str, Any]
) -> None:
    wide: list[Any] = []
    heard: list[Any] = []
    app = asking(
        page(kind), kind, lambda told: heard.append(told.outcome),
        on_finish=lambda told: wide.append(told.outcome), **options,
    )  # fmt: skip
    assert answer_of(app, kind).body == b"made "
    assert (heard, wide) == (["finished"], [])


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_a_page_that_fails_or_whose_client_leaves_in_mid_body_has_not_finished(
    options: dict[str, Any],
) -> None:
    heard: list[Any] = []

    def hook(told: Any) -> None:
        heard.append((told.outcome, told.bytes_sent))

    answer = answer_of(asking(sized(broken), "wsgi", hook, **options), "wsgi")
    assert isinstance(answer.error, Boom)
    assert heard.pop() == ("failed", 4)
    with WsgiServer(asking(sized(pieces), "wsgi", hook, **options)) as server:
        answer = server.request(window=0)
        assert answer.read() == b"made"
        assert heard == []
        answer.leave()
        answer.through()
    assert heard == [("disconnected", 4)]


def test_a_page_is_whole_for_its_hook_without_the_bytes_that_head_does_not_want() -> None:
    heard: list[Any] = []
    app = asking(sized(Unread), "wsgi", lambda told: heard.append((told.outcome, told.bytes_sent)))
    with WsgiServer(app) as server:
        assert server.request(method="HEAD").finish().status == 404
    assert heard == [("finished", 0)]


class Unread:
    """A body that ends before its first chunk, as Werkzeug's does for HEAD."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


def test_an_error_in_the_close_of_a_page_reaches_the_server_and_its_hook() -> None:
    heard: list[Any] = []
    closed: list[bool] = []

    class Closing:
        def __iter__(self) -> Iterator[bytes]:
            return iter((b"made ",))

        def close(self) -> None:
            closed.append(True)
            raise Boom

    app = asking(sized(Closing), "wsgi", lambda told: heard.append(told.outcome))
    body = app(environ_of(), lambda status, headers: None)
    assert next(iter(body)) == b"made "
    with pytest.raises(Boom):
        body.close()
    assert (closed, heard) == ([True], ["failed"])


def test_a_page_that_is_never_read_and_never_closed_tells_its_hook_all_the_same() -> None:
    heard: list[Any] = []
    app = asking(sized(pieces), "wsgi", lambda told: heard.append((told.outcome, told.bytes_sent)))
    body = app(environ_of(), lambda status, headers: None)
    del body
    assert heard == [("disconnected", 0)]


def test_a_list_and_a_file_of_the_server_go_on_as_they_are_though_a_hook_asks(tmp_path: Any) -> None:
    heard: list[Any] = []
    (tmp_path / "file").write_bytes(b"made ")
    with (tmp_path / "file").open("rb") as file:
        for body in ([b"ma", b"de "], FileWrapper(file)):
            app = asking(sized(lambda body=body: body), "wsgi", lambda told: heard.append(told.bytes_sent))
            environ = {**environ_of(), "wsgi.file_wrapper": FileWrapper}
            assert app(environ, lambda status, headers: None) is body
    assert heard == [5, 5]


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_a_hook_of_the_commit_that_comes_after_write_runs_at_once(options: dict[str, Any]) -> None:
    heard: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ[KEY]
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        before = stream.committed
        write(b"made ")
        stream.on_commit(lambda told: heard.append((before, told.committed, told.bytes_sent)))
        return []

    assert answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi").body == b"made "
    assert heard == [(False, True, 5)]


@pytest.mark.parametrize("options", WSGI_ENGINES)
def test_a_hook_of_the_commit_that_aborts_what_write_would_send_is_an_error_before_the_head(
    options: dict[str, Any],
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ[KEY].on_commit(lambda told: told.abort("no"))
        start_response("200 OK", [("Content-Type", "text/plain")])(b"made ")
        return []

    answer = answer_of(streamkit.wrap(app, kind="wsgi", **options), "wsgi")
    assert isinstance(answer.error, streamkit.StreamAborted)
    assert (answer.starts, answer.body) == ([], b"")
