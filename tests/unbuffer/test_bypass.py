"""What a bypassed layer still does for a stream, and what it can no longer do to one.

Rule: the layers here are written for the tests, each to do the one thing that is asked about.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.validate import validator

import pytest

import streamkit
from streamkit import unbuffer
from streamkit.testing import Client

from .layered import AT_ONCE, HTML, Drip, Page, Seen, plain_asgi, plain_wsgi

HERE = __name__
LONG = 10.0


class Holding:
    """A WSGI layer that reads the whole body, then does as it is told to the head."""

    def __init__(self, app: Any, change: Callable[[str, list[tuple[str, str]], bytes], Any]) -> None:
        self.app = app
        self._change = change

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        heads: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            heads[:] = [status, headers]
            return lambda chunk: None

        body = self.app(environ, start)
        try:
            whole = b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        status, headers, whole = self._change(heads[0], list(heads[1]), whole)
        start_response(status, headers)
        return [whole]


class HoldingAsync(Holding):
    """The same for ASGI: it answers when the inner app has sent its last message."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        messages: list[Any] = []

        async def hold(message: Any) -> None:
            messages.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._answer(messages, send)

        await self.app(scope, receive, hold if scope["type"] == "http" else send)

    async def _answer(self, messages: list[Any], send: Any) -> None:
        headers = [(n.decode(), v.decode()) for n, v in messages[0]["headers"]]
        body = b"".join(message.get("body", b"") for message in messages[1:])
        status, headers, body = self._change(str(messages[0]["status"]), headers, body)
        raw = [(n.lower().encode(), v.encode()) for n, v in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": False})


NAMES = (f"{HERE}.Holding",)  # and all classes that are made of it


@pytest.fixture(params=["wsgi", "asgi"])
def layered(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes an app with a layer that holds all, bypassed; by either interface."""

    def make(drip: Drip, change: Callable[..., Any]) -> Any:
        if request.param == "wsgi":
            return unbuffer.strip(validator(Holding(validator(plain_wsgi(drip)), change)), NAMES)
        return unbuffer.strip(HoldingAsync(plain_asgi(drip), change), NAMES)

    return make


def seen(app: Any, drip: Drip) -> Seen:
    found = Seen(app, drip, kind="asgi" if isinstance(app, unbuffer.stripping.OutsideASGI) else "wsgi")
    return found


def test_what_a_layer_adds_to_the_head_is_on_the_stream(layered: Callable[..., Any]) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        return status, [*headers, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Layer", "1")], body

    drip = Drip(LONG)
    found = seen(layered(drip, change), drip)
    assert drip.log == AT_ONCE
    assert found.status == 200
    assert found.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert (found.headers["X-Layer"], found.headers["X-App"]) == ("1", "kept")


def test_what_a_layer_takes_off_or_sets_anew_is_so_on_the_stream(layered: Callable[..., Any]) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() not in ("x-app", "content-type")]
        return status, [*kept, ("Content-Type", "text/html")], body

    drip = Drip(LONG)
    found = seen(layered(drip, change), drip)
    assert "X-App" not in found.headers
    assert found.headers.getlist("Content-Type") == ["text/html"]


def test_what_a_layer_computed_from_the_empty_body_is_not_on_the_stream(layered: Callable[..., Any]) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        more = [("ETag", '"of nothing"'), ("Content-Length", str(len(body))), ("Cache-Control", "max-age=60")]
        return status, [*headers, *more], body

    drip = Drip(LONG)
    found = seen(layered(drip, change), drip)
    for name in ("ETag", "Content-Length", "Cache-Control"):
        assert name not in found.headers


def test_a_304_that_comes_of_the_empty_bodys_etag_is_ignored(layered: Callable[..., Any]) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        return "304 Not Modified", [("ETag", '"of nothing"')], b""

    drip = Drip(LONG)
    assert seen(layered(drip, change), drip).status == 200
    assert drip.log == AT_ONCE


def test_a_layers_own_answer_goes_out_in_the_streams_place(layered: Callable[..., Any]) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        return "403 Forbidden", [("Content-Type", "text/plain")], b"not for you"

    drip = Drip(0.1)
    found = seen(layered(drip, change), drip)
    assert (found.status, found.text) == (403, "not for you")
    assert "made 1" not in drip.log


def test_what_caches_see_is_nothing_that_they_may_store(layered: Callable[..., Any]) -> None:
    heads: list[Any] = []

    def change(status: str, headers: Any, body: bytes) -> Any:
        heads.append((status[:3], dict(headers)))
        return status, headers, body

    drip = Drip(LONG)
    seen(layered(drip, change), drip)
    ((status, headers),) = heads
    assert status == "202"
    assert "no-store" in {name.lower(): value for name, value in headers.items()}["cache-control"]


def test_a_layer_that_fails_on_the_empty_body_does_not_cost_the_stream(
    layered: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def change(status: str, headers: Any, body: bytes) -> Any:
        raise ValueError("no body to parse")

    drip = Drip(LONG)
    assert seen(layered(drip, change), drip).status == 200
    assert drip.log == AT_ONCE
    assert "failed on the empty body" in caplog.text


def test_a_page_goes_through_the_layer_as_it_is(layered: Callable[..., Any]) -> None:
    bodies: list[bytes] = []

    def change(status: str, headers: Any, body: bytes) -> Any:
        bodies.append(body)
        return status, headers, body

    app = layered(Drip(LONG), change)
    page = Page(app, kind="asgi" if isinstance(app, unbuffer.stripping.OutsideASGI) else "wsgi")
    assert page.status == 200
    assert bodies == [page.body]


# ---------------------------------------------------------------- endings


def same(status: str, headers: Any, body: bytes) -> Any:
    return status, headers, body


def test_a_wsgi_body_is_closed_once_when_the_client_leaves() -> None:
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            return b"x"

        def close(self) -> None:
            closed.append("app")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", HTML)])
        return Body()

    with Client(unbuffer.strip(Holding(app, same), NAMES), kind="wsgi") as client:
        with client.get("/") as connection:
            assert connection.next_chunk() == b"x"
    assert closed == ["app"]


def test_an_error_in_the_middle_of_a_stream_reaches_whoever_is_outside() -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", HTML)])

        def body() -> Any:
            yield b"x"
            raise LookupError("lost")

        return body()

    with Client(unbuffer.strip(Holding(broken, same), NAMES), kind="wsgi") as client:
        connection = client.get("/")
        assert connection.next_chunk() == b"x"
        with pytest.raises(LookupError):
            connection.next_chunk()


def test_an_asgi_layer_that_swallows_errors_does_not_swallow_the_streams() -> None:
    class Swallowing(HoldingAsync):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            except LookupError:
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"sorry"})

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise LookupError("lost")

    app = unbuffer.strip(Swallowing(broken, same), NAMES)
    with Client(app, kind="asgi", lifespan="off") as client:
        connection = client.get("/")
        assert connection.next_chunk() == b"x"
        with pytest.raises(LookupError):
            connection.next_chunk()


def test_an_asgi_app_hears_of_the_clients_leave_and_not_of_the_layers_end() -> None:
    heard: list[str] = []
    told = threading.Event()

    class Through(HoldingAsync):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            over = asyncio.Event()

            async def receive_until_over() -> Any:
                if over.is_set():
                    return {"type": "http.disconnect"}
                return await receive()

            async def note_end(message: Any) -> None:
                await send(message)
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    over.set()

            await self.app(scope, receive_until_over, note_end)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        heard.append((await receive())["type"])
        told.set()

    stripped = unbuffer.strip(Through(app, same), NAMES)
    with Client(stripped, kind="asgi", lifespan="off", read_ahead=1000) as client:
        with client.get("/") as connection:
            assert connection.next_chunk() == b"x"
            assert not told.wait(0.05)
            connection.disconnect()
            assert told.wait(LONG)
    assert heard == ["http.disconnect"]


def test_a_layer_may_copy_the_scope_deeply() -> None:
    class Copying(HoldingAsync):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                kept = {name: value for name, value in scope.items() if name != "streamkit.stream"}
                scope = copy.deepcopy(kept)
            await super().__call__(scope, receive, send)

    drip = Drip(LONG)
    Seen(unbuffer.strip(Copying(plain_asgi(drip), same), NAMES), drip, kind="asgi")
    assert drip.log == AT_ONCE


# ---------------------------------------------------------------- descriptions, and the mark


def described_wsgi(drip: Drip) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        response = streamkit.stream(drip.chunks(), content_type=HTML, headers={"X-App": "kept"})
        return response(environ, start_response)

    return app


def described_asgi(drip: Drip) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            response = streamkit.stream(drip.chunks_async(), content_type=HTML, headers={"X-App": "kept"})
            await response(scope, receive, send)

    return app


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_description_goes_past_a_layer_too(interface: str) -> None:
    drip = Drip(LONG)
    app: Any = Holding(described_wsgi(drip), same)
    if interface == "asgi":
        app = HoldingAsync(described_asgi(drip), same)
    found = Seen(streamkit.wrap(app, strip=NAMES), drip)
    assert drip.log == AT_ONCE
    assert found.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_layers_see_a_content_coding_that_the_client_does_not(interface: str) -> None:
    codings: list[str | None] = []

    class Looking:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, environ: Any, start_response: Any) -> Any:
            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                codings.append(dict(headers).get("Content-Encoding"))
                return start_response(status, headers)

            return self.app(environ, start)

    class LookingAsync(Looking):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def look(message: Any) -> None:
                if message["type"] == "http.response.start":
                    coding = dict(message["headers"]).get(b"content-encoding")
                    codings.append(None if coding is None else coding.decode())
                await send(message)

            await self.app(scope, receive, look)

    for strip, wanted in ((("gzip",), "x-streamkit"), ((), None)):
        drip = Drip(LONG)
        codings.clear()
        bare = described_wsgi(drip) if interface == "wsgi" else described_asgi(drip)
        layer = Looking(bare) if interface == "wsgi" else LookingAsync(bare)
        found = Seen(streamkit.wrap(layer, strip=strip, kind=interface), drip)
        assert codings == [wanted]
        assert "Content-Encoding" not in found.headers


def test_without_a_wrap_outside_a_description_bears_no_mark() -> None:
    drip = Drip(LONG)
    assert "Content-Encoding" not in Seen(described_wsgi(drip), drip).headers


@pytest.mark.parametrize("added", ["gzip", "x-streamkit, gzip"])
def test_the_mark_is_taken_off_among_codings_that_a_layer_has_added(added: str) -> None:
    from streamkit.unbuffer.marker import marked, marked_fields, unmarked, unmarked_fields

    assert unmarked([("content-encoding", added)]) == [("content-encoding", "gzip")]
    assert unmarked(marked([("A", "b")])) == [("A", "b")]
    assert marked([("Content-Encoding", "br")]) == [("Content-Encoding", "br")]
    for name in (b"content-encoding", b"Content-Encoding"):
        [field] = unmarked_fields([(name, added.encode())])
        assert (field[0].lower(), field[1]) == (b"content-encoding", b"gzip")
    assert unmarked_fields(marked_fields([(b"a", b"b")])) == [(b"a", b"b")]
    assert marked_fields([(b"content-encoding", b"br")]) == [(b"content-encoding", b"br")]


def test_a_refusal_in_a_descriptions_place_bears_no_mark() -> None:
    held = threading.Event()

    def waiting(stream: Any) -> None:
        stream.write("x")
        held.wait(LONG)

    def app(environ: Any, start_response: Any) -> Any:
        return streamkit.stream(waiting)(environ, start_response)

    with Client(streamkit.wrap(app, max_streams=1)) as client:
        with client.get("/") as first:
            assert first.next_chunk() == b"x"
            with client.get("/") as second:
                assert second.status == 503
                assert "Content-Encoding" not in second.headers
            held.set()


@pytest.mark.parametrize("description", [False, True])
def test_eventlet_is_told_to_gather_no_chunks_of_a_stream(description: bool) -> None:
    told: list[Any] = []

    def eventlet(environ: dict[str, Any], start_response: Any) -> Any:
        environ["eventlet.input"] = environ["wsgi.input"]  # its environ alone has that
        body = app(environ, start_response)
        told.append(environ.get("eventlet.minimum_write_chunk_size"))
        return body

    drip = Drip(LONG)
    app = streamkit.wrap(described_wsgi(drip) if description else plain_wsgi(drip))
    Seen(eventlet, drip)
    assert told == [1]
    if not description:
        Page(eventlet)
        assert told == [1, None]


# ---------------------------------------------------------------- strip and report


def test_a_second_strip_does_no_more_than_the_first() -> None:
    drip = Drip(LONG)
    app = unbuffer.strip(unbuffer.strip(Holding(plain_wsgi(drip), same), NAMES), NAMES)
    assert isinstance(app, unbuffer.stripping.OutsideWSGI)
    assert isinstance(app.wrapped, Holding)
    assert [taken.how for taken in unbuffer.report(app).taken] == ["bypassed"]


def test_layers_of_no_asked_kind_are_left_alone() -> None:
    app = Holding(plain_wsgi(Drip(LONG)), same)
    assert unbuffer.strip(app) is app
    assert unbuffer.strip(app, ()) is app
    assert unbuffer.report(app) == unbuffer.Report()


def test_removing_takes_the_layer_out_for_every_response() -> None:
    inner = plain_wsgi(Drip(LONG))
    app = Holding(Holding(inner, same), same)
    assert unbuffer.strip(app, (NAMES[0],), remove=True) is inner
    outer = validator(Holding(inner, same))
    assert unbuffer.strip(outer, (NAMES[0],), remove=True) is outer
    assert [taken.how for taken in unbuffer.report(outer).taken] == ["removed"]
    (cell,) = (cell for cell in outer.__closure__ if callable(cell.cell_contents))
    assert cell.cell_contents is inner


def test_a_layer_that_cannot_be_relinked_is_left_as_found_and_named(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn:
        """It keeps the app where it cannot be replaced."""

        def __init__(self, app: Any) -> None:
            self.app = (lambda app: lambda: app)(app)
            self.parts = frozenset([app])

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.app()(environ, start_response)

    app = Stubborn(plain_wsgi(Drip(LONG)))
    name = f"{HERE}.{Stubborn.__qualname__}"
    assert unbuffer.strip(app, (name,)) is app
    (left,) = unbuffer.report(app).held
    assert left.name == name
    assert "was not found in it" in left.why
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_is_taken_out_of_the_way_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamkit")
    app = streamkit.wrap(Holding(plain_wsgi(Drip(LONG)), same), strip=NAMES)
    assert not caplog.records
    for _ in range(2):
        Page(app)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"streams go past {NAMES[0]} (")


def test_many_first_requests_at_once_put_two_halves_around_a_layer_once() -> None:
    layer = Holding(plain_wsgi(Drip(LONG)), same)
    app = streamkit.wrap(layer, strip=NAMES)
    ready = threading.Barrier(8)

    def ask() -> None:
        ready.wait(LONG)
        Page(app)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert isinstance(layer.app, unbuffer.stripping.InsideWSGI)
    assert not isinstance(layer.app.app, unbuffer.stripping.InsideWSGI)


@pytest.mark.parametrize("kinds", ["etag", ["everything"], [1]])
def test_kinds_that_are_none_are_refused(kinds: Any) -> None:
    with pytest.raises(streamkit.OptionsError, match="etag, gzip, cache"):
        unbuffer.strip(plain_wsgi(Drip(LONG)), kinds)


def test_the_option_takes_dotted_names_beside_kinds() -> None:
    assert streamkit.Options(strip=["etag", "shop.web.Layer"]).strip == ("etag", "shop.web.Layer")
    with pytest.raises(streamkit.OptionsError, match="dotted names"):
        streamkit.Options(strip=["shop..Layer"])




def asked(app: Any, interface: str) -> tuple[list[Any], bytes]:
    """The heads and the body that a server gets of this app; what it raises is raised."""
    heads: list[Any] = []
    if interface == "wsgi":
        environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
        return heads, b"".join(app(environ, lambda *head: heads.append(head)))
    chunks: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            heads.append(message)
        else:
            chunks.append(message["body"])

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": "1.1"}
    asyncio.run(asyncio.wait_for(app(scope, asyncio.Event().wait, send), LONG))
    return heads, b"".join(chunks)


INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])


@INTERFACES
def test_an_error_before_any_answer_reaches_whoever_is_outside(interface: str) -> None:
    def fail(environ: Any, start_response: Any) -> Any:
        raise LookupError("before the answer")

    async def fail_async(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("before the answer")

    layer = Holding(fail, same) if interface == "wsgi" else HoldingAsync(fail_async, same)
    with pytest.raises(LookupError, match="before the answer"):
        asked(unbuffer.strip(layer, NAMES), interface)


@INTERFACES
def test_an_app_may_ask_itself_something_before_it_streams(interface: str) -> None:
    heard: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            environ["PATH_INFO"] = "/inside"
            heard.append(b"".join(root(environ, lambda *head: None)))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a", b"b"])

    async def app_async(scope: Any, receive: Any, send: Any) -> None:
        async def hear(message: Any) -> None:
            heard.append(message.get("body", b""))

        if scope["path"] == "/":
            scope["path"] = "/inside"
            await root(scope, receive, hear)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in (b"a", b"b", b""):
            await send({"type": "http.response.body", "body": chunk, "more_body": bool(chunk)})

    layer = Holding(app, same) if interface == "wsgi" else HoldingAsync(app_async, same)
    root: Any = unbuffer.strip(layer, NAMES)
    heads, body = asked(root, interface)
    assert (len(heads), body, b"".join(heard)) == (1, b"ab", b"ab")


def test_a_body_that_fails_before_its_head_is_closed() -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Any:
            raise LookupError("no first chunk")
            yield b""

        def close(self) -> None:
            closed.append(True)

    layer = Holding(lambda environ, start_response: Body(), same)
    with pytest.raises(LookupError, match="no first chunk"):
        asked(unbuffer.strip(layer, NAMES), "wsgi")
    assert closed == [True]


def test_a_layers_body_is_closed_also_where_closing_the_stream_fails() -> None:
    closed: list[bool] = []

    class OfLayer(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    class Keeping(Holding):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            return OfLayer(self.app(environ, start_response))

    class Body:
        def __iter__(self) -> Any:
            return iter([b"a"])

        def close(self) -> None:
            raise LookupError("closing")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    body: Any = unbuffer.strip(Keeping(app, same), NAMES)({"REQUEST_METHOD": "GET"}, lambda *head: None)
    assert list(body) == [b"a"]
    with pytest.raises(LookupError, match="closing"):
        body.close()
    assert closed == [True]


def test_a_head_without_a_body_goes_out_as_the_app_has_left_it() -> None:
    class Passing(HoldingAsync):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})

    heads, body = asked(unbuffer.strip(Passing(app, same), NAMES), "asgi")
    assert [head["status"] for head in heads] == [418]
    assert body == b""


def test_the_body_of_a_refusal_may_come_after_the_app_has_been_told() -> None:
    class Refusing(HoldingAsync):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def refuse(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await send({"type": "http.response.start", "status": 403, "headers": []})

            await self.app(scope, receive, refuse)
            await send({"type": "http.response.body", "body": b"not for you", "more_body": False})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    heads, body = asked(unbuffer.strip(Refusing(app, same), NAMES), "asgi")
    assert [head["status"] for head in heads] == [403]
    assert body == b"not for you"


def test_both_bodies_are_closed_where_the_server_refuses_the_head() -> None:
    closed: list[str] = []

    class Body:
        def __init__(self, name: str) -> None:
            self.name = name

        def __iter__(self) -> Any:
            return iter([])

        def close(self) -> None:
            closed.append(self.name)

    class Keeping(Holding):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            self.app(environ, start_response)
            return Body("layer")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body("stream")

    def refuse(*head: Any) -> Any:
        raise ValueError("no such head")

    with pytest.raises(ValueError, match="no such head"):
        unbuffer.strip(Keeping(app, same), NAMES)({"REQUEST_METHOD": "GET"}, refuse)
    assert closed == ["stream", "layer"]
