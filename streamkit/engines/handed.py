"""Hooks on the stream of a request, while another stream carries its response.

A description that is served inside a wrapped app, a stream of another framework and a wrap
around this one each have a stream of their own; who put a hook on the request's is told by that.

Rule: each hook is called once. What came to nothing gives back the hooks of the commit that it
has not called, and those of the end, for whatever is answered in its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..core.base import BaseStream
from ..core.commit import State
from ..core.framing import Body
from ..core.hooks import Hook, Hooked, check_hook
from ..core.stream import AsyncResponseStream, ResponseStream
from .logs import log_error


class Handed:
    """A hook of the commit that another stream is to call."""

    __slots__ = ("called", "hook")

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook
        self.called = False

    def __call__(self, stream: BaseStream) -> Any:
        if self.called:
            return None
        self.called = True
        return self.hook(stream)


class HandedEnd:
    """A hook of the end that another stream is to call, if it is the response that the client gets."""

    __slots__ = ("carrier", "hook", "owner")

    def __init__(self, hook: Callable[..., Any], owner: BaseStream, carrier: BaseStream) -> None:
        self.hook = hook
        self.owner = owner  # the stream of the request that it was put on
        self.carrier = carrier

    def __call__(self, stream: BaseStream) -> Any:
        if came_to_nothing(self.carrier):
            Hooked.on_finish(self.owner, self.hook)  # not its carrier; it may have ended meanwhile
            return None
        return self.hook(stream)


def came_to_nothing(stream: BaseStream) -> bool:
    """Whether it has ended before anything of it was sent, so that something else may be answered."""
    if stream._head is None:
        return stream._is_over
    # A body that was held until it failed, and was not answered with a refusal of our own.
    return (
        stream._body is Body.WHOLE
        and stream._outcome not in (None, "finished", "disconnected")
        and getattr(stream, "_refusal", None) is None
    )


async def logged(stream: BaseStream, result: Awaitable[Any]) -> None:
    """Await a hook that came after its moment, for whose error nobody waits."""
    try:
        await result
    except Exception as fault:
        log_error(stream, "a hook that was added late failed", fault)


class Handing(BaseStream):
    """The stream of a request, which another may carry."""

    carried: BaseStream | None = None  # the stream of a description served inside
    is_page: bool = False  # an ordinary response passes, and ends no stream
    _handed: tuple[Handed, ...] = ()
    _error: BaseException | None = None  # with which its body has ended

    def _end(self, error: BaseException | None) -> None:
        """The body is over; with this error it is not whole."""
        self._error = error
        if self._state in (State.STARTED, State.COMMITTED):
            self._state = State.FINISHED if error is None and self._head is not None else State.ABORTED

    def _carrier(self) -> BaseStream | None:
        """The stream that carries this response in place of this one."""
        carried = self.carried
        return None if carried is None or came_to_nothing(carried) else carried

    def _face_of(self, stream: BaseStream) -> AsyncResponseStream | ResponseStream:
        """That stream as the hooks of this one know a stream: to be awaited, or not."""
        raise NotImplementedError

    def _hand_commit_hooks_to(self, face: AsyncResponseStream | ResponseStream) -> None:
        handed = tuple(h if isinstance(h, Handed) else Handed(h) for h in self._taken("commit"))
        self._handed = (*self._handed, *handed)
        for hook in handed:
            face.on_commit(hook)

    def _hand_finish_hooks_to(self, carrier: BaseStream, *, gives_back: bool) -> None:
        face = self._face_of(carrier)
        for hook in self._taken("finish"):
            if isinstance(hook, HandedEnd):  # a wrap around this one asks for it
                hook.carrier = carrier
            elif gives_back:
                hook = HandedEnd(hook, self, carrier)
            face.on_finish(hook)

    def _finish_calls(self) -> list[Callable[[], Any]]:
        if self.carried is None and not self.is_page:
            return super()._finish_calls()
        # The application-wide hook is told of streams, and by their own.
        return [partial(hook, self) for hook in self._taken("finish")]

    def _take_back(self) -> None:
        """What carried the response has come to nothing."""
        self.carried = None
        handed, self._handed = self._handed, ()
        back = [hook for hook in handed if not hook.called]
        if back:
            self._hooks("commit").extendleft(reversed(back))

    def on_commit(self, hook: Hook) -> Hook:
        carrier = self._carrier()
        if carrier is None:
            return super().on_commit(hook)
        check_hook("on_commit", hook, awaits=self._awaits_hooks)
        handed = Handed(hook)
        self._handed = (*self._handed, handed)
        self._face_of(carrier).on_commit(handed)
        return hook

    def on_error(self, hook: Hook) -> Hook:
        carrier = self._carrier()
        if carrier is None:
            return super().on_error(hook)
        return self._face_of(carrier).on_error(hook)
