"""Options: what they take, from where, and how faults are reported."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import streamkit
from streamkit import Options, OptionsError
from streamkit.options import DEFAULTS, RULES


def test_the_defaults_are_those_of_the_table() -> None:
    options = Options()
    assert dict(options.headers) == {"X-Accel-Buffering": "no"}
    assert options.cache_control == "no-store, no-transform"
    assert (options.http10, options.http10_limit) == ("auto", 64 * 1024 * 1024)
    assert (options.commit_after, options.heartbeat, options.high_water) == (None, 15.0, 64 * 1024)
    assert (options.write_timeout, options.max_duration, options.max_streams) == (60.0, None, None)
    assert (options.grace, options.signals, options.engine) == (5.0, True, "auto")
    assert options.strip == ("etag", "gzip", "cache")
    assert (options.chunk_by_default, options.completion, options.on_failure) == (False, {}, "abort")
    assert (options.on_error, options.on_finish, options.excluded_context) == (None, None, ())


def test_each_rule_has_a_default_that_it_accepts() -> None:
    assert RULES.keys() == DEFAULTS.keys()
    Options(**DEFAULTS)


BAD: list[tuple[str, Any]] = [
    *((name, value) for name in ("commit_after", "heartbeat", "write_timeout", "max_duration", "grace")
      for value in (0, -1, "1", True, float("nan"), float("inf"))),
    *((name, value) for name in ("high_water", "http10_limit", "max_streams")
      for value in (0, -1, 1.5, True)),
    ("write_timeout", None),
    ("grace", None),
    ("high_water", None),
    ("http10", "maybe"),
    ("engine", "warp"),
    ("on_failure", None),
    ("signals", 1),
    ("chunk_by_default", "yes"),
    ("headers", ["X-A"]),
    ("headers", {"X-A": "a\nb"}),
    ("headers", {"Connection": "close"}),
    ("headers", {5: "a"}),
    ("cache_control", "a\r\nb"),
    ("strip", ["everything"]),
    ("strip", "etag"),
    ("excluded_context", [5]),
    ("completion", {"html": "x"}),
    ("completion", {"text/html": 5}),
    ("completion", "x"),
    ("on_error", 5),
    ("on_finish", "hook"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_that_does_not_hold_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=name) as refused:
        Options(**{name: value})
    assert isinstance(refused.value, ValueError)
    assert len(refused.value.faults) == 1


def test_all_faults_are_in_one_message_with_the_nearest_right_name() -> None:
    with pytest.raises(OptionsError) as refused:
        Options.from_mapping({"hartbeat": 1, "high_water": 0, "grace": -1, "engine": "x", "zzzzzz": 1})
    assert len(refused.value.faults) == 5
    assert "'hartbeat' (did you mean 'heartbeat'?)" in str(refused.value)
    assert "unknown option 'zzzzzz'" in str(refused.value)
    assert "high_water" in str(refused.value)


@pytest.mark.parametrize("mapping", [5, ["heartbeat"], "heartbeat = 1"])
def test_what_is_no_mapping_is_refused(mapping: Any) -> None:
    with pytest.raises(OptionsError, match="wanted a mapping"):
        Options.from_mapping(mapping)


def test_the_strings_of_an_ini_file_are_read() -> None:
    options = Options.from_mapping(
        {
            "heartbeat": "none",
            "high_water": "1024",
            "grace": "2.5",
            "signals": "False",
            "strip": "etag, gzip",
            "excluded_context": "none",
            "cache_control": "private",
            "http10": "Buffer",
            "headers": "\nX-Accel-Buffering: none\nX-Own: a: b\n",
        }
    )
    assert (options.heartbeat, options.high_water, options.grace) == (None, 1024, 2.5)
    assert (options.signals, options.strip, options.excluded_context) == (False, ("etag", "gzip"), ())
    assert (options.cache_control, options.http10) == ("private", "buffer")
    assert dict(options.headers) == {"X-Accel-Buffering": None, "X-Own": "a: b"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("high_water", "many"),
        ("signals", "perhaps"),
        ("headers", "no colon"),
        ("on_error", "a.b"),
        ("grace", ""),
    ],
)
def test_a_string_that_does_not_read_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(OptionsError, match=name):
        Options.from_mapping({name: text})


def test_options_are_frozen() -> None:
    options = Options(grace=1)
    with pytest.raises(AttributeError, match="frozen"):
        options.grace = 2.0
    with pytest.raises(AttributeError, match="frozen"):
        del options.grace


def test_headers_are_merged_over_the_defaults_without_case() -> None:
    assert dict(Options(headers={"x-accel-buffering": "yes", "X-A": "1"}).headers) == {
        "x-accel-buffering": "yes",
        "X-A": "1",
    }


def test_what_was_set_for_a_response_goes_over_what_was_set_for_the_app() -> None:
    app = Options(heartbeat=5, grace=1, headers={"X-Accel-Buffering": None, "X-A": "1"})
    merged = app.merged(Options(grace=2, headers={"x-a": "2", "X-B": "3"}))
    assert (merged.heartbeat, merged.grace) == (5.0, 2.0)
    assert dict(merged.headers) == {"X-Accel-Buffering": None, "x-a": "2", "X-B": "3"}
    assert app.merged(Options()) is app
    assert merged == Options(heartbeat=5, grace=2, headers=dict(merged.headers))


def test_keyword_arguments_go_over_a_mapping() -> None:
    options = Options.of({"grace": "1", "heartbeat": 3}, {"grace": 2})
    assert (options.grace, options.heartbeat) == (2.0, 3.0)


def test_an_event_stream_commits_after_a_second_unless_told_otherwise() -> None:
    assert Options().commit_after_for("text/event-stream") == 1.0
    assert Options().commit_after_for("text/html") is None
    assert Options(commit_after=None).commit_after_for("text/event-stream") is None
    assert Options(commit_after=3).commit_after_for("text/event-stream") == 3.0


def test_a_mapping_that_was_read_before_does_not_stand_in_for_one_with_values_of_other_kinds() -> None:
    assert Options.of({"high_water": 1, "heartbeat": 1}, {}).high_water == 1
    with pytest.raises(OptionsError, match="high_water"):
        Options.of({"high_water": True, "heartbeat": 1}, {})
    with pytest.raises(OptionsError, match="heartbeat"):
        Options.of({"high_water": 1, "heartbeat": True}, {})


def test_a_mapping_may_be_changed_after_it_was_read() -> None:
    mapping = {"heartbeat": 5.0}
    before = Options.of(mapping, {})
    mapping["heartbeat"] = 6.0
    assert (before.heartbeat, Options.of(mapping, {}).heartbeat) == (5.0, 6.0)


def test_what_is_merged_in_turn_does_not_mix() -> None:
    app_wide = Options(heartbeat=5, headers={"X-A": "1"})
    short, long = Options(heartbeat=1), Options(max_duration=60)
    for _ in range(2):
        assert (app_wide.merged(short).heartbeat, app_wide.merged(short).max_duration) == (1, None)
        assert (app_wide.merged(long).heartbeat, app_wide.merged(long).max_duration) == (5, 60)
        assert app_wide.merged(long).headers["X-A"] == "1"


def test_many_merges_in_a_row_do_not_hold_each_other() -> None:
    first = Options(heartbeat=5)
    latest = first
    before = sum(type(each) is Options for each in gc.get_objects())
    for grace in range(1, 1001):
        latest = latest.merged(Options(grace=grace))
    assert latest.grace == 1000
    del latest
    gc.collect()
    assert sum(type(each) is Options for each in gc.get_objects()) < before + 20


def test_a_kind_of_options_reads_a_mapping_as_its_own() -> None:
    class OfOurs(Options):
        pass

    assert [type(OfOurs.of({"grace": 1}, {})) for _ in range(2)] == [OfOurs, OfOurs]


def test_options_do_not_hold_the_functions_that_were_merged_with_them() -> None:
    class Owner:
        def on_finish(self, stream: object) -> None: ...

    app_wide, owner = Options(heartbeat=5), Owner()
    gone = weakref.ref(owner)
    assert app_wide.merged(Options.of({"on_finish": owner.on_finish}, {})).on_finish == owner.on_finish
    del owner
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_options_is_equal_and_knows_what_was_given(again: Callable[[Any], Any]) -> None:
    given = Options(heartbeat=3, headers={"X-Own": "1"}, completion={"text/html": "</html>"})
    copied = again(given)
    assert copied == given
    assert (copied.given, copied.given_headers) == ({"heartbeat", "headers", "completion"}, {"X-Own": "1"})
    assert again(Options()) == Options()
    with pytest.raises(AttributeError, match="frozen"):
        copied.grace = 2.0


def test_a_description_with_options_can_be_copied() -> None:
    described = streamkit.stream([b"x"], options={"heartbeat": 3}, compress=True)
    assert copy.deepcopy(described).options == described.options == Options(heartbeat=3, compress=True)


def test_names_that_are_no_text_are_told_beside_all_other_faults():
    wrong: Any = {5: 1, None: 2, "heartbeat": -1}
    with pytest.raises(OptionsError) as told:
        Options.from_mapping(wrong)
    names, values = told.value.faults[:2], told.value.faults[2:]
    assert names == ("wanted names of options, got 5", "wanted names of options, got None")
    assert values == ("heartbeat: wanted a positive number of seconds or None, got -1",)
