"""Text in the charset of its response: one byte-order mark at most, and what cannot be encoded."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer

import streamkit

SERVERS = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])
MARKED = pytest.mark.parametrize("charset", ["utf-16", "utf-32", "utf-8-sig"])
TEXTS = ("a\u20ac", "", "b", "c")


def push(stream: Any) -> None:
    for text in TEXTS:
        stream.write(text)


async def push_async(stream: Any) -> None:
    for text in TEXTS:
        await stream.write(text)


def pull() -> Iterator[str]:
    yield from TEXTS


async def pull_async() -> AsyncIterator[str]:
    for text in TEXTS:
        yield text


@SERVERS
@MARKED
@pytest.mark.parametrize("producer", [push, push_async, pull, pull_async])
def test_the_byte_order_mark_stands_once_where_the_body_begins(
    server: Any, charset: str, producer: Callable[..., Any]
) -> None:
    given = producer if producer in (push, push_async) else producer()
    described = streamkit.stream(given, content_type=f"text/plain; charset={charset}")
    with server(described) as serving:
        assert serving.request().finish().body == "".join(TEXTS).encode(charset)


@MARKED
def test_a_stream_of_the_environ_is_marked_once(charset: str) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["streamkit.stream"]
        stream.headers["Content-Type"] = f"text/plain; charset={charset}"
        push(stream)
        return []

    with WsgiServer(streamkit.wrap(app)) as serving:
        assert serving.request().finish().body == "".join(TEXTS).encode(charset)


@MARKED
def test_a_stream_of_the_scope_is_marked_once(charset: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.headers["Content-Type"] = f"text/plain; charset={charset}"
        await push_async(stream)

    with AsgiServer(streamkit.wrap(app)) as serving:
        assert serving.request().finish().body == "".join(TEXTS).encode(charset)


@SERVERS
@MARKED
def test_of_threads_that_write_at_once_only_the_first_is_marked(server: Any, charset: str) -> None:
    texts = [f"<{number}>" for number in range(8)]

    def producer(stream: Any) -> None:
        together = threading.Barrier(len(texts))

        def write(text: str) -> None:
            together.wait(PATIENCE)
            stream.write(text)

        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    with server(streamkit.stream(producer, content_type=f"text/plain; charset={charset}")) as serving:
        body = serving.request().finish().body
    mark = "".encode(charset)
    assert body.startswith(mark)
    text = body[len(mark) :].decode(_bare(charset))
    assert sorted(text.replace("><", "> <").split()) == texts


def _bare(charset: str) -> str:
    """The charset without its mark, in the order of the bytes that the mark announces."""
    if charset == "utf-8-sig":
        return "utf-8"
    return charset + ("-le" if "".encode(charset)[0] == 0xFF else "-be")


@SERVERS
def test_text_after_bytes_is_not_marked(server: Any) -> None:
    """The bytes may have brought a mark of their own."""

    def producer(stream: Any) -> None:
        stream.write("a".encode("utf-16"))
        stream.write("b")

    with server(streamkit.stream(producer, content_type="text/plain; charset=utf-16")) as serving:
        assert serving.request().finish().body == "ab".encode("utf-16")


@SERVERS
def test_a_text_that_begins_with_the_character_of_the_mark_keeps_it(server: Any) -> None:
    def producer(stream: Any) -> None:
        stream.write("a")
        stream.write("\ufeffb")

    with server(streamkit.stream(producer, content_type="text/plain; charset=utf-16")) as serving:
        assert serving.request().finish().body == "a\ufeffb".encode("utf-16")


@SERVERS
def test_what_the_charset_does_not_have_is_refused_and_the_stream_goes_on(server: Any) -> None:
    seen: list[UnicodeEncodeError] = []

    def producer(stream: Any) -> None:
        stream.write("a")
        try:
            stream.write("5 \u20ac")
        except UnicodeEncodeError as error:
            seen.append(error)
        stream.write("\u00e9")

    with server(streamkit.stream(producer, content_type="text/csv; charset=latin-1")) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"a\xe9", True)
    assert (seen[0].start, seen[0].object) == (2, "5 \u20ac")
    assert "the Content-Type of this response is 'text/csv; charset=latin-1'" in str(seen[0])


@SERVERS
def test_what_the_charset_does_not_have_is_an_error_before_the_head_if_it_comes_first(server: Any) -> None:
    def producer(stream: Any) -> None:
        stream.write("5 \u20ac")

    with server(streamkit.stream(producer, content_type="text/csv; charset=latin-1")) as serving:
        answer = serving.request().finish()
    assert not answer.committed
    assert isinstance(answer.error, UnicodeEncodeError)


def to_environ(producer: Callable[..., Any], content_type: str) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["streamkit.stream"].headers["Content-Type"] = content_type
        producer(environ["streamkit.stream"])
        return []

    return streamkit.wrap(app)


def to_scope(producer: Callable[..., Any], content_type: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["streamkit.stream"].headers["Content-Type"] = content_type
        await producer(scope["streamkit.stream"])

    return streamkit.wrap(app)


def described(producer: Callable[..., Any], content_type: str) -> Any:
    given = producer if producer.__name__.startswith("push") else producer()
    return streamkit.stream(given, content_type=content_type)


def ways(push: Any, push_async: Any, pull: Any, pull_async: Any) -> list[Any]:
    """Each way of writing under each interface: its server, and the app for a Content-Type."""
    producers = (push, push_async, pull, pull_async)
    return [
        *((server, describing(producer)) for server in (WsgiServer, AsgiServer) for producer in producers),
        (WsgiServer, lambda content_type: to_environ(push, content_type)),
        (AsgiServer, lambda content_type: to_scope(push_async, content_type)),
    ]


def describing(producer: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda content_type: described(producer, content_type)


LATIN = ("caf\u00e9 ", "5 \u20ac", "", "plain", "\u00e9")


def push_latin(stream: Any) -> None:
    for text in LATIN:
        stream.write(text)


async def push_latin_async(stream: Any) -> None:
    for text in LATIN:
        await stream.write(text)


def pull_latin() -> Iterator[str]:
    yield from LATIN


async def pull_latin_async() -> AsyncIterator[str]:
    for text in LATIN:
        yield text


@pytest.mark.parametrize(("server", "app"), ways(push_latin, push_latin_async, pull_latin, pull_latin_async))
@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", "iso-8859-15"])
def test_each_chunk_of_text_is_sent_in_the_charset_of_its_response(
    server: Any, app: Any, charset: str
) -> None:
    with server(app(f"text/plain; charset={charset}")) as serving:
        assert serving.request().finish().body == "".join(LATIN).encode(charset)


def push_surrogate(stream: Any) -> None:
    for text in ("a", "b", "\ud800"):
        stream.write(text)


async def push_surrogate_async(stream: Any) -> None:
    for text in ("a", "b", "\ud800"):
        await stream.write(text)


def pull_surrogate() -> Iterator[str]:
    yield from ("a", "b", "\ud800")


async def pull_surrogate_async() -> AsyncIterator[str]:
    for text in ("a", "b", "\ud800"):
        yield text


@pytest.mark.parametrize(
    ("server", "app"), ways(push_surrogate, push_surrogate_async, pull_surrogate, pull_surrogate_async)
)
def test_a_late_text_that_utf_8_does_not_have_cuts_the_body_and_names_the_content_type(
    server: Any, app: Any
) -> None:
    with server(app("text/plain; charset=utf-8")) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"ab", False)
    assert isinstance(answer.error, UnicodeEncodeError)
    assert "text/plain; charset=utf-8" in str(answer.error)


@SERVERS
def test_a_hook_of_the_commit_may_change_the_charset_of_text_that_was_given_before(server: Any) -> None:
    def producer(stream: Any) -> None:
        @stream.on_commit
        def change(stream: Any) -> None:
            stream.headers["Content-Type"] = "text/plain; charset=iso-8859-15"

        push_latin(stream)

    with server(streamkit.stream(producer, content_type="text/plain; charset=utf-8")) as serving:
        assert serving.request().finish().body == "".join(LATIN).encode("iso-8859-15")
