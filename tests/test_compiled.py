"""The compiled part: the same as the Python beside it, only faster; and nothing of it is lost or crashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import passing_judge
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamkit
from streamkit.engines.send import ScopeStream
from streamkit.engines.write import RequestStream

KEY = "streamkit.stream"
JUDGE = Path(passing_judge.__file__)


@pytest.fixture
def compiled(compiled_parts: Any) -> Any:
    return compiled_parts.REQUESTS


# ---------------------------------------------------------------- the same as in Python


@pytest.fixture(scope="module")
def python_only() -> Iterator[Callable[[Any], Any]]:
    """What comes of a case in a process without the compiled part."""
    with subprocess.Popen(
        [sys.executable, str(JUDGE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "STREAMKIT_PURE_PYTHON": "1"},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert json.loads(stdout.readline()) is True

        def ask(case: Any) -> Any:
            stdin.write(json.dumps(case) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield ask
        stdin.close()


TYPES = ("text/html; charset=utf-8", "application/json", "text/plain", "image/png", "text/event-stream")
FIELDS = st.one_of(
    st.tuples(st.sampled_from(("Content-Type", "content-type", "CONTENT-type")), st.sampled_from(TYPES)),
    st.tuples(st.sampled_from(("Content-Length", "content-length", "CONTENT-length")), st.just("2")),
    st.tuples(st.just("content-encoding"), st.sampled_from(("x-streamkit", "gzip", "gzip, x-streamkit"))),
    st.sampled_from(
        (("x-sixteen-letter", "1"), ("x-fourteen-let", "1"), ("x-twelve-let", "1"), ("ETag", '"1"'))
    ),
)
ODD = st.one_of(FIELDS, st.sampled_from(((), ("a",), ("a", "b", "c"), (1, "b"), ("content-type", None))))
TOUCHES = st.sampled_from((None, None, None, "hook", "commit hook", "abort"))
TYPED, SIZED = ("content-type", TYPES[0]), ("content-length", "2")
# What is most often sent, and what differs from it in one thing only.
NEAR = (
    [TYPED, SIZED],
    [TYPED],
    [("x-twelve-let", "1"), TYPED, SIZED],
    [("Content-type", "text/event-stream"), TYPED, SIZED],
    [TYPED, ("content-type", "text/event-stream"), SIZED],
    [("content-type", "text/event-stream"), SIZED],
    [("content-type", "text/event-stream")],
    [TYPED, ("x-fourteen-let", "1")],
    [TYPED, ("CONTENT-length", "2")],
    [TYPED, SIZED, ("content-encoding", "x-streamkit")],
    [TYPED, ("content-encoding", "x-streamkit")],
    [TYPED, (1, "b")],
    [TYPED, ()],
)


def heads(odd: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(ODD if odd else FIELDS, max_size=4)
    return st.fixed_dictionaries(
        {
            "head": st.one_of(st.sampled_from(NEAR), st.sampled_from(NEAR), lists),
            "holder": st.sampled_from(("list",) * 9 + ("own list", "tuple", "iterator", "none")),
            "pairs": st.sampled_from(("tuple",) * 5 + ("list",)),
        }
    )


CALLS = st.sampled_from(
    (
        ["plainly"],
        ["plainly"],
        ["with None"],
        ["by name"],
        [],
        ["plainly", "plainly"],
        ["plainly", "with exc_info"],
    )
)
WSGI_REQUESTS = st.builds(
    lambda head, rest: {**head, **rest},
    heads(odd=True),
    st.fixed_dictionaries(
        {
            "body": st.sampled_from(("list", "list", "page", "page", *passing_judge.BODIES)),
            "calls": CALLS,
            "touch": TOUCHES,
            "raises": st.sampled_from((False, False, False, True)),
            "own environ": st.booleans(),
            "twice": st.booleans(),
        }
    ),
)
STARTS = st.builds(
    lambda head, rest: {**(head or {}), **rest, "what": "http.response.start", "more": None},
    st.one_of(st.none(), heads(), heads(), heads()),
    st.fixed_dictionaries({"own dict": st.booleans(), "as task": st.booleans()}),
)
BODIES = st.fixed_dictionaries(
    {
        "what": st.just("http.response.body"),
        "more": st.sampled_from((None, None, False, True, 0, 1, "")),
        "own dict": st.booleans(),
        "as task": st.booleans(),
    }
)
OTHERS = st.fixed_dictionaries(
    {
        "what": st.sampled_from(
            ("http.response.pathsend", "http.response.early_hint", "no message", "no type")
        ),
        "more": st.none(),
        "own dict": st.just(False),
        "as task": st.just(False),
    }
)
MESSAGES = st.one_of(
    st.tuples(STARTS, BODIES).map(list),
    st.tuples(STARTS, BODIES, BODIES).map(list),
    st.lists(st.one_of(STARTS, BODIES, BODIES, OTHERS), max_size=4),
)
SERVERS = ("answers at once", "answers at once", "waits", "waits for a future", "has lost the client",
           "fails at first", "returns a task")  # fmt: skip
ASGI_REQUESTS = st.fixed_dictionaries(
    {
        "messages": MESSAGES,
        "touch": TOUCHES,
        "server": st.sampled_from(SERVERS),
        "raises": st.sampled_from((False, False, False, True)),
        "goes on": st.booleans(),
        "own scope": st.booleans(),
        "twice": st.booleans(),
    }
)


@pytest.mark.usefixtures("compiled")
@settings(max_examples=400)
@given(requests=st.lists(WSGI_REQUESTS, min_size=1, max_size=3))
def test_any_answers_become_what_they_become_without_the_compiled_part(
    python_only: Callable[[Any], Any], requests: list[Any]
) -> None:
    case = {"kind": "wsgi", "requests": requests}
    assert passing_judge.outcome(json.loads(json.dumps(case))) == python_only(case)


@pytest.mark.usefixtures("compiled")
@settings(max_examples=400)
@given(requests=st.lists(ASGI_REQUESTS, min_size=1, max_size=3))
def test_any_messages_become_what_they_become_without_the_compiled_part(
    python_only: Callable[[Any], Any], requests: list[Any]
) -> None:
    case = {"kind": "asgi", "requests": requests}
    assert passing_judge.outcome(json.loads(json.dumps(case))) == python_only(case)


def plain_request(kind: str, head: Any, body: str) -> dict[str, Any]:
    quiet = {"touch": None, "raises": False, "twice": False}
    told = {"head": head, "holder": "list", "pairs": "tuple"}
    if kind == "wsgi":
        return {**quiet, **told, "body": body, "calls": ["plainly"], "own environ": False}
    usual = {"own dict": False, "as task": False}
    start = {**told, **usual, "what": "http.response.start", "more": None}
    bodies = [{**usual, "what": "http.response.body", "more": more} for more in (None, True)]
    messages = {"whole": [start, bodies[0]], "in two": [start, bodies[1], bodies[0]], "head alone": [start]}[
        body
    ]
    return {**quiet, "messages": messages, "server": "answers at once", "goes on": False, "own scope": False}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("wsgi", "list", "list"),
        ("wsgi", "page", "page"),
        ("wsgi", "page", "none"),
        ("wsgi", "page", "iterator"),
        ("asgi", "whole", "whole"),
        ("asgi", "whole", "in two"),
        ("asgi", "in two", "head alone"),
    ],
)
def test_a_head_after_one_that_it_nearly_equals_is_no_other(
    python_only: Callable[[Any], Any], kind: str, first: str, second: str
) -> None:
    for before in NEAR:
        for head in NEAR:
            case = {
                "kind": kind,
                "requests": [plain_request(kind, before, first), plain_request(kind, head, second)],
            }
            assert passing_judge.outcome(json.loads(json.dumps(case))) == python_only(case)


# ---------------------------------------------------------------- misuse


def environ() -> dict[str, Any]:
    return dict(passing_judge.ENVIRON)


def start_response(status: Any, headers: Any, exc_info: Any = None) -> None:
    return None


@pytest.mark.parametrize("kind", [object, int, None, "text", ScopeStream])
def test_an_answer_of_another_class_is_refused(compiled: Any, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"wanted a subclass of .*PassingAnswer, got "):
        compiled.begin_answer(kind, streamkit.Options(), environ(), start_response)


@pytest.mark.parametrize("given", [(), (RequestStream,), (RequestStream, 1, 2, 3, 4)])
def test_a_wrong_number_of_arguments_is_refused(compiled: Any, given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=rf"wanted 4 arguments, got {len(given)}"):
        compiled.begin_answer(*given)
    with pytest.raises(TypeError, match=rf"wanted 5 arguments, got {len(given[:4])}"):
        compiled.begin_messages(*given[:4])


def test_a_stream_that_nobody_began_raises(compiled: Any) -> None:
    assert compiled is not None
    with pytest.raises(RuntimeError, match="made by its begin function"):
        RequestStream().start("200 OK", [])
    with pytest.raises(RuntimeError, match="made by its begin function"):
        RequestStream().is_like([], None, None)
    with pytest.raises(RuntimeError, match="made by its begin function"):
        ScopeStream().send({"type": "http.response.start"})


# ---------------------------------------------------------------- how it is installed


def test_without_the_compiled_part_all_is_python(tmp_path: Path) -> None:
    package = Path(streamkit.__file__).parent
    shutil.copytree(
        package, tmp_path / "streamkit", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    asked = "import streamkit.engines.compiled as one; print(one.REQUESTS, one.STREAMS, one.__file__)"
    alone = {name: value for name, value in os.environ.items() if name != "STREAMKIT_PURE_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**alone, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == f"None None {tmp_path / 'streamkit/engines/compiled.py'}\n"


def test_a_middleware_says_which_of_the_two_it_uses(compiled: Any) -> None:
    assert issubclass(RequestStream, compiled.PassingAnswer)
    assert issubclass(ScopeStream, compiled.PassingMessages)
    asked = "from streamkit.engines.compiled import REQUESTS, STREAMS; print(REQUESTS, STREAMS)"
    pure = {**os.environ, "STREAMKIT_PURE_PYTHON": "1"}
    done = subprocess.run([sys.executable, "-c", asked], env=pure, capture_output=True, text=True, check=True)
    assert done.stdout == "None None\n"
