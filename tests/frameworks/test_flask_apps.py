"""Live views and descriptions in whole Flask apps: blueprints, classes, the test client, many threads."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from driving import PATIENCE, until

import streamkit
from streamkit.errors import ProducerError
from streamkit.testing import Client

flask = pytest.importorskip("flask")
from flask.views import MethodView, View  # noqa: E402
from werkzeug.middleware.dispatcher import DispatcherMiddleware  # noqa: E402
from werkzeug.test import EnvironBuilder  # noqa: E402

from streamkit.frameworks.flask import live, respond  # noqa: E402

from .test_flask_live import KINDS, LOUD, Full, site, site_of, view_of  # noqa: E402
from .test_flask_respond import NONE, Torn, described, kept, nothing_is_left_here  # noqa: E402


@KINDS
def test_live_views_stand_in_blueprints_and_get_their_url_values(kind: str) -> None:
    def program(stream: Any, name: str, number: int) -> Iterator[str]:
        yield f"{name} {number} {flask.request.blueprint} "
        yield flask.url_for(".hello", name="bob", number=2)

    blueprint = flask.Blueprint("pages", "pages", url_prefix="/pages")
    blueprint.add_url_rule("/<name>/<int:number>", "hello", live(view_of(kind, program)))
    app = site()
    app.register_blueprint(blueprint)
    assert app.test_client().get("/pages/ann/1").data == b"ann 1 pages /pages/bob/2"


@KINDS
def test_methods_of_class_based_views_may_be_live(kind: str) -> None:
    def program(self: Any, stream: Any, name: str) -> Iterator[str]:
        yield f"{self.greeting} {name}"

    members = {"greeting": "hello", "get": live(view_of(kind, program)), "dispatch_request": None}
    methods = type("Methods", (MethodView,), {**members, "dispatch_request": MethodView.dispatch_request})
    single = type("Single", (View,), {**members, "dispatch_request": members["get"]})
    app = site()
    app.add_url_rule("/methods/<name>", view_func=methods.as_view("methods"))
    app.add_url_rule("/single/<name>", view_func=single.as_view("single"))
    client = app.test_client()
    assert (client.get("/methods/ann").data, client.get("/single/bob").data) == (b"hello ann", b"hello bob")
    assert client.post("/methods/ann").status_code == 405


@KINDS
def test_a_live_view_reads_what_the_request_has_sent(kind: str) -> None:
    def program(stream: Any) -> Iterator[str]:
        yield f"{flask.request.form['a']} {flask.request.headers['X-Name']} {flask.g.user} "
        yield f"{flask.current_app.name}"

    app = site_of(kind, program)
    app.before_request(lambda: setattr(flask.g, "user", "ann"))
    answer = app.test_client().post("/", data={"a": "1"}, headers={"X-Name": "bob"})
    assert answer.data == b"1 bob ann site"


@KINDS
def test_live_does_without_the_extension(kind: str) -> None:
    arrived = threading.Event()

    def program(stream: Any) -> Iterator[str]:
        flask.g.opened = True
        yield flask.request.path
        assert arrived.wait(PATIENCE)
        yield str(flask.g.opened)

    torn: list[object] = []
    app = flask.Flask("bare")
    app.add_url_rule("/", "live", live(view_of(kind, program)))
    app.teardown_request(torn.append)
    with Client(app) as client, client.get("/") as answer:
        assert (answer.next_chunk(), torn) == (b"/", [])
        arrived.set()
        assert answer.read() == b"True"
    assert torn == [None]


def test_without_the_extension_only_the_thread_that_called_the_app_can_tear_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, torn = flask.Flask("bare"), list[object]()
    app.add_url_rule("/", "view", lambda: respond(described("iterable", lambda: iter(["a", "b"]))))
    app.teardown_request(torn.append)
    called: list[Any] = []
    thread = threading.Thread(target=lambda: called.append(app(EnvironBuilder("/").get_environ(), print)))
    thread.start()
    thread.join(PATIENCE)
    called.pop().close()
    assert torn == []
    assert "use StreamKit(app)" in caplog.text


def test_apps_beside_each_other_keep_their_own_options_and_contexts() -> None:
    first, second = site(STREAMKIT={"headers": {"X-App": "1"}}), site(STREAMKIT={"headers": {"X-App": "2"}})
    torn = [Torn(first), Torn(second)]
    for app in (first, second):

        def view(app: Any = app) -> Any:
            flask.g.name = "ann"
            said = [str(flask.current_app == app), flask.request.script_root]
            return described("function", lambda: iter(said))

        app.add_url_rule("/", "view", view)
    both = DispatcherMiddleware(first, {"/two": second})
    with Client(both) as client:
        for path, name, body in (("/", "1", b"True"), ("/two/", "2", b"True/two")):
            with client.get(path) as answer:
                assert (answer.headers["X-App"], answer.read()) == (name, body)
    assert [each.once() for each in torn] == [NONE, NONE]


def test_what_cannot_be_given_a_stream_is_refused_where_it_is_made_live() -> None:
    def rows(stream: Any) -> Iterator[str]:
        yield "row"

    for view in (rows, "text", [b"chunk"], View):
        with pytest.raises(ProducerError):
            live(view)
    with pytest.raises(ProducerError, match="write instead of yielding"):
        live(rows)
    with pytest.raises(ProducerError, match=r"takes \(stream, \.\.\.\), but .* takes \(\*, id\)"):
        live(lambda *, id: None)
    live(lambda *given: None)


# ---------------------------------------------------------------- the test client and the debugger


@pytest.mark.parametrize("shape", ["function", "async function", "iterable"])
def test_in_a_with_block_the_test_client_keeps_the_contexts_until_its_end(shape: str) -> None:
    app, torn = kept(shape, lambda: iter(["a", "b"]))
    with app.test_client() as client:
        answer = client.get("/")
        assert (answer.data, flask.g.name, flask.request.path) == (b"ab", "ann", "/")
        assert torn.seen == []
    assert torn.once() == NONE
    assert nothing_is_left_here()


def test_without_a_with_block_all_is_torn_down_with_the_last_byte() -> None:
    app, torn = kept("function", lambda: iter(["a", "b"]))
    assert app.test_client().get("/").data == b"ab"
    assert torn.once() == NONE
    assert nothing_is_left_here()


def test_a_body_that_a_with_block_leaves_unread_is_torn_down_when_it_is_dropped() -> None:
    app, torn = kept("iterable", lambda: iter(["a"] * 1000))
    with app.test_client() as client:
        assert client.get("/").status_code == 200
    assert until(lambda: len(torn.seen) == 2)
    assert nothing_is_left_here()


def test_an_app_context_around_the_client_stays_the_callers() -> None:
    app, torn = kept("function", lambda: iter(["a"]))
    with app.app_context():
        flask.g.mine = 1
        assert app.test_client().get("/").data == b"a"
        assert (flask.g.mine, flask.g.name) == (1, "ann")  # as without us: Flask shares it
        assert [which for which, _, _ in torn.seen] == ["request"]
    assert [which for which, _, _ in torn.seen] == ["request", "app"]


def test_the_request_of_a_live_view_can_be_pushed_without_a_server() -> None:
    app, torn = kept("function", lambda: iter(["a"]))
    with app.test_request_context("/"):
        assert app.full_dispatch_request().status_code == 200
    assert torn.once() == NONE
    assert nothing_is_left_here()


# ---------------------------------------------------------------- servers of other kinds


@pytest.mark.parametrize("engine", ["auto", "thread"])
@pytest.mark.parametrize("shape", ["function", "async function", "iterable", "async iterable"])
def test_the_whole_app_may_run_on_a_worker(engine: str, shape: str) -> None:
    app, torn = kept(shape, lambda: iter(["a", "b"]))
    with Client(streamkit.wrap(app, engine=engine)) as client, client.get("/") as answer:
        assert answer.read() == b"ab"
        assert torn.once() == NONE


def test_a_body_may_be_read_and_closed_by_other_threads_than_the_one_that_called_the_app() -> None:
    app, torn = kept("iterable", lambda: iter(["a", "b"]))
    body: Any = app(EnvironBuilder("/").get_environ(), lambda status, headers, error=None: None)
    chunks = []
    for step in (lambda: chunks.append(next(body)), lambda: body.close()):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join(10)
    assert chunks == [b"a"]
    assert torn.once() == "ClientDisconnected"
    assert nothing_is_left_here()


# ---------------------------------------------------------------- many at a time


def busy_site() -> tuple[Any, list[tuple[str, object]]]:
    """An app with all kinds of views, each of which says whose request it has seen from first to last."""
    app, torn = site(), list[tuple[str, object]]()

    def program(*arguments: Any) -> Iterator[str]:
        name = flask.g.name
        flask.session["name"] = name
        for _ in range(5):
            yield f"{flask.request.args['name']},{flask.g.name},{flask.session['name']}\n"
        if "fails" in flask.request.args:
            raise Full(name)

    app.before_request(lambda: setattr(flask.g, "name", flask.request.args["name"]))
    app.add_url_rule("/live", "live", live(view_of("sync", program)))
    app.add_url_rule("/live-async", "live-async", live(view_of("async", program)))
    app.add_url_rule("/plain", "plain", lambda: "".join(program()))
    for shape in ("function", "iterable"):
        app.add_url_rule(f"/{shape}", shape, lambda shape=shape: described(shape, program))
    app.teardown_request(lambda error: torn.append((flask.g.name, flask.request.args["name"])))
    app.teardown_appcontext(lambda error: torn.append((flask.g.name, flask.g.name)))
    return app, torn


def test_twenty_threads_of_mixed_requests_see_only_their_own(caplog: pytest.LogCaptureFixture) -> None:
    app, torn = busy_site()
    paths = ("/live", "/live-async", "/plain", "/function", "/iterable")
    leaks: list[str] = []

    def visit(number: int) -> None:
        name, client = f"n{number}", app.test_client()
        for path in random.Random(number).sample(paths, k=len(paths)):
            how = random.Random(f"{number}{path}").choice(["whole", "leaves", "unread"])
            answer = client.get(path, query_string={"name": name}, buffered=False)
            cookie = client.get_cookie("session")
            whole = f"{name},{name},{name}\n" * 5
            if how == "whole" and answer.text != whole:
                leaks.append(f"{path}: {answer.text}")
            if how == "leaves" and not whole.encode().startswith(next(answer.iter_encoded())):
                leaks.append(path)
            answer.close()
            if cookie is None and path.startswith("/live"):
                leaks.append(f"{path}: the session was not saved")
            if not nothing_is_left_here():
                leaks.append(f"{path}: something is left on the thread")

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(visit, range(100)))
    assert leaks == []
    assert until(lambda: len(torn) == 100 * 5 * 2)
    assert [pair for pair in torn if pair[0] != pair[1]] == []
    assert [record for record in caplog.records if record.levelname in LOUD] == []


@pytest.mark.parametrize("path", ["/live", "/function", "/iterable", "/aside"])
def test_what_a_request_held_is_freed_without_the_collector(path: str) -> None:
    app, _ = busy_site()
    held: list[Any] = []

    @app.before_request  # type: ignore[untyped-decorator]
    def hold() -> None:
        flask.g.held = held_by_the_request = type("Held", (), {})()
        held.append(weakref.ref(held_by_the_request))

    app.add_url_rule("/aside", "aside", live(lambda stream: "aside"))
    gc.collect()
    gc.disable()
    try:
        with Client(app) as client, client.get(f"{path}?name=ann") as answer:
            assert answer.read()
        assert until(lambda: held[0]() is None)
    finally:
        gc.enable()


def test_the_next_request_on_the_same_thread_starts_anew() -> None:
    app, torn = busy_site()
    app.add_url_rule("/g", "g", lambda: str(sorted(flask.g)))
    client = app.test_client()
    for number in range(10):
        answer = client.get(f"/live?name=n{number}" + "&fails=1" * (number % 2))
        if number % 3:
            answer.close()  # unread
        else:
            with pytest.raises(Full) if number % 2 else nullcontext():
                answer.get_data()
        answer.close()
        assert nothing_is_left_here()
        assert client.get("/g?name=new").data == b"['name']"
    assert until(lambda: len(torn) == 40)
