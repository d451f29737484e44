"""Hooks of the commit at work while others write: who waits for whom, and who is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, until

import streamkit
from streamkit import StreamError

SERVERS = pytest.mark.parametrize("server", [WsgiServer, AsgiServer], ids=["wsgi", "asgi"])


class Hook:
    """A hook that is at work until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.raises: BaseException | None = None

    def __call__(self, stream: Any) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        stream.headers["X-Hook"] = "ran"
        if self.raises is not None:
            raise self.raises


def in_thread(call: Callable[[], Any], seen: list[Any]) -> threading.Thread:
    """Run this in a thread, and note what it returns or raises."""

    def run() -> None:
        try:
            seen.append(call())
        except Exception as error:
            seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until_it_waits(thread: threading.Thread) -> None:
    """Give a thread that has to wait the time to show that it does not."""
    thread.join(0.1)
    assert thread.is_alive()


def two_writers(hook: Hook, seen: list[Any]) -> Callable[[Any], None]:
    def producer(stream: Any) -> None:
        stream.on_commit(hook)
        first = in_thread(lambda: stream.write("a"), seen)
        assert hook.begun.wait(PATIENCE)
        second = in_thread(lambda: stream.write("bc"), seen)
        wait_until_it_waits(second)
        hook.go.set()
        first.join(PATIENCE)
        second.join(PATIENCE)

    return producer


@SERVERS
def test_a_second_writer_waits_for_the_hooks_of_the_commit_and_its_bytes_follow(server: Any) -> None:
    seen: list[Any] = []
    with server(streamkit.stream(two_writers(Hook(), seen))) as serving:
        answer = serving.request().finish()
    assert sorted(seen) == [1, 2]
    assert answer.header("X-Hook") == "ran"
    assert answer.body in (b"abc", b"bca")


@SERVERS
def test_a_second_writer_hears_that_the_hooks_it_waited_for_have_failed(server: Any) -> None:
    seen: list[Any] = []
    hook = Hook()
    hook.raises = LookupError("hook")
    with server(streamkit.stream(two_writers(hook, seen))) as serving:
        serving.request().finish()
    kinds = {type(result): str(result) for result in seen}
    assert kinds[LookupError] == "hook"
    assert "an on_commit hook failed while this write waited for it" in kinds[StreamError]


def refuse_in_hook(stream: Any, word: str, seen: list[Any]) -> None:
    """Have a hook of the commit say this to its stream, and note that it is refused."""

    @stream.on_commit
    def hook(stream: Any) -> None:
        with pytest.raises(StreamError, match="may change the head, but not write the body") as refused:
            getattr(stream, word)(*["no"][: word == "write"])
        seen.append(refused.type)


@SERVERS
@pytest.mark.parametrize("word", ["write", "flush", "commit", "close"])
def test_a_hook_of_the_commit_that_writes_is_refused_at_once(server: Any, word: str) -> None:
    seen: list[Any] = []

    def producer(stream: Any) -> None:
        refuse_in_hook(stream, word, seen)
        stream.write("x")

    with server(streamkit.stream(producer)) as serving:
        assert serving.request().finish().body == b"x"
    assert seen == [StreamError]


@SERVERS
def test_a_writer_that_waits_for_a_hook_is_released_by_the_end_of_the_stream(server: Any) -> None:
    seen: list[Any] = []
    hook = Hook()

    def producer(stream: Any) -> None:
        stream.on_commit(hook)
        first = in_thread(lambda: stream.write("a"), [])
        assert hook.begun.wait(PATIENCE)
        second = in_thread(lambda: stream.write("b"), seen)
        wait_until_it_waits(second)
        stream.abort("enough")
        second.join(PATIENCE)
        assert not second.is_alive()
        hook.go.set()
        first.join(PATIENCE)

    with server(streamkit.stream(producer)) as serving:
        serving.request().finish()
        assert until(lambda: seen)
    assert isinstance(seen[0], StreamError)
    assert "enough" in str(seen[0])


async def hook_that_waits(begun: asyncio.Event, go: asyncio.Event, error: BaseException | None) -> None:
    begun.set()
    await asyncio.wait_for(go.wait(), PATIENCE)
    if error is not None:
        raise error


@SERVERS
@pytest.mark.parametrize("error", [None, LookupError("hook")], ids=["returns", "raises"])
def test_a_second_task_waits_for_the_hooks_of_the_commit(server: Any, error: BaseException | None) -> None:
    seen: list[Any] = []

    async def producer(stream: Any) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        stream.on_commit(lambda stream: hook_that_waits(begun, go, error))
        first = asyncio.ensure_future(stream.write("a"))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        second = asyncio.ensure_future(stream.write("bc"))
        await asyncio.sleep(0)
        assert not second.done()
        go.set()
        seen.extend(await asyncio.gather(first, second, return_exceptions=True))

    with server(streamkit.stream(producer)) as serving:
        answer = serving.request().finish()
    if error is None:
        assert seen == [1, 2]
        assert answer.body in (b"abc", b"bca")
    else:
        assert seen[0] is error
        assert "an on_commit hook failed while this write waited for it" in str(seen[1])


@SERVERS
def test_a_commit_that_is_not_awaited_lets_the_next_write_wait_for_its_hooks(server: Any) -> None:
    async def producer(stream: Any) -> None:
        @stream.on_commit
        async def hook(stream: Any) -> None:
            await asyncio.sleep(0)
            stream.headers["X-Hook"] = "ran"

        stream.commit()
        await stream.write("x")

    with server(streamkit.stream(producer)) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.header("X-Hook")) == (b"x", "ran")


@SERVERS
@pytest.mark.parametrize("word", ["write", "flush", "commit", "close", "stale"])
def test_a_hook_of_the_twin_that_writes_is_refused_at_once(server: Any, word: str) -> None:
    """Through whichever twin of the same stream."""
    seen: list[Any] = []

    async def producer(stream: Any) -> None:
        other = stream.sync

        @stream.sync.on_commit
        def hook(twin: Any) -> None:
            for each in (twin, other):
                try:
                    getattr(each, word)(*["no"][: word == "write"])
                except StreamError as error:
                    seen.append(str(error))
            twin.headers["X-Hook"] = "ran"

        await asyncio.wait_for(stream.write("x"), PATIENCE)

    with server(streamkit.stream(producer)) as serving:
        answer = serving.request().finish()
    assert seen == ["an on_commit hook may change the head, but not write the body"] * 2
    assert (answer.body, answer.header("X-Hook")) == (b"x", "ran")


@SERVERS
def test_a_hook_of_the_twin_that_comes_after_the_commit_may_write(server: Any) -> None:
    async def producer(stream: Any) -> None:
        await stream.write("a")
        await asyncio.to_thread(stream.sync.on_commit, lambda twin: twin.write("b"))

    with server(streamkit.stream(producer)) as serving:
        assert serving.request().finish().body == b"ab"


def imperative(producer: Any, **head: str) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["streamkit.stream"].headers.update(head)
        producer(environ["streamkit.stream"])
        return []

    return streamkit.wrap(app)


def test_a_second_writer_of_the_environs_stream_waits_for_the_hooks_of_the_commit() -> None:
    seen: list[Any] = []
    with WsgiServer(imperative(two_writers(Hook(), seen))) as serving:
        answer = serving.request().finish()
    assert sorted(seen) == [1, 2]
    assert answer.header("X-Hook") == "ran"
    assert answer.body in (b"abc", b"bca")


def test_a_second_writer_of_the_environs_stream_hears_that_the_hooks_have_failed() -> None:
    seen: list[Any] = []
    hook = Hook()
    hook.raises = LookupError("hook")
    with WsgiServer(imperative(two_writers(hook, seen))) as serving:
        serving.request().finish()
    kinds = {type(result): str(result) for result in seen}
    assert kinds[LookupError] == "hook"
    assert "an on_commit hook failed while this write waited for it" in kinds[StreamError]


@pytest.mark.parametrize("word", ["write", "flush", "commit", "close"])
def test_a_hook_of_the_environs_stream_that_writes_is_refused_at_once(word: str) -> None:
    seen: list[Any] = []

    def producer(stream: Any) -> None:
        refuse_in_hook(stream, word, seen)
        stream.write("x")

    with WsgiServer(imperative(producer)) as serving:
        assert serving.request().finish().body == b"x"
    assert seen == [StreamError]


@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "utf-8-sig"])
def test_threads_that_write_first_at_once_commit_once(charset: str) -> None:
    texts = [f"<{number}>" for number in range(8)]

    def producer(stream: Any) -> None:
        together = threading.Barrier(len(texts))
        failures: list[Any] = []

        def write(text: str) -> int:
            together.wait(PATIENCE)
            return int(stream.write(text))

        threads = [in_thread(lambda text=text: write(text), failures) for text in texts]
        for thread in threads:
            thread.join(PATIENCE)
        assert {type(size) for size in failures} == {int}

    app = imperative(producer, **{"Content-Type": f"text/plain; charset={charset}"})
    with WsgiServer(app) as serving:
        answer = serving.request().finish()
    assert len(answer.starts) == 1
    assert answer.body.startswith("".encode(charset))
    text = answer.body.decode(charset)
    assert "\ufeff" not in text
    assert sorted(text.replace("><", "> <").split()) == texts


def scoped(program: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await program(scope["streamkit.stream"])

    return streamkit.wrap(app)


@pytest.mark.parametrize("first_word", ["write", "commit"])
@pytest.mark.parametrize("second_word", ["write", "commit"])
@pytest.mark.parametrize("error", [None, LookupError("hook")], ids=["returns", "raises"])
def test_a_second_writer_of_the_scopes_stream_waits_for_the_hooks_of_the_commit(
    first_word: str, second_word: str, error: BaseException | None
) -> None:
    seen: list[Any] = []

    async def program(stream: Any) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        stream.on_commit(lambda stream: hook_that_waits(begun, go, error))

        async def say(word: str, text: str) -> None:
            await getattr(stream, word)(*[text][: word == "write"])

        first = asyncio.ensure_future(say(first_word, "a"))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        second = asyncio.ensure_future(say(second_word, "b"))
        for _ in range(20):  # all is done on this loop: turns enough for one that does not wait
            await asyncio.sleep(0)
        assert not second.done()
        go.set()
        seen.extend(await asyncio.gather(first, second, return_exceptions=True))
        if error is None:
            await stream.write("c")

    with AsgiServer(scoped(program)) as serving:
        answer = serving.request().finish()
    if error is None:
        assert seen == [None, None]
        wanted = "".join(t for w, t in ((first_word, "a"), (second_word, "b")) if w == "write") + "c"
        assert answer.body.decode() == wanted
    else:
        assert seen[0] is error
        assert "an on_commit hook failed while this write waited for it" in str(seen[1])


@pytest.mark.parametrize("first_word", ["write", "commit"])
@pytest.mark.parametrize("word", ["write", "commit"])
def test_an_async_hook_of_the_scopes_stream_that_writes_is_refused_at_once(
    first_word: str, word: str
) -> None:
    seen: list[Any] = []

    async def program(stream: Any) -> None:
        @stream.on_commit
        async def hook(stream: Any) -> None:
            await asyncio.sleep(0)
            try:
                await getattr(stream, word)(*["no"][: word == "write"])
            except StreamError as error:
                seen.append(str(error))

        await asyncio.wait_for(getattr(stream, first_word)(*["x"][: first_word == "write"]), PATIENCE)
        await stream.write("y")

    with AsgiServer(scoped(program)) as serving:
        answer = serving.request().finish()
    assert seen == ["an on_commit hook may change the head, but not write the body"]
    assert answer.body == (b"xy" if first_word == "write" else b"y")


@SERVERS
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_producer_may_go_on_when_a_hook_of_the_commit_has_failed(server: Any, kind: str) -> None:
    def hook(stream: Any) -> None:
        raise LookupError("hook")

    def function(stream: Any) -> None:
        stream.on_commit(hook)
        with pytest.raises(LookupError):
            stream.write(b"a")
        stream.write(b"b")

    async def coroutine(stream: Any) -> None:
        stream.on_commit(hook)
        with pytest.raises(LookupError):
            await stream.write(b"a")
        await stream.write(b"b")

    with server(streamkit.stream(function if kind == "function" else coroutine)) as serving:
        answer = serving.request().finish()
    assert (answer.body, answer.complete) == (b"b", True)


@SERVERS
def test_a_task_that_waits_for_a_hook_is_released_by_the_end_of_the_stream(server: Any) -> None:
    seen: list[Any] = []

    async def producer(stream: Any) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        stream.on_commit(lambda stream: hook_that_waits(begun, go, None))

        async def noted(text: str) -> None:
            try:
                await stream.write(text)
            except StreamError as error:
                seen.append((text, str(error)))

        first = asyncio.ensure_future(noted("a"))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        second = asyncio.ensure_future(noted("b"))
        await asyncio.sleep(0)
        assert not second.done()
        stream.abort("enough")
        try:
            await asyncio.wait([second], timeout=PATIENCE)
        finally:  # under ASGI the producer is cancelled by the end
            go.set()
            await asyncio.wait([first, second], timeout=PATIENCE)

    with server(streamkit.stream(producer)) as serving:
        serving.request().finish()
        assert until(lambda: len(seen) == 2)
    assert sorted(text for text, _ in seen) == ["a", "b"]
    assert all("enough" in said for _, said in seen), seen


@pytest.mark.parametrize("then", ["returns", "listens", "sends"])
def test_a_hook_that_fails_at_a_commit_by_the_clock_fails_the_response(then: str) -> None:
    """The head of an event stream leaves though there is no event yet; its application may never send one."""
    outcomes: list[Any] = []

    def fail(stream: Any) -> None:
        raise ValueError("the hook")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        failed = asyncio.Event()
        scope["streamkit.stream"].on_commit(lambda stream: failed.set())
        scope["streamkit.stream"].on_commit(fail)
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await asyncio.wait_for(failed.wait(), PATIENCE)
        if then == "listens":
            while (await receive())["type"] != "http.disconnect":
                pass
        if then == "sends":
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})

    wrapped = streamkit.wrap(app, commit_after=0.01, on_finish=lambda stream: outcomes.append(stream.outcome))
    with AsgiServer(wrapped) as server:
        answer = server.request().finish()
    assert (answer.committed, type(answer.error), outcomes) == (False, ValueError, ["failed"])
