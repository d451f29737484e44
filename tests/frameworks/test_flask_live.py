"""Live views in Flask: an ordinary view until its first write, a stream from there on.

Scenarios R1, R2, R4, R5, R10, R12, R20 to R22, R24, R26 and S10. Rule: each test runs with a
synchronous and an asynchronous view; a program yields what is to be written, and returns what the
view returns.
"""

from __future__ import annotations

import threading
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import AlreadyCommitted, ClientDisconnected
from streamkit.testing import Client

flask = pytest.importorskip("flask")
from streamkit.frameworks.flask import StreamKit, live  # noqa: E402

LOUD = ("WARNING", "ERROR", "CRITICAL")
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])

Program = Callable[..., Any]


def view_of(kind: str, program: Program) -> Any:
    """The program as a view of this kind, not live yet; an error of a write is raised at its `yield`."""

    def view(*arguments: Any, **values: Any) -> Any:
        run, stream = program(*arguments, **values), arguments[-1]
        try:
            chunk = next(run)
            while True:
                try:
                    stream.write(chunk)
                except BaseException as error:
                    chunk = run.throw(error)
                else:
                    chunk = next(run)
        except StopIteration as end:
            return end.value

    async def view_async(*arguments: Any, **values: Any) -> Any:
        run, stream = program(*arguments, **values), arguments[-1]
        try:
            chunk = next(run)
            while True:
                try:
                    await stream.write(chunk)
                except BaseException as error:
                    chunk = run.throw(error)
                else:
                    chunk = next(run)
        except StopIteration as end:
            return end.value

    return view if kind == "sync" else view_async


def site(**config: Any) -> Any:
    """An app that is set up as users do it."""
    app = flask.Flask("site")
    app.config.update(SECRET_KEY="secret", **config)
    StreamKit(app)
    return app


def site_of(kind: str, program: Program, **config: Any) -> Any:
    """An app with this program as its one live view, at /."""
    app = site(**config)
    app.add_url_rule("/", "live", live(view_of(kind, program)), methods=["GET", "POST"])
    return app


# ---------------------------------------------------------------- the head


@KINDS
def test_a_chunk_arrives_before_the_next_is_made(kind: str) -> None:
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[str]:
        yield "a"
        assert arrived.wait(PATIENCE), "the first chunk was held back"
        yield "b"

    with Client(site_of(kind, program)) as client, client.get("/") as answer:
        assert answer.next_chunk() == b"a"
        arrived.set()
        assert (answer.next_chunk(), answer.next_chunk()) == (b"b", None)


@KINDS
def test_the_head_of_the_first_write_goes_up_through_after_request_and_the_session(kind: str) -> None:
    gone_up = threading.Event()

    def program(stream: Any) -> Iterator[str]:
        stream.status = 201
        stream.headers["Content-Type"] = "text/event-stream"
        stream.headers["X-Name"] = "ann"
        stream.set_cookie("tasted", "1")
        flask.session["seen"] = 1
        flask.after_this_request(lambda response: response.headers.add("X-This", "1") or response)
        yield "data: 1\n\n"
        assert gone_up.wait(PATIENCE), "the head waits for the end"
        yield "data: 2\n\n"

    app = site_of(kind, program)

    @app.after_request  # type: ignore[untyped-decorator]
    def note(response: Any) -> Any:
        response.headers["X-After"] = f"{response.status_code} {response.headers['X-Name']}"
        response.set_cookie("after", "1")
        return response

    with Client(app) as client, client.get("/") as answer:
        assert answer.status == 201
        gone_up.set()
        assert (answer.headers["X-After"], answer.headers["X-This"]) == ("201 ann", "1")
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        cookies = sorted(cookie.partition("=")[0] for cookie in answer.headers.getlist("Set-Cookie"))
        assert cookies == ["after", "session", "tasted"]
        assert answer.read() == b"data: 1\n\ndata: 2\n\n"


@KINDS
def test_what_the_view_puts_into_the_session_is_there_at_the_next_request(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        yield f"visit {flask.session['visits']}"

    client = site_of(kind, program).test_client()
    assert [client.get("/").data for _ in range(3)] == [b"visit 1", b"visit 2", b"visit 3"]


@KINDS
def test_a_stream_whose_view_never_asks_for_the_session_does_not_vary_by_cookie(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        yield "a"

    with Client(site_of(kind, program)) as client, client.get("/") as answer:
        assert (answer.headers.get("Vary"), answer.headers.get("Set-Cookie")) == (None, None)


@KINDS
def test_after_the_commit_head_cookies_and_session_refuse_every_change(kind: str) -> None:
    refused: list[str] = []

    def late(stream: Any) -> list[Callable[[], object]]:
        return [
            lambda: setattr(stream, "status", 500),
            lambda: stream.headers.__setitem__("X-Late", "1"),
            lambda: stream.set_cookie("late", "1"),
            lambda: flask.session.__setitem__("late", 1),
            lambda: flask.session.clear(),
            lambda: flask.session.pop("early"),
        ]

    def program(stream: Any) -> Iterator[str]:
        flask.session["early"] = 1
        yield "a"
        for change in late(stream):
            with pytest.raises(AlreadyCommitted) as caught:
                change()
            refused.append(str(caught.value))
        yield str(dict(flask.session))

    client = site_of(kind, program).test_client()
    assert client.get("/").data == b"a{'early': 1}"
    assert len(refused) == 6
    assert "cannot change the session" in refused[3]
    with client.session_transaction() as session:
        assert dict(session) == {"early": 1}


@KINDS
def test_after_request_functions_may_change_the_session_whatever_the_view_has_written(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        yield "a"

    app = site_of(kind, program)

    @app.after_request  # type: ignore[untyped-decorator]
    def note(response: Any) -> Any:
        flask.session["after"] = 1
        return response

    client = app.test_client()
    assert client.get("/").data == b"a"
    with client.session_transaction() as session:
        assert session["after"] == 1


# ---------------------------------------------------------------- an ordinary view until then


class Full(Exception):
    """For an error handler."""


@KINDS
def test_an_error_before_the_first_write_is_for_the_apps_own_error_handlers(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        raise Full("no room")
        yield

    app = site_of(kind, program)
    app.register_error_handler(Full, lambda error: (f"sorry: {error}", 507))
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.data) == (507, b"sorry: no room")


@KINDS
@pytest.mark.parametrize("has_page", [True, False])
def test_abort_gives_the_apps_own_page(kind: str, has_page: bool) -> None:
    def program(stream: Any) -> Iterator[str]:
        stream.set_cookie("never", "1")
        flask.abort(404)
        yield

    app = site_of(kind, program)
    if has_page:
        app.register_error_handler(404, lambda error: ("lost", 404))
    answer = app.test_client().get("/")
    assert answer.status_code == 404
    assert (answer.data == b"lost") == has_page
    assert "Set-Cookie" not in answer.headers


@KINDS
def test_an_error_that_nobody_handles_is_a_real_500_and_is_logged_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def program(stream: Any) -> Iterator[str]:
        raise Full("no room")
        yield

    answer = site_of(kind, program).test_client().get("/")
    assert answer.status_code == 500
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@KINDS
def test_in_testing_mode_it_is_raised_with_the_lines_of_the_view_for_the_debugger_to_show(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        raise Full("no room")
        yield

    with pytest.raises(Full) as caught:
        site_of(kind, program, TESTING=True).test_client().get("/")
    assert "program" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@KINDS
def test_a_view_that_writes_nothing_may_answer_with_whatever_flask_takes(kind: str) -> None:
    answers: dict[str, Any] = {
        "text": "plain",
        "tuple": ("made", 201, {"X-Name": "ann"}),
        "json": {"a": 1},
        "stream": streamkit.stream(iter(["described"]), content_type="text/csv"),
    }

    def program(stream: Any) -> Iterator[str]:
        name = flask.request.args["name"]
        return flask.redirect("/there") if name == "redirect" else answers[name]
        yield

    app = site_of(kind, program)

    def got(name: str) -> tuple[int, bytes]:
        answer = app.test_client().get("/", query_string={"name": name})
        return answer.status_code, answer.data

    assert got("text") == (200, b"plain")
    assert got("tuple") == (201, b"made")
    assert got("json") == (200, b'{"a":1}\n')
    assert got("stream") == (200, b"described")
    assert got("redirect")[0] == 302


@KINDS
def test_a_view_that_is_not_modified_answers_304_instead_of_streaming(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        fresh = flask.make_response()
        fresh.set_etag("v1")
        if fresh.make_conditional(flask.request).status_code == 304:
            return fresh
        stream.headers["ETag"] = '"v1"'
        yield "whole"
        return None

    client = site_of(kind, program).test_client()
    whole = client.get("/")
    assert (whole.status_code, whole.data, whole.headers["ETag"]) == (200, b"whole", '"v1"')
    same = client.get("/", headers={"If-None-Match": '"v1"'})
    assert (same.status_code, same.data) == (304, b"")


@KINDS
def test_a_view_may_end_without_a_word(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        stream.status = 202
        return
        yield

    answer = site_of(kind, program).test_client().get("/")
    assert (answer.status_code, answer.data) == (202, b"")


# ---------------------------------------------------------------- the end


@KINDS
def test_returning_without_close_closes_and_what_is_returned_then_is_dropped(kind: str) -> None:
    streams: list[Any] = []

    def program(stream: Any) -> Iterator[str]:
        streams.append(stream)
        yield "a"
        return "dropped"

    with Client(site_of(kind, program)) as client, client.get("/") as answer:
        assert (answer.read(), answer.complete) == (b"a", True)
    assert (streams[0].closed, streams[0].outcome) == (True, "finished")


@KINDS
def test_an_error_after_the_first_write_cuts_the_body_and_is_reported_once(kind: str) -> None:
    errors: list[BaseException] = []

    def program(stream: Any) -> Iterator[str]:
        stream.headers["Content-Type"] = "text/csv"
        stream.on_error(lambda stream, error: errors.append(error))
        yield "1,2\n"
        raise Full("no room")

    app = site_of(kind, program)
    app.register_error_handler(Full, lambda error: ("too late", 500))
    with Client(app) as client, client.get("/") as answer:
        assert (answer.status, answer.next_chunk()) == (200, b"1,2\n")
        with pytest.raises(Full):
            answer.next_chunk()
        assert not answer.complete
    assert [str(error) for error in errors] == ["no room"]


@KINDS
def test_a_client_that_leaves_is_told_to_the_view_and_is_nobodys_mistake(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[BaseException] = []

    def program(stream: Any) -> Iterator[str]:
        try:
            while True:
                yield "a" * 1000
        except BaseException as error:
            told.append(error)
            raise

    with Client(site_of(kind, program)) as client, client.get("/") as answer:
        assert answer.next_chunk()
        answer.disconnect()
        assert until(lambda: told)
    assert isinstance(told[0], ClientDisconnected if kind == "sync" else (ClientDisconnected, CancelledError))
    assert [record for record in caplog.records if record.levelname in LOUD] == []


@KINDS
def test_head_gets_the_views_own_head_and_no_body(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[BaseException] = []

    def program(stream: Any) -> Iterator[str]:
        flask.session["name"] = flask.request.args.get("name") or flask.abort(400)
        stream.headers["Content-Type"] = "text/csv"
        try:
            for _ in range(1_000_000):
                yield "row\n"
        except BaseException as error:
            ended.append(error)
            raise

    app = site_of(kind, program)
    client = app.test_client()
    answer = client.head("/?name=ann")
    assert (answer.status_code, answer.content_type, answer.data) == (200, "text/csv", b"")
    assert answer.headers["Set-Cookie"].startswith("session=")
    assert client.head("/").status_code == 400
    answer.close()
    assert until(lambda: ended)
    assert [record for record in caplog.records if record.levelname in LOUD] == []
