"""Servers that cancel, and that say by OSError that the client is gone; what is closed amid a response."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from driving import PATIENCE, scope_of, until

import streamkit
from streamkit.engines.clock import loop_clock

KEY = "streamkit.stream"
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
LAST: dict[str, Any] = {"type": "http.response.body", "body": b"", "more_body": False}


def part(chunk: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


class Server:
    """One request; `sends(number)` is awaited before the message of this number is taken."""

    def __init__(self, app: Any, sends: Callable[[int], Any] | None = None, **options: Any) -> None:
        self.outcomes: list[Any] = []
        self.errors: list[BaseException] = []
        self.messages: list[Any] = []
        self.loop_errors: list[str] = []
        self.raised: BaseException | None = None
        self._sends = sends
        self.options = {
            "on_finish": lambda stream: self.outcomes.append(stream.outcome),
            "on_error": lambda stream, error: self.errors.append(error),
            **options,
        }
        self.app = streamkit.wrap(app, self.options, kind="asgi")

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        if self._sends is not None:
            awaited = self._sends(len(self.messages) + 1)
            if awaited is not None:
                await awaited
        self.messages.append(message)
        await asyncio.sleep(0)

    async def request(self, method: str = "GET") -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, said: self.loop_errors.append(said["message"]))
        self.task = asyncio.ensure_future(self.app(scope_of(method), self.receive, self.send))
        done, _ = await asyncio.wait([self.task], timeout=PATIENCE)
        assert done, "the application hangs"
        if not self.task.cancelled():
            self.raised = self.task.exception()
        gc.collect()  # asyncio speaks of errors that nobody has heard when it frees their tasks

    def serve(self, method: str = "GET") -> Server:
        asyncio.run(self.request(method))
        return self


async def written(scope: Any, receive: Any, send: Any) -> None:
    await scope[KEY].write("half")
    await asyncio.Event().wait()


async def foreign(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(part(b"half"))
    await asyncio.Event().wait()


async def waiting(stream: Any) -> None:
    await stream.write("half")
    await asyncio.Event().wait()


CANCELLED = {"written": written, "foreign": foreign, "described": streamkit.stream(waiting)}


@pytest.mark.parametrize("app", CANCELLED.values(), ids=CANCELLED)
def test_a_stream_that_its_server_cancels_is_no_finished_one_and_its_end_is_told_once(app: Any) -> None:
    async def main() -> None:
        sent = asyncio.Event()
        server = Server(app, lambda number: sent.set() if number == 2 else None)
        request = asyncio.ensure_future(server.request())
        await asyncio.wait_for(sent.wait(), PATIENCE)
        for _ in range(5):
            await asyncio.sleep(0)
        assert server.messages[1]["body"] == b"half"
        server.task.cancel()
        await request
        assert server.task.cancelled()
        assert server.outcomes == ["disconnected"]

    asyncio.run(main())


async def short(scope: Any, receive: Any, send: Any) -> None:
    await scope[KEY].write("all")


async def failing(stream: Any) -> None:
    stream.headers["Content-Type"] = "text/html"
    await stream.write("<p>")
    raise ValueError


@pytest.mark.parametrize(
    ("app", "last", "outcome"),
    [(short, 3, "disconnected"), (streamkit.stream(failing), 2, "failed")],
    ids=["last message", "completion"],
)
def test_a_stream_that_is_cancelled_amid_its_end_has_ended(app: Any, last: int, outcome: str) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def stuck() -> None:
            reached.set()
            if last == 3:
                await asyncio.Event().wait()

        server = Server(app, lambda number: stuck() if number == last else None)
        request = asyncio.ensure_future(server.request())
        await asyncio.wait_for(reached.wait(), PATIENCE)
        for _ in range(5):
            await asyncio.sleep(0)
        server.task.cancel()
        await request
        assert server.outcomes == [outcome]
        assert not loop_clock().streams

    asyncio.run(main())


async def parts(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(part(b"one"))
    await send(LAST)


def test_a_head_request_for_another_frameworks_stream_gives_its_room_back() -> None:
    async def main() -> None:
        server = Server(parts, max_streams=1)
        for number in range(3):
            await server.request("HEAD")
            assert server.outcomes == ["finished"] * (number + 1)
            assert server.messages[-2]["status"] == 200

    asyncio.run(main())


def gone_at(refused: int) -> Callable[[int], None]:
    def sends(number: int) -> None:
        if number >= refused:
            raise BrokenPipeError

    return sends


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_an_oserror_of_the_server_is_a_leave_whichever_message_it_meets(refused: int) -> None:
    server = Server(parts, gone_at(refused)).serve()
    assert server.raised is None
    assert server.outcomes == ["disconnected"]
    assert [type(error) for error in server.errors] == [streamkit.ClientDisconnected]


@pytest.mark.parametrize("act", ["commit", "close"])
@pytest.mark.parametrize("refused", [1, 2])
def test_a_commit_that_nobody_awaits_meets_a_client_that_is_gone_without_a_word(
    refused: int, act: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        getattr(scope[KEY], act)()

    server = Server(app, gone_at(refused)).serve()
    assert server.outcomes == ["disconnected"]
    assert server.loop_errors == []


@pytest.mark.parametrize("refused", [1, 2])
def test_an_oserror_of_the_server_is_a_leave_for_a_head_request_too(refused: int) -> None:
    server = Server(streamkit.stream(waiting), gone_at(refused)).serve("HEAD")
    assert (server.raised, server.outcomes) == (None, ["disconnected"])


def test_a_page_that_is_aborted_while_its_head_waits_is_not_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        scope[KEY].abort("no")
        await send({**LAST, "body": b"page"})

    server = Server(app).serve()
    assert isinstance(server.raised, streamkit.StreamAborted)
    assert server.messages == []


def test_an_abort_after_the_last_message_changes_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({**LAST, "body": b"page"})
        scope[KEY].abort("too late")

    server = Server(app).serve()
    assert (server.raised, len(server.messages)) == (None, 2)


def test_nothing_follows_a_stream_of_another_framework_that_is_closed_by_the_handle() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(part(b"one"))
        await scope[KEY].close()
        await send(part(b"two"))
        await send(LAST)

    server = Server(app).serve()
    assert [message.get("body") for message in server.messages] == [None, b"one", b""]
    assert (server.raised, server.outcomes) == (None, ["finished"])


@pytest.mark.parametrize("described", [False, True])
def test_a_response_that_is_aborted_by_the_handle_is_not_taken_for_whole(described: bool) -> None:
    async def producer() -> Any:
        yield "one"
        handles[0].abort("no")
        yield "two"

    handles: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        handles.append(scope[KEY])
        if described:
            await streamkit.stream(producer())(scope, receive, send)
        else:
            await send(START)
            await send(part(b"one"))
            scope[KEY].abort("no")
            await send(part(b"two"))
            await send(LAST)

    server = Server(app).serve()
    assert isinstance(server.raised, streamkit.StreamAborted)
    assert all(message.get("more_body", True) for message in server.messages)
    assert server.outcomes == ["aborted"]


def test_the_head_of_a_stream_that_waits_for_its_first_chunk_is_the_one_that_was_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        headers.append((b"x-two", b"2"))
        start["status"] = 500
        await send(part(b"data: 1\n\n"))
        await send(LAST)

    head = Server(app).serve().messages[0]
    assert (head["status"], dict(head["headers"]).get(b"x-two")) == (200, None)


def test_a_head_that_leaves_while_its_application_ends_keeps_no_stream_open() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.ensure_future(scope[KEY].write("late")))
        await asyncio.sleep(0)
        raise ValueError

    tasks: list[Any] = []

    async def main() -> None:
        server = Server(app)
        await server.request()
        await asyncio.wait(tasks, timeout=PATIENCE)
        assert isinstance(tasks[0].exception(), streamkit.StreamClosed)
        assert not loop_clock().streams

    asyncio.run(main())


@pytest.mark.parametrize("described", [False, True])
def test_a_commit_hook_that_aborts_a_head_request_says_so(described: bool) -> None:
    ended: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[KEY].on_commit(lambda stream: stream.abort("no"))
        scope[KEY].on_finish(lambda stream: ended.append(stream.outcome))
        await (streamkit.stream(waiting) if described else parts)(scope, receive, send)

    server = Server(app).serve("HEAD")
    assert isinstance(server.raised, streamkit.StreamAborted)
    assert (server.messages, ended) == ([], ["aborted"])


def test_a_cancellation_amid_a_hook_of_the_end_keeps_no_other_hook_from_its_call() -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def slow(stream: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope[KEY].on_finish(slow)
            await parts(scope, receive, send)

        server = Server(app)
        request = asyncio.ensure_future(server.request())
        await asyncio.wait_for(reached.wait(), PATIENCE)
        server.task.cancel()
        await request
        assert server.task.cancelled()
        assert server.outcomes == ["finished"]

    asyncio.run(main())


@pytest.mark.parametrize("commits", [False, True])
def test_a_producer_that_writes_to_a_stream_that_was_aborted_is_no_error_in_the_log(
    commits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Local:
        """It goes when its producer's error has been dealt with, and nobody holds its frame any more."""

    def producer(stream: Any) -> None:
        local = Local()
        locals_.append(weakref.ref(local))
        if commits:
            stream.write("one")
        stream.abort("no")
        assert stream.wait_finished(PATIENCE)
        stream.write("two")

    locals_: list[Any] = []
    server = Server(streamkit.stream(producer)).serve()
    assert isinstance(server.raised, streamkit.StreamAborted)
    assert until(lambda: locals_[0]() is None)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


EVENTS: dict[str, Any] = {**START, "headers": [(b"content-type", b"text/event-stream")]}


def test_a_head_that_was_due_and_found_its_client_gone_is_no_error_that_nobody_hears() -> None:
    async def main() -> None:
        tried = asyncio.Event()

        def refuse(number: int) -> None:
            tried.set()
            raise OSError("gone")

        async def silent(scope: Any, receive: Any, send: Any) -> None:
            await send(EVENTS)
            await asyncio.wait_for(tried.wait(), PATIENCE)
            for _ in range(5):
                await asyncio.sleep(0)
            await send(part(b"data: late\n\n"))

        server = Server(silent, refuse, commit_after=0.01)
        await server.request()
        assert (server.outcomes, server.messages, server.raised) == (["disconnected"], [], None)
        assert server.loop_errors == []

    asyncio.run(main())


@pytest.mark.parametrize("last", [LAST, {**LAST, "body": b"page"}], ids=["stream", "page"])
def test_a_response_that_was_whole_when_its_application_was_cancelled_is_a_finished_one(last: Any) -> None:
    async def main() -> None:
        whole = asyncio.Event()
        heard: list[Any] = []

        async def goes_on(scope: Any, receive: Any, send: Any) -> None:
            scope[KEY].on_finish(lambda stream: heard.append(stream.outcome))
            await send(START)
            if not last["body"]:
                await send(part(b"all of it"))
            await send(last)
            whole.set()
            await asyncio.Event().wait()

        server = Server(goes_on)
        request = asyncio.ensure_future(server.request())
        await asyncio.wait_for(whole.wait(), PATIENCE)
        server.task.cancel()
        await request
        assert server.task.cancelled()
        assert heard == ["finished"]

    asyncio.run(main())


def test_a_stream_that_is_cancelled_while_its_head_is_on_its_way_is_looked_at_no_more() -> None:
    async def main() -> None:
        due, ended = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            due.set()
            await asyncio.wait_for(ended.wait(), PATIENCE)

        async def silent(scope: Any, receive: Any, send: Any) -> None:
            await send(EVENTS)
            await asyncio.Event().wait()

        server = Server(silent, lambda number: slow() if number == 1 else None, commit_after=0.01)
        request = asyncio.ensure_future(server.request())
        await asyncio.wait_for(due.wait(), PATIENCE)
        server.task.cancel()
        await request
        ended.set()
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(server.messages) == 1  # the head arrived after all
        assert server.outcomes == ["disconnected"]
        assert not loop_clock().streams

    asyncio.run(main())


@pytest.mark.parametrize("chunk", ["late", b"late"])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_what_is_written_before_an_end_and_awaited_after_it_is_refused(chunk: Any, end: str) -> None:
    refused: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope[KEY]
        await stream.write("first")
        writing = stream.write(chunk)
        ending = getattr(stream, end)()
        try:
            if ending is not None:
                await ending
            await writing
        except streamkit.StreamClosed as error:
            refused.append(error)

    server = Server(app).serve()
    assert len(refused) == 1
    assert b"late" not in [message.get("body") for message in server.messages]
    assert [each.get("more_body") for each in server.messages[2:]] == [False] * (end == "close")


def test_a_layer_may_give_the_names_of_a_descriptions_head_as_other_bytes() -> None:
    async def layered(scope: Any, receive: Any, send: Any) -> None:
        async def change(message: Any) -> None:
            if "headers" in message:
                fields = [*message["headers"], (b"etag", b'"of a layer"')]
                message = {**message, "headers": [(bytearray(name), value) for name, value in fields]}
            await send(message)

        await streamkit.stream(["all"])(scope, receive, change)

    server = Server(layered).serve()
    assert server.raised is None
    assert b"etag" not in [bytes(name) for name, _ in server.messages[0]["headers"]]
    assert b"".join(message.get("body", b"") for message in server.messages) == b"all"
