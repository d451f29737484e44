"""Layers from the package index that hold streams, each between two that do not.

They are the extra `test-layers`; with `--require-system` a missing one is a failure.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
from unbuffer.layered import wanted

from streamkit.doctor import Severity
from streamkit.doctor.stack import examine

from . import layers_asgi as asgi
from . import layers_frameworks as frameworks
from . import layers_wsgi as wsgi
from .layers_frameworks import FLASK_INNOCENT, flask_stack

Make = Callable[[Any, Any], Any]  # of the module and an app: the app with the layer around it

LAYERS: list[tuple[str, Make, str, str]] = [
    ("paste.gzipper", lambda m, app: m.middleware(app), "layer-buffers", "paste.gzipper.middleware"),
    (
        "paste.evalexception.middleware",
        lambda m, app: m.EvalException(app),
        "layer-buffers",
        "paste.evalexception.middleware.EvalException",
    ),
    ("wsgigzip", lambda m, app: m.GzipMiddleware(app), "layer-header-only", "wsgigzip.gzip.GzipMiddleware"),
    (
        "requestlogger",
        lambda m, app: m.WSGILogger(app, [logging.NullHandler()], m.ApacheFormatter()),
        "layer-swallows",
        "requestlogger.WSGILogger",
    ),
    (
        "starlette_compress",
        lambda m, app: m.CompressMiddleware(app),
        "layer-buffers",
        "starlette_compress.CompressMiddleware",
    ),
    ("asgi_gzip", lambda m, app: m.GZipMiddleware(app), "layer-header-only", "asgi_gzip.GZipMiddleware"),
    # Compiled: a call of one of its instances cannot be probed where it stands.
    (
        "asgi_etags",
        lambda m, app: m.ETagMiddleware(app, lambda *_: "tag"),
        "layer-starts-twice",
        "asgi_etags.core.ETagMiddleware",
    ),
]
HOOKS: list[tuple[str, Make, str]] = [
    ("flask_htmlmin", lambda m, app: m.HTMLMIN(app), "flask_htmlmin.HTMLMIN.response_minify"),
    ("flask_minify", lambda m, app: m.Minify(app=app), "flask_minify.main.Minify.main"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("module", "make", "code", "name"), LAYERS, ids=[one[0] for one in LAYERS])
def test_a_real_layer_that_holds_streams_is_named(
    module: str, make: Make, code: str, name: str, pytestconfig: pytest.Config
) -> None:
    wanted(pytestconfig, module)
    found = importlib.import_module(module)
    if module.startswith(("asgi", "starlette")):
        app = asgi.AddsHeader(make(found, asgi.AddsHeader(asgi.async_drip)))
    else:
        app = wsgi.adds_a_header(make(found, wsgi.adds_a_header(wsgi.drip)))
    faults = [
        (finding.code, finding.guilty)
        for finding in examine(app).findings
        if finding.severity is Severity.FAULT
    ]
    assert faults == [(code, name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("module", "make", "name"), HOOKS, ids=[one[0] for one in HOOKS])
def test_a_real_extension_of_flask_that_holds_streams_is_named(
    module: str, make: Make, name: str, pytestconfig: pytest.Config
) -> None:
    wanted(pytestconfig, module)
    app, _ = flask_stack([FLASK_INNOCENT[0], FLASK_INNOCENT[1]])
    app.config["MINIFY_HTML"] = True
    make(importlib.import_module(module), app)
    app.after_request(frameworks.flask_sets_a_cookie)
    # Without a path: one of them looks for a charset, which the probe stream declares.
    faults = [finding.guilty for finding in examine(app).findings if finding.severity is Severity.FAULT]
    assert faults == [name]
