"""A FastAPI app for a real server, whose rows come from a connection that a dependency keeps open.

    uvicorn tests.frameworks.fastapi_site:app

Rule: the dependency counts its connections; `/stats` tells.
"""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

import streamkit
from streamkit.frameworks.starlette import live, respond

DATABASE = Path(os.environ.get("STREAMKIT_SITE", ".")) / "site.sqlite3"
QUERY = "SELECT number, name FROM row ORDER BY number"

app = FastAPI()
counts = {"connections": 0, "opened": 0}


def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(DATABASE, check_same_thread=False)  # opened and closed by FastAPI's threads
    counts["opened"] += 1
    counts["connections"] += 1
    try:
        yield connection
    finally:
        connection.close()
        counts["connections"] -= 1


Database = Annotated[sqlite3.Connection, Depends(database)]


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/stats")
def stats() -> dict[str, int]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    # Not `ru_maxrss`, which knows the parent's too.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return {**counts, "resident": resident, "peak": peak}


@app.get("/export")
def export(database: Database) -> Any:
    return respond(streamkit.csv_rows(database.execute(QUERY), "rows.csv"))


@app.get("/export-async")
async def export_async(database: Database) -> Any:
    async def rows() -> AsyncIterator[Any]:
        for row in database.execute(QUERY):
            yield row

    return respond(streamkit.csv_rows(rows(), "rows.csv"))


@app.get("/export-live")
@live
def export_live(request: Request, stream: streamkit.ResponseStream, database: Database) -> None:
    stream.headers["Content-Type"] = "text/csv"
    rows = database.execute(QUERY)
    while batch := rows.fetchmany(1000):
        stream.write("".join(f"{number},{name}\r\n" for number, name in batch))
