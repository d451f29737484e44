"""What is known of layers, and that the documentation says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamkit import unbuffer
from streamkit.unbuffer.known import KNOWN, Known, known_as
from streamkit.unbuffer.layers import tree

DOCS = Path(__file__).parents[2] / "docs" / "buffering.md"


def plain(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]


def test_the_documentation_names_every_known_layer_with_its_kind() -> None:
    rows = [line.split("|") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    listed = {row[1].strip(" `"): row[2].strip() for row in rows if "." in row[1]}
    assert listed == {name: known.kind for name, known in KNOWN.items()}


@pytest.mark.parametrize(
    ("installed", "passes"),
    [("1.4.9", False), ("1.5", True), ("1.5.0rc1", True), ("2", True), ("1.10", True), (None, False)],
)
def test_a_version_from_which_a_layer_streams_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, passes: bool
) -> None:
    monkeypatch.setattr("streamkit.unbuffer.known._version", lambda package: installed)
    assert bool(Known("gzip", "starlette", "1.5").passes) is passes


def test_a_subclass_of_a_known_layer_is_known() -> None:
    from werkzeug.middleware.profiler import ProfilerMiddleware

    class Ours(ProfilerMiddleware):
        pass

    known = known_as(tree(Ours(plain)))
    assert known is not None
    assert known.kind == "cache"


def test_a_layer_that_streams_is_bypassed_all_the_same_where_it_is_named() -> None:
    pytest.importorskip("starlette")
    from starlette.middleware.gzip import GZipMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    layer = GZipMiddleware(app)
    stripped = unbuffer.strip(layer, ["starlette.middleware.gzip.GZipMiddleware"])
    assert stripped is not layer
    assert [taken.kind for taken in unbuffer.report(stripped).taken] == ["gzip"]


def test_a_hook_that_does_not_read_the_body_is_not_known() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("known")

    @app.after_request
    def reading(response: Any) -> Any:
        response.headers["X-Length"] = len(response.data)
        return response

    @app.after_request
    def harmless(response: Any) -> Any:
        response.headers["X-Mimetype"] = response.mimetype
        return response

    kinds = [known_as(layer) for layer in tree(app).walk() if layer.kind == "hook"]
    assert [known and known.kind for known in kinds] == ["cache", None]


def test_a_name_that_no_layer_bears_is_reported() -> None:
    app = unbuffer.strip(plain, ["shop.web.Layer"])
    assert app is plain
    (left,) = unbuffer.report(plain).held
    assert (left.name, left.why) == ("shop.web.Layer", "no layer of this name was found in the app")
