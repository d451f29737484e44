"""The commit table, written out by hand: a change to the code's own table shows here."""

from __future__ import annotations

import pytest

from streamkit.core.commit import Action, State, after
from streamkit.errors import ProtocolViolation

ACTIONS: tuple[Action, ...] = ("start", "replace", "commit", "send", "finish", "abort")

NEW, STARTED, COMMITTED = State.NEW, State.STARTED, State.COMMITTED
FINISHED, ABORTED = State.FINISHED, State.ABORTED

#          start    replace  commit     send       finish    abort
BY_HAND = {
    NEW: (STARTED, None, None, None, None, ABORTED),
    STARTED: (None, STARTED, COMMITTED, None, None, ABORTED),
    COMMITTED: (None, None, None, COMMITTED, FINISHED, ABORTED),
    FINISHED: (None, None, None, None, FINISHED, FINISHED),
    ABORTED: (None, None, None, None, ABORTED, ABORTED),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("action", ACTIONS)
def test_each_state_allows_just_these_actions(state: State, action: Action) -> None:
    expected = BY_HAND[state][ACTIONS.index(action)]
    if expected is not None:
        assert after(state, action) is expected
    else:
        with pytest.raises(ProtocolViolation, match=f"{action} cannot follow .* {state.value}"):
            after(state, action)


def test_a_refusal_says_what_may_come_instead() -> None:
    with pytest.raises(ProtocolViolation, match=r"http\.response\.start cannot follow.*send, finish, abort"):
        after(COMMITTED, "start", "http.response.start")
