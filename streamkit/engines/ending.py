"""How a stream ends: its errors, its completion, its outcome, and whom they are told.

Twins: `fail` and `settle` call application code from a thread, `fail_async` and
`settle_async` from a loop.

Rule: each error after the commit is reported once; a hook that raises is logged and the
stream still ends.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..core.base import BaseStream
from ..core.causes import grouped_in, says
from ..core.closing import TELLING
from ..core.framing import Body
from ..core.steps import StepAside
from ..core.stream import AsyncResponseStream, ResponseStream
from ..errors import ClientDisconnected, OptionsError, StreamClosed
from ..types import Outcome
from .last_words import completion_of, ends_cleanly, is_held
from .logs import log_error
from .waits import reached

# Browsers drop a last chunk that they have not parsed when the cut arrives: measured with
# Chromium, one page in five when it follows at once, none of a hundred after 5 ms, and on a busy
# machine one in twenty after 50 ms. With six busy processes to a core, 200 ms lost six of 48 and
# 500 ms none; but a thread that waits is a thread that serves nobody.
LINGER_SECONDS = 0.2
LINGER_ASYNC_SECONDS = 0.5


def raisable(error: BaseException) -> BaseException:
    """The error as it may leave us: a StopIteration, say, would look like a clean end to a server."""
    if isinstance(error, (StopIteration, StopAsyncIteration, asyncio.CancelledError, GeneratorExit)):
        mended = RuntimeError(f"the producer raised {type(error).__name__}")
        mended.__cause__ = error
        return mended
    return error


def linger(stream: BaseStream) -> None:
    """Wait a moment between a completion and the cut after it."""
    if stream._lingers:
        time.sleep(LINGER_SECONDS)


async def linger_async(stream: BaseStream) -> None:
    """`linger`, awaited, which keeps no thread."""
    if stream._lingers:
        await asyncio.sleep(LINGER_ASYNC_SECONDS)


def forget(error: BaseException) -> None:
    """Let go of what a swallowed error holds: its frames hold it, so only a collector would free them."""
    held: BaseException | None = error
    while held is not None:
        below = held.__cause__ or held.__context__
        held.__traceback__ = held.__cause__ = held.__context__ = None
        for one in grouped_in(held):
            forget(one)
        held = below


def is_leave(stream: BaseStream, error: BaseException | None) -> bool:
    """Whether this error only says that the client has left."""
    if stream.connected and stream._body is not Body.UNSENT:
        return False
    return says(error, lambda one: isinstance(one, ClientDisconnected))


def is_caused_by(error: BaseException | None, cause: BaseException) -> bool:
    seen = 0
    while error is not None and seen < 20:
        if error is cause:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def close_foreign(stream: BaseStream, body: Any) -> None:
    """Close what an application has returned and nobody sends, and log what that raises."""
    close = getattr(body, "close", None)
    if close is not None:
        try:
            close()
        except Exception as error:
            log_error(stream, "closing what the application returned failed", error)


def is_end_of(stream: BaseStream, error: BaseException | None) -> bool:
    """Whether this error says, to whoever wrote, that the stream was ended early, or refused."""
    ending = stream._ending or getattr(stream, "_refusal", None)
    return ending is not None and says(error, lambda one: one is ending)


def fail(stream: ResponseStream, error: BaseException, end: Callable[[BaseException | None], None]) -> None:
    """The producer raised: tell the hooks, complete, and `end` with the error, or None for a clean end."""
    stream._put_off = None  # it was no good end
    if _ends_unheard(stream, error, end):
        return
    stream._failed, stream._unlogged = True, error  # now, for with a hook's `close` the reader ends
    if stream._failure is not error:
        with _telling(stream):
            report(stream, error)
    if _ended_meanwhile(stream, error, end):
        return
    text, clean = completion_of(stream, error)
    if text:
        try:
            stream.write(text)
        except (ClientDisconnected, StreamClosed):
            clean = False  # the leave says it all
        except Exception as fault:  # not to be encoded, or no text at all
            log_error(stream, "a completion failed", fault)
    _end_failed(stream, error, end, clean, lingers=bool(text))


async def fail_async(
    stream: AsyncResponseStream, error: BaseException, end: Callable[[BaseException | None], None]
) -> None:
    """`fail`, awaited."""
    if stream._failing is error:
        return  # `close` has told of it already, and sees to the end
    stream._put_off = None  # it was no good end
    if _ends_unheard(stream, error, end):
        return
    stream._failing = error  # not before: a leave's would hold the stream by its frames
    stream._failed, stream._unlogged = True, error  # now, for with a hook's `close` the reader ends
    if stream._failure is not error:
        with _telling(stream):
            await report_async(stream, error)
    if _ended_meanwhile(stream, error, end):
        return
    text, clean = completion_of(stream, error)
    if text:
        try:
            await stream.write(text)
        except (ClientDisconnected, StreamClosed):
            clean = False  # the leave says it all
        except Exception as fault:  # not to be encoded, or no text at all
            log_error(stream, "a completion failed", fault)
    _end_failed(stream, error, end, clean, lingers=bool(text))


@contextmanager
def _telling(stream: BaseStream) -> Iterator[None]:
    """Around the hooks of an error, which may close its stream when nobody else may any more."""
    stream._fails = object()
    told = TELLING.set(stream._fails)
    try:
        yield
    finally:
        TELLING.reset(told)


def _ended_meanwhile(
    stream: BaseStream, error: BaseException, end: Callable[[BaseException | None], None]
) -> bool:
    """Whether nothing more can be sent after this error, of which nobody else would hear."""
    if not stream.connected:
        stream._unlogged = None
        log_error(stream, "the producer failed after its client had left", error)
        end(None)
        return True
    if stream._is_over:
        log_before_close(stream)
        return True
    stream._unlogged = None
    return False


def log_before_close(stream: BaseStream) -> None:
    """An error hook closes the stream: log the producer's error, once, before the client sees the end."""
    error, stream._unlogged = stream._unlogged, None
    if error is not None:
        log_error(stream, "the producer failed, and an on_error hook closed the stream", error)


def _end_failed(
    stream: BaseStream,
    error: BaseException,
    end: Callable[[BaseException | None], None],
    clean: bool,
    *,
    lingers: bool,
) -> None:
    stream._failed = True
    if clean:
        log_error(stream, "the producer failed; its stream was ended cleanly", error)
    stream._lingers = lingers and not clean
    end(None if clean else raisable(error))


def _ends_unheard(
    stream: BaseStream, error: BaseException, end: Callable[[BaseException | None], None]
) -> bool:
    """End what no hook hears of, if it is that: a leave (told by `settle`), and all before the commit."""
    was_aborted = stream._abort is not None and isinstance(error, StreamClosed)
    if is_leave(stream, error) or is_end_of(stream, error) or was_aborted:
        end(None)
        return True
    if stream.closed and stream.connected:
        if stream._failure is not error and stream._abort is None:
            log_error(stream, "the producer failed after the end of its stream", error)
        return True
    if is_held(stream):
        stream._failure = error
        stream._failed = True
        end(raisable(error))
        return True
    return False


def report(stream: ResponseStream, error: BaseException) -> bool:
    """Call the error hooks, each once; whether all of them returned."""
    stream._failure = error
    returned = True
    for call in stream._error_calls():
        try:
            _unawaited(call(stream, error))
        except Exception as fault:
            returned = False
            if fault is not error:
                log_error(stream, "an on_error hook failed", fault)
    return returned


async def report_async(stream: AsyncResponseStream, error: BaseException) -> bool:
    """`report`, awaited."""
    stream._failure = error
    returned = True
    for call in stream._error_calls():
        try:
            await finished(call(stream, error))
        except Exception as fault:
            returned = False
            if fault is not error:
                log_error(stream, "an on_error hook failed", fault)
    return returned


def outcome_of(stream: BaseStream) -> Outcome:
    """How this stream, which is over, has ended."""
    if stream._abort is not None:
        return "aborted"
    if stream._ending is not None:
        return stream._ending.outcome
    if not stream.connected:
        return "disconnected"
    return "failed" if stream._failed and not isinstance(stream._failure, StepAside) else "finished"


def needs_settling(stream: BaseStream) -> bool:
    """Whether the end of this stream runs application code."""
    response, options = stream.response, stream.options
    return bool(
        (response is not None and (response.callback is not None or response.on_error is not None))
        or stream._finish_hooks
        or stream._error_hooks
        or options.on_finish is not None
        or options.on_error is not None
    )


def settle(stream: ResponseStream, outcome: Outcome) -> None:
    """Set the outcome and call whom it concerns, once; a second outcome changes nothing."""
    if not stream._claim(outcome):
        return
    reached(stream, "_when_committed")  # or it never will be
    reached(stream, "_when_finished")
    error = _untold(stream, outcome)
    if not needs_settling(stream):
        if error is not None:
            stream._failure = error  # for a hook that comes late
        return
    if error is not None:
        report(stream, error)
    for call in stream._finish_calls():
        try:
            _unawaited(call())
        except Exception as fault:
            log_error(stream, "an on_finish hook failed", fault)


async def settle_async(stream: AsyncResponseStream, outcome: Outcome) -> None:
    """`settle`, awaited."""
    if not stream._claim(outcome):
        return
    reached(stream, "_when_committed")  # or it never will be
    reached(stream, "_when_finished")
    error = _untold(stream, outcome)
    if not needs_settling(stream):
        if error is not None:
            stream._failure = error  # for a hook that comes late
        return
    if error is not None:
        await report_async(stream, error)
    cancelled: asyncio.CancelledError | None = None
    for call in stream._finish_calls():
        try:
            await finished(call())
        except asyncio.CancelledError as word:
            cancelled = word  # of the server, amid this hook: the others are called all the same
        except Exception as fault:
            log_error(stream, "an on_finish hook failed", fault)
    if cancelled is not None:
        raise cancelled


def _untold(stream: BaseStream, outcome: Outcome) -> BaseException | None:
    """The error of an end that came from outside the producer, for the error hooks."""
    if stream._head is None:
        return None
    if outcome == "failed":
        return stream._uncarried
    if stream._ending is not None and not stream._given_up:
        return None if ends_cleanly(stream, stream._ending) else stream._ending
    if outcome in ("disconnected", "timed_out", "shut_down") and not stream.ignore_disconnect:
        return ClientDisconnected()
    return None


def run_commit_hooks(stream: AsyncResponseStream) -> Awaitable[None] | None:
    """Call the hooks of the commit now, up to the first that waits; the rest, if there is one."""
    while hooks := stream._taken("commit"):
        for index, hook in enumerate(hooks):
            result = hook(stream)
            if inspect.isawaitable(result):
                return _commit_hooks_from(stream, result, hooks[index + 1 :])
    return None


async def _commit_hooks_from(
    stream: AsyncResponseStream, first: Awaitable[Any], hooks: list[Callable[..., Any]]
) -> None:
    await first
    while hooks:
        for hook in hooks:
            await finished(hook(stream))
        hooks = stream._taken("commit")  # a hook may have added one


def _unawaited(result: Any) -> None:
    """What a hook of a synchronous stream returned: a coroutine would be lost without a word."""
    if inspect.iscoroutine(result):
        result.close()
        raise OptionsError([f"a synchronous stream awaits nothing, but its hook returned {result!r}"])


async def finished(result: Any) -> None:
    """Await what a hook returned, if it can be awaited."""
    if inspect.isawaitable(result):
        await result
