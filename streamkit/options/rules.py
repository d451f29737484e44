"""What each option accepts, as a value and as text, and what it is where nobody says.

Rule: `RULES` says for each option what is accepted, and returns it in the form that is kept; it raises
`ValueError` with what was wanted and what came. The reason for a default stands beside it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, TypeAlias, cast, get_args

from ..errors import shown
from ..syntax import check_name, check_value
from ..types import EngineName

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
    return MappingProxyType(over(DEFAULT_HEADERS, value))


def over(below: Mapping[str, str | None], above: Mapping[str, str | None]) -> dict[str, str | None]:
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
    return MappingProxyType({media_type.lower(): completion for media_type, completion in value.items()})


# nginx and whoever copied it: "buffering can be enabled or disabled by passing yes or no".
DEFAULT_HEADERS: Mapping[str, str | None] = MappingProxyType({"X-Accel-Buffering": "no"})

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
    "completion": MappingProxyType({}),
    "on_failure": "abort",
    "on_error": None,
    "on_finish": None,
    "excluded_context": (),
}


def unknown(name: str) -> str:
    """What is said of a name that no option has, with the nearest right one."""
    near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
    return f"unknown option {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def from_text(name: str, text: str) -> Any:
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
