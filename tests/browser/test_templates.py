"""What a browser makes of a template that is sent piece by piece: what it fetches, paints and puts in place.

Rule: a slow part of a page waits for what the browser must have done before; a page that was held back
cannot come to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers.launch import poll

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("jinja2", reason="Jinja2 is not installed")

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.remote.webdriver import WebDriver
from templates_site import POLICY, Site, served

pytestmark = [pytest.mark.server, pytest.mark.system]

BOUND = 30.0  # seconds that a test waits for what it expects to see
KINDS = ["WSGI", "ASGI", "async"]  # the last with an asynchronous environment
BLOCKS = ["Sellers", "Reviews", "Concerts"]


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Any]) -> Iterator[WebDriver]:
    """One that does not wait for the end of a page."""
    with chromium(logs=True, waits=False) as driver:
        yield driver


@pytest.fixture(scope="module")
def scriptless(chromium: Callable[..., Any]) -> Iterator[WebDriver]:
    with chromium(scripts=False, waits=False) as driver:
        yield driver


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with served(request.param) as site:
        yield site


def shown(browser: WebDriver, name: str) -> bool:
    """Whether a person sees the element with this id."""
    try:
        found = browser.find_elements("id", name)
        return bool(found) and found[0].is_displayed()
    except WebDriverException:  # between two pages, or replaced between the two questions
        return False


def wait_for(browser: WebDriver, name: str) -> None:
    poll(lambda: shown(browser, name), bound=BOUND, what=f"#{name}")


def test_the_style_sheet_is_asked_for_before_the_content_is_rendered(browser: WebDriver, site: Site) -> None:
    site.gates["late"] = site.gates["style"]  # opened by whoever asks for the style sheet
    browser.get(f"{site.address}/late")
    wait_for(browser, "late")
    assert [note for note in site.notes if note != "/favicon.ico"] == ["/late", "/style.css", "late"]


def test_the_page_is_painted_before_a_slow_query_has_ended(browser: WebDriver, site: Site) -> None:
    browser.get(f"{site.address}/late")
    poll(lambda: painted(browser), bound=BOUND, what="a first paint")
    assert "late" not in site.notes
    assert not shown(browser, "late")
    site.open("late")
    wait_for(browser, "late")


def painted(browser: WebDriver) -> bool:
    names = "return performance.getEntriesByType('paint').map(entry => entry.name)"
    at = "return location.pathname"
    return browser.execute_script(at) == "/late" and "first-contentful-paint" in browser.execute_script(names)


@pytest.mark.parametrize("order", [["Concerts", "Sellers", "Reviews"], ["Reviews", "Concerts", "Sellers"]])
def test_deferred_blocks_appear_in_the_order_in_which_they_are_ready(
    browser: WebDriver, site: Site, order: list[str]
) -> None:
    browser.get(f"{site.address}/deferred")
    wait_for(browser, "after")  # the page goes on without them
    assert [shown(browser, f"waiting-{name}") for name in BLOCKS] == [True] * 3
    for number, name in enumerate(order):
        site.open(name)
        wait_for(browser, name)
        there = order[: number + 1]
        assert [shown(browser, block) for block in BLOCKS] == [block in there for block in BLOCKS]
        assert [shown(browser, f"waiting-{block}") for block in BLOCKS] == [
            block not in there for block in BLOCKS
        ]
    poll(
        lambda: browser.execute_script("return document.readyState") == "complete",
        bound=BOUND,
        what="the end",
    )
    left = "return document.querySelectorAll('sk-placeholder, template, body > script').length"
    assert browser.execute_script(left) == 0


def test_a_region_of_slots_needs_no_script(scriptless: WebDriver, site: Site) -> None:
    scriptless.get(f"{site.address}/slots")
    wait_for(scriptless, "text")
    for name in ["Concerts", "Sellers", "Reviews"]:
        assert not shown(scriptless, name)
        site.open(name)
        wait_for(scriptless, name)
    wait_for(scriptless, "after")


def test_without_scripts_a_page_that_fails_shows_the_way_to_the_error_page(
    scriptless: WebDriver, site: Site
) -> None:
    site.open("first")
    scriptless.get(f"{site.address}/fails")
    link = "a[href='/oops.html']"
    poll(lambda: scriptless.find_elements("css selector", link), bound=BOUND, what="the link")
    scriptless.find_element("css selector", link).click()
    wait_for(scriptless, "oops")


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_a_page_that_may_end_cleanly_is_led_on(scriptless: WebDriver, kind: str) -> None:
    with served(kind, on_failure="finish") as site:
        site.open("first")
        scriptless.get(f"{site.address}/fails")
        wait_for(scriptless, "oops")


def violations(browser: WebDriver) -> list[str]:
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if "Content Security Policy" in entry["message"]
    ]


def test_blocks_are_put_into_place_under_a_strict_policy_with_a_nonce(browser: WebDriver, site: Site) -> None:
    violations(browser)  # what was said before
    site.headers = {"Content-Security-Policy": POLICY}
    for name in BLOCKS:
        site.open(name)
    browser.get(f"{site.address}/deferred")
    for name in BLOCKS:
        wait_for(browser, name)
    assert violations(browser) == []


def test_without_its_nonce_the_policy_would_have_stopped_them(browser: WebDriver, site: Site) -> None:
    violations(browser)
    site.headers = {"Content-Security-Policy": "default-src 'none'; style-src 'self'"}
    site.open("Reviews")
    browser.get(f"{site.address}/deferred")
    poll(lambda: violations(browser), bound=BOUND, what="a violation")
    assert not shown(browser, "Reviews")


@pytest.mark.parametrize("policy", [None, POLICY], ids=["no policy", "a policy"])
@pytest.mark.parametrize("name", ["fails", "deferred-fails"])
def test_a_page_that_fails_ends_on_the_error_page(
    browser: WebDriver, site: Site, name: str, policy: str | None
) -> None:
    site.headers = {} if policy is None else {"Content-Security-Policy": policy}
    browser.get(f"{site.address}/{name}")
    if name == "fails":
        wait_for(browser, "text")
        site.open("first")
    wait_for(browser, "oops")
    assert browser.current_url == f"{site.address}/oops.html"
