"""Templates in Flask: in pieces, with the context of `render_template`, and messages that are shown once."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from driving import PATIENCE

from streamkit.testing import Client

flask = pytest.importorskip("flask")
from jinja2 import DictLoader  # noqa: E402

from streamkit.frameworks.flask import StreamKit  # noqa: E402

from .programs import read_up_to  # noqa: E402

PAGES = {
    "layout.html": "<title>{{ title }}</title>{% block body %}{% endblock %}"
    "<p>{{ url_for('named', name='z') }}",
    "page.html": "{% extends 'layout.html' %}{% block body %}"
    "{{ g.user }} {{ request.path }} {{ session.get('seen') }} {{ shop }} {{ url_for('named', name='x') }}"
    "{% flush %}{{ wait() }}{{ g.user }} {{ request.path }}{% endblock %}",
    "flashing.html": "<h1>top</h1>{% flush %}{% include 'messages.html' %}",
    "messages.html": "{% for message in get_flashed_messages() %}[{{ message }}]{% endfor %}",
    "silent.html": "<h1>top</h1>{% flush %}no messages",
    "computed.html": "<h1>top</h1>{% flush %}{% include which %}",
    "called.html": "<h1>top</h1>{% flush %}{% include pick() %}",
    "content.html": "content{% include 'messages.html' %}",
    "around.html": "<h1>top</h1>{% content %}<i>end</i>",
    "fails.html": "<p>{{ early() }}{% flush %}{{ late() }}",
    "waiting.html": "<p>{% defer %}{{ wait() }}{% placeholder %}…{% enddefer %}{% flush %}",
    "deferred.html": "<p>{% defer %}{{ g.user }} {{ url_for('named', name='d') }}"
    "{% placeholder %}…{% enddefer %}",
}


class Shop:
    """An app whose one page is made by a function of its templates."""

    def __init__(self, page: Any, **config: Any) -> None:
        self.app = flask.Flask("shop")
        self.app.secret_key = "secret"
        self.app.config.update(config)
        self.app.jinja_loader = DictLoader(PAGES)
        self.kit = StreamKit(self.app)
        self.arrived = threading.Event()
        self.app.before_request(self._greet)
        self.app.context_processor(lambda: {"shop": "Shop", "title": "from the processor"})
        self.app.add_url_rule("/", "page", lambda: page(self.kit.templates, self))
        self.app.add_url_rule("/named/<name>", "named", lambda name: name)
        self.app.add_url_rule("/flash/<message>", "flash", self._flash)

    def _greet(self) -> None:
        flask.g.user = "ann"

    def _flash(self, message: str) -> str:
        flask.flash(message)
        return "flashed"

    def wait(self) -> str:
        assert self.arrived.wait(PATIENCE)
        return ""


def test_a_page_arrives_in_pieces_with_the_context_of_render_template() -> None:
    def page(templates: Any, shop: Shop) -> Any:
        flask.session["seen"] = "yes"
        if "whole" in flask.request.args:
            return flask.render_template("page.html", wait=shop.wait, title="T")
        return templates.chunked("page.html", wait=shop.wait, title="T")

    shop = Shop(page)
    with Client(shop.app) as client:
        answer = client.get("/")
        first = read_up_to(answer, b"/named/x")
        assert first == b"<title>T</title>ann / yes Shop /named/x"
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
            "text/html; charset=utf-8",
            "private, no-cache, no-transform",
        )
        assert answer.headers["Set-Cookie"].strip().startswith("session=")
        shop.arrived.set()
        assert first + answer.read() == client.get("/", query="whole=1").read()


def test_a_page_may_be_sent_whole_with_its_length() -> None:
    def page(templates: Any, shop: Shop) -> Any:
        return templates.view("silent.html"), 201, {"X-Page": "whole"}

    with Client(Shop(page).app) as client:
        answer = client.get("/")
        assert (answer.status, answer.headers["X-Page"], answer.headers["Content-Length"]) == (
            201,
            "whole",
            "23",
        )
        assert answer.read() == b"<h1>top</h1>no messages"


FLASHING = [
    "flashing.html", "around content.html", "computed.html messages.html", "called.html messages.html",
]  # fmt: skip


def flashing(templates: Any, shop: Shop) -> Any:
    asked = flask.request.args["page"].split(" ")
    if asked[0] == "around":
        return templates.chunked(asked[1], layout="around.html")
    return templates.chunked(asked[0], which=asked[-1], pick=lambda: asked[-1])


@pytest.mark.parametrize("page", FLASHING)
def test_flashed_messages_are_shown_once_although_they_come_after_the_head(page: str) -> None:
    cookie = ""
    with Client(Shop(flashing).app) as client:

        def get(path: str, **more: Any) -> bytes:
            nonlocal cookie
            answer = client.get(path, headers={"Cookie": cookie} if cookie else {}, **more)
            cookie = answer.headers.get("Set-Cookie", cookie).strip().partition(";")[0]
            return answer.read()

        assert get("/flash/hello") == b"flashed"
        assert b"[hello]" in get("/", query={"page": page})
        assert b"[" not in get("/", query={"page": page})


def test_a_page_that_shows_no_messages_leaves_them_for_the_next() -> None:
    with Client(Shop(flashing).app) as client:
        cookie = client.get("/flash/hello").headers["Set-Cookie"].strip().partition(";")[0]
        silent = client.get("/", query={"page": "silent.html"}, headers={"Cookie": cookie})
        assert silent.read() == b"<h1>top</h1>no messages"
        assert "Set-Cookie" not in silent.headers
        shown = client.get("/", query={"page": "flashing.html"}, headers={"Cookie": cookie})
        assert b"[hello]" in shown.read()


def test_what_a_view_passes_goes_over_what_processors_give_and_either_may_be_a_mapping() -> None:
    def page(templates: Any, shop: Shop) -> Any:
        shop.arrived.set()
        return templates.chunked("page.html", context={"title": "given", "shop": "Mine"}, wait=shop.wait)

    with Client(Shop(page).app) as client:
        assert client.get("/").read().startswith(b"<title>given</title>ann / None Mine")


def test_deferred_blocks_have_the_contexts_of_the_request() -> None:
    with Client(Shop(lambda templates, shop: templates.chunked("deferred.html")).app) as client:
        assert b"ann /named/d" in client.get("/").read()


def test_the_request_lives_until_a_deferred_block_of_a_client_that_left_has_ended() -> None:
    begun, ended, torn = threading.Event(), threading.Event(), threading.Event()

    def page(templates: Any, shop: Shop) -> Any:
        def wait() -> str:
            begun.set()
            assert shop.arrived.wait(PATIENCE)
            assert not torn.is_set(), "its contexts were torn down under it"
            ended.set()
            return flask.g.user  # type: ignore[no-any-return]

        return templates.chunked("waiting.html", wait=wait)

    shop = Shop(page)
    shop.app.teardown_request(lambda error: torn.set())
    with Client(shop.app) as client:
        answer = client.get("/")
        assert answer.next_chunk()
        assert begun.wait(PATIENCE)
        answer.disconnect()
        answer.wait_closed()
        shop.arrived.set()
        assert ended.wait(PATIENCE)
        assert torn.wait(PATIENCE)


def test_an_error_is_the_apps_until_the_first_piece_and_cuts_the_page_after_it() -> None:
    def fail() -> str:
        raise ZeroDivisionError("on purpose")

    def page(templates: Any, shop: Shop) -> Any:
        early = "early" in flask.request.args
        return templates.chunked("fails.html", early=fail if early else str, late=fail)

    shop = Shop(page)
    shop.app.register_error_handler(ZeroDivisionError, lambda error: ("handled", 500))
    with Client(shop.app) as client:
        early = client.get("/", query="early=1")
        assert (early.status, early.read()) == (500, b"handled")
        late = client.get("/")
        assert late.next_chunk() == b"<p>"
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            late.read()
        assert not late.complete


def test_flasks_signals_tell_of_the_page() -> None:
    told: list[tuple[str, str, str]] = []

    def before(sender: Any, template: Any, context: Any, **more: Any) -> None:
        told.append(("before", template.name, context["name"]))

    def after(sender: Any, template: Any, context: Any, **more: Any) -> None:
        told.append(("after", template.name, context["name"]))

    shop = Shop(lambda templates, shop: templates.chunked("silent.html", context={"name": "n"}))
    with flask.before_render_template.connected_to(before, shop.app):
        with flask.template_rendered.connected_to(after, shop.app), Client(shop.app) as client:
            client.get("/").read()
    assert told == [("before", "silent.html", "n"), ("after", "silent.html", "n")]


def test_render_template_knows_the_tags_whenever_the_environment_was_made() -> None:
    apps = [flask.Flask("early"), flask.Flask("late")]
    for app in apps:
        app.jinja_loader = DictLoader(PAGES)
    apps[0].jinja_env.globals["known"] = 1  # it is made by that
    for app in apps:
        StreamKit(app)
        with app.test_request_context():
            assert flask.render_template("silent.html") == "<h1>top</h1>no messages"
    assert "extensions" not in flask.Flask.jinja_options, "all apps would have the tags"


def test_a_kit_of_several_apps_finds_the_templates_of_the_current_one() -> None:
    kit, apps = StreamKit(), []
    for name in ("one", "two"):
        app = flask.Flask(name)
        app.jinja_loader = DictLoader({"page.html": f"{name} {{{{ config.NAME }}}}"})
        app.config["NAME"] = name
        kit.init_app(app)
        app.add_url_rule("/", "page", lambda: kit.templates.chunked("page.html"))
        apps.append(app)
    for app in apps:
        with Client(app) as client:
            assert client.get("/").read() == f"{app.name} {app.name}".encode()
    environment = weakref.ref(app.jinja_env)
    apps.clear()
    del app, client
    gc.collect()
    assert environment() is None, "the kit keeps the environments of apps that are gone"


def test_a_fragment_has_the_context_too() -> None:
    def page(templates: Any, shop: Shop) -> Any:
        return templates.fragment("silent.html") + flask.g.user

    with Client(Shop(page).app) as client:
        assert client.get("/").read() == b"<h1>top</h1>no messagesann"


def test_no_chunk_holds_for_the_next_page_of_the_request() -> None:
    def page(templates: Any, shop: Shop) -> Any:
        if "whole" in flask.request.args:
            templates.no_chunk()
        return templates.chunked("silent.html")

    with Client(Shop(page).app) as client:
        assert client.get("/", query="whole=1").headers["Content-Length"] == "23"
        assert "Content-Length" not in client.get("/").headers
