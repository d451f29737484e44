"""What becomes of answers that may be no streams, told so that two processes can be compared.

Each line of standard input is a case, as JSON; each line of standard output is what came of it.

Rule: nothing that differs from run to run is told.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import streamkit
from streamkit.core.marking import marked
from streamkit.engines.compiled import REQUESTS

marked([])  # from its first stream on, a process looks for marks in the heads of others

KEY = "streamkit.stream"
Case = dict[str, Any]


class OwnList(list):  # type: ignore[type-arg]
    """A list to `isinstance`, and to nobody who asks for its type."""


class OwnDict(dict):  # type: ignore[type-arg]
    """The same for messages and environs."""


class Page:
    """A body that is no list, as many frameworks return."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"pa"
        yield b"ge"

    def close(self) -> None:
        self.closed += 1

    def __repr__(self) -> str:
        return "<Page>"


HOLDERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list, "own list": OwnList, "tuple": tuple, "iterator": iter, "none": lambda pairs: None,
}  # fmt: skip
PAIRS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "list": list}
BODIES: dict[str, Callable[[], Any]] = {
    "list": lambda: [b"ok"],
    "own list": lambda: OwnList([b"ok"]),
    "tuple": lambda: (b"o", b"k"),
    "empty": list,
    "page": Page,
    "iterator": lambda: iter([b"o", b"k"]),
    "none": lambda: None,
    "text": lambda: "ok",
}


def head_of(wanted: Case, encode: bool) -> Any:
    def field(text: Any) -> Any:
        return text.encode("latin-1") if encode and isinstance(text, str) else text

    return HOLDERS[wanted["holder"]]([PAIRS[wanted["pairs"]](map(field, pair)) for pair in wanted["head"]])


def told(error: BaseException | None) -> Any:
    return None if error is None else [type(error).__name__, placeless(str(error))]


def placeless(text: str) -> str:
    """Without where in its process an object is."""
    return re.sub("0x[0-9a-f]+", "0x", text)


def told_head(headers: Any) -> str:
    try:
        return repr([tuple(pair) for pair in headers])
    except TypeError:
        return repr(headers)


def touch(stream: Any, how: str | None, seen: list[Any]) -> None:
    if how == "hook":
        stream.on_finish(lambda ended: seen.append(["finished", ended.outcome, ended.status]))
    elif how == "commit hook":
        stream.on_commit(lambda committed: seen.append(["committed", committed.status]))
    elif how == "abort":
        stream.abort("enough")


def wsgi(requests: list[Case]) -> list[Any]:
    current: Case = {}
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        touch(environ[KEY], current["touch"], seen)
        for call in current["calls"]:
            headers = head_of(current, encode=False)
            if call == "by name":
                start_response(status="200 OK", headers=headers)
            elif call == "with exc_info":
                try:
                    raise ValueError("before")
                except ValueError:
                    start_response("500 Oh no", headers, sys.exc_info())
            else:
                start_response("200 OK", headers, *([None] if call == "with None" else []))
        if current["raises"]:
            raise KeyError("the app")
        return BODIES[current["body"]]()

    wrapped = streamkit.wrap(app, kind="wsgi")
    if requests[0].get("twice"):
        wrapped = streamkit.wrap(wrapped, kind="wsgi")
    for current in requests:
        starts: list[Any] = []

        def start_response(status: Any, headers: Any, exc_info: Any = None, into: list[Any] = starts) -> Any:
            into.append([status, told_head(headers), exc_info is not None])
            return lambda data: into.append(["written", repr(data)])

        environ: dict[str, Any] = (OwnDict if current["own environ"] else dict)(ENVIRON)
        chunks, error, body = [], None, None
        try:
            body = wrapped(environ, start_response)
            chunks.extend(repr(chunk) for chunk in body)
        except Exception as caught:
            error = caught
        finally:
            if hasattr(body, "close"):
                body.close()
        seen.append([starts, chunks, type(body).__name__ if type(body) in (list, tuple, Page) else "ours"])
        seen.append([told(error), environ[KEY].outcome, getattr(body, "closed", None)])
    return seen


ENVIRON = {
    "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/", "QUERY_STRING": "",
    "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.url_scheme": "http",
}  # fmt: skip
SCOPE = {
    "type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": [], "query_string": b"",
    "asgi": {"version": "3.0", "spec_version": "2.4"}, "scheme": "http",
}  # fmt: skip


def message_of(wanted: Case) -> Any:
    if wanted["what"] == "no message":
        return None
    if wanted["what"] == "no type":
        return {"status": 200}
    message: dict[str, Any] = (OwnDict if wanted["own dict"] else dict)(type=wanted["what"])
    if wanted["what"] == "http.response.start":
        message["status"] = 200
        if "head" in wanted:
            message["headers"] = head_of(wanted, encode=True)
    elif wanted["what"] == "http.response.body":
        message["body"] = b"ok"
    if wanted["more"] is not None:
        message["more_body"] = wanted["more"]
    return message


async def asgi(requests: list[Case]) -> list[Any]:
    current: Case = {}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        touch(scope[KEY], current["touch"], seen)
        for wanted in current["messages"]:
            try:
                sent = send(message_of(wanted))
                await (asyncio.ensure_future(sent) if wanted["as task"] else sent)
            except Exception as error:
                seen.append(["refused", told(error)])
                if not current["goes on"]:
                    raise
        if current["raises"]:
            raise KeyError("the app")

    wrapped = streamkit.wrap(app, kind="asgi")
    if requests[0].get("twice"):
        wrapped = streamkit.wrap(wrapped, kind="asgi")
    for current in requests:
        sent: list[Any] = []
        scope: dict[str, Any] = (OwnDict if current["own scope"] else dict)(SCOPE)
        error: BaseException | None = None
        try:
            await asyncio.wait_for(wrapped(scope, receive, sender(current["server"], sent)), 20)
        except Exception as caught:
            error = caught
        seen.append([sent, told(error), scope[KEY].outcome, scope[KEY].phase])
    return seen


def sender(how: str, sent: list[Any]) -> Callable[[Any], Awaitable[None]]:
    async def send(message: Any) -> None:
        if how == "waits":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        elif how == "waits for a future":
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, None)
            await future
        elif how == "has lost the client" and sent:
            raise ConnectionResetError("gone")
        elif how == "fails at first":
            raise RuntimeError("no")
        headers = told_head(message["headers"]) if "headers" in message else None
        sent.append([message.get("type"), headers, repr(message.get("body")), message.get("more_body")])

    if how == "returns a task":
        return lambda message: asyncio.create_task(send(message))
    return send


async def receive() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


def outcome(case: Case) -> Any:
    """What comes of the requests of one case, on a wrap of their own."""
    came = wsgi(case["requests"]) if case["kind"] == "wsgi" else asyncio.run(asgi(case["requests"]))
    return json.loads(json.dumps(came))


def main() -> None:
    print(json.dumps(REQUESTS is None), flush=True)
    for line in sys.stdin:
        print(json.dumps(outcome(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
