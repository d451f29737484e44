"""Which proxies a response went through, as far as its head tells.

Rule: a name is told only where the head shows it. HAProxy, Traefik, nginx behind another nginx and
Apache (which hands the app's `Server` on) mostly show nothing.
"""

from __future__ import annotations

import re

from .http1 import Head

# What advice knows a proxy by, and how it shows: a field, and what its value looks like.
SIGNS: tuple[tuple[str, str, str], ...] = (
    ("nginx", "Server", r"(?i)nginx|openresty|tengine"),
    ("apache", "Server", r"(?i)apache"),
    ("apache", "Via", r"(?i)apache"),
    ("haproxy", "Via", r"(?i)haproxy"),
    ("haproxy", "Server", r"(?i)haproxy"),
    ("varnish", "Via", r"(?i)varnish"),
    ("varnish", "X-Varnish", r"\d"),
    ("caddy", "Server", r"(?i)\bcaddy\b"),
    ("caddy", "Via", r"(?i)\bcaddy\b"),
    ("lighttpd", "Server", r"(?i)lighttpd"),
    ("h2o", "Server", r"(?i)\bh2o\b"),
    ("envoy", "Server", r"(?i)envoy"),
    ("envoy", "X-Envoy-Upstream-Service-Time", r"\d"),
    ("cloudflare", "CF-Ray", r"."),
    ("cloudfront", "X-Amz-Cf-Id", r"."),
    ("cloudfront", "Via", r"(?i)cloudfront"),
    ("fastly", "X-Served-By", r"cache-"),
    ("heroku", "Via", r"(?i)heroku|vegur"),
    ("google", "Via", r"(?i)\bgoogle\b"),
    ("api gateway", "X-Amz-Apigw-Id", r"."),
    ("azure front door", "X-Azure-Ref", r"."),
)
# The fields that are shown to the user, where they are there.
TELLING = (
    "Server", "Via", "X-Cache", "X-Varnish", "Age", "CF-Ray", "X-Served-By", "X-Powered-By",
    "Content-Type", "Content-Encoding", "Cache-Control", "X-Accel-Buffering",
)  # fmt: skip


def named_in(head: Head | None) -> tuple[str, ...]:
    """The proxies that a head shows, each once."""
    if head is None:
        return ()
    found: dict[str, None] = {}
    for name, field, look in SIGNS:
        value = head.get(field)
        if value is not None and re.search(look, value):
            found[name] = None
    return tuple(found)


def facts_of(head: Head | None) -> dict[str, str]:
    """The fields that tell something of the way that the response took."""
    if head is None:
        return {}
    return {name: value for name in TELLING if (value := head.get(name)) is not None}


def is_out_of_a_cache(head: Head | None) -> bool:
    """Whether a cache says that it had this response already."""
    if head is None:
        return False
    hit = re.match(r"(?i)\s*(tcp_)?hit", head.get("X-Cache") or "") is not None
    hit = hit or re.match(r"(?i)\s*hit", head.get("CF-Cache-Status") or "") is not None
    two_numbers = re.fullmatch(r"\d+ \d+", (head.get("X-Varnish") or "").strip()) is not None
    age = (head.get("Age") or "0").strip()
    return hit or two_numbers or (age.isdigit() and int(age) > 0)
