"""The responses that Django gets: their head is known, or awaited, and their body is still being made.

Rule: nothing here knows a producer; a body is begun and ended elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from http.cookies import Morsel, SimpleCookie
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpResponseBase, StreamingHttpResponse
from django.utils.cache import patch_vary_headers

from ..core.response import StreamingResponse
from ..options import Options
from ._asgi import Begun

IDENTITY = "identity"  # a Content-Encoding that makes compressing middleware step aside


class Streaming(StreamingHttpResponse):  # type: ignore[misc]
    """A response whose body is still being made."""

    status_code: int
    headers: Any
    cookies: Any

    def __init__(self, body: Any, status: int, headers: Iterable[tuple[str, str]], options: Options) -> None:
        super().__init__(body, status=status)
        self.body = body
        self._take(headers, options)

    def _take(self, headers: Iterable[tuple[str, str]], options: Options) -> None:
        """Have these headers, which were committed, and no others."""
        for name in list(self.headers):
            del self.headers[name]
        for name, value in headers:
            if name.lower() == "set-cookie":
                cookie = Cookie.of(value)
                self.cookies[cookie.key] = cookie
            elif name in self.headers:
                self.headers[name] = f"{self.headers[name]}, {value}"
            else:
                self.headers[name] = value
        if "gzip" in options.strip and "Content-Encoding" not in self.headers:
            self.headers["Content-Encoding"] = IDENTITY

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body; where Django iterates no further, the producer ends before the request does."""
        is_over = False
        try:
            async for part in super().__aiter__():
                yield part
            is_over = True
        finally:
            if not is_over:
                if isinstance(self.body, AsyncBody):
                    await self.body.end()
                await sync_to_async(self.close)()

    def close(self) -> None:
        """As Django's, but once: for a stream that fails, the ASGI handler of Django does not call it."""
        if not self.closed:
            super().close()


class Later(Streaming):
    """What `respond` gives an asynchronous view, and begins when it is awaited, or else rendered.

    Until then its head is the described one, and may be changed. Django renders what has the method
    when its view has returned it, as it does with a `TemplateResponse`; errors are still the view's.
    """

    def __init__(self, description: StreamingResponse, begin: Callable[[], Any]) -> None:
        super().__init__((), description.status, description.headers, Options())
        self._described = (self.status_code, dict(self.headers.items()))
        self._begin: Callable[[], Any] | None = begin
        self._callbacks: list[Callable[[Any], Any]] = []

    def add_post_render_callback(self, callback: Callable[[Any], Any]) -> None:
        """As `TemplateResponse` has it; view decorators call it."""
        self._callbacks.append(callback)

    def _rendered(self) -> Any:
        response: Any = self
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            response = callback(response) or response
        return response

    def _taken(self) -> Callable[[], Any] | None:
        begin, self._begin = self._begin, None
        return begin

    def _be(self, begun: HttpResponseBase) -> None:
        """Become the response that has begun, with what was changed of the described head since."""
        status, headers = self._described
        changed = {name: value for name, value in self.headers.items() if headers.get(name) != value}
        removed = [name for name in headers if name not in self.headers]
        if self.status_code == status:
            self.status_code = begun.status_code
        self.headers = begun.headers
        vary = begun.headers.get("Vary")
        for name, value in changed.items():
            self.headers[name] = value
        if vary and "Vary" in changed:  # what was added to it, beside what the head says itself
            patch_vary_headers(self, [field.strip() for field in vary.split(",")])
        for name in removed:
            self.headers.pop(name, None)
        for name, cookie in begun.cookies.items():
            self.cookies[name] = cookie
        if isinstance(begun, Streaming):
            self.body = self.streaming_content = begun.body


class LaterHere(Later):
    """The same under WSGI: Django renders it on the server's thread, and there it begins."""

    def __await__(self) -> Generator[Any, None, LaterHere]:
        return self._awaited().__await__()

    async def _awaited(self) -> LaterHere:
        await sync_to_async(self._begun_here)()
        return self

    def render(self) -> Any:
        """Called by Django."""
        self._begun_here()
        return self._rendered()

    def _begun_here(self) -> None:
        begin = self._taken()
        if begin is not None:
            self._be(begin())


class LaterOnLoop(Later):
    """The same under ASGI: Django awaits what renders it."""

    def __await__(self) -> Generator[Any, None, LaterOnLoop]:
        return self._awaited().__await__()

    async def _awaited(self) -> LaterOnLoop:
        begin = self._taken()
        if begin is not None:
            self._be(await begin())
        return self

    async def render(self) -> Any:
        """Called by Django."""
        await self._awaited()
        return self._rendered()


class AsyncBody:
    """The body under ASGI."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun
        self.end: Callable[[], Awaitable[None]] = begun.end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._begun.chunks()

    def close(self) -> None:
        """Called by Django, by no means always, when it is done with the response."""
        self._begun.abandon()

    __del__ = close


class Cookie(Morsel[str]):
    """A cookie as the committed head has it: `http.cookies` does not know every attribute."""

    committed: str | None = None

    @classmethod
    def of(cls, header: str) -> Cookie:
        read: SimpleCookie = SimpleCookie(header)
        name, _, value = header.partition(";")[0].partition("=")
        cookie = cls()
        if name in read:
            cookie.update(read[name])
            cookie.set(name, read[name].value, read[name].coded_value)
        else:
            cookie.set(name, value, value)
        cookie.committed = header
        return cookie

    def set(self, key: str, val: str, coded_val: Any) -> None:
        """Somebody has set it anew."""
        self.committed = None
        super().set(key, val, coded_val)

    def OutputString(self, attrs: Any = None) -> str:
        """The value of Set-Cookie."""
        return self.committed or super().OutputString(attrs)
