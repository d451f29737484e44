"""What the client has already: validators, and the request's conditions on them.

    is_fresh("GET", fields, 200, [("ETag", '"v7"')])     # True: answer 304

Rule: RFC 9110, section 13.2.2, for the two conditions that a generated response can meet:
If-None-Match, and If-Modified-Since where there is none. Entity tags are compared weakly,
so a coding of the body on its way changes nothing here.
"""

from __future__ import annotations

import re
from datetime import datetime

from werkzeug.http import http_date, parse_date, parse_etags, unquote_etag

from ..errors import HeaderError
from .headers import Pairs, value_of
from .request import Fields

_ETAG = re.compile(r"[!#-~]*").fullmatch


def quoted(etag: object, *, weak: bool = False) -> str:
    """The entity tag as its header wants it; `HeaderError` if it is none."""
    if not isinstance(etag, str) or not _ETAG(etag):
        raise HeaderError(
            f"wanted etag as visible ASCII without quotes (RFC 9110, section 8.8.3), got {etag!r}"
        )
    return f'W/"{etag}"' if weak else f'"{etag}"'


def dated(last_modified: object) -> str:
    """The date as its header wants it, in whole seconds; one without a time zone is UTC."""
    if not isinstance(last_modified, datetime):
        raise HeaderError(f"wanted last_modified as a datetime, got {last_modified!r}")
    return http_date(last_modified)


def is_fresh(method: str, fields: Fields, status: int, headers: Pairs) -> bool:
    """Whether the client's copy is the response that would follow, so that 304 says it all."""
    known, since = fields.if_none_match, fields.if_modified_since
    if known is None and since is None:
        return False
    # "MUST ignore ... when ... without those conditions, would be ... other than a 2xx" -- RFC 9110, 13.2.1
    if method not in ("GET", "HEAD") or not 200 <= status < 300:
        return False
    etag, changed = value_of(headers, "etag"), value_of(headers, "last-modified")
    if etag is None and changed is None:
        return False  # whoever has no validator has never asked for this
    if known is not None:
        return is_among(known, headers)
    asked, last = date_of(since), date_of(changed)
    return asked is not None and last is not None and last <= asked


def date_of(value: str | None) -> datetime | None:
    """The date that a field says; None for what is none, which counts as if it had not come."""
    try:
        return parse_date(value)
    except OverflowError:  # a year, an hour or a time zone of twenty digits, from whoever wants to see a 500
        return None


def is_among(known: str, headers: Pairs) -> bool:
    """Whether the entity tag of this head is one of those in an If-None-Match (RFC 9110, section 13.1.2)."""
    tags = parse_etags(known)
    opaque = unquote_etag(value_of(headers, "etag"))[0]
    return tags.star_tag or (opaque is not None and tags.contains_weak(opaque))
