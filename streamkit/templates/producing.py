"""The producers of a page: its texts, gathered into pieces, and then its deferred blocks.

Rule: twins, `render` on a thread and `render_async` as a task; only `await` differs. What the template
gives is appended to a list as fast as the interpreter can; the engine sends what has waited.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..core.gathering import PIECE
from ..errors import StreamError
from .later import close_all
from .rendering import Rendering, rendering_now

if TYPE_CHECKING:
    from .description import TemplateResponse

BATCH = 64  # texts that are taken from a template at a time

_MISSING: Any = object()
# anyio says "no loop here" to its worker threads with it, which a task must not inherit from a view there.
_OF_THE_THREAD = "current_async_library_cvar"


def adopt(captured: Context, excluded: tuple[str, ...]) -> None:
    """Take the variables of a context for one's own; what runs here has a context of its own."""
    for variable, value in captured.items():
        if variable.name == _OF_THE_THREAD or variable.name in excluded:
            continue
        if variable.get(_MISSING) is not value:
            variable.set(value)


def render(stream: Any) -> None:
    """Render on a thread."""
    response: TemplateResponse = stream.response
    adopt(response.captured, stream.options.excluded_context)
    if response.whole:
        stream.write(response.measured(stream, _whole(response, stream)))
        return
    gather = stream.gather()
    rendering = Rendering(response, gather, defers=response.defers_for(stream))
    gather.on_first = response.first_piece(stream)
    rendering_now.set(rendering)
    try:
        _render(rendering, gather)
    except BaseException as error:
        if stream.committed and not isinstance(error, StreamError):
            with suppress(StreamError):  # `error` is the one to tell of
                gather.flush()  # what was rendered before it failed
        raise
    finally:
        gather.close()
        rendering.close()


def _render(rendering: Rendering, gather: Any) -> None:
    if rendering.delays_at_once:
        rendering.run_delays()
    parts: list[str] = gather.parts
    texts = rendering.begin()
    size, taken, batch = 0, gather.taken, BATCH // 8
    try:
        for text in texts:
            if taken != gather.taken:  # by a tag, or by the clock
                size, taken = sum(map(len, parts)), gather.taken
            before = len(parts)
            parts.append(text)
            parts.extend(islice(texts, batch))  # as fast as the interpreter can; the clock sees each of them
            made = sum(map(len, parts[before:]))
            size += made
            # Of long texts fewer at a time: some four batches are a piece.
            batch = min(BATCH, (batch + 1) * PIECE // (4 * made)) if made else BATCH
            if size >= PIECE:
                gather.flush()
    except StreamError:
        raise
    except Exception:
        rendering.response.environment.handle_exception()
    finally:
        texts.close()
    rendering.end()
    rendering.run_delays()
    tail = rendering.held_tail()
    gather.flush(last=True)
    for block in rendering.blocks_of(rendering.page):
        parts.append(block)
        gather.flush(last=True)
    if tail:
        parts.append(tail)
        gather.flush(last=True)


def _whole(response: TemplateResponse, stream: Any) -> str:
    rendering = Rendering(response, None, defers=False)
    rendering_now.set(rendering)
    if rendering.delays_at_once:
        rendering.run_delays()
    parts: list[str] = []
    rendering.on_top = response.early_hints(stream, parts)
    try:
        parts.extend(rendering.begin())
    except Exception:
        response.environment.handle_exception()
    rendering.end()
    rendering.run_delays()
    rendering.close()
    return "".join(parts)


async def render_async(stream: Any) -> None:
    """Render as a task."""
    response: TemplateResponse = stream.response
    adopt(response.captured, stream.options.excluded_context)
    if response.whole:
        try:
            await stream.write(response.measured(stream, await _whole_async(response, stream)))
        finally:
            close_all(response.context)
        return
    gather = stream.gather()
    rendering = Rendering(response, gather, defers=response.defers_for(stream))
    gather.on_first = response.first_piece(stream)
    rendering_now.set(rendering)
    try:
        await _render_async(rendering, gather)
    except BaseException as error:
        if stream.committed and isinstance(error, Exception) and not isinstance(error, StreamError):
            with suppress(StreamError):  # `error` is the one to tell of
                await gather.flush()  # what was rendered before it failed
        raise
    finally:
        gather.close()
        rendering.close()
        close_all(response.context)


async def _render_async(rendering: Rendering, gather: Any) -> None:
    if rendering.delays_at_once:
        await rendering.run_delays_async()
    parts: list[str] = gather.parts
    texts = rendering.begin()
    size, taken = 0, gather.taken
    try:
        async for text in texts:
            parts.append(text)
            if taken != gather.taken:  # by a tag, or by the timer
                size, taken = 0, gather.taken
            size += len(text)
            if size >= PIECE:
                await gather.flush()
    except StreamError:
        raise
    except Exception:
        rendering.response.environment.handle_exception()
    finally:
        await texts.aclose()
    rendering.end()
    await rendering.run_delays_async()
    tail = rendering.held_tail()
    await gather.flush(last=True)
    async for block in rendering.blocks_of_async(rendering.page):
        parts.append(block)
        await gather.flush(last=True)
    if tail:
        parts.append(tail)
        await gather.flush(last=True)


async def _whole_async(response: TemplateResponse, stream: Any) -> str:
    rendering = Rendering(response, None, defers=False)
    rendering_now.set(rendering)
    if rendering.delays_at_once:
        await rendering.run_delays_async()
    parts: list[str] = []
    rendering.on_top = response.early_hints(stream, parts)
    try:
        async for text in rendering.begin():
            parts.append(text)  # noqa: PERF401  # what is there so far is looked at
    except Exception:
        response.environment.handle_exception()
    rendering.end()
    await rendering.run_delays_async()
    rendering.close()
    return "".join(parts)
