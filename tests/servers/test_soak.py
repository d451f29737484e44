"""A short soak, or one of five minutes where STREAMKIT_NIGHTLY=1 is set; and what it calls a complaint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .soak import run
from .soak_app import KINDS, complaints

MINUTES = 5.0 if os.environ.get("STREAMKIT_NIGHTLY") == "1" else 0.25

MEANT = """\
[2026-01-01 10:00:00 +0000] [7] [INFO] Booting worker with pid: 7
[2026-01-01 10:00:01 +0000] [7] [ERROR] Error handling request /imperative/fail-before
Traceback (most recent call last):
  File "soak_app.py", line 1, in fail_before
ValueError: below

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "soak_app.py", line 2, in fail_before
tests.servers.soak_app.Boom: this endpoint fails on purpose
"""


@pytest.mark.server
@pytest.mark.system
@pytest.mark.slow
def test_mixed_streams_failures_and_restarts_leave_each_server_as_it_was(
    system_program: Callable[..., str], tmp_path: Path
) -> None:
    figures = run(MINUTES, list(KINDS), tmp_path, system_program("nginx"))
    assert {name: each["faults"] for name, each in figures.items()} == {name: [] for name in KINDS}
    for each in figures.values():
        assert each["restarts"]
        assert all(len(life["quiet"]) > 1 for life in each["lives"])


def test_a_failure_on_purpose_is_counted_and_is_no_complaint() -> None:
    meant, unexpected = complaints(MEANT + "INFO:     Shutting down\n")
    assert dict(meant) == {"failed on purpose": 1}
    assert unexpected == []


@pytest.mark.parametrize(
    "fault",
    [
        "Traceback (most recent call last):\n  File ...\nKeyError: 'bare, after a meant one'",
        "Exception in thread streamkit-clock:\nTraceback (most recent call last):\n  File ...\nKeyError: 1",
        "Exception ignored in: <generator>\nTraceback (most recent call last):\n  File ...\nKeyError: 1",
        "ERROR asyncio: Task exception was never retrieved\nfuture: <Task>",
        "WARNING streamkit: 1 streams are still open 3.5 s after their end",
        "ERROR:    Exception in ASGI application\n"
        "tests.servers.soak_app.Boom: this endpoint fails on purpose\n"
        "\nDuring handling of the above exception, another exception occurred:\n\nKeyError: 'at last'",
    ],
)
def test_any_other_error_or_warning_is_a_complaint(fault: str) -> None:
    meant, unexpected = complaints(f"{MEANT}{fault}\n{MEANT}")
    assert dict(meant) == {"failed on purpose": 2}
    assert unexpected == [fault]
