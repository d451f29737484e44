"""An ASGI application, served as one task for each request, and its lifespan as another.

Rule: messages are checked as they come; a breach is raised to the application, and to the test
whether or not the application lets it pass. `send` returns when another chunk is wanted.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

from ..core.framing import version_of
from ..errors import HeaderError, ProtocolViolation, StreamKitError
from ..syntax import HOP_BY_HOP, check_name, check_status, check_value
from ..types import Message, Scope
from ._exchange import Exchange, Head
from ._meeting import Deadline, Meeting, frames_of, shown
from ._request import ASGI_VERSIONS, Request

Phase = Literal["startup", "shutdown"]

_FOREVER = Deadline(None)
_DISCONNECT = "http.disconnect"


class _Task:
    """What runs on a loop, and can be cancelled from any thread."""

    _task: asyncio.Task[None] | None = None
    _is_cancelled = False

    def begin_on(self, loop: asyncio.AbstractEventLoop, serve: Callable[[], Any]) -> None:
        """Begin, on the thread of the loop."""
        self._task = loop.create_task(serve())

    def cancel(self) -> bool:
        task = self._task
        if task is not None:
            self._is_cancelled = True
            with suppress(RuntimeError):  # the loop is closed, and so the task is over
                task.get_loop().call_soon_threadsafe(task.cancel)
        return task is not None

    def where(self) -> str:
        task = self._task
        if task is None or task.done():
            return ""
        frames = [(frame, frame.f_lineno) for frame in frames_of(task.get_coro())]
        return shown(traceback.StackSummary.extract(iter(frames), lookup_lines=False))


class ASGIExchange(_Task, Exchange):
    """One request to an ASGI application."""

    def __init__(self, app: Callable[..., Any], request: Request, scope: Scope, read_ahead: int) -> None:
        super().__init__(request, read_ahead)
        self._app = app
        self._scope = scope
        self._is_body_received = False
        # "If send is called on a closed connection the server should raise a server-specific subclass
        # of OSError" -- ASGI 2.4; before, and on all servers of today, it returns in silence.
        asgi = scope.get("asgi")
        spec = asgi.get("spec_version", "2.0") if isinstance(asgi, dict) else "2.0"
        self._raises_when_left = version_of(str(spec)) >= (2, 4)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call the application, in a task of its own."""
        self.begin_on(loop, self._serve)

    async def _serve(self) -> None:
        try:
            returned = await self._app(self._scope, self._receive, self._send)
            if returned is not None:
                raise self.violation(f"an ASGI application returns None, but this one returned {returned!r}")
            if not self.complete and not self.left:
                started = "completing" if self.head is not None else "starting"
                raise self.violation(f"the application returned without {started} its response")
        except asyncio.CancelledError as error:
            if not self._is_cancelled:
                self.fail(error)
        except BaseException as error:
            self.fail(error)
        finally:
            self.end()

    async def _receive(self) -> Message:
        if not self._is_body_received:
            self._is_body_received = True
            return {"type": "http.request", "body": self.request.body, "more_body": False}
        # "if receive is called after the response has been sent": a disconnect too -- ASGI
        await self.until_async(lambda: True if self.left or self.complete else None, _FOREVER)
        return {"type": _DISCONNECT}

    async def _send(self, message: Message) -> None:
        chunk = b""
        if not self.left:
            chunk = self._admitted(message)
        if chunk and not self.complete:
            await self.until_async(self.may_go_on, _FOREVER)
        else:
            await asyncio.sleep(0)  # an application that only sends must not keep the loop for itself
        if self.left and self._raises_when_left:
            raise self.gone

    def _admitted(self, message: Message) -> bytes:
        """Take the message, and return its chunk."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        with self.turn:
            if self.complete:
                raise self.violation(f"{kind!r} was sent after the end of the body")
            if kind == "http.response.start":
                if self.head is not None:
                    raise self.violation("http.response.start was sent a second time")
                self.start(self._checked(message))
                self.flush()
                return b""
            if kind != "http.response.body":
                raise self.violation(
                    f"wanted a message of type http.response.start or http.response.body, got {message!r}"
                )
            if self.head is None:
                raise self.violation("http.response.body was sent before http.response.start")
            chunk = message.get("body", b"")
            if type(chunk) is not bytes:
                raise self.violation(f"wanted the body as bytes, got {chunk!r}")
            self.arrive(chunk)
            if not message.get("more_body", False):
                self.finish()
            return chunk

    def _checked(self, message: Message) -> Head:
        fields: list[tuple[str, str]] = []
        try:
            status = check_status(message.get("status"))
            for name, value in message.get("headers", ()):
                if type(name) is not bytes or type(value) is not bytes:
                    raise HeaderError(f"wanted each header as two byte strings, got {name!r}, {value!r}")
                # ASGI wants names in small letters; Django sends others, and servers see to it.
                field = (name.decode("latin-1").lower(), value.decode("latin-1"))
                # ASGI, unlike PEP 3333, lets an application speak of the connection.
                if field[0] not in HOP_BY_HOP:
                    check_name(field[0])
                check_value(*field)
                fields.append(field)
        except HeaderError as error:
            raise self.violation(str(error)) from None
        except (TypeError, ValueError):
            raise self.violation(
                f"wanted headers as pairs of byte strings, got {message.get('headers')!r}"
            ) from None
        return Head(status, fields)


class LifespanFailed(StreamKitError, RuntimeError):
    """The application failed in its `phase`, "startup" or "shutdown"; `message` is what it said."""

    def __init__(self, phase: Phase, message: str) -> None:
        super().__init__(phase, message)
        self.phase, self.message = phase, message

    def __str__(self) -> str:
        return f"the {self.phase} of the application failed: {self.message or 'it gave no reason'}"


class Lifespan(_Task, Meeting):
    """The lifespan of an ASGI application; one that knows none is as good."""

    def __init__(self, app: Callable[..., Any], *, required: bool) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.is_supported = False
        self._app = app
        self._is_required = required
        self._answers: dict[str, Message] = {}
        self._is_stopping = False
        self._received = 0
        self._error: BaseException | None = None
        self._is_told = False  # the test was told of that error
        self._over = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self.begin_on(loop, self._serve)

    def stop(self) -> None:
        """Tell the application to shut down."""
        with self.turn:
            self._is_stopping = True
            self.changed()

    def started(self) -> Literal[True] | None:
        """An attempt: whether the startup is over. Raises `LifespanFailed`."""
        outcome = self._outcome("startup")
        if outcome == "over":
            if self._error is not None and not isinstance(self._error, Exception):
                raise self._error
            if self._is_required:
                raise self._early_end("startup")
            self._is_told = True  # it says in this way that it has no lifespan
        self.is_supported = outcome == "complete"
        return True if outcome is not None else None

    def stopped(self) -> Literal[True] | None:
        """An attempt: whether the shutdown is over. Raises `LifespanFailed`."""
        outcome = self._outcome("shutdown")
        if outcome == "over" and self.is_supported and self._error is not None:
            raise self._early_end("shutdown")
        return True if outcome is not None or not self.is_supported else None

    def through(self) -> Literal[True] | None:
        """An attempt: whether the application has returned."""
        return True if self._over else None

    def ended(self) -> None:
        """Raise `LifespanFailed` for what the application has raised after its last answer."""
        if self._error is not None and not self._is_told:
            raise self._early_end("shutdown")

    def timed_out(self, phase: Phase, timeout: float | None) -> Exception:
        """What a wait for this phase raises that was in vain."""
        answer = self._answers.get(phase)
        if answer is not None and answer["type"] == f"lifespan.{phase}.failed":
            return LifespanFailed(phase, str(answer.get("message", "")))
        place = self.where()
        return TimeoutError(
            f"wanted lifespan.{phase}.complete within {timeout:.3g} s, and it did not come"
            + (f"; the application is in {place}" if place else "")
            + "; lifespan='off' leaves the lifespan out"
        )

    def _outcome(self, phase: Phase) -> Literal["complete", "over"] | None:
        answer = self._answers.get(phase)
        if answer is not None and answer["type"] == f"lifespan.{phase}.complete":
            return "complete"
        if answer is not None and self._over:  # with the error that it raises after it has said so
            self._is_told = True
            raise LifespanFailed(phase, str(answer.get("message", ""))) from self._error
        return "over" if self._over else None

    def _early_end(self, phase: Phase) -> LifespanFailed:
        said = f"it raised {self._error!r}" if self._error is not None else "it returned without an answer"
        failed = LifespanFailed(phase, said)
        failed.__cause__ = self._error
        self._is_told = True
        return failed

    async def _serve(self) -> None:
        scope = {"type": "lifespan", "asgi": dict(ASGI_VERSIONS), "state": self.state}
        error: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError as raised:
            if not self._is_cancelled:
                error = raised
        except BaseException as raised:
            error = raised
        with self.turn:
            self._error, self._over = error, True
            self.changed()

    async def _receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        if self._received > 2:
            self.cancel()  # it asks for more where there is no more: servers leave it waiting
        await self.until_async(lambda: True if self._is_stopping else None, _FOREVER)
        await asyncio.sleep(0)
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message.get("type") if isinstance(message, Mapping) else None
        phase: Phase = "shutdown" if self._received > 1 and self._is_stopping else "startup"
        if kind not in (f"lifespan.{phase}.complete", f"lifespan.{phase}.failed") or phase in self._answers:
            raise ProtocolViolation(
                f"wanted one lifespan.{phase}.complete or lifespan.{phase}.failed, got {message!r}"
            )
        with self.turn:
            self._answers[phase] = message
            self.changed()


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        name = f"streamkit-testing-loop-{id(self):x}"
        self._workers = f"{name}-worker"
        self._executor = ThreadPoolExecutor(thread_name_prefix=self._workers)
        self.loop.set_default_executor(self._executor)
        self._stopping = asyncio.Event()
        self._patience = 0.0
        self._left: list[str] = []  # what did not end when it was told to
        self._thread = threading.Thread(target=self._execute, name=name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the loop, what runs on it, and its workers, in `timeout` seconds; else `TimeoutError`."""
        deadline = Deadline(timeout)
        self._patience = timeout / 3  # for tasks, then for generators: in time to be told of
        with suppress(RuntimeError):  # it has ended by itself: a task raised SystemExit, say
            self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(deadline.left())
        self._executor.shutdown(wait=False, cancel_futures=True)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith(self._workers)]
        for thread in threads:
            thread.join(deadline.left())
        alive = [thread.name for thread in (self._thread, *threads) if thread.is_alive()]
        alive += self._left
        if alive:
            raise TimeoutError(
                f"wanted the client's loop to end within {timeout:.3g} s, but these live: {alive}"
            )

    def _execute(self) -> None:
        try:
            self.loop.run_until_complete(self._until_stopped())
        finally:
            self.loop.close()

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=self._patience)
            self._left = [repr(task.get_coro()) for task in left]
        try:
            await asyncio.wait_for(self.loop.shutdown_asyncgens(), self._patience)
        except asyncio.TimeoutError:  # another class on CPython 3.10
            self._left.append("an asynchronous generator")
