"""The browser that every test here looks through: Chromium without a window, one for each file.

Rule: selenium is imported only when a browser is asked for, so that this room can be collected without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

BOUND = 30  # seconds that a page may take to load
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="session")
def chromium(
    system_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[WebDriver]]:
    """`with chromium() as driver`: a browser without a window, driven by us; it ends with the block.

    `logs` keeps what the page's console says, for `get_log("browser")`; without `scripts` no page runs any;
    without `waits` nobody waits until a page is loaded.
    """

    @contextmanager
    def opened(*, logs: bool = False, scripts: bool = True, waits: bool = True) -> Iterator[WebDriver]:
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = system_program("chromium", "google-chrome")
        for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(flag)
        if not waits:
            options.page_load_strategy = "none"
        if logs:
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        driver = webdriver.Chrome(options, Service(system_program("chromedriver")))
        try:
            driver.set_page_load_timeout(BOUND)
            yield driver
        finally:
            driver.quit()

    return opened


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., AbstractContextManager[WebDriver]]) -> Iterator[WebDriver]:
    with chromium() as driver:
        yield driver
