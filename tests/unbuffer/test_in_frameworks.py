"""The frameworks' own rooms take layers out of the way of streams, without a wrap around the app."""

from __future__ import annotations

from typing import Any

import pytest

import streamkit
from streamkit import unbuffer

from .layered import AT_ONCE, HTML, Drip, Page, Seen, flask

LONG = 10.0


@pytest.mark.parametrize("strip", [("etag", "gzip", "cache"), ()])
def test_flasks_ways_to_an_etag_hold_no_description(strip: tuple[str, ...]) -> None:
    package = pytest.importorskip("flask")
    from streamkit.frameworks.flask import StreamKit

    drip = Drip(LONG)
    app = flask(drip)
    app.view_functions["stream"] = lambda: streamkit.stream(drip.chunks(), content_type=HTML)

    @app.after_request
    def conditional(response: Any) -> Any:
        response.add_etag()
        response.calculate_content_length()
        response.freeze()
        return response.make_conditional(package.request)

    StreamKit(app, {"strip": strip})
    found = Seen(app, drip)
    assert drip.log == AT_ONCE
    assert (found.status, "ETag" in found.headers) == (200, False)
    assert "etag" in dict(Page(app).headers)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_djangos_middleware_below_ours_holds_no_stream(interface: str) -> None:
    pytest.importorskip("django")
    from django.test import override_settings

    from streamkit.frameworks.django import StreamKitMiddleware

    from .django_pages import SETTINGS, site

    ours, holding = "streamkit.frameworks.django.StreamKitMiddleware", "django_pages.joining_either"
    name = f"{__name__.rpartition('.')[0]}.{holding}"
    with override_settings(**SETTINGS, STREAMKIT={"strip": ("etag", "gzip", name)}):
        drip = Drip(LONG)
        app = site(drip, interface, [ours, name, "django.middleware.http.ConditionalGetMiddleware"])
        Seen(app, drip)
        assert drip.log == AT_ONCE
        assert "etag" in dict(Page(app).headers)
        inside = app._middleware_chain
        while not isinstance(inside, StreamKitMiddleware):
            inside = inside.__wrapped__
        assert [taken.kind for taken in unbuffer.report(inside).taken] == ["named"]
