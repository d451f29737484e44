"""The context that a producer runs in: a copy of the request's, less what is excluded.

Rule: changes that a producer makes to context variables stay in its copy, so nothing
leaks into the next request of a pooled thread.
"""

from __future__ import annotations

from contextvars import Context, copy_context


def inherited(excluded: tuple[str, ...] = ()) -> Context:
    """A copy of the current context without the variables of these names."""
    context = copy_context()
    if not excluded:
        return context
    kept = Context()
    for variable, value in context.items():
        if variable.name not in excluded:
            kept.run(variable.set, value)
    return kept
