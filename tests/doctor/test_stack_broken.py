"""An app in this process whose stream breaks off, or that fails before its first byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import streamkit
from streamkit.doctor import CannotAsk, Diagnosis, Finding, Severity
from streamkit.doctor.show import as_text
from streamkit.doctor.stack import examine
from streamkit.unbuffer.layers import name_of

from . import layers_wsgi as wsgi

HERE = __name__
ERROR = "the database went away"


def rows(stream: Any) -> None:
    stream.write("id,name\n1,Ada\n")
    raise RuntimeError(ERROR)


def more_rows(stream: Any) -> None:
    for number in range(4):
        stream.write(f"{number},Ada\n")
        stream.flush()
    raise RuntimeError(ERROR)


async def async_rows(stream: Any) -> None:
    await stream.write("id,name\n1,Ada\n")
    raise RuntimeError(ERROR)


def no_rows(stream: Any) -> None:
    raise RuntimeError(ERROR)


def one_row(stream: Any) -> None:
    stream.write("id,name\n1,Ada\n")


def rows_of_a_generator() -> Iterator[str]:
    yield "id,name\n"
    raise RuntimeError(ERROR)


def csv_of(producer: Any, kind: str) -> Any:
    return streamkit.wrap(streamkit.stream(producer, content_type="text/csv"), kind=kind)


def faults(diagnosis: Diagnosis) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT]


def verdict_of(diagnosis: Diagnosis) -> str:
    return as_text(diagnosis).splitlines()[-1]


BREAKS: list[tuple[Callable[..., Any], str]] = [
    (rows, "wsgi"), (more_rows, "wsgi"), (rows, "asgi"), (more_rows, "asgi"), (async_rows, "asgi"),
]  # fmt: skip


@pytest.mark.parametrize(("producer", "kind"), BREAKS)
def test_a_stream_that_breaks_off_is_a_fault_and_its_layers_are_asked_all_the_same(
    producer: Callable[..., Any], kind: str
) -> None:
    diagnosis = examine(csv_of(producer, kind))
    (fault,) = faults(diagnosis)
    named = f"{name_of(producer)} (streamkit.core.response.StreamingResponse)"
    assert (fault.code, fault.guilty, diagnosis.status) == ("broken-end", named, 1)
    assert f"it raised RuntimeError: {ERROR}" in fault.sentence
    assert f"{__file__}:" in (fault.configured or "")
    assert diagnosis.facts == {"asked": f"a probe stream in the place of {named}"}
    assert diagnosis.layers == (f"streamkit.{kind}.middleware.StreamingMiddleware", named)
    assert verdict_of(diagnosis) == "It arrives, and does not end as it should."
    assert "no-stream" not in [finding.code for finding in diagnosis.findings]
    assert "complete" not in fault.sentence


@pytest.mark.parametrize(("producer", "kind"), BREAKS)
def test_a_path_that_was_asked_for_and_raises_cannot_be_asked(
    producer: Callable[..., Any], kind: str
) -> None:
    with pytest.raises(CannotAsk, match=f"^/ raised RuntimeError: {ERROR}$"):
        examine(csv_of(producer, kind), "/")


def test_a_generator_that_breaks_off_is_named_and_placed() -> None:
    (fault,) = faults(examine(csv_of(rows_of_a_generator(), "wsgi")))
    assert (fault.guilty or "").startswith("rows_of_a_generator (")
    assert f"{__file__}:{rows_of_a_generator.__code__.co_firstlineno}" in (fault.configured or "")


def test_an_app_without_a_wrap_that_breaks_off_is_a_fault() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/csv")])
        return (row.encode() for row in rows_of_a_generator())

    diagnosis = examine(app)
    assert [(fault.code, fault.guilty) for fault in faults(diagnosis)] == [("broken-end", name_of(app))]
    assert diagnosis.facts["asked"] == f"a probe stream in the place of the whole app, {name_of(app)}"


def test_a_layer_that_holds_a_stream_which_breaks_off_is_named_as_well() -> None:
    diagnosis = examine(wsgi.JoinsAll(csv_of(more_rows, "wsgi")))
    assert [fault.code for fault in faults(diagnosis)] == ["broken-end", "layer-buffers"]
    assert verdict_of(diagnosis) == "It does not arrive as it is made."


def test_a_stream_that_breaks_off_is_told_also_where_no_probe_stream_comes_through() -> None:
    inner = csv_of(rows, "wsgi")
    asked: list[str] = []

    def once(environ: Any, start_response: Any) -> Any:
        asked.append(environ["PATH_INFO"])
        if len(asked) == 1:
            return inner(environ, start_response)
        start_response("404 Not Found", [])
        return []

    diagnosis = examine(once)
    assert asked == ["/", "/"]
    assert [fault.code for fault in faults(diagnosis)] == ["broken-end"]
    assert diagnosis.facts == {"asked": "what answers /"}


def test_an_app_that_fails_before_its_first_byte_is_said_to_have_raised() -> None:
    diagnosis = examine(csv_of(no_rows, "wsgi"))
    (note,) = diagnosis.findings
    assert (note.severity, diagnosis.status) == (Severity.NOTE, 0)
    assert note.sentence.startswith(f"/ raised RuntimeError: {ERROR}; a probe stream took the place of ")


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_stream_in_one_chunk_is_not_called_a_complete_body(kind: str) -> None:
    diagnosis = examine(csv_of(one_row, kind))
    (note,) = diagnosis.findings
    assert (note.code, note.severity, diagnosis.status) == ("too-fast", Severity.NOTE, 0)
    assert "a stream that was over in one chunk" in note.sentence


def test_a_page_is_still_called_a_complete_body() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<p>whole"]

    (note,) = examine(streamkit.wrap(app)).findings
    assert note.code == "no-stream"
    assert f"{name_of(app)} answers / with a complete body (status 200), no stream" in note.sentence


@pytest.mark.server
def test_a_stream_that_breaks_off_is_told_once_when_it_is_served_too() -> None:
    pytest.importorskip("waitress")
    from streamkit.doctor.stack import examine_app

    diagnosis = examine_app("tests.doctor.test_stack_broken:served", server="waitress", seconds=5)
    assert [fault.code for fault in faults(diagnosis)] == ["broken-end"]
    assert diagnosis.facts["served by"] == "waitress"


served = csv_of(rows, "wsgi")
