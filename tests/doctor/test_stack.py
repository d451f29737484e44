"""An app that is loaded and asked in this process."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from streamkit.cli import main
from streamkit.doctor import CannotAsk, Diagnosis, Severity
from streamkit.doctor.stack import examine, examine_app, load
from streamkit.unbuffer.layers import name_of

from . import layers_asgi as asgi
from . import layers_wsgi as wsgi
from . import stacks

SITE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return iter([b"one", b"two", b"three"])


class Joins:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        return [b"".join(self.app(environ, start_response))]


held = Joins(app)


def create_app():
    return app


def broken():
    raise KeyError("no settings")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the working directory."""
    name = f"site_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield name
    sys.modules.pop(name, None)
    assert sys.path == before


def codes(diagnosis: Diagnosis, *severities: Severity) -> list[str]:
    wanted = severities or (Severity.FAULT, Severity.RISK)
    return [finding.code for finding in diagnosis.findings if finding.severity in wanted]


def faults(diagnosis: Diagnosis) -> list[tuple[str, str | None]]:
    """What is surely wrong, and whose fault: that the loop stood still may be a busy machine's."""
    found = [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT]
    return [(finding.code, finding.guilty) for finding in found]


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize("attribute", ["app", "create_app()"])
def test_an_app_is_found_in_the_working_directory_by_its_name_or_its_factory(
    site: str, attribute: str
) -> None:
    assert examine_app(f"{site}:{attribute}").status == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("{site}", "module:attribute"),
        ("{site}.py:app", r"without \.py, \w+:app, not"),
        ("nowhere_at_all:app", "there is no module 'nowhere_at_all'"),
        ("{site}:application", "the apps app, held"),
        ("{site}:broken()", "raised KeyError"),
        ("{site}:create_app", r"create_app\(\)"),
        ("{site}:__name__", "got"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_way_out(site: str, target: str, said: str) -> None:
    diagnosis = examine_app(target.format(site=site))
    assert diagnosis.status == 2
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(diagnosis.refusal)


def test_a_module_that_wants_what_is_not_installed_says_what(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "wants_more.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CannotAsk, match="not_installed_anywhere"):
        load("wants_more:app")


def test_the_command_names_the_guilty_layer_of_an_app_and_exits_with_1(site: str, capsys: Any) -> None:
    assert main(["doctor", f"{site}:held", "--path", "/", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["guilty"] for finding in found] == [f"{site}.Joins"]
    assert f"{site}.py:7" in found[0]["configured"]
    assert main(["doctor", f"{site}:app"]) == 0
    assert main(["doctor", f"{site}:nothing"]) == 2


# ---------------------------------------------------------------- what is asked


async def endless(request: Any) -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.001)

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def silent(request: Any) -> StreamingResponse:
    async def nothing() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "never"

    return StreamingResponse(nothing(), media_type="text/event-stream")


async def blocking(request: Any) -> StreamingResponse:
    async def slow() -> AsyncIterator[str]:
        for _ in range(4):
            yield "data: tick\n\n"
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 -- the fault that is to be found

    return StreamingResponse(slow(), media_type="text/event-stream")


async def plain(request: Any) -> PlainTextResponse:
    return PlainTextResponse("plain")


ROUTES = [
    Route("/endless", endless),
    Route("/silent", silent),
    Route("/blocking", blocking),
    Route("/plain", plain),
    Mount("/sub", routes=[Route("/page", asgi.starlette_view)], middleware=[Middleware(asgi.CollectsAll)]),
]


def site_with(*layers: Middleware) -> Starlette:
    return Starlette(routes=ROUTES, middleware=list(layers))


def test_an_endless_stream_is_left_when_enough_was_seen() -> None:
    assert examine(site_with(), "/endless").status == 0
    held = examine(site_with(Middleware(asgi.CollectsAll)), "/endless")
    assert faults(held) == [("layer-buffers", name_of(asgi.CollectsAll))]


def test_a_stream_that_says_nothing_in_time_cannot_be_asked() -> None:
    with pytest.raises(CannotAsk, match="sent no byte"):
        examine(site_with(), "/silent", seconds=0.5)


def test_a_path_that_is_not_there_cannot_be_asked() -> None:
    with pytest.raises(CannotAsk, match="status 404"):
        examine(site_with(), "/nowhere")


def test_a_view_that_gives_no_stream_is_said_to_and_its_layers_are_asked_all_the_same() -> None:
    innocent = examine(site_with(), "/plain")
    assert innocent.status == 0
    assert codes(innocent, Severity.NOTE) == ["no-stream"]
    assert "probe stream" in innocent.facts["asked"]
    guilty = examine(site_with(Middleware(asgi.CollectsAll)), "/plain")
    assert codes(guilty) == ["layer-buffers"]


def test_without_a_path_the_layers_are_asked_with_a_probe_stream() -> None:
    guilty = examine(site_with(Middleware(asgi.HoldsBlocks)))
    assert codes(guilty) == ["layer-holds"]


def test_a_layer_of_a_mounted_app_is_found_by_the_path_that_leads_there() -> None:
    app = site_with()
    assert faults(examine(app, "/sub/page")) == [("layer-buffers", name_of(asgi.CollectsAll))]
    assert examine(app, "/endless").status == 0


def test_a_view_that_blocks_the_loop_is_a_risk() -> None:
    diagnosis = examine(site_with(), "/blocking")
    assert codes(diagnosis) == ["producer-blocks"]
    assert diagnosis.status == 0


def test_two_guilty_layers_are_both_named_the_outer_one_first() -> None:
    app = wsgi.JoinsAll(wsgi.adds_a_header(wsgi.HoldsFourKilobytes(wsgi.drip)))
    names = [finding.guilty for finding in examine(app).findings]
    # What the inner one holds to the end, the outer one has no chance to hold.
    assert names == [name_of(wsgi.JoinsAll), name_of(wsgi.HoldsFourKilobytes)]


def test_the_lifespan_runs_around_the_request_and_its_state_is_there() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["pool"] = "open"
            await send({"type": "lifespan.startup.complete"})
            seen.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(scope["state"]["pool"])
        await asgi.async_drip(scope, receive, send)

    assert examine(app).status == 0
    assert seen == ["open", "lifespan.shutdown"]


def test_header_fields_go_with_the_request() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ.get("HTTP_AUTHORIZATION") != "Bearer x":
            start_response("401 Unauthorized", [])
            return []
        return wsgi.drip(environ, start_response)

    assert examine(app, "/", headers=[("Authorization", "Bearer x")]).status == 0
    with pytest.raises(CannotAsk, match="status 401"):
        examine(app, "/")


def test_an_app_that_hangs_is_left_behind_and_the_layer_named() -> None:
    app = asgi.AddsHeader(asgi.NeverEnds(asgi.AddsHeader(asgi.async_drip)))
    begun = time.monotonic()
    diagnosis = examine(app, "/", seconds=1.5)
    assert time.monotonic() - begun < 30
    assert faults(diagnosis) == [("layer-hangs", name_of(asgi.NeverEnds))]


def test_a_layer_that_withholds_the_head_is_a_risk_and_no_fault() -> None:
    class WaitsForTheFirstChunk(asgi.Around):
        start: Any = None

        async def passed(self, message: Any, send: Any) -> None:
            if message["type"] == "http.response.start":
                self.start = message
                return
            if self.start is not None:
                await send(self.start)
                self.start = None
            await send(message)

    diagnosis = examine(WaitsForTheFirstChunk(asgi.async_drip))
    assert codes(diagnosis) == ["layer-late-head"]
    assert diagnosis.status == 0


@pytest.mark.parametrize(
    ("family", "part"),
    [
        pytest.param(family, part, id=part.name.rpartition(".")[2])
        for family in stacks.FAMILIES
        for part in family[1]
        if not part.name.endswith("NeverEnds")
    ],
)
def test_each_guilty_layer_is_named_between_two_innocent_ones(family: Any, part: Any) -> None:
    make, _, good, path = family
    app, settings = make([good[0], part, good[-1]])
    with settings:
        found = examine(app, path).findings
    faults = [finding for finding in found if finding.severity is Severity.FAULT]
    assert [(finding.guilty or "").partition(" ")[0] for finding in faults] == [part.name]
    assert faults[0].configured
    assert faults[0].advice


class GzipsAtOnce:
    """As some old layers do: it changes the list of headers that it is given, and answers late."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        started: list[Any] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            headers.append(("Content-Encoding", "gzip"))
            started[:] = [status, headers]
            return lambda data: None

        body = gzip.compress(b"".join(self.app(environ, start)))
        start_response(*started)
        return [body]


def test_a_layer_that_changes_the_headers_it_was_given_is_named() -> None:
    found = examine(wsgi.adds_a_header(GzipsAtOnce(wsgi.drip))).findings
    assert [(finding.code, finding.guilty) for finding in found] == [
        ("layer-buffers", f"{__name__}.GzipsAtOnce")
    ]


def test_a_layer_that_starts_again_with_an_error_page_is_not_accused() -> None:
    def guards(app: Any) -> Any:
        def guarding(environ: Any, start_response: Any) -> Any:
            try:
                return app(environ, start_response)
            except KeyError:
                start_response("200 OK", [("Content-Type", "text/html")], sys.exc_info())
                return iter([b"one", b"two", b"three"])

        return guarding

    def fails_once_started(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/html")])
        raise KeyError("late")

    assert "layer-starts-twice" not in codes(examine(wsgi.adds_a_header(guards(fails_once_started))))


# ---------------------------------------------------------------- threads


def test_a_layer_that_reads_ahead_on_a_thread_of_its_own_is_not_accused() -> None:
    def reads_ahead(app: Any) -> Any:
        def reading(environ: Any, start_response: Any) -> Any:
            body = app(environ, start_response)
            return handed_over(body)

        return reading

    assert examine(wsgi.adds_a_header(reads_ahead(wsgi.drip))).status == 0


def handed_over(body: Any) -> Iterator[bytes]:
    """The body, read on another thread, with room for all of it on the way."""
    import queue

    chunks: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        for chunk in body:
            chunks.put(chunk)
        chunks.put(None)

    thread = threading.Thread(target=read)
    thread.start()
    while (chunk := chunks.get(timeout=30)) is not None:
        yield chunk
    thread.join()


# ---------------------------------------------------------------- all as it was


def shape(app: Any) -> Callable[[], list[Any]]:
    """Every object in the tree of an app, by identity, and its class."""
    from streamkit.unbuffer.layers import tree

    def found() -> list[Any]:
        return [(layer.full_path, id(layer.object), type(layer.object)) for layer in tree(app).walk()]

    return found


@pytest.mark.parametrize("family", stacks.FAMILIES, ids=lambda family: family[0].__name__)
def test_an_app_is_left_as_it_was_found(family: Any) -> None:
    make, bad, good, path = family
    app, settings = make([good[0], bad[0], good[1]])
    look = shape(app)
    before, names = look(), dict(vars(app)) if hasattr(app, "__dict__") else {}
    with settings:
        examine(app, path)
        assert look() == before
        assert not {"dispatch_request"} & (set(vars(app)) - set(names))
        with pytest.raises(CannotAsk):
            examine(app, "/nowhere", headers=[("X-Answer", "404")], seconds=5) if path else load("no-app")
    assert look() == before


def test_a_layer_whose_inner_app_cannot_be_replaced_is_probed_where_it_stands() -> None:
    class Sealed:
        """Lets nobody set its attributes."""

        def __init__(self, app: Any) -> None:
            object.__setattr__(self, "app", app)

        def __setattr__(self, name: str, value: Any) -> None:
            raise TypeError("sealed")

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.app(environ, start_response)

    inner = wsgi.JoinsAll(wsgi.drip)
    app = Sealed(inner)
    assert [finding.guilty for finding in examine(app).findings] == [name_of(wsgi.JoinsAll)]
    assert app.app is inner
    assert type(inner) is wsgi.JoinsAll


def test_the_working_directory_is_on_the_path_only_while_the_app_is_asked(site: str) -> None:
    before = list(sys.path)
    examine_app(f"{site}:app")
    assert sys.path == before
    assert os.getcwd() not in sys.path
