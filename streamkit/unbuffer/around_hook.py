"""Flask's and Quart's after_request functions, and views behind Flask-Caching's decorator.

A hook gets a placeholder in a stream's place, and what it adds to that head is put on the stream's. A
cached view that returns a stream is let go past the decorator by an exception, so that nothing of it
is kept.

Rule: what is no stream reaches the hook as the very object it is.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..core.headers import Pairs
from ..core.response import StreamingResponse
from .heads import is_computed, is_meant, merged, placeholder

LOG = logging.getLogger("streamkit")


Hook = Callable[[Any], Any]


def around_hook(hook: Hook) -> Hook:
    """This after_request function, called with placeholders for streams."""
    if not inspect.iscoroutinefunction(hook):

        @functools.wraps(hook)
        def around(response: Any) -> Any:
            if not _is_streamed(response):
                return hook(response)
            placeholder_of = _Placeholder(response)
            try:
                return placeholder_of.restored(hook(placeholder_of.made))
            except Exception as error:
                return placeholder_of.failed(hook, error)

        around.around = hook  # type: ignore[attr-defined]
        return around

    @functools.wraps(hook)
    async def around_async(response: Any) -> Any:
        if not _is_streamed(response):
            return await hook(response)
        placeholder_of = _Placeholder(response)
        try:
            return placeholder_of.restored(await hook(placeholder_of.made))
        except Exception as error:
            return placeholder_of.failed(hook, error)

    around_async.around = hook  # type: ignore[attr-defined]
    return around_async


class _Placeholder:
    """What a hook gets in the place of one stream."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._own: Pairs = list(response.headers.items())
        self._given, sent = placeholder(response.status_code, self._own)
        self.made = _made_like(response, self._given, sent)
        self._sent: Pairs = list(self.made.headers.items())  # with what its class adds

    def restored(self, answer: Any) -> Any:
        """The stream, with what the hook has added to its head; or the hook's own answer."""
        response = self._response
        if not is_computed(answer.status_code, self._given, self._own):
            close = getattr(response, "close", None)
            if close is not None:
                close()
            return answer
        headers = merged(self._own, self._sent, list(answer.headers.items()), answer.status_code)
        response.headers.clear()
        response.headers.extend(headers)
        for ending in getattr(answer, "_on_close", ()):  # `call_on_close`: of the stream's end, then
            response.call_on_close(ending)
        return response

    def failed(self, hook: Hook, error: Exception) -> Any:
        if is_meant(error):
            raise error
        LOG.warning(
            "%r failed on the empty body that stands for a stream; the stream goes on", hook, exc_info=error
        )
        return self._response


def _made_like(response: Any, status: int, headers: Pairs) -> Any:
    """An empty response of this one's class, or of the nearest base class that can be made so."""
    *kinds, last = (kind for kind in type(response).__mro__ if hasattr(kind, "set_data"))
    for kind in kinds:
        try:
            return kind(b"", status=status, headers=headers)
        except Exception:  # a class of the application's own may want more arguments, and check them
            continue
    return last(b"", status=status, headers=headers)


def _is_streamed(response: Any) -> bool:
    is_streamed = getattr(response, "is_streamed", None)
    if is_streamed is None:  # Quart
        body = getattr(response, "response", None)
        is_streamed = type(body).__name__ not in ("DataBody", "FileBody", "IOBody")
    return bool(is_streamed) and "Content-Length" not in response.headers


class _PastCache(BaseException):
    """Carries a view's stream past the decorator that would keep it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(answer)
        self.answer = answer


_around: ContextVar[bool] = ContextVar("streamkit.unbuffer.around", default=False)


def around_view(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view whose streams go past its caching decorator."""

    @functools.wraps(view)
    def around(*args: Any, **values: Any) -> Any:
        token = _around.set(True)
        try:
            return view(*args, **values)
        except _PastCache as past:
            return past.answer
        finally:
            _around.reset(token)

    around.around = view  # type: ignore[attr-defined]
    return around


def inside_view(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view below the decorator."""

    @functools.wraps(view)
    def inside(*args: Any, **values: Any) -> Any:
        answer = view(*args, **values)
        body = answer[0] if isinstance(answer, tuple) and answer else answer
        if _around.get() and _is_stream_of_view(body):
            raise _PastCache(answer)
        return answer

    return inside


def _is_stream_of_view(body: Any) -> bool:
    if isinstance(body, StreamingResponse) or inspect.isgenerator(body):
        return True
    return hasattr(body, "is_streamed") and _is_streamed(body)
