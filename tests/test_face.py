"""The names that streamkit hands on."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import streamkit
from streamkit import errors


def test_every_listed_name_is_there_and_every_public_name_is_listed() -> None:
    assert len(set(streamkit.__all__)) == len(streamkit.__all__)
    for name in streamkit.__all__:
        assert hasattr(streamkit, name)
    public = {
        name
        for name, value in vars(streamkit).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public <= set(streamkit.__all__)


def test_every_error_is_on_the_face_and_in_one_tree() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.StreamKitError)
        assert getattr(streamkit, name) is error
        assert name in (errors.__doc__ or ""), f"{name} is missing from the tree at the top of errors.py"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("OptionsError", ValueError),
        ("HeaderError", ValueError),
        ("ProducerError", TypeError),
        ("UnsupportedData", TypeError),
        ("NotAnApplication", TypeError),
        ("StreamClosed", ValueError),
        ("ClientDisconnected", BrokenPipeError),
    ],
)
def test_errors_are_also_what_the_field_would_catch(name: str, kind: type[Exception]) -> None:
    assert issubclass(getattr(streamkit, name), kind)


def test_both_twins_have_the_same_public_names() -> None:
    def names(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    only_sync = names(streamkit.ResponseStream) - names(streamkit.AsyncResponseStream)
    assert only_sync == {
        "fileno", "read", "read1", "readinto", "readline", "readlines", "seek", "truncate",
    }  # fmt: skip
    assert names(streamkit.AsyncResponseStream) - names(streamkit.ResponseStream) == {"sync"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert streamkit.__version__ == version("streamkit-web")


def test_a_type_checker_accepts_the_public_names() -> None:
    pytest.importorskip("mypy")
    root = Path(__file__).parent.parent
    checked = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert checked.returncode == 0, checked.stdout
