"""What every room of the tests shares.

Rule: only what more than one room needs. A program that is not a Python package is asked for by
`system_program`, so that what was left out for want of it is said at the end, and can be forbidden.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from streamkit.engines import compiled

# Debian keeps servers where an ordinary user's PATH does not lead.
SERVER_PACKAGES = ("granian", "gunicorn", "h2", "hypercorn")
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
MISSING: pytest.StashKey[set[str]] = pytest.StashKey()

# How long an example takes, or is made, says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-system",
        action="store_true",
        help="fail, instead of skipping, where nginx, Chromium or another program is missing",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MISSING] = set[str]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where servers are not installed their room is left out, and that is said; not where all is wanted."""
    if collection_path.name != "servers" or config.getoption("--require-system"):
        return None
    missing = {name for name in SERVER_PACKAGES if find_spec(name) is None}
    config.stash[MISSING].update(missing)
    return True if missing else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing: set[str] = config.stash[MISSING]
    if missing:
        terminalreporter.section("left out")
        terminalreporter.line(f"tests that need {', '.join(sorted(missing))}: not found on this machine")


@pytest.fixture(scope="session")
def system_program(pytestconfig: pytest.Config) -> Callable[..., str]:
    """Where a program is: `system_program("nginx")`; with several names, the first that is there.

    Skips the test where none is, or fails it under `--require-system`.
    """

    def find(*names: str) -> str:
        for name in names:
            found = shutil.which(name) or shutil.which(name, path=":".join(SBIN))
            if found:
                return found
        wanted = " or ".join(names)
        pytestconfig.stash[MISSING].add(wanted)
        if pytestconfig.getoption("--require-system"):
            pytest.fail(f"{wanted} is not installed, and --require-system was given", pytrace=False)
        pytest.skip(f"{wanted} is not installed")

    return find


@pytest.fixture
def compiled_parts(pytestconfig: pytest.Config) -> ModuleType:
    """Both of them; where they were not built the test is left out, unless everything is wanted."""
    if compiled.REQUESTS is None or compiled.STREAMS is None:
        is_meant = bool(os.environ.get("STREAMKIT_PURE_PYTHON"))
        if pytestconfig.getoption("--require-system") and not is_meant:
            pytest.fail("streamkit was installed without its compiled parts, and --require-system was given")
        pytest.skip("streamkit was installed without its compiled parts")
    return compiled
