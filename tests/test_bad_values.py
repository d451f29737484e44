"""Values that are wrong, wherever a response is described or being made.

Rule: each is refused where it is given, with what was wanted and what came.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer
from shapes import BUFFERED, DESCRIBED, SYNC_FUNCTIONS, Run, Serve, refusal, serving

import streamkit
from streamkit.errors import HeaderError, OptionsError

INTERFACES = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=[shape for shape in SYNC_FUNCTIONS if not shape.synced], ids=str)
def synced(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=BUFFERED, ids=str)
def buffered(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


# -- what else describes a response


@pytest.mark.parametrize("content_type", [5, b"text/html", True, ["text/html"], {}, object()])
def test_a_content_type_is_text(content_type: Any) -> None:
    refusal(lambda: streamkit.stream(["x"], content_type=content_type), HeaderError, repr(content_type))
    refusal(lambda: streamkit.event_stream(["x"], content_type=content_type), HeaderError, repr(content_type))


@pytest.mark.parametrize(
    "value", [None, b"1", bytearray(b"1"), memoryview(b"1")], ids=lambda v: type(v).__name__
)
def test_a_header_is_no_bytes_and_not_none(value: Any) -> None:
    kind = type(value).__name__
    for headers in ({"X-Bad": value}, [("X-Bad", value)], iter([("X-Bad", value)]), {"X-Bad": ["1", value]}):
        refusal(lambda headers=headers: streamkit.stream(["x"], headers=headers), HeaderError, "X-Bad", kind)
    kept = streamkit.Headers({"X-Kept": "1"})
    for change in (
        lambda: kept.__setitem__("X-Bad", value),
        lambda: kept.add("X-Bad", value),
        lambda: kept.set("X-Bad", value),
        lambda: kept.setdefault("X-Bad", value),
        lambda: kept.setlist("X-Bad", ["1", value]),
        lambda: kept.extend([("X-Bad", value)]),
        lambda: kept.extend(x_bad=value),
        lambda: kept.update({"X-Bad": value}),
        lambda: kept | {"X-Bad": value},
    ):
        refusal(change, HeaderError, kind)
    assert list(kept) == [("X-Kept", "1")]


def test_a_header_may_be_what_has_a_text_of_its_own() -> None:
    headers = streamkit.Headers({"X-Number": 5})  # type: ignore[dict-item]
    headers.extend(iter([("X-Pair", "1"), ("X-Pair", "2")]))
    headers.setlist("X-List", iter(["1", "2"]))
    headers.add("Content-Disposition", None, filename="a.csv")  # type: ignore[arg-type]
    assert [headers["X-Number"], headers.getlist("X-Pair"), headers.getlist("X-List")] == [
        "5", ["1", "2"], ["1", "2"],
    ]  # fmt: skip
    assert "a.csv" in headers["Content-Disposition"]


@contextmanager
def entered() -> Iterator[None]:
    yield


@asynccontextmanager
async def entered_awaiting() -> AsyncIterator[None]:
    yield


async def awaits(stream: Any) -> None:
    await stream.write("x")


@pytest.mark.parametrize("resources", [5, object(), len, [5], [None], "text", [nullcontext(), 5], [entered]])
def test_resources_are_context_managers(resources: Any) -> None:
    for producer in (["x"], awaits):
        refusal(
            lambda producer=producer: streamkit.stream(producer, resources=resources),
            OptionsError,
            "resources",
            "context managers",
        )


def test_one_resource_by_itself_is_not_taken_for_a_list(tmp_path: Path) -> None:
    """A file can be iterated, and would be taken for its lines."""
    path = tmp_path / "lines"
    path.write_text("one\n")
    with path.open() as lines:
        for resource in (lines, entered(), entered_awaiting()):
            refusal(
                lambda resource=resource: streamkit.stream(awaits, resources=resource),
                OptionsError,
                "resources",
                "by itself",
            )


def test_an_asynchronous_resource_needs_an_asynchronous_producer() -> None:
    assert streamkit.stream(awaits, resources=[entered_awaiting(), entered()])
    for producer in (["x"], lambda stream: None):
        refusal(
            lambda producer=producer: streamkit.stream(producer, resources=[entered_awaiting()]),
            OptionsError,
            "only an asynchronous producer",
        )


@pytest.mark.parametrize("hook", [5, "hook", b"hook", None, []])
def test_a_hook_that_cannot_be_called_is_refused_when_it_is_added(buffered: Serve, hook: Any) -> None:
    """It would be missed only at the end, and the hooks after it with it."""
    finished: list[object] = []

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: finished.append(stream.outcome))
        for name in ("on_commit", "on_error", "on_finish"):
            refusal(lambda name=name: getattr(stream, name)(hook), OptionsError, name, repr(hook))
        yield "x"

    answer = buffered(program).finish()
    assert (answer.body, answer.complete, answer.error) == (b"x", True, None)
    assert finished == ["finished"]


async def async_hook(stream: Any, *error: BaseException) -> None:
    raise AssertionError("nobody awaits it")


class AsyncHook:
    async def __call__(self, stream: Any, *error: BaseException) -> None:
        raise AssertionError("nobody awaits it")


@pytest.mark.parametrize(
    "hook", [async_hook, AsyncHook(), partial(async_hook)], ids=["function", "object", "partial"]
)
def test_a_hook_that_nobody_would_await_is_refused(synced: Serve, hook: Any) -> None:
    def program(stream: Any) -> Run:
        for name in ("on_commit", "on_error", "on_finish"):
            refusal(lambda name=name: getattr(stream, name)(hook), OptionsError, name, "async")
        yield "x"

    answer = synced(program).finish()
    assert (answer.body, answer.complete, answer.error) == (b"x", True, None)
    for name in ("callback", "on_error"):
        for producer in (["x"], lambda stream: None):
            refusal(
                lambda name=name, producer=producer: streamkit.stream(producer, **{name: hook}),
                OptionsError, name, "async",
            )  # fmt: skip
        assert streamkit.stream(awaits, **{name: hook})


@pytest.mark.parametrize("name", ["on_error", "on_finish"])
def test_an_asynchronous_hook_for_all_streams_is_not_lost_in_silence_where_one_is_synchronous(
    synced: Serve, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def program() -> Run:
        yield "x"
        raise RuntimeError("boom")

    synced(program, options={name: async_hook}).finish()
    said = [record for record in caplog.records if f"{name} hook failed" in record.getMessage()]
    # Under ASGI there is the loop of the request, on which it is awaited, and fails by itself.
    wanted = OptionsError if synced.shape.interface == "wsgi" else AssertionError
    assert [type(record.exc_info[1]) for record in said if record.exc_info] == [wanted]


# -- numbers that no clock knows

FOR_EVER = [1e10, 1e300]


@pytest.mark.parametrize("name", ["commit_after", "heartbeat", "write_timeout", "max_duration", "grace"])
def test_a_duration_beyond_all_numbers_is_refused(name: str) -> None:
    refusal(lambda: streamkit.Options(**{name: 10**400}), OptionsError, name, "positive number of seconds")
    refusal(lambda: streamkit.Options(**{name: math.inf}), OptionsError, name, "inf")


@pytest.mark.parametrize("seconds", FOR_EVER)
@pytest.mark.parametrize("name", ["commit_after", "heartbeat", "write_timeout", "max_duration", "grace"])
def test_a_duration_longer_than_any_clock_is_no_limit(described: Serve, name: str, seconds: float) -> None:
    def program() -> Run:
        threading.Event().wait(0.02)  # meanwhile the head is waited for
        yield "x"

    answer = described(program, options={name: seconds}).finish()
    assert (answer.body, answer.complete, answer.error) == (b"x", True, None)


@INTERFACES
@pytest.mark.parametrize("timeout", [*FOR_EVER, math.inf])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_wait_longer_than_any_clock_ends_with_what_it_waits_for(
    server: Any, timeout: float, asynchronous: bool
) -> None:
    waiting, seen = threading.Event(), []

    def producer(stream: Any) -> None:
        waiting.set()
        seen.append(stream.wait_committed(timeout))

    async def async_producer(stream: Any) -> None:
        asyncio.get_running_loop().call_soon(waiting.set)
        seen.append(await stream.wait_committed(timeout))

    streams: list[Any] = []

    def described() -> Any:
        response = streamkit.stream(async_producer if asynchronous else producer)
        inner = response.producer

        def keeping(stream: Any) -> Any:
            streams.append(stream.sync if asynchronous else stream)
            return inner(stream)

        async def keeping_async(stream: Any) -> None:
            streams.append(stream.sync)
            await inner(stream)

        return streamkit.stream(keeping_async if asynchronous else keeping)

    with server(described()) as serving_it:
        answer = serving_it.request()
        assert waiting.wait(PATIENCE)
        streams[0].commit()
        answer.finish()
    assert (answer.complete, answer.error) == (True, None)
    assert seen == [True]


def test_only_options_go_over_options() -> None:
    for other in (None, {"heartbeat": 5}, 5):
        refusal(lambda other=other: streamkit.Options(heartbeat=3).merged(other), OptionsError, repr(other))


# -- heads of other code

BAD_VALUES = ["1\r\nX-Injected: 1", "1\n2", "1\r2", "1\0"]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("status", [200, 304])
@INTERFACES
def test_a_header_with_a_newline_on_a_stream_of_other_code_is_refused_and_nothing_sent(
    server: Any, status: int, value: str
) -> None:
    """Not every server refuses it: uvicorn with httptools sends it."""

    def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(f"{status} Said", [("X-Bad", value)])
        return iter([b"x"])

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-bad", value.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    if server is WsgiServer:
        running = WsgiServer(streamkit.wrap(wsgi), validated=False)
    else:
        running = AsgiServer(streamkit.wrap(asgi))
    with running as serving_it:
        answer = serving_it.request().finish()
    refusal(lambda: raising(answer.error), HeaderError, "CR, LF or NUL", repr(value))
    assert not answer.committed


def raising(error: BaseException | None) -> None:
    if error is not None:
        raise error


# -- downloads


@pytest.mark.parametrize("filename", [5, b"a.csv", ["a.csv"], object()])
def test_the_name_of_a_download_is_text(filename: Any) -> None:
    for describe in (
        lambda: streamkit.csv_rows([["a"]], filename),
        lambda: streamkit.json_lines([1], filename),
        lambda: streamkit.send_stream(["a"], filename),
        lambda: streamkit.zip_files([], filename),
    ):
        refusal(describe, HeaderError, "filename", repr(filename))


@pytest.mark.parametrize("encoding", [5, b"utf-8", "no such", "nul\0", "\ud800", object()])
def test_the_encoding_of_rows_is_one_that_is_known(encoding: Any) -> None:
    refusal(lambda: streamkit.csv_rows([["a"]], "a.csv", encoding=encoding), OptionsError, "encoding")
