"""A layer of Django's or Pyramid's (request -> response) between two halves that hand streams past it.

Both forms of Django's chain are served: where the layer or what it calls returns a coroutine, it is
awaited, and the halves are marked as coroutine functions where the layer was.

Rule: the streaming response object itself goes past the layer; its class and its body stay as they are.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from ..core.headers import Pairs
from .heads import is_computed, is_meant, merged, placeholder

LOG = logging.getLogger("streamkit")

GetResponse = Callable[[Any], Any]

_numbers = itertools.count()


class _Caught(NamedTuple):
    response: Any
    headers: Pairs
    given: int
    sent: Pairs


class InsideRequest:
    """The inner half: what the layer calls, whose streams it does not see."""

    def __init__(self, app: GetResponse) -> None:
        self.app = app
        self.key = f"streamkit_unbuffer_{next(_numbers)}"
        if iscoroutinefunction(app):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        answer = self.app(request)
        if inspect.iscoroutine(answer):
            return self._later(request, answer)
        return self._seen(request, answer)

    async def _later(self, request: Any, answer: Any) -> Any:
        return self._seen(request, await answer)

    def _seen(self, request: Any, response: Any) -> Any:
        """What the layer gets to see."""
        caught: list[_Caught] | None = getattr(request, self.key, None)
        if caught is None or not _is_streamed(response):
            return response
        headers = _headers_of(response)
        given, sent = placeholder(response.status_code, headers)
        caught.append(_Caught(response, headers, given, sent))
        return _placeholder(response, given, sent)


class OutsideRequest:
    """The outer half: the layer, called with streams taken off and put back."""

    def __init__(self, wrapped: GetResponse, inside: InsideRequest) -> None:
        self.wrapped = wrapped
        self._key = inside.key
        if iscoroutinefunction(wrapped):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        caught: list[_Caught] = []
        setattr(request, self._key, caught)
        try:
            answer = self.wrapped(request)
        except BaseException as error:
            delattr(request, self._key)
            return self._after(error, caught)
        if inspect.iscoroutine(answer):
            return self._later(request, answer, caught)
        delattr(request, self._key)
        return self._restored(answer, caught)

    async def _later(self, request: Any, answer: Any, caught: list[_Caught]) -> Any:
        try:
            response = await answer
        except BaseException as error:
            return self._after(error, caught)
        finally:
            delattr(request, self._key)
        return self._restored(response, caught)

    def _after(self, error: BaseException, caught: list[_Caught]) -> Any:
        """The stream of a layer that has failed; raises what was meant to go further."""
        goes_on = bool(caught) and isinstance(error, Exception) and not is_meant(error)
        for lost in caught[:-1] if goes_on else caught:
            _close(lost.response)
        if not goes_on:
            raise error
        LOG.warning(
            "%r failed on the empty body that stands for a stream; the stream goes on",
            self.wrapped,
            exc_info=error,
        )
        return caught[-1].response

    def _restored(self, response: Any, caught: list[_Caught]) -> Any:
        """The stream, with what the layer has added to its head; or the layer's refusal."""
        if not caught:
            return response
        stream = caught[-1]
        for lost in caught[:-1]:  # the layer has called the app more than once
            _close(lost.response)
        if not is_computed(response.status_code, stream.given, stream.headers):
            _close(stream.response)
            return response
        came = _headers_of(response)
        _set_headers(stream.response, merged(stream.headers, stream.sent, came, response.status_code))
        if hasattr(response, "cookies") and hasattr(stream.response, "cookies"):
            stream.response.cookies.update(response.cookies)
        return stream.response


def _close(response: Any) -> None:
    closable = response.app_iter if hasattr(response, "app_iter") else response
    close = getattr(closable, "close", None)
    if close is not None:
        close()


def _is_streamed(response: Any) -> bool:
    if hasattr(response, "app_iter"):  # WebOb
        app_iter = response.app_iter
        return not hasattr(type(app_iter), "__len__") and response.content_length is None
    return bool(getattr(response, "streaming", False)) and not response.has_header("Content-Length")


def _headers_of(response: Any) -> Pairs:
    if hasattr(response, "headerlist"):
        return list(response.headerlist)
    pairs = [(name, value) for name, value in response.headers.items()]
    return [*pairs, *(("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values())]


def _placeholder(response: Any, status: int, sent: Pairs) -> Any:
    if hasattr(response, "headerlist"):
        webob: Any = importlib.import_module("webob")
        return webob.Response(status=status, headerlist=list(sent), app_iter=[])
    http: Any = importlib.import_module("django.http")
    made = http.HttpResponse(status=status)
    _set_headers(made, sent)
    made.cookies.update(response.cookies)
    return made


def _set_headers(response: Any, pairs: Pairs) -> None:
    """Have these headers and no others; cookies that the layer has set are added."""
    if hasattr(response, "headerlist"):
        response.headerlist = list(pairs)
        return
    for name in list(response.headers):
        del response.headers[name]
    for name, value in pairs:
        if name.lower() != "set-cookie":
            before = response.headers.get(name)
            response.headers[name] = value if before is None else f"{before}, {value}"
