"""What a Content-Disposition header says: shown or saved, and under which name.

    content_disposition("attachment", "råcëçâr.jpg")
    # attachment; filename="racecar.jpg"; filename*=UTF-8''r%C3%A5c%C3%AB%C3%A7%C3%A2r.jpg

A name is given twice (RFC 6266, section 4.3): as ASCII for old recipients, and as UTF-8 in
the form of RFC 8187, which every browser of today prefers.

Rule: whatever the name is, quotes, backslashes, control characters and `;` are escaped in
both forms, so nothing in it can end the parameter or the header.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import HeaderError

# "Unknown or unhandled disposition types SHOULD be handled ... the same way as 'attachment'" -- RFC
# 6266, section 4.2: another word, however it is meant, is that one misspelled.
_DISPOSITIONS = ("attachment", "inline")

# The same characters that Rails lets stand. In a quoted string "&" and "'" are known to
# confuse old mail and web clients; in the extended form "&" is an attr-char (RFC 8187, 3.2.1).
_NOT_QUOTED = re.compile(r"[^ A-Za-z0-9!#$+.^_`|~-]")
_NOT_EXTENDED = re.compile(r"[^A-Za-z0-9!#$&+.^_`|~-]")

# Latin letters that no decomposition makes of ASCII ones.
_LATIN = {
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
    "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ħ": "h", "Ħ": "H", "ı": "i", "ŧ": "t",
    "Ŧ": "T", "‐": "-", "‑": "-", "–": "-", "—": "-",
}  # fmt: skip


def content_disposition(disposition: str, filename: str | None) -> str:
    """The value of a Content-Disposition header (RFC 6266), always ASCII.

    `disposition` is `attachment` or `inline`, in any case; without a filename it stands
    alone. Accents are taken off for the ASCII form; a character without an ASCII form is
    `%3F` there. Raises `HeaderError` for another `disposition`, or a name that is no text.
    """
    if not isinstance(disposition, str) or disposition.lower() not in _DISPOSITIONS:
        raise HeaderError(f"wanted disposition as 'attachment' or 'inline' (RFC 6266), got {disposition!r}")
    if filename is None:
        return disposition
    if not isinstance(filename, str):
        raise HeaderError(f"wanted filename as text or None, got {filename!r}")
    if not filename:
        return disposition
    quoted = _escaped(_NOT_QUOTED, _in_ascii(filename))
    extended = _escaped(_NOT_EXTENDED, filename)
    return f"{disposition}; filename=\"{quoted}\"; filename*=UTF-8''{extended}"


def _in_ascii(text: str) -> str:
    if text.isascii():
        return text
    # Composed first: a letter and its accent, as macOS names files, are one character to whoever reads it.
    return "".join(char if char.isascii() else _ascii_of(char) for char in unicodedata.normalize("NFC", text))


def _ascii_of(char: str) -> str:
    if char in _LATIN:
        return _LATIN[char]
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not "\u0300" <= part <= "\u036f")
    return plain if plain.isascii() else "?"


def _escaped(refused: re.Pattern[str], text: str) -> str:
    # "replace": a lone surrogate, as of a file name that is no UTF-8, becomes a question mark.
    return refused.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace")), text
    )
