"""What Django keeps for each thread, for producers that run on another than their view.

Rule: what a producer finds is its request's, set in its own copy of the context; what it opens in
the database is closed on the thread that opened it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from ..core.context import inherited
from ..core.stream import AsyncResponseStream
from ..engines.pool import pool


class Surroundings:
    """Entered by a producer: the language, time zone and URLs of its request.

    Django keeps them in `asgiref.local.Local`, which from asgiref 3.12 on no other thread inherits.
    """

    def __init__(self) -> None:
        self._language = translation.get_language()
        self._timezone = timezone.get_current_timezone()
        self._urlconf = get_urlconf()
        self._prefix = get_script_prefix()

    def __enter__(self) -> None:
        if self._language is None:
            translation.deactivate_all()
        else:
            translation.activate(self._language)
        timezone.activate(self._timezone)
        set_urlconf(self._urlconf)
        set_script_prefix(self._prefix)

    def __exit__(self, *exc_info: object) -> None:
        """They were set in the producer's own context, which ends with it."""


class Connections:
    """Entered by a synchronous producer: the database connections that it has opened end with it."""

    def __enter__(self) -> None:
        """Nothing is opened here: Django connects when it is asked something."""

    def __exit__(self, *exc_info: object) -> None:
        close_pooled()


def beside() -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """What is put around each job that runs beside a producer, on a pooled thread of its own."""
    surroundings = Surroundings()

    def cared_for(job: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with surroundings, Connections():
                return job()

        return run

    return cared_for


def close_pooled() -> None:
    """Close the connections of this thread, if it is one of ours; Django closes those of a server's."""
    if is_pooled():
        _close_all()


def is_pooled() -> bool:
    """Whether this is a thread of ours."""
    return threading.current_thread().name == pool._name


def _close_all() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()


def then_closed(hook: Callable[..., Any] | None) -> Any:
    """The hook, which may run after its producer: what it opens in the database ends with it."""
    if hook is None:
        return None

    @functools.wraps(hook)
    def called(*details: Any) -> Any:
        try:
            result = hook(*details)
        finally:
            close_pooled()
        return _awaited(result) if inspect.isawaitable(result) else result

    return called


def closing_hooks(on_error: Any, on_finish: Any, *, loops: bool) -> dict[str, Any]:
    """The app's hooks, each of which comes last of its kind: they close what all before them have opened.

    Hooks that a producer adds are among those. A producer that `loops` reports its errors while its
    resources are open; and for it, a hook of errors would mean that it may go on.
    """
    hooks = {"on_finish": _last_hook(on_finish)}
    if on_error is not None or not loops:
        hooks["on_error"] = _last_hook(on_error)
    return hooks


def _last_hook(hook: Callable[..., Any] | None) -> Callable[..., Any]:
    def called(stream: Any, *error: BaseException) -> Any:
        try:
            result = None if hook is None else hook(stream, *error)
        finally:
            close_pooled()
        if inspect.isawaitable(result):
            return _awaited(result)
        if isinstance(stream, AsyncResponseStream) and (
            stream._error_hooks or stream._finish_hooks is not None
        ):
            return _awaited(None)
        return result

    return called if hook is None else functools.wraps(hook)(called)


async def _awaited(result: Awaitable[Any] | None) -> Any:
    try:
        return None if result is None else await result
    finally:
        # As at the end of a request: the thread may be that of a test, whose transaction is open.
        await _to_the_end(sync_to_async(close_old_connections)())


class OwnThread(ThreadSensitiveContext):
    """Entered by an asynchronous producer: `sync_to_async`, and so the ORM, has a thread of its own.

    The thread of a synchronous view waits for the head, and then is gone; the producer outlives both.
    """

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            if self in SyncToAsync.context_to_thread_executor:  # it was used
                await _to_the_end(sync_to_async(_close_all)())
        finally:
            await super().__aexit__(*exc_info)  # type: ignore[no-untyped-call]


async def _to_the_end(closing: Awaitable[None]) -> None:
    """Await it, also where a cancellation strikes: that of a leave may follow its `ClientDisconnected`."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


# What belongs to the thread of the view: asgiref's own variables, and each of its `Local`s.
_OF_THE_VIEW = (
    "thread_sensitive_context",
    "async_single_thread_context",
    "deadlock_context",
    "asgiref.local",
)


def untied(captured: Context) -> Context:
    """What a description has captured, for a producer that has the right values of these already."""
    kept = Context()
    for variable, value in captured.items():
        if variable.name not in _OF_THE_VIEW:
            kept.run(variable.set, value)
    return kept


def apart() -> Context:
    """A copy of this context without asgiref's ties to the threads of the view."""
    context = inherited(("thread_sensitive_context",))
    context.run(setattr, AsyncToSync.executors, "current", None)
    return context
