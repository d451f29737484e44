"""Send a Jinja2 template piece by piece.

    templates = streamkit.Templates(environment)
    return templates.chunked("albums.html", layout="layout.html", delay=[load], artist=artist)

The browser fetches style sheets and scripts while the rest is rendered. The price: after the first
piece the status cannot change, so a late error shows in the page, not in its status.

In templates:

    {% flush %}                                          send what is rendered so far
    {% content %}                                        in a `layout=`: the page itself
    {% defer %} slow {% placeholder %} … {% enddefer %}  what follows when it is ready, out of order
    {% slots %} … {% endslots %}                         a region whose deferred blocks need no script

The same templates can be rendered by `template.render()`: then all is in its place, and none of the
tags leaves a trace.

Rule: Jinja2 is imported when it is needed, not before. What runs beside a template is begun by the
engine (`core.gathering`).
"""

from typing import TYPE_CHECKING, Any

from ._missing import missing
from .description import TemplateResponse, Templates, chunked
from .rendering import csp_nonce

if TYPE_CHECKING:
    from .extension import Streaming

__all__ = ["Streaming", "TemplateResponse", "Templates", "chunked", "csp_nonce"]


def __getattr__(name: str) -> Any:
    """`Streaming` is a Jinja2 extension, so its class cannot exist before Jinja2 is imported."""
    if name != "Streaming":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .extension import Streaming
    except ImportError as error:
        raise missing(error) from error
    return Streaming
