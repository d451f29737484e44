"""Layers that hold chunks back, out of the way of streams, and only of streams.

    app = unbuffer.strip(app)              # `streamkit.wrap` does so by its option `strip`
    print(unbuffer.report(app))

A layer that makes an ETag of the body, compresses it without flushing, or keeps it, has to see it
whole; a stream would arrive at its end. Such a layer is bypassed for streams, and works as ever
for every other response.

Rule: the face hands names on.
"""

from .reporting import Left, Report, Taken, report
from .stripping import strip

__all__ = ["Left", "Report", "Taken", "report", "strip"]
