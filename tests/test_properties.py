"""What holds for any sequence of calls and any cut of the same body.

Rule: the rules of a stream are written out here once more, by hand, as `Rules`; a test that
asked the stream itself what is allowed would test nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE, Answer, until
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import FUNCTIONS, SHAPES, WITH_STREAM, Run, Shape, serving

from streamkit.errors import AlreadyCommitted, StreamClosed, StreamError

one_shape = contextmanager(serving)

Call = tuple[str, Any]
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.one_of(st.text(max_size=5), st.binary(max_size=5))),
        st.tuples(st.just("header"), st.sampled_from(["1", "2", "3"])),
        st.tuples(st.just("status"), st.sampled_from([200, 201, 404, 503])),
        st.tuples(st.sampled_from(["commit", "flush"]), st.none()),
        st.tuples(st.sampled_from(["close", "abort"]), st.none()),
    ),
    max_size=12,
)


class Rules:
    """What a response stream must do with each call, and what must have arrived in the end."""

    def __init__(self) -> None:
        self.committed = self.closed = self.aborted = False
        self.status, self.header = 200, None
        self.accepted = b""
        self.breaches: list[str] = []

    def note(self, call: Call, raised: BaseException | None) -> None:
        expected = self.expected(call)
        if expected is not None and type(raised) not in expected:
            self.breaches.append(f"{call}: wanted one of {expected}, got {raised!r}")
        if raised is None:
            self.advance(call)

    def expected(self, call: Call) -> set[type] | None:
        """The exceptions that may come, `NoneType` for none; None where all is right."""
        name, _ = call
        if name in ("header", "status"):
            if self.aborted and not self.committed:
                return None  # nothing will be sent, so nothing is promised
            return {AlreadyCommitted} if self.committed else {type(None)}
        if self.closed and name == "write":
            return {StreamClosed}
        if self.closed and name in ("commit", "flush"):
            return {type(None), StreamClosed}
        return {type(None)}

    def advance(self, call: Call) -> None:
        name, value = call
        if name == "status":
            self.status = value
        elif name == "header":
            self.header = value
        elif name == "abort":
            self.aborted = self.aborted or not self.closed
            self.closed = True
        else:
            self.committed = self.committed or not self.aborted
            self.closed = self.closed or name == "close"
        if name == "write":
            self.accepted += value.encode() if isinstance(value, str) else value

    def judge(self, answer: Answer) -> None:
        assert self.breaches == []
        if self.aborted:
            assert self.accepted.startswith(answer.body)
            assert not answer.complete or not self.committed
        else:
            assert (answer.body, answer.complete, answer.error) == (self.accepted, True, None)
        if self.committed and answer.committed:
            assert (answer.status, answer.header("X-Own")) == (self.status, self.header)
        assert len(answer.starts) <= 1


def asked_of(stream: Any, call: Call) -> Any:
    name, value = call
    if name == "status":
        return lambda: setattr(stream, "status", value)
    if name == "header":
        return lambda: stream.headers.__setitem__("X-Own", value)
    return (lambda: stream.write(value)) if name == "write" else getattr(stream, name)


@pytest.mark.parametrize("shape", WITH_STREAM, ids=str)
@settings(max_examples=60, deadline=None)
@given(calls=CALLS)
def test_any_sequence_of_calls_keeps_the_rules_of_a_stream(shape: Shape, calls: list[Call]) -> None:
    rules = Rules()

    def program(stream: Any) -> Run:
        for call in calls:
            raised: BaseException | None = None
            try:
                yield asked_of(stream, call)
            except Exception as error:
                raised = error
            rules.note(call, raised)

    with one_shape(shape) as serve:
        answer = serve(program).finish()
        assert serve.ended()
        rules.judge(answer)


ACTS = st.lists(st.sampled_from(["write", "write", "flush", "close", "abort"]), max_size=6)


def act_on(stream: Any, acts: list[str]) -> None:
    for act in acts:
        try:
            stream.write(b"x" * 40) if act == "write" else getattr(stream, act)()
        except StreamError:
            pass  # closed, aborted or left by somebody else: what matters is that it came back


@pytest.mark.parametrize("shape", FUNCTIONS, ids=str)
@settings(max_examples=40, deadline=None)
@given(acts=st.lists(ACTS, min_size=2, max_size=4), reads=st.integers(0, 4), leaves=st.booleans())
def test_threads_that_write_close_abort_and_leave_never_wait_for_each_other(
    shape: Shape, acts: list[list[str]], reads: int, leaves: bool
) -> None:
    streams: list[Any] = []
    outcomes: list[object] = []
    made = threading.Event()

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        streams.append(stream.sync if shape.awaits else stream)
        made.set()
        yield "first"

    with one_shape(shape) as serve:
        answer = serve(program, keep_open=True, window=0, options={"high_water": 100})
        assert made.wait(PATIENCE)
        threads = [threading.Thread(target=act_on, args=(streams[0], each), daemon=True) for each in acts]
        for thread in threads:
            thread.start()
        for _ in range(reads):
            threading.Thread(target=answer.read, daemon=True).start()
        if leaves:
            answer.leave()
        act_on(streams[0], ["close"])  # an idle WSGI stream sees no leave: nobody would write to it again
        answer.finish()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a call never came back"
        assert until(lambda: outcomes)
        assert outcomes in (["finished"], ["aborted"], ["disconnected"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=8), small=st.booleans())
def test_any_cut_of_a_body_gives_the_same_body(
    shape: Shape, content: bytes, cuts: list[int], small: bool
) -> None:
    def program() -> Run:
        yield from pieces(content, cuts)

    with one_shape(shape) as serve:
        options = {"high_water": 10} if small else {}
        answer = serve(program, options=options, window=0 if small else 65536).finish()
        assert (answer.body, answer.complete, answer.error) == (content, True, None)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_text_cut_anywhere_arrives_as_the_bytes_of_the_whole(
    shape: Shape, text: str, cuts: list[int]
) -> None:
    def program() -> Run:
        yield from pieces(text, cuts)

    with one_shape(shape) as serve:
        assert serve(program).finish().body == text.encode()


def pieces(whole: Any, cuts: list[int]) -> Iterator[Any]:
    """`whole` in pieces, empty ones among them."""
    start = 0
    for end in sorted(cuts):
        yield whole[start:end]
        start = max(start, min(end, len(whole)))
    yield whole[start:]


def test_pieces_put_together_are_the_whole() -> None:
    assert b"".join(pieces(b"abcdef", [2, 2, 9, 4])) == b"abcdef"
    assert list(pieces("abc", [])) == ["abc"]
