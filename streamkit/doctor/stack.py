"""Ask an app in this process, layer by layer, who holds its stream.

    diagnosis = examine_app("shop.wsgi:application", path="/events")
    diagnosis.findings[0].guilty        "django.middleware.gzip.GZipMiddleware"

With a path, the view behind it is asked, through the app's whole stack; without one, what answers `/`.
Where that gives no stream, or one that breaks off, a probe stream takes its place, so that the layers are
still asked.

Rule: GET only. The app is loaded as its server loads it, and is left as it was found.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import NotAnApplication
from ..middleware import kind_of_app
from ..unbuffer import layers
from .asking import Answer, Request, ask_asgi, ask_wsgi
from .findings import CannotAsk, Diagnosis, Finding, Severity
from .layer_findings import findings_of, names_of, path_of, tracks_of
from .probe_stream import HTML
from .probes import Probes, probed
from .record import PATIENCE, SHORT, Passage, Trace

__all__ = ["examine", "examine_app", "load"]

MOST_MASKED = 5  # guilty layers that may hide one behind the other


def examine_app(
    target: str,
    path: str | None = None,
    server: str | None = None,
    seconds: float = 10.0,
    headers: Sequence[tuple[str, str]] = (),
) -> Diagnosis:
    """What is wrong with the app `module:attribute`; `server` serves it by that server and asks there too.

    `seconds` bounds each request. An app that cannot be loaded or asked gives a diagnosis with a `refusal`.
    """
    try:
        with _importable_from_here():
            app = load(target)
            diagnosis = examine(app, path, seconds, headers, target=target)
        if server is not None and diagnosis.refusal is None:
            from .serve import examine_served

            kind = _kind(app, target)
            diagnosis = examine_served(diagnosis, target, kind, path, server, seconds, headers)
    except CannotAsk as refusal:
        return Diagnosis(target, refusal=str(refusal))
    return diagnosis


# ---------------------------------------------------------------- loading


@contextmanager
def _importable_from_here() -> Iterator[None]:
    """The working directory on the path, as the servers put it there."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def load(target: str) -> Any:
    """The app that `module:attribute` or `module:factory()` names; raises `CannotAsk`."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise CannotAsk(f"an app is named module:attribute or module:factory(), not {target!r}")
    if module_name.endswith(".py"):
        raise CannotAsk(f"a module is named without .py, {target.replace('.py:', ':')}, not {target!r}")
    module = _module(module_name)
    is_factory = attribute.endswith("()")
    found: Any = module
    for name in attribute.removesuffix("()").split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CannotAsk(f"{module_name} has no {name!r}; it has {_apps_in(module)}") from None
    if is_factory:
        try:
            found = found()
        except Exception as error:
            raise CannotAsk(f"{target} raised {type(error).__name__}: {error}") from error
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise CannotAsk(f"there is no module {name!r} in {os.getcwd()} or on the path") from error
        raise CannotAsk(
            f"{name} cannot be imported: it wants {error.name!r}, which is not installed"
        ) from error
    except Exception as error:
        raise CannotAsk(
            f"{name} cannot be imported: {type(error).__name__}: {error}{_hint(error)}"
        ) from error


def _hint(error: Exception) -> str:
    if type(error).__name__ == "ImproperlyConfigured" and "DJANGO_SETTINGS_MODULE" not in os.environ:
        return " (set DJANGO_SETTINGS_MODULE)"
    return ""


def _apps_in(module: Any) -> str:
    names = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.isclass(value):
            continue
        try:
            kind_of_app(value)
        except NotAnApplication:
            continue
        names.append(name)
    return "the apps " + ", ".join(sorted(names)) if names else "no app"


def _kind(app: Any, target: str) -> str:
    try:
        return kind_of_app(app)
    except NotAnApplication as error:
        # A layer of `*args` speaks what the layers inside it speak.
        inside = [layer.kind for layer in layers.tree(app).walk() if layer.kind in ("wsgi", "asgi")]
        if inside and callable(app):
            return inside[0]
        hint = ""
        if inspect.isfunction(app) and not target.endswith("()"):
            hint = f"; if it makes the app, say {target}()"
        raise CannotAsk(f"{error}{hint}") from error


# ---------------------------------------------------------------- asking


def examine(
    app: Any,
    path: str | None = None,
    seconds: float = 10.0,
    headers: Sequence[tuple[str, str]] = (),
    *,
    target: str = "the app",
) -> Diagnosis:
    """The same for an app that is there already; raises `CannotAsk`."""
    kind = _kind(app, target)
    request = Request(path or "/", (*_usual_host(), *headers))
    with probed(app, kind) as probes:
        trace = Trace(kind)
        answer = _ask(probes, trace, request, seconds)
        diagnosis = _diagnosis(trace, answer, target)
        if diagnosis.status == 1:
            diagnosis = _refined(diagnosis, probes, trace, request, seconds)
            diagnosis = _unmasked(diagnosis, probes, trace, request, seconds)
            return replace(diagnosis, facts={"asked": f"the view behind {request.path}"})
        if path is not None:
            _refuse_failures(trace, answer, path)
        broken = _broken_end(trace, answer, request.path)
        if _is_stream(trace) and not broken:
            return replace(diagnosis, facts={"asked": f"the view behind {request.path}"})
        reached = path_of(trace)
        if not reached:
            raise CannotAsk(f"{target} gave no answer to {request.path}: {answer.error!r}")
        asked = broken or _no_stream(trace, answer, reached, request.path)
        probe = _probe(trace, reached[-1])
        answer = _ask(probes, probe, request, seconds)
        second = _diagnosis(probe, answer, target)
        if not _is_stream(probe) and second.status == 0:
            if broken:
                return replace(diagnosis, findings=broken, facts={"asked": f"what answers {request.path}"})
            raise CannotAsk(_not_asked(probe, reached[-1], request))
        second = _unmasked(second, probes, probe, request, seconds)
        return replace(
            second,
            findings=(*asked, *second.findings),
            facts={"asked": f"a probe stream in the place of {_place(reached)}"},
        )


def _refined(
    diagnosis: Diagnosis, probes: Probes, trace: Trace, request: Request, seconds: float
) -> Diagnosis:
    """The same, where a view's own stream was too short to tell a layer that waits for 4 KiB from one that
    waits for the end: asked again with the longer probe stream."""
    unsure = {"layer-buffers", "layer-header-only", "layer-holds"}
    if not _is_stream(trace) or not any(finding.code in unsure for finding in diagnosis.findings):
        return diagnosis
    probe = _probe(trace, path_of(trace)[-1], patience=SHORT)
    answer = _ask(probes, probe, request, seconds)
    surer = {"layer-holds", "layer-loses"}
    longer = {f.guilty: f for f in findings_of(probe, hung=answer.hung) if f.code in surer}
    findings = tuple(
        longer[finding.guilty] if finding.code in unsure and finding.guilty in longer else finding
        for finding in diagnosis.findings
    )
    return replace(diagnosis, findings=findings)


def _unmasked(
    diagnosis: Diagnosis, probes: Probes, trace: Trace, request: Request, seconds: float
) -> Diagnosis:
    """The same, and what a guilty layer has hidden: whoever stands outside of one that gives its body at once
    has nothing to hold. So a probe stream takes the place of the outermost that was named, and so on."""
    path = path_of(trace)
    for _ in range(MOST_MASKED):
        named = {finding.guilty for finding in diagnosis.findings if finding.severity is Severity.FAULT}
        masking = next((passage for passage in path if passage.shown.name in named), None)
        if masking is None or masking is path[0]:
            break
        probe = _probe(trace, masking)
        answer = _ask(probes, probe, request, seconds)
        more = tuple(
            finding for finding in findings_of(probe, hung=answer.hung) if finding.guilty not in named
        )
        if not any(finding.severity is Severity.FAULT for finding in more):
            break
        diagnosis = replace(diagnosis, findings=(*more, *diagnosis.findings))
    return diagnosis


def _probe(trace: Trace, place: Passage, patience: float = PATIENCE) -> Trace:
    """A trace in which a probe stream, of the same media type as the view's own, takes this place."""
    own = dict(trace.source.heads[-1].headers) if trace.source is not None and trace.source.heads else {}
    media_type = own.get("content-type", HTML) if _is_stream(trace) else HTML
    return Trace(trace.kind, probe=place.layer, patience=patience, media_type=media_type)


def _ask(probes: Probes, trace: Trace, request: Request, seconds: float) -> Answer:
    return (ask_wsgi if probes.kind == "wsgi" else ask_asgi)(probes.app, trace, request, seconds)


def _diagnosis(trace: Trace, answer: Answer, target: str) -> Diagnosis:
    findings = findings_of(trace, hung=answer.hung) if _may_be_judged(trace) else ()
    return Diagnosis(target, findings, tracks_of(trace), names_of(path_of(trace)))


def _is_stream(trace: Trace) -> bool:
    source = trace.source
    return source is not None and not source.whole and len(source.crossings) >= 2


def _may_be_judged(trace: Trace) -> bool:
    """Whether there was something to hold: a layer may do with a complete body what it likes."""
    source = trace.source
    return source is None or not (source.whole or (source.ended and len(source.crossings) < 2))


def _refuse_failures(trace: Trace, answer: Answer, path: str) -> None:
    """What the user asked for must be there."""
    source = trace.source
    if answer.hung and (source is None or not source.crossings):
        silent = path_of(trace)
        raise CannotAsk(
            f"{path} gave nothing in time: {silent[-1].shown.name if silent else 'the app'} was called and "
            "sent no byte. Ask for longer, or make something happen there meanwhile"
        )
    if answer.error is not None:
        raise CannotAsk(f"{path} raised {_named(answer.error)}")
    status = trace.reader.heads[-1].status if trace.reader.heads else 0
    if status >= 300 or status == 0:
        raise CannotAsk(f"{path} was answered with status {status}, so there is no stream to look at")


def _broken_end(trace: Trace, answer: Answer, path: str) -> tuple[Finding, ...]:
    """That the stream that was asked for broke off, where it did."""
    source = trace.source
    if answer.error is None or source is None or source.error is None or not source.crossings:
        return ()
    shown = source.shown
    sentence = f"{shown.name} answers {path} with a stream that breaks off: it raised {_named(source.error)}"
    sent = source.crossings[-1].raw
    evidence = (f"{sent} bytes had been made by then: a client that has them cannot get an error page",)
    return (Finding("broken-end", Severity.FAULT, sentence, evidence, (), shown.name, shown.configured),)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _no_stream(trace: Trace, answer: Answer, reached: Sequence[Passage], path: str) -> tuple[Finding, ...]:
    place = reached[-1]
    name = trace.source.shown.name if trace.source is not None else place.shown.name
    code = "no-stream"
    if answer.hung:
        sentence = f"{name} did not come to an end with {path} in time"
    elif answer.error is not None:
        sentence = f"{path} raised {_named(answer.error)}"
    elif _was_short(trace):
        code, sentence = "too-fast", f"{name} answers {path} with a stream that was over in one chunk"
    else:
        status = f" (status {trace.reader.heads[-1].status})" if trace.reader.heads else ""
        sentence = f"{name} answers {path} with a complete body{status}, no stream"
    sentence += f"; a probe stream took the place of {_place(reached)}"
    if not place.shown.is_view and len(reached) > 1:
        sentence += ", and what stands inside that was not asked"
    return (Finding(code, Severity.NOTE, sentence),)


def _was_short(trace: Trace) -> bool:
    """Whether what came was a stream, though in one piece."""
    source = trace.source
    return source is not None and bool(source.crossings) and (source.shown.is_stream or not source.whole)


def _place(reached: Sequence[Passage]) -> str:
    """Whose place a probe stream takes, in words."""
    name = reached[-1].shown.name
    return name if len(reached) > 1 else f"the whole app, {name}"


def _not_asked(trace: Trace, innermost: Passage, request: Request) -> str:
    status = trace.reader.heads[-1].status if trace.reader.heads else "no"
    by = trace.source.shown.name if trace.source is not None else "something"
    return (
        f"no stream came through: {request.path} was answered with {status} status by {by}, before "
        f"{innermost.shown.name} was asked"
    )


def _usual_host() -> tuple[tuple[str, str], ...]:
    """A host that a Django project allows."""
    configured = sys.modules.get("django.conf")
    if configured is None or not configured.settings.configured or configured.settings.DEBUG:
        return ()
    allowed = [host.lstrip(".") for host in configured.settings.ALLOWED_HOSTS]
    return () if not allowed or "*" in allowed or "localhost" in allowed else (("Host", allowed[0]),)
