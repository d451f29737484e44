"""The ASGI side is a server as the specification wants it, and tells of an application that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from driving import until

from streamkit.errors import ProtocolViolation
from streamkit.testing import AsyncClient, Client

from .ways import WAYS, Way, asgi_app, got, http_only, soon, survivors

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body"}


@pytest.fixture(params=[way for way in WAYS if way.interface == "asgi"], ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


def sending(*messages: Any, swallows: bool = False, returns: Any = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        for message in messages:
            try:
                await send(message)
            except ProtocolViolation:
                if not swallows:
                    raise
        return returns

    async def only(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http":
            return await app(scope, receive, send)

    return only


BREACHES: list[tuple[str, tuple[Any, ...], str]] = [
    ("nothing", (), "returned without starting its response"),
    ("head alone", (START,), "returned without completing its response"),
    ("no end", (START, BODY), "returned without completing its response"),
    ("body first", (BODY,), "http.response.body was sent before http.response.start"),
    ("two heads", (START, START), "http.response.start was sent a second time"),
    ("two ends", (START, END, END), "'http.response.body' was sent after the end"),
    ("head after the end", (START, END, START), "'http.response.start' was sent after the end"),
    ("unknown", (START, {"type": "http.response.trailers"}), "wanted a message of type http.response.start"),
    ("no message", ("hello",), "wanted a message of type http.response.start"),
    ("no type", ({},), "wanted a message of type http.response.start"),
    ("status", ({**START, "status": "200"},), "wanted a status code"),
    ("no status", ({"type": "http.response.start"},), "wanted a status code"),
    ("text headers", ({**START, "headers": [("a", "b")]},), "wanted each header as two byte strings"),
    ("flat headers", ({**START, "headers": [b"a"]},), "wanted headers as pairs of byte strings"),
    ("newline", ({**START, "headers": [(b"a", b"b\nc")]},), "must not contain CR, LF"),
    ("text body", (START, {**BODY, "body": "x"}), "wanted the body as bytes"),
]


async def read_and_close(connection: Any) -> None:
    """To its very end: a breach may come after a whole body."""
    await got(connection.read())
    await got(connection.close())


@pytest.mark.parametrize(("messages", "said"), [b[1:] for b in BREACHES], ids=[b[0] for b in BREACHES])
def test_a_breach_of_the_order_of_messages_is_raised_to_the_test(
    way: Way, messages: tuple[Any, ...], said: str
) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        with pytest.raises(ProtocolViolation, match=said):
            await read_and_close(connection)
        assert isinstance(connection.error, ProtocolViolation)

    way.play(scene, sending(*messages))


def test_a_breach_that_the_application_lets_pass_is_raised_to_the_test(way: Way) -> None:
    async def scene(client: Any) -> None:
        with pytest.raises(ProtocolViolation, match="a second time"):
            await got(client.get("/").read())

    way.play(scene, sending(START, START, BODY, END, swallows=True))


def test_an_application_returns_none(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.read()) == b"x"
        with pytest.raises(ProtocolViolation, match="returns None, but this one returned 5"):
            await got(connection.close())

    way.play(scene, sending(START, BODY, END, returns=5))


def test_the_last_chunk_may_end_the_body(way: Way) -> None:
    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert [await got(connection.next_chunk()) for _ in range(3)] == [b"x", b"x", None]

    way.play(scene, sending(START, BODY, {"type": "http.response.body", "body": b"x"}))


def test_the_scope_is_that_of_a_server(way: Way) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, await receive()))
        await send(START)
        await send(END)
        seen.append(await receive())

    async def scene(client: Any) -> None:
        connection = client.open(
            "post", "/caf%C3%A9/ö x", query={"q": ["ü", "v"]}, headers={"X-A": "1"}, body=b"abc",
            http_version="2", environ_extra={"ignored": True}, scope_extra={"scheme": "https"},
        )  # fmt: skip
        assert await got(connection.read()) == b""
        await got(connection.wait_closed())

    way.play(scene, http_only(app))
    assert seen[0] == {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "2",
        "method": "POST", "scheme": "https", "path": "/café/ö x", "raw_path": b"/caf%C3%A9/%C3%B6%20x",
        "query_string": b"q=%C3%BC&q=v", "root_path": "", "client": ("127.0.0.1", 50000),
        "headers": [(b"host", b"localhost"), (b"x-a", b"1"), (b"content-length", b"3")],
        "server": ("localhost", 80), "state": {},
    }  # fmt: skip
    assert seen[1:] == [
        {"type": "http.request", "body": b"abc", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_receive_tells_of_a_disconnect_whoever_asks_and_how_often(way: Way) -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        heard.extend(message["type"] for message in await asyncio.gather(receive(), receive()))
        heard.append((await receive())["type"])
        await send(BODY)  # in silence
        heard.append("sent")

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.wait_head()) == 200
        connection.disconnect()
        await got(connection.wait_closed())
        assert connection.error is None

    way.play(scene, http_only(app))
    assert heard == ["http.disconnect"] * 3 + ["sent"]


@pytest.mark.parametrize(("spec", "raises"), [("2.3", False), ("2.4", True), ("3.0", True)])
def test_send_to_nobody_raises_where_the_scopes_version_says_so(way: Way, spec: str, raises: bool) -> None:
    heard: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            for _ in range(3):
                await send(BODY)
        except OSError as error:
            heard.append(True)
            raise RuntimeError("left") from error
        heard.append(False)

    async def scene(client: Any) -> None:
        extra = {"asgi": {"version": "3.0", "spec_version": spec}}
        connection = client.get("/", scope_extra=extra)
        assert await got(connection.next_chunk()) == b"x"
        connection.disconnect()
        await got(connection.wait_closed())
        assert connection.error is None

    way.play(scene, http_only(app))
    assert heard == [raises]


def test_an_application_that_ignores_a_disconnect_is_cancelled_and_told_of(way: Way) -> None:
    cancelled: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            while True:
                await send(BODY)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"x"
        with pytest.raises(TimeoutError, match="the client has left, and it was cancelled"):
            await got(connection.close(timeout=0.05))

    way.play(scene, http_only(app))
    assert cancelled == [True]


def test_work_after_the_body_is_waited_for(way: Way) -> None:
    done: list[bool] = []
    go_on = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        assert await soon(go_on.is_set)
        await asyncio.sleep(0.02)  # the work
        done.append(True)

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.read()) == b""
        assert (connection.complete, connection.closed) == (True, False)
        go_on.set()

    way.play(scene, http_only(app))
    assert done == [True]


def test_the_context_of_the_test_is_that_of_the_application_but_not_the_other_way(way: Way) -> None:
    number: ContextVar[int] = ContextVar("number")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = number.get()
        number.set(8)
        await send(START)
        await send({"type": "http.response.body", "body": str(seen).encode()})

    async def scene(client: Any) -> None:
        number.set(7)
        assert await got(client.get("/").read()) == b"7"
        assert number.get() == 7

    way.play(scene, http_only(app))


# ---------------------------------------------------------------- the loop of the synchronous client


def test_what_an_application_leaves_behind_on_the_clients_loop_ends_with_it() -> None:
    ended: list[str] = []

    async def behind() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("task")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["kept"].append(asyncio.ensure_future(behind()))
        await asyncio.to_thread(ended.append, "thread")
        await send(START)
        await send(END)

    with Client(http_only(app)) as client:
        assert client.get("/", scope_extra={"kept": []}).read() == b""
        assert ended == ["thread"]
    assert ended == ["thread", "task"]
    assert not survivors()


def test_a_worker_thread_that_does_not_end_is_told_of() -> None:
    go_on = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().run_in_executor(None, go_on.wait, 20)
        await send(START)
        await send(END)

    client = Client(http_only(app), timeout=0.2)
    with pytest.raises(TimeoutError, match=r"but these live: .*worker"):
        with client:
            assert client.get("/").read() == b""
    go_on.set()
    for thread in threading.enumerate():
        if thread.name in survivors():
            thread.join(20)


def test_what_an_application_leaves_behind_and_does_not_end_is_told_of() -> None:
    tasks: list[asyncio.Future[None]] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.ensure_future(stubborn()))
        await asyncio.sleep(0)
        await send(START)
        await send(END)

    client = Client(http_only(app), timeout=1.5)
    with pytest.raises(TimeoutError, match=r"but these live: .*stubborn"), client:
        assert client.get("/").read() == b""
    tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would say it too
    assert until(lambda: not survivors())  # the last thread may need a moment more


def test_an_asynchronous_generator_that_does_not_end_is_told_of() -> None:
    async def stubborn() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(60)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["kept"].append(generator := stubborn())
        await anext(generator)
        await send(START)
        await send(END)

    client = Client(http_only(app), timeout=1.5)
    with pytest.raises(TimeoutError, match=r"but these live: .*generator"), client:
        assert client.get("/", scope_extra={"kept": []}).read() == b""
    assert until(lambda: not survivors())  # the last thread may need a moment more


def test_an_application_that_blocks_the_loop_does_not_block_the_test() -> None:
    go_on = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        go_on.wait(20)  # this is the fault
        await send(START)
        await send(END)

    with Client(http_only(app)) as client, client.get("/") as connection:
        with pytest.raises(TimeoutError, match="the head of the response"):
            connection.wait_head(0.05)
        go_on.set()
        assert connection.read() == b""


def test_tasks_read_several_connections_at_a_time() -> None:
    async def main() -> None:
        async with AsyncClient(asgi_app(lambda: (b"%d" % n for n in range(50))), timeout=20) as client:
            bodies = await asyncio.gather(*(client.get("/").read() for _ in range(20)))
            assert set(bodies) == {b"".join(b"%d" % n for n in range(50))}
            late = asyncio.ensure_future(client.get("/").read())
            await asyncio.sleep(0)
            late.cancel()
            assert await soon(late.cancelled)

    asyncio.run(main())


def test_a_test_that_is_cancelled_while_it_closes_leaves_no_task_behind() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def use() -> None:
        async with AsyncClient(http_only(app)) as client, client.get("/"):
            pass

    async def main() -> None:
        using = asyncio.ensure_future(use())
        await asyncio.wait_for(begun.wait(), 20)  # nobody reads: the test closes meanwhile
        assert not using.done()
        using.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        with pytest.raises(asyncio.CancelledError):
            await using

    asyncio.run(main())
