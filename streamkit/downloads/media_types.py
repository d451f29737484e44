"""Which media type a download has, by the rules of Rails' `send_stream`.

Rule: a full type is never touched, and no charset is ever added: what a file is saved as
does not depend on how its text was sent.
"""

from __future__ import annotations

import mimetypes

from ..errors import HeaderError

OCTET_STREAM = "application/octet-stream"

# What `mimetypes` says of these depends on the system (Windows' registry makes a spreadsheet of
# csv) or on the version of Python; and the short names that are no extensions.
_REGISTERED = {
    "7z": "application/x-7z-compressed",
    "atom": "application/atom+xml",
    "bz2": "application/x-bzip2",
    "csv": "text/csv",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "gz": "application/gzip",
    "gzip": "application/gzip",
    "html": "text/html",
    "ics": "text/calendar",
    "js": "text/javascript",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rss": "application/rss+xml",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "text": "text/plain",
    "tgz": "application/gzip",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "webp": "image/webp",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}


def media_type_of_download(type: str | None, filename: str | None, otherwise: str = OCTET_STREAM) -> str:
    """The Content-Type of a download.

    A full type stands as it is; a short name (`csv`) stands for what is registered under it,
    here or in the `mimetypes` module; without either, the filename's extension decides.
    Raises `HeaderError` for a short name that nobody has registered, and for a name that is no text.
    """
    if type is None:
        return _of_extension(filename) or otherwise
    if isinstance(type, str) and "/" in type:
        return type
    known = _registered(type.lower()) if isinstance(type, str) else None
    if known is None:
        raise HeaderError(
            f"wanted type as 'text/csv' (a media type) or 'csv' (a registered name), got {type!r}"
        )
    return known


def _of_extension(filename: str | None) -> str | None:
    if filename is None:
        return None
    if not isinstance(filename, str):
        raise HeaderError(f"wanted filename as text or None, got {filename!r}")
    stem, dot, extension = filename.rpartition(".")
    return _registered(extension.lower()) if stem and dot else None


def _registered(name: str) -> str | None:
    if name in _REGISTERED:
        return _REGISTERED[name]
    if not mimetypes.inited:
        mimetypes.init()
    return mimetypes.types_map.get(f".{name}")
