"""What a framework's room says where its framework, or Jinja2, is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(blocked: str, code: str) -> str:
    """What this code prints where a package cannot be imported."""
    code = f"import sys; sys.modules[{blocked!r}] = None\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("package", "name"),
    [("flask", "Flask"), ("django", "Django"), ("starlette", "Starlette"), ("fastapi", "FastAPI")],
)
def test_a_room_says_what_to_install_where_its_framework_is_missing(package: str, name: str) -> None:
    code = f"try: import streamkit.frameworks.{package}\nexcept ImportError as error: print(error)"
    text = said(package, code)
    assert f"needs {name}: pip install 'streamkit-web[{package}]'" in text


@pytest.mark.parametrize("package", ["django", "starlette"])
def test_a_room_needs_no_jinja2_until_a_template_is_used(package: str) -> None:
    pytest.importorskip(package)
    code = (
        "import django.conf; django.conf.settings.configure()\n" if package == "django" else ""
    ) + f"from streamkit.frameworks.{package} import Templates, live, respond; print('imported')"
    assert said("jinja2", code).strip() == "imported"
