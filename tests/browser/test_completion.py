"""What Chromium makes of a page that was cut and completed: it goes to the error page.

Rule: the halves are those of `core/test_completion_cuts.py`, and those that html5lib cannot judge, because
it knows no `<template>` and runs no script.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from core.test_completion_cuts import BOTH, ELEMENTS, TOKENS
from servers.launch import poll

from streamkit import html_completion

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = [pytest.mark.server, pytest.mark.system]

BOUND = 20.0  # seconds until a page must have led on
TEMPLATES = {
    "a template": "<template><p>half",
    "a template's attribute": "<template id='half",
    "templates in templates": "<template><template><template><template><p>half",
    "a template in a select": "<select><option>a<template><p>half",
    "a select in a template": "<template><select><option>half",
    "a script in a template": "<template><script>half",
    "a row in a template": "<template><tr><td>half",
    "a template in a table": "<table><template><tr><td>half",
    "SVG in a template": "<template><svg><g>half",
    "a template in a foreign object": "<svg><foreignObject><template><p>half",
    "a template in the head": "<head><template><title>half",
    "a shadow root": "<div><template shadowrootmode=open><slot name=a>half",
    "a template in a shadow root": "<div><template shadowrootmode=open><template><p>half",
    "a comment in a shadow root": "<div><template shadowrootmode=open><!-- half",
    "a slot's content": "<div><template shadowrootmode=open><slot></slot></template><p slot=a>half",
    "a dialog": "<dialog><p>half",
    "a customizable select": "<select><button><selectedcontent>half",
}
# Each runs up to its half if it runs at all: what stands before it is whole.
SCRIPTS = [
    "fetch('/ran'); // then",
    "fetch('/ran'); /* then",
    "fetch('/ran'); <!-- then",
    "fetch('/ran')\n--> then",
    "fetch('/ran'); ",
    "fetch('/ran')",
    "fetch('/ran'); let x = 'th",
    'fetch("/ran"); let x = "th',
    "fetch('/ran'); let x = `th",
    "fetch('/ran'); let x = [[1, // two",
    "fetch('/ran'); let x = /th",
    "#!fetch('/ran')",
]
OUTER = ("SVG", "a row", "a select", "a noscript")
INNER = ("before a value", "a comment", "a script", "text of a script in a script's comment", "CDATA")
HALVES = {
    **BOTH,
    **TEMPLATES,
    **{f"{outer}, {inner}": ELEMENTS[outer] + TOKENS[inner] for outer in OUTER for inner in INNER},
    **{f"script {number}": f"<script>{script}" for number, script in enumerate(SCRIPTS)},
    **{f"module {number}": f"<script type=module>{script}" for number, script in enumerate(SCRIPTS)},
    **{f"script of SVG {number}": f"<svg><script>{script}" for number, script in enumerate(SCRIPTS)},
    "a script's half address": "<script src='/ran.j",
    "a script's half address, unquoted": "<script src=/ran.j",
    "a handler": "<img src=/none onerror=\"fetch('/ran'); // then",
    "a single-quoted handler": "<body onload='fetch(`/ran`); // then",
    "a base of another site": "<base href='http://127.0.0.1:9/'><p>half",
}  # fmt: skip
PATHS = list(HALVES)
OOPS = b"<!doctype html><title>oops</title><h1>Something went wrong</h1>"


class Site(ThreadingHTTPServer):
    """`/cut/N` is the N-th half, completed; `/page` whatever a test has put there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.page = ""
        self.policy = ""
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser leaves where it likes."""


class Answers(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, _, number = self.path[1:].partition("/")
        body, headers = OOPS, {}
        if kind == "cut":
            body = (HALVES[PATHS[int(number)]] + str(html_completion("/oops.html")(None, OSError()))).encode()
        elif kind == "page":
            body = self.server.page.encode()
            headers = {"Content-Security-Policy": self.server.policy} if self.server.policy else {}
        self.send_response(200)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """What was asked stands in `asked`."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


# Opens each half in a frame, six at a time, and tells which stayed where they were.
OPEN_ALL = """
const [count, bound, done] = arguments;
const stays = number => new Promise(resolve => {
  const frame = document.createElement("iframe");
  frame.onload = () => {
    if (frame.contentWindow.location.pathname === "/oops.html") { frame.remove(); resolve([]); }
  };
  setTimeout(() => { frame.remove(); resolve([number]); }, bound * 1000);
  frame.src = `/cut/${number}`;
  document.body.append(frame);
});
let next = 0;
const some = async () => {
  let stayed = [];
  while (next < count) stayed = stayed.concat(await stays(next++));
  return stayed;
};
Promise.all(Array.from({ length: 6 }, some)).then(lists => done(lists.flat()));
"""


def test_wherever_it_was_cut_a_page_leads_on_and_no_half_script_runs(browser: WebDriver, site: Site) -> None:
    browser.set_script_timeout(BOUND * 6)
    browser.get(site.address)
    stayed = browser.execute_async_script(OPEN_ALL, len(PATHS), BOUND)
    assert [PATHS[number] for number in stayed] == []
    assert {f"/cut/{number}" for number in range(len(PATHS))} <= set(site.asked)
    assert not [
        path for path in site.asked if path.startswith("/ran") and "|" not in path and "%7C" not in path
    ]


def leads_on(browser: WebDriver, site: Site, completion: Callable[..., Any], half: str = "<p>half") -> None:
    site.page = half + str(completion(None, OSError()))
    browser.get(f"{site.address}/page")
    poll(lambda: browser.current_url == f"{site.address}/oops.html", bound=BOUND, what="the error page")


def test_a_frameset_shows_the_error_page_in_its_next_frame(browser: WebDriver, site: Site) -> None:
    site.page = "<frameset cols='*,*'><frame src='/first'>" + str(
        html_completion("/oops.html")(None, OSError())
    )
    browser.get(f"{site.address}/page")
    shown = "return [...document.querySelectorAll('frame')].map(frame => frame.contentDocument.title)"
    poll(lambda: browser.execute_script(shown) == ["oops", "oops"], bound=BOUND, what="two frames")
    assert "/oops.html" in site.asked


def test_the_script_runs_under_a_policy_that_names_its_nonce(browser: WebDriver, site: Site) -> None:
    site.policy = "default-src 'none'; script-src 'nonce-bm9uY2U='"
    leads_on(browser, site, html_completion("/oops.html", nonce="bm9uY2U="))


def test_the_refresh_leads_on_where_a_policy_forbids_all_scripts(browser: WebDriver, site: Site) -> None:
    site.policy = "default-src 'none'"
    leads_on(browser, site, html_completion("/oops.html", script=False), '<p title="half')


def test_a_browser_without_scripts_is_led_on_by_the_refresh(chromium: Callable[..., Any], site: Site) -> None:
    with chromium(scripts=False) as browser:
        leads_on(
            browser, site, html_completion("/oops.html"), "<script>fetch('/ran')</script><noscript><p>half"
        )
        leads_on(browser, site, html_completion("/oops.html"), "<table><tr><td><textarea>half")
        leads_on(browser, site, html_completion("/oops.html", script=False), "<script>half")
    assert "/ran" not in site.asked
