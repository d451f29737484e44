"""Two applications in one uWSGI process, each in an interpreter of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .launch import running
from .wire import fetch

pytestmark = pytest.mark.server

APP = """
import streamkit

def app(environ, start_response):
    if environ["PATH_INFO"].endswith("/stream"):
        for number in range(3):
            environ["streamkit.stream"].write(f"{number}\\n")
        return []
    if environ["PATH_INFO"].endswith("/described"):
        return streamkit.stream(lambda stream: stream.write(NAME))(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(NAME)))])
    return [NAME.encode()]

application = streamkit.wrap(app)
"""


def _uwsgi(directory: Path) -> Callable[[int], list[str]]:
    mounts = []
    for name in ("first", "second"):
        file = directory / f"{name}.py"
        file.write_text(f"NAME = {name!r}\n{APP}")
        mounts.append(f"--mount=/{name}={file}")
    return lambda port: [
        sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", f"--http-socket=127.0.0.1:{port}", *mounts,
        "--manage-script-name", "--master", "--need-app", "--die-on-term", "--threads=4",
        f"--virtualenv={sys.prefix}",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="pyuwsgi is installed on Linux only")
def test_each_application_of_a_process_streams(tmp_path: Path) -> None:
    log = tmp_path / "uwsgi.log"
    with running(_uwsgi(tmp_path), log) as (port, _):
        assert "multiple interpreter mode" in log.read_text()
        for _ in range(3):  # the first request of each sees to layers
            for name in ("first", "second"):
                assert fetch(port, f"/{name}/plain").body == name.encode()
                assert fetch(port, f"/{name}/described").body == name.encode()
                assert fetch(port, f"/{name}/stream").body == b"0\n1\n2\n"
    assert "Traceback" not in log.read_text()
