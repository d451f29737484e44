"""Settings for Django's own tests: every handler that they make has our middleware first.

    python runtests.py --settings=django_wrapping

Rule: nothing but `load_middleware` is changed, and in that run only; as in `wrapping`.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path
from typing import Any

from test_sqlite import *  # noqa: F403  # Django's own, beside its tests

wraps: list[bool] = []


def _wrap_handlers() -> None:
    from django.core.handlers.base import BaseHandler
    from django.core.handlers.exception import convert_exception_to_response

    load = BaseHandler.load_middleware

    def load_wrapped(self: Any, is_async: bool = False) -> None:
        from streamkit.frameworks.django import StreamKitMiddleware  # it needs the settings

        wraps.append(is_async)
        load(self, is_async)
        self._middleware_chain = convert_exception_to_response(StreamKitMiddleware(self._middleware_chain))

    BaseHandler.load_middleware = load_wrapped


def _note() -> None:
    Path(os.environ["STREAMKIT_OUTCOMES"]).write_text(json.dumps({"wrapped": len(wraps)}))


if os.environ.get("STREAMKIT_WRAPS") != "no":
    _wrap_handlers()
    atexit.register(_note)
