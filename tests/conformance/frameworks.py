"""The frameworks' own tests, with streamkit around every app, and how that differs from without.

    python -m tests.conformance.frameworks [starlette fastapi flask django]

Each framework's source distribution is downloaded from the package index, in the version that is
installed here, and its tests are run twice, without and with our middleware. Exit status 1: there is
a difference without a reason, or a reason without a difference.

Rule: nothing of theirs is copied into this repository, and nothing of theirs is changed but what hands
an app to a test client, in that run only (`wrapping`, `django_wrapping`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import distributions, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BOUND = 240.0  # seconds for one run, or one download

# What their tests import beside what ours do; in the versions that go with what is installed.
EXTRAS = [
    *("httpx2[zstd]>=2.0", "python-multipart", "itsdangerous", "jinja2", "pyyaml", "trio"),
    *("opentelemetry-sdk", "dirty-equals", "inline-snapshot"),
]

# Ours run on asyncio alone: on trio there is no loop for `streamkit.wrap` to find.
NOT_TRIO = ("-k", "not trio")

LATE_HEAD = (
    "The head of a stream that we do not know waits for its first chunk: an error until then is a real 500."
)
BREACH = "A breach of ASGI is ours to name before it reaches the server, in our own words."


@dataclass(frozen=True)
class Suite:
    """One framework's tests, and what is known of their differences: the reason by the test's name."""

    package: str
    tests: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)


_LATE = "tests/test_testclient.py::test_streaming_response_"
_BREACH = "tests/test_testclient.py::test_invalid_trailer_sequence"
_BROKEN = "tests/test_dependency_after_yield_streaming.py::test_broken_session_stream_no_raise"
SUITES = {
    suite.package: suite
    for suite in (
        Suite(
            "starlette",
            ("tests",),
            NOT_TRIO,
            {
                _LATE + "is_available_before_first_chunk[asyncio]": LATE_HEAD,
                _LATE + "skips_empty_and_head_bodies[asyncio-HEAD-chunk]": (
                    "An application that goes on after HEAD has its answer is told of a leave."
                ),
                _BREACH + "[asyncio-messages0-TestClient did not receive any response]": BREACH,
                _BREACH + "[asyncio-messages2-before body completed]": BREACH,
                _BREACH + "[asyncio-messages3-after body completed]": BREACH,
            },
        ),
        Suite(
            "fastapi",
            (
                *("tests/test_sse.py", "tests/test_stream_bare_type.py", "tests/test_stream_cancellation.py"),
                *("tests/test_stream_json_validation_error.py", "tests/test_stream_non_finite_floats.py"),
                *("tests/test_stream_status_code.py", "tests/test_dependency_after_yield_raise.py"),
                *("tests/test_dependency_after_yield_streaming.py", "tests/test_dependency_yield_scope.py"),
                *("tests/test_dependency_yield_except_httpexception.py", "tests/test_exception_handlers.py"),
                *("tests/test_dependency_contextmanager.py", "tests/test_custom_middleware_exception.py"),
                *("tests/test_tutorial/test_server_sent_events", "tests/test_tutorial/test_stream_data"),
                *("tests/test_tutorial/test_stream_json_lines", "tests/test_tutorial/test_custom_response"),
                *("tests/test_tutorial/test_background_tasks", "tests/test_tutorial/test_middleware"),
            ),
            NOT_TRIO,
            {_BROKEN: LATE_HEAD},
        ),
        Suite("flask", ("tests",)),
        Suite(
            "django",
            (
                *("asgi", "async", "builtin_server", "conditional_processing", "decorators", "handlers"),
                *("httpwrappers", "middleware", "middleware_exceptions", "responses", "sessions_tests"),
                *("signals", "test_client", "test_client_regress", "wsgi"),
            ),
            ("--parallel=1",),
            {
                "handlers.tests.AsyncHandlerRequestTests.test_sync_streaming": (
                    "Django warns that it reads an ordinary iterator whole under ASGI; with us it does not."
                ),
            },
        ),
    )
}


@dataclass(frozen=True)
class Difference:
    """What a test came to, without and with us."""

    test: str
    without: str
    wrapped: str
    reason: str | None


@dataclass(frozen=True)
class Result:
    """Both runs of one suite."""

    suite: Suite
    tests: int
    apps: int
    differences: list[Difference]

    @property
    def unexplained(self) -> list[Difference]:
        return [found for found in self.differences if found.reason is None]

    @property
    def outdated(self) -> list[str]:
        """Reasons for what no longer differs."""
        return sorted(set(self.suite.reasons) - {found.test for found in self.differences})


class NotToBeHad(Exception):
    """The package index could not be reached, or has no source distribution of this version."""


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BOUND)
    if ended.returncode:
        raise NotToBeHad(ended.stderr[-2000:])


def source_of(package: str, folder: Path) -> Path:
    """The unpacked source distribution of the version that is installed."""
    wanted = f"{package}=={version(package)}"
    _pip("download", "--no-deps", f"--no-binary={package}", f"--dest={folder}", wanted)
    (archive,) = folder.glob(f"{package}-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def extras(folder: Path) -> Path:
    """A folder with what the tests import besides; what is installed here keeps its version."""
    here = folder / "constraints.txt"
    names = {one.name: one.version for one in distributions() if one.name != "streamkit-web"}
    here.write_text("".join(f"{name}=={number}\n" for name, number in names.items()))
    target = folder / "extras"
    _pip("install", f"--target={target}", f"--constraint={here}", *EXTRAS)
    return target


def outcomes(suite: Suite, source: Path, path: Iterable[Path], *, wraps: bool) -> tuple[dict[str, str], int]:
    """What each test came to, and how many apps were wrapped."""
    notes = source.parent / f"{suite.package}-{wraps}.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "STREAMKIT_OUTCOMES": str(notes),
        "STREAMKIT_WRAPS": "yes" if wraps else "no",
    }
    run = _run_django if suite.package == "django" else _run_pytest
    found = run(suite, source, environment)
    noted = json.loads(notes.read_text()) if notes.exists() else {}
    return {**found, **noted.get("outcomes", {})}, noted.get("wrapped", 0)


def _run_pytest(suite: Suite, source: Path, environment: dict[str, str]) -> dict[str, str]:
    # Their own settings turn warnings into errors, of packages that they did not know yet.
    settings = source.parent / "pytest.ini"
    settings.write_text("[pytest]\nxfail_strict = true\n")
    command = [
        *(sys.executable, "-m", "pytest", "-q", f"--config-file={settings}", f"--rootdir={source}"),
        *("-p", "wrapping", "-p", "no:cacheprovider", *suite.arguments, *suite.tests),
    ]
    ended = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=BOUND
    )
    if ended.returncode not in (0, 1):  # "all passed", "some failed"
        raise RuntimeError(f"the tests of {suite.package} did not run:\n{ended.stdout[-4000:]}{ended.stderr}")
    return {}


def _run_django(suite: Suite, source: Path, environment: dict[str, str]) -> dict[str, str]:
    command = [
        *(sys.executable, "runtests.py", "--settings=django_wrapping", "--verbosity=2"),
        *(*suite.arguments, *suite.tests),
    ]
    ended = subprocess.run(
        command, cwd=source / "tests", env=environment, capture_output=True, text=True, timeout=BOUND
    )
    said = ended.stdout + ended.stderr
    if not re.search(r"^Ran \d+ tests", said, re.MULTILINE):
        raise RuntimeError(f"the tests of Django did not run:\n{said[-4000:]}")
    names = re.findall(r"^\w+ \(([\w.]+)\)", said, re.MULTILINE)
    failed = set(re.findall(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)\)", said, re.MULTILINE))
    return {name: "failed" if name in failed else "passed" for name in [*names, *failed]}


def compare(suite: Suite, folder: Path, more: Path) -> Result:
    """Run one suite both ways."""
    source = source_of(suite.package, folder)
    path = [HERE, ROOT, more]
    without, _ = outcomes(suite, source, path, wraps=False)
    wrapped, apps = outcomes(suite, source, path, wraps=True)
    differences = [
        Difference(test, before, after, suite.reasons.get(test))
        for test in sorted({*without, *wrapped})
        if (before := without.get(test, "not run")) != (after := wrapped.get(test, "not run"))
    ]
    return Result(suite, len(wrapped), apps, differences)


def shown(result: Result) -> str:
    """The result for people."""
    package = result.suite.package
    lines = [
        f"{package} {version(package)}: {result.tests} tests, {result.apps} apps or requests wrapped, "
        f"{len(result.differences)} differences"
    ]
    for found in result.differences:
        lines.append(f"  {found.test}: {found.without}, with us {found.wrapped}")
        lines.append(f"    {found.reason or 'NO REASON KNOWN'}")
    lines += [f"  {test} NO LONGER DIFFERS" for test in result.outdated]
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Compare these suites, or all."""
    faults = 0
    with tempfile.TemporaryDirectory(prefix="streamkit-conformance-") as made:
        folder = Path(made)
        more = extras(folder)
        for name in names or SUITES:
            result = compare(SUITES[name], folder, more)
            print(shown(result), flush=True)
            faults += len(result.unexplained) + len(result.outdated)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
