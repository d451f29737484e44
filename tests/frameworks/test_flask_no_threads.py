"""A Flask request whose producer outlives it, on a machine that has no thread left."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("flask")

from streamkit.frameworks import _flask_contexts


class NoThreads:
    def submit(self, job: Any) -> None:
        raise RuntimeError("can't start new thread")


def test_the_request_is_torn_down_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flask_contexts, "pool", NoThreads())
    errors: list[BaseException | None] = []
    fault = LookupError()
    producer = _flask_contexts.Producer(awaited=True)
    producer.__enter__()
    producer.after(errors.append, 0.0, here=False)  # the client has left, and the producer goes on
    assert errors == []
    producer.__exit__(LookupError, fault, None)
    assert errors == [fault]
