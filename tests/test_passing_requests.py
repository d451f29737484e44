"""Requests that do not stream, compiled or not: nothing of them is lost, kept, or sent early."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import passing_judge
import pytest

import streamkit
from streamkit.engines import passing
from streamkit.engines.send import ScopeStream
from streamkit.engines.write import RequestStream

KEY = "streamkit.stream"


def environ() -> dict[str, Any]:
    return dict(passing_judge.ENVIRON)


def start_response(status: Any, headers: Any, exc_info: Any = None) -> None:
    return None


async def send(message: Any) -> None:
    return None


async def send_slowly(message: Any) -> None:
    await asyncio.sleep(0)


async def send_nothing(message: Any) -> None:
    raise RuntimeError("no")


def wsgi_app(head: list[tuple[str, str]], *, raises: bool = False) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(head))
        if raises:
            raise KeyError("the app")
        return [b"ok"]

    return app


def asgi_app(head: list[tuple[bytes, bytes]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(head)})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


HTML = ("Content-Type", "text/html; charset=utf-8")
HTML_FIELD, LENGTH_FIELD = (b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"2")


def kept_after(request: Callable[[], None]) -> int:
    """By how many blocks of memory a request makes the process larger, in the mean, rounded."""
    for _ in range(200):  # what is made once only is no part of a request
        request()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(2000):
        request()
    gc.collect()
    return round((sys.getallocatedblocks() - before) / 2000)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    "head", [[HTML, ("Content-Length", "2")], [HTML], [], [("content-type", "text/event-stream")]]
)
def test_wsgi_requests_keep_nothing(head: list[tuple[str, str]], raises: bool) -> None:
    wrapped = streamkit.wrap(wsgi_app(head, raises=raises), kind="wsgi")

    def request() -> None:
        try:
            for _ in wrapped(environ(), start_response):
                pass
        except KeyError:
            pass

    assert kept_after(request) == 0


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_plain_wsgi_request_leaves_nothing_to_the_collector() -> None:
    wrapped = streamkit.wrap(wsgi_app([HTML, ("Content-Length", "2")]), kind="wsgi")
    gone = []
    for _ in range(3):  # the first sees to layers, the others are like it
        request = environ()
        assert list(wrapped(request, start_response)) == [b"ok"]
        gone.append(weakref.ref(request[KEY]))
        del request
    assert [stream() for stream in gone] == [None] * 3


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("head", [[HTML_FIELD, LENGTH_FIELD], [HTML_FIELD]])
def test_a_plain_asgi_request_leaves_nothing_to_the_collector(head: list[tuple[bytes, bytes]]) -> None:
    wrapped = streamkit.wrap(asgi_app(head), kind="asgi")
    gone = []

    async def ask() -> None:
        for _ in range(3):
            scope = dict(passing_judge.SCOPE)
            await wrapped(scope, passing_judge.receive, send)
            gone.append(weakref.ref(scope[KEY]))

    asyncio.run(ask())
    assert [stream() for stream in gone] == [None] * 3


@pytest.mark.parametrize("server", [send, send_slowly, send_nothing])
@pytest.mark.parametrize("head", [[HTML_FIELD, LENGTH_FIELD], [HTML_FIELD], []])
def test_asgi_requests_keep_nothing(head: list[tuple[bytes, bytes]], server: Any) -> None:
    wrapped = streamkit.wrap(asgi_app(head), kind="asgi")
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        try:
            await wrapped(dict(passing_judge.SCOPE), passing_judge.receive, server)
        except RuntimeError:
            pass

    try:
        assert kept_after(lambda: loop.run_until_complete(ask())) == 0
    finally:
        loop.close()


def test_a_request_that_keeps_its_stream_is_collected() -> None:
    request = environ()
    stream = passing.begin_answer(RequestStream, streamkit.Options(), request, start_response)
    stream.on_finish(lambda _: None)  # it has a dict of its own from here on
    assert request[KEY] is stream
    gone = weakref.ref(stream)
    del request, stream
    gc.collect()
    assert gone() is None


def test_a_scope_that_keeps_its_stream_is_collected() -> None:
    scope = dict(passing_judge.SCOPE)
    stream = passing.begin_messages(ScopeStream, object(), scope, passing_judge.receive, send)
    stream.ignore_disconnect = True
    assert scope[KEY] is stream
    assert vars(stream) == {"ignore_disconnect": True}
    gone = weakref.ref(stream)
    del scope, stream
    gc.collect()
    assert gone() is None


# ---------------------------------------------------------------- misuse


@pytest.mark.parametrize("request_", [None, 5, object()])
def test_a_request_that_is_no_mapping_is_refused(request_: Any) -> None:
    with pytest.raises(TypeError):
        passing.begin_answer(RequestStream, streamkit.Options(), request_, start_response)
    with pytest.raises(TypeError):
        passing.begin_messages(ScopeStream, object(), request_, passing_judge.receive, send)


def test_fields_that_were_deleted_are_missed() -> None:
    stream = passing.begin_messages(
        ScopeStream,
        streamkit.wrap(asgi_app([]), kind="asgi"),
        dict(passing_judge.SCOPE),
        passing_judge.receive,
        send,
    )
    held = {"type": "http.response.start", "status": 200, "headers": [HTML_FIELD]}
    asyncio.run(asyncio.wait_for(_awaited(stream.send(held)), 20))
    del stream.server_send
    with pytest.raises(AttributeError, match="server_send"):
        asyncio.run(asyncio.wait_for(_awaited(stream.send({"type": "http.response.body"})), 20))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def test_what_an_application_is_given_has_a_signature() -> None:
    answer = passing.begin_answer(RequestStream, streamkit.Options(), environ(), start_response)
    assert list(inspect.signature(answer.start).parameters) == ["status", "headers", "exc_info"]
    messages = passing.begin_messages(
        ScopeStream, object(), dict(passing_judge.SCOPE), passing_judge.receive, send
    )
    assert list(inspect.signature(messages.send).parameters) == ["message"]
    assert "start_response" in answer.start.__doc__
    assert "send" in messages.send.__doc__


# ---------------------------------------------------------------- what is sent when it is awaited


PLAIN_START = {"type": "http.response.start", "status": 200, "headers": [HTML_FIELD]}
WHOLE_BODY = {"type": "http.response.body", "body": b"ok"}


async def through(app: Any, send: Any) -> Any:
    """The stream of one request, when it has been answered."""
    scope = dict(passing_judge.SCOPE)
    await asyncio.wait_for(streamkit.wrap(app, kind="asgi")(scope, passing_judge.receive, send), 20)
    return scope[KEY]


@pytest.mark.parametrize(
    "awaits", [asyncio.create_task, asyncio.ensure_future, lambda sent: asyncio.wait_for(sent, 20)]
)
def test_messages_are_sent_by_the_task_that_awaits_them(awaits: Any) -> None:
    span: ContextVar[int] = ContextVar("span")
    senders: list[Any] = []

    async def send(message: Any) -> None:
        senders.append(asyncio.current_task())
        token = span.set(1)  # refused by another context than the one it was set in
        await asyncio.sleep(0)
        span.reset(token)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in (PLAIN_START, WHOLE_BODY):
            sent = send(dict(message))
            assert inspect.iscoroutine(sent)
            await awaits(sent)

    asyncio.run(through(app, send))
    assert len(senders) == 2
    assert senders[0] is senders[1]  # the head waited for its body


def test_a_stream_that_is_touched_while_its_head_waits_is_told_of_its_end() -> None:
    told: list[Any] = []
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(dict(PLAIN_START))
        scope[KEY].on_finish(lambda stream: told.append(list(sent)))
        await send(dict(WHOLE_BODY))

    asyncio.run(through(app, send))
    assert told == [["http.response.start", "http.response.body"]]


def test_a_body_whose_sending_is_given_up_before_it_begins_is_not_sent() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(dict(PLAIN_START))
        send(dict(WHOLE_BODY)).close()

    asyncio.run(through(app, send))
    assert sent == []


def test_messages_from_a_worker_thread_are_sent_on_the_loop() -> None:
    threads: list[int] = []

    async def send(message: Any) -> None:
        threads.append(threading.get_ident())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            for message in (PLAIN_START, WHOLE_BODY):
                asyncio.run_coroutine_threadsafe(send(dict(message)), loop).result(20)

        await asyncio.to_thread(work)

    asyncio.run(through(app, send))
    assert threads == [threading.get_ident()] * 2


# ---------------------------------------------------------------- code that runs amid a look


def test_a_start_that_is_gone_when_its_body_comes_is_missed() -> None:
    class More:
        def __bool__(self) -> bool:
            del scopes[0][KEY]._start
            return False

    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send(dict(PLAIN_START))
        await send({**WHOLE_BODY, "more_body": More()})

    with pytest.raises(AttributeError, match="_start"):
        asyncio.run(through(app, send))


def test_a_hook_that_is_set_amid_a_look_is_told() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        class More:
            def __bool__(self) -> bool:
                if not seen:
                    seen.append("asked")
                    scope[KEY].on_finish(lambda stream: seen.append(stream.outcome))
                return False

        await send(dict(PLAIN_START))
        await send({**WHOLE_BODY, "more_body": More()})

    asyncio.run(through(app, send))
    assert seen == ["asked", "finished"]


def test_a_message_that_loses_its_headers_amid_a_look_is_none_the_worse() -> None:
    sent: list[Any] = []
    message: dict[str, Any] = {}

    class Middleware(type(streamkit.wrap(asgi_app([]), kind="asgi"))):  # type: ignore[misc]
        @property
        def plain_head(self) -> Any:
            message.pop("headers", None)
            return (0, HTML_FIELD, 1, b"content-length")

        @plain_head.setter
        def plain_head(self, value: Any) -> None:
            pass

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message.update(
            type="http.response.start", status=200, headers=[(bytes([65]) * 12, b"") for _ in range(99)]
        )
        await send(message)
        await send(dict(WHOLE_BODY))

    scope = dict(passing_judge.SCOPE)
    asyncio.run(asyncio.wait_for(_awaited(Middleware(app)(scope, passing_judge.receive, send)), 20))
    assert [(one["type"], "headers" in one) for one in sent] == [
        ("http.response.start", False),
        ("http.response.body", False),
    ]


def test_a_stream_that_is_being_collected_can_be_asked_to_send() -> None:
    refs: list[Any] = []
    refused: list[str] = []

    def gone(_: object) -> None:
        stream = refs[0]()
        try:
            stream.send(dict(PLAIN_START))
        except AttributeError as error:
            refused.append(str(error))

    class Thing:
        pass

    class Sees:
        def __del__(self) -> None:
            stream = self.stream  # type: ignore[attr-defined]
            refs.extend([weakref.ref(stream), weakref.ref(stream.server_receive, gone)])

    def make() -> None:
        scope: dict[str, Any] = dict(passing_judge.SCOPE)
        wrap = streamkit.wrap(asgi_app([]), kind="asgi")
        stream = passing.begin_messages(ScopeStream, wrap, scope, Thing(), send)
        sees = Sees()
        sees.stream, scope["sees"] = stream, sees  # type: ignore[attr-defined]
        del scope[KEY]
        stream.me = stream

    make()
    gc.collect()
    assert len(refs) == 2  # the collector went through it, and nothing worse than a refusal came


# ---------------------------------------------------------------- a head that its server makes wait


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyError("thrown")])
def test_whoever_waits_for_a_held_head_can_be_cut_off(error: Any) -> None:
    came: list[str] = []
    kind = type(error) if isinstance(error, Exception) else error

    async def send(message: Any) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as thrown:
            came.append(type(thrown).__name__)
            raise

    answer = streamkit.wrap(asgi_app([]), kind="asgi")(dict(passing_judge.SCOPE), passing_judge.receive, send)

    async def first() -> None:
        steps = answer.__await__()
        next(steps)
        with pytest.raises(kind):
            steps.throw(error)

    asyncio.run(first())
    assert came == [kind.__name__]
