"""The hooks of a response stream: whom to tell of its commit, its errors and its end.

Rule: each hook is handed out once, whichever thread asks; nothing here calls one, but for
those that came after their moment.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import OptionsError
from ..options import Options
from ..types import Outcome

if TYPE_CHECKING:
    from .response import StreamingResponse

Hook = TypeVar("Hook", bound=Callable[..., Any])
HookName = Literal["commit", "error", "finish"]


def check_hook(name: str, hook: object, *, awaits: bool) -> None:
    """Refuse now what could not be called, or awaited, when its moment has come."""
    if not callable(hook):
        raise OptionsError([f"{name}: wanted a function, got {hook!r}"])
    if not awaits and is_async(hook):
        raise OptionsError(
            [f"{name}: wanted a function (a synchronous stream awaits none), got async {hook!r}"]
        )


def is_async(call: Any) -> bool:
    """Whether what this returns is to be awaited, as far as that can be known before."""
    return inspect.iscoroutinefunction(call) or (
        not inspect.isroutine(call) and inspect.iscoroutinefunction(type(call).__call__)
    )


class Hooked:
    """What can be asked to tell of its moments; `BaseStream` is the one there is."""

    _awaits_hooks = False  # hooks may be coroutine functions
    _error_hooks: list[Callable[..., Any]] | None = None
    _commit_hooks: deque[Callable[..., Any]] | None = None
    _finish_hooks: deque[Callable[..., Any]] | None = None

    # Set by the stream, which has a default for each.
    response: StreamingResponse | None
    options: Options
    _failure: BaseException | None
    _outcome: Outcome | None

    @property
    def committed(self) -> bool:
        raise NotImplementedError

    def on_commit(self, hook: Hook) -> Hook:
        """Call `hook(stream)` just before the head is fixed; it may still change headers."""
        check_hook("on_commit", hook, awaits=self._awaits_hooks)
        self._hooks("commit").append(hook)
        if self.committed:
            self._run_late(self._taken("commit"))
        return hook

    def on_error(self, hook: Hook) -> Hook:
        """Call `hook(stream, error)` once for each error after the commit; it may still write."""
        check_hook("on_error", hook, awaits=self._awaits_hooks)
        self.__dict__.setdefault("_error_hooks", []).append(hook)
        if self._failure is not None and self.committed:
            self._run_late([hook], self._failure)
        return hook

    def on_finish(self, hook: Hook) -> Hook:
        """Call `hook(stream)` once when the stream has ended, however it ended.

        On the stream of a request it is told of the response that the client got: of a description that
        fails before its commit only if nothing is answered in its place. An error page that a layer
        makes then has the outcome `finished`, as any other response that was sent whole.
        """
        check_hook("on_finish", hook, awaits=self._awaits_hooks)
        self._hooks("finish").append(hook)
        if self._outcome is not None:
            self._run_late(self._taken("finish"))
        return hook

    def _hooks(self, name: HookName) -> deque[Callable[..., Any]]:
        hooks: deque[Callable[..., Any]] = self.__dict__.setdefault(f"_{name}_hooks", deque())
        return hooks

    def _taken(self, name: HookName) -> list[Callable[..., Any]]:
        """The hooks of this name, each handed out once, whichever thread asks."""
        # Not by `__dict__`: asking an object for it slows all its attributes down for good (CPython 3.11).
        hooks: deque[Callable[..., Any]] | None = getattr(self, f"_{name}_hooks")
        taken: list[Callable[..., Any]] = []
        while hooks:
            try:
                taken.append(hooks.popleft())
            except IndexError:  # another thread took the last one
                break
        return taken

    def _error_calls(self) -> list[Callable[..., Any]]:
        """Whom to tell of an error after the commit."""
        described = self.response.on_error if self.response is not None else None
        calls = [described, *(self._error_hooks or ()), self.options.on_error]
        return [call for call in calls if call is not None]

    def _is_judged(self) -> bool:
        """Whether a hook judges the errors of this very stream; the application's only hears of all."""
        described = self.response
        if self._error_hooks or described is None:
            return bool(self._error_hooks)
        own = described.options
        return described.on_error is not None or (own is not None and own.on_error is not None)

    def _finish_calls(self) -> list[Callable[[], Any]]:
        """Whom to tell of the end, as calls without arguments."""
        calls: list[Callable[[], Any]] = []
        if self.response is not None and self.response.callback is not None:
            calls.append(self.response.callback)
        hooks = self._taken("finish")
        if self.options.on_finish is not None:
            hooks.append(self.options.on_finish)
        calls.extend(partial(hook, self) for hook in hooks)
        return calls

    def _run_late(self, hooks: list[Callable[..., Any]], *details: Any) -> None:
        """Run hooks that came after their moment."""
        for hook in hooks:
            hook(self, *details)
