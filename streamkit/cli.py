"""The `streamkit` command.

    streamkit demo            a page with live streams, on uvicorn
    streamkit demo --wsgi     the same on waitress

Rule: a command is one function that adds its arguments and one that runs it. The second
imports what it needs when it is called, so that `streamkit --help` needs no server, and
it raises `CommandError` for what the user can mend; only `main` prints and returns 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # argparse offers the type of what `add_subparsers` returns under a private name only.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

UNUSABLE = 2  # exit status; argparse gives wrong arguments the same


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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="serve a small page with live streams",
        description="Serve a page with a ticking stream, a CSV of 100,000 rows and a stream that fails.",
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


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port
