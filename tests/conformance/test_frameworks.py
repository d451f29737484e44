"""The frameworks' own tests pass with streamkit around their apps, but for what has a reason.

Rule: see `frameworks`, which runs them; here is only what must come of it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from .frameworks import SUITES, NotToBeHad, compare, extras, shown

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module")
def more(folder: Path, pytestconfig: pytest.Config) -> Path:
    """What their tests need besides, from the package index."""
    try:
        return extras(folder)
    except NotToBeHad as error:
        if pytestconfig.getoption("--require-system"):
            raise
        pytest.skip(f"the package index was not to be had: {error}")


@pytest.mark.parametrize("package", SUITES)
def test_the_tests_of_a_framework_differ_only_where_that_has_a_reason(
    package: str, folder: Path, more: Path
) -> None:
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    result = compare(SUITES[package], folder, more)
    assert result.tests > 100
    assert result.apps > 100
    assert not result.unexplained, shown(result)
    assert not result.outdated, shown(result)
