"""Bodies that are compressed while they are made: which, with what, and that nothing waits in a context.

Rule: what a client can decode is asked of a decoder that is given chunk by chunk what has arrived,
and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from driving import PATIENCE, Answer, AsgiServer, WsgiServer, scope_of
from shapes import DESCRIBED, FUNCTIONS, SHAPES, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.core.compression import chosen, coder_for, is_installed

GZIP = [("Accept-Encoding", "gzip")]
ON = {"compress": True}
INSTALLED = [coding for coding in ("gzip", "br", "zstd") if is_installed(coding)]


class Gunzip:
    """A gzip decoder that is fed as bytes arrive."""

    def __init__(self) -> None:
        self._inside = zlib.decompressobj(31)

    def feed(self, data: bytes) -> bytes:
        return self._inside.decompress(data)

    @property
    def is_whole(self) -> bool:
        return self._inside.eof


class Brotli:
    def __init__(self) -> None:
        self._inside = pytest.importorskip("brotli").Decompressor()

    def feed(self, data: bytes) -> bytes:
        return bytes(self._inside.process(data))

    @property
    def is_whole(self) -> bool:
        return bool(self._inside.is_finished())


class Zstd:
    def __init__(self) -> None:
        self._inside = pytest.importorskip("backports.zstd").ZstdDecompressor()

    def feed(self, data: bytes) -> bytes:
        return bytes(self._inside.decompress(data))

    @property
    def is_whole(self) -> bool:
        return bool(self._inside.eof)


DECODERS: dict[str, Callable[[], Any]] = {"gzip": Gunzip, "br": Brotli, "zstd": Zstd}


def decoded(answer: Answer) -> bytes:
    """The body, which must be a whole one."""
    coding = answer.header("Content-Encoding")
    assert coding is not None, answer.headers
    decoder = DECODERS[coding]()
    body: bytes = b"".join(map(decoder.feed, answer.chunks))
    assert decoder.is_whole, "the compressed body has no end"
    return body


@pytest.fixture(params=SHAPES, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=WITH_STREAM, ids=str)
def with_stream(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def two() -> Run:
    yield "first "
    yield "second"


# ---------------------------------------------------------------- each chunk, at once


@pytest.mark.parametrize("coding", INSTALLED)
def test_each_chunk_can_be_decoded_before_the_next_is_made(served: Serve, coding: str) -> None:
    has_arrived = [threading.Event() for _ in range(3)]

    def program() -> Run:
        for number, arrived in enumerate(has_arrived):
            yield f"chunk {number}\n"
            assert arrived.wait(PATIENCE), f"chunk {number} was held back"

    answer = served(program, sent=[("Accept-Encoding", coding)], options={"compress": [coding]})
    decoder = DECODERS[coding]()
    for number, arrived in enumerate(has_arrived):
        text = b""
        while not text.endswith(b"\n"):
            part = answer.read()
            assert part, "the body ended early"
            text += decoder.feed(part)
        assert text == f"chunk {number}\n".encode()
        arrived.set()
    decoder.feed(answer.rest())
    answer.through()
    assert (decoder.is_whole, answer.complete) == (True, True)
    assert (answer.header("Content-Encoding"), answer.header("Vary")) == (coding, "Accept-Encoding")


def test_a_body_of_no_chunks_is_a_whole_one(served: Serve) -> None:
    def program() -> Run:
        yield b""

    assert decoded(served(program, sent=GZIP, options=ON).finish()) == b""


def test_a_megabyte_in_one_write_comes_through(served: Serve) -> None:
    text = b"".join(b"%d, " % number for number in range(150_000))

    def program() -> Run:
        yield b"first "
        yield text

    answer = served(program, sent=GZIP, options=ON).finish()
    assert decoded(answer) == b"first " + text
    assert len(answer.body) < len(text) / 2


def test_a_client_that_names_no_coding_gets_the_body_as_it_is(served: Serve) -> None:
    answer = served(two, options=ON).finish()
    assert answer.body == b"first second"
    assert (answer.header("Content-Encoding"), answer.header("Vary")) == (None, "Accept-Encoding")


def test_nothing_is_compressed_unless_it_is_asked_for(served: Serve) -> None:
    answer = served(two, sent=GZIP).finish()
    assert answer.body == b"first second"
    assert (answer.header("Content-Encoding"), answer.header("Vary")) == (None, None)


def test_the_keyword_is_the_option(described: Serve) -> None:
    answer = described(two, sent=GZIP, compress=True).finish()
    assert decoded(answer) == b"first second"


def test_the_keyword_goes_over_the_options(described: Serve) -> None:
    answer = described(two, sent=GZIP, compress=False, options=ON).finish()
    assert answer.body == b"first second"


# ---------------------------------------------------------------- heads


def test_a_strong_etag_is_weakened_and_vary_is_merged(described: Serve) -> None:
    headers = {"ETag": '"v1"', "Vary": "Cookie"}
    answer = described(two, sent=GZIP, headers=headers, options=ON).finish()
    assert answer.header("ETag") == 'W/"v1"'
    assert answer.header("Vary") == "Cookie, Accept-Encoding"
    plain = described(two, headers=headers, options=ON).finish()
    assert plain.header("ETag") == '"v1"'
    assert plain.header("Vary") == "Cookie, Accept-Encoding"


@pytest.mark.parametrize("vary", ["accept-encoding", "Cookie, Accept-Encoding", "*"])
def test_a_vary_that_says_so_already_stays(described: Serve, vary: str) -> None:
    answer = described(two, sent=GZIP, headers={"Vary": vary}, options=ON).finish()
    assert answer.header("Vary") == vary


def test_the_head_for_head_is_that_for_get(described: Serve) -> None:
    get = described(two, sent=GZIP, headers={"ETag": '"v1"'}, options=ON).finish()
    head = described(two, method="HEAD", sent=GZIP, headers={"ETag": '"v1"'}, options=ON).finish()
    assert head.body == b""
    assert head.headers == get.headers


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_no_coding(described: Serve, status: int) -> None:
    def program() -> Run:
        yield from ()

    answer = described(program, sent=GZIP, status=status, options=ON).finish()
    assert (answer.status, answer.body, answer.header("Content-Encoding")) == (status, b"", None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "br"},
        {"Content-Range": "bytes 0-11/100"},
        {"Cache-Control": "private, No-Transform"},
        {"Content-Digest": "sha-256=:x:"},
        {"Repr-Digest": "sha-256=:x:"},
        {"Digest": "sha-256=x"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_what_must_stay_as_it_is_stays(described: Serve, headers: dict[str, str]) -> None:
    answer = described(two, sent=GZIP, headers=headers, options=ON).finish()
    assert answer.body == b"first second"
    assert answer.header("Vary") is None
    assert answer.header("Content-Encoding") == headers.get("Content-Encoding")


def test_a_part_is_not_compressed(described: Serve) -> None:
    assert described(two, sent=GZIP, status=206, options=ON).finish().body == b"first second"


def test_the_no_transform_of_our_own_default_is_for_proxies(described: Serve) -> None:
    answer = described(two, sent=GZIP, options=ON).finish()
    assert "no-transform" in (answer.header("Cache-Control") or "")
    assert answer.header("Content-Encoding") is not None


def test_a_declared_length_is_kept_and_the_body_not_compressed(described: Serve) -> None:
    answer = described(two, sent=GZIP, content_length=12, options=ON).finish()
    assert (answer.body, answer.header("Content-Length")) == (b"first second", "12")
    assert answer.header("Vary") is None


@pytest.mark.parametrize(
    ("content_type", "is_compressed"),
    [
        ("text/html; charset=utf-8", True),
        ("application/json", True),
        ("image/svg+xml", True),
        ("application/vnd.something+json", True),
        ("image/png", False),
        ("VIDEO/mp4", False),
        ("audio/ogg", False),
        ("application/zip", False),
        ("application/gzip", False),
        ("application/octet-stream", False),
        ("font/woff2", False),
        ("application/epub+zip", False),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", False),
    ],
)
def test_what_is_compressed_in_itself_is_left_alone(content_type: str, is_compressed: bool) -> None:
    found = chosen(True, [("Content-Type", content_type)], 200, "gzip", endless=False)
    assert found == ("gzip" if is_compressed else None)


def test_a_download_of_rows_is_compressed_and_an_archive_is_not() -> None:
    rows = streamkit.csv_rows([["a", "b"]] * 50, "rows.csv", compress=True)
    archive = streamkit.zip_files([("a.txt", "a")], "all.zip", compress=True)
    with WsgiServer(rows) as server:
        assert decoded(server.request(sent=GZIP).finish()) == b"a,b\r\n" * 50
    with WsgiServer(archive) as server:
        assert server.request(sent=GZIP).finish().header("Content-Encoding") is None


# ---------------------------------------------------------------- HTTP/1.0


def test_an_http10_client_gets_the_length_of_the_compressed_body(served: Serve) -> None:
    def program() -> Run:
        for _ in range(500):
            yield "again and again\n"

    answer = served(program, version="1.0", sent=GZIP, options=ON).finish()
    assert decoded(answer) == b"again and again\n" * 500
    assert answer.header("Content-Length") == str(len(answer.body))
    assert len(answer.body) < 500


def test_an_http10_client_that_closes_gets_a_compressed_stream(served: Serve) -> None:
    answer = served(two, version="1.0", sent=[*GZIP, ("Connection", "close")], options=ON).finish()
    assert decoded(answer) == b"first second"
    assert answer.header("Content-Length") is None


# ---------------------------------------------------------------- ends


def test_a_body_that_fails_has_no_end_for_its_decoder_either(served: Serve) -> None:
    def program() -> Run:
        yield "so far"
        raise RuntimeError("boom")

    answer = served(program, sent=GZIP, options=ON).finish()
    decoder = Gunzip()
    assert decoder.feed(answer.body) == b"so far"
    assert (decoder.is_whole, answer.complete) == (False, False)


def test_an_aborted_body_has_no_end(with_stream: Serve) -> None:
    def program(stream: Any) -> Run:
        yield "so far"
        stream.abort()

    answer = with_stream(program, sent=GZIP, options=ON).finish()
    decoder = Gunzip()
    decoder.feed(answer.body)
    assert (decoder.is_whole, answer.complete) == (False, False)


def test_a_completion_is_part_of_the_compressed_body(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        yield "{}\n"
        raise RuntimeError("boom")

    answer = functions(program, sent=GZIP, content_type="application/x-ndjson", options=ON).finish()
    decoder = Gunzip()
    first, second = decoder.feed(answer.body).splitlines()
    assert (first, "error" in json.loads(second)) == (b"{}", True)
    assert (decoder.is_whole, answer.complete) == (False, False)


def test_a_failure_that_ends_cleanly_ends_the_compressed_body_too(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        yield "data: 1\n\n"
        raise RuntimeError("boom")

    answer = functions(program, sent=GZIP, content_type="text/event-stream", options=ON).finish()
    assert decoded(answer).startswith(b"data: 1\n\nevent: error\n")
    assert answer.complete


def events(interface: str, servers: ExitStack, producer: Any, **more: Any) -> Answer:
    response = streamkit.event_stream(producer, compress=True, **more)
    server: Any = WsgiServer(response) if interface == "wsgi" else AsgiServer(response)
    answer: Answer = servers.enter_context(server).request(sent=GZIP)
    return answer


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_heartbeat_is_compressed_with_the_rest(interface: str) -> None:
    goes_on = threading.Event()

    def silent(stream: Any) -> None:
        stream.send("first")
        assert goes_on.wait(PATIENCE)
        stream.done()

    with ExitStack() as servers:
        answer = events(interface, servers, silent, heartbeat=0.05)
        decoder = Gunzip()
        text = b""
        while b"\n:" not in text:
            part = answer.read()
            assert part
            text += decoder.feed(part)
        goes_on.set()
        text += decoder.feed(answer.rest())
        assert text.startswith(b"data: first\n\n:")
        assert text.endswith(b"id: streamkit.done\n\n")
        assert decoder.is_whole


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_stream_that_is_ended_for_its_time_says_so_in_the_compressed_body(interface: str) -> None:
    over = threading.Event()

    def endless(stream: Any) -> None:
        stream.send("first")
        over.wait(PATIENCE)

    with ExitStack() as servers:
        answer = events(interface, servers, endless, end_event=True, options={"max_duration": 0.6})
        text = decoded(answer.finish() if interface == "wsgi" else _read(answer))
        over.set()
    assert text == b'data: first\n\nevent: streamkit.end\ndata: {"outcome":"timed_out"}\n\n'


def _read(answer: Answer) -> Answer:
    answer.rest()
    return answer


# ---------------------------------------------------------------- streams of other code


class Foreign:
    """An app that knows nothing of streamkit, and was wrapped."""

    def __init__(self, interface: str, servers: ExitStack) -> None:
        self.interface, self.servers = interface, servers

    def __call__(
        self, parts: Callable[[], Iterator[bytes]], head: dict[str, str], *, wraps: int = 1, **request: Any
    ) -> Answer:
        app: Any = self._wsgi(parts, head) if self.interface == "wsgi" else self._asgi(parts, head)
        for _ in range(wraps):
            app = streamkit.wrap(app, compress=True)
        server: Any = WsgiServer(app) if self.interface == "wsgi" else AsgiServer(app)
        answer: Answer = self.servers.enter_context(server).request(sent=GZIP, **request)
        return answer

    def _wsgi(self, parts: Callable[[], Iterator[bytes]], head: dict[str, str]) -> Any:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", list(head.items()))
            return parts()

        return app

    def _asgi(self, parts: Callable[[], Iterator[bytes]], head: dict[str, str]) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            pairs = [(name.lower().encode(), value.encode()) for name, value in head.items()]
            await send({"type": "http.response.start", "status": 200, "headers": pairs})
            for part in parts():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

        return app


@pytest.fixture(params=["wsgi", "asgi"])
def foreign(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    with ExitStack() as servers:
        yield Foreign(request.param, servers)


def parts() -> Iterator[bytes]:
    yield b"one "
    yield b"two"


@pytest.mark.parametrize("wraps", [1, 2])
def test_a_stream_of_other_code_is_compressed_once(foreign: Foreign, wraps: int) -> None:
    answer = foreign(parts, {"Content-Type": "text/plain"}, wraps=wraps).finish()
    assert decoded(answer) == b"one two"
    assert answer.header("Vary") == "Accept-Encoding"


def test_a_stream_of_other_code_is_held_for_http10_with_its_compressed_length(foreign: Foreign) -> None:
    answer = foreign(parts, {"Content-Type": "text/plain"}, version="1.0").finish()
    assert decoded(answer) == b"one two"
    assert answer.header("Content-Length") == str(len(answer.body))


def test_a_stream_of_other_code_that_fails_has_no_end_for_its_decoder(foreign: Foreign) -> None:
    def failing() -> Iterator[bytes]:
        yield b"one "
        raise RuntimeError("boom")

    answer = foreign(failing, {"Content-Type": "text/plain"}).finish()
    decoder = Gunzip()
    assert decoder.feed(answer.body) == b"one "
    assert (decoder.is_whole, answer.complete) == (False, False)


def test_a_stream_of_other_code_that_was_compressed_passes(foreign: Foreign) -> None:
    whole = gzip.compress(b"one two")
    head = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    answer = foreign(lambda: iter([whole[:10], whole[10:]]), head).finish()
    assert gzip.decompress(answer.body) == b"one two"


def test_a_response_of_known_length_is_none_of_our_business(foreign: Foreign) -> None:
    answer = foreign(parts, {"Content-Type": "text/plain", "Content-Length": "7"}).finish()
    assert (answer.body, answer.header("Vary")) == (b"one two", None)


def test_a_stream_of_other_code_for_head_has_the_head_for_get(foreign: Foreign) -> None:
    head = {"Content-Type": "text/plain"}
    get, asked = foreign(parts, head).finish(), foreign(parts, head, method="HEAD").finish()
    assert (asked.headers, asked.body) == (get.headers, b"")


def test_what_an_application_sends_with_write_is_compressed() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    with WsgiServer(streamkit.wrap(app, compress=True)) as server:
        assert decoded(server.request(sent=GZIP).finish()) == b"one two three"


def test_a_description_inside_a_wrapped_app_is_compressed_once() -> None:
    def view(environ: Any, start_response: Any) -> Any:
        return streamkit.stream(lambda stream: stream.write("hello"))(environ, start_response)

    with WsgiServer(streamkit.wrap(streamkit.wrap(view, compress=True), compress=True)) as server:
        assert decoded(server.request(sent=GZIP).finish()) == b"hello"


# ---------------------------------------------------------------- many writers, and cuts


def test_two_writers_at_once_make_one_body_that_can_be_decoded() -> None:
    """A server may let a message wait that came first, as one with a full buffer does."""
    bodies: list[bytes] = []
    waits: list[int] = []  # turns of the loop that each message takes

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        await stream.commit()
        await asyncio.gather(stream.write(b"one "), stream.write(b"two "))

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        if body:
            waits.append(20 if not waits else 0)
            for _ in range(waits[-1]):
                await asyncio.sleep(0)
        bodies.append(body)

    wrapped = streamkit.wrap(app, compress=True, kind="asgi")
    asyncio.run(asyncio.wait_for(wrapped(scope_of(sent=GZIP), receive, send), PATIENCE))
    assert sorted(gzip.decompress(b"".join(bodies)).split()) == [b"one", b"two"]


def test_nothing_follows_a_compressed_write_that_was_cancelled() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stream.write(os.urandom(1000)), 0.1)  # its client reads nothing
        try:
            await stream.write(b"more")
        except streamkit.errors.ClientDisconnected:
            seen.append("refused")

    with AsgiServer(streamkit.wrap(app, compress=True, kind="asgi")) as server:
        answer = server.request(sent=GZIP, window=10).through()
    assert seen == ["refused"]
    assert not answer.complete


# ---------------------------------------------------------------- what it is worth


STEPS = ("fetch", "unpack", "resolve", "compile", "link", "test", "publish")


def job_event(number: int) -> dict[str, Any]:
    """What a build server tells a page about a job, over and over."""
    step = STEPS[number * len(STEPS) // 500]
    return {
        "type": "job.progress",
        "job": {
            "id": "b7d1c2f0-5a43-4f0e-9a55-0c9d0a6f3e21",
            "project": "streaming-toolkit",
            "branch": "main",
        },
        "step": {"name": step, "status": "running", "index": STEPS.index(step), "total": len(STEPS)},
        "progress": {"done": number, "total": 500, "percent": round(number / 5, 1)},
        "worker": {"host": f"worker-{number % 4}.internal.example.org", "pool": "linux-x86_64"},
        "message": f"{step}: {number} of 500 units are done",
        "links": {"self": "/api/v1/jobs/b7d1c2f0-5a43-4f0e-9a55-0c9d0a6f3e21", "log": f"/api/v1/logs/{step}"},
    }


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_json_event_stream_takes_a_fifth_of_a_gzip_member_for_each_chunk(interface: str) -> None:
    given = [job_event(number) for number in range(500)]
    with ExitStack() as servers:
        answer = events(interface, servers, iter(given)).finish()
        text = decoded(answer)
    seen = [json.loads(event.data) for event in streamkit.sse.Decoder().feed(text)]
    assert seen == given
    members = sum(len(gzip.compress(event + b"\n\n")) for event in text.split(b"\n\n")[:-1])
    assert members / len(answer.body) > 5


@pytest.mark.parametrize("coding", INSTALLED)
def test_every_coding_takes_a_fifth_flushed_event_by_event(coding: str) -> None:
    chunks = [
        streamkit.sse.encode(streamkit.sse.ServerSentEvent(json.dumps(job_event(n)))) for n in range(500)
    ]
    coder, decoder = coder_for(coding, endless=True), DECODERS[coding]()
    taken = 0
    for chunk in chunks:
        coded = coder.chunk(chunk)
        taken += len(coded)
        assert decoder.feed(coded) == chunk
    assert sum(len(gzip.compress(chunk)) for chunk in chunks) / taken > 5


# ---------------------------------------------------------------- other packages


def test_zstandard_makes_the_same_format() -> None:
    zstandard = pytest.importorskip("zstandard")
    from streamkit.core import compression

    known = compression._import
    compression_import = lambda coding: zstandard if coding == "zstd" else known(coding)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "_import", compression_import)
        coders = [coder_for("zstd", endless=endless) for endless in (True, False)]
    for coder in coders:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        assert decoder.decompress(coder.chunk(b"first")) == b"first"
        assert decoder.decompress(coder.chunk(b"second")) == b"second"
        assert decoder.decompress(coder.last(b"third")) == b"third"
