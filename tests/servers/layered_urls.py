"""The URLs and one middleware of `layered_app`'s Django site."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.cache import never_cache

import streamkit
from streamkit.frameworks.django import respond

from . import layered_app as layered


def marking(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        response["X-Layer"] = "seen"
        return response

    return middleware


def stream(request: Any) -> Any:
    return StreamingHttpResponse(layered.chunks(request.GET["key"]), content_type=layered.HTML)


def described(request: Any) -> Any:
    description = streamkit.stream(layered.chunks(request.GET["key"]), content_type=layered.HTML)
    return respond(request, description)


def go(request: Any) -> Any:
    return HttpResponse(layered.go(request.GET["key"]))


urlpatterns = [
    path("plain", lambda request: HttpResponse("plain")),
    path("go", never_cache(go)),
    path("page", lambda request: HttpResponse(layered.PAGE)),
    path("stream", stream),
    path("described", described),
]
