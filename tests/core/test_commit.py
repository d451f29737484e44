"""The commit table, written out by hand: a change to the code's own table shows here."""

from __future__ import annotations

import pytest

from streamkit.core.commit import Action, State, after
from streamkit.errors import ProtocolViolation

ACTIONS: tuple[Action, ...] = ("commit", "finish", "abort")

STARTED, COMMITTED, FINISHED, ABORTED = State.STARTED, State.COMMITTED, State.FINISHED, State.ABORTED

#          commit     finish    abort
BY_HAND = {
    STARTED: (COMMITTED, None, ABORTED),
    COMMITTED: (None, FINISHED, ABORTED),
    FINISHED: (None, FINISHED, FINISHED),
    ABORTED: (None, ABORTED, ABORTED),
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
    with pytest.raises(ProtocolViolation, match=r"commit cannot follow.*: finish, abort"):
        after(COMMITTED, "commit")
