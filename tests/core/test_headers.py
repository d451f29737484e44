"""Headers: what they refuse, when they freeze, and how a head is completed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamkit import AlreadyCommitted, HeaderError, Headers, Options
from streamkit.core.framing import Body
from streamkit.core.headers import charset_of, finished, is_streaming
from streamkit.errors import StreamKitError
from streamkit.syntax import HOP_BY_HOP, status_line

CHANGES: dict[str, Callable[[Headers], Any]] = {
    "add": lambda h: h.add("X-B", "2"),
    "add_header": lambda h: h.add_header("X-B", "2"),
    "set": lambda h: h.set("X-A", "2"),
    "item": lambda h: h.__setitem__("X-A", "2"),
    "delete": lambda h: h.__delitem__("X-A"),
    "remove": lambda h: h.remove("X-A"),
    "pop": lambda h: h.pop("X-A"),
    "popitem": lambda h: h.popitem(),
    "clear": lambda h: h.clear(),
    "extend": lambda h: h.extend({"X-B": "2"}),
    "update": lambda h: h.update({"X-B": "2"}),
    "setdefault": lambda h: h.setdefault("X-B", "2"),
    "setlist": lambda h: h.setlist("X-B", ["2"]),
    "setlistdefault": lambda h: h.setlistdefault("X-B", ["2"]),
    "ior": lambda h: h.__ior__({"X-B": "2"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_after_the_freeze_every_change_is_refused_and_nothing_is_changed(
    change: Callable[[Headers], Any],
) -> None:
    headers = Headers([("X-A", "1")])
    headers.freeze()
    with pytest.raises(AlreadyCommitted, match="committed"):
        change(headers)
    assert list(headers) == [("X-A", "1")]


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", "a\r\nSet-Cookie: x=1", "\N{SNOWMAN}"])
def test_a_value_that_could_break_the_head_is_refused_and_not_kept(bad: str) -> None:
    headers = Headers()
    for change in (lambda: headers.add("X-A", bad), lambda: headers.set("X-A", bad)):
        with pytest.raises(HeaderError):
            change()
    with pytest.raises(HeaderError):
        Headers([("X-A", bad)])
    assert list(headers) == []


@pytest.mark.parametrize(
    "bad", ["", "X A", "X:A", "X\nA", "X\0", "X\u00e9", *sorted(HOP_BY_HOP), "Connection"]
)
def test_a_name_that_is_no_token_or_hop_by_hop_is_refused(bad: str) -> None:
    headers = Headers()
    with pytest.raises(HeaderError):
        headers[bad] = "1"
    assert list(headers) == []


def test_what_is_no_header_list_is_refused_with_a_typed_error() -> None:
    with pytest.raises(StreamKitError):
        Headers(5)  # type: ignore[arg-type]


NO_PAIRS = ["id", "abc", b"ab", (), ("X-A",), ("X-A", "1", "2"), {"X-A": 1}, frozenset({"X-A"}), None, 5]


@pytest.mark.parametrize("bad", NO_PAIRS, ids=repr)
def test_an_item_that_is_no_pair_is_refused_by_its_own_looks_and_nothing_is_kept(bad: Any) -> None:
    headers = Headers()

    def item(key: Any, value: Any) -> Callable[[], None]:
        return lambda: Headers([("X-C", "3")]).__setitem__(key, value)

    many: list[Any] = [("X-B", "2"), bad]
    ways = [lambda: Headers(many), lambda: Headers(iter(many)), lambda: headers.extend(many)]
    ways += [lambda: headers.update(many), lambda: headers.__ior__(many)]
    for change in [*ways, item(0, bad), item(slice(0, 1), [bad])]:
        with pytest.raises(HeaderError) as caught:
            change()
        assert "pairs of name and value" in str(caught.value)
        assert repr(bad) in str(caught.value)
    assert list(headers) == []


@pytest.mark.parametrize("bad", ["ab", "abc", b"ab", 5], ids=repr)
def test_what_is_neither_a_mapping_nor_pairs_is_refused_as_a_whole(bad: Any) -> None:
    headers = Headers()
    for change in (lambda: Headers(bad), lambda: headers.extend(bad), lambda: headers.__ior__(bad)):
        with pytest.raises(HeaderError, match="as a mapping or as pairs of name and value") as caught:
            change()
        assert repr(bad) in str(caught.value)


def test_pairs_may_be_tuples_or_lists_from_any_iterable() -> None:
    expected = [("X-A", "1"), ("X-B", "2")]
    assert list(Headers([("X-A", "1"), ["X-B", "2"]])) == expected  # type: ignore[list-item]
    assert list(Headers(pair for pair in expected)) == expected
    assert list(Headers(dict(expected).items())) == expected
    assert list(Headers(Headers(expected))) == expected
    headers = Headers(expected)
    headers[0] = ("X-C", "3")
    headers[1:] = [("X-D", "4")]
    assert list(headers) == [("X-C", "3"), ("X-D", "4")]


@pytest.mark.parametrize("bad", ["ab", b"ab", 5], ids=repr)
def test_values_that_are_one_text_are_not_taken_letter_by_letter(bad: Any) -> None:
    headers = Headers()
    for change in (headers.setlist, headers.setlistdefault):
        with pytest.raises(HeaderError, match="values of X-A"):
            change("X-A", bad)
    assert list(headers) == []


def test_nothing_of_what_may_not_be_sent_stays_after_a_refusal() -> None:
    headers = Headers([("X-A", "1")])
    with pytest.raises(HeaderError):
        headers[1:] = [("X-B", "2"), ("X C", "3"), ("X D", "4"), ("X-E", "\N{SNOWMAN}")]
    assert list(headers) == [("X-A", "1"), ("X-B", "2")]


def test_what_an_iterable_of_headers_raises_is_its_own() -> None:
    def pairs() -> Iterator[tuple[str, str]]:
        yield "X-A", "1"
        raise AttributeError("of the application")

    with pytest.raises(AttributeError, match="of the application"):
        Headers(pairs())


def test_merging_headers_leaves_the_original_alone() -> None:
    original = Headers({"X-A": "1"})
    assert list(original | {"X-B": "2"}) == [("X-A", "1"), ("X-B", "2")]
    assert list(original) == [("X-A", "1")]


def head(*pairs: tuple[str, str], body: Body = Body.STREAM, status: int = 200, **more: Any) -> dict[str, str]:
    options = more.pop("options", Options())
    return dict(finished(list(pairs), options, status, body, **more))


def test_a_stream_gets_what_keeps_it_moving() -> None:
    assert head(("Content-Type", "text/html")) == {
        "Content-Type": "text/html",
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
    }


def test_what_the_application_says_itself_is_kept() -> None:
    own = head(("cache-control", "private"), ("x-accel-buffering", "yes"), ("content-type", "a/b"))
    assert own == {"cache-control": "private", "x-accel-buffering": "yes", "content-type": "a/b"}


def test_public_goes_where_no_store_stands() -> None:
    assert head(("Cache-Control", "public, no-store"))["Cache-Control"] == "no-store"
    assert head(("Cache-Control", "public, max-age=5"))["Cache-Control"] == "public, max-age=5"


def test_a_content_length_is_ours_alone_and_an_etag_the_applications() -> None:
    pairs = (("Content-Length", "5"), ("ETag", '"a"'))
    assert "Content-Length" not in head(*pairs)
    assert head(*pairs)["ETag"] == '"a"'
    assert "ETag" not in head(*pairs, foreign=True)
    assert head(*pairs, content_length=7)["Content-Length"] == "7"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_has_no_type_and_no_length(status: int) -> None:
    pairs = (("Content-Type", "a/b"), ("Content-Length", "5"), ("ETag", '"a"'))
    assert head(*pairs, body=Body.NONE, status=status) == {"ETag": '"a"'}


def test_options_add_and_remove_headers() -> None:
    options = Options(headers={"x-accel-buffering": None, "X-Own": "1"}, cache_control=None)
    assert head(("Content-Type", "a/b"), options=options) == {"Content-Type": "a/b", "X-Own": "1"}


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [("text/html", "utf-8"), ("text/html; charset=latin-1", "latin-1"), ('a/b; Charset="UTF-16"', "UTF-16")],
)
def test_the_charset_is_that_of_the_content_type(content_type: str, charset: str) -> None:
    assert charset_of(content_type) == charset


def test_an_unknown_charset_is_refused_by_name() -> None:
    with pytest.raises(HeaderError, match="klingon"):
        charset_of("text/html; charset=klingon")


def test_streaming_media_types_are_known_with_parameters_and_in_any_case() -> None:
    assert is_streaming([("content-type", "Text/Event-Stream; charset=utf-8")])
    assert is_streaming([("Content-Type", "application/x-ndjson")])
    assert not is_streaming([("Content-Type", "text/html"), ("X-Type", "text/event-stream")])


def test_a_status_line_has_its_reason_even_where_there_is_none() -> None:
    assert status_line(404) == "404 Not Found"
    assert status_line(299) == "299 Unknown"


class NoCase(str):
    """A name that is equal to others, and has no hash."""

    def __eq__(self, other: object) -> bool:
        return self.lower() == str(other).lower()

    __hash__ = None  # type: ignore[assignment]


class Named(str):
    owner: object


def test_names_that_are_more_than_text_are_taken_and_not_held() -> None:
    assert list(Headers([(NoCase("X-A"), "1")])) == [("X-A", "1")]

    class Owner:
        pass

    name = Named("X-Named")
    name.owner = Owner()
    gone = weakref.ref(name.owner)
    assert Headers([(name, "1")])["x-named"] == "1"
    del name
    gc.collect()
    assert gone() is None


def test_a_name_that_claims_to_be_another_does_not_let_that_one_through() -> None:
    class Claiming(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("Connection")

    assert len(Headers([(Claiming("X-Fine"), "1")])) == 1
    with pytest.raises(HeaderError, match="hop-by-hop"):
        Headers([("Connection", "close")])


def test_a_kind_of_headers_is_filled_by_its_own_methods() -> None:
    class Counting(Headers):
        filled = 0

        def extend(self, *args: Any, **kwargs: Any) -> None:
            self.filled += 1
            super().extend(*args, **kwargs)

    assert [Counting({"Content-Type": "text/plain"}).filled for _ in range(2)] == [1, 1]
