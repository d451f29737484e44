"""What is wrong with the heads: of the stream's GET, and of the HEAD for the same.

Rule: pure; never a fault. A head lets a stream come to harm one day, or behind another proxy; whether it
came to harm today stands in `judge`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .advice import SERVERS_LAST_CHUNK, advice_for, from_the_app
from .findings import Finding, Severity
from .http1 import Framing, Head
from .observations import PAUSE, Ending, Observation
from .shapes import SOON, Way, is_event_stream, way_of

RISK, NOTE = Severity.RISK, Severity.NOTE

SLOW = 2.0  # seconds; streamkit sends an event stream's head after one
COMPRESSING = frozenset({"haproxy", "cloudflare", "caddy"})  # what looks at no-transform, or may one day
CACHING = frozenset({"varnish", "cloudflare", "cloudfront", "fastly"})
LAST_CHUNK = b"0\r\n\r\n"
RECORDS = re.compile(rb"(?::|data:|event:|id:|retry:)[^\n]*\n")


def judge_fields(
    plain: Observation,
    direct: Observation | None,
    proxies: tuple[str, ...],
    *,
    is_held: bool,
    silence: float,
) -> list[Finding]:
    """What the head of the stream leaves open."""
    if plain.head is None:
        return []
    return [
        *_event_type(plain),
        *_heartbeat(plain, silence),
        *_accel_buffering(plain, direct, proxies, is_held),
        *_cache_control(plain.head, proxies),
        *_content_length(plain, is_held),
        *_slow_head(plain, is_held),
    ]


def _event_type(plain: Observation) -> list[Finding]:
    declared = (plain.head.get("Content-Type") or "") if plain.head else ""
    if is_event_stream(plain):
        charset = re.search(r"(?i)charset\s*=\s*\"?([\w.:-]+)", declared)
        if charset is None or charset[1].lower() in ("utf-8", "utf8"):
            return []
        text = f"the event stream says charset={charset[1]}; a browser reads it as UTF-8 all the same"
        return [Finding("event-type", RISK, text, (), from_the_app("event-type"))]
    if RECORDS.match(plain.payload) and b"\n\n" in plain.payload:
        kind = declared or "nothing"
        text = f"it reads like an event stream but is declared as {kind}: EventSource refuses it"
        return [Finding("event-type", RISK, text, (), from_the_app("event-type"))]
    return []


def _heartbeat(plain: Observation, silence: float) -> list[Finding]:
    if not is_event_stream(plain) or plain.longest_silence < silence:
        return []
    text = (
        f"the event stream was silent for {plain.longest_silence:.0f} s: at 60 s most proxies hang up, and"
        " a client that has left is not noticed"
    )
    return [Finding("no-heartbeat", RISK, text, (), from_the_app("no-heartbeat"))]


def _accel_buffering(
    plain: Observation, direct: Observation | None, proxies: tuple[str, ...], is_held: bool
) -> list[Finding]:
    source = direct.head if direct is not None and direct.head is not None else plain.head
    if source is None:
        return []
    sent = (source.get("X-Accel-Buffering") or "").strip().lower() == "no"
    if sent and is_held and "nginx" in proxies:
        text = (
            "the app sends X-Accel-Buffering: no, and nginx holds the stream all the same: it is told to"
            " ignore the field, or stands in front of another nginx that has taken it off"
        )
        return [Finding("accel-buffering", RISK, text, (), advice_for("accel-buffering", proxies))]
    # nginx takes the field off, so that only the app's own port can show it.
    if sent or (source is plain.head and "nginx" in proxies):
        return []
    behind = "nginx" in proxies
    text = "the stream is sent without X-Accel-Buffering: no; an nginx in front of it may hold it"
    severity = RISK if behind else NOTE
    return [Finding("accel-buffering", severity, text, (), from_the_app("accel-buffering"))]


def _cache_control(head: Head, proxies: tuple[str, ...]) -> list[Finding]:
    findings = []
    if not head.has("Cache-Control", "no-transform"):
        severity = RISK if COMPRESSING & set(proxies) else NOTE
        text = "Cache-Control lacks no-transform, without which HAProxy and others compress the stream"
        findings.append(Finding("no-transform", severity, text, (), from_the_app("no-transform")))
    if not any(head.has("Cache-Control", word) for word in ("no-store", "private", "no-cache")):
        severity = RISK if CACHING & set(proxies) else NOTE
        text = "Cache-Control lacks no-store: a cache may record the stream, or share it among clients"
        findings.append(Finding("no-store", severity, text, (), from_the_app("no-store")))
    return findings


def _content_length(plain: Observation, is_held: bool) -> list[Finding]:
    if plain.framing is not Framing.LENGTH or is_held or way_of(plain).way is not Way.STREAMED:
        return []
    severity = RISK if is_event_stream(plain) else NOTE
    text = "a Content-Length stands on the stream, and nginx and Caddy hold what has one"
    return [Finding("content-length", severity, text, (), from_the_app("content-length"))]


def _slow_head(plain: Observation, is_held: bool) -> list[Finding]:
    if is_held or plain.head_at is None or plain.head_at < SLOW or way_of(plain).way is not Way.STREAMED:
        return []
    if plain.wire and plain.wire[0].at - plain.head_at > PAUSE:
        return []  # it was late, but did not wait for the first chunk
    severity = RISK if is_event_stream(plain) else NOTE
    text = f"the head came after {plain.head_at:.1f} s, together with the first chunk"
    return [Finding("slow-head", severity, text, (), from_the_app("slow-head"))]


def judge_head_request(plain: Observation, seen: Observation | None) -> list[Finding]:
    """What is wrong with HEAD."""
    if seen is None or plain.head is None:
        return []
    if seen.head is None or seen.head_at is None:
        text = f"HEAD is not answered: {seen.problem}"
        return [Finding("head-hangs", RISK, text, (), from_the_app("head-hangs"))]
    if seen.head_at >= SLOW and seen.head_at > (plain.head_at or 0.0) + SOON:
        text = (
            f"HEAD is answered after {seen.head_at:.1f} s; GET's head comes after {plain.head_at or 0:.1f} s"
        )
        return [Finding("head-hangs", RISK, text, (), from_the_app("head-hangs"))]
    if seen.ending is Ending.OPEN:
        text = (
            "HEAD is answered, but its connection stays open, though it was asked to close: the server seems"
            " to make the body, and to drop it"
        )
        return [Finding("head-hangs", RISK, text, (), from_the_app("head-hangs"))]
    if seen.followed_by == LAST_CHUNK and not _differences(plain.head, replace(seen, after_end=0)):
        text = "HEAD is answered with the last chunk of a body, which is empty: by the server, not by the app"
        return [Finding("head-differs", NOTE, text, (), (SERVERS_LAST_CHUNK,))]
    differences = _differences(plain.head, seen)
    if not differences:
        return []
    severity = NOTE if seen.head.status in (405, 501) else RISK
    text = f"HEAD is answered otherwise than GET: {'; '.join(differences)}"
    return [Finding("head-differs", severity, text, (), from_the_app("head-differs"))]


def _differences(head: Head, seen: Observation) -> list[str]:
    assert seen.head is not None
    differences = []
    if seen.head.status != head.status:
        return [f"status {seen.head.status}, not {head.status}"]
    if seen.after_end:
        differences.append(f"a body follows, of {seen.after_end} bytes or more")
    if seen.head.media_type != head.media_type:
        differences.append(f"Content-Type {seen.head.media_type or 'none'}, not {head.media_type or 'none'}")
    declared, length = seen.head.get("Content-Length"), head.get("Content-Length")
    if declared is not None and declared != length:
        differences.append(f"Content-Length {declared}, not {length or 'none'}")
    return differences
