"""The headers of one response: validated when set, frozen at the commit.

Rule: a head that leaves has been through `finished`, whoever made it. What is added to
every stream, and what is taken off, stands there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from werkzeug.datastructures import Headers as WerkzeugHeaders
from werkzeug.http import parse_options_header

from ..errors import AlreadyCommitted, HeaderError
from ..options import Options
from ..syntax import FORBIDDEN, HOP_BY_HOP, check_name, check_value, is_plain
from .framing import Body

Items: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]] | None"
Pairs: TypeAlias = list[tuple[str, str]]

# Each item of a body of one of these types is complete in itself: made to be read as it comes.
STREAMING_TYPES = frozenset(
    {
        "text/event-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/json-seq",
        "multipart/x-mixed-replace",
    }
)

DEFAULT_CONTENT_TYPE = "text/plain; charset=utf-8"
UTF_8 = "utf-8"
IDENTITY = "identity"  # a body as it is, in the words of RFC 9110, section 12.5.3

# What is kept, and asked about before it is used again; as for templates and downloads.
_REVALIDATED = "private, no-cache, no-transform"
_VARIES = frozenset({"accept-encoding", "*"})

# "the sender ... SHOULD NOT generate representation metadata other than" those -- RFC 9110, 15.4.5
_OF_CONTENT = frozenset(
    {
        "accept-ranges", "content-disposition", "content-encoding", "content-language", "content-length",
        "content-range", "content-type",
    }
)  # fmt: skip

_MUTATORS = (
    "__delitem__", "__ior__", "__setitem__", "add", "add_header", "clear", "extend", "pop", "popitem",
    "remove", "set", "setdefault", "setlist", "setlistdefault", "update",
)  # fmt: skip


class Headers(WerkzeugHeaders):
    """Werkzeug's headers, which refuse what may not be sent, and freeze at the commit.

    Raises `HeaderError` for names that are no token or hop-by-hop, for values with CR, LF or
    NUL and for items that are no pair, and `AlreadyCommitted` for every change after the commit.
    """

    frozen = False

    def __init__(self, defaults: Items = None) -> None:
        super().__init__()
        # A subclass may have an `extend` of its own.
        plain = _plain_pairs(defaults) if type(self) is Headers else None
        if plain is not None:
            self._list = plain
        elif defaults is not None:
            self.extend(defaults)

    def freeze(self) -> None:
        """From now on every change raises `AlreadyCommitted`."""
        self.frozen = True

    def check_open(self) -> None:
        if self.frozen:
            raise AlreadyCommitted("change a header")

    def check(self) -> None:
        """Refuse what a change has brought in, and take it out again."""
        try:
            for name, value in self._list:
                if not is_plain(name, value):
                    check_value(check_name(name), value)
        except HeaderError:
            self._list[:] = [pair for pair in self._list if _may_be_sent(*pair)]
            raise

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def _plain_pairs(items: object) -> Pairs | None:
    """These items as they are, where a glance shows that each is a field which may be sent."""
    if type(items) is dict:
        pairs = list(items.items())
    elif isinstance(items, (list, tuple)):
        pairs = list(items)
    else:
        return None
    for pair in pairs:
        if type(pair) is not tuple or len(pair) != 2 or not is_plain(*pair):
            return None
    return pairs


def _may_be_sent(name: object, value: object) -> bool:
    try:
        check_value(check_name(name), value)
    except HeaderError:
        return False
    return True


Arguments: TypeAlias = "tuple[Any, ...]"
_BYTES = (bytes, bytearray, memoryview)
_TEXTS = (str, *_BYTES)
_WANTED = "wanted headers as a mapping or as pairs of name and value"


def _check_one(args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    if len(args) == 2 and not kwargs:  # parameters may stand alone
        _check_kind(*args)
    return args


def _check_item(args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    """By its name, or by its place in the list: then what is set is a pair, or many."""
    if len(args) != 2 or isinstance(args[0], str):
        return _check_one(args, kwargs)
    place, items = args
    if isinstance(place, slice):
        return (place, *_check_many((items,), kwargs))
    _check_entries((items,))
    return args


def _check_list(args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    if len(args) != 2 or args[1] is None:
        return args
    if isinstance(args[1], _TEXTS) or not isinstance(args[1], Iterable):
        raise HeaderError(f"wanted the values of {args[0]} as a list of str, got {args[1]!r}")
    values = list(args[1])
    for value in values:
        _check_kind(args[0], value)
    return (args[0], values)


def _check_many(args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    if args and hasattr(args[0], "__next__"):  # it can be gone through once
        args = (list(args[0]), *args[1:])
    for many in args:
        if many is not None:
            _check_entries(many)
    if kwargs:
        _check_entries(kwargs)
    return args


def _check_entries(many: Any) -> None:
    if isinstance(many, _TEXTS) or not hasattr(many, "__iter__"):
        raise HeaderError(f"{_WANTED}, got {many!r}")
    for entry in many.items() if type(many) is dict or isinstance(many, Mapping) else many:
        # Any text of two letters could be unpacked too.
        if not isinstance(entry, (tuple, list)) or len(entry) != 2:
            raise HeaderError(f"{_WANTED}, got the item {entry!r}, which is no such pair")
        name, value = entry
        for one in value if isinstance(value, (list, tuple)) else (value,):
            _check_kind(name, one)


def _check_kind(name: object, value: object) -> None:
    # Werkzeug refuses a newline too, and names neither the header nor what came.
    if FORBIDDEN(value) if isinstance(value, str) else value is None or isinstance(value, _BYTES):
        check_value(str(name), value)


# Of those that set something: what names a value that no header can have, where `str()` would only make a
# wrong text, or werkzeug says less.
_CHECKS = {
    "__setitem__": _check_item,
    **dict.fromkeys(("add", "add_header", "set", "setdefault"), _check_one),
    **dict.fromkeys(("setlist", "setlistdefault"), _check_list),
    **dict.fromkeys(("__ior__", "extend", "update"), _check_many),
}


def _guarded(name: str) -> Callable[..., Any]:
    change = getattr(WerkzeugHeaders, name)
    check_arguments = _CHECKS.get(name)

    def guarded(self: Headers, *args: Any, **kwargs: Any) -> Any:
        self.check_open()
        if check_arguments is not None:
            args = check_arguments(args, kwargs)
        try:
            result = change(self, *args, **kwargs)
        except ValueError as error:  # werkzeug's word for a newline
            if isinstance(error, HeaderError):
                raise
            raise HeaderError(f"{error} Got {(*args, *kwargs.items())!r}") from None
        self.check()
        # A commit in another thread may have come between: then this change was too late.
        self.check_open()
        return result

    guarded.__name__ = name
    guarded.__doc__ = change.__doc__
    return guarded


for _name in _MUTATORS:
    setattr(Headers, _name, _guarded(_name))


@lru_cache(256)
def media_type_of(content_type: str) -> str:
    """`text/html` of `text/html; charset=utf-8`, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def media_type_in(headers: Pairs) -> str:
    """The media type of a description's head, which is sent as plain text if it names none."""
    return media_type_of(value_of(headers, "content-type") or DEFAULT_CONTENT_TYPE)


@lru_cache(256)
def charset_of(content_type: str) -> str:
    """The charset that text is sent in; `utf-8` by that name, and where none is named."""
    if "charset" not in content_type.lower():
        return UTF_8
    charset = parse_options_header(content_type)[1].get("charset", UTF_8)
    try:
        "".encode(charset)
    except LookupError:
        raise HeaderError(f"Content-Type names an unknown charset: {content_type!r}") from None
    return UTF_8 if charset.lower() == UTF_8 else charset


def is_streaming(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether the media type alone says that this is a stream.

    "a sender MUST NOT generate multiple field lines with the same name" (RFC 9110, section 5.3), yet
    servers send two Content-Types as they are: the first one counts, here as for all that asks.
    """
    content_type = value_of(headers, "content-type")
    return content_type is not None and media_type_of(content_type) in STREAMING_TYPES


def value_of(headers: Iterable[tuple[str, str]], lowered: str) -> str | None:
    """The first value under this name (given in lower case), or None."""
    for name, value in headers:
        if name.lower() == lowered:
            return value
    return None


def without_hop_by_hop(headers: Pairs) -> Pairs:
    """The head without what belongs to one connection (PEP 3333, "Other HTTP Features").

    Servers differ: gunicorn drops such a field, waitress and wsgiref answer 500, uvicorn, hypercorn and
    werkzeug send it on, and uWSGI names a chunked coding that the body then does not have.
    """
    for name, _ in headers:
        if name.lower() in HOP_BY_HOP:
            return [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP]
    return headers


def finished(
    headers: Pairs,
    options: Options,
    status: int,
    body: Body,
    *,
    content_length: int | None = None,
    default_type: str | None = DEFAULT_CONTENT_TYPE,
    foreign: bool = False,
    coding: str | None = None,
    not_modified: bool = False,
) -> Pairs:
    """The head of a stream as it leaves: completed, and freed of what only whole bodies have.

    `foreign` says that other code made the stream: then an ETag on it is some layer's, not
    the application's, and is taken off too, as are hop-by-hop fields: framing and the connection
    belong to the server. Content-Length is ours alone. `coding` is what was
    negotiated for the body, `identity` if that was none, and None if there was no choice.
    `not_modified` says that this 304 stands in place of the response that was described.
    Raises `HeaderError` for a value that could end the header, which not every server refuses.
    """
    if foreign:  # what the application set by our own means was checked then
        headers = _checked(headers, status)
    if body is Body.NONE:
        bare = _bare(headers, status, default_type, foreign)
        if not_modified and value_of(bare, "cache-control") is None:
            # "MUST generate ... [what] would have been sent in a 200" -- RFC 9110, section 15.4.5
            bare.extend(_cache_control_of_validated(options))
        return bare if coding is None else _varying(bare, coding)
    dropped = ("content-length", "etag") if foreign else ("content-length",)
    head: Pairs = []
    present: set[str] = set()
    for pair in headers:
        lowered = pair[0].lower()
        if lowered in dropped:
            continue
        present.add(lowered)
        head.append((pair[0], _cache_control(pair[1])) if lowered == "cache-control" else pair)
    if default_type is not None and "content-type" not in present:
        head.append(("Content-Type", default_type))
    if ("etag" in present or "last-modified" in present) and "cache-control" not in present:
        head.extend(_cache_control_of_validated(options))
        present.add("cache-control")
    # The pairs of the options are shared: an open stream holds its head.
    head.extend([pair for lowered, pair in options.head if lowered not in present])
    if content_length is not None:
        head.append(("Content-Length", str(content_length)))
    if coding is not None:
        head = _varying(head, coding)
        if coding != IDENTITY:
            head.append(("Content-Encoding", coding))
    return head


def _checked(headers: Pairs, status: int) -> Pairs:
    """The head of other code, if it may be sent, without what belongs to the connection."""
    for name, field in headers:
        if not isinstance(field, str) or FORBIDDEN(field):
            check_value(name, field)
    return headers if status == 101 else without_hop_by_hop(headers)  # whose Upgrade is the answer


def _bare(headers: Pairs, status: int, default_type: str | None, foreign: bool) -> Pairs:
    """The head of a response without a body."""
    without: Iterable[str] = ("content-length",)
    if not foreign and status == 204:
        without = ("content-length", "content-type")  # there is no content for it to describe
    elif not foreign and status == 304:
        without = _OF_CONTENT
    bare = [pair for pair in headers if pair[0].lower() not in without]
    if status not in (204, 304) and default_type is not None and value_of(bare, "content-type") is None:
        bare.append(("Content-Type", default_type))  # PEP 3333's validator wants one even here
    return bare


def _cache_control_of_validated(options: Options) -> Pairs:
    """The Cache-Control of what has a validator: with `no-store` nobody would ever ask again."""
    value = _REVALIDATED if "cache_control" not in options.given else options.cache_control
    return [] if value is None else [("Cache-Control", value)]


def _varying(head: Pairs, coding: str) -> Pairs:
    """The head with Vary for the coding that was chosen, and with an ETag that holds for all of them."""
    varied: Pairs = []
    last_vary: int | None = None
    known = False
    for name, value in head:
        lowered = name.lower()
        if lowered == "vary":
            last_vary = len(varied)
            known = known or not _VARIES.isdisjoint(field.strip().lower() for field in value.split(","))
        elif lowered == "etag" and coding != IDENTITY and not value.startswith("W/"):
            value = f"W/{value}"  # the bytes are not those that it was made for
        varied.append((name, value))
    if last_vary is not None and not known:
        name, value = varied[last_vary]
        varied[last_vary] = (name, f"{value}, Accept-Encoding" if value.strip() else "Accept-Encoding")
    elif not known:
        varied.append(("Vary", "Accept-Encoding"))
    return varied


def _cache_control(value: str) -> str:
    """The application's own value, without the `public` that `no-store` contradicts."""
    directives = [directive.strip() for directive in value.split(",")]
    lowered = [directive.lower() for directive in directives]
    if "no-store" in lowered and "public" in lowered:
        return ", ".join(directive for directive in directives if directive.lower() != "public")
    return value
