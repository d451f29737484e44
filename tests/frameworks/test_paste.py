"""PasteDeploy: the entry point, and the strings of an ini file as options."""

from __future__ import annotations

import configparser
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

import streamkit
from streamkit.errors import NotAnApplication, OptionsError
from streamkit.frameworks.paste import main
from streamkit.testing import Client

SETTINGS = """
heartbeat = 20
write_timeout = 2.5
max_streams = none
http10 = Buffer
signals = false
strip = etag, gzip
cache_control = no-cache
headers =
    X-Accel-Buffering: none
    X-Served-By: ini
"""


def rows(environ: Any, start_response: Any) -> Any:
    return streamkit.stream(iter(["a", "b"]))(environ, start_response)


def rows_factory(global_config: Any, **local_config: Any) -> Any:
    """`paste.app_factory`."""
    return rows


def as_strings(text: str) -> dict[str, str]:
    """The settings as PasteDeploy hands them over."""
    parser = configparser.ConfigParser()
    parser.read_string("[settings]\n" + text)
    return dict(parser["settings"])


def test_the_strings_of_an_ini_file_become_options() -> None:
    app: Any = main(rows, {"here": "/srv", "debug": "true"}, **as_strings(SETTINGS))
    assert isinstance(app, streamkit.wsgi.StreamingMiddleware)
    assert app.app is rows
    assert app.options == streamkit.Options(
        heartbeat=20,
        write_timeout=2.5,
        max_streams=None,
        http10="buffer",
        signals=False,
        strip=("etag", "gzip"),
        cache_control="no-cache",
        headers={"X-Accel-Buffering": None, "X-Served-By": "ini"},
    )
    with Client(app) as client, client.get("/") as answer:
        assert answer.read() == b"ab"
        assert answer.headers["X-Served-By"] == "ini"
        assert "X-Accel-Buffering" not in answer.headers


def test_every_fault_of_an_ini_file_is_in_one_message() -> None:
    faulty = as_strings("heartbeet = 20\nhttp10 = never\nwrite_timeout = 0\nsignals = perhaps\nheaders = X\n")
    with pytest.raises(OptionsError) as caught:
        main(rows, {}, **faulty)
    assert len(caught.value.faults) == 5
    assert "'heartbeat'" in str(caught.value)


def test_what_is_no_application_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(NotAnApplication):
        main(nothing, {})


def test_the_distribution_names_the_entry_point() -> None:
    found = importlib.metadata.entry_points(group="paste.filter_app_factory", name="main")
    assert [entry.load() for entry in found if entry.dist and entry.dist.name == "streamkit-web"] == [main]


# ---------------------------------------------------------------- by PasteDeploy itself


def loaded(directory: Path, *sections: str) -> Any:
    deploy = pytest.importorskip("paste.deploy")
    ini = directory / "app.ini"
    ini.write_text("\n".join([*sections, "[app:rows]", f"use = call:{__name__}:rows_factory", ""]))
    return deploy.loadapp(f"config:{ini}", global_conf={"debug": "true"})


@pytest.mark.server
@pytest.mark.parametrize(
    "sections",
    [
        ("[pipeline:main]", "pipeline = kit rows", "[filter:kit]"),
        ("[filter-app:main]", "next = rows"),
    ],
    ids=["pipeline", "filter-app"],
)
def test_an_ini_file_names_the_distribution_and_its_settings(tmp_path: Path, sections: Any) -> None:
    app = loaded(tmp_path, *sections, "use = egg:streamkit-web", SETTINGS)
    assert isinstance(app, streamkit.wsgi.StreamingMiddleware)
    assert (app.options.heartbeat, app.options.given_headers["X-Served-By"]) == (20, "ini")
    with Client(app) as client, client.get("/") as answer:
        assert answer.read() == b"ab"


@pytest.mark.server
def test_bad_settings_stop_the_loading(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="did you mean 'heartbeat'"):
        loaded(tmp_path, "[filter-app:main]", "next = rows", "use = egg:streamkit-web", "heartbeet = 20")
