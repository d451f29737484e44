"""ETag and Last-Modified by hand, and what a client gets that has the response already.

Rule: RFC 9110, sections 13.1 to 13.2.2 and 15.4.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from driving import PATIENCE, AsgiServer, WsgiServer, scope_of
from shapes import DESCRIBED, FUNCTIONS, WITH_STREAM, Run, Serve, serving

import streamkit
from streamkit.core.conditional import is_fresh, quoted
from streamkit.core.request import Fields
from streamkit.errors import AlreadyCommitted, HeaderError

CHANGED = datetime(2024, 5, 1, 12, 30, 15, 999_999, tzinfo=timezone.utc)
DATE = "Wed, 01 May 2024 12:30:15 GMT"
LATER = "Thu, 02 May 2024 00:00:00 GMT"
EARLIER = "Tue, 30 Apr 2024 00:00:00 GMT"
KNOWN = [("If-None-Match", '"v1"')]


@pytest.fixture(params=WITH_STREAM, ids=str)
def served(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=DESCRIBED, ids=str)
def described(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


@pytest.fixture(params=FUNCTIONS, ids=str)
def functions(request: pytest.FixtureRequest) -> Iterator[Serve]:
    yield from serving(request.param)


def versioned(stream: Any) -> Run:
    """What a producer does that knows the version of what it would make."""
    if (yield lambda: stream.stale(etag="v1", last_modified=CHANGED)):
        yield "made"


# ---------------------------------------------------------------- stale


def test_a_client_without_a_copy_gets_the_body_and_its_validators(served: Serve) -> None:
    answer = served(versioned).finish()
    assert (answer.status, answer.body, answer.complete) == (200, b"made", True)
    assert (answer.header("ETag"), answer.header("Last-Modified")) == ('"v1"', DATE)


def test_a_client_with_the_same_version_gets_a_304_and_nothing_is_made(served: Serve) -> None:
    answer = served(versioned, sent=KNOWN, headers={"Content-Disposition": "inline"}).finish()
    assert (answer.status, answer.body, answer.complete) == (304, b"", True)
    assert (answer.header("ETag"), answer.header("Last-Modified")) == ('"v1"', DATE)
    for gone in ("Content-Type", "Content-Length", "Content-Disposition"):
        assert answer.header(gone) is None


def test_a_304_has_the_cache_control_of_the_200(served: Serve) -> None:
    first, again = served(versioned).finish(), served(versioned, sent=KNOWN).finish()
    assert first.header("Cache-Control") == "private, no-cache, no-transform"
    assert again.header("Cache-Control") == first.header("Cache-Control")
    own = served(versioned, sent=KNOWN, headers={"Cache-Control": "public, max-age=60"}).finish()
    assert own.header("Cache-Control") == "public, max-age=60"


def test_a_client_with_another_version_gets_the_body(served: Serve) -> None:
    answer = served(versioned, sent=[("If-None-Match", '"v0", W/"v2"')]).finish()
    assert (answer.status, answer.body) == (200, b"made")


@pytest.mark.parametrize(("since", "status"), [(DATE, 304), (LATER, 304), (EARLIER, 200), ("yesterday", 200)])
def test_without_an_entity_tag_the_date_decides(served: Serve, since: str, status: int) -> None:
    assert served(versioned, sent=[("If-Modified-Since", since)]).finish().status == status


def test_the_date_is_not_asked_where_there_is_an_entity_tag(served: Serve) -> None:
    answer = served(versioned, sent=[("If-None-Match", '"v0"'), ("If-Modified-Since", LATER)]).finish()
    assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_get_and_head_are_answered_with_a_304(served: Serve, method: str) -> None:
    answer = served(versioned, method=method, sent=KNOWN).finish()
    assert (answer.status, answer.body) == (200, b"made")


def test_a_weak_tag_says_so(served: Serve) -> None:
    def program(stream: Any) -> Run:
        if (yield lambda: stream.stale(etag="v1", weak=True)):
            yield "made"

    assert served(program).finish().header("ETag") == 'W/"v1"'
    assert served(program, sent=KNOWN).finish().status == 304


def test_a_tag_that_was_set_by_hand_is_looked_at_too(served: Serve) -> None:
    def program(stream: Any) -> Run:
        stream.headers["ETag"] = '"v1"'
        if (yield stream.stale):
            yield "made"

    assert served(program, sent=KNOWN).finish().status == 304
    assert served(program).finish().body == b"made"


def test_without_any_validator_everything_is_stale(served: Serve) -> None:
    def program(stream: Any) -> Run:
        assert (yield stream.stale) is True
        yield "made"

    assert served(program, sent=KNOWN).finish().body == b"made"


def test_after_the_commit_it_is_too_late(served: Serve) -> None:
    def program(stream: Any) -> Run:
        yield "made"
        with pytest.raises(AlreadyCommitted):
            yield lambda: stream.stale(etag="v1")

    assert served(program, sent=KNOWN).finish().status == 200


def test_after_a_304_nothing_can_be_written(served: Serve) -> None:
    def program(stream: Any) -> Run:
        assert (yield lambda: stream.stale(etag="v1")) is False
        with pytest.raises(streamkit.errors.StreamError):
            yield "made"

    answer = served(program, sent=KNOWN).finish()
    assert (answer.status, answer.body) == (304, b"")


def test_an_error_status_is_no_copy_of_anything(served: Serve) -> None:
    answer = served(versioned, status=404, sent=KNOWN).finish()
    assert (answer.status, answer.body) == (404, b"made")


def test_hooks_and_callbacks_hear_of_the_end(served: Serve) -> None:
    heard: list[str] = []
    served(versioned, sent=KNOWN, callback=lambda: heard.append("finished")).finish()
    assert heard == ["finished"]


def test_hooks_of_the_commit_run_once_for_a_304(served: Serve) -> None:
    heard: list[int] = []

    def program(stream: Any) -> Run:
        stream.on_commit(lambda stream: heard.append(stream.status))
        yield lambda: stream.stale(etag="v1")

    assert served(program, sent=KNOWN).finish().status == 304
    assert heard == [304]


def test_a_hook_of_the_commit_that_is_awaited_comes_before_the_304() -> None:
    heard: list[str] = []

    async def hook(stream: Any) -> None:
        await asyncio.sleep(0)
        stream.headers["X-Late"] = "yes"
        heard.append("hook")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        stream.on_commit(hook)
        assert not stream.stale(etag="v1")

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        answer = server.request(sent=KNOWN).finish()
    assert (answer.status, answer.header("X-Late"), heard) == (304, "yes", ["hook"])


@pytest.mark.parametrize("etag", ['"v1"', "two words", "café", 7])
def test_a_tag_that_cannot_be_sent_is_refused(etag: Any) -> None:
    with pytest.raises(HeaderError, match="wanted etag as visible ASCII without quotes"):
        quoted(etag)


def test_a_date_that_is_none_is_refused(functions: Serve) -> None:
    def program(stream: Any) -> Run:
        with pytest.raises(HeaderError, match="wanted last_modified as a datetime, got 'today'"):
            yield lambda: stream.stale(last_modified="today")
        yield "made"

    assert functions(program).finish().body == b"made"


def test_it_is_committed_and_closed_as_soon_as_the_answer_is_known() -> None:
    seen: list[tuple[bool, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["streamkit.stream"]
        assert not stream.stale(etag="v1")
        seen.append((stream.committed, stream.closed))

    with AsgiServer(streamkit.wrap(app, kind="asgi")) as server:
        assert server.request(sent=KNOWN).finish().status == 304
    assert seen == [(True, True)]


def test_the_end_of_a_304_waits_for_a_head_that_its_server_is_slow_to_take() -> None:
    kinds: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not scope["streamkit.stream"].stale(etag="v1")

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            for _ in range(20):
                await asyncio.sleep(0)
        kinds.append(message["type"])

    wrapped = streamkit.wrap(app, kind="asgi")
    asyncio.run(asyncio.wait_for(wrapped(scope_of(sent=KNOWN), receive, send), PATIENCE))
    assert kinds == ["http.response.start", "http.response.body"]


# ---------------------------------------------------------------- described validators


def never() -> Run:
    raise AssertionError("the producer was begun")
    yield


@pytest.mark.parametrize("headers", [{"ETag": '"v1"'}, {"Last-Modified": DATE}], ids=["tag", "date"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_description_that_the_client_has_is_a_304_before_its_producer_begins(
    described: Serve, headers: dict[str, str], method: str
) -> None:
    heard: list[str] = []
    sent = [*KNOWN] if "ETag" in headers else [("If-Modified-Since", DATE)]
    answer = described(
        never, method=method, sent=sent, headers=headers, callback=lambda: heard.append("over")
    ).finish()
    assert (answer.status, answer.body, answer.complete) == (304, b"", True)
    assert answer.header("Cache-Control") == "private, no-cache, no-transform"
    for name, value in headers.items():
        assert answer.header(name) == value
    assert heard == ["over"]


def test_a_described_tag_that_the_client_does_not_have_changes_nothing(described: Serve) -> None:
    def program() -> Run:
        yield "made"

    answer = described(program, sent=[("If-None-Match", '"v0"')], headers={"ETag": '"v1"'}).finish()
    assert (answer.status, answer.body, answer.header("ETag")) == (200, b"made", '"v1"')


def test_one_description_answers_one_client_with_304_and_the_next_with_200() -> None:
    response = streamkit.stream(lambda stream: stream.write("made"), headers={"ETag": '"v1"'})
    with WsgiServer(response) as server:
        assert server.request(sent=KNOWN).finish().status == 304
        assert server.request().finish().status == 200


def test_a_tag_holds_for_the_compressed_body_and_a_304_varies_with_it(described: Serve) -> None:
    def program() -> Run:
        yield "made"

    asked: dict[str, Any] = {"headers": {"ETag": '"v1"'}, "options": {"compress": True}}
    first = described(program, sent=[("Accept-Encoding", "gzip")], **asked).finish()
    tag = first.header("ETag")
    assert tag == 'W/"v1"'
    again = described(never, sent=[("Accept-Encoding", "gzip"), ("If-None-Match", tag)], **asked).finish()
    assert (again.status, again.header("ETag"), again.header("Vary")) == (304, tag, "Accept-Encoding")
    assert again.header("Content-Encoding") is None


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("fields", "fresh"),
    [
        (Fields(), False),
        (Fields(if_none_match="*"), True),
        (Fields(if_none_match='"a"'), True),
        (Fields(if_none_match='W/"a"'), True),
        (Fields(if_none_match='"b", W/"a"'), True),
        (Fields(if_none_match='"b"'), False),
        (Fields(if_none_match='""'), False),
        (Fields(if_none_match="nonsense"), False),
        (Fields(if_modified_since=DATE), True),
        (Fields(if_modified_since=EARLIER), False),
        (Fields(if_modified_since="nonsense"), False),
        (Fields(if_modified_since="Sun, 06 Nov 1994 08:49:37 +999999999999999"), False),
        (Fields(if_modified_since="Sun, 06 Nov 99999999999999999999 08:49:37 GMT"), False),
        (Fields(if_none_match='"b"', if_modified_since=LATER), False),
    ],
)
def test_a_condition_is_read_as_the_rfc_says(fields: Fields, fresh: bool) -> None:
    headers = [("ETag", '"a"'), ("Last-Modified", DATE)]
    assert is_fresh("GET", fields, 200, headers) is fresh
    assert is_fresh("HEAD", fields, 200, headers) is fresh
    assert not is_fresh("POST", fields, 200, headers)
    assert not is_fresh("GET", fields, 500, headers)
    assert not is_fresh("GET", fields, 200, [])


def test_a_date_in_another_time_zone_is_sent_as_gmt() -> None:
    def producer(stream: Any) -> None:
        stream.stale(last_modified=CHANGED.astimezone(timezone(timedelta(hours=9))))

    with WsgiServer(streamkit.stream(producer)) as server:
        assert server.request().finish().header("Last-Modified") == DATE


def test_a_date_alone_asks_nothing_of_a_response_that_has_only_a_tag() -> None:
    def program(stream: Any) -> None:
        stream.write("made")

    sent = [("If-Modified-Since", DATE)]
    with WsgiServer(streamkit.stream(program, headers={"ETag": '"v1"'})) as server:
        answer = server.request(sent=sent).finish()
    assert (answer.status, answer.body, answer.error) == (200, b"made", None)
