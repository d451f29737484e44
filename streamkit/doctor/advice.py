"""What to set, for what was found, in which proxy.

    advice_for("compressed-and-held", ("varnish",))

Rule: a table and what looks things up in it. The lines are those of the manual's page on proxies, which
are tested in front of real servers; what stands only in a vendor's documentation is given without lines.
"""

from __future__ import annotations

from .findings import Advice

__all__ = ["KNOWN", "advice_for", "ask_inside", "from_the_app"]

# In the order in which they are named where nothing shows which of them it is.
KNOWN: tuple[str, ...] = ("nginx", "apache", "haproxy", "varnish", "caddy", "lighttpd")

NGINX_LINES = ("proxy_http_version 1.1;", 'proxy_set_header Connection "";', "proxy_buffering off;")
CADDY_LINES = (
    "encode {",
    "    gzip",
    "    match {",
    "        header Content-Type text/*",
    "        header !X-Accel-Buffering",
    "    }",
    "}",
)
VARNISH_GZIP = (
    'if (beresp.http.X-Accel-Buffering == "no") {',
    "    set beresp.do_gzip = false;",
    "    set beresp.do_stream = true;",
    "}",
)

HOLDS: dict[str, Advice] = {
    "nginx": Advice(
        "nginx",
        "in this location; without proxy_ignore_headers X-Accel-Buffering, and in the outer one of two nginx",
        NGINX_LINES,
    ),
    "apache": Advice(
        "apache",
        "mod_proxy_http passes chunks on as they come: look for a filter that collects the body, "
        "such as mod_ext_filter, or a server behind it that sends a Content-Length",
        ('ProxyPass "/" "http://127.0.0.1:8000/" flushpackets=on',),
    ),
    "haproxy": Advice("haproxy", "in `defaults` or the backend", ("option http-no-delay",)),
    "varnish": Advice(
        "varnish", "in vcl_backend_response; a do_stream = false holds every body", VARNISH_GZIP
    ),
    "caddy": Advice(
        "caddy", "in the site: reverse_proxy streams, `encode` must step aside for streams", CADDY_LINES
    ),
    "lighttpd": Advice("lighttpd", "in the server", ("server.stream-response-body = 2",)),
    "cloudflare": Advice("cloudflare", "switch the zone's setting response_buffering off"),
    "api gateway": Advice("api gateway", "set the integration's responseTransferMode to STREAM"),
    "azure front door": Advice(
        "azure", "switch Response Buffer off in the Application Gateway, if one is there"
    ),
    "envoy": Advice("envoy", "take the buffer filter and the compressor off this route"),
}
COMPRESSES: dict[str, Advice] = {
    "nginx": Advice(
        "nginx",
        "in this location; or send X-Accel-Buffering: no from the app, which makes nginx flush each chunk",
        ("gzip off;",),
    ),
    "apache": Advice(
        "apache", "mod_deflate flushes each chunk; where another filter compresses", ("SetEnv no-gzip 1",)
    ),
    "haproxy": Advice(
        "haproxy",
        "in a backend for the streams, where the app does not send no-transform, which HAProxy obeys",
        ("http-request del-header Accept-Encoding",),
    ),
    "varnish": Advice("varnish", "in vcl_backend_response", VARNISH_GZIP),
    "caddy": Advice("caddy", "in the site: let `encode` step aside for streams", CADDY_LINES),
    "cloudflare": Advice("cloudflare", "send Cache-Control: no-transform from the app"),
    "lighttpd": Advice("lighttpd", "take the stream's media type out of deflate.mimetypes"),
}
LATES: dict[str, Advice] = {"haproxy": HOLDS["haproxy"]}
CACHES: dict[str, Advice] = {
    "varnish": Advice("varnish", "in vcl_recv, for the paths of streams", ("return (pass);",)),
    "nginx": Advice("nginx", "in this location", ("proxy_cache off;",)),
}
CUTS: dict[str, Advice] = {
    "nginx": Advice("nginx", "if there can be no heartbeat; it is 60 s", ("proxy_read_timeout 1h;",)),
    "apache": Advice(
        "apache", "if there can be no heartbeat", ('ProxyPass "/" "http://127.0.0.1:8000/" timeout=3600',)
    ),
    "haproxy": Advice("haproxy", "if there can be no heartbeat", ("timeout server 1h",)),
    "varnish": Advice(
        "varnish",
        "in the backend, if there can be no heartbeat; it is 60 s",
        (".between_bytes_timeout = 3600s;",),
    ),
    "caddy": Advice("caddy", "take read_timeout out of `transport http`, or raise it", ("read_timeout 1h",)),
}
ENDS: dict[str, Advice] = {
    "nginx": Advice("nginx", "in this location: speak HTTP/1.1 to the app", NGINX_LINES[:2]),
    "caddy": Advice("caddy", "versions up to 2.7 end a broken body as if it were whole: update it"),
}
TABLES: dict[str, dict[str, Advice]] = {
    "buffered": HOLDS,
    "held-until-full": HOLDS,
    "one-behind": {**HOLDS, "haproxy": COMPRESSES["haproxy"]},
    "late": LATES,
    "compressed-and-held": COMPRESSES,
    "http10-held": {},
    "replayed": CACHES,
    "cut": CUTS,
    "no-abnormal-end": ENDS,
    "accel-buffering": {"nginx": HOLDS["nginx"]},
}

# What the app can send, whatever stands in front of it; `streamkit.wrap` sends the first three.
APP: dict[str, tuple[str, tuple[str, ...]]] = {
    "accel-buffering": ("send it with every stream", ("X-Accel-Buffering: no",)),
    "no-transform": ("send it with every stream", ("Cache-Control: no-store, no-transform",)),
    "no-store": ("send it with every stream", ("Cache-Control: no-store, no-transform",)),
    "replayed": ("send it with every stream", ("Cache-Control: no-store, no-transform",)),
    "buffered": (
        "send X-Accel-Buffering: no with every stream, which nginx obeys and other proxies can look at; "
        "streamkit.wrap(app) does it",
        ("X-Accel-Buffering: no",),
    ),
    "compressed-and-held": (
        "send both with every stream; streamkit.wrap(app) does it",
        ("X-Accel-Buffering: no", "Cache-Control: no-store, no-transform"),
    ),
    "no-heartbeat": (
        "send something within 15 s of silence: streamkit's heartbeat, or a comment line", (": beat",)
    ),
    "cut": ("send something before that: streamkit.wrap(app, heartbeat=15)", ()),
    "content-length": ("send no Content-Length with a stream: nginx and Caddy hold what has one", ()),
    "event-type": ("an event stream is always UTF-8", ("Content-Type: text/event-stream",)),
    "head-hangs": ("answer HEAD without running the producer: streamkit.wrap(app) does it", ()),
    "head-differs": ("answer HEAD with GET's head and without a body: streamkit.wrap(app) does it", ()),
    "chunked-to-http10": (
        "uvicorn with httptools and werkzeug do that: streamkit.wrap(app, http10='buffer') sends a "
        "Content-Length instead",
        (),
    ),
    "slow-head": (
        "send the head without waiting for the first chunk: streamkit.wrap(app, commit_after=1)",
        (),
    ),
    "http10-held": ("streamkit.wrap(app, http10='stream') streams to HTTP/1.0 clients, too", ()),
}  # fmt: skip
SERVERS_LAST_CHUNK = Advice(
    "your server",
    "waitress does so, and closes the connection behind it: there is nothing to mend in the app",
)
# It explains a stream that arrives whole, with its length, only where nginx stands in front.
NGINX_HTTP10 = Advice(
    "nginx",
    "in this location, set both or neither: with the second alone the app sees an HTTP/1.0 client that"
    " does not say that it closes, and streamkit sends such a client the whole body with its length",
    NGINX_LINES[:2],
)
ASK_INSIDE = ("buffered", "held-until-full", "one-behind", "compressed-and-held", "cannot-tell", "no-stream")


def advice_for(
    code: str, proxies: tuple[str, ...] = (), *, is_app_cleared: bool = False
) -> tuple[Advice, ...]:
    """What to do about it: in the proxies that are named, or else in all that are known; and in the app.

    `is_app_cleared`: the app itself was asked, and streams.
    """
    table = TABLES.get(code, {})
    named = [table[name] for name in proxies if name in table]
    advice = named or ([] if proxies else [table[name] for name in KNOWN if name in table])
    if code in APP:
        text, lines = APP[code]
        advice = [*advice, Advice("your app", text, lines)]
    if code in ASK_INSIDE and not is_app_cleared:
        advice = [*advice, *ask_inside()]
    return tuple(advice)


def from_the_app(code: str) -> tuple[Advice, ...]:
    """What only the app can do about it."""
    text, lines = APP[code]
    return (Advice("your app", text, lines),)


def ask_inside() -> tuple[Advice, ...]:
    """How to find out whether the app does it."""
    return (
        Advice(
            "streamkit doctor",
            "ask the app's own port beside the address, and the layers inside the app",
            (
                "streamkit doctor ADDRESS --direct http://127.0.0.1:8000/path",
                "streamkit doctor module:app --path /path",
            ),
        ),
    )
