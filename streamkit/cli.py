"""The `streamkit` command.

    streamkit demo            a page with live streams, on uvicorn
    streamkit demo --wsgi     the same on waitress
    streamkit doctor TARGET   does this address, or this app, stream; and who holds it back

Rule: a command is one function that adds its arguments and one that runs it. The second
imports what it needs when it is called, so that `streamkit --help` needs no server, and
it raises `CommandError` for what the user can mend; only `main` prints and returns 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamkit import __version__

if TYPE_CHECKING:
    from streamkit.doctor import Diagnosis

    # argparse offers the type of what `add_subparsers` returns under a private name only.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

UNUSABLE = 2  # exit status; argparse gives wrong arguments the same
INTERRUPTED = 130  # exit status after Ctrl+C, as shells have it: 128 and the signal's number

# `package.module:app` and `module:create_app()`; what follows the colon of an address is a number.
APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?")


class CommandError(Exception):
    """A command cannot run as it was asked to; the text says how to mend it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CommandError as error:
        print(f"streamkit {arguments.command}: {error}", file=sys.stderr)
        return UNUSABLE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamkit", description="Send a web response while it is still being made."
    )
    parser.add_argument("--version", action="version", version=f"streamkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="serve a small page with live streams",
        description=(
            "Serve a page with a ticking stream, a CSV of 100,000 rows, a stream that fails and a live chart."
        ),
    )
    demo.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    demo.add_argument(
        "--port", type=_port, default=8000, help="the port, 0 for a free one (default: %(default)s)"
    )
    demo.add_argument("--wsgi", action="store_true", help="on waitress as WSGI, instead of uvicorn as ASGI")
    demo.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    from streamkit.demo import DemoUnavailable, serve

    try:
        serve(arguments.host, arguments.port, wsgi=arguments.wsgi)
    except DemoUnavailable as error:
        raise CommandError(error) from error
    return 0


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say whether a stream arrives as it is made, and what holds it back",
        description="Ask an address, or an app in this process, for a stream; show when each byte came, and"
        " say what holds it back and how to mend it. Only GET and HEAD are sent. Exit status: 0 everything"
        " streams, 1 something holds it or cuts it, 2 it could not be asked.",
    )
    doctor.add_argument("target", metavar="TARGET", help="an address (http://…), or an app (module:app)")
    doctor.add_argument("--path", help="the path to ask for, with its query")
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of text")
    doctor.add_argument(
        "--seconds", type=_positive, default=10.0, help="how long to watch a request (default: %(default)g)"
    )
    doctor.add_argument(
        "--header", metavar="'NAME: VALUE'", type=_field, action="append", default=[],
        help="send this with each request; may be given again",
    )  # fmt: skip
    app = doctor.add_argument_group("for an app")
    app.add_argument("--server", metavar="NAME", help="ask it on this server: gunicorn, uvicorn, waitress, …")
    address = doctor.add_argument_group("for an address")
    address.add_argument(
        "--direct", metavar="URL", help="the app's own port: ask it the same, to see who holds what"
    )
    address.add_argument("--proxy", metavar="NAME", help="the proxy in front, where it does not show")
    address.add_argument(
        "--silence", type=_positive, metavar="SECONDS",
        help="how long an event stream may be silent (default: 20); it is seen if --seconds is as long",
    )  # fmt: skip
    doctor.set_defaults(run=_run_doctor)


def _run_doctor(arguments: argparse.Namespace) -> int:
    from streamkit.doctor import CannotAsk
    from streamkit.doctor.show import Look, as_json, as_text

    try:
        diagnosis = (
            _examine_app(arguments) if APP.fullmatch(arguments.target) else _examine_address(arguments)
        )
    except CannotAsk as error:
        raise CommandError(error) from error
    except KeyboardInterrupt:
        print("streamkit doctor: interrupted", file=sys.stderr)
        return INTERRUPTED
    _print(as_json(diagnosis) if arguments.json else as_text(diagnosis, Look.of(sys.stdout)))
    return diagnosis.status


def _print(text: str) -> None:
    """Print to a reader who may leave early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more when it exits, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _examine_app(arguments: argparse.Namespace) -> Diagnosis:
    from streamkit.doctor.stack import examine_app

    for name in ("direct", "proxy", "silence"):
        if getattr(arguments, name):
            raise CommandError(f"--{name} is for an address, and {arguments.target} is an app")
    # What the app prints would stand in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        return examine_app(
            arguments.target, arguments.path, arguments.server, arguments.seconds, arguments.header
        )


def _examine_address(arguments: argparse.Namespace) -> Diagnosis:
    from streamkit.doctor import examine_address

    if arguments.server:
        raise CommandError(f"--server is for an app (module:app), and {arguments.target} is an address")
    if sys.stderr.isatty():
        print(f"asking {arguments.target}, up to {arguments.seconds:g} s a request …", file=sys.stderr)
    return examine_address(
        arguments.target, path=arguments.path, seconds=arguments.seconds, fields=arguments.header,
        direct=arguments.direct, proxy=arguments.proxy, silence=arguments.silence or 20.0,
    )  # fmt: skip


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"seconds are a number, not {text!r}") from None
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"seconds are more than 0, and a day at most, not {text}")
    return seconds


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"a header is 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a port is a number, not {text!r}") from None
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port
