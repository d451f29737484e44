"""Bodies that a server goes through from C, with nothing of Python below, as uWSGI and mod_wsgi do."""

from __future__ import annotations

import _thread
import threading
from collections import deque
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from driving import PATIENCE, until

import streamkit


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_body_needs_no_python_around_it(wrapped: bool) -> None:
    began = threading.Event()

    def producer(stream: Any) -> None:
        stream.write(b"one")
        assert began.wait(PATIENCE)
        stream.write(b" two")

    environ: dict[str, Any] = {"SERVER_PROTOCOL": "HTTP/1.1"}
    setup_testing_defaults(environ)
    app: Any = streamkit.stream(producer)
    if wrapped:
        app = streamkit.wrap(app, kind="wsgi")
    body = app(environ, lambda status, headers, exc_info=None: None)
    got: deque[bytes] = deque()
    _thread.start_new_thread(got.extend, (body,))  # what is raised there, no test would hear of
    assert until(lambda: got)
    began.set()
    assert until(lambda: b"".join(got) == b"one two")
    body.close()
