"""streamkit without Jinja2."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = "import sys; sys.modules['jinja2'] = None\nimport streamkit\n"


def run(code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "use", ["streamkit.Templates(None)", "streamkit.chunked(None)", "streamkit.templates.Streaming"]
)
def test_what_needs_jinja_names_the_extra_to_install(use: str):
    said = run(f"try:\n    {use}\nexcept ImportError as error:\n    print(error)\n")
    assert "pip install 'streamkit-web[templates]'" in said


def test_the_face_is_importable():
    assert run("print(streamkit.templates.csp_nonce.get())") == "None\n"


def test_the_room_has_no_other_names():
    said = run("print(hasattr(streamkit.templates, 'Other'))")
    assert said == "False\n"
