"""What the doctor says of what it saw: pure, from observations made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamkit.doctor import CODES, Diagnosis, Finding, Severity
from streamkit.doctor.findings import Arrival
from streamkit.doctor.http1 import Framing
from streamkit.doctor.judge import Asked, judge, needs_another_look
from streamkit.doctor.observations import Ending, Observation
from streamkit.doctor.shapes import Way, way_of

from .seen import (
    COMPRESSED,
    HTTP10,
    answered,
    body,
    drip,
    elsewhere,
    lump,
    silent,
    steady,
    unanswered,
)

FAULT, RISK, NOTE = Severity.FAULT, Severity.RISK, Severity.NOTE
EVENTS = "text/event-stream"


def codes(findings: tuple[Finding, ...], severity: Severity | None = None) -> list[str]:
    return [finding.code for finding in findings if severity in (None, finding.severity)]


def of(plain: Observation, **more: object) -> tuple[Finding, ...]:
    return judge(Asked(plain, **more))  # type: ignore[arg-type]


def the(code: str, findings: tuple[Finding, ...]) -> Finding:
    (found,) = [finding for finding in findings if finding.code == code]
    return found


def status(findings: tuple[Finding, ...]) -> int:
    return Diagnosis("x", findings).status


# -- chunks that carry their times


def test_chunks_that_come_when_they_are_sent_are_a_stream_and_nothing_is_found():
    asked = {
        "compressed": drip([0.0, 0.3, 0.6, 0.9], question=COMPRESSED, Content_Encoding="gzip"),
        "http10": drip([0.0, 0.3, 0.6, 0.9], question=HTTP10, framing=Framing.CLOSE),
        "head": answered(),
    }
    assert of(drip([0.0, 0.3, 0.6, 0.9]), **asked) == ()


@pytest.mark.parametrize("clock", [0.0, 40.0, -40.0])
def test_two_clocks_that_differ_accuse_nobody_and_hide_nothing(clock: float):
    streamed = elsewhere(drip([0.05, 0.35, 0.65, 0.95], clock=clock))
    held = elsewhere(drip([0.95, 0.95, 0.95, 0.95], clock=clock))
    assert of(streamed) == ()
    assert codes(of(held)) == ["buffered"]


def test_a_clock_that_differs_though_the_address_is_local_is_no_recording():
    # A proxy on this machine, the app on another: the lags differ by nothing.
    assert way_of(drip([0.0, 0.3, 0.6, 0.9], clock=-2.0)).way is Way.STREAMED


def test_all_chunks_at_the_end_are_buffered():
    (finding,) = of(drip([0.9, 0.9, 0.9, 0.9]))
    assert (finding.code, finding.severity) == ("buffered", FAULT)
    assert (
        finding.evidence[0]
        == "4 chunks were sent over 0.9 s; they came 0.00 s to 0.90 s after they were sent"
    )
    assert finding.guilty is None


def test_chunks_in_groups_are_held_until_something_is_full():
    findings = of(drip([0.6, 0.6, 0.6, 1.5, 1.5, 1.5, 2.1, 2.1]))
    assert codes(findings) == ["held-until-full"]


def test_each_chunk_that_waits_for_the_next_is_one_behind():
    finding = the("one-behind", of(drip([0.3, 0.6, 0.9, 1.2, 1.2])))
    assert finding.severity is FAULT
    assert "HAProxy" in finding.evidence[-1]
    assert finding.advice[0].where == "haproxy"


def test_each_chunk_by_two_tenths_of_a_second_late_is_late():
    finding = the("late", of(drip([0.2, 0.5, 0.8, 0.9])))
    assert finding.advice[0].lines == ("option http-no-delay",)


def test_one_chunk_that_is_late_once_is_no_finding():
    assert of(drip([0.0, 0.3, 0.95, 0.95, 1.2, 1.5])) == ()


def test_chunks_sent_before_they_were_asked_for_are_a_recording():
    recording = drip([0.0] * 4, sent=[-2.0, -1.7, -1.4, -1.1], framing=Framing.LENGTH, X_Varnish="5 3")
    finding = the("replayed", of(recording, head=answered(Content_Length="99")))
    assert finding.guilty == "varnish"
    assert finding.advice[0].lines == ("return (pass);",)


def test_a_recording_that_another_client_gets_is_found_beside_a_stream():
    recording = drip([0.0] * 4, sent=[-2.0, -1.7, -1.4, -1.1], question=COMPRESSED)
    assert codes(of(drip([0.0, 0.3, 0.6, 0.9]), compressed=recording)) == ["replayed"]


# -- without times


@pytest.mark.parametrize(
    ("plain", "wanted", "exit_status"),
    [
        (lump(3.0), "cannot-tell", 1),
        (silent(), "cannot-tell", 1),
        (unanswered(), "cannot-tell", 1),
        (lump(0.01), "too-fast", 0),
        (lump(0.01, framing=Framing.LENGTH), "no-stream", 1),
        (lump(3.0, framing=Framing.LENGTH), "no-stream", 1),
        (body([]), "no-stream", 1),
    ],
)
def test_what_shows_nothing_accuses_nobody(plain: Observation, wanted: str, exit_status: int):
    findings = of(plain)
    assert codes(findings) == [wanted]
    assert findings[0].guilty is None
    assert status(findings) == exit_status


def test_a_late_body_with_its_length_behind_nginx_leads_to_the_http_version_that_nginx_speaks():
    lines = ("proxy_http_version 1.1;", 'proxy_set_header Connection "";')
    behind = of(lump(3.0, framing=Framing.LENGTH, Server="nginx"))
    assert codes(behind) == ["no-stream"]
    assert (behind[0].guilty, behind[0].advice[0].lines) == (None, lines)
    for other in (lump(3.0, framing=Framing.LENGTH), lump(0.01, framing=Framing.LENGTH, Server="nginx")):
        assert "nginx" not in [advice.where for advice in of(other)[0].advice]


def test_lines_that_come_one_after_the_other_are_a_stream():
    assert of(steady()) == ()
    assert of(steady(ended=None)) == ()


def test_a_chunk_that_came_long_before_the_end_was_not_held():
    assert of(body([(0.0, b"first\n")], ended=3.0)) == ()
    assert of(body([(0.0, b"first\n")], ended=None)) == ()


def test_events_that_come_all_at_once_at_the_end_are_buffered():
    burst = body([(3.0, b"data: x\r\n\r\n" * 8)], Content_Type=EVENTS)
    assert "these are 8 events" in the("buffered", of(burst)).evidence


@pytest.mark.parametrize(("at", "text"), [(3.0, b"data: x\n\n" * 7), (0.5, b"data: x\n\n" * 20)])
def test_a_few_late_events_and_many_soon_ones_are_not_accused(at: float, text: bytes):
    assert codes(of(body([(at, text)], Content_Type=EVENTS))) == ["cannot-tell"]


def test_heartbeats_that_come_all_at_once_show_that_they_were_held():
    burst = body([(3.0, b":\n\n: beat\n\n:\n\ndata: 1\n\n")], Content_Type=EVENTS)
    assert "3 heartbeats stand in it, which are sent in silences" in the("buffered", of(burst)).evidence


def torn(sizes: list[int], line: bytes, **fields: str) -> Observation:
    """Lines, cut into these sizes wherever that is."""
    text = line * (sum(sizes) // len(line) + 1)
    pieces, start = [], 0
    for number, size in enumerate(sizes):
        pieces.append((float(number), text[start : start + size]))
        start += size
    return body(pieces, **fields)


@pytest.mark.parametrize(
    ("kind", "record"), [(EVENTS, b"data: some event\r\n\r\n"), ("application/x-ndjson", b'{"n": 1}\n')]
)
def test_steps_of_4096_bytes_that_tear_records_are_a_buffer(kind: str, record: bytes):
    finding = the("held-until-full", of(torn([4096, 4096, 4096, 700], record, Content_Type=kind)))
    assert "about 4096 bytes" in finding.sentence
    assert "3 of these bursts end in the middle of a record" in finding.evidence


@pytest.mark.parametrize(
    ("sizes", "record", "kind"),
    [
        ([4096, 4096, 4096, 700], b"a line of text\n", "text/csv"),  # blocks of a file
        ([8190, 8190, 900], b"data: 0123456789012345678901\n\n", EVENTS),  # batches of 273 events
    ],
)
def test_steps_that_an_app_may_have_made_are_not_accused(sizes: list[int], record: bytes, kind: str):
    (finding,) = of(torn(sizes, record, Content_Type=kind))
    assert (finding.code, finding.severity) == ("cannot-tell", NOTE)


def test_one_burst_of_4096_bytes_is_no_pattern():
    assert of(torn([4100, 100], b"data: an event\n\n", Content_Type=EVENTS)) == ()


def test_steps_of_whole_lines_may_be_the_app_s_own():
    (finding,) = of(torn([4096, 4096, 4096, 16], b"a line has 16 b\n"))
    assert (finding.code, finding.severity) == ("cannot-tell", NOTE)


def test_pages_of_bytes_without_lines_are_not_accused():
    assert of(body([(float(n), b"\0" * 4096) for n in range(4)])) == ()


# -- by comparison


def test_a_stream_that_compression_holds_is_told_from_one_that_is_made_late():
    held = lump(2.5, question=COMPRESSED, Content_Encoding="gzip", Server="nginx/1.22.1")
    plain = steady(Server="nginx/1.22.1", X_Accel_Buffering=None)
    finding = the("compressed-and-held", of(plain, compressed=held, again=steady()))
    assert finding.guilty == "nginx"
    assert finding.advice[0].lines == ("gzip off;",)
    assert "in HTTP/1.1 it came in 6 bursts, the first at 0.0 s" in finding.evidence


@pytest.mark.parametrize("held", [silent(question=COMPRESSED), unanswered(question=COMPRESSED)])
def test_an_endless_stream_of_which_compression_lets_nothing_through_is_held(held: Observation):
    findings = of(steady(ended=None), compressed=held, again=steady(ended=None))
    assert codes(findings) == ["compressed-and-held"]


def test_an_app_that_happened_to_be_silent_is_not_accused():
    findings = of(steady(), compressed=silent(question=COMPRESSED), again=silent())
    assert findings == ()


def test_a_comparison_that_accuses_is_looked_at_again_and_one_that_is_sure_is_not():
    assert needs_another_look(Asked(steady(), compressed=silent(question=COMPRESSED)))
    assert not needs_another_look(Asked(steady(), compressed=steady(question=COMPRESSED)))
    held = drip([0.9] * 4, question=COMPRESSED)
    assert not needs_another_look(Asked(drip([0.0, 0.3, 0.6, 0.9]), compressed=held))


def header_only(first_payload: float | None) -> Observation:
    """gzip's ten bytes at once, and the payload later or never."""
    seen = lump(first_payload or 0.0, question=COMPRESSED, Content_Encoding="gzip", Server="Caddy")
    wire = (Arrival(0.01, 10), Arrival(3.0, 60)) if first_payload else (Arrival(0.01, 10),)
    if first_payload is None:
        return replace(
            seen, wire=wire, arrivals=(), payload=b"", ending=Ending.OPEN, ended_at=None, watched=10.0
        )
    return replace(seen, wire=wire)


@pytest.mark.parametrize("first_payload", [3.0, None])
def test_an_encoder_s_header_that_comes_alone_is_no_payload(first_payload: float | None):
    seen = header_only(first_payload)
    finding = the("compressed-and-held", of(steady(Server="Caddy"), compressed=seen))
    assert finding.guilty == "caddy"
    assert finding.evidence[0] == "the first 10 bytes, an encoder's header, came at 0.0 s"


def test_an_encoder_s_header_before_a_chunk_that_is_made_late_accuses_nobody():
    late = replace(body([(3.0 + n, b"line\n") for n in range(4)]), head_at=0.0)
    compressed = replace(
        late, question=COMPRESSED, head=header_only(3.0).head, wire=(Arrival(0.01, 10), *late.wire)
    )
    assert of(late, compressed=compressed) == ()


def test_a_brotli_body_that_nothing_here_can_read_is_judged_by_its_bytes():
    seen = lump(2.5, question=COMPRESSED, Content_Encoding="br")
    seen = replace(seen, can_read=False, arrivals=(), payload=b"")
    assert codes(of(steady(), compressed=seen, again=steady())) == ["compressed-and-held"]


def test_a_body_that_both_requests_get_at_once_is_buffered_and_not_compressed():
    findings = of(drip([0.9] * 4), compressed=drip([0.9] * 4, question=COMPRESSED, Content_Encoding="gzip"))
    assert codes(findings) == ["buffered"]


def test_a_client_of_http_1_0_that_gets_the_whole_with_its_length_is_only_a_note():
    whole = lump(2.5, question=HTTP10, framing=Framing.LENGTH)
    (finding,) = of(steady(), http10=whole, again=steady())
    assert (finding.code, finding.severity) == ("http10-held", NOTE)


def test_a_client_of_http_1_0_that_gets_nothing_of_a_stream_is_a_risk():
    (finding,) = of(steady(), http10=silent(question=HTTP10, framing=Framing.CLOSE), again=steady())
    assert (finding.code, finding.severity) == ("http10-held", RISK)


def test_a_refusal_of_http_1_0_is_not_taken_for_holding():
    assert of(steady(), http10=lump(0.0, question=HTTP10, framing=Framing.LENGTH, status=505)) == ()


def test_a_chunked_body_for_http_1_0_is_a_risk():
    (finding,) = of(steady(), http10=steady(question=HTTP10, framing=Framing.CHUNKED))
    assert (finding.code, finding.severity) == ("chunked-to-http10", RISK)


# -- with the app's own port


def test_the_proxy_is_named_when_the_app_s_own_port_streams():
    finding = the("buffered", of(lump(2.5, Server="nginx"), direct=steady()))
    assert finding.guilty == "nginx"
    assert "the app's own port streams" in finding.sentence
    assert not any("module:app" in line for advice in finding.advice for line in advice.lines)


def test_the_app_is_named_when_its_own_port_holds_the_stream():
    finding = the("buffered", of(drip([0.9] * 4, Server="nginx"), direct=drip([0.9] * 4)))
    assert finding.guilty == "the app or its server"
    assert any("module:app" in line for advice in finding.advice for line in advice.lines)


def test_a_late_body_that_the_app_s_own_port_sends_as_late_accuses_nobody():
    findings = of(lump(3.0, Server="nginx"), direct=lump(3.0))
    assert codes(findings) == ["cannot-tell"]
    assert findings[0].guilty is None


def test_compression_that_the_app_s_own_port_does_is_the_app_s():
    held = {"question": COMPRESSED, "Content_Encoding": "gzip"}
    findings = of(
        drip([0.0, 0.3, 0.6, 0.9], Server="nginx"), compressed=drip([0.9] * 4, **held),
        direct=drip([0.0, 0.3, 0.6, 0.9]), direct_compressed=drip([0.9] * 4, **held),
    )  # fmt: skip
    assert the("compressed-and-held", findings).guilty == "the app or its server"


def test_a_proxy_that_the_user_names_is_the_one_that_advice_is_for():
    finding = the("buffered", of(drip([0.9] * 4), proxy="lighttpd"))
    assert finding.advice[0].lines == ("server.stream-response-body = 2",)
    assert "apache" not in [advice.where for advice in finding.advice]


# -- how it ended


def test_a_cut_behind_a_silence_is_a_time_out():
    cut = body([(0.0, b"a\n"), (0.5, b"b\n")], ended=60.5, ending=Ending.CUT, Server="nginx")
    finding = the("cut", of(cut))
    assert (finding.severity, finding.guilty) == (FAULT, "nginx")
    assert "60.0 s of them silent" in finding.sentence
    assert finding.advice[0].lines == ("proxy_read_timeout 1h;",)


def test_a_body_that_was_cut_soon_is_not_called_too_fast():
    assert codes(of(body([(0.0, b"a\n")], ending=Ending.CUT))) == ["broken-end"]


def test_a_cut_in_the_middle_of_things_is_an_abnormal_end_and_seen_as_one():
    assert codes(of(steady(ending=Ending.CUT))) == ["broken-end"]


def test_a_clean_end_after_a_minute_of_silence_looks_like_a_time_out():
    (finding,) = of(body([(0.0, b"a\n"), (0.5, b"b\n")], ended=60.6))
    assert (finding.code, finding.severity) == ("cut", RISK)


def test_a_clean_end_after_some_other_silence_is_the_app_s_own():
    assert of(body([(0.0, b"a\n"), (0.5, b"b\n")], ended=17.0)) == ()


def test_a_body_that_the_end_of_the_connection_delimits_can_break_off_unseen():
    (finding,) = of(steady(framing=Framing.CLOSE, ending=Ending.CLOSED))
    assert (finding.code, finding.severity) == ("no-abnormal-end", RISK)


@pytest.mark.parametrize(("ending", "wanted"), [(Ending.COMPLETE, ["no-abnormal-end"]), (Ending.CUT, [])])
def test_a_drip_that_breaks_off_must_be_seen_to(ending: Ending, wanted: list[str]):
    findings = of(drip([0.0, 0.3, 0.6, 0.9], Server="Caddy"), broken=drip([0.0, 0.3], ending=ending))
    assert codes(findings) == wanted


def test_what_is_no_http_is_a_fault():
    assert codes(of(replace(steady(), fault="b'zz' stands where a chunk's size should"))) == ["bad-framing"]


# -- heads


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"X_Accel_Buffering": None}, [("accel-buffering", NOTE)]),
        ({"X_Accel_Buffering": None, "Server": "nginx/1.22.1"}, []),  # nginx takes it off
        ({"Cache_Control": None}, [("no-transform", NOTE), ("no-store", NOTE)]),
        ({"Cache_Control": "private, no-transform"}, []),
        ({"Cache_Control": "no-store", "Server": "Caddy"}, [("no-transform", RISK)]),
        ({"Cache_Control": "no-transform", "Via": "1.1 varnish (Varnish/7.1)"}, [("no-store", RISK)]),
        ({"Content_Type": "text/event-stream; charset=latin-1"}, [("event-type", RISK)]),
        ({"Content_Type": 'text/event-stream; charset="UTF-8"'}, []),
    ],
)  # fmt: skip
def test_the_fields_of_a_stream(fields: dict[str, str | None], wanted: list[tuple[str, Severity]]):
    assert [(finding.code, finding.severity) for finding in of(steady(**fields))] == wanted


def test_x_accel_buffering_that_nginx_ignores_is_told():
    findings = of(drip([0.9] * 4, Server="nginx", X_Accel_Buffering=None), direct=drip([0.0, 0.3, 0.6, 0.9]))
    assert codes(findings) == ["buffered", "accel-buffering"]
    assert "ignore the field" in findings[1].sentence


def test_x_accel_buffering_that_the_app_does_not_send_is_told_by_its_own_port():
    direct = drip([0.0, 0.3, 0.6, 0.9], X_Accel_Buffering=None)
    findings = of(drip([0.9] * 4, Server="nginx"), direct=direct)
    assert the("accel-buffering", findings).severity is RISK
    assert "without X-Accel-Buffering" in the("accel-buffering", findings).sentence


def test_events_declared_as_something_else_are_told():
    events = [(float(n), b"data: %d\n\n" % n) for n in range(4)]
    assert codes(of(body(events))) == ["event-type"]


def test_an_event_stream_may_be_silent_for_so_long_and_no_longer():
    events = body([(0.0, b"data: 1\n\n")], ended=None, watched=30.0, Content_Type=EVENTS)
    assert codes(of(events)) == ["no-heartbeat"]
    assert of(events, silence=31.0) == ()
    assert of(body([(0.0, b"a\n")], ended=None, watched=30.0)) == ()


@pytest.mark.parametrize(("kind", "severity"), [(EVENTS, RISK), ("text/csv", NOTE)])
def test_a_content_length_on_a_stream(kind: str, severity: Severity):
    (finding,) = of(steady(framing=Framing.LENGTH, Content_Type=kind))
    assert (finding.code, finding.severity) == ("content-length", severity)


def test_a_head_that_waits_for_the_first_chunk_is_slow():
    late = [(3.0 + n, b"data: %d\n\n" % n) for n in range(4)]
    assert codes(of(body(late, Content_Type=EVENTS)), RISK) == ["slow-head"]
    early = replace(body(late, Content_Type=EVENTS), head_at=0.0)
    assert of(early) == ()


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (answered(), []),
        (answered(at=0.2), []),
        (answered(at=4.0), [("head-hangs", RISK)]),
        (unanswered(5.0), [("head-hangs", RISK)]),
        (replace(answered(), ending=Ending.OPEN, ended_at=None), [("head-hangs", RISK)]),
        (answered(405), [("head-differs", NOTE)]),
        (answered(500), [("head-differs", RISK)]),
        (answered(extra=5), [("head-differs", RISK)]),
        (replace(answered(extra=5), followed_by=b"0\r\n\r\n"), [("head-differs", NOTE)]),
        (replace(answered(500, extra=5), followed_by=b"0\r\n\r\n"), [("head-differs", RISK)]),
        (answered(Content_Type="text/html"), [("head-differs", RISK)]),
        (answered(Content_Length="0"), [("head-differs", RISK)]),
    ],
)
def test_the_answer_to_head(seen: Observation, wanted: list[tuple[str, Severity]]):
    assert [(finding.code, finding.severity) for finding in of(steady(), head=seen)] == wanted


def test_the_last_chunk_that_waitress_sends_behind_a_head_is_not_laid_on_the_app():
    (finding,) = of(steady(), head=replace(answered(extra=5), followed_by=b"0\r\n\r\n"))
    assert [advice.where for advice in finding.advice] == ["your server"]


def test_a_server_that_is_busy_with_the_first_stream_is_not_said_to_hang_on_head():
    silences = {"http10": unanswered(question=HTTP10), "head": unanswered(5.0), "again": unanswered()}
    (finding,) = of(steady(ended=None), compressed=unanswered(question=COMPRESSED), **silences)
    assert (finding.code, finding.severity) == ("cannot-tell", RISK)
    assert "no other request was answered" in finding.sentence
    compressed = steady(ended=None, question=COMPRESSED)
    assert codes(of(steady(ended=None), compressed=compressed, head=unanswered(5.0))) == ["head-hangs"]


# -- all of them


def test_the_worst_stands_first_and_each_code_once():
    findings = of(
        drip([0.9] * 4, Cache_Control=None, framing=Framing.CLOSE, ending=Ending.CLOSED),
        compressed=drip([0.9] * 4, question=COMPRESSED),
    )
    assert [finding.severity for finding in findings] == [FAULT, RISK, NOTE, NOTE]
    assert len(set(codes(findings))) == len(findings)


def test_a_code_that_nobody_has_written_down_is_refused():
    with pytest.raises(ValueError, match="'nonsense'"):
        Finding("nonsense", FAULT, "")
    assert all(CODES.values())
