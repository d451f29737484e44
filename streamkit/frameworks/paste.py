"""PasteDeploy, for Pyramid and others: `use = egg:streamkit-web` in an ini file.

    [filter:streamkit]
    use = egg:streamkit-web
    heartbeat = 15
    headers =
        X-Accel-Buffering: no

Rule: the strings of the file are read by `Options.from_mapping`, all faults in one message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import wsgi
from ..options import Options
from ..types import WSGIApp

__all__ = ["main"]


def main(app: WSGIApp, global_config: Mapping[str, str], **local_config: Any) -> WSGIApp:
    """`paste.filter_app_factory`: the app, wrapped with these settings. Raises `OptionsError`."""
    return wsgi.StreamingMiddleware(app, Options.from_mapping(local_config))
