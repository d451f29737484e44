"""What a layer is accused of, told from figures alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamkit.doctor.findings import CODES
from streamkit.doctor.verdicts import Level, Observation, Side, Verdict, verdict


def side(offsets: Sequence[int], total: int | None = None, **given: object) -> Side:
    """A boundary where so much had crossed at each step; as much on the wire as payload, unless told."""
    raw = given.pop("raw", offsets)
    marks = given.pop("marks", [0] * len(offsets))
    levels = tuple(Level(*level) for level in zip(raw, offsets, marks, strict=True))  # type: ignore[call-overload]
    end = offsets[-1] if total is None else total
    all_marks = given.pop("all_marks", levels[-1].marks if levels else 0)
    return Side(levels, Level(max(end, levels[-1].raw), end, all_marks), len(offsets), **given)  # type: ignore[arg-type]


def code(inside: Side | None, outside: Side, **given: bool) -> str | None:
    found = verdict(Observation(inside, outside, **given))
    assert found is None or found.code in CODES
    return found.code if found else None


GIVEN = side([10, 20, 30])


def test_a_layer_that_passes_each_chunk_on_is_not_accused() -> None:
    assert code(GIVEN, GIVEN) is None


def test_a_layer_that_gives_nothing_before_the_end_buffers() -> None:
    found = verdict(Observation(GIVEN, side([0, 0, 0], 30)))
    assert found == Verdict("layer-buffers", held=3, of=3, most=30)


def test_a_layer_that_gives_something_before_the_end_holds_until_so_many_bytes() -> None:
    found = verdict(Observation(side([10, 20, 30, 40]), side([0, 0, 30, 30], 40)))
    assert found == Verdict("layer-holds", held=3, of=4, most=20, until=30)


def test_a_layer_that_is_always_one_chunk_behind_holds() -> None:
    assert code(GIVEN, side([0, 10, 20], 30)) == "layer-holds"


def test_an_encoder_whose_head_leaves_alone_is_told_from_one_that_buffers() -> None:
    found = verdict(Observation(GIVEN, side([0, 0, 0], 30, raw=[10, 10, 10])))
    assert found is not None
    assert (found.code, found.early) == ("layer-header-only", 10)


def test_a_layer_that_makes_chunks_longer_or_shorter_as_they_pass_is_not_accused() -> None:
    assert code(GIVEN, side([15, 30, 45])) is None
    assert code(GIVEN, side([6, 12, 18])) is None


def test_a_layer_that_puts_something_in_front_or_behind_is_not_accused() -> None:
    assert code(GIVEN, side([110, 120, 130])) is None
    assert code(GIVEN, side([10, 20, 30], 50)) is None


def test_a_layer_that_makes_the_body_shorter_and_holds_it_is_accused() -> None:
    assert code(GIVEN, side([0, 0, 0], 25)) == "layer-buffers"


def test_what_a_layer_gave_with_the_marks_of_all_chunks_was_not_held() -> None:
    inside = side([100, 200, 300], marks=[1, 2, 3])
    assert code(inside, side([40, 40, 40], marks=[1, 2, 3])) is None


def test_a_body_that_vanishes_is_swallowed() -> None:
    assert code(GIVEN, side([0, 0, 0])) == "layer-swallows"


@pytest.mark.parametrize("status", [204, 304])
def test_a_layer_may_answer_that_nothing_has_changed(status: int) -> None:
    assert code(GIVEN, side([0, 0, 0], status=status)) is None


def test_an_error_page_in_the_place_of_a_stream_is_not_a_held_stream() -> None:
    assert code(GIVEN, side([0, 0, 0], 500, status=500)) is None


def test_chunks_of_the_probe_stream_that_do_not_come_out_are_lost() -> None:
    inside = side([100, 200, 300], marks=[1, 2, 3])
    found = verdict(Observation(inside, side([100, 100, 200], marks=[1, 1, 2])))
    assert found is not None
    assert (found.code, found.lost) == ("layer-loses", 1)


def test_nothing_is_called_lost_of_a_stream_that_was_cut() -> None:
    inside = side([100, 200, 300], marks=[1, 2, 3])
    outside = side([100, 200, 200], marks=[1, 2, 2])
    assert code(inside, outside, cut=True) != "layer-loses"


def test_the_layer_in_which_an_error_began_is_accused_of_it_and_no_other() -> None:
    broken = side([0, 0, 0], error="TypeError: no len()")
    assert code(GIVEN, broken) == "layer-raises"
    assert code(side([10, 20, 30], error="TypeError: no len()"), broken) is None


def test_a_second_start_is_the_fault_of_the_layer_that_sends_it() -> None:
    assert code(GIVEN, side([10, 20, 30], starts=4)) == "layer-starts-twice"
    assert code(side([10, 20, 30], starts=4), side([10, 20, 30], starts=4)) is None


def test_a_layer_that_does_not_end_though_what_is_inside_it_has_ended_hangs() -> None:
    open_end = side([10, 20, 30], ended=False)
    assert code(GIVEN, open_end, hung=True) == "layer-hangs"
    assert code(open_end, open_end, hung=True) is None


def test_a_head_that_waits_for_the_first_chunk_is_late() -> None:
    assert code(GIVEN, side([10, 20, 30], head_in_time=False)) == "layer-late-head"
    assert code(side([10, 20, 30], head_in_time=False), side([10, 20, 30], head_in_time=False)) is None


def test_a_layer_that_holds_is_not_accused_of_its_late_head_too() -> None:
    assert code(GIVEN, side([0, 0, 0], 30, head_in_time=False)) == "layer-buffers"


def test_of_a_layer_that_called_nothing_nothing_is_said() -> None:
    assert code(None, GIVEN) is None


def test_of_an_empty_body_nothing_is_said() -> None:
    assert code(side([0, 0, 0]), side([0, 0, 0])) is None
