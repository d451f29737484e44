"""Send a stream through a stack or ask an address for one, and name what holds it back.

    from streamkit.doctor import examine_address

    diagnosis = examine_address("https://example.org/events", seconds=10)
    diagnosis.status        0 everything streams, 1 something holds it, 2 it could not be asked

The command is `streamkit doctor TARGET`. Nothing but GET and HEAD is sent, and every request is bounded
in time and bytes.

Rule: the face hands names on and holds no logic. What needs an app's packages stands in `stack`, which
is not imported here.
"""

from .drip import async_probe_app, probe_app
from .examine import examine_address
from .findings import CODES, Advice, Arrival, CannotAsk, Diagnosis, Finding, Severity, Track

__all__ = [
    "CODES",
    "Advice",
    "Arrival",
    "CannotAsk",
    "Diagnosis",
    "Finding",
    "Severity",
    "Track",
    "async_probe_app",
    "examine_address",
    "probe_app",
]
