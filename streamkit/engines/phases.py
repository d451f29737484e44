"""How far the messages of an ASGI application have come, and which may follow.

Rule: plain numbers under names of their own: each message of each request is compared with a few of
them, and to get one out of an `Enum` would be a look-up more each time.
"""

from __future__ import annotations

NEW = 0  # nothing was sent
HELD = 1  # the head waits until it is known whether a stream follows
PASSING = 2  # no stream: all goes on as it is
CARED = 3  # a stream of the application's own messages
DROPPING = 4  # nobody will read what still comes of it
OVER = 5  # the last message has gone on
OWN = 6  # written through the response stream: the application's messages are dropped
CARRIED = 7  # a description is served inside, and has not sent its head
CARRYING = 8  # it has
NOTED = 9  # no stream, as `PASSING`, but somebody wants to be told of its end

# What has to come next; in `OWN` anything may.
ORDER = {
    NEW: "http.response.start",
    HELD: "http.response.body",
    PASSING: "http.response.body",
    CARED: "http.response.body",
    DROPPING: "http.response.body",
    OVER: "nothing",
    CARRIED: "http.response.start",
    CARRYING: "http.response.body",
    NOTED: "http.response.body",
}
