"""The house: a room imports only what stands below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "streamkit"

# The floor of each room, by its path from the package; a folder's number holds for all in it.
FLOORS = {
    "errors.py": 0,
    "types.py": 1,
    "syntax.py": 1,
    "options": 2,
    "core": 3,
    "engines": 4,
    "sse.py": 4,
    "templates": 4,
    "downloads": 4,
    "unbuffer": 4,
    "wsgi": 5,
    "asgi": 5,
    "middleware.py": 6,
    "frameworks": 6,
    "doctor": 7,
    "__init__.py": 7,
    "demo": 8,
    "testing": 8,
    "cli.py": 9,
    "__main__.py": 10,
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imported(path: Path) -> set[str]:
    """The rooms of streamkit that this file imports when it runs."""
    rooms = set()
    tree = ast.parse(path.read_text())
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test):
            branch.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = path.relative_to(PACKAGE.parent).parent.parts[: -(node.level - 1) or None]
            target = [*package, *(node.module or "").split(".")] if node.module else list(package)
            for alias in node.names:
                rooms.add(place(target if len(target) > 1 else [*target, alias.name]))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "streamkit":
            rooms.add(place([*(node.module or "").split("."), node.names[0].name]))
        elif isinstance(node, ast.Import):
            rooms.update("__init__.py" for alias in node.names if alias.name.split(".")[0] == "streamkit")
    return rooms


def place(target: list[str]) -> str:
    name = target[1]
    if (PACKAGE / name).is_dir():
        return name
    return f"{name}.py" if (PACKAGE / f"{name}.py").exists() else "__init__.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_stands_below_it(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS, f"{room} stands on no floor: give it one"
    for other in imported(path):
        if other != room:
            assert FLOORS[other] < FLOORS[room], f"{path.name} ({room}) imports {other}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_knows_no_thread_no_loop_no_clock_and_no_log(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    assert not names & {"threading", "_thread", "asyncio", "time", "logging", "socket", "select", "queue"}


def test_the_face_needs_no_framework() -> None:
    others = ("flask", "django", "starlette", "fastapi", "jinja2", "greenlet", "redis", "uvicorn", "waitress")
    code = f"import streamkit, sys; print([name for name in {others!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
