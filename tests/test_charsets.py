"""Text in the charset of its response: one byte-order mark at most, and what cannot be encoded."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer

import streamkit

SERVERS = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])
MARKED = pytest.mark.parametrize("charset", ["utf-16", "utf-32", "utf-8-sig"])
TEXTS = ("a\u20ac", "", "b", "c")


class Writing:
    """These texts, written in each of the ways in which a producer may."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def push(self, stream: Any) -> None:
        for text in self.texts:
            stream.write(text)

    async def push_async(self, stream: Any) -> None:
        for text in self.texts:
            await stream.write(text)

    def pull(self) -> Iterator[str]:
        yield from self.texts

    async def pull_async(self) -> AsyncIterator[str]:
        for text in self.texts:
            yield text

    def described(self, way: str, content_type: str) -> Any:
        producer = getattr(self, way)
        return streamkit.stream(producer() if way in PULLED else producer, content_type=content_type)

    def to_environ(self, content_type: str) -> Any:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            environ["streamkit.stream"].headers["Content-Type"] = content_type
            self.push(environ["streamkit.stream"])
            return []

        return streamkit.wrap(app)

    def to_scope(self, content_type: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["streamkit.stream"].headers["Content-Type"] = content_type
            await self.push_async(scope["streamkit.stream"])

        return streamkit.wrap(app)

    def served(self, server: Any, way: str, content_type: str) -> Any:
        """The answer of an application that writes them this way."""
        if way in PRODUCERS:
            app = self.described(way, content_type)
        else:
            app = self.to_environ(content_type) if server is WsgiServer else self.to_scope(content_type)
        with server(app) as serving:
            return serving.request().finish()


PULLED = ("pull", "pull_async")
PRODUCERS = ("push", "push_async", *PULLED)
WAYS = pytest.mark.parametrize("way", [*PRODUCERS, "request's stream"])


@SERVERS
@WAYS
@MARKED
def test_the_byte_order_mark_stands_once_where_the_body_begins(server: Any, way: str, charset: str) -> None:
    writing = Writing("a\u20ac", "", "b", "c")
    answer = writing.served(server, way, f"text/plain; charset={charset}")
    assert answer.body == "".join(writing.texts).encode(charset)


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


LATIN = Writing("caf\u00e9 ", "5 \u20ac", "", "plain", "\u00e9")


@SERVERS
@WAYS
@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", "iso-8859-15"])
def test_each_chunk_of_text_is_sent_in_the_charset_of_its_response(
    server: Any, way: str, charset: str
) -> None:
    answer = LATIN.served(server, way, f"text/plain; charset={charset}")
    assert answer.body == "".join(LATIN.texts).encode(charset)


@SERVERS
@WAYS
def test_a_late_text_that_utf_8_does_not_have_cuts_the_body_and_names_the_content_type(
    server: Any, way: str
) -> None:
    answer = Writing("a", "b", "\ud800").served(server, way, "text/plain; charset=utf-8")
    assert (answer.body, answer.complete) == (b"ab", False)
    assert isinstance(answer.error, UnicodeEncodeError)
    assert "text/plain; charset=utf-8" in str(answer.error)


@SERVERS
def test_a_hook_of_the_commit_may_change_the_charset_of_text_that_was_given_before(server: Any) -> None:
    def producer(stream: Any) -> None:
        @stream.on_commit
        def change(stream: Any) -> None:
            stream.headers["Content-Type"] = "text/plain; charset=iso-8859-15"

        LATIN.push(stream)

    with server(streamkit.stream(producer, content_type="text/plain; charset=utf-8")) as serving:
        assert serving.request().finish().body == "".join(LATIN.texts).encode("iso-8859-15")
