"""The examples of `docs/frameworks.md`: Flask, Pyramid with PasteDeploy, Bottle and Falcon."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import PATIENCE, until
from servers.launch import ROOT

import streamkit
from streamkit.errors import OptionsError
from streamkit.testing import Client

from .programs import read_up_to

PAGE = (ROOT / "docs" / "frameworks.md").read_text()
LOUD = ("WARNING", "ERROR", "CRITICAL")
OTHERS = ["Pyramid and PasteDeploy", "Bottle", "Falcon"]
NEEDS = {
    "Flask": "flask",
    "Templates in Flask": "flask",
    "Pyramid and PasteDeploy": "pyramid",
    "Bottle": "bottle",
    "Falcon": "falcon",
}


def block(heading: str, language: str = "python") -> str:
    """The first block of code in this language under this heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[0]  # type: ignore[no-any-return]


def example(heading: str) -> dict[str, Any]:
    """What the example under this heading defines."""
    pytest.importorskip(NEEDS[heading])
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(block(heading), f"docs/frameworks.md, {heading}", "exec"), names)
    return names


@pytest.fixture(params=OTHERS)
def names(request: pytest.FixtureRequest) -> dict[str, Any]:
    return example(request.param)


def test_the_example_for_flask_streams_events_and_a_file() -> None:
    with Client(example("Flask")["app"]) as client:
        with client.get("/ticks") as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers.getlist("Set-Cookie") == ["seen=1; Path=/"]
            assert [event.data for event in answer.events()] == ["0", "1", "2"]
        with client.get("/export.csv") as answer:
            assert answer.headers["Content-Disposition"].startswith('attachment; filename="export.csv"')
            assert answer.read().splitlines()[-1] == b"999,998001"


def test_the_example_for_flasks_templates_arrives_in_pieces_and_shows_its_message() -> None:
    pytest.importorskip("flask")
    with Client(example("Templates in Flask")["shop"]) as client:
        answer = client.get("/albums")
        assert read_up_to(answer, b"</h1>") == b"<h1>Ann</h1>"
        assert answer.read() == b"<p>Blue<p>Hejira<em>Welcome</em>"


@pytest.mark.server
def test_the_examples_stream_with_a_streams_headers(names: dict[str, Any]) -> None:
    with Client(names["app"]) as client, client.get("/ticks") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers.getlist("X-Accel-Buffering") == ["no"]
        assert "Content-Length" not in answer.headers
        assert [event.data for event in answer.events()] == ["0", "1", "2"]
        assert answer.complete


@pytest.mark.server
def test_the_examples_answer_an_early_error_with_the_frameworks_own_page(names: dict[str, Any]) -> None:
    with Client(names["app"]) as client, client.get("/ticks?name=nobody") as answer:
        assert answer.status == 404
        assert answer.headers["Content-Type"] != "text/event-stream"
        assert b"404" in answer.read()


@pytest.mark.server
def test_the_examples_answer_head_without_a_body(names: dict[str, Any], caplog: Any) -> None:
    with Client(names["app"]) as client, client.open("HEAD", "/ticks") as answer:
        assert answer.status in (200, 405)  # Falcon wants a responder of its own for HEAD
        assert answer.read() == b""
    assert [record for record in caplog.records if record.levelname in LOUD] == []


@pytest.mark.server
@pytest.mark.parametrize("heading", OTHERS)
def test_chunks_arrive_as_they_are_made_and_a_leave_ends_the_producer(heading: str, caplog: Any) -> None:
    """The same conversions, with a producer that can be watched."""
    names, arrived, ended = example(heading), threading.Event(), threading.Event()

    def produce() -> Iterator[str]:
        try:
            yield "a"
            assert arrived.wait(PATIENCE), "the first chunk was held back"
            while True:
                yield "b"
        finally:
            ended.set()

    app = streamkit.wrap(converted(heading, names, lambda: streamkit.stream(produce())))
    with Client(app) as client, client.get("/here") as answer:
        assert answer.next_chunk() == b"a"
        arrived.set()
        assert answer.next_chunk() == b"b"
        assert not ended.is_set()
    assert until(ended.is_set)
    assert [record for record in caplog.records if record.levelname in LOUD] == []


def converted(heading: str, names: dict[str, Any], describe: Any) -> Any:
    """An app of this framework that answers /here with a description, by the conversion of its example."""
    if heading == "Bottle":
        names["bottled"].get("/here")(lambda: names["respond"](describe()))
        return names["bottled"]
    if heading == "Falcon":

        class Here:
            def on_get(self, req: Any, resp: Any) -> None:
                names["respond"](req, resp, describe())

        names["served"].add_route("/here", Here())
        return names["served"]
    config = names["Configurator"]()
    config.add_route("here", "/here")
    config.add_view(lambda request: request.get_response(describe()), route_name="here")
    return config.make_wsgi_app()


# ---------------------------------------------------------------- Pyramid


@pytest.mark.server
def test_a_description_itself_may_be_mounted_in_pyramid() -> None:
    pytest.importorskip("pyramid")
    from pyramid.config import Configurator
    from pyramid.wsgi import wsgiapp, wsgiapp2

    def produce(stream: Any) -> None:
        stream.write("a")
        stream.write("b")

    with Configurator() as config:
        for name, mount in (("one", wsgiapp), ("two", wsgiapp2)):
            config.add_route(name, f"/{name}")
            config.add_view(mount(streamkit.stream(produce)), route_name=name)
    with Client(streamkit.wrap(config.make_wsgi_app())) as client:
        for path in ("/one", "/two", "/one"):  # a function is served as often as you like
            with client.get(path) as answer:
                assert (answer.status, answer.read()) == (200, b"ab")


@pytest.mark.server
def test_exception_views_and_response_callbacks_of_pyramid_see_the_head() -> None:
    pytest.importorskip("pyramid")
    from pyramid.config import Configurator
    from pyramid.response import Response

    def view(request: Any) -> Any:
        def produce(stream: Any) -> None:
            if "fails" in request.params:
                raise LookupError("nothing here")
            stream.status = 203
            stream.write("a")

        request.add_response_callback(lambda _, response: response.set_cookie("seen", response.status[:3]))
        return request.get_response(streamkit.stream(produce))

    with Configurator() as config:
        config.add_route("view", "/")
        config.add_view(view, route_name="view")
        config.add_exception_view(lambda error, request: Response(str(error), 410), context=LookupError)
    with Client(streamkit.wrap(config.make_wsgi_app())) as client:
        with client.get("/") as answer:
            assert (answer.status, answer.read()) == (203, b"a")
            assert answer.headers["Set-Cookie"].startswith("seen=203")
        with client.get("/?fails=1") as answer:
            assert (answer.status, answer.read()) == (410, b"nothing here")


@pytest.mark.server
def test_the_ini_file_of_the_page_loads_the_app_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy = pytest.importorskip("paste.deploy")
    pytest.importorskip("pyramid")
    (tmp_path / "ticking.py").write_text(block("Pyramid and PasteDeploy"))
    monkeypatch.syspath_prepend(str(tmp_path))
    ini = tmp_path / "ticking.ini"
    settings = block("Pyramid and PasteDeploy", "ini")
    ini.write_text(settings + "\n[app:app]\nuse = call:ticking:main\n")
    with Client(deploy.loadapp(f"config:{ini}")) as client, client.get("/ticks") as answer:
        assert answer.headers["X-Served-By"] == "streamkit"
        assert [event.data for event in answer.events()] == ["0", "1", "2"]
    ini.write_text(settings + "heartbeet = 20\n[app:app]\nuse = call:ticking:main\n")
    with pytest.raises(OptionsError, match="heartbeet"):
        deploy.loadapp(f"config:{ini}")
