"""From what the probes saw to what is said of each layer.

Rule: `verdicts` decides, this file only reads the trace for it and puts what it decides into words.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..unbuffer.known import KNOWN
from .findings import Advice, Arrival, Finding, Severity, Track
from .layer_advice import advice_for
from .record import Crossing, Passage, Trace
from .verdicts import Level, Observation, Side, Verdict, verdict

__all__ = ["findings_of", "names_of", "path_of", "tracks_of"]

# What only hands on between the layers that somebody wrote down in a setting.
PLUMBING = ("django.core.handlers.exception.", "asgiref.sync.")
HALVES = ("streamkit.unbuffer.around_",)
HANDLERS = ("django.core.handlers.",)

STALLED = 0.5  # seconds in all; a busy machine stalls a loop for less

SENTENCES = {
    "layer-buffers": "{name} reads the whole body before it passes on any of it",
    "layer-holds": "{name} holds bytes back until it has enough of them",
    "layer-header-only": "{name} passes on {early} bytes of an encoder's header and holds the payload",
    "layer-swallows": "{name} drops the body",
    "layer-loses": "{name} drops a part of the body",
    "layer-raises": "{name} raises {error} while the body goes through it",
    "layer-starts-twice": "{name} starts the response {starts} times",
    "layer-late-head": "{name} withholds the head until the first chunk",
    "layer-hangs": "{name} did not come to an end",
    "sync-async": "{name} gives {what}, which Django reads whole before it sends any of it",
    "producer-blocks": "{name} blocks the event loop between its chunks: nothing else can run meanwhile",
}


def path_of(trace: Trace) -> list[Passage]:
    """The layers that the body went through, from the outermost to where it came from."""
    path = _called(trace)
    halves = [index for index, passage in enumerate(path) if passage.shown.name.startswith(HALVES)]
    # Two halves of ours lead streams past the layer between them: what it did with its placeholder is no
    # matter here. The inner ones hand nothing on themselves.
    past: set[int] = set()
    for index in halves:
        if ".Outside" in path[index].shown.name:
            inner = next((i for i in halves if i > index and ".Inside" in path[i].shown.name), index)
            past.update(range(index + 1, inner + 1))
    return [passage for index, passage in enumerate(path) if index not in past]


def _called(trace: Trace) -> list[Passage]:
    path: list[Passage] = []
    passage = trace.source
    while passage is not None and passage is not trace.reader:
        path.insert(0, passage)
        passage = passage.parent
    # What was called behind that gave nothing: it hangs, or was asked in vain.
    last = path[-1] if path else trace.reader
    while last.layer is not trace.probe and (inner := trace.children(last)):
        last = max(inner, key=lambda child: (child.offset, not child.returned))
        path.append(last)
    return path


def names_of(path: Iterable[Passage]) -> tuple[str, ...]:
    """The layers' names, without what only hands on."""
    return tuple(p.shown.name for p in path if not p.shown.name.startswith(PLUMBING))


def findings_of(trace: Trace, *, hung: bool = False) -> tuple[Finding, ...]:
    """All that is wrong with the layers of one request, from the outermost to the view."""
    path = path_of(trace)
    mismatch = next((passage for passage in path if passage.mismatch), None)
    found = []
    for outer, inner in zip(path, [*path[1:], None], strict=True):
        if mismatch is not None and outer.shown.name.startswith(HANDLERS):
            continue  # it reads the body whole because it has to; said of the view, below
        inside = _side(trace, inner) if inner is not None else None
        decided = verdict(Observation(inside, _side(trace, outer), hung=hung, cut=trace.cut))
        if decided is not None and (inner is None or not inner.heads) and decided.code == "layer-raises":
            continue  # it never got an answer to pass on: the request failed, not the stream
        if decided is not None and not _is_meant(decided, outer):
            found.append(_finding(decided, outer, inner))
    if mismatch is not None:
        found.append(_mismatch(path[-1] if path[-1].mismatch else mismatch, trace.kind))
    if sum(trace.stalls) >= STALLED and trace.kind == "asgi" and trace.probe is None and path:
        found.append(_blocking(path[-1], trace))
    return tuple(found)


def _is_meant(decided: Verdict, outer: Passage) -> bool:
    """Whether it is streamkit itself, which keeps a head for `commit_after`: an error is a real 500 then."""
    return decided.code == "layer-late-head" and outer.shown.name.startswith("streamkit.")


def _whole_layer(passage: Passage) -> Passage:
    """The layer that somebody has put in: a middleware, say, whose responders stand inside it."""
    package = passage.shown.name.partition(".")[0]
    outer: Passage | None = passage
    while outer is not None and outer.shown.name.partition(".")[0] == package:
        if outer.shown.name in KNOWN:
            return outer
        outer = outer.parent
    return passage


def _finding(decided: Verdict, outer: Passage, inner: Passage | None) -> Finding:
    outer = _whole_layer(outer)
    name = outer.shown.name
    sentence = SENTENCES[decided.code].format(
        name=name, early=decided.early, error=decided.error, starts=decided.starts
    )
    severity = Severity.RISK if decided.code == "layer-late-head" else Severity.FAULT
    evidence = _evidence(decided, outer, inner)
    return Finding(
        decided.code,
        severity,
        sentence,
        evidence,
        advice_for(decided.code, name),
        name,
        outer.shown.configured,
    )


def _evidence(decided: Verdict, outer: Passage, inner: Passage | None) -> tuple[str, ...]:
    said = []
    if decided.held:
        said.append(
            f"of {decided.of} chunks that {inner.shown.name if inner else 'the view'} gave, {decided.held} "
            f"had not left it when the next was made; at most {decided.most} bytes were held"
        )
    if decided.until:
        said.append(f"the first came out when {decided.until} bytes had gone in")
    if inner is not None and inner.is_lazy:
        said.append(
            f"{inner.shown.name} calls start_response only as its body is read; some layers then read it all"
        )
    if decided.lost:
        said.append(f"{decided.lost} of what went in never came out")
    if inner is not None and inner.heads and outer.heads:
        before, after = dict(inner.heads[-1].headers), dict(outer.heads[-1].headers)
        added = [f"{key}: {after[key]}" for key in after if before.get(key) != after[key]]
        if added:
            said.append("it added or changed " + ", ".join(added))
    return tuple(said)


def _mismatch(view: Passage, kind: str) -> Finding:
    what = "a sync iterator under ASGI" if kind == "asgi" else "an async iterator under WSGI"
    mend = "an async generator" if kind == "asgi" else "a plain generator"
    name = view.shown.name
    return Finding(
        "sync-async",
        Severity.FAULT,
        SENTENCES["sync-async"].format(name=name, what=what),
        advice=(
            Advice("your view", f"give StreamingHttpResponse {mend}"),
            Advice(
                "your view",
                "or let streamkit run it where it can",
                ("return streamkit.frameworks.django.respond(request, streamkit.stream(producer))",),
            ),
        ),
        guilty=name,
        configured=view.shown.configured,
    )


def _blocking(view: Passage, trace: Trace) -> Finding:
    name = view.shown.name
    return Finding(
        "producer-blocks",
        Severity.RISK,
        SENTENCES["producer-blocks"].format(name=name),
        (f"the loop stood still for {sum(trace.stalls):.1f} s",),
        (Advice("your view", "await instead of blocking, or make it a plain function: that gets a thread"),),
        name,
        view.shown.configured,
    )


def _side(trace: Trace, passage: Passage) -> Side:
    heads = [step.count for step in trace.steps if step.kind == "head"]
    in_time = not heads or bool(passage.heads and passage.heads[0].count < heads[0])
    return Side(
        tuple(_level(passage.crossings, step.count) for step in trace.steps if step.kind == "chunk"),
        _level(passage.crossings, None),
        len(passage.crossings),
        len(passage.heads),
        passage.heads[-1].status if passage.heads else None,
        in_time,
        passage.ended,
        f"{type(passage.error).__name__}: {passage.error}"[:200] if passage.error is not None else None,
    )


def _level(crossings: list[Crossing], count: int | None) -> Level:
    """What had crossed at this place in the order of events; None for the end."""
    last = next((c for c in reversed(crossings) if count is None or c.count < count), None)
    return Level() if last is None else Level(last.raw, last.offset, last.marks)


def tracks_of(trace: Trace) -> tuple[Track, ...]:
    """A row of the time line for each layer: when what came out of it, from the outermost to the view."""
    return tuple(
        Track(
            passage.shown.name,
            tuple(Arrival(crossing.at, crossing.offset) for crossing in passage.crossings),
            passage.heads[0].at if passage.heads else None,
            passage.crossings[-1].at if passage.ended and passage.crossings else None,
            f"{len(passage.crossings)} chunks",
        )
        for passage in path_of(trace)
        if not passage.shown.name.startswith(PLUMBING)
    )
