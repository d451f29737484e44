"""What on_progress raises while asynchronous rows wait: the next row would tell of it, and there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from driving import PATIENCE

import streamkit
from streamkit.testing import AsyncClient


class Stopped(Exception):
    """Raised by on_progress."""


async def download(rows_end: Callable[[], None], *, leaves: bool = False) -> BaseException:
    """The error that `on_error`, or the log, is told of."""
    progress_failed = asyncio.Event()
    errors: list[BaseException] = []

    async def rows() -> AsyncIterator[list[int]]:
        yield [1]
        yield [2]  # the timer sends it
        await progress_failed.wait()
        if leaves:
            await asyncio.sleep(PATIENCE)
        rows_end()

    def on_progress(rows: int, sent: int) -> None:
        if rows == 2:
            progress_failed.set()
            raise Stopped

    async def app(scope: Any, receive: Any, send: Any) -> None:
        described = streamkit.csv_rows(
            rows(), "a.csv", on_progress=on_progress, on_error=lambda stream, error: errors.append(error)
        )
        await streamkit.asgi.respond(described, scope, receive, send)

    async with AsyncClient(app, lifespan="off", read_ahead=9) as client:
        connection = client.get("/")
        assert await connection.next_chunk() == b"1\r\n"
        assert await connection.next_chunk() == b"2\r\n"
        await asyncio.wait_for(progress_failed.wait(), PATIENCE)
        if leaves:
            connection.disconnect()
            await connection.close()
        else:
            with pytest.raises((Stopped, ZeroDivisionError)):
                await connection.read()
    return errors[-1] if errors else KeyError()


def test_it_is_told_of_with_the_error_of_the_rows() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    error = asyncio.run(download(fail))
    assert isinstance(error, Stopped)
    assert isinstance(error.__context__, ZeroDivisionError)


def test_it_is_logged_where_the_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(download(lambda: None, leaves=True))
    told = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert told == [Stopped]
