"""What a browser's `EventSource` makes of event streams that are compressed on their way.

Rule: an event is made when the page has said that it has the one before, so nothing here can pass
for which a byte waited in a decoder.
"""

from __future__ import annotations

import pytest

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.remote.webdriver import WebDriver
from test_event_source import Mortal, Site, mortal, new_key, page, server, told

from streamkit.core.compression import is_installed

__all__ = ["mortal", "page", "server"]  # fixtures, for pytest to find

pytestmark = [pytest.mark.server, pytest.mark.system]

IN_TURN = [f"{what} {n}" for n in range(1, 6) for what in ("sends", "seen")]
ASKED_BY_THE_PAGE = """
const [query, tell] = arguments;
fetch(`events?${query}`).then(answer => {
  tell(answer.headers.get("content-encoding"));
  answer.body.cancel();
});
"""


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_each_compressed_event_arrives_before_the_next_is_made(
    server: Mortal, page: WebDriver, coding: str
) -> None:
    if not is_installed(coding):
        pytest.skip(f"nothing that makes {coding} is installed")
    site = Site(server, page, server.port, new_key())
    site.open()
    asked = f"script=done&compress={coding}&key={new_key()}"
    # br and zstd are only for origins that the browser trusts: https, and the machine itself.
    assert page.execute_async_script(ASKED_BY_THE_PAGE, asked) == coding
    source = site.listen(f"script=steps&compress={coding}")
    source.wait_for(5, "message")
    site.wait_for_note("seen 5")
    assert [note for note in site.notes() if note[-1].isdigit()] == IN_TURN
    assert told(source) == [("message", f'{{"number":{n}}}', f"{n}") for n in range(1, 6)]
    assert [event["type"] for event in source.log()] == ["open"] + ["message"] * 5
