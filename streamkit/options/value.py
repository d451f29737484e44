"""The options of an app, or of one response, as one frozen value.

Rule: nothing is checked here that `rules` checks, and nothing is changed once it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Literal

from ..errors import OptionsError, shown
from ..types import EngineName
from .rules import DEFAULTS, RULES, Completion, from_text, over, unknown


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
                faults.append(unknown(name))
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
                given[name] = from_text(name, value) if isinstance(value, str) else value
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
        if not overrides:
            return options if isinstance(options, Options) else cls._of_mapping(options)
        faults: list[str] = []
        made: list[Options] = []
        for one in (options, overrides):
            try:
                made.append(one if isinstance(one, Options) else cls._of_mapping(one))
            except OptionsError as error:
                faults.extend(error.faults)
        if faults:
            raise OptionsError(faults)
        base, over_it = made
        return base.merged(over_it)

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
            values["headers"] = over(self.given_headers, other.given_headers)
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
        if "completion" in given:
            given["completion"] = dict(self.completion)  # what cannot be changed cannot be pickled either
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
        values = ((name, getattr(self, name)) for name in RULES if name in self.given)
        plain = ((name, dict(value) if isinstance(value, Mapping) else value) for name, value in values)
        return f"Options({', '.join(f'{name}={value!r}' for name, value in plain)})"


_NOTHING_GIVEN = Options()
_DEEPEST = 3
_SIMPLE = (int, float, bool, str, type(None))
_HOLDING = ("on_error", "on_finish", "completion")  # functions, and with them whatever those refer to


@lru_cache(128)
def _of_simple(items: tuple[tuple[str, type, Any], ...]) -> Options:
    # The types are there because 1, 1.0 and True are equal.
    return Options.from_mapping({name: value for name, _, value in items})
