"""Live endpoints of Starlette take the values of their path by name, as views of Flask and Django do.

Rule: each test asks a whole app through `streamkit.testing`; nothing of Starlette is called by itself.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette")
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount, Route

from streamkit.frameworks.starlette import live
from streamkit.testing import Client


@live
async def named(request: Any, stream: Any, count: int, name: str = "nobody") -> None:
    await stream.write(f"{count} {name}")


@live
def named_by_a_function(request: Any, stream: Any, *, count: int) -> None:
    stream.write(f"{count}")


@live
async def any_name(request: Any, stream: Any, **values: Any) -> None:
    await stream.write(repr(values))


@live
async def none(request: Any, stream: Any) -> None:
    await stream.write(f"{request.path_params}")


class Endpoint(HTTPEndpoint):
    @live
    async def get(self, request: Any, stream: Any, count: int) -> None:
        await stream.write(f"{count}")


@pytest.mark.parametrize(
    ("endpoint", "path", "body"),
    [
        (named, "/3", b"3 nobody"),
        (named, "/3/Ann", b"3 Ann"),
        (named_by_a_function, "/3", b"3"),
        (named_by_a_function, "/3/Ann", b"3"),
        (any_name, "/3/Ann", b"{'count': 3, 'name': 'Ann'}"),
        (none, "/3", b"{'count': 3}"),
        (Endpoint, "/3", b"3"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/below"])
def test_a_live_endpoint_gets_the_values_of_its_path_by_name(
    endpoint: Any, path: str, body: bytes, prefix: str
) -> None:
    routes = [Route("/{count:int}", endpoint), Route("/{count:int}/{name}", endpoint)]
    app = Starlette(routes=[Mount(prefix, routes=routes)] if prefix else routes)
    with Client(app) as client, client.get(prefix + path) as answer:
        assert answer.read() == body


def test_a_path_may_name_a_value_as_the_stream_is_named() -> None:
    app = Starlette(routes=[Route("/{stream}/{request}", any_name)])
    with Client(app) as client, client.get("/a/b") as answer:
        assert answer.read() == b"{}"
