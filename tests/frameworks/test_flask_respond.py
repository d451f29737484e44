"""Descriptions from Flask views, the extension, and how long a request's contexts live (R14, R15, S11)."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import AlreadyServed, OptionsError, ProducerError
from streamkit.testing import Client

flask = pytest.importorskip("flask")
from werkzeug.middleware.profiler import ProfilerMiddleware  # noqa: E402
from werkzeug.test import EnvironBuilder  # noqa: E402

from streamkit.frameworks.flask import StreamKit, respond  # noqa: E402

from .test_flask_live import LOUD, Full, site  # noqa: E402

Program = Callable[[], Iterator[str]]

NONE = "NoneType"
SHAPES = ("function", "async function", "iterable", "async iterable")
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES)


def described(shape: str, program: Program, **options: Any) -> streamkit.StreamingResponse:
    """The program as a description with a producer of this shape."""

    def function(stream: Any) -> None:
        for chunk in program():
            stream.write(chunk)

    async def function_async(stream: Any) -> None:
        for chunk in program():
            await stream.write(chunk)

    async def iterable_async() -> AsyncIterator[str]:
        for chunk in program():
            yield chunk

    made: Any = {
        "function": lambda: function,
        "async function": lambda: function_async,
        "iterable": program,
        "async iterable": iterable_async,
    }[shape]()
    return streamkit.stream(made, content_type="text/csv", **options)


class Torn:
    """What an app's teardown functions have seen."""

    def __init__(self, app: Any) -> None:
        self.seen: list[tuple[str, str, str]] = []
        app.teardown_request(lambda error: self._note("request", error))
        app.teardown_appcontext(lambda error: self._note("app", error))

    def _note(self, which: str, error: object) -> None:
        # What belongs to them is still there, or this would raise.
        name = flask.request.path + flask.g.get("name") if which == "request" else flask.g.get("name")
        self.seen.append((which, name, type(error).__name__))

    def once(self) -> str:
        """Asserts that each was called once, with the same error; its name. Waits for it."""
        assert until(lambda: len(self.seen) >= 2), f"torn down: {self.seen}"
        gc.collect()
        (_, _, error), *_ = self.seen
        assert self.seen == [("request", "/ann", error), ("app", "ann", error)]
        return error


def kept(shape: str, program: Program, **options: Any) -> tuple[Any, Torn]:
    """An app with this program as the description at /, and what becomes of its contexts."""
    app = site()

    @app.get("/")  # type: ignore[untyped-decorator]
    def view() -> Any:
        flask.g.name = "ann"
        return described(shape, program, **options)

    return app, Torn(app)


def nothing_is_left_here() -> bool:
    return not flask.has_request_context() and not flask.has_app_context()


# ---------------------------------------------------------------- descriptions


@EACH_SHAPE
def test_a_view_returns_a_description_as_it_is(shape: str) -> None:
    arrived = threading.Event()

    def program() -> Iterator[str]:
        yield "a"
        assert shape.startswith("async") or arrived.wait(PATIENCE)
        yield f"{flask.g.name} {flask.request.path} {flask.current_app.name} {dict(flask.session)}"

    app, torn = kept(shape, program)
    with Client(app) as client, client.get("/") as answer:
        first = answer.next_chunk()
        arrived.set()
        assert first + answer.read() == b"aann / site {}"
        assert answer.headers["Content-Type"] == "text/csv"
        assert torn.once() == NONE


@pytest.mark.parametrize("way", ["as it is", "with a status", "with headers", "made", "responded", "mounted"])
def test_a_description_may_come_in_each_of_flasks_ways(way: str) -> None:
    app = site()
    blueprint = flask.Blueprint("pages", "pages")

    @blueprint.get("/")  # type: ignore[untyped-decorator]
    def view() -> Any:
        description = described("function", lambda: iter(["a"]), headers={"X-Name": "ann"})
        if way == "made":
            response = flask.make_response(description)
            response.set_cookie("tasted", "1")
            return response
        answers = {"with a status": (description, 203), "with headers": (description, {"X-More": "1"})}
        return respond(description) if way == "responded" else answers.get(way, description)

    app.register_blueprint(blueprint)
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.data) == (203 if way == "with a status" else 200, b"a")
    assert (answer.headers["X-Name"], answer.headers["X-Accel-Buffering"]) == ("ann", "no")
    assert answer.headers.get("X-More") == ("1" if way == "with headers" else None)
    assert len(answer.headers.getlist("Set-Cookie")) == (1 if way == "made" else 0)


@EACH_SHAPE
def test_an_error_before_the_first_chunk_is_still_the_views(shape: str) -> None:
    def program() -> Iterator[str]:
        if "name" not in flask.request.args:
            flask.abort(404)
        raise Full("no room")
        yield

    app, torn = kept(shape, program)
    app.register_error_handler(404, lambda error: ("lost", 404))
    app.register_error_handler(Full, lambda error: (described("iterable", lambda: iter([str(error)])), 507))
    client = app.test_client()
    assert (client.get("/").status_code, client.get("/").data) == (404, b"lost")
    answer = client.get("/?name=ann")
    assert (answer.status_code, answer.data) == (507, b"no room")
    answer.close()
    assert len(torn.seen) == 6


def test_what_runs_before_a_view_may_answer_with_a_description() -> None:
    app, _ = kept("function", lambda: iter(["never"]))
    app.before_request(lambda: described("iterable", lambda: iter(["stop"])))
    assert app.test_client().get("/").data == b"stop"


def test_an_iterator_is_served_once_and_only_descriptions_are_responded_to() -> None:
    app = site(TESTING=True)
    description = streamkit.stream(iter(["a"]))
    app.add_url_rule("/", "view", lambda: description)
    app.add_url_rule("/text", "text", lambda: respond("text"))
    client = app.test_client()
    assert client.get("/").data == b"a"
    with pytest.raises(AlreadyServed):
        client.get("/")
    with pytest.raises(ProducerError, match="wanted a description"):
        client.get("/text")


# ---------------------------------------------------------------- the extension


def test_options_come_from_the_config_and_the_extensions_own_go_over_them() -> None:
    app = flask.Flask("site")
    app.config["STREAMKIT"] = {"headers": {"X-A": "1", "X-B": "1"}, "cache_control": "no-cache"}
    kit = StreamKit(options={"headers": {"X-B": "2"}})
    kit.init_app(app, {"heartbeat": 2})
    app.add_url_rule("/", "view", lambda: described("function", lambda: iter(["a"])))
    answer = app.test_client().get("/")
    assert [answer.headers[name] for name in ("X-A", "X-B", "Cache-Control")] == ["1", "2", "no-cache"]
    assert app.extensions["streamkit"].heartbeat == 2


@pytest.mark.parametrize("options", [{"heartbeet": 1}, {"heartbeat": 0}, "heartbeat", 5])
def test_bad_options_are_refused_when_the_app_is_set_up(options: Any) -> None:
    app = flask.Flask("site")
    app.config["STREAMKIT"] = options
    with pytest.raises(OptionsError):
        StreamKit(app)
    with pytest.raises(OptionsError):
        StreamKit(flask.Flask("site"), options)
    assert "streamkit" not in app.extensions


def test_an_app_that_does_not_stream_is_passed_through_and_plain_generators_get_the_same_care() -> None:
    app = site()
    StreamKit(app)  # once more does no harm
    app.add_url_rule("/", "view", lambda: "plain")
    app.add_url_rule("/rows", "rows", lambda: iter(["a", "b"]))
    client = app.test_client()
    assert (client.get("/").data, client.get("/").headers.get("X-Accel-Buffering")) == (b"plain", None)
    rows = client.get("/rows")
    assert (rows.data, rows.headers["X-Accel-Buffering"]) == (b"ab", "no")


# ---------------------------------------------------------------- the contexts live until the end


@EACH_SHAPE
def test_contexts_are_torn_down_when_the_stream_has_ended_and_not_before(shape: str) -> None:
    seen: list[int] = []

    def program() -> Iterator[str]:
        for _ in range(3):
            seen.append(len(torn.seen))
            yield "a"

    app, torn = kept(shape, program, callback=lambda: seen.append(len(torn.seen)))
    with Client(app) as client, client.get("/") as answer:
        assert answer.read() == b"aaa"
        assert len(torn.seen) == 2  # whoever has had the end finds it done
    assert seen == [0, 0, 0, 0]
    assert torn.once() == NONE


@EACH_SHAPE
def test_teardown_functions_get_the_error_of_a_stream_that_failed(shape: str) -> None:
    def program() -> Iterator[str]:
        yield "a"
        raise Full("no room")

    app, torn = kept(shape, program)
    with Client(app) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"a"
        with pytest.raises(Full):
            answer.read()
    assert torn.once() == "Full"


@EACH_SHAPE
def test_contexts_are_torn_down_when_the_client_leaves(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    def program() -> Iterator[str]:
        while True:
            yield "a" * 1000

    app, torn = kept(shape, program)
    with Client(app) as client, client.get("/") as answer:
        assert answer.next_chunk()
        assert torn.seen == []
    assert torn.once() in ("ClientDisconnected", "CancelledError")
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def test_a_producer_that_waits_for_something_else_keeps_its_contexts_but_not_the_servers_thread() -> None:
    told, seen = threading.Event(), list[Any]()

    def program() -> Iterator[str]:
        yield "a"
        assert told.wait(PATIENCE)
        seen.append((flask.g.name, list(torn.seen)))

    app, torn = kept("function", program)
    with Client(app) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"a"
        answer.disconnect()
        answer.wait_closed()  # in less than the 5 s of the client
        assert torn.seen == []
        told.set()
        assert torn.once() == NONE
    assert seen == [("ann", [])]


@EACH_SHAPE
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_is_never_read_is_torn_down_too(shape: str, method: str) -> None:
    ran: list[int] = []

    def program() -> Iterator[str]:
        ran.append(1)
        while True:
            yield "a" * 1000

    app, torn = kept(shape, program)
    with Client(app) as client, client.open(method, "/") as answer:
        if method == "HEAD":
            assert answer.read() == b""
            assert torn.once() == NONE
    assert until(lambda: len(torn.seen) == 2)
    assert len(torn.seen) == 2
    assert (method == "GET") == bool(ran)


@EACH_SHAPE
@pytest.mark.parametrize("fails", [True, False])
def test_a_server_that_never_calls_close_leaves_nothing_behind(shape: str, fails: bool) -> None:
    def program() -> Iterator[str]:
        yield "a"
        if fails:
            raise Full("no room")
        while True:
            yield "a" * 1000

    app, torn = kept(shape, program)
    body = iter(app(EnvironBuilder("/").get_environ(), lambda status, headers, error=None: None))
    assert next(body)
    if fails:
        with pytest.raises(Full):
            list(body)
    assert nothing_is_left_here()
    del body
    gc.collect()
    assert until(lambda: len(torn.seen) == 2)
    assert nothing_is_left_here()


@EACH_SHAPE
def test_a_response_that_never_leaves_keeps_nothing(shape: str) -> None:
    """What comes after the view may fail, or answer by itself: then there is no stream to wait for."""

    def program() -> Iterator[str]:
        while True:
            yield "a" * 1000

    app, torn = kept(shape, program)
    app.after_request(lambda response: flask.abort(500))
    answer = app.test_client().get("/")
    assert answer.status_code == 500
    answer.close()
    assert [which for which, _, _ in torn.seen] == ["request", "app"]
    assert nothing_is_left_here()


def test_resources_and_close_hooks_end_before_the_request_is_torn_down() -> None:
    """D18 and S11."""
    app, steps = site(), list[str]()

    @contextmanager
    def opened() -> Iterator[None]:
        steps.append("open")
        yield
        steps.append("close")

    @app.get("/")  # type: ignore[untyped-decorator]
    def view() -> Any:
        chunks = (steps.append("produce") or "a" for _ in range(1))
        response = flask.make_response(described("function", lambda: chunks, resources=[opened()]))
        response.call_on_close(lambda: steps.append(f"hook {flask.request.path}"))
        return response

    app.teardown_request(lambda error: steps.append("tear down"))
    with Client(app) as client, client.get("/") as answer:
        assert answer.read() == b"a"
    assert steps == ["open", "produce", "close", "hook /", "tear down"]


def test_what_a_view_does_after_its_close_keeps_the_contexts_but_no_client() -> None:
    told, app = threading.Event(), site()
    torn = Torn(app)

    def produce(stream: Any) -> None:
        stream.write("a")
        stream.close()
        assert told.wait(PATIENCE)
        torn.seen.append(("view", flask.g.name, ""))

    @app.get("/")  # type: ignore[untyped-decorator]
    def view() -> Any:
        flask.g.name = "ann"
        return streamkit.stream(produce)

    with Client(app) as client, client.get("/") as answer:
        assert (answer.read(), torn.seen) == (b"a", [])
        told.set()
        assert until(lambda: len(torn.seen) == 3)
    assert torn.seen.pop(0) == ("view", "ann", "")
    assert torn.once() == NONE


def test_failing_functions_at_the_end_are_logged_and_spoil_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app, torn = kept("function", lambda: iter(["a"]))
    app.teardown_request(lambda error: 1 / 0)
    app.after_request(lambda response: response.call_on_close(lambda: {}["nothing"]) and response)
    with Client(app) as client, client.get("/") as answer:
        assert (answer.read(), answer.complete) == (b"a", True)
    assert "a teardown function failed" in caplog.text
    assert "a call_on_close function failed" in caplog.text
    assert [which for which, _, _ in torn.seen] == ["app"]


@pytest.mark.parametrize(("known", "status"), [({}, 200), ({"If-None-Match": '"1"'}, 304)])
def test_a_layer_that_reads_the_body_while_the_app_is_on_the_stack_gets_it(
    known: dict[str, str], status: int
) -> None:
    ended: list[object] = []
    app = flask.Flask(__name__)
    app.teardown_request(ended.append)

    def program(stream: Any) -> None:
        if stream.stale(etag="1"):
            stream.write("words")

    app.add_url_rule("/", view_func=lambda: streamkit.stream(program))
    app.wsgi_app = ProfilerMiddleware(app.wsgi_app, stream=None)
    StreamKit(app, {"strip": ()})
    with Client(app) as client:
        answer = client.get("/", headers=known)
        assert (answer.status, answer.read()) == (status, b"words" if status == 200 else b"")
    assert ended == [None]


def test_a_stream_without_content_has_no_content_type() -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/", view_func=lambda: streamkit.stream(lambda stream: None, status=204))
    StreamKit(app)
    with Client(app) as client:
        answer = client.get("/")
        assert (answer.status, answer.headers.get("Content-Type"), answer.read()) == (204, None, b"")
