"""What is wrong with how a stream was delivered, told from what was seen of it.

    findings = judge(Asked(plain=…, compressed=…, direct=…))

Rule: pure. Nothing is accused that is not shown: by the chunks' own times, by another request for the
same, by a shape that no app makes; else the finding is `cannot-tell`. How bad a finding is stands here,
what it is about in `findings.CODES`, and what to do about it in `advice`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .advice import NGINX_HTTP10, advice_for
from .findings import Finding, Severity
from .heads import judge_fields, judge_head_request
from .hops import is_out_of_a_cache, named_in
from .http1 import Framing
from .observations import Ending, Observation
from .shapes import SOON, Delivery, Way, is_encoders_header_only, is_event_stream, way_beside, way_of

FAULT, RISK, NOTE = Severity.FAULT, Severity.RISK, Severity.NOTE

# Seconds of silence after which something common hangs up: gunicorn, Heroku, nginx and most others, …
TIMEOUTS = (30.0, 55.0, 60.0, 100.0, 120.0, 300.0)

CODE_OF = {
    Way.BUFFERED: "buffered",
    Way.IN_STEPS: "held-until-full",
    Way.ONE_BEHIND: "one-behind",
    Way.LATE: "late",
    Way.REPLAYED: "replayed",
}
SENTENCE_OF = {
    "buffered": "the whole stream is held, and sent at its end",
    "held-until-full": "the stream is held until a buffer is full{step}",
    "one-behind": "each chunk is held until the next one is made",
    "late": "each chunk is passed on late",
    "replayed": "this is no stream but a recording of one, out of a cache",
}
BUSY = "a server with one thread is busy with a stream that was left, until it writes to it"
# Ways that one proxy has, which does not show in a head.
HAPROXYS = {
    Way.ONE_BEHIND: "when it compresses",
    Way.LATE: "without `option http-no-delay`, for 0.2 s",
}


@dataclass(frozen=True)
class Asked:
    """All that was asked of one address, and of the app's own port beside it."""

    plain: Observation
    compressed: Observation | None = None
    http10: Observation | None = None
    head: Observation | None = None
    again: Observation | None = None  # the first request once more, after the others
    direct: Observation | None = None  # the same asked of the app's own port
    direct_compressed: Observation | None = None
    broken: Observation | None = None  # a drip that was asked to break off
    silence: float = 20.0  # seconds of silence that an event stream may have
    proxy: str | None = None  # the proxy in front, where the user names it

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies in front: the one that the user names, or those that show."""
        return (self.proxy,) if self.proxy else named_in(self.plain.head)

    @property
    def is_busy(self) -> bool:
        """Whether nothing was answered after the first stream was left open.

        A server with one thread does not hear of that before it writes, and answers nobody until then.
        """
        others = [other for other in (self.compressed, self.http10, self.again) if other is not None]
        return (
            self.plain.ending is Ending.OPEN and bool(others) and all(other.head is None for other in others)
        )

    @property
    def is_app_cleared(self) -> bool:
        """Whether the app's own port streams."""
        return self.direct is not None and way_of(self.direct).way is Way.STREAMED

    @property
    def is_app_guilty(self) -> bool:
        """Whether the app's own port holds the stream already."""
        return self.direct is not None and way_of(self.direct).is_held


def judge(asked: Asked) -> tuple[Finding, ...]:
    """All findings, the worst first."""
    delivery = _delivery(asked)
    findings = [*_plain(asked, delivery), *_compressed(asked, delivery), *_http10(asked, delivery)]
    if asked.is_busy:
        text = (
            "no other request was answered after the first: nobody knows what compression does to the stream"
        )
        findings.append(Finding("cannot-tell", RISK, text, (BUSY,)))
    if not any(finding.code == "no-stream" for finding in findings):
        findings += _ending(asked)
        if not asked.is_busy and not any(finding.code == "replayed" for finding in findings):
            findings += judge_head_request(asked.plain, asked.head)
        findings += judge_fields(
            asked.plain, asked.direct, asked.proxies, is_held=delivery.is_held, silence=asked.silence
        )
    order = list(Severity)
    unique: dict[str, Finding] = {}
    for finding in findings:
        unique.setdefault(finding.code, finding)
    return tuple(sorted(unique.values(), key=lambda finding: order.index(finding.severity)))


def needs_another_look(asked: Asked) -> bool:
    """Whether a comparison accuses somebody, so that the first request should be asked once more."""
    if asked.plain.marks:
        return False
    others = (asked.compressed, asked.http10)
    return any(
        other is not None and way_beside(other, asked.plain).is_held and not way_of(other).is_held
        for other in others
    )


def _delivery(asked: Asked) -> Delivery:
    """How the first request's body came, told by all others that can help."""
    alone = way_of(asked.plain)
    for reference in (asked.direct, asked.compressed, asked.http10):
        if alone.is_held or reference is None:
            continue
        beside = way_beside(asked.plain, reference)
        if beside.is_held:
            return beside
    return alone


def _held(asked: Asked, code: str, delivery: Delivery, sentence: str | None = None) -> Finding:
    """Something holds it: who, as far as that is known."""
    step = f" of about {delivery.step} bytes" if delivery.step else ""
    text = sentence or SENTENCE_OF[code].format(step=step)
    names = " or ".join(asked.proxies)
    evidence = delivery.evidence
    if asked.is_app_guilty:
        guilty: str | None = "the app or its server"
        text += ": by the app or its server, whose own port does the same"
        return Finding(code, FAULT, text, evidence, advice_for(code, ("the app",)), guilty)
    if asked.is_app_cleared:
        guilty = names or None
        text += f": by {names or 'what stands in front of the app'}; the app's own port streams"
    elif names:
        guilty = names
        text += f": by {names}, which shows in the head, or by the app behind it"
    else:
        guilty = None
        text += ": by a proxy that does not tell its name, or by the app itself"
    suspects = asked.proxies
    if not suspects and delivery.way in HAPROXYS:
        suspects = ("haproxy",)
        evidence = (*evidence, f"HAProxy, which does not tell its name, does so {HAPROXYS[delivery.way]}")
    advice = advice_for(code, suspects, is_app_cleared=asked.is_app_cleared)
    return Finding(code, FAULT, text, evidence, advice, guilty)


def _plain(asked: Asked, delivery: Delivery) -> list[Finding]:
    plain, way = asked.plain, delivery.way
    if delivery.is_held:
        return [_held(asked, CODE_OF[way], delivery)]
    if way is Way.FAST and _is_hit(plain):
        return [_held(asked, "replayed", delivery)]
    if plain.ending is Ending.CUT:
        return []  # what there was of it was not held; `_ending` tells the rest
    if way is Way.EMPTY:
        return [Finding("no-stream", FAULT, "the response has no body: nothing here streams")]
    if way in (Way.FAST, Way.LUMP) and plain.framing is Framing.LENGTH:
        return [_no_stream(asked, delivery)]
    if way is Way.FAST:
        text = f"the body was over after {plain.watched:.2f} s: nothing was held for longer than that"
        return [Finding("too-fast", NOTE, text)]
    if way in (Way.LUMP, Way.NOTHING):
        return [_cannot_tell(asked, delivery)]
    if way is Way.UNSURE_STEPS:
        text = f"it comes in steps of about {delivery.step} bytes: made so, or held so"
        return [Finding("cannot-tell", NOTE, text, delivery.evidence, advice_for("cannot-tell"))]
    return []


def _is_hit(seen: Observation) -> bool:
    return is_out_of_a_cache(seen.head) and seen.framing is Framing.LENGTH


def _no_stream(asked: Asked, delivery: Delivery) -> Finding:
    text = (
        f"the response came whole, with its length, after {asked.plain.watched:.1f} s:"
        " it is no stream, or is none any more"
    )
    advice = advice_for("no-stream")
    if delivery.way is Way.LUMP and "nginx" in asked.proxies:
        advice = (NGINX_HTTP10, *advice)
    return Finding("no-stream", FAULT, text, delivery.evidence, advice)


def _cannot_tell(asked: Asked, delivery: Delivery) -> Finding:
    plain = asked.plain
    if delivery.way is Way.LUMP:
        text = "the body came all at once, and late: it was made late, or held"
    elif plain.head is None:
        text = f"there was no answer in {plain.watched:.1f} s, though HEAD is answered: it is silent, or held"
    else:
        text = f"not a byte of the body came in {plain.watched:.1f} s: it is silent, or held"
    if asked.direct is not None and not asked.is_app_cleared:
        text += "; the app's own port shows no more"
    return Finding("cannot-tell", FAULT, text, delivery.evidence, advice_for("cannot-tell", asked.proxies))


def _compressed(asked: Asked, delivery: Delivery) -> list[Finding]:
    seen, plain = asked.compressed, asked.plain
    if seen is None or (seen.head and plain.head and seen.head.status != plain.head.status):
        return []
    coding = seen.head.get("Content-Encoding") if seen.head else None
    if is_encoders_header_only(seen) and _came_sooner(plain, seen, delivery):
        evidence = (
            f"the first {seen.wire[0].offset} bytes, an encoder's header, came at {seen.wire[0].at:.1f} s",
            _first_payload(seen),
        )
        return [_compression(asked, coding, Delivery(Way.BUFFERED, evidence))]
    beside = way_beside(seen, plain)
    if beside.way is Way.REPLAYED or (beside.way is Way.FAST and _is_hit(seen)):
        was_stream = delivery.is_held or delivery.way in (Way.STREAMED, Way.LUMP)
        return [_held(asked, "replayed", beside)] if was_stream else []
    if delivery.way is not Way.STREAMED or not beside.is_held or _is_refuted(asked):
        return []
    return [_compression(asked, coding, beside)]


def _came_sooner(plain: Observation, seen: Observation, delivery: Delivery) -> bool:
    """Whether the payload came sooner without compression, or was held there, too."""
    if delivery.way is not Way.STREAMED:
        return delivery.is_held or delivery.way is Way.LUMP
    late = seen.arrivals[0].at if seen.arrivals else seen.watched
    return plain.seen[0].at + SOON <= late


def _first_payload(seen: Observation) -> str:
    if not seen.arrivals:
        return f"no payload came in {seen.watched:.1f} s"
    return f"the first byte of payload came at {seen.arrivals[0].at:.1f} s"


def _is_refuted(asked: Asked) -> bool:
    """Whether the first request, asked once more, did not stream either: then it was chance."""
    return asked.again is not None and way_of(asked.again).way is not Way.STREAMED


def _compression(asked: Asked, coding: str | None, delivery: Delivery) -> Finding:
    how = f"{coding} holds its payload" if coding else "it is held"
    if delivery.way is Way.ONE_BEHIND:
        how += ", each chunk until the next"
    sentence = f"it streams without compression; for a client that accepts it, {how}"
    if way_of(asked.plain).way is not Way.STREAMED:
        sentence = f"for a client that accepts compression, {how}"
    app_too = asked.direct_compressed is not None and way_of(asked.direct_compressed).is_held
    if app_too:
        text = f"{sentence}: the app or its server does it, at its own port"
        advice = advice_for("compressed-and-held", ("the app",))
        return Finding("compressed-and-held", FAULT, text, delivery.evidence, advice, "the app or its server")
    return _held(asked, "compressed-and-held", delivery, sentence)


def _http10(asked: Asked, delivery: Delivery) -> list[Finding]:
    seen = asked.http10
    if seen is None:
        return []
    findings = []
    if seen.framing is Framing.CHUNKED:
        text = "a client that speaks HTTP/1.0 gets a chunked body, and takes the sizes for text"
        findings.append(Finding("chunked-to-http10", RISK, text, (), advice_for("chunked-to-http10")))
    same_status = seen.head is None or asked.plain.head is None or seen.head.status == asked.plain.head.status
    if delivery.way is not Way.STREAMED or not same_status or _is_refuted(asked):
        return findings
    beside = way_beside(seen, asked.plain)
    if beside.way not in (Way.BUFFERED, Way.IN_STEPS, Way.ONE_BEHIND):
        return findings
    advice = advice_for("http10-held")
    if seen.framing is Framing.LENGTH and seen.ending is Ending.COMPLETE:
        text = "a client that speaks HTTP/1.0 gets the whole body at its end, with its length"
        return [*findings, Finding("http10-held", NOTE, text, beside.evidence, advice)]
    text = "for a client that speaks HTTP/1.0, such as nginx before 1.29.7, the stream is held"
    return [*findings, Finding("http10-held", RISK, text, beside.evidence, advice)]


def _ending(asked: Asked) -> list[Finding]:
    plain = asked.plain
    findings = []
    for seen in (plain, asked.compressed):
        if seen is not None and (seen.fault or (seen.after_end and seen.question.method == "GET")):
            text = f"what came is no valid HTTP ({seen.question.name}): {seen.fault or 'more than one body'}"
            findings.append(Finding("bad-framing", FAULT, text))
    if plain.ending is Ending.CUT and not plain.fault:
        findings.append(_cut(asked))
    elif plain.is_over and _is_timeout(plain):
        text = f"it ended after {plain.last_silence:.0f} s of silence, as a time-out ends a stream"
        findings.append(Finding("cut", RISK, text, (), advice_for("cut", asked.proxies)))
    if plain.framing is Framing.CLOSE:
        text = "the body ends with the connection: if it breaks off, no client can know"
        findings.append(
            Finding("no-abnormal-end", RISK, text, (), advice_for("no-abnormal-end", asked.proxies))
        )
    elif asked.broken is not None and asked.broken.ending in (Ending.COMPLETE, Ending.CLOSED):
        findings.append(_clean_end(asked, asked.broken))
    return findings


def _cut(asked: Asked) -> Finding:
    plain = asked.plain
    silence = plain.last_silence
    when = f"after {plain.ended_at or plain.watched:.1f} s"
    if silence >= 1.5 and silence >= 3 * plain.usual_pause:
        text = f"the stream was cut off {when}, {silence:.1f} s of them silent: a time-out"
        guilty = " or ".join(asked.proxies) or None
        return Finding("cut", FAULT, text, (), advice_for("cut", asked.proxies), guilty)
    text = f"the body broke off {when}: its framing promised more"
    if is_event_stream(plain):
        text += "; a browser connects again"
    return Finding("broken-end", FAULT, text)


def _is_timeout(plain: Observation) -> bool:
    silence = plain.last_silence
    return silence >= 3 * plain.usual_pause and any(abs(silence - known) <= 1.0 for known in TIMEOUTS)


def _clean_end(asked: Asked, broken: Observation) -> Finding:
    text = "a body that breaks off ends as if it were whole: no client can know"
    evidence = (f"a drip that broke off ended as {broken.ending.value}, {broken.framing.value}",)
    advice = advice_for("no-abnormal-end", asked.proxies)
    guilty = " or ".join(asked.proxies) or None
    return Finding("no-abnormal-end", RISK, text, evidence, advice, guilty)
