"""One template on its way to one client.

A rendering knows what its tags ask for: what is gathered and to be sent, the delayed functions that
have not run, the content of the layout, the blocks that are deferred. The tags find it in the
template's own context (or, for `{% flush %}`, in a context variable), so a template that is rendered
in the midst of another one does not touch it.

Rule: texts are only ever added in the order of the page. What is out of order is deferred, and says so.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..core.gathering import Ready
from ..errors import ProducerError
from .blocks import Filler, Region, Slots

if TYPE_CHECKING:
    from .description import TemplateResponse

# In the template's own context. No template can name it, for it has a space.
KEY = "streamkit rendering"
PIECES = "_streamkit_pieces"  # what gives the texts of a content that is no template

csp_nonce: ContextVar[str | None] = ContextVar("csp_nonce", default=None)
rendering_now: ContextVar[Rendering | None] = ContextVar("streamkit_rendering", default=None)

# What closes a page: deferred blocks go before it.
_TAIL = re.compile(r"\s*</body\s*>(?:\s*</html\s*>)?\s*\Z", re.IGNORECASE)


class Rendering:
    """What the tags of a page share."""

    def __init__(self, response: TemplateResponse, gather: Any, *, defers: bool) -> None:
        self.response = response
        self.gather = gather  # None for a page that is sent whole
        self.defers = defers
        self.context: Any = None
        self._delays = list(response.delay)
        self._entered: set[str] = set()  # blocks that the layout has reached
        self._token = ""
        self._count = 0
        self.region: Region = Filler(response.nonce)
        self.page = self.region
        self.slots: list[Slots | None] = []  # of each `{% slots %}` that is open: the region, if it made one
        self.ending: Slots | None = None  # the region whose blocks come next
        self._fed = False  # the content was rendered
        self.captures = 0  # how many get hold of the text that is rendered now, before the page
        self.on_top: Callable[[], Any] | None = None  # of a whole page: its top is rendered

    # -- the beginning

    def begin(self) -> Any:
        """The texts of the page, none of which is made yet. The delayed functions may still have to run."""
        template = self.response.template
        variables = {**self.response.context, KEY: self}
        if self.response.pieces is not None:
            variables[PIECES] = self.response.pieces
        self.context = context = template.new_context(variables)
        if self.waits_for_block:
            for name, blocks in context.blocks.items():
                context.blocks[name] = [Entered(blocks[0], name, self), *blocks[1:]]
        return template.root_render_func(context)

    @property
    def waits_for_block(self) -> bool:
        """Whether this page is the child of a layout, whose top goes before the page's own blocks."""
        template = self.response.template
        # The only trace that `{% extends %}` leaves in compiled code.
        return "parent_template" in template.root_render_func.__code__.co_varnames

    @property
    def delays_at_once(self) -> bool:
        """Whether there is no layout whose top could leave before the delayed functions run."""
        return self.response.content is None and not self.waits_for_block

    def join(self, function: Callable[[], Any], result: Any, context: Any = None) -> None:
        """Put what a delayed function returned into the context."""
        if result is None:
            return
        if not isinstance(result, Mapping):
            raise ProducerError(
                f"delay: wanted a mapping or None from {function!r}, got {type(result).__name__}: {result!r}"
            )
        if self.context is None:
            self.response.context.update(result)
            return
        self.context.vars.update(result)
        if context is not None and context is not self.context:
            context.vars.update(result)

    def run_delays(self, context: Any = None) -> None:
        """Run those delayed functions that have not run."""
        while self._delays:
            function = self._delays.pop(0)
            result = function()
            if isawaitable(result):
                close = getattr(result, "close", None)
                if close is not None:
                    close()
                raise ProducerError(
                    f"delay: {function!r} is asynchronous, which needs Environment(enable_async=True)"
                )
            self.join(function, result, context)

    async def run_delays_async(self, context: Any = None) -> None:
        """`run_delays`, awaited."""
        while self._delays:
            function = self._delays.pop(0)
            result = function()
            self.join(function, await result if isawaitable(result) else result, context)

    def end(self) -> None:
        """The template is through: what it should have rendered has been."""
        if self.response.content is not None and not self._fed:
            raise ProducerError(
                f"wanted a layout with {{% content %}}, where {self.response.content.name!r} belongs: "
                f"{self.response.template.name!r} came to its end without it"
            )

    def close(self) -> None:
        """Let go of the context, which refers to this, and of what a block that hangs must not keep."""
        self.context = self.gather = None

    # -- the tags

    def flush(self) -> Any:
        """Send what is rendered so far; in an asynchronous environment to be awaited."""
        gather = self.gather
        if gather is not None:
            return gather.flush()
        on_top, self.on_top = self.on_top, None
        return None if on_top is None else on_top()

    def enters_first(self, name: str, context: Any) -> bool:
        """Whether the layout reaches a block of the page's own, for the first time."""
        if name in self._entered or len(context.blocks[name]) < 2:
            return False
        self._entered.add(name)
        return True

    def is_delay_of(self, name: str) -> bool:
        """Whether the delayed functions run before this block: the page's `content`, or the first it has."""
        if not self._delays or self.response.content is not None:
            return False
        return name == "content" or "content" not in self.response.template.blocks

    def before_content(self, context: Any) -> Any:
        """The layout has come to its `{% content %}`."""
        if self.response.is_async:
            return self._before_content_async(context)
        self.flush()
        self.run_delays(context)
        return None

    async def _before_content_async(self, context: Any) -> None:
        flushed = self.flush()
        if flushed is not None:
            await flushed
        await self.run_delays_async(context)

    def take_content(self) -> Any:
        """The template of the content; None if this page has none, or it was rendered already."""
        if self._fed:
            return None
        self._fed = True
        return self.response.content

    def defer(self, body: Callable[[], Any]) -> tuple[str, Region]:
        """Begin a block beside the page; its id, and where it will go."""
        if not self._token:
            # Not to be guessed by whoever may put markup with an id into the page.
            self._token = secrets.token_hex(6)
        self._count += 1
        key = f"sk-{self._token}-{self._count}"
        self.region.open.add(key)
        environment = self.response.environment
        work: Any = (
            _in_place_async(environment, body) if self.response.is_async else _in_place(environment, body)
        )
        if self.response.beside is not None and not self.response.is_async:
            work = self.response.beside(work)
        self.gather.begin((key, self.region), work)
        return key, self.region

    def open_slots(self, is_captured: bool) -> bool:
        """Begin a region of slots; False where nothing is deferred, or one stands around it."""
        opens = self.defers and not is_captured and not self.captures and self.region is self.page
        self.slots.append(Slots() if opens else None)
        self.region = self.slots[-1] or self.region
        return opens

    def close_slots(self) -> bool:
        """The innermost `{% slots %}` has ended; whether it was a region."""
        closes = self.slots.pop() is not None
        if closes:
            self.region = self.page
        return closes

    # -- the deferred blocks

    def blocks_of(self, region: Region) -> Iterator[str]:
        """The deferred blocks of a region as they become ready, to be sent one by one."""
        while region.open or region.held:
            ready = region.held.pop(0) if region.held else self.gather.next()
            if ready is None:
                return
            key, place = ready.key
            if place is not region:
                place.held.append(ready)
                continue
            region.open.discard(key)
            if ready.error is None:
                yield Markup("".join((region.before(key), ready.result, region.after(key))))
                continue
            yield Markup(region.before(key))  # what the hook writes stands in the block's place
            if not self.gather.is_mended(ready.error):
                raise ready.error
            yield Markup(region.after(key))

    async def blocks_of_async(self, region: Region) -> AsyncIterator[str]:
        """`blocks_of`, awaited."""
        while region.open or region.held:
            ready: Ready | None = region.held.pop(0) if region.held else await self.gather.next()
            if ready is None:
                return
            key, place = ready.key
            if place is not region:
                place.held.append(ready)
                continue
            region.open.discard(key)
            if ready.error is None:
                yield Markup("".join((region.before(key), ready.result, region.after(key))))
                continue
            yield Markup(region.before(key))
            if not await self.gather.is_mended(ready.error):
                raise ready.error
            yield Markup(region.after(key))

    def held_tail(self) -> str:
        """The end of the page, taken back as long as blocks have to go before it."""
        if not self.page.open and not self.page.held:
            return ""
        text: str = self.gather.take_back()
        found = _TAIL.search(text)
        end = len(text) if found is None else found.start()
        self.gather.parts.append(text[:end])
        return text[end:]


def rendering_of(context: Any) -> Rendering | None:
    """The page that this context belongs to, unless it is used by a deferred block, beside the page."""
    # In its parent is what the context was made with; `context.get` would take three times as long.
    rendering: Rendering | None = context.parent.get(KEY)
    return rendering if rendering is rendering_now.get() else None


class Entered:
    """A block of a page, at which its layout's top is complete."""

    __slots__ = ("_block", "_name", "_rendering")

    def __init__(self, block: Callable[[Any], Any], name: str, rendering: Rendering) -> None:
        self._block = block
        self._name = name
        self._rendering = rendering

    def __call__(self, context: Any) -> Any:
        rendering, name = self._rendering, self._name
        if not rendering.enters_first(name, context):
            return self._block(context)
        delays = rendering.is_delay_of(name)
        if not rendering.response.is_async:
            rendering.flush()
            if delays:
                rendering.run_delays(context)
            return self._block(context)
        if delays or rendering.on_top is not None:
            return self._after_delays(context, delays=delays)
        gather = rendering.gather
        if gather is not None:
            gather.push()
        return self._block(context)

    async def _after_delays(self, context: Any, *, delays: bool) -> AsyncIterator[str]:
        if delays:
            await self._rendering.before_content(context)
        else:
            flushed = self._rendering.flush()
            if flushed is not None:
                await flushed
        texts = self._block(context)
        try:
            async for text in texts:
                yield text
        finally:
            await texts.aclose()

    # `super()` looks for the block that it stands in, by comparison.
    def __eq__(self, other: object) -> bool:
        return other is self._block or other is self

    def __hash__(self) -> int:
        return hash(self._block)


def _in_place(environment: Any, body: Callable[[], str]) -> Callable[[], str]:
    def work() -> str:
        rendering_now.set(None)  # in a context of its own
        try:
            return body()
        except Exception:
            return environment.handle_exception()  # type: ignore[no-any-return]

    return work


async def _in_place_async(environment: Any, body: Callable[[], Coroutine[Any, Any, str]]) -> str:
    rendering_now.set(None)  # a task has a context of its own
    try:
        return await body()
    except Exception:
        return environment.handle_exception()  # type: ignore[no-any-return]
