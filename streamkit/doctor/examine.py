"""Examine one address: ask it in several ways, one after the other, and judge what came.

    diagnosis = examine_address("https://example.org/events", seconds=10, direct="http://127.0.0.1:8000")

Rule: the requests and their order stand here, nothing else. One is over before the next begins, so that a
server with one thread answers them all; only the first is watched to the end of its time, the others
until they have shown what they can.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .address import LIMIT, Address, ask, check_field
from .advice import KNOWN
from .decoding import can_read_brotli
from .drip import DRIP_FIELD
from .findings import CannotAsk, Diagnosis, Track
from .hops import facts_of
from .judge import Asked, judge, needs_another_look
from .observations import Observation, Question

MOST_REDIRECTS = 5
ENOUGH = 8  # bursts that a comparison needs; as many as the drip has chunks
HEAD_SECONDS = 5.0  # for the answer to a HEAD
FAILS_AT = 2  # chunks behind which a drip is asked to break off
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Wish:
    """How the user wants it examined."""

    seconds: float
    fields: tuple[tuple[str, str], ...]
    limit: int


def examine_address(
    target: str,
    *,
    path: str | None = None,
    seconds: float = 10.0,
    fields: Sequence[tuple[str, str]] = (),
    direct: str | None = None,
    proxy: str | None = None,
    silence: float = 20.0,
    limit: int = LIMIT,
) -> Diagnosis:
    """Ask an address several times, and say what is wrong with the stream that it sends.

    `path` stands for the path and query of `target`. Each request is watched for `seconds` at most, and
    for `limit` bytes. `fields` go with each request, but not to another origin that a redirect leads
    to. `direct` is the app's own port, with or without a path: it is asked the same, to see who holds what.
    `proxy` names the proxy in front where it does not show. An event stream may be silent for `silence`
    seconds. Only GET and HEAD are sent. What cannot be asked is a diagnosis with a `refusal`.
    """
    wish = Wish(seconds, tuple(check_field(*field) for field in fields), limit)
    try:
        if proxy is not None and proxy not in KNOWN:
            raise CannotAsk(f"a proxy is one of {', '.join(KNOWN)}, not {proxy!r}")
        return _examine(target, path, wish, direct, proxy, silence)
    except CannotAsk as error:
        return Diagnosis(target, refusal=str(error))


def _examine(
    target: str, path: str | None, wish: Wish, direct: str | None, proxy: str | None, silence: float
) -> Diagnosis:
    address = Address.parse(target, path)
    own_port = None if direct is None else _beside(address, direct)
    where, plain = _first(address, wish, "HTTP/1.1")
    if not where.is_same_origin(address):
        wish = replace(wish, fields=())
    asked = Asked(plain, silence=silence, proxy=proxy)
    if plain.head is None:
        asked = replace(asked, head=_head(where, wish))
        if asked.head is None or asked.head.head is None or asked.head.head.status >= 400:
            raise CannotAsk(f"{plain.problem or f'{where} does not answer'}{_app_hint(target)}")
    _refuse(where, plain)
    asked = replace(
        asked,
        compressed=_compare(where, _compressed(wish, "compressed"), wish),
        http10=_compare(where, _question(wish, "HTTP/1.0", version="1.0"), wish),
        broken=_broken(where, plain, wish),
    )
    if needs_another_look(asked):
        asked = replace(asked, again=_compare(where, _question(wish, "HTTP/1.1 again"), wish))
    if own_port is not None:
        asked = _with_direct(asked, own_port, wish)
    # Last, because a server that runs an endless producer for HEAD answers nobody after it.
    asked = replace(asked, head=asked.head or _head(where, wish))
    facts = {"address": str(where), **facts_of(plain.head)}
    return Diagnosis(target, judge(asked), _tracks(asked), facts=facts)


def _app_hint(target: str) -> str:
    """What is meant where the word names a module here: `shop.wsgi` for `shop.wsgi:application`."""
    is_module = MODULE.fullmatch(target) and Path(*target.split(".")).with_suffix(".py").is_file()
    return f"; the app of a module is named {target}:attribute" if is_module else ""


def _beside(address: Address, direct: str) -> Address:
    """The app's own port; where it is given without a path, with the path of the address."""
    own = Address.parse(direct)
    return replace(own, target=address.target) if own.target == "/" else own


def _question(wish: Wish, name: str, *, method: str = "GET", version: str = "1.1") -> Question:
    return Question(name, method, version, wish.fields)


def _head(where: Address, wish: Wish) -> Observation:
    question = _question(wish, "HEAD", method="HEAD")
    return ask(where, question, seconds=min(HEAD_SECONDS, wish.seconds), limit=wish.limit)


def _compressed(wish: Wish, name: str) -> Question:
    # A browser accepts br over TLS; without a decoder for it only its bytes could be counted.
    codings = "gzip, deflate, br" if can_read_brotli() else "gzip, deflate"
    return Question(name, fields=(*wish.fields, ("Accept-Encoding", codings)))


def _compare(where: Address, question: Question, wish: Wish) -> Observation:
    return ask(where, question, seconds=wish.seconds, limit=wish.limit, enough=ENOUGH)


def _first(address: Address, wish: Wish, name: str) -> tuple[Address, Observation]:
    """The first request, and where redirects have led it."""
    where, fields = address, wish.fields
    for _ in range(MOST_REDIRECTS + 1):
        question = Question(name, fields=fields)
        seen = ask(where, question, seconds=wish.seconds, limit=wish.limit)
        location = seen.head.get("Location") if seen.head is not None else None
        if seen.head is None or seen.head.status not in REDIRECTS or location is None:
            return where, seen
        target = where.follow(location)
        if not target.is_same_origin(where):
            fields = ()  # they may hold a password
        where = target
    raise CannotAsk(f"{address} was redirected more than {MOST_REDIRECTS} times, at last to {where}")


def _refuse(where: Address, plain: Observation) -> None:
    """Raise `CannotAsk` for an answer that is an error."""
    if plain.head is None or plain.head.status < 300:
        return
    status = plain.head.status
    hint = (
        "; --header 'Cookie: …' or 'Authorization: …' goes with each request" if status in (401, 403) else ""
    )
    raise CannotAsk(f"{where} answered {status}: there is no stream to examine{hint}")


def _broken(where: Address, plain: Observation, wish: Wish) -> Observation | None:
    """How a body ends that breaks off; only a drip can be asked for one."""
    if plain.head is None or plain.head.get(DRIP_FIELD) is None or "fail=" in where.target:
        return None
    return ask(
        where.with_query("fail", str(FAILS_AT)),
        _question(wish, "breaking off"),
        seconds=wish.seconds,
        limit=wish.limit,
    )


def _with_direct(asked: Asked, own_port: Address, wish: Wish) -> Asked:
    where, plain = _first(own_port, wish, "direct")
    if plain.head is None:
        raise CannotAsk(f"the app's own port: {plain.problem}")
    _refuse(where, plain)
    compressed = _compare(where, _compressed(wish, "direct, compressed"), wish)
    return replace(asked, direct=plain, direct_compressed=compressed)


def _tracks(asked: Asked) -> tuple[Track, ...]:
    everything = (
        asked.plain, asked.compressed, asked.http10, asked.again, asked.head, asked.broken, asked.direct,
        asked.direct_compressed,
    )  # fmt: skip
    return tuple(seen.track() for seen in everything if seen is not None)
