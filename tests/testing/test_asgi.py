"""The ASGI side is a server as the specification wants it, and tells of an application that is none."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from streamkit.errors import ProtocolViolation
from streamkit.testing import AsyncClient, Client, LifespanFailed, NotOpen

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

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        await asyncio.sleep(0.02)
        done.append(True)

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.read()) == b""
        assert (connection.complete, connection.closed) == (True, False)

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


# ---------------------------------------------------------------- the lifespan


class Living:
    """An application with a lifespan, which notes what becomes of it."""

    def __init__(self, *, startup: Any = None, shutdown: Any = None, returns: bool = True) -> None:
        self.notes: list[str] = []
        self.startup, self.shutdown, self.returns = startup, shutdown, returns
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        else:
            await self.answer(scope, receive, send)

    async def live(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        self.notes.append("startup")
        scope["state"]["number"] = 7
        await self.say("startup", self.startup, send)
        assert (await receive())["type"] == "lifespan.shutdown"
        self.notes.append("shutdown")
        self.stopping.set()
        await self.say("shutdown", self.shutdown, send)
        if not self.returns:
            await receive()

    async def say(self, phase: str, answer: Any, send: Any) -> None:
        if isinstance(answer, BaseException):
            raise answer
        if answer == "never":
            await asyncio.sleep(60)
        if answer is not None:
            await send({"type": f"lifespan.{phase}.failed", "message": answer})
            raise RuntimeError("the reason")
        await send({"type": f"lifespan.{phase}.complete"})

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({**BODY, "body": str(scope["state"]).encode()})
        scope["state"]["more"] = 1
        await self.stopping.wait()
        await send({"type": "http.response.body", "body": b"farewell"})


@pytest.mark.parametrize("returns", [True, False])
def test_the_lifespan_spans_the_requests_and_its_state_is_given_to_each(way: Way, returns: bool) -> None:
    app = Living(returns=returns)

    async def scene(client: Any) -> None:
        assert app.notes == ["startup"]
        assert client.state == {"number": 7}
        for _ in range(2):
            connection = client.get("/")
            assert await got(connection.next_chunk()) == b"{'number': 7}"
        assert app.notes == ["startup"]
        assert await got(client.shutdown())
        assert await got(connection.read()) == b"farewell"

    way.play(scene, app)
    assert app.notes == ["startup", "shutdown"]


def test_a_shutdown_is_started_while_connections_are_open(way: Way) -> None:
    app = Living()

    async def scene(client: Any) -> None:
        connection = client.get("/")
        assert await got(connection.next_chunk()) == b"{'number': 7}"
        assert await got(client.shutdown()) is True
        assert await got(connection.next_chunk()) == b"farewell"
        assert await got(client.shutdown(wait=True)) is True
        with pytest.raises(NotOpen, match="it was told to shut down"):
            client.get("/")
        assert await got(connection.next_chunk()) is None

    way.play(scene, app)
    assert app.notes == ["startup", "shutdown"]


def test_an_application_without_a_lifespan_is_as_good(way: Way) -> None:
    async def scene(client: Any) -> None:
        assert client.state == {}
        assert await got(client.shutdown(wait=True)) is False

    async def sends_http(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    async def returns_at_once(scope: Any, receive: Any, send: Any) -> None: ...

    for app in (http_only(sending()), sends_http, returns_at_once):
        way.play(scene, app)


def test_a_lifespan_is_left_out_where_that_is_asked_for(way: Way) -> None:
    app = Living(startup="never")

    async def scene(client: Any) -> None:
        assert await got(client.get("/").next_chunk()) == b"{}"
        app.stopping.set()

    way.play(scene, app, lifespan="off")
    assert app.notes == []


FAILURES: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("startup failed", {"startup": "no database"}, LifespanFailed, "the startup .* failed: no database"),
    ("startup silent", {"startup": ""}, LifespanFailed, "the startup .* failed: it gave no reason"),
    ("startup late", {"startup": "never"}, TimeoutError, "startup.complete .* in sleep .* < say .*'off'"),
    ("shutdown failed", {"shutdown": "lost"}, LifespanFailed, "the shutdown .* failed: lost"),
    ("shutdown raises", {"shutdown": OSError("x")}, LifespanFailed, r"it raised OSError\('x'\)"),
    ("shutdown late", {"shutdown": "never"}, TimeoutError, "wanted lifespan.shutdown.complete"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "error", "said"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_failure_of_the_lifespan_is_raised_by_the_client(
    way: Way, how: dict[str, Any], error: type[Exception], said: str
) -> None:
    async def scene(client: Any) -> None:
        assert "shutdown" in how, "the client was opened"

    with pytest.raises(error, match=said) as raised:
        way.play(scene, Living(**how), timeout=0.2)
    if error is LifespanFailed:
        assert isinstance(raised.value.__cause__, (RuntimeError, OSError))
    assert not survivors()


def test_an_error_at_the_startup_counts_where_a_lifespan_is_wanted(way: Way) -> None:
    async def scene(client: Any) -> None: ...

    app = Living(startup=ValueError("x"))
    way.play(scene, app)
    with pytest.raises(LifespanFailed, match=r"it raised ValueError\('x'\)"):
        way.play(scene, app, lifespan="on")

    async def returns_at_once(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(LifespanFailed, match="it returned without an answer"):
        way.play(scene, returns_at_once, lifespan="on")


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
        async with AsyncClient(asgi_app(lambda: (b"%d" % n for n in range(50)))) as client:
            bodies = await asyncio.gather(*(client.get("/").read() for _ in range(20)))
            assert set(bodies) == {b"".join(b"%d" % n for n in range(50))}
            late = asyncio.ensure_future(client.get("/").read())
            await asyncio.sleep(0)
            late.cancel()
            assert await soon(late.cancelled)

    asyncio.run(main())


def test_a_test_that_is_cancelled_while_it_closes_leaves_no_task_behind() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def use() -> None:
        async with AsyncClient(http_only(app)) as client, client.get("/"):
            pass

    async def main() -> None:
        using = asyncio.ensure_future(use())
        assert not await soon(using.done, 0.05)
        using.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        with pytest.raises(asyncio.CancelledError):
            await using

    asyncio.run(main())
