"""How far the messages of an ASGI application have come, and which may follow."""

from __future__ import annotations

# How far the application's own messages have come.
NEW, HELD, PASSING, CARED, DROPPING, OVER, OWN, CARRIED, CARRYING = range(9)

ORDER = {
    NEW: "http.response.start",
    HELD: "http.response.body",
    PASSING: "http.response.body",
    CARED: "http.response.body",
    DROPPING: "http.response.body",
    OVER: "nothing",
    OWN: "nothing",
    CARRIED: "http.response.start",
    CARRYING: "http.response.body",
}
