"""Threads beside an application that writes to its own request's stream: X2, X3 and D15 of the scenarios.

Rule: test_properties.py says it of descriptions; here it is said of the stream of the environ or the scope.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import pytest
from driving import PATIENCE, until
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import WITH_STREAM, Run, Shape, serving

from streamkit.errors import StreamError

OWN = [shape for shape in WITH_STREAM if not shape.described]
ACTS = st.lists(st.sampled_from(["write", "write", "flush", "close", "abort"]), max_size=5)
one_shape = contextmanager(serving)


def act_on(stream: Any, acts: list[str]) -> None:
    for act in acts:
        try:
            stream.write(b"x" * 40) if act == "write" else getattr(stream, act)()
        except StreamError:
            pass  # closed, aborted or left by somebody else: what matters is that it came back


@pytest.mark.parametrize("shape", OWN, ids=str)
@settings(max_examples=30, deadline=None)
@given(acts=st.lists(ACTS, min_size=1, max_size=3), reads=st.integers(0, 3), leaves=st.booleans())
def test_threads_beside_an_application_that_writes_never_wait_for_each_other(
    shape: Shape, acts: list[list[str]], reads: int, leaves: bool
) -> None:
    streams: list[Any] = []
    outcomes: list[object] = []
    made, done = threading.Event(), threading.Event()

    def program(stream: Any) -> Run:
        stream.on_finish(lambda stream: outcomes.append(stream.outcome))
        streams.append(stream.sync if shape.awaits else stream)
        made.set()
        try:
            yield "first"
        except StreamError:
            pass  # another thread was faster
        assert done.wait(PATIENCE)

    with one_shape(shape) as serve:
        answer = serve(program, window=0)
        assert made.wait(PATIENCE)
        threads = [threading.Thread(target=act_on, args=(streams[0], each), daemon=True) for each in acts]
        for thread in threads:
            thread.start()
        readers = [threading.Thread(target=answer.read, daemon=True) for _ in range(reads)]
        for reader in readers:
            reader.start()
        if leaves:
            answer.leave()
        done.set()
        answer.finish()
        for thread in (*threads, *readers):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a call never came back"
        assert until(lambda: outcomes)
        assert len(outcomes) == 1
        assert outcomes[0] in ("finished", "aborted", "disconnected", "failed")
        assert len(answer.starts) <= 1
        if outcomes[0] in ("aborted", "failed"):
            assert not answer.complete, "what was cut short is not taken for whole"
        if outcomes[0] == "finished" and not leaves:
            assert (answer.complete, answer.error) == (True, None)
        assert len(answer.body.replace(b"first", b"")) % 40 == 0, "no chunk is torn"
