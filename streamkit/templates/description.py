"""A response that is rendered from a template.

    templates = streamkit.Templates(environment)
    return templates.chunked("page.html", layout="layout.html", albums=albums)

Rule: what can be wrong is found here, before anything is sent: templates are loaded, functions and
nonces checked. What the tags do while the page is rendered stands in `rendering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from markupsafe import Markup

from ..core.context import unchunked
from ..core.headers import Items, charset_of, value_of
from ..core.nonce import check_nonce, nonce_in
from ..core.preload import preload_links
from ..core.request import header_of
from ..core.response import StreamingResponse
from ..errors import OptionsError, ProducerError
from ..options import Options
from ._missing import check_jinja
from .given import Content, Delay, delay_of, pieces_of
from .later import awaited_later
from .producing import render, render_async
from .rendering import PIECES, csp_nonce

if TYPE_CHECKING:
    from jinja2 import Environment, Template

Name: TypeAlias = "str | Template | Sequence[str | Template]"
Defer: TypeAlias = "bool | Callable[[Any], bool]"

CONTENT_TYPE = "text/html; charset=utf-8"
# The browser of whoever may see it can keep it, and asks before it uses it again: a page goes back and
# forth in the history, for which `no-store` would make it be rendered anew.
CACHE_CONTROL = "private, no-cache, no-transform"

_NONE = Options()
_KEPT = Options(cache_control=CACHE_CONTROL)


class Templates:
    """The templates of a `jinja2.Environment`, to be sent in pieces.

    `options` are those of all responses made here, as an `Options` or a mapping; they go over those of
    the app. The extension `streamkit.templates.Streaming` is added to the environment, unless it is there.
    Raises `ProducerError` for what is no such environment, `OptionsError`, and `ImportError` without Jinja2.
    """

    def __init__(self, environment: Environment, options: Options | Mapping[str, Any] | None = None) -> None:
        check_jinja()
        from .extension import add_to

        self.environment = add_to(environment)
        self.options = None if options is None else Options.of(options, {})
        self._pieces: Template | None = None

    def chunked(
        self,
        name: Name | None = None,
        *,
        layout: Name | None = None,
        delay: Delay = (),
        content: Content | None = None,
        status: int = 200,
        headers: Items = None,
        context: Mapping[str, Any] | None = None,
        preload: bool = False,
        nonce: str | None = None,
        defer: Defer = True,
        on_error: Callable[..., object] | None = None,
        callback: Callable[[], object] | None = None,
        **more_context: Any,
    ) -> TemplateResponse:
        """Describe a page that is sent while it is rendered.

        - `name`: a template, or several, of which the first that exists is taken.
        - `layout`: the template around it, with `{% content %}` where it belongs.
        - `delay`: functions without arguments, run in order when the top of the layout has left and
          before the content; a mapping that one returns joins the context. In an asynchronous
          environment they may be coroutine functions.
        - `content`: text, an iterable of texts, or a function that returns either, in place of `name`.
          It is escaped as any variable, unless it is `Markup`.
        - `preload`: name the style sheets and scripts of the first piece in `Link` headers.
        - `nonce`: of the page's Content Security Policy, for the scripts of deferred blocks; if it is left
          out, the context variable `csp_nonce`, or what a Content-Security-Policy among `headers` names.
        - `defer`: False has deferred blocks rendered in their place; or a function of the request (a WSGI
          environ or an ASGI scope) that says whether they may be deferred. Requests with `Save-Data: on`,
          and those of HTTP/1.0, never have them deferred.
        - `on_error(stream, error)`: called for each error after the first piece; see `streamkit.stream`.
        - `context`, and all other keywords: the context of the template and its layout.

        Raises `ProducerError`, `HeaderError`, `OptionsError`, and what Jinja2 raises for a template that
        it cannot load.
        """
        return self._describe("chunked", name, layout, delay, content, status, headers, context, preload,
                              nonce, defer, on_error, callback, more_context)  # fmt: skip

    def view(
        self,
        name: Name | None = None,
        *,
        layout: Name | None = None,
        delay: Delay = (),
        content: Content | None = None,
        status: int = 200,
        headers: Items = None,
        context: Mapping[str, Any] | None = None,
        preload: bool = False,
        nonce: str | None = None,
        defer: Defer = True,
        on_error: Callable[..., object] | None = None,
        callback: Callable[[], object] | None = None,
        **more_context: Any,
    ) -> TemplateResponse:
        """Describe a page that is sent whole, with its length; see `chunked`.

        With the option `chunk_by_default` it is sent in pieces, as by `chunked`, unless it has `content`.
        """
        return self._describe("view", name, layout, delay, content, status, headers, context, preload,
                              nonce, defer, on_error, callback, more_context)  # fmt: skip

    @staticmethod
    def no_chunk() -> None:
        """Have the next page that is described in this context sent whole, also where it is `chunked`.

        It holds for one page of this request: whichever is described next takes it up. A request
        that describes none leaves it to nobody where the app is wrapped, or runs under ASGI.
        """
        unchunked.say()

    def fragment(self, name: Name, **context: Any) -> Any:
        """Render a template whole, as `Markup`: to be written by an error hook, or put into a context.

        To be awaited in an asynchronous environment. Deferred blocks are in their place.
        """
        template = self._loaded(name)
        if self.environment.is_async:
            return _fragment_async(template, context)
        return Markup(template.render(context))

    def _loaded(self, name: Any) -> Template:
        return self.environment.get_or_select_template(name)

    def _describe(
        self,
        way: Literal["chunked", "view"],
        name: Name | None,
        layout: Name | None,
        delay: Delay,
        content: Content | None,
        status: int,
        headers: Items,
        context: Mapping[str, Any] | None,
        preload: bool,
        nonce: str | None,
        defer: Defer,
        on_error: Callable[..., object] | None,
        callback: Callable[[], object] | None,
        more_context: dict[str, Any],
    ) -> TemplateResponse:
        if (name is None) == (content is None):
            raise ProducerError(
                "wanted either the name of a template or `content`, got "
                + ("neither" if name is None else "both")
            )
        whole = unchunked.take()
        pieces = None if content is None else pieces_of(content, is_async=self.environment.is_async)
        inner = self._loaded(name) if name is not None else self._template_of_pieces()
        outer = inner if layout is None else self._loaded(layout)
        return TemplateResponse(
            outer,
            inner if layout is not None else None,
            way="whole" if whole else way,
            pieces=pieces,
            delay=delay,
            context={**(context or {}), **more_context},
            preload=preload,
            nonce=nonce,
            defer=defer,
            status=status,
            headers=headers,
            on_error=on_error,
            callback=callback,
            options=self.options,
        )

    def _template_of_pieces(self) -> Template:
        if self._pieces is None:
            self._pieces = self.environment.from_string(_source_of_pieces(self.environment))
        return self._pieces


def _source_of_pieces(environment: Environment) -> str:
    """Content that is no template, as one. It is text of the application's, so it is escaped."""
    begin, end = environment.block_start_string, environment.block_end_string
    shown = f"{environment.variable_start_string} piece {environment.variable_end_string}"
    source = f"{begin} for piece in {PIECES}() {end}{shown}{begin} endfor {end}"
    if not environment.autoescape:
        return source
    return f"{begin} autoescape true {end}{source}{begin} endautoescape {end}"


async def _fragment_async(template: Template, context: dict[str, Any]) -> Markup:
    return Markup(await template.render_async(context))


class TemplateResponse(StreamingResponse):
    """The description of a page; made by `Templates.chunked`, `Templates.view` and `chunked`."""

    def __init__(
        self,
        template: Template,
        content: Template | None,
        *,
        way: Literal["chunked", "view", "whole"],
        pieces: Callable[[], Any] | None,
        delay: Delay,
        context: dict[str, Any],
        preload: bool,
        nonce: str | None,
        defer: Defer,
        headers: Items,
        **more: Any,
    ) -> None:
        self.template = template  # the layout, where there is one
        self.content = content  # what goes into it
        self.environment: Environment = template.environment
        self.is_async = self.environment.is_async
        super().__init__(
            render_async if self.is_async else render, headers=headers, content_type=CONTENT_TYPE, **more
        )
        self.way = way
        self.whole = way != "chunked"  # settled for each request
        self.pieces = pieces
        self.delay = delay_of(delay, is_async=self.is_async)
        self.context = awaited_later(context) if self.is_async else context
        self.preload = preload
        self.nonce = self._nonce(nonce)
        if not isinstance(defer, bool) and not callable(defer):
            raise OptionsError([f"defer: wanted True, False or a function of the request, got {defer!r}"])
        self._defer = defer
        self.defers = True
        self.captured = copy_context()

    def _nonce(self, given: str | None) -> str | None:
        nonce = csp_nonce.get() if given is None else given
        if nonce is None:
            policy = value_of(self.headers, "content-security-policy")
            return nonce_in(policy) if policy else None
        return check_nonce(nonce)

    def for_request(self, request: Any) -> TemplateResponse:
        """This description for one request, with what its client said."""
        mine = copy(self)
        mine.context = dict(self.context)
        asks_not_to = (header_of(request, "save-data") or "").strip().lower() == "on"
        mine.defers = not asks_not_to and bool(self._defer(request) if callable(self._defer) else self._defer)
        return mine

    def options_over(self, app_wide: Options) -> Options:
        """The app's options and this page's own; those of an ordinary response for one that is sent whole."""
        options = super().options_over(app_wide)
        chunks = self.way == "chunked" or (
            self.way == "view" and options.chunk_by_default and self.pieces is None
        )
        self.whole = not chunks
        if self.whole:
            own = self.options if self.options is not None else _NONE
            names = tuple(name for name in options.headers if name not in own.given_headers)
            cache_control = own.cache_control if "cache_control" in own.given else None
            return options.merged(_of_a_whole(names, cache_control))
        return options if "cache_control" in options.given else options.merged(_KEPT)

    def defers_for(self, stream: Any) -> bool:
        """Whether blocks may come out of order; HTTP/1.0 clients are too old to put them into place."""
        return bool(self.defers and stream.request.version >= (1, 1))

    def measured(self, stream: Any, text: str) -> bytes:
        """A whole body, whose length is declared from now on."""
        first = self.first_piece(stream)
        if first is not None:
            first(text)
        body = text.encode(charset_of(stream.content_type))
        self.content_length = len(body)
        return body

    def early_hints(self, stream: Any, parts: list[str]) -> Callable[[], Any] | None:
        """What sends the links of a whole page's top ahead of it, while the rest is rendered (RFC 8297).

        A page in pieces needs none: its head leaves with its top.
        """
        hints = stream._hints
        if not self.preload or hints is None:
            return None

        def send_links() -> Any:
            links = preload_links("".join(parts))
            return hints(links) if links else None

        return send_links

    def first_piece(self, stream: Any) -> Callable[[str], None] | None:
        """What is to be done with the first piece, before the head leaves."""
        if not self.preload:
            return None

        def add_links(text: str) -> None:
            for link in preload_links(text):
                stream.headers.add("Link", link)

        return add_links

    def __repr__(self) -> str:
        return f"<TemplateResponse {self.status} {self.way} of {(self.content or self.template).name!r}>"


# Shared, as `_KEPT` is: to check options takes longer than to describe a page.
@lru_cache
def _of_a_whole(headers: tuple[str, ...], cache_control: str | None) -> Options:
    """What makes a stream of ours an ordinary response, less these headers: it is long before it is sent."""
    return Options(
        headers=dict.fromkeys(headers),
        cache_control=cache_control,
        http10="auto",
        max_streams=None,
        commit_after=None,
    )


def chunked(
    template: Template, *, options: Options | Mapping[str, Any] | None = None, **wishes: Any
) -> TemplateResponse:
    """Describe a page from a template that is loaded already; see `Templates.chunked`.

    `options` are those of this response, over the app's, as in every other description (a variable of
    the page that is called `options` goes into `context`). `layout` may be a template too, or a name that
    the template's environment loads. Raises what `Templates.chunked` raises, and `ProducerError` for the
    name of a template.
    """
    check_jinja()
    from jinja2 import Template as Loaded

    if not isinstance(template, Loaded):
        raise ProducerError(
            f"wanted a jinja2.Template, got {template!r}: names are for Templates(environment).chunked"
        )
    return Templates(template.environment, options).chunked(template, **wishes)
