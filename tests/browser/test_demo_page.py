"""The demo's page in a real browser, on both servers.

Rule: each test looks at what a person would see; how the bytes came is `test_demo.py`'s business.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from servers import launch
from servers.launch import running

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [pytest.mark.server, pytest.mark.system]

BOUND = 30  # seconds that a test waits for what it expects to see


def command(more: list[str], port: int) -> list[str]:
    return [sys.executable, "-m", "streamkit", "demo", f"--port={port}", *more]


@pytest.fixture(scope="module", params=["ASGI", "WSGI"])
def page(
    request: pytest.FixtureRequest, browser: WebDriver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    more = ["--wsgi"] if request.param == "WSGI" else []
    log = tmp_path_factory.mktemp("demo") / "log"

    with running(partial(command, more), log) as (port, _):
        yield Page(browser, f"http://127.0.0.1:{port}/", request.param, log)
        browser.get("about:blank")


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: WebDriver, address: str, kind: str, log: Path) -> None:
        self.browser, self.address, self.kind, self.log = browser, address, kind, log

    def open(self, path: str = "") -> None:
        self.browser.get(self.address + path)

    def click(self, name: str) -> None:
        self.browser.find_element("id", name).click()

    def text(self, name: str) -> str:
        return self.browser.find_element("id", name).text

    def lines(self, name: str) -> list[str]:
        return [line.text for line in self.browser.find_elements("css selector", f"#{name} .text")]

    def wait(self, until: Callable[[], object], what: str) -> None:
        WebDriverWait(self.browser, BOUND, poll_frequency=0.05).until(lambda _: until(), what)

    def wait_for(self, name: str, words: str) -> None:
        self.wait(lambda: words in self.text(name), f"{words!r} in #{name}")


def test_the_page_says_which_interface_serves_it(page: Page) -> None:
    page.open()
    assert page.text("kind") == page.kind


def test_ticks_appear_one_after_the_other_until_they_are_stopped(page: Page) -> None:
    page.open()
    page.click("ticks-start")
    counts: list[int] = []

    def three_are_there() -> bool:
        counts.append(len(page.lines("ticks-list")))
        return counts[-1] >= 3

    page.wait(three_are_there, "three ticks")
    # A look each 50 ms sees every number of lines, when a line comes each 500 ms.
    assert {1, 2, 3} <= set(counts)
    assert [line.split(",")[0] for line in page.lines("ticks-list")[:3]] == ["tick 1", "tick 2", "tick 3"]
    page.click("ticks-stop")
    page.wait_for("ticks-state", "Stopped by you")


def test_the_csv_reaches_all_of_its_rows_and_can_be_saved(page: Page) -> None:
    page.open()
    page.click("rows-start")
    page.wait_for("rows-state", "The file is complete")
    assert page.text("rows-count") == "100,000"
    progress = page.browser.find_element("id", "rows-progress")
    assert progress.get_property("value") == progress.get_property("max") == 100_000
    assert int(page.text("rows-pieces").replace(",", "")) > 1
    save = page.browser.find_element("id", "rows-save")
    assert save.is_displayed()
    assert (save.get_attribute("href") or "").startswith("blob:")


def test_a_stream_that_fails_is_said_to_be_cut(page: Page) -> None:
    page.open()
    page.click("fails-start")
    page.wait_for("fails-state", "The connection was cut: the response is incomplete")
    assert any("The report</h1>" in line for line in page.lines("fails-list"))
    assert any("March" in line for line in page.lines("fails-list"))


def test_records_that_fail_end_with_an_error_record(page: Page) -> None:
    page.open()
    page.click("records-start")
    page.wait_for("fails-state", "The connection was cut: the response is incomplete")
    assert page.lines("fails-list")[0] == '{"record": 1}'
    assert '"error"' in page.lines("fails-list")[-1]


def test_a_page_that_fails_leads_on_to_the_error_page(page: Page) -> None:
    page.open()
    page.click("frame-start")
    page.wait_for("frame-state", "led on to /500.html")
    page.browser.switch_to.frame("frame")
    try:
        assert "Something went wrong" in page.browser.find_element("tag name", "h1").text
    finally:
        page.browser.switch_to.default_content()


# Opens the failing page 24 times, six at once, and tells how many stay where they are.
OPEN_MANY = """
const done = arguments[0];
const stays = () => new Promise(resolve => {
  const frame = document.createElement("iframe");
  frame.src = "/fails";
  frame.onload = () => { if (frame.contentWindow.location.pathname === "/500.html") resolve(false); };
  setTimeout(() => resolve(true), 30000);
  document.body.append(frame);
});
(async () => {
  let stayed = 0;
  for (let round = 0; round < 4; round += 1) {
    document.body.replaceChildren();
    const outcomes = await Promise.all(Array.from({ length: 6 }, stays));
    stayed += outcomes.filter(outcome => outcome).length;
  }
  done(stayed);
})();
"""


@pytest.mark.slow
def test_the_way_to_the_error_page_is_never_lost_to_the_cut_behind_it(page: Page) -> None:
    page.browser.set_script_timeout(150)  # four times what each waits for at most
    page.browser.get(f"{page.address}500.html")
    assert page.browser.execute_async_script(OPEN_MANY) == 0


def drawn(page: Page, *lines: str) -> list[tuple[int, int]]:
    """From where to where each stroke of these lines goes, in the order of time."""
    # All in one script: between two of them the chart may have moved on.
    script = (
        "return arguments[0].map(line => document.getElementById(line).getAttribute('d') || '').join(' ')"
    )
    found = page.browser.execute_script(script, lines)
    strokes = re.findall(r"M(-?\d+) \S+L(-?\d+) ", found)
    return sorted((int(start), int(end)) for start, end in strokes)


def number(page: Page, name: str) -> int:
    return int(page.text(name).replace(",", ""))


def wait_for_events(page: Page, more: int) -> None:
    wanted = number(page, "events") + more
    page.wait(lambda: number(page, "events") >= wanted, f"{more} more events")


def test_the_page_leads_to_the_live_chart(page: Page) -> None:
    page.open()
    page.click("live-open")
    page.wait_for("state", "Live")
    assert page.text("kind") == page.kind


# Notes, at each change of the chart, how many strokes its line has.
COUNT_STROKES = """
const line = document.getElementById("line-live");
window.strokes = [];
new MutationObserver(() => strokes.push(line.getAttribute("d").split("M").length - 1))
  .observe(line, { attributes: true });
"""


def test_the_chart_grows_and_moves_with_each_event(page: Page) -> None:
    page.open("live")
    page.browser.execute_script(COUNT_STROKES)
    page.wait(lambda: len(page.browser.execute_script("return strokes")) >= 4, "four changes")
    strokes = page.browser.execute_script("return strokes")
    assert strokes == list(range(strokes[0], strokes[0] + len(strokes)))
    moving = page.browser.find_element("id", "moving")
    before = moving.get_attribute("transform")
    page.wait(lambda: moving.get_attribute("transform") != before, "a chart that moves")


@pytest.mark.parametrize("button", ["cut", "pause"])
def test_a_chart_whose_stream_was_ended_resumes_without_a_gap(page: Page, button: str) -> None:
    page.open("live")
    wait_for_events(page, 4)
    page.click(button)
    if button == "pause":
        page.wait_for("state", "Paused by you")
        time.sleep(1)  # what is to be missed must have its time
        page.click("pause")
    else:
        page.wait_for("state", "The connection was cut")
    page.wait_for("state", "have been replayed")
    wait_for_events(page, 4)
    assert number(page, "replayed") >= 3
    assert number(page, "lost") == 0
    assert len(drawn(page, "line-replayed")) == number(page, "replayed")
    assert_has_no_gap(page)


def assert_has_no_gap(page: Page) -> None:
    strokes = drawn(page, "line-live", "line-replayed")
    assert len(strokes) > 8
    assert [end for _, end in strokes[:-1]] == [start for start, _ in strokes[1:]]


@pytest.mark.parametrize("more", [[], ["--wsgi"]], ids=["ASGI", "WSGI"])
def test_the_chart_goes_on_without_a_gap_when_the_demo_was_started_again(
    more: list[str], browser: WebDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with running(partial(command, more), log) as (port, _):
        page = Page(browser, f"http://127.0.0.1:{port}/", "", log)
        page.open("live")
        wait_for_events(page, 4)
    page.wait_for("state", "The connection was cut")
    monkeypatch.setattr(launch, "free_port", lambda: port)
    with running(partial(command, more), log):
        page.wait_for("state", "have been replayed")
        wait_for_events(page, 4)
        assert number(page, "replayed") >= 3
        assert number(page, "lost") == 0
        assert_has_no_gap(page)
        browser.get("about:blank")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("path", ["", "live"])
def test_nothing_is_wider_than_the_window(page: Page, path: str, width: int) -> None:
    page.browser.set_window_size(width, 1000)
    try:
        page.open(path)
        sizes = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        content, window = page.browser.execute_script(sizes)
        assert content <= window
    finally:
        page.browser.set_window_size(1280, 1000)
