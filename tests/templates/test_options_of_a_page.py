"""A page that is made of a template at hand takes options, as any other description.

Rule: public names only.
"""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

import streamkit
from streamkit.testing import Client


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_page_made_of_a_template_at_hand_takes_options(kind: Any) -> None:
    template = jinja2.Template("{{ options }}")
    page = streamkit.chunked(template, options={"headers": {"X-A": "1"}}, context={"options": "b"})
    with Client(page, kind=kind) as client, client.get("/") as answer:
        assert answer.headers["X-A"] == "1"
        assert answer.read() == b"b"


def test_wrong_options_of_a_page_are_named() -> None:
    with pytest.raises(streamkit.OptionsError, match="heartbeat"):
        streamkit.chunked(jinja2.Template(""), options={"hartbeat": 1})
