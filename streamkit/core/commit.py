"""What may follow what in one response.

A response is *committed* when its status and headers leave for the client; from then
on it cannot become an error page. WSGI forbids that moment before the first chunk
(PEP 3333), and ASGI servers may wait for the first body message, so setting the status
and sending it are two steps here.

Rule: every answer to "is this allowed now?" stands in `TRANSITIONS`. This file does no
I/O and knows neither WSGI nor ASGI: whoever commits, finishes or aborts asks `after` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias

from ..errors import ProtocolViolation

Action: TypeAlias = Literal["commit", "finish", "abort"]


class State(Enum):
    STARTED = "started"  # status set, nothing sent: it may still be replaced
    COMMITTED = "committed"  # status and headers sent, body open
    FINISHED = "finished"  # body complete
    ABORTED = "aborted"  # body cut short; the client must not take it as whole

    __hash__ = object.__hash__  # Enum's own is written in Python, and each response looks up a few


TRANSITIONS: Mapping[State, Mapping[Action, State]] = {
    State.STARTED: {"commit": State.COMMITTED, "abort": State.ABORTED},
    State.COMMITTED: {"finish": State.FINISHED, "abort": State.ABORTED},
    # Closing and aborting are idempotent: a server calls close() after every response.
    State.FINISHED: {"finish": State.FINISHED, "abort": State.FINISHED},
    State.ABORTED: {"finish": State.ABORTED, "abort": State.ABORTED},
}


def after(state: State, action: Action) -> State:
    """The state that `action` leads to; `ProtocolViolation` if it may not happen now."""
    state_after = TRANSITIONS[state].get(action)
    if state_after is None:
        allowed = ", ".join(TRANSITIONS[state])
        raise ProtocolViolation(
            f"{action} cannot follow in a response that is {state.value}; what may come now: {allowed}"
        )
    return state_after
