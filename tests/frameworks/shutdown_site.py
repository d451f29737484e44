"""An event stream without an end in each framework, set up without `streamkit.wrap`, for real servers.

    gunicorn tests.frameworks.shutdown_site:django_wsgi
    uvicorn tests.frameworks.shutdown_site:starlette_app
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import streamkit

NEVER = 60.0  # seconds after which a producer gives up: nobody waits so long


def wait(stream: Any) -> None:
    stream.send("0")
    stream.wait_finished(NEVER)


async def wait_async(stream: Any) -> None:
    await stream.send("0")
    await asyncio.sleep(NEVER)


@cache  # a server may ask twice
def _django() -> tuple[Any, Any]:
    import django
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.urls import path

    from streamkit.frameworks.django import respond

    settings.configure(
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["streamkit.frameworks.django.StreamKitMiddleware"],
        ROOT_URLCONF=(
            path("plain", lambda request: HttpResponse("plain")),
            path("events", lambda request: respond(request, streamkit.event_stream(wait))),
        ),
        SECRET_KEY="of the tests",
    )
    django.setup()
    return WSGIHandler(), ASGIHandler()


def _starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from streamkit.frameworks.starlette import respond

    async def plain(request: Any) -> Any:
        return PlainTextResponse("plain")

    async def events(request: Any) -> Any:
        return respond(streamkit.event_stream(wait_async))

    return Starlette(routes=[Route("/plain", plain), Route("/events", events)])


def __getattr__(name: str) -> Any:
    if name == "starlette_app":
        return _starlette()
    if name in ("django_wsgi", "django_asgi"):
        return _django()[name == "django_asgi"]
    raise AttributeError(name)
