"""`send_stream`: any producer as a file to be saved (scenarios R6 to R9, R46, X15)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from downloading import WAYS, Downloads, as_download, serving
from driving import PATIENCE, Answer, scope_of
from shapes import DESCRIBED, FUNCTIONS, Serve
from shapes import serving as serving_shapes

import streamkit
from streamkit.core.response import StreamingResponse
from streamkit.downloads import Download, csv_rows, json_lines, send_stream
from streamkit.errors import AlreadyServed, BodyTooShort, HeaderError
from streamkit.options import Options

DEFAULT = "private, no-cache, no-transform"


class Boom(Exception):
    pass


@pytest.fixture(params=map(as_download, DESCRIBED), ids=str)
def shaped(request: Any) -> Iterator[Serve]:
    yield from serving_shapes(request.param)


@pytest.fixture(params=map(as_download, FUNCTIONS), ids=str)
def written(request: Any) -> Iterator[Serve]:
    yield from serving_shapes(request.param)


@pytest.fixture(params=WAYS)
def served(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


@pytest.fixture(params=[way for way in WAYS if "wrapped" in way])
def wrapped(request: Any) -> Iterator[Downloads]:
    yield from serving(request.param)


def program() -> Any:
    yield b"a,b\n"
    yield b"1,2\n"


def failing() -> Any:
    yield b"half,"
    raise Boom


def is_cut(answer: Answer, error: type[BaseException] = Boom) -> bool:
    return not answer.complete and isinstance(answer.error, error)


# ---------------------------------------------------------------- what it is


def test_r6_a_name_alone_gives_the_type_the_disposition_and_what_was_written(shaped: Serve):
    answer = shaped(program, filename="my.csv").finish()
    assert answer.header("Content-Type") == "text/csv"
    assert answer.header("Content-Disposition") == "attachment; filename=\"my.csv\"; filename*=UTF-8''my.csv"
    assert (answer.status, answer.body, answer.complete) == (200, b"a,b\n1,2\n", True)


def test_r7_a_download_may_be_inline_and_of_a_registered_type(shaped: Serve):
    answer = shaped(program, filename="export", disposition="inline", type="json").finish()
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Content-Disposition") == "inline; filename=\"export\"; filename*=UTF-8''export"


@pytest.mark.parametrize(
    ("type", "filename", "expected"),
    [
        ("text/csv", "a.json", "text/csv"),  # a full string is used verbatim
        ("Text/CSV; charset=latin-1; header=absent", "a", "Text/CSV; charset=latin-1; header=absent"),
        ("csv", "a.json", "text/csv"),  # a short name as it is registered
        ("JSON", "a", "application/json"),
        (None, "a.csv", "text/csv"),  # none: by the extension
        (None, "a.CSV", "text/csv"),
        (None, "a.png", "image/png"),
        (None, "archive.tar.gz", "application/gzip"),
        (None, "a.txt", "text/plain"),
        (None, "a", "application/octet-stream"),
        (None, "a.", "application/octet-stream"),
        (None, ".csv", "application/octet-stream"),
        (None, "a.no-such-extension", "application/octet-stream"),
        (None, "a.b/c", "application/octet-stream"),
        (None, None, "application/octet-stream"),
    ],
)
def test_r8_the_type_is_the_full_string_or_the_short_name_or_that_of_the_extension(
    type: Any, filename: Any, expected: str
):
    headers = dict(send_stream(["a"], filename, type=type).headers)
    assert headers["Content-Type"] == expected


def test_a_type_that_an_application_registers_with_mimetypes_is_known(monkeypatch: pytest.MonkeyPatch):
    import mimetypes

    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".ours", "application/x-ours")
    assert send_stream(["a"], "a.ours").media_type == "application/x-ours"
    assert send_stream(["a"], "a", type="ours").media_type == "application/x-ours"


@pytest.mark.parametrize("type", ["cvs", "", 5, b"text/csv", "text/csv\r\nX: y"])
def test_a_type_that_is_none_is_refused(type: Any):
    with pytest.raises(HeaderError, match=r"wanted type as|must not contain"):
        send_stream(["a"], "a.csv", type=type)


def test_a_disposition_that_is_none_is_refused():
    with pytest.raises(HeaderError, match="disposition"):
        send_stream(["a"], "a.csv", disposition="in line")


def test_headers_of_the_callers_own_win():
    own = {"Content-Type": "a/b", "content-disposition": "form-data", "Accept-Ranges": "x", "X-A": "1"}
    assert dict(send_stream(["a"], "a.csv", headers=own).headers) == own


def test_text_is_sent_in_the_charset_that_the_type_names_and_none_is_added(served: Downloads):
    latin = served(lambda: send_stream(["é"], "a", type="text/csv; charset=latin-1")).finish()
    assert latin.body == b"\xe9"
    utf8 = served(lambda: send_stream(["é"], "a.csv")).finish()
    assert (utf8.body, utf8.header("Content-Type")) == (b"\xc3\xa9", "text/csv")


def test_the_response_of_a_stream_has_what_the_caller_gave(written: Serve):
    seen: list[Any] = []

    def looking(stream: Any) -> Any:
        seen.append(stream.response)
        yield b"a"

    written(looking, filename="a.csv", disposition="inline", type="csv").finish()
    assert isinstance(seen[0], Download)
    assert (seen[0].filename, seen[0].disposition, seen[0].type) == ("a.csv", "inline", "csv")


def test_a_download_is_a_description_and_its_repr_says_what_of():
    download = send_stream(["a"], "a.csv")
    assert isinstance(download, StreamingResponse)
    assert repr(download) == "<Download 'a.csv' text/csv of ['a']>"
    assert (download.filename, download.disposition, download.type) == ("a.csv", "attachment", None)


def test_an_iterator_is_not_sent_twice(served: Downloads):
    download = send_stream(iter([b"a"]), "a.csv")
    assert served(lambda: download).finish().body == b"a"
    second = served(lambda: download).finish()
    assert not second.committed
    assert isinstance(second.error, AlreadyServed)


# ---------------------------------------------------------------- how it may be kept


def test_a_download_may_be_kept_by_whoever_may_see_it(shaped: Serve):
    assert shaped(program, filename="a.csv").finish().header("Cache-Control") == DEFAULT


def test_the_apps_own_cache_control_wins(wrapped: Downloads):
    answer = wrapped(lambda: send_stream(["a"], "a.csv"), options={"cache_control": "no-store"}).finish()
    assert answer.header("Cache-Control") == "no-store"


def test_an_app_that_wants_no_cache_control_gets_none(wrapped: Downloads):
    answer = wrapped(lambda: send_stream(["a"], "a.csv"), options={"cache_control": None}).finish()
    assert answer.header("Cache-Control") is None


def test_other_options_of_the_app_leave_the_default_of_downloads(wrapped: Downloads):
    answer = wrapped(lambda: send_stream(["a"], "a.csv"), options={"headers": {"X-App": "1"}}).finish()
    assert (answer.header("Cache-Control"), answer.header("X-App")) == (DEFAULT, "1")


def test_the_responses_own_cache_control_wins_as_an_option_and_as_a_header(served: Downloads):
    optional = served(lambda: send_stream(["a"], "a.csv", options={"cache_control": "public"})).finish()
    assert optional.header("Cache-Control") == "public"
    headed = served(lambda: send_stream(["a"], "a.csv", headers={"Cache-Control": "max-age=60"})).finish()
    assert headed.header("Cache-Control") == "max-age=60"


@pytest.mark.parametrize("app_wide", [Options(), Options(heartbeat=5), Options(cache_control="no-store")])
@pytest.mark.parametrize("filename", ["a.csv", "a.html"])
def test_downloads_under_the_same_options_share_theirs(app_wide: Options, filename: str):
    first, second = (send_stream([b"a"], filename).options_over(app_wide) for _ in range(2))
    assert first == second
    assert first.on_failure == "abort"
    assert first is second or "html" in filename  # a page's completion is a mapping of its own


def test_a_range_of_what_is_generated_is_refused(served: Downloads):
    answer = served(lambda: send_stream(["abc"], "a.csv"), sent=[("Range", "bytes=1-")]).finish()
    assert (answer.status, answer.body) == (200, b"abc")
    assert answer.header("Accept-Ranges") == "none"


# ---------------------------------------------------------------- how it ends


def test_x15_an_error_before_the_first_byte_is_a_real_error(shaped: Serve):
    def broken() -> Any:
        raise Boom
        yield

    answer = shaped(broken, filename="a.csv").finish()
    assert not answer.committed
    assert isinstance(answer.error, Boom)


def test_an_error_after_it_cuts_the_connection_and_adds_nothing(shaped: Serve):
    answer = shaped(failing, filename="a.csv").finish()
    assert answer.body == b"half,"
    assert is_cut(answer)


@pytest.mark.parametrize("filename", ["a.csv", "a.html", "a.jsonl", "a"])
def test_an_app_that_ends_failed_streams_cleanly_does_not_end_a_download_so(
    wrapped: Downloads, filename: str
):
    answer = wrapped(lambda: send_stream(failing(), filename), options={"on_failure": "finish"}).finish()
    assert answer.body.startswith(b"half,")
    assert is_cut(answer)


def test_a_download_whose_own_options_say_so_ends_cleanly(served: Downloads):
    own = {"on_failure": "finish", "completion": {"text/csv": "# incomplete\n"}}
    answer = served(lambda: send_stream(failing(), "a.csv", options=own)).finish()
    assert (answer.body, answer.complete) == (b"half,# incomplete\n", True)


def test_an_apps_completion_for_the_media_type_is_sent_before_the_cut(wrapped: Downloads):
    app_wide = {"completion": {"text/csv": "# incomplete\n"}}
    answer = wrapped(lambda: send_stream(failing(), "a.csv"), options=app_wide).finish()
    assert answer.body == b"half,# incomplete\n"
    assert is_cut(answer)


@pytest.mark.parametrize("options", [{}, {"completion": {"text/html": "<p>Sorry"}}])
def test_a_page_that_is_saved_gets_no_markup_of_an_error_page(wrapped: Downloads, options: Any):
    answer = wrapped(lambda: send_stream(failing(), "page.html"), options=options).finish()
    assert answer.body == b"half,"
    assert is_cut(answer)


def test_a_download_that_is_shorter_than_it_said_is_cut(served: Downloads):
    answer = served(lambda: send_stream([b"abc"], "a.bin", content_length=5)).finish()
    assert answer.header("Content-Length") == "5"
    assert is_cut(answer, BodyTooShort)


def test_head_gets_the_head_and_the_producer_does_not_run(shaped: Serve):
    def never() -> Any:
        pytest.fail("the producer ran for HEAD")
        yield

    answer = shaped(never, method="HEAD", filename="a.csv", content_length=7).finish()
    assert (answer.status, answer.body, answer.error) == (200, b"", None)
    assert answer.header("Content-Length") == "7"
    assert "a.csv" in (answer.header("Content-Disposition") or "")


@pytest.mark.parametrize("filename", ["a.csv", "a.jsonl"])
def test_http10_gets_a_download_whole_so_that_it_cannot_be_cut_unnoticed(served: Downloads, filename: str):
    answer = served(lambda: send_stream([b"abc", b"de"], filename), version="1.0").finish()
    assert (answer.body, answer.header("Content-Length")) == (b"abcde", "5")
    failed = served(lambda: send_stream(failing(), filename), version="1.0").finish()
    assert not failed.committed
    assert isinstance(failed.error, Boom)


def test_an_http10_client_that_closes_is_sent_what_is_made_unless_the_options_say_otherwise(
    served: Downloads,
):
    closing: Any = {"version": "1.0", "sent": [("Connection", "close")]}
    cut = served(lambda: send_stream(failing(), "a.csv"), **closing).finish()
    assert (cut.committed, cut.header("Content-Length")) == (True, None)
    make = lambda: send_stream(failing(), "a.csv", options={"http10": "buffer"})  # noqa: E731
    failed = served(make, **closing).finish()
    assert not failed.committed
    assert isinstance(failed.error, Boom)


# ---------------------------------------------------------------- who is told


def test_r9_each_download_is_one_record_with_what_the_caller_gave(
    served: Downloads, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="streamkit"):
        served(lambda: send_stream(["a"], "a.csv", type="csv")).finish()
    records = [record for record in caplog.records if hasattr(record, "download")]
    assert [record.name for record in records] == ["streamkit"]
    assert records[0].download == {"filename": "a.csv", "disposition": "attachment", "type": "csv"}
    assert records[0].getMessage() == "download of 'a.csv' (attachment)"


def test_a_download_that_is_not_served_is_no_record(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="streamkit"):
        send_stream(["a"], "a.csv")
    assert not caplog.records


@pytest.mark.parametrize("way", [csv_rows, json_lines])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_rows_that_are_not_read_are_closed_before_the_request_is_over(way: Any, wrapped: bool):
    seen: list[str] = []

    class Rows:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            raise AssertionError("nobody reads them")

        async def aclose(self) -> None:
            await asyncio.sleep(0)  # as a cursor, which has something to say to its database
            seen.append("closed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await way(Rows(), "a", callback=lambda: seen.append("callback"))(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        served: Any = streamkit.wrap(app, kind="asgi") if wrapped else app
        await asyncio.wait_for(served(scope_of("HEAD"), asyncio.Event().wait, send), PATIENCE)
        seen.append("over")

    asyncio.run(main())
    assert seen == ["closed", "callback", "over"]
