"""`app.config["STREAMKIT"]` in a Flask app that was not given to `StreamKit(app)`.

Rule: live views and `respond` read it, over the options of a `streamkit.wrap` around the app.
"""

from __future__ import annotations

from typing import Any

import pytest

import streamkit
from streamkit.testing import Client

pytest.importorskip("flask")
import flask

from streamkit.frameworks.flask import live, respond


def flask_site(config: Any, around: Any = None) -> Any:
    site = flask.Flask("site")
    site.config["STREAMKIT"] = config

    @site.get("/live")
    @live
    def written(stream: Any) -> None:
        stream.write("a")

    @site.get("/respond")
    def responded() -> Any:
        return respond(streamkit.stream(["a"], options={"headers": {"X-Own": "1"}}))

    return site if around is None else streamkit.wrap(site, around)


@pytest.mark.parametrize("path", ["/live", "/respond"])
@pytest.mark.parametrize("config", [{"headers": {"X-A": "1"}}, streamkit.Options(headers={"X-A": "1"})])
def test_the_config_of_a_flask_app_holds_without_the_extension(path: str, config: Any) -> None:
    with Client(flask_site(config)) as client, client.get(path) as answer:
        assert answer.headers["X-A"] == "1"
        assert answer.headers.get("X-Own") == ("1" if path == "/respond" else None)


@pytest.mark.parametrize("path", ["/live", "/respond"])
def test_without_the_extension_the_config_goes_over_the_options_of_the_wrap(path: str) -> None:
    around = {"headers": {"X-A": "wrap", "X-B": "wrap"}}
    with Client(flask_site({"headers": {"X-A": "config"}}, around)) as client, client.get(path) as answer:
        assert (answer.headers["X-A"], answer.headers["X-B"]) == ("config", "wrap")


def test_a_bad_config_is_an_error_of_the_view() -> None:
    site = flask_site({"hartbeat": 1})
    site.testing = True
    with pytest.raises(streamkit.OptionsError, match="heartbeat"):
        site.test_client().get("/live")


def test_a_config_that_is_replaced_is_read_again() -> None:
    site = flask_site({"headers": {"X-A": "1"}})
    for value in ("1", "2"):
        site.config["STREAMKIT"] = {"headers": {"X-A": value}}
        assert site.test_client().get("/live").headers["X-A"] == value
