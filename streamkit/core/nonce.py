"""The nonce of a Content Security Policy: its form, and where a response names it itself.

Rule: a nonce is checked before it stands in markup; nothing here makes one.
"""

from __future__ import annotations

import re

from ..errors import OptionsError

# base64-value = 1*( ALPHA / DIGIT / "+" / "/" / "-" / "_" )*2( "=" ) -- CSP Level 3
_VALUE = r"[A-Za-z0-9+/_-]+={0,2}"
_NONCE = re.compile(_VALUE)
_SOURCE = re.compile(f"'nonce-({_VALUE})'", re.IGNORECASE)
# Which directive decides about an inline script: the first of these that is there.
_DIRECTIVES = ("script-src-elem", "script-src", "default-src")


def is_nonce(value: object) -> bool:
    """Whether this may stand in markup as a nonce: letters, digits and `+/-_`, at its end up to two `=`."""
    return isinstance(value, str) and _NONCE.fullmatch(value) is not None


def check_nonce(value: object) -> str:
    """The nonce, if it is one; `OptionsError` otherwise."""
    if not isinstance(value, str) or not is_nonce(value):
        # The value is a secret of the page, so the message does not show it.
        got = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
        raise OptionsError([f"nonce: wanted a base64 value, as in 'nonce-r4nd0m', got {got} that are none"])
    return value


def nonce_in(policy: str) -> str | None:
    """The nonce that a Content-Security-Policy asks of inline scripts; None where it names none."""
    directives: dict[str, str] = {}
    for directive in policy.partition(",")[0].split(";"):
        name, _, sources = directive.strip().partition(" ")
        directives.setdefault(name.lower(), sources)  # "ignore duplicates" -- CSP Level 3
    deciding = next((directives[name] for name in _DIRECTIVES if name in directives), "")
    found = _SOURCE.search(deciding)
    return found.group(1) if found else None
