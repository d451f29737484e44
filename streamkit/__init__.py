"""Send a web response while it is still being made: any WSGI or ASGI app, any server.

    app = streamkit.wrap(app, {"high_water": 256 * 1024})
    return streamkit.stream(producer)

Rule: the face hands names on and holds no logic.
"""

from . import asgi, errors, sse, unbuffer, wsgi
from .core.completion import html_completion
from .core.headers import Headers
from .core.response import StreamingResponse, stream
from .core.stream import AsyncResponseStream, ResponseStream
from .downloads import Download, csv_rows, json_lines, send_file, send_stream, zip_files
from .engines.registry import shutdown
from .errors import (
    AlreadyCommitted,
    AlreadyServed,
    ApplicationFailed,
    BodyNotAllowed,
    BodyTooLong,
    BodyTooShort,
    BufferLimitExceeded,
    ClientDisconnected,
    EngineUnavailable,
    EventFieldError,
    EventTooLong,
    HeaderError,
    InvalidTimeout,
    NotAnApplication,
    OptionsError,
    ProducerError,
    ProtocolViolation,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamError,
    StreamKitError,
    TooManyStreams,
    UnsupportedData,
)
from .middleware import wrap
from .options import Options
from .sse import AsyncEventStream, EventStream, ServerSentEvent, event_stream
from .templates import Templates, chunked

__version__ = "0.1.0"

__all__ = [
    "AlreadyCommitted",
    "AlreadyServed",
    "ApplicationFailed",
    "AsyncEventStream",
    "AsyncResponseStream",
    "BodyNotAllowed",
    "BodyTooLong",
    "BodyTooShort",
    "BufferLimitExceeded",
    "ClientDisconnected",
    "Download",
    "EngineUnavailable",
    "EventFieldError",
    "EventStream",
    "EventTooLong",
    "HeaderError",
    "Headers",
    "InvalidTimeout",
    "NotAnApplication",
    "Options",
    "OptionsError",
    "ProducerError",
    "ProtocolViolation",
    "ResponseStream",
    "ServerSentEvent",
    "StreamAborted",
    "StreamClosed",
    "StreamEnded",
    "StreamError",
    "StreamKitError",
    "StreamingResponse",
    "Templates",
    "TooManyStreams",
    "UnsupportedData",
    "__version__",
    "asgi",
    "chunked",
    "csv_rows",
    "errors",
    "event_stream",
    "html_completion",
    "json_lines",
    "send_file",
    "send_stream",
    "shutdown",
    "sse",
    "stream",
    "unbuffer",
    "wrap",
    "wsgi",
    "zip_files",
]
