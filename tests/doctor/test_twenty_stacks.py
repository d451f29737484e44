"""Twenty stacks with one guilty layer each, and twenty with none.

Rule: the stacks are made from a fixed seed each, of `stacks`' layers in a random order.
"""

from __future__ import annotations

import pytest

pytest.importorskip("webob")

from streamkit.doctor.findings import Severity
from streamkit.doctor.stack import examine

from . import stacks

SECONDS = 8.0  # for one request


@pytest.mark.parametrize("seed", range(20))
def test_the_one_guilty_layer_of_a_stack_is_named_and_no_other(seed: int) -> None:
    stack = stacks.build(seed, guilty=True)
    with stack.settings:
        diagnosis = examine(stack.app, stack.path, SECONDS)
    faults = [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT]
    assert [named_of(finding.guilty) for finding in faults] == [stack.guilty], (stack.parts, diagnosis)
    assert diagnosis.status == 1


@pytest.mark.parametrize("seed", range(100, 120))
def test_nobody_is_accused_in_an_innocent_stack(seed: int) -> None:
    stack = stacks.build(seed, guilty=False)
    with stack.settings:
        diagnosis = examine(stack.app, stack.path, SECONDS)
    assert not [finding for finding in diagnosis.findings if finding.severity is Severity.FAULT], stack.parts
    assert diagnosis.status == 0


def named_of(guilty: str | None) -> str | None:
    """Without the class that only runs the function that is named."""
    return guilty.partition(" ")[0] if guilty else guilty
