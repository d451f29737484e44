"""A pytest plugin for other people's tests: every app that a test client gets, in our middleware.

    pytest -p wrapping

Rule: only what hands an app to a client is changed, and in that run only. What each test came to is
written to the file that STREAMKIT_OUTCOMES names; with STREAMKIT_WRAPS=no the apps are left as they are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from _pytest import monkeypatch
from _pytest.compat import NOTSET

import streamkit

outcomes: dict[str, str] = {}
wraps: list[str] = []  # the kinds of the apps that were wrapped


def pytest_configure(config: pytest.Config) -> None:
    """Wrap what is there of the two kinds of clients."""
    if not hasattr(monkeypatch, "notset"):  # Flask 3.1's conftest wants it; pytest 9.2 has it elsewhere
        monkeypatch.notset = NOTSET  # type: ignore[attr-defined]
    if os.environ.get("STREAMKIT_WRAPS") == "no":
        return
    for wrap in (_wrap_for_starlette, _wrap_for_werkzeug):
        try:
            wrap()
        except ImportError as error:
            print(f"not wrapped: {error}", file=sys.stderr)


class _Wrapped(streamkit.asgi.StreamingMiddleware):
    """Tests ask their client's app for what they have put there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)


def _wrap_for_starlette() -> None:
    """Starlette's client, which is FastAPI's."""
    from starlette import testclient

    begin = testclient.TestClient.__init__

    def begin_wrapped(self: Any, app: Any, *arguments: Any, **options: Any) -> None:
        if testclient._is_asgi3(app):
            wraps.append("asgi")
            app = _Wrapped(app)
        begin(self, app, *arguments, **options)

    testclient.TestClient.__init__ = begin_wrapped  # type: ignore[method-assign]


def _wrap_for_werkzeug() -> None:
    """Werkzeug's client, which is Flask's, calls every app by this function."""
    from werkzeug import test

    run = test.run_wsgi_app

    def run_wrapped(app: Any, environ: Any, buffered: bool = False) -> Any:
        wraps.append("wsgi")
        return run(streamkit.wsgi.StreamingMiddleware(app), environ, buffered)

    test.run_wsgi_app = run_wrapped


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what the test came to; an error beside it counts too."""
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Write it all down."""
    file = Path(os.environ["STREAMKIT_OUTCOMES"])
    file.write_text(json.dumps({"outcomes": outcomes, "wrapped": len(wraps)}))
