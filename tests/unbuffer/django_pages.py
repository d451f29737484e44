"""A Django site of one stream and one page, whose middleware each test chooses.

Rule: `site` makes a handler; the URLs are this module's, so tests have to set ROOT_URLCONF to it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import frameworks.django_site  # noqa: F401  # it configures Django, once for all tests
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from .layered import HTML, PAGE, Drip

HERE = __name__

settings.PIPELINE = {}  # django-pipeline looks for it when it is imported

_drip: Drip


def stream(request: Any) -> Any:
    chunks = _drip.chunks_async() if hasattr(request, "scope") else _drip.chunks()
    return StreamingHttpResponse(chunks, content_type=HTML, headers={"X-App": "kept"})


def page(request: Any) -> Any:
    return HttpResponse(PAGE, content_type=HTML)


urlpatterns = [path("stream", stream), path("page", page)]

SETTINGS = {
    "ROOT_URLCONF": HERE,
    "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
}


def site(drip: Drip, interface: str, middleware: list[str]) -> Any:
    """A handler with this middleware, whose stream is this drip's."""
    global _drip
    _drip = drip
    with override_settings(**SETTINGS, MIDDLEWARE=middleware):
        return WSGIHandler() if interface == "wsgi" else ASGIHandler()


def with_digest(get_response: Any) -> Any:
    """The idiom of many a blog: an ETag of the whole content; a stream has no `content`."""

    def layer(request: Any) -> Any:
        response = get_response(request)
        response.headers["ETag"] = f'"{hashlib.md5(response.content).hexdigest()}"'
        return response

    return layer


def joining(get_response: Any) -> Any:
    """It reads streams whole."""

    def layer(request: Any) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = [b"".join(response.streaming_content)]
        return response

    return layer


@sync_and_async_middleware
def joining_either(get_response: Any) -> Any:
    """The same for both forms of the chain."""
    if not iscoroutinefunction(get_response):

        def layer_here(request: Any) -> Any:
            response = get_response(request)
            if response.streaming:
                response.streaming_content = [b"".join(response.streaming_content)]
            return response

        return layer_here

    async def layer(request: Any) -> Any:
        response = await get_response(request)
        if response.streaming:
            parts = [part async for part in response.streaming_content]

            async def joined() -> Any:
                yield b"".join(parts)

            response.streaming_content = joined()
        return response

    return layer
