"""What a deployment may choose, as one frozen value.

    Options(high_water=256 * 1024)                     keyword arguments
    Options.from_mapping({"heartbeat": "none"})        a dict, or the strings of an ini file
    app_wide.merged(of_one_response)                   what is set there wins over what is set here

Rule: `RULES` says for each option what is accepted; whoever reads an option need not
check it again. All faults are reported in one `OptionsError`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, cast, get_args

from .errors import OptionsError, shown
from .syntax import check_name, check_value
from .types import EngineName

__all__ = ["Options"]

Completion: TypeAlias = "bytes | str | Callable[[Any, BaseException], bytes | str | None] | None"
Rule: TypeAlias = Callable[[Any], Any]

LARGEST = sys.float_info.max  # what is more than this is no duration


def _number(kind: str, *, whole: bool = False, optional: bool = False) -> Rule:
    wanted = f"wanted {kind}" + (" or None" if optional else "")

    def rule(value: Any) -> Any:
        if value is None and optional:
            return None
        accepted = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted) or not 0 < value <= LARGEST:
            raise ValueError(f"{wanted}, got {shown(value)}")
        return value if whole else float(value)

    return rule


def _one_of(*choices: str) -> Rule:
    def rule(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"wanted one of {', '.join(choices)}, got {shown(value)}")
        return value

    return rule


def _names(*choices: str) -> Rule:
    def rule(value: Any) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"wanted a sequence of names, got {shown(value)}")
        names = tuple(value)
        for name in names:
            if not isinstance(name, str) or (choices and name not in choices):
                wanted = "names out of " + ", ".join(choices) if choices else "names"
                raise ValueError(f"wanted {wanted}, got {shown(name)}")
        return names

    return rule


def _layers(value: Any) -> tuple[str, ...]:
    """Kinds of layers, and dotted names of layers' own classes and functions."""
    names: tuple[str, ...] = _names()(value)
    for name in names:
        is_dotted = "." in name and all(part.isidentifier() for part in name.split("."))
        if name not in ("etag", "gzip", "cache") and not is_dotted:
            raise ValueError(f"wanted names out of etag, gzip, cache or dotted names, got {shown(name)}")
    return names


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"wanted True or False, got {shown(value)}")
    return value


# Content codings, by their registered names, and the packages any of which makes it.
CODINGS: Mapping[str, tuple[str, ...]] = {
    "zstd": ("compression.zstd", "backports.zstd", "zstandard"),
    "br": ("brotli",),
    "gzip": ("zlib",),
}


def _codings(value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    names = _names(*CODINGS)(value)
    for name in names:
        if not _is_there(name):
            raise ValueError(
                f"no package that makes {name} is installed: pip install 'streamkit-web[compress]'"
            )
    return tuple(dict.fromkeys(names))


@lru_cache
def _is_there(coding: str) -> bool:
    for package in CODINGS[coding]:
        try:
            if find_spec(package) is not None:
                return True
        except ModuleNotFoundError:  # not even the package that it would be in
            continue
    return False


def _hook(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError(f"wanted a function or None, got {shown(value)}")
    return value


def _cache_control(value: Any) -> Any:
    if value is not None:
        _field("Cache-Control", value)
    return value


def _field(name: object, value: object) -> None:
    check_value(check_name(name), value)


def _headers(value: Any) -> Mapping[str, str | None]:
    if not isinstance(value, Mapping):
        raise ValueError(f"wanted a mapping of header names to values, got {shown(value)}")
    for name, field in value.items():
        _field(name, "" if field is None else field)
    return _over(DEFAULT_HEADERS, value)


def _over(below: Mapping[str, str | None], above: Mapping[str, str | None]) -> dict[str, str | None]:
    """Both mappings as one, names compared without case."""
    lowered = {name.lower() for name in above}
    return {**{name: value for name, value in below.items() if name.lower() not in lowered}, **above}


def _completion(value: Any) -> Mapping[str, Completion]:
    if not isinstance(value, Mapping):
        raise ValueError(f"wanted a mapping of media types to completions, got {shown(value)}")
    for media_type, completion in value.items():
        if not isinstance(media_type, str) or "/" not in media_type:
            raise ValueError(f"wanted a media type such as text/html, got {shown(media_type)}")
        if not (completion is None or isinstance(completion, (bytes, str)) or callable(completion)):
            raise ValueError(
                f"wanted bytes, str, None or a function of (stream, error) for {media_type}, "
                f"got {shown(completion)}"
            )
    return {media_type.lower(): completion for media_type, completion in value.items()}


# nginx and whoever copied it: "buffering can be enabled or disabled by passing yes or no".
DEFAULT_HEADERS: Mapping[str, str | None] = {"X-Accel-Buffering": "no"}

_SECONDS = "a positive number of seconds"
_BYTES = "a positive whole number of bytes"

RULES: Mapping[str, Rule] = {
    "headers": _headers,
    "cache_control": _cache_control,
    "http10": _one_of("auto", "buffer", "stream", "reject"),
    "http10_limit": _number(_BYTES, whole=True),
    "commit_after": _number(_SECONDS, optional=True),
    "heartbeat": _number(_SECONDS, optional=True),
    "high_water": _number(_BYTES, whole=True),
    "write_timeout": _number(_SECONDS),
    "max_duration": _number(_SECONDS, optional=True),
    "max_streams": _number("a positive whole number of streams", whole=True, optional=True),
    "grace": _number(_SECONDS),
    "signals": _flag,
    "engine": _one_of(*get_args(EngineName)),
    "strip": _layers,
    "chunk_by_default": _flag,
    "compress": _codings,
    "completion": _completion,
    "on_failure": _one_of("abort", "finish"),
    "on_error": _hook,
    "on_finish": _hook,
    "excluded_context": _names(),
}

DEFAULTS: Mapping[str, Any] = {
    "headers": DEFAULT_HEADERS,
    # no-store: Varnish shares one stream among clients without it; no-transform: HAProxy compresses.
    "cache_control": "no-store, no-transform",
    "http10": "auto",
    "http10_limit": 64 * 1024 * 1024,
    "commit_after": None,
    "heartbeat": 15.0,  # proxies cut at 60 s of silence
    "high_water": 64 * 1024,  # uvicorn and asyncio hold as many
    "write_timeout": 60.0,  # nginx's send_timeout
    "max_duration": None,
    "max_streams": None,
    "grace": 5.0,
    "signals": True,
    "engine": "auto",
    "strip": ("etag", "gzip", "cache"),
    "chunk_by_default": False,
    "compress": False,  # a secret beside what others can write shows in the length: see docs/compression.md
    "completion": {},
    "on_failure": "abort",
    "on_error": None,
    "on_finish": None,
    "excluded_context": (),
}


class Options:
    """Options for an app, or for one response; see the table in the README.

    Durations are in seconds and sizes in bytes, both greater than 0. Raises
    `OptionsError` with every fault: unknown names (with the nearest right one)
    and values that do not hold. A copy, and what is pickled, is equal.
    """

    __slots__ = ("_depth", "_merged_last", "given", "given_headers", "head", "tick", *RULES)

    _merged_last: tuple[Options, Options] | None  # what was merged with these last, and what came of it
    _depth: int  # merges that led to these: of many in a row each result would hold the next one

    given: frozenset[str]  # the names that were set here, not taken from the defaults
    given_headers: Mapping[str, str | None]  # and the headers among them
    head: tuple[tuple[str, tuple[str, str]], ...]  # lower-case names and fields that a stream's head gets
    tick: float  # seconds between two looks at an open stream, so that no limit is passed unseen
    headers: Mapping[str, str | None]
    cache_control: str | None
    http10: Literal["auto", "buffer", "stream", "reject"]
    http10_limit: int
    commit_after: float | None
    heartbeat: float | None
    high_water: int
    write_timeout: float
    max_duration: float | None
    max_streams: int | None
    grace: float
    signals: bool
    engine: EngineName
    strip: tuple[str, ...]
    chunk_by_default: bool
    compress: bool | tuple[str, ...]
    completion: Mapping[str, Completion]
    on_failure: Literal["abort", "finish"]
    on_error: Callable[..., object] | None  # of the stream and its error
    on_finish: Callable[..., object] | None  # of the stream
    excluded_context: tuple[str, ...]

    def __init__(self, **given: Any) -> None:
        faults: list[str] = []
        values = dict(DEFAULTS)
        for name, value in given.items():
            rule = RULES.get(name)
            if rule is None:
                faults.append(_unknown(name))
                continue
            try:
                values[name] = rule(value)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if faults:
            raise OptionsError(faults)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_merged_last", None)
        object.__setattr__(self, "_depth", 0)
        object.__setattr__(self, "given", frozenset(given))
        object.__setattr__(self, "given_headers", dict(given.get("headers", ())))
        fields = (("Cache-Control", values["cache_control"]), *values["headers"].items())
        head = tuple((name.lower(), (name, value)) for name, value in fields if value is not None)
        object.__setattr__(self, "head", head)
        limits = (values["heartbeat"], values["write_timeout"], values["max_duration"])
        shortest = min(limit for limit in limits if limit is not None)
        object.__setattr__(self, "tick", min(1.0, max(0.01, shortest / 4)))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Options:
        """Options from a dict or from the strings of an ini file.

        A string is read as the option's own kind: `none`, `true` and `false`, numbers,
        comma lists, and one `Name: value` a line for headers. Raises `OptionsError`.
        """
        if not hasattr(mapping, "items"):
            raise OptionsError([f"options: wanted a mapping, got {shown(mapping)}"])
        faults: list[str] = []
        given: dict[str, Any] = {}
        pairs: Iterable[tuple[object, Any]] = mapping.items()
        for name, value in pairs:
            if not isinstance(name, str):
                faults.append(f"wanted names of options, got {shown(name)}")
            else:
                given[name] = _from_text(name, value) if isinstance(value, str) else value
        try:
            options = cls(**given)
        except OptionsError as error:
            raise OptionsError([*faults, *error.faults]) from None
        if faults:
            raise OptionsError(faults)
        return options

    @classmethod
    def of(cls, options: Options | Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Options:
        """Options from either form, with keyword arguments over them."""
        if options is None:
            return cls.from_mapping(overrides) if overrides else _NOTHING_GIVEN
        base = options if isinstance(options, Options) else cls._of_mapping(options)
        return base.merged(cls.from_mapping(overrides)) if overrides else base

    @classmethod
    def _of_mapping(cls, mapping: Mapping[str, Any]) -> Options:
        """As `from_mapping`; what a few responses have in common is made once."""
        if cls is not Options or type(mapping) is not dict:
            return cls.from_mapping(mapping)
        for name, value in mapping.items():
            if type(name) is not str or type(value) not in _SIMPLE:
                return cls.from_mapping(mapping)
        return _of_simple(tuple((name, type(value), value) for name, value in mapping.items()))

    def merged(self, other: Options) -> Options:
        """These options with what was set in `other` over them; headers are merged by name."""
        if not isinstance(other, Options):
            raise OptionsError([f"wanted Options to merge, got {shown(other)}"])
        if not other.given:
            return self
        if not self.given:
            return other
        last = self._merged_last
        if last is not None and last[0] is other:
            return last[1]
        values = {**self._as_given(), **other._as_given()}
        if "headers" in values:
            values["headers"] = _over(self.given_headers, other.given_headers)
        if "completion" in self.given and "completion" in other.given:
            values["completion"] = {**self.completion, **other.completion}
        merged = Options(**values)
        object.__setattr__(merged, "_depth", self._depth + 1)
        if self._depth < _DEEPEST and other.given.isdisjoint(_HOLDING):
            object.__setattr__(self, "_merged_last", (other, merged))
        return merged

    def _as_given(self) -> dict[str, Any]:
        """The keyword arguments that these options can be made of."""
        given = {name: getattr(self, name) for name in self.given}
        if "headers" in given:
            given["headers"] = self.given_headers
        return given

    def commit_after_for(self, media_type: str) -> float | None:
        """Seconds that the head waits for the first chunk; None for as long as it takes."""
        if media_type == "text/event-stream" and "commit_after" not in self.given:
            return 1.0  # the browser's `open` fires on the head
        return self.commit_after

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"options are frozen: cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"options are frozen: cannot delete {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Options):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in RULES)

    __hash__ = None  # type: ignore[assignment]  # they hold mappings

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._as_given()), ()  # a frozen value cannot be filled in afterwards

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in RULES if name in self.given)
        return f"Options({given})"


_NOTHING_GIVEN = Options()
_DEEPEST = 3
_SIMPLE = (int, float, bool, str, type(None))
_HOLDING = ("on_error", "on_finish", "completion")  # functions, and with them whatever those refer to


@lru_cache(128)
def _of_simple(items: tuple[tuple[str, type, Any], ...]) -> Options:
    # The types are there because 1, 1.0 and True are equal.
    return Options.from_mapping({name: value for name, _, value in items})


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
    return f"unknown option {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def _from_text(name: str, text: str) -> Any:
    """An ini file's string as the option's kind; what does not read is left for the rule to refuse."""
    text = text.strip()
    if name == "headers":
        return _headers_from_text(text)
    if name in ("strip", "excluded_context"):
        names = (name.strip() for name in text.split(","))
        return tuple(name for name in names if name and name.lower() != "none")
    if name in ("http10", "engine", "on_failure"):
        return text.lower()
    lowered = text.lower()
    if name == "compress" and lowered not in ("true", "false"):
        codings = (coding.strip() for coding in lowered.split(","))
        return tuple(coding for coding in codings if coding and coding != "none")
    if lowered == "none":
        return None
    if name == "cache_control":
        return text
    if lowered in ("true", "false"):
        return lowered == "true"
    for number in (int, float):
        try:
            return cast("float", number(text))
        except ValueError:
            continue
    return text


def _headers_from_text(text: str) -> Any:
    fields: dict[str, str | None] = {}
    for line in text.splitlines():
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon:
                return line  # the rule says that this is no mapping
            fields[name.strip()] = None if value.strip().lower() == "none" else value.strip()
    return fields
