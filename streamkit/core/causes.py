"""What an error says, under the words that frameworks and task groups have put around it.

Rule: what fails while somebody tidies up after an error (its `__context__`) says something of its own.
"""

from __future__ import annotations

from collections.abc import Callable

_DEEP = 20  # errors below one another, which may also go round in a ring


def says(error: BaseException | None, is_it: Callable[[BaseException], bool], deep: int = _DEEP) -> bool:
    """Whether an error says this and nothing else.

    It does so by itself, by what it was raised `from`, or as a group of errors that all do.
    """
    if error is None or not deep:
        return False
    if is_it(error):
        return True
    grouped = grouped_in(error)
    if grouped:
        return all(says(one, is_it, deep - 1) for one in grouped)
    # Starlette says that a client has left in an error of its own, without `from`; so do some servers.
    is_word = _is_word(error) or type(error).__name__ == "ClientDisconnect"
    return says(error.__cause__ or (error.__context__ if is_word else None), is_it, deep - 1)


def _is_word(error: BaseException) -> bool:
    """Whether somebody may say so with this OSError: what the system raises by itself has a number."""
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, TimeoutError)


def grouped_in(error: BaseException) -> tuple[BaseException, ...]:
    """The errors of a task group's one: `BaseExceptionGroup`, or what CPython 3.10 has in its place."""
    grouped = getattr(error, "exceptions", ())
    return grouped if isinstance(grouped, tuple) else ()
