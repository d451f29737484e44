"""Send what is still being made as a file to be saved.

    streamkit.send_stream(export, "report.csv")                    # any producer
    streamkit.csv_rows(query.yield_per(1000), "report.csv", header=["id", "name"])
    streamkit.json_lines(events(), "events.jsonl")
    streamkit.zip_files(["/srv/a.pdf", ("b/notes.txt", notes())], "all.zip")
    streamkit.send_file("/srv/video.mp4", disposition="inline")    # with ranges

Memory stays constant however long the file becomes, and the client sees it grow. The price:
it cannot know how long that will be, unless `content_length` says it, and cannot resume.

An error before the first chunk is a real error. After it the rows that were made are sent and
the connection is cut, so that nobody takes the part for the whole: not even
`on_failure="finish"` of the app lets a download end as if it were complete (its own options
can). Each download that is served is one record at INFO of the logger `streamkit`, whose
`download` is a dict of `filename`, `disposition` and `type` as the caller gave them.

Rule: rooms in here describe; none of them knows an interface or an engine.
"""

from .description import Download, send_stream
from .files import FileDownload, send_file
from .rows import csv_rows, json_lines
from .zips import zip_files

__all__ = [
    "Download",
    "FileDownload",
    "csv_rows",
    "json_lines",
    "send_file",
    "send_stream",
    "zip_files",
]
