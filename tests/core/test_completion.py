"""What ends a stream that failed."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from streamkit import html_completion
from streamkit.core.completion import completion_for
from streamkit.errors import OptionsError


class Stream:
    at_line_start = True


class MidLine:
    at_line_start = False


ERROR = RuntimeError("the password is hunter2")


def completed(content_type: str, stream: Any = Stream, own: Any = None) -> Any:
    return completion_for(content_type, own or {}, stream, ERROR)


class Seen(HTMLParser):
    """Collects the elements that a parser sees as such, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


CUTS = [
    "<p>text",
    '<p title="half',
    "<p title='half",
    "<p title=half",
    "<p ",
    "<!-- half",
    "<script>let x = 1",
    "<style>p { color",
    "<textarea>half",
    "<title>half",
    "<svg><![CDATA[ half",
    "<table><tr><td>half",
]


@pytest.mark.parametrize("cut", CUTS)
def test_wherever_html_is_cut_the_way_to_the_error_page_is_markup(cut: str) -> None:
    parser = Seen()
    parser.feed("<!doctype html><body>" + cut + completed("text/html; charset=utf-8"))
    parser.close()
    refresh = {"http-equiv": "refresh", "content": "0; url=/500.html"}
    assert ("script", {}) in parser.tags[-4:]
    assert ("meta", refresh) in parser.tags
    assert ("a", {"href": "/500.html"}) in parser.tags


def test_an_error_page_cannot_break_out_of_its_script_or_attribute() -> None:
    text = html_completion('/a"</script><b>?x=1&y=2')(Stream, ERROR)
    assert isinstance(text, str)
    assert "</script><b>" not in text.split("<script>", 1)[1].split(")", 1)[0]
    assert 'href="/a&quot;&lt;/script&gt;&lt;b&gt;?x=1&amp;y=2"' in text


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/event-stream", "application/x-ndjson", "application/json-seq"]
)
def test_nothing_of_the_error_reaches_the_client(content_type: str) -> None:
    text = completed(content_type)
    assert text
    assert "hunter2" not in text
    assert "RuntimeError" not in text


def test_records_begin_on_a_line_of_their_own() -> None:
    assert completed("application/x-ndjson").startswith('{"error"')
    assert completed("application/x-ndjson", MidLine).startswith('\n{"error"')
    assert completed("text/event-stream").startswith("event: error\ndata: {")
    assert completed("text/event-stream", MidLine).startswith("\nevent: error\n")
    assert completed("application/json-seq").startswith("\x1e{")


def test_other_types_get_nothing() -> None:
    assert completed("text/csv") is None
    assert completed("") is None


def test_an_own_completion_wins_and_may_be_text_bytes_nothing_or_a_function() -> None:
    own = {"text/html": b"bytes", "text/csv": "# incomplete\n", "application/x-ndjson": None}
    assert completed("Text/HTML; charset=utf-8", own=own) == b"bytes"
    assert completed("text/csv", own=own) == "# incomplete\n"
    assert completed("application/x-ndjson", own=own) is None
    seen: list[Any] = []

    def complete(stream: Any, error: BaseException) -> str:
        seen.extend((stream, error))
        return "mine"

    assert completed("text/html", own={"text/html": complete}) == "mine"
    assert seen == [Stream, ERROR]


@pytest.mark.parametrize(
    "wrong", [{"error_page": ""}, {"error_page": b"/500.html"}, {"error_page": 5}, {"nonce": 5}], ids=repr
)
def test_a_completion_of_pages_is_refused_what_it_cannot_write(wrong: Any) -> None:
    with pytest.raises(OptionsError, match=f"{next(iter(wrong))}: wanted"):
        html_completion(**wrong)
